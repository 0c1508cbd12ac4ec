"""Cells, images, checkpoints and stores that would mislead their readers."""

import json
import os

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from said import check, file, row
from test_images import pixels, write

from teramind.errors import UserError
from teramind.expression.cells import CellSettings, CellTable
from teramind.files import require_inside
from teramind.images.resample import open_images, resample_images
from teramind.network import load_network

STAINS = ("DAPI", "PolyT")


def read_cells(path):
    CellTable(path, settings=CellSettings(), pixel_size_um=0.5)


def h5ad(edit):
    """Two cells of three genes, then changed."""

    def make(folder):
        cells = anndata.AnnData(
            np.array([[1, 2, 0], [0, 1, 3]], np.float32),
            var=pd.DataFrame(index=["Gad1", "Slc17a7", "Th"]),
            obs=pd.DataFrame(index=["0", "1"]),
            obsm={"spatial": np.ones((2, 2))},
        )
        cells.write_h5ad(folder / "c.h5ad")
        with h5py.File(folder / "c.h5ad", "r+") as found:
            edit(found)
        return folder / "c.h5ad"

    return make


def claims(name, shape):
    """Claim a shape and hold nothing."""

    def edit(found):
        del found[name]
        found.create_dataset(name, shape=shape, chunks=(1,) * len(shape), dtype="f4")

    return edit


def elsewhere(found):
    del found["X"]
    found["X"] = h5py.ExternalLink("/etc/passwd", "/X")


def raw(found):
    del found["X"]
    found.create_dataset("X", shape=(2, 3), dtype="u1", external=[("/etc/passwd", 0, 6)])


def sparse(pointers, indices):
    def edit(found):
        del found["X"]
        group = found.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": (2, 3)})  # fmt: skip
        group["data"], group["indices"], group["indptr"] = np.ones(3, "f4"), indices, pointers

    return h5ad(edit)


@pytest.mark.parametrize(
    "row",
    [
        row("text", file("c.h5ad", "cells"), "{}: not an AnnData file (.h5ad): ..."),
        row("1e10 cells claimed", h5ad(claims("X", (10**10, 3))), "{}, X: shape (10000000000, 3): (2, 3) expected, cells x genes"),
        row("1e10 centres claimed", h5ad(claims("obsm/spatial", (10**10, 2))),
            "{}: /obsm/spatial claims (10000000000, 2) values, more than a file of its size can hold: truncated, or made to deceive"),
        row("one axis", h5ad(claims("X", (2,))), "{}, X: shape (2,): (2, 3) expected, cells x genes"),
        row("a link to another file", h5ad(elsewhere), "{}: X is a link to elsewhere: give a file without links"),
        row("values in another file", h5ad(raw), "{}: the values of X are in another file: give one that has them"),
        row("indices beyond the genes", sparse([0, 2, 3], [0, 1, 99]), "{}, X: its indices leave the matrix: write the file again"),
        row("negative indices", sparse([0, 2, 3], [0, -1, 1]), "{}, X: its indices leave the matrix: write the file again"),
        row("pointers beyond the values", sparse([0, 100, 3], [0, 1, 2]), "{}, X: its indices leave the matrix: write the file again"),
        row("1e30 molecules", h5ad(lambda found: found["X"].write_direct(np.full((2, 3), 1e30, "f4"))),
            "{}, X, cells 0 to 1: hold 6e+30 molecules: too many for counts; name the layer with raw counts (layers: none)"),
    ],
)  # fmt: skip
def test_cells(row, tmp_path):
    check(row, read_cells, tmp_path)


def image(**metadata):
    def make(folder):
        return write(folder / "a.ome.tif", pixels(2, 1, 40, 60), **metadata)

    return make


def ome(**attributes):
    """An image whose metadata say something else."""

    def make(folder):
        path = image()(folder)
        content = path.read_bytes()
        for name, (old, new) in attributes.items():
            content = content.replace(f'{name}="{old}"'.encode(), f'{name}="{new}"'.encode())
        path.write_bytes(content)
        return path

    return make


def resample(path):
    resample_images(path, path.parent / "out.zarr", stains=STAINS, pixel_size_um=1.0)


