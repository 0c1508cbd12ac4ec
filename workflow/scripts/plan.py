"""Adapter of the rule `plan`."""

from pathlib import Path

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.files import write_json
    from teramind.plan.assume import assume
    from teramind.plan.estimate import estimate, plan_record
    from teramind.plan.lacks import lacks
    from teramind.plan.table import plan_table

    given, notes = assume(config, hardware=None, workers=1)
    plan = estimate(config, given)
    notes += lacks(config, given.hardware, plan)
    write_json(snakemake.output.numbers, plan_record(plan, notes))
    Path(snakemake.output.table).write_text(plan_table(plan, notes) + "\n", encoding="utf-8")
