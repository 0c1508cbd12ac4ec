"""Adapter of the rule `attention_joint`."""

from pathlib import Path

from teramind.run.job import job

with job(snakemake):
    from teramind.attention.joint import read_joint
    from teramind.attention.joint_picture import draw_joint
    from teramind.attention.pictures import display_limits
    from teramind.attention.volumes import volume_path
    from teramind.files import read_json, write_json

    genes = len(read_json(snakemake.input.receipts[0])["genes"])
    summary = {"network_genes": genes, "pathways": {}}
    pictures = snakemake.output.get("pictures", [])
    for name, picture in zip(snakemake.params.pathways, pictures, strict=True):
        volume = volume_path(Path(snakemake.params.folder), name)
        joint = read_joint(volume, genes)
        found = joint.regressions()
        draw_joint(joint, found, Path(picture), title=name)
        summary["pathways"][name] = {
            "limits": display_limits(volume, genes),
            "regressions": found,
        }
    write_json(snakemake.output.summary, summary)
