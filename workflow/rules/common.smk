# The configuration, checked before any rule is built, and the paths that rules share.
import sys
from pathlib import Path

sys.path.insert(0, str(workflow.basedir))

from teramind.config import (
    missing_files,
    parse_config,
    read_config,
    refuse_other_results,
)
from teramind.errors import UserError
from teramind.geometry import EMPTY, SLAB_PATTERN, Slab
from teramind.progress import show_progress

# A chain of phases is as deep as there are phases; Snakemake follows it by recursion.
sys.setrecursionlimit(20_000)

DRY_RUN = workflow.output_settings.dryrun


def results(path):
    """A path in the results folder."""
    return f"{settings.results}/{path}"


def log_of(rule, job="all"):
    """The log of a rule's jobs."""
    return results(f"logs/{rule}/{job}.log")


def benchmark_of(rule, job="all"):
    """Where Snakemake notes time and memory of a rule's jobs."""
    return results(f"benchmarks/{rule}/{job}.tsv")


def growing(megabytes):
    """Memory in MB that doubles with every retry."""
    return lambda wildcards, attempt: megabytes * 2 ** (attempt - 1)


def given(path):
    """A file of the user's as an input; a dry run makes its plan without it."""
    return [] if path is None or DRY_RUN and not Path(path).exists() else path


def stop(lines):
    """End with what is to be mended, one line each."""
    for line in lines:
        print(f"error: {line}", file=sys.stderr)
    sys.exit(1)


try:
    for (
        path
    ) in workflow.configfiles:  # Snakemake merged them, blind to keys given twice
        read_config(path)
    settings = parse_config(config)
    refuse_other_results(settings, Path(results("provenance.json")))
except UserError as error:
    stop(str(error).splitlines())

absent = missing_files(settings)
if absent and not DRY_RUN:
    stop(absent)
for line in absent:
    print(f"warning: {line}", file=sys.stderr)

layout = settings.layout()
CHECKPOINT = (
    results("train/checkpoint.safetensors")
    if settings.trains
    else given(settings.network.checkpoint)
)
RASTER = results("expression/raster.zarr")
VOLUME = results("volume/volume.zarr")
SECTIONS = range(layout.windows.first, layout.windows.first + layout.windows.generated)
LAST = layout.phases - 1


wildcard_constraints:
    slab=SLAB_PATTERN,
    section=r"\d\d\d+",


show_progress(layout, channels=len(settings.network.stains))
