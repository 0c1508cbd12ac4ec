# The comparison with real images: each section by itself, then all of them as one table.

EVALUATED = settings.reference or settings.evaluation
EVALUATION = (
    expand(results("evaluation.{kind}"), kind=["json", "csv", "parquet"])
    if EVALUATED
    else []
)
REGRESSION = results("work/evaluation/regression.json") if settings.reference else []

if EVALUATED:
    WEIGHTS = {key: str(path) for key, path in input_files(settings).items()}

    if settings.reference:

        rule fit_baseline:
            input:
                layout=results("volume/layout.json"),
                raster=RASTER,
                images=IMAGES,
                split=SPLIT,
            output:
                REGRESSION,
            log:
                log_of("fit_baseline"),
            benchmark:
                benchmark_of("fit_baseline")
            conda:
                "../../envs/evaluate.yaml"
            threads: 1
            resources:
                mem_mb=growing(2000),
                runtime=growing(240),
            message:
                "fitting the regression to compare with"
            script:
                "../scripts/fit_baseline.py"

    rule evaluate_section:
        input:
            pyramid=results("volume/pyramid/{section}.json"),
            raster=RASTER,
            images=IMAGES,
            split=SPLIT,
            regression=REGRESSION,
            cellpose=given(WEIGHTS.get("evaluation.cellpose")),
        output:
            results("work/evaluation/{section}.json"),
        log:
            log_of("evaluate_section", "{section}"),
        benchmark:
            benchmark_of("evaluate_section", "{section}")
        conda:
            "../../envs/evaluate.yaml"
        threads: 1
        resources:
            mem_mb=growing(4000),
            runtime=growing(480),
        message:
            "measuring section {wildcards.section}"
        script:
            "../scripts/evaluate_section.py"

    rule evaluate:
        input:
            sections=expand(
                results("work/evaluation/{section:03d}.json"), section=SECTIONS
            ),
            pyramids=PYRAMIDS,
            raster=RASTER,
            images=IMAGES,
            split=SPLIT,
            regression=REGRESSION,
            weights=given(WEIGHTS.get("evaluation.frechet")),
        output:
            summary=results("evaluation.json"),
            table=results("evaluation.csv"),
            parquet=results("evaluation.parquet"),
        log:
            log_of("evaluate"),
        benchmark:
            benchmark_of("evaluate")
        conda:
            "../../envs/evaluate.yaml"
        threads: 1
        resources:
            mem_mb=growing(4000),
            runtime=growing(120),
        params:
            frechet=settings.evaluation.frechet if settings.evaluation else None,
        message:
            "bringing the sections' measures together"
        script:
            "../scripts/evaluate.py"
