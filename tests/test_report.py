"""The report is one page that stands alone and says what is true of the run."""

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise

import imagecodecs
import numpy as np
import pandas as pd
import pytest
import zarr
from evaluated import evaluate_volume
from hypothesis import given, settings
from hypothesis import strategies as st

from teramind.block_means import LONGEST
from teramind.evaluate.measure import Lattice
from teramind.expression.raster_writer import RasterWriter
from teramind.geometry import BIN, Rect
from teramind.report import write_report
from teramind.report.measures import measures_figure
from teramind.report.pictures import Grid, averaged, bin_means
from teramind.report.runtime import rule_times
from teramind.report.sections import evenly_chosen
from teramind.volume import VolumeLayout, build_pyramid, create_volume, write_slab

HEIGHT, WIDTH, SECTIONS, SLAB = 96, 160, 2, 64
SQUARE = Rect(16, 112, 32, 32)
HOLDOUT = Rect(0, 0, 48, 80)
EVIL = "<script>alert(1)</script>"
SEAMS = {"w00_r00_c00": (6.0, 4.0, 300), "w00_r00_c01": (3.0, 4.0, 100), "w00_r00_c02": None}
LOADS = {"src", "href", "srcset", "data", "poster", "action", "background"}


class Page(HTMLParser):
    """Tags with attributes, images, and the text of a page without its style."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    def headings(self):
        return [tag for tag, _ in self.tags if re.fullmatch("h[1-6]", tag)]

    def images(self):
        return {a["alt"]: decode(a["src"]) for tag, a in self.tags if tag == "img"}


def decode(uri):
    kind, data = uri.removeprefix("data:image/").split(";base64,")
    content = base64.b64decode(data, validate=True)
    return {"png": imagecodecs.png_decode, "jpeg": imagecodecs.jpeg8_decode}[kind](content)


def make_run(folder, *, height=HEIGHT, width=WIDTH, sections=SECTIONS, slab=SLAB):
    """Write a run whose DAPI is a bright square, and whose molecules lie in one bin."""
    voxels = np.full((2, sections, height, width), 10, np.uint8)
    voxels[0, :, SQUARE.y : SQUARE.bottom, SQUARE.x : SQUARE.right] = 200
    volume = folder / f"volume {EVIL.replace('/', '')}.zarr"
    create_volume(
        volume,
        VolumeLayout(
            shape=voxels.shape,
            slab=slab,
            pixel_size_um=0.5,
            section_spacing_um=10.0,
            stains=("DAPI", "PolyT"),
            attributes={"first_section": 0, "first_pixel": [0, 0]},
        ),
    )
    for y in range(0, height, slab):
        for x in range(0, width, slab):
            part = voxels[:, :, y : y + slab, x : x + slab]
            write_slab(volume, voxels=part, z=0, y=y, x=x)
    for z in range(sections):
        build_pyramid(volume, z=z)
    extent = Rect(0, 0, height, width)
    with RasterWriter(
        folder / "raster.zarr", panel=["Gad1"], sections=sections, extent=extent
    ) as writer:
        one = np.array([1])
        writer.add(section=one * 0, y=one * 70, x=one * 20, gene=one * 0, count=one * 40)
    write_records(folder)
    return {
        "title": f"Brain {EVIL}",
        "volume": volume,
        "raster": folder / "raster.zarr",
        "receipts": sorted((folder / "receipts").glob("*.json")),
        "provenance": folder / "provenance.json",
        "panel_table": folder / "panel.tsv",
        "summary": folder / "summary.json",
        "benchmarks": folder / "benchmarks",
    }


def write_records(folder):
    write_receipts(folder / "receipts", SEAMS)
    record = {
        "identity": {"generate.steps": 15},
        "config": {
            "title": EVIL,
            "network": {"checkpoint": f"models/{EVIL.replace('/', '')}.safetensors"},
            "generate": {"seed": 4711, "noise": "philox", "steps": 15, "region": None},
            "attention": {"regions": "regions.geojson"},
        },
        "inputs": {"molecules.parquet": "0a1b"},
        "later": [{"revision": "c0ffee", "versions": {"torch": "9.9"}}],
    }
    (folder / "provenance.json").write_text(json.dumps(record))
    rows = ["Gad1\texact\tGad1\t40", f"{EVIL}\tmissing\t\t0", "\textra\tZfp9\t3"]
    table = "\n".join(["panel_gene\tstatus\tsource_gene\tmolecules", *rows, ""])
    (folder / "panel.tsv").write_text(table)
    summary = {
        "molecules": 42,
        "molecules_in_raster": 41,
        "molecules_outside": 2,
        "molecules_of_other_genes": 3,
        "lookalikes": {"DRD1": 2},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    for rule, name, line in (
        ("phase_1", "a", "100.5\t0:01:40\t512.0"),
        ("phase_1", "b", "20.0\t0:00:20\t700.4"),
        ("pyramid", "a", "-\t-\tNA"),
    ):
        path = folder / "benchmarks" / rule / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\th:m:s\tmax_rss\n{line}\n")


def write_receipts(folder, seams):
    folder.mkdir()
    for slab, found in seams.items():
        border, inside, pixels = found or (None, None, 0)
        receipt = {
            "slab": slab,
            "seams": {"border": border, "inside": inside, "pixels": pixels},
        }
        (folder / f"{slab}.json").write_text(json.dumps(receipt))


def extras(folder, run):
    """Write what a run with a reference and training has on top: real images are 4 px smaller."""
    real = np.full((2, SECTIONS, HEIGHT - 4, WIDTH - 4), 10, np.uint8)
    real[0, :, 20:40, 20:60] = 200
    zarr.create_array(folder / "real.zarr", shape=real.shape, dtype="uint8")[:] = real
    evaluate_volume(
        volume=run["volume"],
        raster=run["raster"],
        reference=folder / "real.zarr",
        holdout=HOLDOUT,
        lattice=Lattice(patch=32, slab=64, corner=(0, 0)),
        summary=folder / "evaluation.json",
        table=folder / "evaluation.csv",
    )
    loss = imagecodecs.png_encode(np.full((4, 6), 3, np.uint8))
    (folder / "train").mkdir()
    (folder / "train" / "loss.png").write_bytes(loss)
    return {
        "evaluation": folder / "evaluation.json",
        "reference": folder / "real.zarr",
        "training": folder / "train",
        "attention": write_attention(folder / "attention"),
    }


def write_attention(folder):
    """Five sections of one pathway, and seven pairs of each of two regions."""
    pictures = folder / "pictures" / "GLUT"
    pictures.mkdir(parents=True)
    for k, name in enumerate(["joint", *(f"section_{z:03d}" for z in range(5))]):
        (pictures / f"{name}.png").write_bytes(
            imagecodecs.png_encode(np.full((4, 6), 10 * k, np.uint8))
        )
    summary = {"pathways": {"GLUT": {}}}
    (folder / "summary.json").write_text(json.dumps(summary))
    rows = [
        f"{region}\tg{k}\tg0\t0.1\t0.1\t{k}\t-1.5\t0.001\t0.01"
        for region in (EVIL, "CA1")
        for k in range(7)
    ]
    head = "region\tgene\tattends_to\tattention\telsewhere\tlog2_ratio\tz\tp\tp_corrected"
    (folder / "pairs.tsv").write_text("\n".join([head, *rows, ""]))
    return folder


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run = make_run(folder)
    write_report(folder / "plain.html", **run)
    write_report(folder / "full.html", **run, **extras(folder, run))
    return {name: (folder / f"{name}.html").read_text() for name in ("plain", "full")}


@pytest.fixture(scope="module")
def plain(pages):
    return Page(pages["plain"])


@pytest.fixture(scope="module")
def full(pages):
    return Page(pages["full"])


@pytest.mark.parametrize("name", ["plain", "full"])
def test_the_page_loads_nothing(pages, name):
    page = Page(pages[name])
    links = [value for _, a in page.tags for key, value in a.items() if key in LOADS]
    assert links and all(link.startswith("data:image/") for link in links)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert "url(" not in pages[name] and "@import" not in pages[name]


def test_markup_in_names_paths_and_settings_stays_text(pages, plain):
    assert "<script" not in pages["plain"]
    assert plain.text.count(EVIL) >= 3  # title, missing gene, setting
    assert "volume <script>alert(1)<script>.zarr" in plain.text
    assert "network <script>alert(1)<script>.safetensors" in plain.text


def test_every_picture_is_described(full):
    assert all(a["alt"] for tag, a in full.tags if tag == "img")


def test_headings_nest(full):
    levels = [int(tag[1]) for tag in full.headings()]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))


def test_the_summary_tells_what_was_generated(plain):
    assert f"{SECTIONS} sections of {HEIGHT} \N{MULTIPLICATION SIGN} {WIDTH} pixels" in plain.text
    assert "from the places of molecules of 1 gene (40 read in the plane) by" in plain.text
    assert "with seed 4711" in plain.text
    assert "Synthetic data." in plain.text
    assert f"Voxels, all stains {2 * SECTIONS * HEIGHT * WIDTH:,}" in plain.text


def test_a_network_of_this_run_and_published_noise_are_named_so(tmp_path):
    run = make_run(tmp_path)
    record = json.loads(run["provenance"].read_text())
    record["config"]["network"]["checkpoint"] = "train"
    record["config"]["generate"]["noise"] = "published"
    run["provenance"].write_text(json.dumps(record))
    write_report(tmp_path / "r.html", **run)
    text = Page((tmp_path / "r.html").read_text()).text
    assert "by the network trained in this run with the published noise." in text


def test_seams_are_weighted_by_pixels_and_the_worst_is_first(plain):
    border = np.average([6, 3], weights=[300, 100])
    assert f"Seam ratio {border / 4:.3f}" in plain.text
    assert "2 of 3 slabs" in plain.text
    worst, other = plain.text.index("w00_r00_c00"), plain.text.index("w00_r00_c01")
    assert worst < other and "6.00 4.00 1.500" in plain.text[worst:other]
    assert "w00_r00_c02" not in plain.text


def test_times_add_up_by_rule(plain):
    assert "phase_1 2 2 min 00 s 100 % 700 MiB" in plain.text
    assert "pyramid 1 0.0 s 0 % \N{EN DASH}" in plain.text
    assert "3 jobs took 2 min 00 s of wall time" in plain.text
    assert f"{2 * SECTIONS * HEIGHT * WIDTH / 120.5:,.0f} voxels per second" in plain.text


def test_genes_are_accounted_for(plain):
    assert "1 of the 2 genes that the network reads were found (1 by name)" in plain.text
    assert "(1) <script>" in plain.text
    assert "40 of their molecules lie inside the plane and 2 outside" in plain.text
    assert "1 other gene in the data, 3 molecules" in plain.text


def test_settings_are_listed(plain):
    assert plain.text.count("generate.steps 15") == 1
    assert "generate.region not set" in plain.text and "molecules.parquet 0a1b" in plain.text
    assert "later.1.revision c0ffee later.1.versions.torch 9.9" in plain.text


def test_a_bright_square_appears_at_its_place(plain):
    image = plain.images()["Generated DAPI of section 0 in grey"].astype(int)
    assert image.shape == (HEIGHT, WIDTH)
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[SQUARE.y : SQUARE.bottom, SQUARE.x : SQUARE.right] = True
    np.testing.assert_array_equal(image > 128, expected)


def test_the_composite_shows_stains_in_their_colours(plain):
    red, green, blue = plain.images()["Generated section 0, DAPI and PolyT in colour"][30, 128]
    assert blue > 240  # the square is DAPI, blue, on PolyT, orange
    assert red > green > 100


def test_expression_appears_at_its_place(plain):
    name = "Molecules of all genes per bin in section {}, the expression read"
    bright = plain.images()[name.format(0)].sum(axis=2) > 300
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[64:80, 16:32] = True
    np.testing.assert_array_equal(bright, expected)
    assert plain.images()[name.format(1)].sum(axis=2).max() < 20


def test_real_and_generated_share_scale_and_outline(full):
    images = full.images()
    real, made = (images[f"{kind} DAPI of section 1 in grey"] for kind in ("Real", "Generated"))
    assert real.shape == made.shape == (HEIGHT, WIDTH)
    assert abs(int(real[30, 40]) - int(made[30, 128])) <= 2
    boxes = [a["style"] for _, a in full.tags if a.get("class") == "box holdout"]
    assert len(boxes) == 4 * SECTIONS
    assert set(boxes) == {"top:0.000%;left:0.000%;height:50.000%;width:50.000%"}


def test_the_verdict_follows_the_numbers(tmp_path):
    run = make_run(tmp_path)
    optional = extras(tmp_path, run)
    scores = json.loads(optional["evaluation"].read_text())
    for row in scores["sections"]:
        close = row["stain"] == "DAPI"
        row["holdout"] |= {"generated": 0.75 if close else 0.25, "density": 0.5}
    optional["evaluation"].write_text(json.dumps(scores))
    write_report(tmp_path / "r.html", **run, **optional)
    text = Page((tmp_path / "r.html").read_text()).text
    more, less = (f"follows the real image {word} closely" for word in ("more", "less"))
    assert f"DAPI {more} than molecule density does: mean r 0.750 against 0.500" in text
    assert f"PolyT {less} than molecule density does: mean r 0.250 against 0.500" in text
    assert "better in 2 of 2 sections" in text and "better in 0 of 2 sections" in text


def test_what_the_real_images_are_too_few_for_is_named(tmp_path, full):
    run = make_run(tmp_path)
    optional = extras(tmp_path, run)
    scores = json.loads(optional["evaluation"].read_text())
    scores["sections"] = [row for row in scores["sections"] if row["section"] == 0]
    few = {"stain": "DAPI", "area": "holdout", "tiles": 1, "generated": None, "real": None}
    scores["frechet"] = [few]
    optional["evaluation"].write_text(json.dumps(scores))
    write_report(tmp_path / "r.html", **run, **optional)
    text = Page((tmp_path / "r.html").read_text()).text
    assert "1 of 2 sections are compared; the real images lack the others." in text
    assert "sections are compared" not in full.text
    assert "chet distance of DAPI: none, too few tiles of 128 pixels." in text


def test_without_nuclei_the_figure_has_no_row_of_them(tmp_path):
    """Of a volume without DAPI none are found."""
    optional = extras(tmp_path, make_run(tmp_path))
    scores = json.loads(optional["evaluation"].read_text())
    scores["histograms"].pop("DAPI")
    table = pd.read_csv(tmp_path / "evaluation.csv")
    of_polyt = table[(table["stain"] == "PolyT") & (table["measure"] != "nuclei_f1")]
    heights = []
    for rows in (table, of_polyt):
        rows.to_csv(tmp_path / "some.csv", index=False)
        heights.append(measures_figure(tmp_path / "some.csv", scores).height)
    assert heights[0] == pytest.approx(2 * heights[1], abs=2)


def test_attention_shows_three_sections_the_joint_plot_and_the_first_pairs(full):
    shown = {alt: image for alt, image in full.images().items() if "GLUT" in alt}
    assert [int(image.flat[0]) for image in shown.values()] == [10, 30, 50, 0]
    assert "CA1 g4 g0 4.000 -1.5 0.001 0.01" in full.text
    assert "CA1 g5" not in full.text


def test_pairs_of_an_older_run_with_regions_are_not_shown(tmp_path):
    run = make_run(tmp_path)
    optional = extras(tmp_path, run)
    record = json.loads(run["provenance"].read_text())
    record["config"]["attention"]["regions"] = None
    run["provenance"].write_text(json.dumps(record))
    write_report(tmp_path / "r.html", **run, **optional)
    assert "CA1" not in Page((tmp_path / "r.html").read_text()).text


def test_a_missing_part_leaves_no_trace(plain, full):
    for trace in ("Training", "Agreement with real images", "holdout", "real"):
        assert trace in full.text
        assert not re.search(rf"\b{trace}\b", plain.text)


def test_no_benchmarks_and_no_seams_leave_no_trace(tmp_path):
    run = make_run(tmp_path) | {"receipts": []}
    shutil.rmtree(run["benchmarks"])
    write_report(tmp_path / "r.html", **run)
    text = Page((tmp_path / "r.html").read_text()).text
    assert "wall time" not in text and "Seam" not in text


def test_many_slabs_make_a_histogram(tmp_path):
    run = make_run(tmp_path)
    write_receipts(tmp_path / "many", {f"w00_r00_c{n:02d}": (5.0, 5.0, 9) for n in range(20)})
    run["receipts"] = sorted((tmp_path / "many").glob("*.json"))
    write_report(tmp_path / "r.html", **run)
    page = Page((tmp_path / "r.html").read_text())
    heights = [float(a["height"]) for tag, a in page.tags if tag == "rect"]
    assert sum(height > 0 for height in heights) == 1
    assert "the tallest bar is 20 slabs" in page.text


def test_the_same_run_gives_the_same_bytes(tmp_path):
    run = make_run(tmp_path)
    write_report(tmp_path / "a.html", **run)
    write_report(tmp_path / "b.html", **run)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_large_plane_is_shown_whole_and_from_close_up(tmp_path):
    """Even where the pyramid ends early, here because the slab does not halve."""
    run = make_run(tmp_path, height=96, width=2 * LONGEST + 33, sections=1, slab=165)
    write_report(tmp_path / "r.html", **run)
    images = Page((tmp_path / "r.html").read_text()).images()
    overview = images["Generated DAPI of section 0 in grey"]
    assert overview.shape == (32, 811)
    bright = np.argwhere(overview > 128)
    np.testing.assert_allclose(bright.min(axis=0), [SQUARE.y / 3, SQUARE.x / 3], atol=1)
    np.testing.assert_allclose(bright.max(axis=0), [SQUARE.bottom / 3, SQUARE.right / 3], atol=1)
    close = images["Close-up of section 0 at full resolution, generated"]
    assert close.shape[:2] == (13, 320)
    assert (close[..., 2] > 200).any()


def test_a_dozen_sections_at_most_with_both_ends():
    assert evenly_chosen(3, 12) == [0, 1, 2]
    chosen = evenly_chosen(65, 12)
    assert len(chosen) == 12 and chosen[0] == 0 and chosen[-1] == 64
    assert set(np.diff(chosen)) <= {5, 6}


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 1300), width=st.integers(1, 40), factor=st.integers(1, 40))
def test_a_block_mean_is_the_mean_of_the_pixels_there_are(height, width, factor):
    plane = np.random.default_rng(height).integers(0, 256, (height, width), dtype=np.uint8)
    means = averaged(lambda top, bottom: plane[top:bottom], height, factor)
    expected = [
        [
            plane[y : y + factor, x : x + factor].astype(float).mean()
            for x in range(0, width, factor)
        ]
        for y in range(0, height, factor)
    ]
    np.testing.assert_allclose(means, expected, rtol=1e-5)


class Bins:
    """Stands in for a raster: the bin at (row, column) holds 100 row + column molecules."""

    def totals(self, *, section, rect):
        rows = np.arange(rect.y // BIN, rect.bottom // BIN)
        return np.add.outer(100 * rows, np.arange(rect.x // BIN, rect.right // BIN))


class Spot:
    """Stands in for a raster with molecules in one bin of its diagonal."""

    def __init__(self, place):
        self.place = place

    def totals(self, *, section, rect):
        rows, cols = (
            np.arange(start // BIN, (start + length) // BIN) == self.place
            for start, length in ((rect.y, rect.height), (rect.x, rect.width))
        )
        return np.outer(rows, cols).astype(int)


def test_picture_pixels_take_the_bin_they_lie_in():
    means = bin_means(Bins(), 0, Grid(Rect(24, 40, 50, 70), 4))
    y, x = 24 + 4 * np.arange(13) + 2, 40 + 4 * np.arange(18) + 2
    y, x = np.minimum(y, 73), np.minimum(x, 109)
    np.testing.assert_array_equal(means, np.add.outer(100 * (y // BIN), x // BIN))


def test_coarse_picture_pixels_take_the_mean_of_their_bins():
    means = bin_means(Bins(), 0, Grid(Rect(0, 0, 128, 64), 32))
    assert means.shape == (4, 2)
    assert means[1, 1] == np.mean([202, 203, 302, 303])


@pytest.mark.parametrize("factor", [16, 17, 24, 31, 32, 40])
def test_no_bin_is_left_out_of_a_coarse_picture(factor):
    """A single bin is bright: the picture has it at whatever place."""
    for place in range(9):
        means = bin_means(Spot(place), 0, Grid(Rect(0, 0, 9 * BIN, 9 * BIN), factor))
        assert means.max() > 0


def test_values_never_measured_count_as_nothing(tmp_path):
    write_records(tmp_path)
    times = {time.rule: time for time in rule_times(tmp_path / "benchmarks")}
    assert times["pyramid"].seconds == 0 and times["pyramid"].peak_mib is None
    assert times["phase_1"].seconds == 120.5 and times["phase_1"].jobs == 2
