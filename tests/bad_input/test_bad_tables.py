"""Molecule tables and gene lists that users and attackers bring, and what is said to them."""

import gzip

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from said import check, file, row

from teramind.expression.bin_expression import bin_expression
from teramind.expression.molecules import MoleculeColumns, MoleculeSettings
from teramind.expression.panel import read_panel, read_synonyms
from teramind.geometry import Rect

TABLE = "gene,x,y\nTh,1,2\nGad1,3,4\n"
FIELD = Rect(0, 0, 80, 80)
NO_TEXT = "{}: not UTF-8 text: save the table as UTF-8"
NO_HEADER = "{}: not a CSV table: it begins with no row of column names"


def bin_table(path, *, extent=FIELD, **columns):
    """As the workflow bins a table."""
    bin_expression(
        source=path,
        raster_path=path.parent / "raster.zarr",
        panel=("Gad1", "Th"),
        sections=1,
        extent=extent,
        panel_table_path=path.parent / "panel.tsv",
        settings=MoleculeSettings(columns=MoleculeColumns(**columns)),
        pixel_size_um=0.5,
    )


def csv(content):
    return file("m.csv", content)


def coordinate(text):
    return csv(f"gene,x,y\nTh,{text},2\n")


def parquet(**columns):
    def make(folder):
        pa.parquet.write_table(pa.table(columns), folder / "m.parquet")
        return folder / "m.parquet"

    return make


def twice(folder):
    columns = [pa.array(["Th"]), *(pa.array([1.0]) for _ in "xxy")]
    table = pa.Table.from_arrays(columns, names=["gene", "x", "x", "y"])
    pa.parquet.write_table(table, folder / "m.parquet")
    return folder / "m.parquet"


