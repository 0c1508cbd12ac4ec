"""What was run on what: the record beside the results."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from teramind import __version__
from teramind.config import Config, input_files
from teramind.config.results import holds_results
from teramind.files import digest, read_json, write_json

_PACKAGES = ("snakemake", "torch", "numpy", "scipy", "zarr", "tifffile", "imagecodecs", "pyarrow")


def versions() -> dict[str, str]:
    """Versions of teramind, Python and the packages that results depend on."""
    found = {"teramind": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_revision(folder: Path) -> str | None:
    """The checked-out revision of the project, with `+changes` when files differ from it."""
    try:
        run = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty=+changes"]
        return subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def checksum(path: Path) -> str | None:
    """Digest of a file; None for folders, whose files carry their own."""
    return digest(path) if path.is_file() else None


def write_provenance(config: Config, path: Path, *, project: Path) -> None:
    """Write provenance.json: the config as resolved, versions, revision, checksums of inputs."""
    record: dict[str, Any] = {
        "identity": config.identity(),
        "config": config.model_dump(mode="json"),
        **_program(project),
        "inputs": {
            str(path): checksum(path) for path in input_files(config).values() if path.exists()
        },
        "machine": {"system": platform.platform(), "processor": platform.machine()},
    }
    write_json(path, record)


def outdated(config: Config, path: Path, *, project: Path) -> bool:
    """Whether an input is newer than the record, if there is one, or the program another."""
    if not path.exists():
        return False
    newer = any(_newer(source, path) for source in input_files(config).values())
    return newer or _programs(read_json(path))[-1] != _program(project)


def update_provenance(config: Config, path: Path, *, project: Path) -> None:
    """Bring a record up to date: settings that the voxels do not depend on, and inputs.

    What began the volume stays: its versions and revision, beside which `later` lists those that
    went on with it, and the checksums of inputs that are gone. As long as nothing is made, the
    record is written anew.
    """
    if not holds_results(path.parent):
        write_provenance(config, path, project=project)
        return
    record, program = read_json(path), _program(project)
    known = record["inputs"]
    record["inputs"] = {
        str(source): checksum(source)
        if _newer(source, path) or str(source) not in known
        else known[str(source)]
        for source in input_files(config).values()
        if source.exists() or str(source) in known
    }
    if _programs(record)[-1] != program:
        record["later"] = [*_programs(record)[1:], program]
    record |= {"identity": config.identity(), "config": config.model_dump(mode="json")}
    write_json(path, record)


def _program(project: Path) -> dict[str, Any]:
    """What runs now."""
    return {"versions": versions(), "revision": git_revision(project)}


def _programs(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a record says was run: at first, and later."""
    first = {name: record.get(name) for name in ("versions", "revision")}
    return [first, *record.get("later", [])]


def _newer(source: Path, path: Path) -> bool:
    return source.exists() and source.stat().st_mtime_ns > path.stat().st_mtime_ns
