# Gene-gene attention: needs expression and network only, no image and no sampling step.

ATTENTION = results("attention")
# One z-window a job: there is no start-up of a GPU to share.
ATTENTION_SLABS = (
    [single for slab in layout.slabs(LAST) for single in layout.singles(slab)]
    if settings.attention
    else []
)
SUMS = [results(f"attention/sums/{slab}.npy") for slab in ATTENTION_SLABS]
ATTENTION_RECEIPTS = [
    results(f"attention/receipts/{slab}.json") for slab in ATTENTION_SLABS
]
ATTENTION_TABLES = []
ATTENTION_JOINT = []
ATTENTION_PICTURES = []

if settings.attention:
    from teramind.attention.pathways import read_pathways

    # Their names are file names below; without the file there is only a plan of the other jobs.
    try:
        there = Path(settings.attention.pathways).exists()
        PATHWAYS = (
            [p.name for p in read_pathways(settings.attention.pathways)]
            if there
            else []
        )
    except UserError as error:
        stop([f"attention.pathways: {error}"])
    ATTENTION_TABLES = [results("attention/genes.h5ad")]
    if settings.attention.regions:
        ATTENTION_TABLES.append(results("attention/pairs.tsv"))
    ATTENTION_JOINT = expand(
        results("attention/pictures/{pathway}/joint.png"), pathway=PATHWAYS
    )
    ATTENTION_PICTURES = expand(
        results("attention/pictures/{pathway}/section_{section:03d}.png"),
        pathway=PATHWAYS,
        section=SECTIONS,
    )

    def attention_receipts_of(wildcards):
        """Receipts of all slabs that hold a section."""
        window = layout.windows.of(int(wildcards.section))
        slabs = [slab for slab in ATTENTION_SLABS if slab.window == window]
        return [results(f"attention/receipts/{slab}.json") for slab in slabs]

    rule create_attention:
        input:
            provenance=ancient(PROVENANCE),
            raster=RASTER,
            checkpoint=[] if settings.trains else CHECKPOINT,
            pathways=given(settings.attention.pathways),
            regions=given(settings.attention.regions),
            synonyms=given(settings.expression.synonyms),
        output:
            results("attention/layout.json"),
        log:
            log_of("create_attention"),
        benchmark:
            benchmark_of("create_attention")
        localrule: True
        conda:
            "../../envs/volume.yaml"
        threads: 1
        resources:
            mem_mb=500,
            runtime=growing(10),
        params:
            folder=ATTENTION,
        message:
            "creating the empty volumes of the pathways"
        script:
            "../scripts/create_attention.py"

    rule attention:
        input:
            checkpoint=CHECKPOINT,
            raster=RASTER,
            layout=results("attention/layout.json"),
        output:
            receipt=results("attention/receipts/{slab}.json"),
            sums=results("attention/sums/{slab}.npy"),
        log:
            log_of("attention", "{slab}"),
        benchmark:
            benchmark_of("attention", "{slab}")
        conda:
            "../../envs/network.yaml"
        threads: settings.attention.threads
        resources:
            mem_mb=growing(4000),
            runtime=growing(240),
        params:
            folder=ATTENTION,
            units=settings.attention.units,
        message:
            "gene-gene attention of slab {wildcards.slab}"
        script:
            "../scripts/attention.py"

    rule attention_pyramid:
        input:
            attention_receipts_of,
        output:
            results("attention/pyramid/{section}.json"),
        log:
            log_of("attention_pyramid", "{section}"),
        benchmark:
            benchmark_of("attention_pyramid", "{section}")
        conda:
            "../../envs/volume.yaml"
        threads: 1
        resources:
            mem_mb=growing(1000),
            runtime=growing(60),
        params:
            folder=ATTENTION,
            pathways=PATHWAYS,
        message:
            "building the attention pyramids of section {wildcards.section}"
        script:
            "../scripts/attention_pyramid.py"

    rule attention_tables:
        input:
            receipts=ATTENTION_RECEIPTS,
            sums=SUMS,
        output:
            ATTENTION_TABLES,
        log:
            log_of("attention_tables"),
        benchmark:
            benchmark_of("attention_tables")
        conda:
            "../../envs/expression.yaml"
        threads: 1
        resources:
            mem_mb=growing(2000),
            runtime=growing(120),
        params:
            permutations=settings.attention.permutations,
        message:
            "averaging attention over sections and regions"
        script:
            "../scripts/attention_tables.py"

    rule attention_joint:
        input:
            receipts=ATTENTION_RECEIPTS,
        output:
            summary=results("attention/summary.json"),
            pictures=ATTENTION_JOINT,
        log:
            log_of("attention_joint"),
        benchmark:
            benchmark_of("attention_joint")
        conda:
            "../../envs/report.yaml"
        threads: 1
        resources:
            mem_mb=growing(1000),
            runtime=growing(240),
        params:
            folder=ATTENTION,
            pathways=PATHWAYS,
        message:
            "holding expression against attention"
        script:
            "../scripts/attention_joint.py"

    rule attention_pictures:
        input:
            summary=results("attention/summary.json"),
        output:
            expand(
                results("attention/pictures/{pathway}/section_{{section}}.png"),
                pathway=PATHWAYS,
            ),
        log:
            log_of("attention_pictures", "{section}"),
        benchmark:
            benchmark_of("attention_pictures", "{section}")
        conda:
            "../../envs/report.yaml"
        threads: 1
        resources:
            mem_mb=growing(1000),
            runtime=growing(30),
        params:
            folder=ATTENTION,
            pathways=PATHWAYS,
        message:
            "drawing the attention of section {wildcards.section}"
        script:
            "../scripts/attention_pictures.py"


ATTENTION_RESULTS = [
    *ATTENTION_TABLES,
    *ATTENTION_JOINT,
    *ATTENTION_PICTURES,
    *(
        expand(results("attention/pyramid/{section:03d}.json"), section=SECTIONS)
        if settings.attention
        else []
    ),
]
