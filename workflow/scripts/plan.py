"""Adapter of the rule `plan`."""

from pathlib import Path

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.files import write_json
    from teramind.plan.estimate import plan_record
    from teramind.plan.planned import planned
    from teramind.plan.table import plan_table

    plan, notes = planned(config, hardware=None, workers=1)
    write_json(snakemake.output.numbers, plan_record(plan, notes))
    Path(snakemake.output.table).write_text(plan_table(plan, notes) + "\n", encoding="utf-8")
