"""The jobs of a run and the files they leave, counted as Snakemake will."""

from __future__ import annotations

from collections import Counter

from teramind.config import Config
from teramind.geometry import Layout
from teramind.volume.planned import planned_volume


def generate_jobs(layout: Layout) -> list[int]:
    """Slab jobs of each phase."""
    return [sum(1 for _ in layout.slabs(phase)) for phase in range(layout.phases)]


def jobs_per_rule(config: Config) -> Counter[str]:
    """Jobs of `snakemake` on an empty results folder, by the rule's name."""
    layout = config.layout()
    slabs = generate_jobs(layout)
    jobs = Counter({f"generate_p{phase:03d}": n for phase, n in enumerate(slabs)})
    jobs |= {"stitch": slabs[-1]}
    jobs |= dict.fromkeys(("pyramid", "export_wsi"), layout.windows.generated)
    jobs |= dict.fromkeys(("provenance", "bin_expression", "create_volume", "report", "all"), 1)
    compared = config.reference is not None
    optional = {"phantom": config.phantom is not None, "convert_checkpoint": config.converts}
    optional |= dict.fromkeys(("resample_images", "split", "fit_baseline"), compared)
    jobs |= {rule: 1 for rule, asked in optional.items() if asked}
    if compared or config.evaluation is not None:
        jobs |= {"evaluate_section": layout.windows.generated, "evaluate": 1}
    jobs |= {"download": len(config.archives)} if config.archives else {}
    if config.train and config.trains:
        early = range(config.train.rounds - 1)
        jobs |= dict.fromkeys(("train", *(f"train_r{number:03d}" for number in early)), 1)
    if config.attention is not None:
        jobs |= dict.fromkeys(("create_attention", "attention_tables", "attention_joint"), 1)
        sections = layout.windows.generated
        jobs |= dict.fromkeys(("attention_pyramid", "attention_pictures"), sections)
        last = layout.slabs(layout.phases - 1)
        jobs |= {"attention": sum(len(layout.windows_of(slab)) for slab in last)}
    return jobs


def files_left(config: Config, *, drawn_slabs: int) -> Counter[str]:
    """Files of a finished run by folder of the results; those of the raster are not known before.

    Args:
        config: the configuration.
        drawn_slabs: section-deep columns of a slab with tissue, one per section and slab; what
            is all background has no shards.
    """
    volume, layout = planned_volume(config), config.layout()
    jobs = jobs_per_rule(config)
    noted = sum(n for rule, n in jobs.items() if rule != "all")
    sections = layout.windows.generated
    shards = drawn_slabs * len(config.network.stains) * volume.levels
    metadata = volume.levels + 1
    files = Counter(
        {
            "volume/volume.zarr": shards + metadata,
            "volume/receipts": jobs["stitch"],
            "volume/pyramid": sections,
            "wsi": sections,
            "logs": noted,
            "benchmarks": noted,
        }
    )
    if jobs["evaluate_section"]:
        files["work/evaluation"] = jobs["evaluate_section"] + jobs["fit_baseline"]
    return files
