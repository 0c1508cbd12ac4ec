"""Adapter of the rules that train."""

from pathlib import Path

from teramind.run.job import job

with job(snakemake) as config:
    from teramind.errors import UserError
    from teramind.files import write_json
    from teramind.training.launch import reached, run_training

    log = Path(snakemake.log[0])
    finished = run_training(config, snakemake.config, threads=snakemake.threads, log=log)
    if record := snakemake.output.get("reached"):
        write_json(Path(record), {"finished": finished, "at": reached(config)})
    elif not finished:
        raise UserError(
            f"training: its time is over at {reached(config)}; all is saved, the same command goes "
            "on (more train.rounds let it do so by itself)"
        )
