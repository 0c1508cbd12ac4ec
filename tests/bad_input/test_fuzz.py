"""Whatever bytes a reader is given, it reads them or says one clear line."""

import os
import random
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from said import bounded, file
from test_bad_files import h5ad, image, read_cells, resample
from test_bad_tables import TABLE, bin_table, parquet
from test_variants import write_published
from workflow_project import config_with

from teramind.config import parse_config
from teramind.config.reading import read_config
from teramind.errors import UserError
from teramind.expression.panel import read_panel
from teramind.network import Network, NetworkSpec, load_network, save_network

EXAMPLES = int(os.environ.get("FUZZ", "30"))


SIZES = {"patch": 32, "sections": 1, "stains": ("DAPI",), "genes": 1, "base": 2, "embed": 2}


def checkpoint(folder):
    save_network(Network(NetworkSpec(**SIZES)), folder / "a.safetensors")
    return folder / "a.safetensors"


def pickled(folder):
    write_published(folder / "published", NetworkSpec(**SIZES))
    return folder / "published/last.ckpt"


def configured(path):
    parse_config(read_config(path))


READERS = {
    "config": (file("c.yaml", yaml.safe_dump(config_with())), configured),
    "panel": (file("p.txt", "Th\nGad1\n# none\n"), read_panel),
    "csv": (file("m.csv", TABLE + "Th,1,2\n" * 6), bin_table),
    "parquet": (parquet(gene=["Th", "Gad1"], x=[1.0, 2.0], y=[3.0, 4.0]), bin_table),
    "h5ad": (h5ad(lambda _: None), read_cells),
    "tiff": (image(), resample),
    "safetensors": (checkpoint, load_network),
    "pickle": (pickled, load_network),
}


def damaged(content, seed):
    """A file's bytes cut off, with bits flipped, or with one part copied over another."""
    chance = random.Random(seed)
    changed = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        place, other = (chance.randrange(len(changed) or 1) for _ in range(2))
        kind = chance.randrange(3)
        if kind == 0 and changed:
            changed[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            changed[place : place + 8] = changed[other : other + 8]
        elif chance.random() < 0.3:
            del changed[place:]
    return bytes(changed)


@cache
def good(make, read):
    """Name and bytes of a file that is read."""
    with TemporaryDirectory() as folder:
        path = make(Path(folder))
        content = path.read_bytes()
        read(path)
        return path.name, content


@pytest.mark.parametrize("reader", READERS)
@settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(junk=st.binary(max_size=200), seed=st.integers(0, 2**32), whole=st.integers(0, 4))
def test_a_damaged_file(reader, tmp_path_factory, junk, seed, whole):
    make, read = READERS[reader]
    name, content = good(make, read)
    path = tmp_path_factory.mktemp("fuzz") / name
    path.write_bytes(damaged(content, seed) if whole else junk)
    folder = path.parent
    before = set(folder.iterdir())
    try:
        with bounded():
            read(path)
    except UserError as error:
        for line in str(error).split("\n"):
            assert line.replace("\u00a0", " ").isprintable(), line
        assert set(folder.iterdir()) == before
