"""Peak memory and speed of binning a large molecule table.

Writes a Parquet table of random molecules over 4 sections of 24,000 x 24,000 pixels to a temporary
folder, bins it in a process of its own, and prints that process's peak memory and its speed.

    python benchmarks/expression_memory.py [millions of molecules, default 50]
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

MILLION = 1_000_000
SECTIONS, EDGE_UM, PIXEL_UM, GENES = 4, 12_000.0, 0.5, 500
PANEL = [f"gene_{gene}" for gene in range(GENES)]

BIN = """
import json, sys
from teramind.expression.bin_expression import bin_expression
from teramind.expression.molecules import MoleculeColumns, MoleculeSettings
from teramind.geometry import Rect
folder, sections, edge, pixel, panel = json.loads(sys.argv[1])
print(bin_expression(
    source=f"{folder}/molecules.parquet", kind="molecules", raster_path=f"{folder}/raster.zarr",
    panel=panel, sections=sections, extent=Rect(0, 0, int(edge / pixel), int(edge / pixel)),
    panel_table_path=f"{folder}/panel.tsv", pixel_size_um=pixel,
    settings=MoleculeSettings(columns=MoleculeColumns(section="section")),
)["molecules_in_raster"])
"""


def write_molecules(path: Path, *, millions: int) -> None:
    """Write a table of `millions` million molecules, a million at a time."""
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


def main() -> None:
    """Run the benchmark."""
    millions = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    with tempfile.TemporaryDirectory() as folder:
        write_molecules(Path(folder) / "molecules.parquet", millions=millions)
        job = json.dumps([folder, SECTIONS, EDGE_UM, PIXEL_UM, PANEL])
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", BIN, job], check=True)
        seconds = time.perf_counter() - start
        files = [file for file in Path(folder, "raster.zarr").rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"molecules {millions * MILLION:,}, seconds {seconds:.0f}")
    print(f"molecules per second {millions * MILLION / seconds:,.0f}")
    print(
        f"peak memory {peak / 1024**2:.2f} GiB, raster {size / 1024**2:.0f} MiB, {len(files)} files"
    )


if __name__ == "__main__":
    main()
