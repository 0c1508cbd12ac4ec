# From stitched slabs to pyramids and slides, section by section.

PYRAMIDS = expand(results("volume/pyramid/{section:03d}.json"), section=SECTIONS)
SLIDES = expand(results("wsi/section_{section:03d}.ome.tif"), section=SECTIONS)


def receipts_of(wildcards):
    """Receipts of all slabs that hold a section."""
    window = layout.windows.of(int(wildcards.section))
    slabs = layout.slabs_of_window(window, LAST)
    return [results(f"volume/receipts/{slab}.json") for slab in slabs]


rule pyramid:
    input:
        receipts_of,
    output:
        results("volume/pyramid/{section}.json"),
    log:
        log_of("pyramid", "{section}"),
    benchmark:
        benchmark_of("pyramid", "{section}")
    conda:
        "../../envs/volume.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(240),
    params:
        volume=VOLUME,
    message:
        "building the pyramid of section {wildcards.section}"
    script:
        "../scripts/pyramid.py"


rule export_wsi:
    input:
        results("volume/pyramid/{section}.json"),
    output:
        results("wsi/section_{section}.ome.tif"),
    log:
        log_of("export_wsi", "{section}"),
    benchmark:
        benchmark_of("export_wsi", "{section}")
    conda:
        "../../envs/volume.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(240),
    params:
        volume=VOLUME,
        title=lambda wildcards: settings.title,  # or its braces would be wildcards
    message:
        "exporting the slide of section {wildcards.section}"
    script:
        "../scripts/export_wsi.py"


# Wants nothing made, so it checks whatever is there, finished or not.
rule verify:
    log:
        log_of("verify"),
    benchmark:
        benchmark_of("verify")
    retries: 0  # a second try would find the bad records gone, and all well
    conda:
        "../../envs/volume.yaml"
    threads: 2
    resources:
        mem_mb=growing(1000),
        runtime=growing(240),
    message:
        "comparing the volume with its records"
    script:
        "../scripts/verify.py"
