"""A human section through a network of mice: symbols by orthologue, one section per window."""

import anndata
import numpy as np
import pandas as pd
import pytest
import yaml
from workflow_project import ROOT, Project, jobs_of, planned, write_network

from teramind.expression.panel import match_genes, read_panel, read_synonyms
from teramind.volume import read_volume

HUMAN = ROOT / "config/human.yaml"
PANEL = read_panel(ROOT / "resources/panels/human_81.txt")
ORTHOLOGUES = read_synonyms(ROOT / "resources/orthologues_human_mouse.tsv")
SYMBOLS = [human for human, mouse in ORTHOLOGUES.items() if mouse in PANEL][:81]


def test_every_gene_of_the_panel_has_one_human_symbol():
    assert len(PANEL) == 81
    current = [human for human, mouse in ORTHOLOGUES.items() if human == mouse.upper()]
    assert {ORTHOLOGUES[human] for human in current} >= set(PANEL)
    assert len({ORTHOLOGUES[human] for human in current}) == len(current)


def test_human_symbols_are_matched_former_ones_too():
    match = match_genes(["GAD1", "KIAA1199", "ACTB"], PANEL, ORTHOLOGUES)
    assert match.matched == ("Cemip", "Gad1")
    assert match.extra == ("ACTB",)


@pytest.fixture
def project(tmp_path):
    """The bundled config with its data made up, its network tiny and its plane small."""
    values = yaml.safe_load(HUMAN.read_text())
    values |= {"plane": {**values["plane"], "height": 128, "width": 192}}
    values |= {"generate": {"slab": 192, "steps": 2, "phases": 1}}
    values["network"] |= {"checkpoint": "network.safetensors"}
    for key in ("panel", "synonyms"):
        values["expression"][key] = str(ROOT / values["expression"][key])
    made = Project(tmp_path)
    made.values = values
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    changes = {"patch": 64, "sections": 1, "genes": 81, "panel": (), "pixel_size_um": None}
    write_network(tmp_path / "network.safetensors", **changes)
    (tmp_path / "data").mkdir()
    return made


def test_a_section_comes_out_and_the_report_says_what_survived(project):
    rng = np.random.default_rng(4)
    names = [*SYMBOLS[:60], "ACTB", "MALAT1"]
    cells = anndata.AnnData(
        rng.poisson(2.0, (40, len(names))).astype(np.float32),
        var=pd.DataFrame(index=names),
        obsm={"spatial": rng.uniform(2, [18, 12], (40, 2))},
    )
    cells.write_h5ad(project.folder / "data/human.h5ad")
    project.values["expression"] |= {"radius_um": 1}
    (project.folder / "config.yaml").write_text(yaml.safe_dump(project.values))
    assert planned(project.run()) == jobs_of(project.config)
    voxels = read_volume(project.results / "volume/volume.zarr")
    assert voxels.shape == (2, 1, 128, 192)
    assert voxels.any()
    assert (project.results / "wsi/section_000.ome.tif").is_file()
    table = pd.read_csv(project.results / "expression/panel.tsv", sep="\t")
    assert (table.status == "synonym").sum() == 60
    assert (table.status == "missing").sum() == 21
    assert set(table[table.status == "extra"].source_gene) == {"ACTB", "MALAT1"}
    assert "60 of the 81 genes" in (project.results / "report.html").read_text()


def test_a_molecule_table_is_read_as_well(project):
    rng = np.random.default_rng(5)
    table = pd.DataFrame(
        {
            "gene": rng.choice(SYMBOLS, 500),
            "x": rng.uniform(0, 20, 500),
            "y": rng.uniform(0, 13, 500),
        }
    )
    table.to_csv(project.folder / "data/human.csv", index=False)
    project.values["expression"] |= {"kind": "molecules", "source": "data/human.csv"}
    (project.folder / "config.yaml").write_text(yaml.safe_dump(project.values))
    project.run("--until", "bin_expression")
    found = pd.read_csv(project.results / "expression/panel.tsv", sep="\t")
    assert (found.status == "synonym").sum() == table.gene.nunique()
    assert found.molecules.sum() == 500
