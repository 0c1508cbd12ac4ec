"""What ARCHITECTURE.md says that a benchmark measured can be measured again."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_the_path_of_the_rehearsal_writes_all_files():
    command = [sys.executable, BENCHMARKS / "rehearsal.py", "path", "640", "--slab", "320"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = json.loads(printed.splitlines()[-1])
    stored = found["stored_bytes_per_voxel"]
    assert stored.keys() == {"volume", "pyramid", "wsi"}
    assert min(stored.values()) > 0
    assert found["bytes_per_voxel"] > sum(stored.values())
