"""The volumes of pathways are made for what the network reads, and others' are removed."""

import pytest
from workflow_project import config_with, write_network

from teramind.attention.volumes import create_pathway_volumes
from teramind.config import parse_config
from teramind.errors import UserError
from teramind.expression.raster_writer import RasterWriter
from teramind.geometry import Rect

PANEL = ("Gad1", "Slc17a7", "Th", "Vip")


@pytest.fixture
def create(tmp_path):
    """Create the volumes of pathways, name -> genes; the network reads the first three genes."""
    with RasterWriter(tmp_path / "raster", panel=PANEL, sections=2, extent=Rect(0, 0, 128, 192)):
        pass  # nothing in it
    write_network(tmp_path / "network.safetensors", panel=PANEL[:3])

    def make(pathways, *, trained=True, **changes):
        lines = ("\t".join((name, "", *genes)) for name, genes in pathways.items())
        (tmp_path / "p.gmt").write_text("\n".join(lines))
        config = parse_config(
            config_with(attention__pathways=str(tmp_path / "p.gmt"), generate__slab=128, **changes)
        )
        return create_pathway_volumes(
            config,
            tmp_path / "attention",
            raster=tmp_path / "raster",
            checkpoint=tmp_path / "network.safetensors" if trained else None,
        )

    return make


def test_genes_beyond_those_that_the_network_reads_are_refused(create):
    with pytest.raises(UserError, match=r"not on the panel of 3 genes: Vip \(A\)"):
        create({"A": ("Gad1", "Vip")})
    assert create({"A": ("Gad1", "th")}) == {"A": ["Gad1", "Th"]}


def test_a_network_that_is_yet_to_learn_reads_all_genes(create):
    assert create({"A": ("Gad1", "Vip")}, trained=False) == {"A": ["Gad1", "Vip"]}
