# From molecules, cells or tiles to the expression raster.


# Without inputs: Snakemake 9.27 overlooks what changed below a job that runs again, even if it is
# an ancient input. When inputs change, `onstart` brings the record up to date.
rule provenance:
    output:
        PROVENANCE,
    log:
        log_of("provenance"),
    benchmark:
        benchmark_of("provenance")
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=growing(60),
    message:
        "recording settings, versions and checksums"
    script:
        "../scripts/provenance.py"


if settings.phantom:

    rule phantom:
        output:
            molecules=settings.expression.source,
            images=(
                settings.reference.images
                if settings.reference
                else results("phantom/images.ome.tif")
            ),
        log:
            log_of("phantom"),
        benchmark:
            benchmark_of("phantom")
        conda:
            "../../envs/phantom.yaml"
        threads: 1
        resources:
            mem_mb=growing(4000),
            runtime=growing(60),
        message:
            "making a phantom of {settings.phantom.height} x {settings.phantom.width} pixels"
        script:
            "../scripts/phantom.py"


def binned_from(path):
    """A file that is not needed again once there is a raster, but stays that raster's input."""
    return path if path and Path(RASTER).exists() else given(path)


SOURCE = settings.expression.source
if settings.source_archive:
    SOURCE = fetched(settings.source_archive)
elif not settings.phantom:
    SOURCE = binned_from(SOURCE)


rule bin_expression:
    input:
        source=SOURCE,
        provenance=ancient(PROVENANCE),
        panel=(
            given(settings.expression.panel)
            if settings.expression.panel
            else CHECKPOINT
        ),
        # Says how many of a list's genes it reads; the raster holds all of them and stays the same.
        checkpoint=(
            ancient(CHECKPOINT)
            if settings.expression.panel and not settings.trains
            else []
        ),
        synonyms=binned_from(settings.expression.synonyms),
        gene_names=given(getattr(settings.expression, "gene_names", None)),
    output:
        raster=directory(RASTER),
        panel=results("expression/panel.tsv"),
        summary=results("expression/summary.json"),
    log:
        log_of("bin_expression"),
    benchmark:
        benchmark_of("bin_expression")
    conda:
        "../../envs/expression.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(480),
    message:
        "binning {settings.expression.source}"
    script:
        "../scripts/bin_expression.py"
