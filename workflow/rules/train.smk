# Real images at the network's pixel size, and a network learned from them.

if settings.reference:

    rule resample_images:
        input:
            settings.reference.images
            if settings.phantom
            else given(settings.reference.images),
        output:
            directory(IMAGES),
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

    rule split:
        input:
            IMAGES,
        output:
            parts=SPLIT,
            picture=results("reference/split.png"),
        log:
            log_of("split"),
        benchmark:
            benchmark_of("split")
        conda:
            "../../envs/report.yaml"
        threads: 1
        resources:
            mem_mb=growing(1000),
            runtime=growing(30),
        params:
            asked=settings.reference.model_dump(include={"holdout", "split"}),
        message:
            "splitting the plane into training, validation and test part"
        script:
            "../scripts/split.py"


if settings.trains:

    # A job that may run for `train.minutes` only saves and ends; the next one goes on. The
    # resumable states lie beside the outputs, not among them: Snakemake would delete them when a
    # job is killed.
    #
    # A network that is there keeps the chain that made it, told by its records: with another one
    # Snakemake would train again, though `train.rounds` changes none of its numbers. A cluster's job
    # reads this anew when the records before its own are there, and takes the chain from them, too.
    # A round that may be at work has a rule in any case; one that nobody asks for does no harm.
    RECORDS = len(list(Path(results("work/train")).glob("round_*.json")))
    KEPT = Path(CHECKPOINT).exists() or not workflow.is_main_process
    LAST_ROUND = RECORDS if KEPT else settings.train.rounds - 1
    ROUNDS = [*range(max(settings.train.rounds - 1, RECORDS + 1)), LAST_ROUND]
    LEARNED_FROM = (
        {"lists": [given(path) for path in settings.train.tiles.lists]}
        if settings.train.tiles
        else {
            "raster": RASTER,
            "images": IMAGES,
            "split": SPLIT,
        }
    )
    LEARNED = {
        "checkpoint": CHECKPOINT,
        "losses": results("train/loss.csv"),
        "picture": results("train/loss.png"),
    }
    if not settings.train.tiles:
        LEARNED["samples"] = results("train/samples.png")

    def reached_in(number):
        """The record of a round of training."""
        return results(f"work/train/round_{number:03d}.json")

    for place, number in enumerate(ROUNDS, start=1):
        last = place == len(ROUNDS)

        rule:
            name:
                "train" if last else f"train_r{number:03d}"
            input:
                **LEARNED_FROM,
                panel=given(settings.expression.panel),
                gene_names=given(getattr(settings.expression, "gene_names", None)),
                start=given(settings.train.start),
                start_panel=given(settings.train.start_panel),
                before=reached_in(number - 1) if number else [],
            output:
                **(LEARNED if last else {"reached": reached_in(number)}),
            log:
                log_of("train", f"round_{number:03d}"),
            benchmark:
                benchmark_of("train", f"round_{number:03d}")
            conda:
                network_environment(settings.train.gpus)
            threads: settings.train.threads
            resources:
                mem_mb=growing(6000),
                runtime=(
                    int(settings.train.minutes) + 30
                    if settings.train.minutes
                    else growing(2880)
                ),
                gpu=settings.train.gpus,
            message:
                f"training {settings.train.steps} steps, round {number + 1} of {LAST_ROUND + 1} at most"
            script:
                "../scripts/train.py"
