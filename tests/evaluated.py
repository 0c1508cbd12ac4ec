"""An evaluation as the workflow makes it: the baseline, section by section, then the table."""

from teramind.evaluate.jobs import evaluate, evaluate_section, fit_baseline
from teramind.evaluate.sources import Sources
from teramind.volume import volume_layout
from teramind.volume.place import volume_place


def evaluate_volume(
    *, volume, raster, reference, holdout, lattice, summary, table, frechet=None, cellpose=None
):
    """Evaluate a volume beside its summary; returns that."""
    sources = Sources(volume, raster, reference, holdout, lattice)
    regression = summary.parent / "regression.json" if reference else None
    if reference:
        fit_baseline(sources, regression)
    layout = volume_layout(volume)
    first = volume_place(layout).first
    parts = []
    for section in range(first, first + layout.shape[1]):
        parts.append(summary.parent / f"{section:03d}.json")
        evaluate_section(sources, section, regression=regression, cellpose=cellpose, path=parts[-1])
    return evaluate(
        sources,
        sections=parts,
        regression=regression,
        frechet=frechet,
        summary=summary,
        table=table,
    )
