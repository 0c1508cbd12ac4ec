"""How closely generated sections follow real ones, against what expression alone gives."""

from teramind.evaluate.compare import evaluate, evaluate_section, fit_baseline
from teramind.evaluate.measure import Lattice
from teramind.evaluate.place import Place, volume_place
from teramind.evaluate.sources import Sources

__all__ = [
    "Lattice",
    "Place",
    "Sources",
    "evaluate",
    "evaluate_section",
    "fit_baseline",
    "volume_place",
]
