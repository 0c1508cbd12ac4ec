"""What is wrong between keys that are each right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from teramind.config.expression import MoleculeExpression, TileExpression
from teramind.config.published import published_conflicts
from teramind.errors import UserError
from teramind.geometry import EMPTY, Rect
from teramind.schedule import timesteps

if TYPE_CHECKING:
    from teramind.config.whole import Config

MOST_JOBS = 200_000
"""Snakemake takes about 22 MiB and 6.5 s to plan 1,000 jobs."""


MOST_TRAINED = 1 << 36
"""Pixels of a plane whose windows are numbered for training: nine brains, 256 MiB."""


def conflicts(config: Config) -> Iterator[str]:
    """One line for every pair of keys that contradict each other."""
    yield from published_conflicts(config.expression, config.network, config.download)
    yield from _sections(config)
    yield from _stains(config)
    yield from _panel(config)
    yield from _phantom(config)
    yield from _region(config)
    yield from _test_part(config)
    yield from _training(config)
    yield from _training_tiles(config)
    yield from _evaluation(config)
    yield from _generation(config)


def _sections(config: Config) -> Iterator[str]:
    """Sections that the expression or the windows cannot have."""
    expression, sections = config.expression, config.plane.sections
    if not isinstance(expression, TileExpression) and expression.section is None:
        if expression.section_values is not None:
            yield "expression.section: missing; section_values are those of its column"
        elif sections > 1:
            yield (
                f"expression.section: missing; without the column that tells the section all of "
                f"it is section 0, but plane.sections is {sections}"
            )
    listed = None if isinstance(expression, TileExpression) else expression.section_values
    if listed is not None and len(listed) != sections:
        yield (
            f"expression.section_values: got {len(listed)}; must be one for each of "
            f"plane.sections {sections}, in z order"
        )
    if not len(config.windows):
        yield (
            f"plane.sections: got {sections}; too few for windows of {config.network.sections} "
            f"sections, which lose {config.windows.first} at each end"
        )


def _stains(config: Config) -> Iterator[str]:
    stains = list(config.network.stains)
    if len({*stains}) < len(stains):
        yield f"network.stains: got {stains}; must differ"
    if config.reference and (strange := set(config.reference.white) - set(stains)):
        yield f"reference.white: got {sorted(strange)}; must be among network.stains {stains}"


def _panel(config: Config) -> Iterator[str]:
    if config.converts and config.expression.panel is None:
        yield "expression.panel: missing; only .safetensors checkpoints can carry gene names"


def _phantom(config: Config) -> Iterator[str]:
    """Files that making the phantom would take the place of, and another frame than its own."""
    if not config.phantom:
        return
    named = {"expression.source": (config.expression.source, "molecules.parquet")}
    if config.reference:
        named["reference.images"] = (config.reference.images, "images.ome.tif")
    for key, (path, name) in named.items():
        if path != (made := f"{config.results}/phantom/{name}"):
            yield f"{key}: got {path!r}; the phantom makes {made}; without `phantom` yours is read"
    expression, phantom, plane = config.expression, config.phantom, config.plane
    if not isinstance(expression, MoleculeExpression):
        yield f"expression.kind: got {expression.kind!r}; the phantom makes 'molecules'"
        return
    if expression.units != "um":
        yield f"expression.units: got {expression.units!r}; the phantom's molecules are in 'um'"
    if expression.origin != (0, 0):
        yield f"expression.origin: got {list(expression.origin)}; the phantom's is [0, 0]"
    if plane.rect.bottom > phantom.height or plane.rect.right > phantom.width:
        yield (
            f"plane: ends at [{plane.rect.bottom}, {plane.rect.right}], beyond the phantom's "
            f"[{phantom.height}, {phantom.width}]"
        )


def _region(config: Config) -> Iterator[str]:
    """A region that leaves the plane, or cannot be bounds."""
    patch, box = config.network.patch, config.box
    if not box:
        return
    if config.wanted.cut(config.volume) != config.wanted or min(box.height, box.width) < 1:
        yield f"region: got {list(box)}; must lie inside the plane {list(config.plane.rect)}"
    elif config.bounds == "region" and box != config.wanted:
        yield (
            f"region: got {list(box)}; as bounds its edges must be multiples of "
            f"network.patch ({patch})"
        )


def _test_part(config: Config) -> Iterator[str]:
    """A split with an empty part, or a test part that is not in the plane or will not be drawn."""
    if not config.reference:
        return
    held = Rect(*config.reference.holdout) if config.reference.holdout else None
    if held and (held.cut(config.plane.rect) != held or min(held.height, held.width) < 1):
        yield (
            f"reference.holdout: got {list(held)}; must lie inside the plane "
            f"{list(config.plane.rect)} and hold pixels"
        )
        return
    try:
        test = config.split().test
    except UserError as error:
        yield str(error)
        return
    if test and test.cut(config.wanted) == EMPTY:
        region = list(config.wanted)
        if held:
            yield f"reference.holdout: got {list(held)}; shares nothing with region {region}"
        else:
            yield (
                f"reference.split: its test part is {list(test)} and shares nothing with region "
                f"{region}; name a holdout inside it, or set test: 0"
            )


def _training(config: Config) -> Iterator[str]:
    """What training lacks, and what does not fit in its section."""
    if not config.trains:
        return
    asked = config.train
    if asked is None or not (config.reference or asked.tiles):
        yield "network.checkpoint: 'train' needs the sections train and reference"
    if config.expression.panel is None:
        yield "expression.panel: missing; training needs a gene list"
    if asked is None:
        return
    height, width = config.plane.height, config.plane.width
    if height * width > MOST_TRAINED and not asked.tiles:
        yield (
            f"plane: {height} x {width} pixels; training takes {MOST_TRAINED:,} at most, or tiles "
            f"(train.tiles)"
        )
    pieces = max(asked.gpus, 1) * asked.accumulate
    if asked.batch % pieces:
        yield (
            f"train.batch: got {asked.batch}; must be a multiple of train.gpus x train.accumulate "
            f"({max(asked.gpus, 1)} x {asked.accumulate})"
        )
    if asked.loss == "published" and "borders" in asked.model_fields_set and asked.borders:
        yield f"train.borders: got {asked.borders:g}; the published loss has none, leave it out"
    if asked.start_panel and not asked.start:
        yield f"train.start_panel: got {asked.start_panel!r}; without train.start it names nothing"
    if asked.rounds > 1 and asked.minutes is None:
        yield "train.minutes: missing; train.rounds above 1 needs it"


def _training_tiles(config: Config) -> Iterator[str]:
    """Parts of the plane that would be called kept from training, which never looks at them."""
    tiles = config.train.tiles if config.trains and config.train else None
    if not (tiles and config.reference):
        return
    if config.reference.split:
        yield "reference.split: parts the plane for training, but train.tiles is learned from"
    if (held := config.reference.holdout) and not tiles.leave_out:
        yield (
            f"reference.holdout: got {list(held)}; keeps nothing of train.tiles from training; "
            "name the mouse to be drawn in train.tiles.leave_out"
        )


def _evaluation(config: Config) -> Iterator[str]:
    """A distance from nothing."""
    name = config.evaluation.frechet if config.evaluation else None
    if name and not config.reference:
        yield (
            f"evaluation.frechet: got {name!r}; without reference there are no real images to be "
            "distant from"
        )


def _generation(config: Config) -> Iterator[str]:
    """Steps, slabs and phases that do not fit, or are more than can be planned."""
    run = config.generate
    if run.noise == "published" and run.seed:
        yield f"generate.seed: got {run.seed}; published noise has none, leave it out"
    checks: list[Callable[[], object]] = [
        lambda: timesteps(run.steps, run.solver),
        lambda: require_few_jobs(config),
    ]
    for check in checks:
        try:
            check()
        except UserError as error:
            yield f"generate.{error}"


def require_few_jobs(config: Config) -> None:
    """Count the jobs of slabs. Raises UserError when they are too many or do not fit."""
    layout, what = config.layout(), f"{config.generate.phases} phases"
    jobs = layout.jobs
    if config.attention:
        rows, cols = layout.grid(layout.phases - 1)
        jobs += len(rows) * len(cols) * len(layout.windows)
        what += " and attention"
    if jobs > MOST_JOBS:
        raise UserError(
            f"slab: {config.generate.slab} pixels make {jobs:,} jobs of {what}; Snakemake plans "
            f"{MOST_JOBS:,} at most, so it must be larger"
        )
