"""What the phantom is made of: genes, the cell types that express them, the regions they fill.

Markers are those by which transcriptomic atlases tell the types apart (Tasic et al., Nature 563,
2018; Zeisel et al., Cell 174, 2018; Yao et al., Nature 624, 2023), as far as the panel has them.
Densities are of the order that counts in the mouse give: 0.9e5 neurons per mm3 in the cortex on
average (Schuez and Palm, J Comp Neurol 286, 1989), other regions after the collection of Keller,
Eroe and Markram (Front Neuroanat 12, 2018); a cell layer's density is what its crowding leaves. The
granule layer is a few cells thick (Amaral, Scharfman and Lavenex, Prog Brain Res 163, 2007). Nuclei
measure 5 to 11 um: those of pyramidal cells large and pale, those of oligodendrocytes and microglia
small and bright, those of astrocytes between (Ling et al., J Comp Neurol 149, 1973). The numbers of
single types are rounded and made for the eye; none is a measurement.
"""

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


def _pyramidal(
    diameter_um: float, molecules: float, genes: Mapping[str, float], soma: float = 1.7
) -> CellType:
    return CellType(
        diameter_um,
        molecules,
        {"Slc17a7": 5, **genes},
        soma=soma,
        dapi=0.55,
        polyt=0.78,
        apical=True,
    )


CELL_TYPES: Mapping[str, CellType] = {
    "L2/3 pyramidal": _pyramidal(9.2, 170, {"Otof": 3, "Lamp5": 2, "Calb1": 2, "Cnr1": 1}),
    "L4 stellate": CellType(8.6, 160, {"Slc17a7": 5, "Rorb": 5}, soma=1.4, polyt=0.68),
    "L5 pyramidal": _pyramidal(10.8, 240, {"Bcl11b": 4, "Slc17a7": 3, "Rorb": 0.5}),
    "L6 pyramidal": _pyramidal(9.0, 170, {"Hs3st4": 5, "Bcl11b": 0.7}),
    "CA1 pyramidal": _pyramidal(8.6, 180, {"Bcl11b": 3, "Calb1": 2, "Slc17a7": 3}, 1.3),
    "CA3 pyramidal": _pyramidal(9.6, 210, {"Slc17a7": 5, "Hs3st4": 1.5, "Cnr1": 0.5}, 1.35),
    "granule": CellType(
        7.4, 120, {"C1ql3": 5, "Calb1": 4, "Slc17a7": 3}, soma=1.2, dapi=0.68, polyt=0.66
    ),
    "mossy": CellType(10.0, 190, {"Calb2": 5, "Slc17a7": 5}, soma=1.6, dapi=0.55, polyt=0.76),
    "thalamic": CellType(
        9.6, 180, {"Slc17a6": 6, "Calb2": 1, "Rorb": 1}, soma=1.6, dapi=0.55, polyt=0.72
    ),
    "habenular": CellType(7.6, 130, {"Slc17a6": 5, "Nr4a2": 4}, soma=1.3, polyt=0.62),
    "dopaminergic": CellType(
        10.2,
        220,
        {"Th": 6, "Slc6a3": 4, "Nr4a2": 3, "Slc17a6": 0.7},
        soma=1.65,
        dapi=0.52,
        polyt=0.85,
    ),
    "Pvalb interneuron": CellType(
        9.6, 190, {"Gad2": 4, "Slc32a1": 3, "Pvalb": 6}, soma=1.5, dapi=0.55, polyt=0.8
    ),
    "Vip interneuron": CellType(8.0, 150, {"Gad2": 4, "Slc32a1": 3, "Vip": 5, "Calb2": 2}),
    "Lamp5 interneuron": CellType(
        8.2, 150, {"Gad2": 4, "Slc32a1": 3, "Lamp5": 5, "Cnr1": 2, "Reln": 1}
    ),
    "Cajal-Retzius": CellType(8.0, 140, {"Reln": 7, "Calb2": 4}),
    "astrocyte": CellType(
        7.4, 100, {"Aqp4": 4, "Gja1": 4, "Slc1a3": 4, "Gfap": 1}, dapi=0.58, polyt=0.42
    ),
    "ependymal": CellType(
        6.8, 90, {"Aqp4": 2, "Gja1": 4, "Gfap": 1.5, "Slc1a3": 0.5}, dapi=0.68, polyt=0.55
    ),
    "oligodendrocyte": CellType(
        6.4, 100, {"Mog": 4, "Opalin": 3, "Sox10": 3}, dapi=0.78, polyt=0.48
    ),
    "microglia": CellType(5.8, 75, {"Ctss": 6}, dapi=0.76, polyt=0.4, elongation=1.5),
    "endothelial": CellType(
        6.0, 85, {"Cldn5": 5, "Fli1": 3, "Adgrf5": 3}, dapi=0.74, polyt=0.42, elongation=2.6
    ),
    "mural": CellType(6.0, 80, {"Acta2": 6, "Fli1": 0.5}, dapi=0.7, polyt=0.4, elongation=2.2),
    "fibroblast": CellType(6.2, 80, {"Dcn": 6}, dapi=0.72, polyt=0.4, elongation=2.2),
}

