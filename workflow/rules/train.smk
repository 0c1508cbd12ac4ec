# Real images at the network's pixel size, and a network learned from them.

if settings.reference:

    rule resample_images:
        input:
            settings.reference.images
            if settings.phantom
            else given(settings.reference.images),
        output:
            directory(results("reference/images.zarr")),
        log:
            log_of("resample_images"),
        benchmark:
            benchmark_of("resample_images")
        conda:
            "../../envs/images.yaml"
        threads: 1
        resources:
            mem_mb=growing(2000),
            runtime=growing(120),
        params:
            white=settings.reference.white,
        message:
            "resampling {settings.reference.images}"
        script:
            "../scripts/resample_images.py"


if settings.trains:

    # The resumable state lives beside the outputs, not among them: Snakemake would delete it
    # when the job is killed.
    rule train:
        input:
            raster=RASTER,
            images=results("reference/images.zarr"),
            panel=given(settings.expression.panel),
        output:
            checkpoint=CHECKPOINT,
            losses=results("train/loss.csv"),
            picture=results("train/loss.png"),
        log:
            log_of("train"),
        benchmark:
            benchmark_of("train")
        conda:
            network_environment(settings.train.gpus)
        threads: settings.train.threads
        resources:
            mem_mb=growing(6000),
            runtime=2880,  # as long as most clusters allow; a retry goes on where it stopped
            gpu=settings.train.gpus,
        message:
            "training {settings.train.steps} steps"
        script:
            "../scripts/train.py"
