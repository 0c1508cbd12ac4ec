"""Plan a run without running it: jobs, hours, memory, disk."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from teramind.config import parse_config
from teramind.config.reading import read_config
from teramind.errors import UserError
from teramind.run.fit import require_fit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The configuration, the machine, and the limits of a search."""
    parser.add_argument("--configfile", type=Path, default=Path("config.yaml"), help="of the run")
    parser.add_argument(
        "--hardware",
        help="machine by its name in resources/hardware.json, or a JSON file with its speed; "
        "by default a few patches are timed here",
    )
    parser.add_argument("--workers", type=int, default=1, help="jobs that run at a time")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--search", action="store_true", help="try slabs and phases")
    limits = parser.add_argument_group("limits of the search")
    limits.add_argument("--memory", type=float, metavar="GIB", help="of a job")
    limits.add_argument("--hours", type=float, help="of a job")
    limits.add_argument("--jobs", type=int, help="in all")
    limits.add_argument("--disk", type=float, metavar="GIB", help="of states and results")


def run(arguments: argparse.Namespace) -> None:
    """Print the plan, or the plans of a search.

    Raises:
        UserError: when the configuration or what it names cannot be read, no plan fits, or limits
            are given without a search.
    """
    from teramind.plan.assume import assume
    from teramind.plan.estimate import plan_record
    from teramind.plan.lacks import lacks
    from teramind.plan.planned import planned
    from teramind.plan.search import Limits, applied, search
    from teramind.plan.table import plan_table, search_table

    if arguments.workers < 1:
        raise UserError(f"--workers: got {arguments.workers}; must be at least 1")
    limits = Limits(arguments.memory, arguments.hours, arguments.jobs, arguments.disk)
    if limits != Limits() and not arguments.search:
        raise UserError("--memory, --hours, --jobs and --disk: limits of a search; add --search")
    config = parse_config(read_config(arguments.configfile))
    require_fit(config)
    hardware, workers = arguments.hardware, arguments.workers
    if not arguments.search:
        plan, notes = planned(config, hardware=hardware, workers=workers)
        shown = json.dumps(plan_record(plan, notes))
        print(shown if arguments.json else plan_table(plan, notes))
        return
    given, notes = assume(config, hardware=hardware, workers=workers)
    plans = search(config, given, limits)
    lines = [[*notes, *lacks(applied(config, plan), given.hardware, plan)] for plan in plans]
    if arguments.json:
        print(json.dumps({"plans": list(map(plan_record, plans, lines))}))
    else:
        print(search_table(plans), plan_table(plans[0], lines[0]), sep="\n\n")
