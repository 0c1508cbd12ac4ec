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
        slides,
        ATTENTION_RECEIPTS,
        ATTENTION_RESULTS,
        EVALUATION,
        results("report.html"),
    localrule: True


rule attention_all:
    input:
        ATTENTION_RECEIPTS,
        ATTENTION_RESULTS,
    localrule: True


onstart:
    # Not a rule's work: a record that is made again would hide from Snakemake what else changed.
    record = Path(results("provenance.json"))
    if changed or outdated(settings, record):
        update_provenance(settings, record, project=Path(workflow.basedir))


onsuccess:
    remove_leftovers(settings.results)
    for name, path, program in (
        ("report", results("report.html"), ""),
        ("slides", results("wsi"), " (QuPath, Fiji)"),
        ("volume", VOLUME, " (napari)"),
    ):
        if Path(path).exists():
            print(f"{name}:  {path}{program}")
