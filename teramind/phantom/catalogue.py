"""What the phantom is made of: genes, the cell types that express them, the regions they fill."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# fmt: off
PANEL: tuple[str, ...] = (
    "Rorb", "Nr4a2", "Slc1a3", "Vip", "Hs3st4", "Calb2", "Cnr1", "C1ql3",
    "Gad2", "Slc17a6", "Adgrf5", "Ctss", "Cldn5", "Sox10", "Otof", "Mog",
    "Bcl11b", "Gfap", "Lamp5", "Aqp4", "Th", "Reln", "Pvalb", "Calb1",
    "Gja1", "Slc17a7", "Acta2", "Dcn", "Slc6a3", "Opalin", "Fli1", "Slc32a1",
)
# fmt: on
"""The 32 genes of the phantom, in the order of the published 500-gene panel."""


@dataclass(frozen=True)
class CellType:
    """Looks and expression of one cell type.

    `soma` is the soma's radius in nucleus radii, `dapi` and `polyt` are brightness in 0..1,
    `molecules` the mean count of a cell that lies wholly inside a section, and `genes` the
    relative weights of its markers.
    """

    diameter_um: float
    molecules: float
    genes: Mapping[str, float]
    soma: float = 1.3
    dapi: float = 0.62
    polyt: float = 0.6
    elongation: float = 1.15
    apical: bool = False


def _pyramidal(diameter_um: float, molecules: float, genes: Mapping[str, float]) -> CellType:
    return CellType(
        diameter_um,
        molecules,
        {"Slc17a7": 5, **genes},
        soma=1.7,
        dapi=0.55,
        polyt=0.78,
        apical=True,
    )


CELL_TYPES: Mapping[str, CellType] = {
    "L2/3 pyramidal": _pyramidal(9.2, 130, {"Otof": 3, "Lamp5": 2, "Calb1": 2, "Cnr1": 1}),
    "L4 stellate": CellType(8.4, 115, {"Slc17a7": 5, "Rorb": 5}, soma=1.4, polyt=0.68),
    "L5 pyramidal": _pyramidal(10.8, 190, {"Bcl11b": 4, "Slc17a7": 3, "Rorb": 0.5}),
    "L6 pyramidal": _pyramidal(9.0, 125, {"Hs3st4": 5, "Bcl11b": 0.7}),
    "granule": CellType(
        6.8, 95, {"C1ql3": 5, "Calb1": 4, "Slc17a7": 3}, soma=1.25, dapi=0.72, polyt=0.66
    ),
    "midbrain glutamatergic": CellType(
        9.6, 140, {"Slc17a6": 6, "Calb2": 2, "Cnr1": 0.5}, soma=1.6, dapi=0.55, polyt=0.72
    ),
    "dopaminergic": CellType(
        10.2,
        180,
        {"Th": 6, "Slc6a3": 4, "Nr4a2": 3, "Slc17a6": 0.7},
        soma=1.65,
        dapi=0.52,
        polyt=0.85,
    ),
    "Pvalb interneuron": CellType(
        9.6, 150, {"Gad2": 4, "Slc32a1": 3, "Pvalb": 6}, soma=1.5, dapi=0.55, polyt=0.8
    ),
    "Vip interneuron": CellType(7.8, 110, {"Gad2": 4, "Slc32a1": 3, "Vip": 5, "Calb2": 2}),
    "Lamp5 interneuron": CellType(
        8.2, 110, {"Gad2": 4, "Slc32a1": 3, "Lamp5": 5, "Cnr1": 2, "Reln": 1}
    ),
    "Cajal-Retzius": CellType(8.0, 105, {"Reln": 7, "Calb2": 4}),
    "astrocyte": CellType(
        7.0, 65, {"Aqp4": 4, "Gja1": 4, "Slc1a3": 4, "Gfap": 1}, dapi=0.55, polyt=0.42
    ),
    "oligodendrocyte": CellType(
        5.8, 65, {"Mog": 4, "Opalin": 3, "Sox10": 3}, dapi=0.82, polyt=0.48
    ),
    "microglia": CellType(5.4, 45, {"Ctss": 6}, dapi=0.8, polyt=0.4, elongation=1.5),
    "endothelial": CellType(
        5.6, 55, {"Cldn5": 5, "Fli1": 3, "Adgrf5": 3}, dapi=0.78, polyt=0.42, elongation=3.0
    ),
    "mural": CellType(5.6, 50, {"Acta2": 6, "Fli1": 0.5}, dapi=0.7, polyt=0.4, elongation=2.4),
    "fibroblast": CellType(6.0, 50, {"Dcn": 6}, dapi=0.72, polyt=0.4, elongation=2.0),
}

_GLIA = {"astrocyte": 0.14, "oligodendrocyte": 0.05, "microglia": 0.05}
_INTERNEURONS = {"Pvalb interneuron": 0.07, "Vip interneuron": 0.04, "Lamp5 interneuron": 0.03}
_CORTEX = {**_GLIA, **_INTERNEURONS}


@dataclass(frozen=True)
class Region:
    """One region: cells per um3 before crowding, neuropil grey level in PolyT, mixture of types."""

    density: float
    neuropil: float
    mixture: Mapping[str, float]


REGIONS: Mapping[str, Region] = {
    "ventricle": Region(0.0, 7.0, {}),
    "L1": Region(
        9e-5,
        42.0,
        {
            "astrocyte": 0.35,
            "Lamp5 interneuron": 0.25,
            "Cajal-Retzius": 0.15,
            "microglia": 0.1,
            "fibroblast": 0.15,
        },
    ),
    "L2/3": Region(42e-5, 36.0, {"L2/3 pyramidal": 0.62, **_CORTEX}),
    "L4": Region(60e-5, 38.0, {"L4 stellate": 0.62, **_CORTEX}),
    "L5": Region(24e-5, 34.0, {"L5 pyramidal": 0.62, **_CORTEX}),
    "L6": Region(42e-5, 32.0, {"L6 pyramidal": 0.62, **_CORTEX}),
    "white matter": Region(
        36e-5, 22.0, {"oligodendrocyte": 0.82, "astrocyte": 0.12, "microglia": 0.06}
    ),
    "hippocampal neuropil": Region(
        11e-5,
        34.0,
        {
            "astrocyte": 0.4,
            "oligodendrocyte": 0.1,
            "microglia": 0.15,
            "Pvalb interneuron": 0.2,
            "Lamp5 interneuron": 0.15,
        },
    ),
    "granule band": Region(60e-4, 42.0, {"granule": 0.97, "astrocyte": 0.03}),
    "midbrain": Region(
        18e-5,
        28.0,
        {
            "midbrain glutamatergic": 0.45,
            "Pvalb interneuron": 0.12,
            "astrocyte": 0.2,
            "oligodendrocyte": 0.17,
            "microglia": 0.06,
        },
    ),
    "dopaminergic cluster": Region(40e-5, 36.0, {"dopaminergic": 0.75, **_GLIA}),
}
"""The regions; a region's position in this mapping is its value in the label map."""

VENTRICLE = 0
"""The label of the empty gap."""
