# The configuration, checked before any rule is built, and the paths that rules share.
import os
import sys
from pathlib import Path

# This checkout's code in every job, on any node and in any conda environment, whatever is installed.
sys.path.insert(0, str(workflow.basedir))
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(workflow.basedir), *filter(None, [os.environ.get("PYTHONPATH")])]
)

from teramind.config import (
    input_files,
    missing_files,
    missing_packages,
    other_settings,
    parse_config,
    refuse_other_results,
    refuse_unwritable_results,
)
from teramind.config.reading import read_config
from teramind.config.results import holds_results
from teramind.errors import UserError
from teramind.files import remove_leftovers
from teramind.run.fit import require_fit
from teramind.geometry import EMPTY, SLAB_PATTERN, Slab
from teramind.run.job_memory import (
    megabytes_here,
    slab_job_megabytes,
    stitch_megabytes,
)
from teramind.run.progress import show_progress
from teramind.run.provenance import outdated, update_provenance

# A chain of phases is as deep as there are phases; Snakemake follows it by recursion.
sys.setrecursionlimit(20_000)

DRY_RUN = workflow.output_settings.dryrun
# Two targets read no data of the user's. Snakemake tells what is asked for only after this file.
DATA_NEEDED = not any(word.partition(":")[0] in ("plan", "verify") for word in sys.argv)

# Snakemake limits a cluster's jobs by number, and those of one machine by cores alone.
if workflow.is_main_process and workflow.resource_settings.nodes is None:
    for resource, amount in {"mem_mb": megabytes_here(), "gpu": 1}.items():
        if resource not in workflow.resource_settings.resources:
            workflow.register_resource(resource, amount)


def results(path):
    """A path in the results folder."""
    return f"{settings.results}/{path}"


def log_of(rule, job="all"):
    """The log of a rule's jobs."""
    return results(f"logs/{rule}/{job}.log")


def benchmark_of(rule, job="all"):
    """Where Snakemake notes time and memory of a rule's jobs."""
    return results(f"benchmarks/{rule}/{job}.tsv")


def growing(first):
    """Memory in MB or time in minutes that doubles with every retry."""
    return lambda wildcards, attempt: first * 2 ** (attempt - 1)


def network_environment(gpus):
    """The conda environment of a rule that runs the network."""
    return "../../envs/network_cuda.yaml" if gpus else "../../envs/network.yaml"


def given(path):
    """A file of the user's as an input; a dry run makes its plan without it."""
    spared = DRY_RUN or not DATA_NEEDED
    return [] if path is None or spared and not Path(path).exists() else path


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
    refuse_other_results(settings)
    changed = other_settings(settings)
    require_fit(settings)
    if not DRY_RUN:
        refuse_unwritable_results(settings)
except UserError as error:
    stop(str(error).splitlines())

absent = missing_files(settings)
if not workflow.deployment_settings.deployment_method:  # else jobs have other packages
    absent += missing_packages(settings)
if absent and DATA_NEEDED and not DRY_RUN:
    stop(absent)
for line in changed if holds_results(Path(settings.results)) else ():
    print(
        f"note: {line}; the voxels stay, what else depends on it is made again",
        file=sys.stderr,
    )
for line in absent:
    print(f"warning: {line}", file=sys.stderr)

layout = settings.layout()
if settings.trains:
    CHECKPOINT = results("train/checkpoint.safetensors")
elif settings.converts:
    CHECKPOINT = results("checkpoint.safetensors")
else:
    CHECKPOINT = given(settings.network.checkpoint)
# The package knows the places of these, too: settings.files.
PROVENANCE = results("provenance.json")
RASTER = results("expression/raster.zarr")
IMAGES = results("reference/images.zarr") if settings.reference else []
SPLIT = results("reference/split.json") if settings.reference else []
VOLUME = results("volume/volume.zarr")
SECTIONS = layout.windows.drawn
LAST = layout.phases - 1


wildcard_constraints:
    slab=SLAB_PATTERN,
    section=r"\d\d\d+",


show_progress(layout, channels=len(settings.network.stains))
