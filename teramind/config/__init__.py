"""The workflow's configuration: one typed model per section, every key with its meaning.

Validation collects all problems and names each key, what it got and what it may be.
"""

from teramind.config.attention import Attention
from teramind.config.expression import CellExpression, MoleculeExpression, TileExpression
from teramind.config.inputs import input_files, missing_files, missing_packages
from teramind.config.learning import Train
from teramind.config.parse import parse_config
from teramind.config.results import (
    differences,
    other_settings,
    refuse_other_results,
    refuse_unwritable_results,
)
from teramind.config.values import flatten
from teramind.config.whole import FROM_TRAINING, Config

__all__ = [
    "FROM_TRAINING",
    "Attention",
    "CellExpression",
    "Config",
    "MoleculeExpression",
    "TileExpression",
    "Train",
    "differences",
    "flatten",
    "input_files",
    "missing_files",
    "missing_packages",
    "other_settings",
    "parse_config",
    "refuse_other_results",
    "refuse_unwritable_results",
]
