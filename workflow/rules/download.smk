# Published files: fetched when they are missing, and checkpoints brought into our form.


from teramind.files import read_json


def fetched(archive):
    """The record of a published archive that is in the download folder."""
    record = results(f"download/{archive}.json")
    asked = settings.download.sha256.get(archive)
    if asked and Path(record).exists():
        try:
            found = dict(read_json(record)).get("sha256")
        except (ValueError, TypeError):
            stop([f"{record}: not readable; remove it to fetch {archive} again"])
        if found != asked:
            stop(
                [
                    f"download.sha256: {archive}: got {asked}, but the sum of what was fetched is "
                    f"{found}; remove {record} to fetch it again"
                ]
            )
    return record


# The archives outlive this results folder, so they are not the outputs: Snakemake would delete a
# brain before fetching it anew. Compute nodes often see no network, hence local.
rule download:
    output:
        results("download/{archive}.json"),
    log:
        log_of("download", "{archive}"),
    benchmark:
        benchmark_of("download", "{archive}")
    localrule: True
    conda:
        "../../envs/download.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=2880,
    message:
        "fetching {wildcards.archive} to {settings.download.folder}"
    script:
        "../scripts/download.py"


if settings.converts:

    rule convert_checkpoint:
        input:
            fetched(settings.checkpoint_archive)
            if settings.checkpoint_archive
            else given(str(input_files(settings)["network.checkpoint"])),
            panel=given(settings.expression.panel),
        output:
            CHECKPOINT,
        log:
            log_of("convert_checkpoint"),
        benchmark:
            benchmark_of("convert_checkpoint")
        conda:
            "../../envs/network.yaml"
        threads: 1
        resources:
            mem_mb=growing(8000),
            runtime=growing(60),
        message:
            "converting the checkpoint {settings.network.checkpoint}"
        script:
            "../scripts/convert_checkpoint.py"
