# What people look at: the report; and what a run would take.


rule report:
    input:
        pyramids=PYRAMIDS,
        raster=RASTER,
        provenance=ancient(PROVENANCE),
        panel=results("expression/panel.tsv"),
        summary=results("expression/summary.json"),
        receipts=RECEIPTS,
        slides=SLIDES,
        evaluation=results("evaluation.json") if EVALUATED else [],
        reference=IMAGES,
        split=SPLIT,
        losses=results("train/loss.png") if settings.trains else [],
        attention=(
            [results("attention/summary.json"), *ATTENTION_RESULTS]
            if settings.attention
            else []
        ),
    output:
        results("report.html"),
    log:
        log_of("report"),
    benchmark:
        benchmark_of("report")
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        volume=VOLUME,
        title=lambda wildcards: settings.title,  # or its braces would be wildcards
    message:
        "writing the report"
    script:
        "../scripts/report.py"


# `snakemake plan`: nothing of the run is made, only what it would take is written down. So the raster
# is no input: a source that is newer, or gone, would have Snakemake remove and make it again.
rule plan:
    input:
        checkpoint=(
            []
            if settings.trains or settings.converts
            else given(settings.network.checkpoint)
        ),
    output:
        table=results("plan.txt"),
        numbers=results("plan.json"),
    log:
        log_of("plan"),
    benchmark:
        benchmark_of("plan")
    localrule: True
    conda:
        "../../envs/network.yaml"
    threads: settings.generate.threads
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        settings=settings.model_dump(mode="json"),
        raster=Path(RASTER).stat().st_mtime_ns if Path(RASTER).exists() else None,
    message:
        "planning the run: see {output.table}"
    script:
        "../scripts/plan.py"
