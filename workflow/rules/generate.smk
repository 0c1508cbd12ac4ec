# Slabs, phase by phase. A slab's phase needs the phase before of itself and the slabs around it,
# so the graph of jobs is the boundary-aware order. One rule per phase: a rule that fed itself would
# make every cluster job rebuild the graph of its ancestors.


def state_of(phase, slab="{slab}"):
    """The state of a slab at the end of a phase."""
    return results(f"work/p{phase:03d}/{slab}.safetensors")


def slab_of(wildcards, phase):
    """The slab that a file is named after; whoever asks for one that is not there is told."""
    slab = Slab.parse(wildcards.slab)
    try:
        layout.require(slab, phase)
    except UserError as error:
        stop([str(error)])
    return slab


def states_before(phase):
    """Input function: the states that a slab reads in `phase`."""

    def states(wildcards):
        slab = slab_of(wildcards, phase)
        near = layout.sources(slab, phase) if phase else []
        return [state_of(phase - 1, other) for other in near]

    return states


def turn(phase):
    """Priority: the order of `Layout.priority`, which keeps few states on the disk at a time."""
    return lambda wildcards: layout.priority(Slab.parse(wildcards.slab), phase)


for phase in range(layout.phases):

    rule:
        name:
            f"generate_p{phase:03d}"
        input:
            checkpoint=CHECKPOINT,
            raster=RASTER,
            states=states_before(phase),
        output:
            temp(state_of(phase)),
        log:
            log_of(f"generate_p{phase:03d}", "{slab}"),
        benchmark:
            benchmark_of(f"generate_p{phase:03d}", "{slab}")
        priority: turn(phase)
        conda:
            network_environment(settings.generate.gpus)
        threads: settings.generate.threads
        resources:
            mem_mb=growing(slab_job_megabytes(settings, phase)),
            runtime=growing(settings.generate.minutes),
            gpu=settings.generate.gpus,
        params:
            phase=phase,
        message:
            f"generating slab {{wildcards.slab}}, phase {phase + 1} of {layout.phases}"
        script:
            "../scripts/generate.py"


rule create_volume:
    input:
        ancient(PROVENANCE),
        # A mistake that the data show is to leave nothing behind.
        ancient(RASTER),
    output:
        results("volume/layout.json"),
    log:
        log_of("create_volume"),
    benchmark:
        benchmark_of("create_volume")
    # Before any slab's turn: stitching waits for it.
    priority: 2**40
    localrule: True
    conda:
        "../../envs/volume.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=growing(10),
    params:
        volume=VOLUME,
    message:
        "creating the empty volume"
    script:
        "../scripts/create_volume.py"


def beside(dy, dx):
    """Input function: the last state of the slab `dy` rows below and `dx` columns to the right."""

    def state(wildcards):
        slab = slab_of(wildcards, LAST)
        other = slab._replace(row=slab.row + dy, col=slab.col + dx)
        return state_of(LAST, other) if layout.core(other, LAST) != EMPTY else []

    return state


rule stitch:
    input:
        checkpoint=CHECKPOINT,
        raster=RASTER,
        layout=ancient(results("volume/layout.json")),
        state=state_of(LAST),
        right=beside(0, 1),
        below=beside(1, 0),
    output:
        results("volume/receipts/{slab}.json"),
    log:
        log_of("stitch", "{slab}"),
    benchmark:
        benchmark_of("stitch", "{slab}")
    priority: turn(layout.phases)
    conda:
        "../../envs/volume.yaml"
    threads: 1
    resources:
        mem_mb=growing(stitch_megabytes(settings)),
        runtime=growing(60),
    params:
        volume=VOLUME,
    message:
        "stitching slab {wildcards.slab}"
    script:
        "../scripts/stitch.py"


# Targets of their own, like the pyramids: a record that is removed asks for its shards again.
RECEIPTS = [results(f"volume/receipts/{slab}.json") for slab in layout.slabs(LAST)]
