"""Peak memory and speed of making an expression raster, at several sizes.

    python benchmarks/expression.py molecules [MILLIONS ...]   # default 12 25 50
    python benchmarks/expression.py tiles [TILES ...]          # default 125 250 500

`molecules` bins Parquet tables of random molecules over 4 sections of 24,000 x 24,000 pixels; 50
million are a hundredth of a whole brain. `tiles` bins made-up published tiles of 50 sections x 500
genes out of their zip, as densely filled as a brain of 5e9 molecules in 118,404 tiles. Every raster
is made in a process of its own, whose peak memory and CPU time are printed, with what the whole
brain takes at that speed. CPU time hardly moves when other work runs on the machine.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

MILLION = 1_000_000
SECTIONS, EDGE_UM, PIXEL_UM, GENES = 4, 12_000.0, 0.5, 500
PANEL = [f"gene_{gene}" for gene in range(GENES)]
BRAIN_MOLECULES, BRAIN_TILES, BRAIN_SECTIONS = 5e9, 118_404, 50
TILE, QUARTER = 256, 128
"""Edges in pixels of a published tile and of its quarters; a file frames a tile by one quarter."""

BIN = """
import json, resource, sys
from teramind.expression.bin_expression import bin_expression
from teramind.expression.molecules import MoleculeColumns, MoleculeSettings
from teramind.expression.tiles import TileSettings
from teramind.geometry import Rect
asked = json.loads(sys.argv[1])
settings = {
    "molecules": MoleculeSettings(columns=MoleculeColumns(section="section")),
    "tiles": TileSettings(genes=len(asked["panel"])),
}
extent, kind = asked.pop("extent"), asked.pop("kind")
made = bin_expression(**asked, extent=extent and Rect(*extent), settings=settings[kind])
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([made["molecules_in_raster"], used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""


def write_molecules(path: Path, millions: int) -> None:
    """A table of `millions` million molecules, a million at a time."""
    random = np.random.default_rng(0)
    types = [("gene", pa.dictionary(pa.int32(), pa.string()))]
    types += [("y", pa.float32()), ("x", pa.float32()), ("section", pa.int8())]
    with pa.parquet.ParquetWriter(path, pa.schema(types)) as writer:
        for _ in range(millions):
            y, x = random.random((2, MILLION), np.float32) * EDGE_UM
            gene = random.integers(GENES, size=MILLION, dtype=np.int32)
            section = random.integers(SECTIONS, size=MILLION, dtype=np.int8)
            columns = [pa.DictionaryArray.from_arrays(gene, PANEL), y, x, section]
            writer.write_table(pa.table(columns, schema=writer.schema))


@lru_cache(maxsize=1024)
def quarter(row: int, column: int) -> NDArray[np.int64]:
    """The molecules of one quarter tile, the same for every tile that frames it: (4, n)."""
    random = np.random.default_rng((row, column))
    n = random.poisson(BRAIN_MOLECULES / BRAIN_TILES / 4)
    limits = (QUARTER, QUARTER, BRAIN_SECTIONS * GENES)
    return np.stack([random.integers(0, limit, n) for limit in limits])


def tile_content(row: int, column: int) -> tuple[str, bytes]:
    """Name and content of a published tile."""
    y, x = TILE * row, TILE * column
    own = f"{y}_{y + TILE}_{x}_{x + TILE}"
    framed = f"{y - QUARTER}_{y + TILE + QUARTER}_{x - QUARTER}_{x + TILE + QUARTER}"
    parts = [
        quarter(2 * row - 1 + i, 2 * column - 1 + j) + np.array([[QUARTER * i], [QUARTER * j], [0]])
        for i in range(4)
        for j in range(4)
    ]
    coords, counts = np.unique(np.concatenate(parts, 1), axis=1, return_counts=True)
    content = io.BytesIO()
    np.savez_compressed(
        content,
        coords=coords,
        data=counts.astype(np.uint16),
        shape=np.array([2 * TILE, 2 * TILE, BRAIN_SECTIONS * GENES]),
        fill_value=np.array(0, np.uint16),
    )
    return f"{own}_{framed}.npz", content.getvalue()


def write_tiles(path: Path, tiles: int) -> None:
    """A zip of so many tiles, 25 in a row."""
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(tiles):
            archive.writestr(*tile_content(1 + k // 25, 1 + k % 25))


def measure(
    kind: str, write: Callable[[Path, int], None], size: int, **plane: Any
) -> tuple[int, float, float, float]:
    """Molecules in the raster, CPU seconds and peak GiB of making it, and its size in GiB."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / {"molecules": "molecules.parquet", "tiles": "tiles.zip"}[kind]
        write(source, size)
        asked = {"source": str(source), "kind": kind, "panel": PANEL, **plane}
        asked |= {"raster_path": f"{name}/raster.zarr", "panel_table_path": f"{name}/panel.tsv"}
        run = subprocess.run(
            [sys.executable, "-c", BIN, json.dumps(asked)], check=True, capture_output=True
        )
        molecules, seconds, peak = json.loads(run.stdout)
        files = [file for file in (folder / "raster.zarr").rglob("*") if file.is_file()]
        stored = sum(file.stat().st_size for file in files)
    return molecules, seconds, peak / 2**20, stored / 2**30


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("molecules", "tiles"))
    parser.add_argument("sizes", nargs="*", type=int)
    asked = parser.parse_args()
    edge = int(EDGE_UM / PIXEL_UM)
    for size in asked.sizes or {"molecules": (12, 25, 50), "tiles": (125, 250, 500)}[asked.kind]:
        if asked.kind == "molecules":
            plane = {"sections": SECTIONS, "extent": [0, 0, edge, edge], "pixel_size_um": PIXEL_UM}
            found = measure("molecules", write_molecules, size, **plane)
            whole, words = BRAIN_MOLECULES / size / MILLION, f"{size} million molecules"
        else:
            plane = {"sections": BRAIN_SECTIONS, "extent": None}
            found = measure("tiles", write_tiles, size, **plane)
            whole, words = BRAIN_TILES / size, f"{size} tiles"
        molecules, seconds, peak, stored = found
        print(
            f"{words}: {molecules:,} molecules, {seconds:.0f} s of CPU, {size / seconds:.2f} per "
            f"second, peak {peak:.2f} GiB, raster {stored:.2f} GiB; whole brain "
            f"{whole * seconds / 3600:.1f} h of CPU, raster {whole * stored:.0f} GiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