@pytest.mark.parametrize(
    "row",
    [
        row("nothing", lambda folder: folder / "m.csv",
            "{}: no such file: give a molecule table (.csv, .csv.gz or .parquet)"),
        row("a folder", lambda folder: (folder / "m.csv").mkdir() or folder / "m.csv",
            "{}: a folder, no molecule table (.csv, .csv.gz or .parquet); tiles are read by kind: tiles, and their names "
            "say what they cover"),
        row("0 bytes", csv(""), "{}: the file is empty: give a molecule table with rows"),
        row("0 bytes of Parquet", file("m.parquet", ""),
            "{}: the file is empty: give a molecule table with rows"),
        row("column names alone", csv("gene,x,y\n"),
            "{}: no rows: a molecule table needs at least one"),
        row("column names without an end of line", csv("gene,x,y"),
            "{}, row 2: missing; a molecule table needs at least one row"),
        row("a spreadsheet's name", file("m.xlsx", TABLE),
            "{}: not a molecule table: the name must end in .csv, .csv.gz or .parquet"),
        row("a spreadsheet called CSV", csv(b"PK\x03\x04" + bytes(range(256))),
            "{}: not a CSV table but a zip archive or a spreadsheet: save the table as CSV"),
        row("Parquet called CSV", csv(b"PAR1" + bytes(100)),
            "{}: not a CSV table but a Parquet file: let its name end in .parquet"),
        row("semicolons", csv("gene;x;y\nTh;1;2\n"),
            "{}: columns are separated by ';': must be ','"),
        row("semicolons and decimal commas", csv("gene;x;y\nTh;1,5;2,5\n"),
            "{}: columns are separated by ';': must be ','"),
        row("tabs", csv("gene\tx\ty\nTh\t1\t2\n"),
            "{}: columns are separated by '\\t': must be ','"),
        row("decimal commas", coordinate('"1,5"'),
            "{}, column x, row 2: '1,5' is no number; decimals take a point"),
        row("words in the place of numbers", coordinate("left"),
            "{}, column x, row 2: 'left' is no number; decimals take a point"),
        row("UTF-16", csv(TABLE.encode("utf-16")),
            "{}: not a CSV table but UTF-16 text: save the table as UTF-8"),
        row("Latin-1 in the column names", csv("g\xe9ne,x,y\nTh,1,2\n".encode("latin-1")), NO_TEXT),
        row("Latin-1 in the genes", csv("gene,x,y\nTh\xe9,1,2\n".encode("latin-1")), NO_TEXT),
        row("Latin-1 far down", csv((TABLE + "Th,1,2\n" * 20_000 + "T\xe9,1,2\n").encode("latin-1")),
            "{}, column gene, row 20004: not UTF-8; save the table as UTF-8"),
        row("binary zeros", csv(bytes(1000)), NO_HEADER),
        row("an empty line first", csv("\n\n"), NO_HEADER),
        row("a web page", csv("<!DOCTYPE html><title>404</title>\n"),
            "{}: columns missing: gene, x, y; present: <!DOCTYPE html><title>404</title>"),
        row("a pointer of Git LFS", csv("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
            "{}: not a CSV table but a Git LFS pointer: fetch the file itself with `git lfs pull`"),
        row("a row too short", csv(TABLE + "Th,1\n"), "{}, row 4: 2 columns, the header has 3: 'Th,1'"),
        row("a row too long", csv(TABLE + "Th,1,2,3\n"),
            "{}, row 4: 4 columns, the header has 3: 'Th,1,2,3'"),
        row("a quote that never closes", csv('gene,x,y\n"Th,1,2\nTh,3,4\n'),
            "{}, row 2: 1 columns, the header has 3: '\"Th,1,2\\nTh,3,4'"),
        row("one row of 40 MiB", csv("gene,x,y\nTh,1," + "1" * (40 << 20)),
            "{}, a row is longer than 16 MiB: a quote that never closes?"),
        row("a column twice", csv("gene,x,x,y\nTh,1,2,3\n"),
            "{}: 2 columns are named x: rename all but one"),
        row("a column twice in Parquet", twice, "{}: 2 columns are named x: rename all but one"),
        row("one column for x and y", csv(TABLE),
            "{}: gene, x, y and section are to be columns gene, x, x: name a column of its own for each",
            y="x"),
        row("5000 columns, none of ours", csv(",".join(f"c{i}" for i in range(5000)) + "\n1\n"),
            "{}: columns missing: gene, x, y; present: c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, "
            "c11 and 4988 more"),
        row("column names that clear the terminal", csv("\x1b[2Jgene,x,y\nTh,1,2\n"),
            "{}: columns missing: gene; present: \\x1b[2Jgene, x, y"),
        row("column names with an end of line", csv('"gene\n",x,y\nTh,1,2\n'),
            "{}: columns missing: gene; present: gene\\n, x, y"),
        row("gzip called CSV", csv(gzip.compress(TABLE.encode())),
            "{}: gzip-compressed: let its name end in .csv.gz"),
        row("CSV called gzip", file("m.csv.gz", TABLE), "{}: not gzip-compressed: let its name end in .csv"),
        row("gzip cut off", file("m.csv.gz", gzip.compress(TABLE.encode() * 999)[:-30]),
            "{}: cannot be read as a molecule table: Compressed file ended before the end-of-stream "
            "marker was reached"),
        row("gzip of nothing", file("m.csv.gz", gzip.compress(b"")), NO_HEADER),
        row("a coordinate of NaN", coordinate("nan"),
            "{}, columns x and y: 1 of 1 rows hold no finite coordinates, the first is row 2: remove or "
            "mend them"),
        row("an infinite coordinate", coordinate("-inf"),
            "{}, columns x and y: 1 of 1 rows hold no finite coordinates, the first is row 2: remove or "
            "mend them"),
        row("a coordinate beyond float64", coordinate("1e400"),
            "{}, columns x and y: 1 of 1 rows hold no finite coordinates, the first is row 2: remove or "
            "mend them"),
        row("a coordinate in another galaxy", coordinate("1e300"),
            "{}: 1 of 1 molecules lie outside the extent y 0..79, x 0..79 pixels; the data covers "
            "y 4..4, x 1099511627776..1099511627776 pixels: check the extent, origin, pixel size and "
            "units", ),
        row("two stray molecules and no extent", csv("gene,x,y\nTh,0,0\nGad1,1e300,1e300\n"),
            "{folder}/raster.zarr: extent (0, 0, 1099511627777, 1099511627777) with 1 sections is larger "
            "than any tissue: look for stray coordinates, or give the extent", extent=None),
        row("sections that are no numbers", csv("gene,x,y,z\nTh,1,2,left\n"),
            "{}, column z: values without a section: 'left'; the volume has section '0'; list the column's values as "
            "section_values in z order, keep only the rows of these, or name no section column", section="z"),
        row("a section without a value", csv("gene,x,y,z\nTh,1,2,\n"),
            "{}, column z: values without a section: ''; the volume has section '0'; list the column's values as "
            "section_values in z order, keep only the rows of these, or name no section column", section="z"),
        row("20000 sections", csv("gene,x,y,z\n" + "".join(f"Th,1,1,{i}.5\n" for i in range(20_000))),
            "{}, column z: more than 10000 different values: name a column that numbers sections, or "
            "none", section="z"),
        row("a web page called Parquet", file("m.parquet", "<!DOCTYPE html><title>404</title>\n"),
            "{}: cannot be read as a molecule table: Parquet magic bytes not found in footer. Either the "
            "file is corrupted or this is not a parquet file."),
        row("a Parquet footer that claims 2 GB", file("m.parquet", b"PAR1" + bytes(8) + b"\xff\xff\xff\x7fPAR1"),
            "{}: cannot be read as a molecule table: Parquet file size is 20 bytes, smaller than the "
            "size reported by footer's (2147483647bytes)"),
        row("Parquet without rows", parquet(gene=pa.array([], "string"), x=pa.array([], "f8"), y=pa.array([], "f8")),
            "{}: no rows: a molecule table needs at least one"),
        row("Parquet with words for numbers", parquet(gene=["Th"], x=["1"], y=[2.0]),
            "{}, column x: holds string: coordinates must be numbers"),
        row("Parquet with lists for genes", parquet(gene=[["Th"]], x=[1.0], y=[2.0]),
            "{}, column gene: holds list<element: string>: text or numbers expected"),
        row("Parquet with bytes for genes", parquet(gene=[b"\xff\xfe"], x=[1.0], y=[2.0]),
            "{}, column gene: names must be UTF-8 text: 'utf-8' codec can't decode byte 0xff in "
            "position 0: invalid start byte"),
        row("other genes", csv("gene,x,y\nActb,1,2\n"),
            "0 of 2 panel genes found (0.0%, at least 50.0% needed), unmatched names such as 'Actb': "
            "give the right panel, or a synonyms file"),
    ],
)  # fmt: skip
def test_a_molecule_table(row, tmp_path):
    check(row, bin_table, tmp_path)


@pytest.mark.parametrize(
    "row",
    [
        row("UTF-16", file("p.txt", "Th\n".encode("utf-16")), "{}: not UTF-8 text: save it as UTF-8"),
        row("a folder", lambda folder: folder, "{}: cannot be read as a text file: Is a directory"),
        row("binary zeros", file("p.txt", bytes(3)), "{}, line 1: '\\x00\\x00\\x00': not a line of text"),
        row("what clears the terminal", file("p.txt", "Th\n\x1b[2J\n"),
            "{}, line 2: '\\x1b[2J': not a line of text"),
        row("no genes", file("p.txt", "# none\n"), "{}: no genes: write one gene name a line"),
        row("a gene twice", file("p.txt", "Th\nGad1\nTh\n"),
            "{}, line 3: gene 'Th' is listed on line 1 already: each gene once"),
    ],
)  # fmt: skip
def test_a_gene_list(row, tmp_path):
    check(row, read_panel, tmp_path)


@pytest.mark.parametrize(
    "row",
    [
        row("commas", file("s.tsv", "a,b\n"), "{}, line 1: 'a,b': two columns expected, name <tab> panel name"),
        row("two meanings", file("s.tsv", "a\tTh\na\tGad1\n"),
            "{}, line 2: 'a' stands for 'Th' and 'Gad1': keep one of them"),
    ],
)  # fmt: skip
def test_synonyms(row, tmp_path):
    check(row, read_synonyms, tmp_path)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    path = file("p.txt", "\ufeffTh\nGad1\n")(tmp_path)
    assert read_panel(path) == ("Th", "Gad1")
    np.testing.assert_equal(len(pd.read_csv(file("m.csv", "\ufeff" + TABLE)(tmp_path))), 2)
    bin_table(tmp_path / "m.csv")
