"""How closely generated sections follow real ones, against what expression alone gives."""

from teramind.evaluate.compare import evaluate
from teramind.evaluate.measure import Lattice
from teramind.evaluate.place import Place, volume_place

__all__ = ["Lattice", "Place", "evaluate", "volume_place"]
