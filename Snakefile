# Virtual brains from spatial gene expression. `snakemake --cores 2` runs the bundled example.


# A config given on the command line stands alone; it is not merged into the default one.
if not workflow.config_settings.configfiles:

    configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/download.smk"
include: "workflow/rules/expression.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/generate.smk"
include: "workflow/rules/volume.smk"
include: "workflow/rules/attention.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        RECEIPTS,
        PYRAMIDS,
        SLIDES,
        ATTENTION_RECEIPTS,
        ATTENTION_RESULTS,
        EVALUATION,
        results("report.html"),
    localrule: True


def asked_attention(wildcards):
    """Input function: all of the attention; whoever asks for it without its section is told."""
    if not settings.attention:
        stop(["attention: missing; attention_all makes what this section asks for"])
    return [*ATTENTION_RECEIPTS, *ATTENTION_RESULTS]


rule attention_all:
    input:
        asked_attention,
    localrule: True


onstart:
    # Not a rule's work: a record that is made again would hide from Snakemake what else changed.
    record, project = Path(PROVENANCE), Path(workflow.basedir)
    if DATA_NEEDED and (changed or outdated(settings, record, project=project)):
        update_provenance(settings, record, project=project)


onsuccess:
    remove_leftovers(settings.results)
    for name, path, program in (
        ("report", results("report.html"), ""),
        ("slides", results("wsi"), " (QuPath, Fiji)"),
        ("volume", VOLUME, " (napari)"),
    ):
        if Path(path).exists():
            print(f"{name}:  {path}{program}")