NEURONS = frozenset(
    name for name, kind in CELL_TYPES.items() if {"Slc17a7", "Slc17a6", "Gad2"} & set(kind.genes)
)
"""Types that release glutamate or GABA."""

_GLIA = {"astrocyte": 0.18, "oligodendrocyte": 0.08, "microglia": 0.06}
_INTERNEURONS = {"Pvalb interneuron": 0.06, "Vip interneuron": 0.04, "Lamp5 interneuron": 0.03}
_CORTEX = {**_GLIA, **_INTERNEURONS}


@dataclass(frozen=True)
class Region:
    """One region: cells per um3 before crowding, neuropil grey level in PolyT, mixture of types."""

    density: float
    neuropil: float
    mixture: Mapping[str, float]


REGIONS: Mapping[str, Region] = {
    "ventricle": Region(0.0, 6.0, {}),
    "outside": Region(0.0, 4.0, {}),
    "pia": Region(9e-4, 22.0, {"fibroblast": 0.7, "endothelial": 0.2, "mural": 0.1}),
    "L1": Region(
        6e-5,
        40.0,
        {"astrocyte": 0.45, "Lamp5 interneuron": 0.25, "Cajal-Retzius": 0.15, "microglia": 0.15},
    ),
    "L2/3": Region(36e-5, 35.0, {"L2/3 pyramidal": 0.55, **_CORTEX}),
    "L4": Region(52e-5, 37.0, {"L4 stellate": 0.55, **_CORTEX}),
    "L5": Region(24e-5, 33.0, {"L5 pyramidal": 0.55, **_CORTEX}),
    "L6": Region(34e-5, 31.0, {"L6 pyramidal": 0.55, **_CORTEX}),
    "white matter": Region(
        28e-5, 20.0, {"oligodendrocyte": 0.78, "astrocyte": 0.15, "microglia": 0.07}
    ),
    "CA1 pyramidal layer": Region(40e-4, 40.0, {"CA1 pyramidal": 0.96, "astrocyte": 0.04}),
    "CA3 pyramidal layer": Region(26e-4, 40.0, {"CA3 pyramidal": 0.95, "astrocyte": 0.05}),
    "hippocampal neuropil": Region(
        6e-5,
        33.0,
        {
            "astrocyte": 0.42,
            "oligodendrocyte": 0.12,
            "microglia": 0.14,
            "Pvalb interneuron": 0.17,
            "Lamp5 interneuron": 0.15,
        },
    ),
    "granule layer": Region(45e-4, 42.0, {"granule": 0.98, "astrocyte": 0.02}),
    "hilus": Region(
        12e-5,
        34.0,
        {"mossy": 0.4, "Pvalb interneuron": 0.2, "astrocyte": 0.28, "microglia": 0.12},
    ),
    "thalamus": Region(
        20e-5,
        29.0,
        {"thalamic": 0.58, "astrocyte": 0.18, "oligodendrocyte": 0.18, "microglia": 0.06},
    ),
    "medial habenula": Region(70e-5, 36.0, {"habenular": 0.88, "astrocyte": 0.12}),
    "substantia nigra": Region(
        42e-5, 35.0, {"dopaminergic": 0.7, "Pvalb interneuron": 0.08, **_GLIA}
    ),
    "ependyma": Region(45e-4, 30.0, {"ependymal": 1.0}),
}
"""The regions; a region's position in this mapping is its value in the label map."""

VENTRICLE, OUTSIDE = 0, 1
"""The labels of what is empty; those of tissue are larger."""