@pytest.mark.parametrize(
    "row",
    [
        row("0 bytes", file("a.tif", ""), "image {}: not a readable TIFF: ..."),
        row("a header that points 10 TB on", file("a.tif", b"II+\0\x08\0\0\0" + (10 << 40).to_bytes(8, "little")),
            "image {}: carries no OME metadata; not an OME-TIFF, or truncated"),
        row("pages that go round", file("a.tif", b"II*\0\x08\0\0\0\0\0\x08\0\0\0"),
            "image {}: carries no OME metadata; not an OME-TIFF, or truncated"),
        row("9 sections claimed", ome(SizeZ=(1, 9)),
            "image {}: its OME metadata name 18 planes, the file has 2; give one file that holds them all"),
        row("99 columns claimed", ome(SizeX=(60, 99)),
            "image {}: its OME metadata say 40 x 99 pixels, its pages hold 40 x 60; write it again"),
        row("pixels of no size", image(pixel_um=-0.5), "image {}: pixels of -0.5 um; must be a finite number above 0"),
    ],
)  # fmt: skip
def test_an_image(row, tmp_path):
    check(row, resample, tmp_path)


class Payload:
    """Unpickling this makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


def tensors(header, data=b"1234", length=None):
    text = json.dumps(header).encode()
    size = len(text) if length is None else length
    return file("a.safetensors", size.to_bytes(8, "little") + text + data)


def pickled(content):
    def make(folder):
        torch.save(content, folder / "last.ckpt")
        return folder / "last.ckpt"

    return make


NO_SAFETENSORS = (
    "checkpoint {}: truncated or not a safetensors file (Error while deserializing header: "
)


@pytest.mark.parametrize(
    "row",
    [
        row("code in a pickle", pickled({"state_dict": Payload()}),
            "checkpoint {}: not a plain tensor file, reading it would need to run its pickle code; ask for safetensors"),
        row("a table", file("m.csv", "gene,x,y\nTh,1,2\n"),
            "checkpoint {}: no checkpoint: a .safetensors, a last.ckpt or its folder expected"),
        row("a header of 10 GB", tensors({}, length=10 << 30), NO_SAFETENSORS + "header too large)"),
        row("a tensor of 40 GB", tensors({"a": {"dtype": "F32", "shape": [10**10], "data_offsets": [0, 4 * 10**10]}}),
            NO_SAFETENSORS + "incomplete metadata, file not fully covered)"),
        row("a shape that is not the data's", tensors({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}),
            NO_SAFETENSORS + "invalid shape, data type, or offset for tensor)"),
        row("two tensors in one place", tensors({k: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for k in "ab"}),
            NO_SAFETENSORS + "invalid offset for tensor `..."),
        row("a record of 10000 brackets", tensors({"__metadata__": {"teramind": "[" * 100_000}}, b""),
            "checkpoint {}: its teramind record is not readable (maximum recursion depth exceeded ..."),
        row("foreign tensors", pickled({"state_dict": {"model.a": torch.ones(1).expand(10**9, 10**6)}}),
            "checkpoint {}: not a Tera-MIND network (no fitting `input_blocks.0.0.weight`)"),
    ],
)  # fmt: skip
def test_a_checkpoint(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(row, load_network, tmp_path)
    assert not (tmp_path / "ran").exists()


def store(metadata):
    def make(folder):
        (folder / "images.zarr").mkdir()
        (folder / "images.zarr" / "zarr.json").write_text(metadata)
        return folder / "images.zarr"

    return make


@pytest.mark.parametrize("metadata", ["", "[]", "null", "{", "[" * 100_000, '{"zarr_format": 9}'])
def test_a_store_of_nonsense(metadata, tmp_path):
    said = "images {}: no Zarr array there: ..."
    (only,) = row("nonsense", store(metadata), said).values
    check(only, lambda path: open_images(path, STAINS), tmp_path)


def test_a_link_out_of_the_results_folder_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "logs").symlink_to("/etc")
    with pytest.raises(UserError) as caught:
        require_inside(tmp_path / "out/logs/a.log", tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path}/out/logs/a.log: a link leads it out of {tmp_path}/out; remove the link"
    )
    (tmp_path / "scratch").symlink_to(tmp_path / "out")
    require_inside(tmp_path / "scratch/a.log", tmp_path / "scratch")
