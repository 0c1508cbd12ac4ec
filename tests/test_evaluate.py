"""A generated volume is compared with real images honestly: known answers come out."""

import json

import numpy as np
import pandas as pd
import pytest
import zarr
from evaluated import evaluate_volume

from teramind.errors import UserError
from teramind.evaluate.baseline import fit_regression
from teramind.evaluate.headline import headline
from teramind.evaluate.measure import Lattice
from teramind.expression.raster import Raster
from teramind.expression.raster_writer import RasterWriter
from teramind.geometry import BIN, Rect
from teramind.report.facts import verdicts
from teramind.volume import VolumeLayout, create_volume, write_slab

HEIGHT, WIDTH, SECTIONS = 96, 128, 2
FIELD = Rect(0, 0, HEIGHT, WIDTH)
HOLDOUT = Rect(32, 48, 48, 64)


def noise(seed, shape=(2, SECTIONS, HEIGHT, WIDTH)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def on_pixels(bins):
    return bins.repeat(BIN, axis=-2).repeat(BIN, axis=-1)


@pytest.fixture
def files(tmp_path):
    """Return a function that writes a volume, a raster and real images, and their paths."""

    def write(generated, reference, molecules=None, *, section=0, corner=(0, 0), bounds=None):
        volume = tmp_path / "volume.zarr"
        create_volume(
            volume,
            VolumeLayout(
                shape=generated.shape,
                slab=max(generated.shape),
                pixel_size_um=0.5,
                section_spacing_um=10.0,
                stains=("DAPI", "PolyT")[: len(generated)],
                attributes={"first_section": section, "first_pixel": corner},
            ),
        )
        write_slab(volume, voxels=generated, z=0, y=0, x=0)
        if molecules is None:
            molecules = noise(99, (SECTIONS, HEIGHT // BIN, WIDTH // BIN))
        z, y, x = (axis.ravel() for axis in np.indices(molecules.shape))
        gene = np.zeros_like(z)
        writer = RasterWriter(
            tmp_path / "raster.zarr",
            panel=["Gad1"],
            sections=len(molecules),
            extent=FIELD,
            bounds=bounds,
        )
        with writer:
            count = molecules.ravel().astype(int)
            writer.add(section=z, y=y * BIN, x=x * BIN, gene=gene, count=count)
        images = zarr.create_array(tmp_path / "real.zarr", shape=reference.shape, dtype="uint8")
        images[:] = reference
        return {
            "volume": volume,
            "raster": tmp_path / "raster.zarr",
            "reference": tmp_path / "real.zarr",
            "lattice": Lattice(patch=32, slab=64, corner=corner),
            "summary": tmp_path / "evaluation.json",
            "table": tmp_path / "evaluation.csv",
        }

    return write


def test_identical_images_correlate_fully(files):
    image = noise(1)
    record = evaluate_volume(**files(image, image), holdout=HOLDOUT)
    assert len(record["sections"]) == 2 * SECTIONS
    for row in record["sections"]:
        assert row["holdout"]["generated"] == pytest.approx(1, abs=1e-6)
        assert row["whole"]["generated"] == pytest.approx(1, abs=1e-6)
        assert row["whole"]["grey"]["generated"] == row["whole"]["grey"]["real"]


def test_images_that_are_molecule_density_give_the_baseline_a_full_score(files):
    molecules = noise(2, (SECTIONS, HEIGHT // BIN, WIDTH // BIN))
    real = np.broadcast_to(on_pixels(molecules), (2, SECTIONS, HEIGHT, WIDTH))
    record = evaluate_volume(**files(noise(3), real, molecules), holdout=HOLDOUT)
    for row in record["sections"]:
        assert row["holdout"]["density"] == pytest.approx(1, abs=1e-6)
        assert row["holdout"]["generated"] < 0.9


def test_the_regression_knows_which_gene_is_bright_and_does_not_see_the_holdout(files):
    molecules = noise(2, (SECTIONS, HEIGHT // BIN, WIDTH // BIN)) // 2
    real = np.broadcast_to(on_pixels(200 - molecules), (2, SECTIONS, HEIGHT, WIDTH)).copy()
    real[(..., *HOLDOUT.within(FIELD))] = 0
    paths = files(noise(3), real, molecules)
    images = zarr.open_array(paths["reference"], mode="r")
    raster = Raster.open(paths["raster"])
    fitted = fit_regression(raster, images, HOLDOUT)
    for stain in (0, 1):
        predicted = fitted.predict(raster, 1, FIELD, stain)
        np.testing.assert_allclose(predicted, on_pixels(200 - molecules)[1], atol=1)


def test_the_regression_does_not_see_what_lies_around_the_plane(files):
    molecules = noise(2, (SECTIONS, HEIGHT // BIN, WIDTH // BIN)) // 2
    real = np.broadcast_to(on_pixels(200 - molecules), (2, SECTIONS, HEIGHT, WIDTH)).copy()
    real[..., 64:] = 0
    paths = files(noise(3), real, molecules, bounds=Rect(0, 0, HEIGHT, 64))
    raster = Raster.open(paths["raster"])
    fitted = fit_regression(raster, zarr.open_array(paths["reference"], mode="r"), None)
    predicted = fitted.predict(raster, 1, FIELD, 0)
    np.testing.assert_allclose(predicted, on_pixels(200 - molecules)[1], atol=1)


def test_a_holdout_of_everything_leaves_density_but_no_regression(files):
    record = evaluate_volume(**files(noise(3), noise(4)), holdout=FIELD)
    holdout = record["sections"][0]["holdout"]
    assert record["regression"] is None
    assert {"density", "generated"} <= set(holdout)
    assert "regression" not in holdout
    assert [verdict.sections for verdict in verdicts(record)] == [SECTIONS, SECTIONS]


def test_the_regression_is_fitted_where_there_is_expression(files):
    molecules = noise(2, (SECTIONS, HEIGHT // BIN, WIDTH // BIN)) // 2
    paths = files(noise(3), noise(4), molecules)
    raster = Raster.open(paths["raster"])
    seen = np.broadcast_to(on_pixels(molecules), (2, SECTIONS, HEIGHT, WIDTH))
    larger = np.pad(seen, ((0, 0), (0, 0), (0, 64), (0, 64)), constant_values=255)
    fitted = fit_regression(raster, zarr.array(larger), None)
    predicted = fitted.predict(raster, 1, FIELD, 0)
    np.testing.assert_allclose(predicted, on_pixels(molecules)[1], atol=1)
    assert fit_regression(raster, zarr.array(seen.copy()), FIELD) is None  # nothing is left


def test_the_neighbour_is_the_real_section_beside(files):
    real = noise(4)
    real[:, 1] = real[:, 0]
    record = evaluate_volume(**files(noise(3), real), holdout=None)
    assert all(row["whole"]["neighbour"] == pytest.approx(1) for row in record["sections"])


def test_the_table_holds_every_measure_once_and_twice_over(files):
    paths = files(noise(1), noise(2))
    evaluate_volume(**paths, holdout=HOLDOUT)
    table = pd.read_csv(paths["table"])
    keys = ["section", "stain", "area", "subject", "measure", "scale_um"]
    assert not table.duplicated(keys).any()
    assert set(table["area"]) == {"holdout", "whole"}
    correlations = table[table["measure"] == "correlation"]
    assert set(correlations["subject"]) == {"generated", "density", "regression", "neighbour"}
    assert set(correlations["scale_um"]) == {2, 5, 10, 20}
    assert set(table[table["measure"] == "nuclei_f1"]["stain"]) == {"DAPI"}
    assert table[["low", "high"]].isna().all(axis=None)  # fewer than 16 independent parts
    columnar = pd.read_parquet(paths["table"].with_suffix(".parquet"))
    pd.testing.assert_frame_equal(table, columnar, rtol=1e-4, check_dtype=False)


def test_the_headline_averages_the_nuclear_stain_over_the_holdout(files):
    real = noise(1)
    generated = real.copy()
    generated[0, 0][HOLDOUT.within(FIELD)] = 255 - real[0, 0][HOLDOUT.within(FIELD)]
    paths = files(generated, real)
    evaluate_volume(**paths, holdout=HOLDOUT)
    table = pd.read_csv(paths["table"])
    found = headline(table)
    assert found["correlation_5um"] == pytest.approx(0, abs=1e-5)  # of -1 and 1
    same = table[(table["area"] == "holdout") & (table["section"] == 1)]
    perfect = headline(same)
    assert perfect["count_ratio"] == perfect["nuclei_f1"] == 1
    assert perfect["correlation_5um"] == pytest.approx(1)


def test_tiles_do_not_change_a_measure(files, monkeypatch):
    paths = files(noise(1), noise(2))
    evaluate_volume(**paths, holdout=None)
    whole = pd.read_csv(paths["table"])
    monkeypatch.setattr("teramind.evaluate.measure.TILE", 64)
    evaluate_volume(**paths, holdout=None)
    keys = ["section", "stain", "area", "subject", "measure", "scale_um"]
    both = whole.merge(pd.read_csv(paths["table"]), on=keys, suffixes=("", "_tiled"))
    assert len(both) == len(whole)
    bounded = both[~both["measure"].str.startswith("nuclei")]  # "nuclei" of noise have no end
    np.testing.assert_allclose(bounded["value"], bounded["value_tiled"], rtol=1e-5, atol=1e-5)


def test_constant_images_have_no_correlation(files):
    record = evaluate_volume(**files(np.full_like(noise(0), 7), noise(6)), holdout=None)
    assert all(row["whole"]["generated"] is None for row in record["sections"])
    assert all(row["whole"]["density"] is not None for row in record["sections"])


def test_the_holdout_is_judged_apart_from_the_whole(files):
    generated, real = noise(7), noise(7)
    inside = (..., *HOLDOUT.within(FIELD))
    generated[inside] = 255 - real[inside]
    record = evaluate_volume(**files(generated, real), holdout=HOLDOUT)
    for row in record["sections"]:
        assert row["holdout"]["generated"] == pytest.approx(-1) and row["whole"]["generated"] > 0
        cut = real[["DAPI", "PolyT"].index(row["stain"]), row["section"]][HOLDOUT.within(FIELD)]
        assert row["holdout"]["grey"]["real"] == pytest.approx(
            {"mean": cut.mean(), "sd": cut.std()}
        )


def test_without_a_holdout_only_the_whole_is_judged(files):
    paths = files(noise(8), noise(9))
    record = evaluate_volume(**paths, holdout=None)
    assert record["holdout"] is None
    assert all(row["holdout"] is None for row in record["sections"])
    assert json.loads(paths["summary"].read_text()) == record


def test_a_volume_is_compared_where_it_lies(files):
    """A volume of a region and of inner sections meets its own pixels of larger images."""
    real = noise(11, (2, 3, HEIGHT, WIDTH))
    generated = np.pad(real[:, 1:, 16:, 32:], ((0, 0), (0, 0), (0, 8), (0, 8)))
    record = evaluate_volume(**files(generated, real, section=1, corner=(16, 32)), holdout=None)
    assert record["whole"] == [16, 32, HEIGHT - 16, WIDTH - 32]
    assert [row["section"] for row in record["sections"]] == [1, 1, 2, 2]
    assert all(row["whole"]["generated"] > 0.999 for row in record["sections"])


def test_a_volume_that_does_not_say_where_it_lies_is_refused(files):
    paths = files(noise(1), noise(2))
    metadata = paths["volume"] / "zarr.json"
    metadata.write_text(metadata.read_text().replace("first_pixel", "other"))
    with pytest.raises(UserError, match="another version made it: remove it"):
        evaluate_volume(**paths, holdout=None)


def test_without_real_images_the_volume_is_judged_by_itself(files):
    paths = files(noise(12), noise(12))
    alone, compared = (
        evaluate_volume(**paths | change, holdout=None)["sections"]
        for change in ({"reference": None}, {})
    )
    for row, other in zip(alone, compared, strict=True):
        assert set(row["whole"]) == {"grey", "nuclei", "borders"}
        assert row["whole"]["grey"]["generated"] == other["whole"]["grey"]["generated"]
        assert set(row["whole"]["grey"]) == {"generated"}
        assert (row["whole"]["nuclei"] == {}) == (row["stain"] != "DAPI")
        assert "f1" not in row["whole"]["nuclei"]
        borders = other["whole"]["borders"]
        assert row["whole"]["borders"]["patch"]["generated"] == borders["patch"]["generated"]


@pytest.mark.parametrize("brighter", [0, 50])
def test_the_frechet_distance_of_real_images_is_its_floor(files, monkeypatch, brighter):
    """A network of one feature per row of pixels stands in for those that need weights."""
    rows = "teramind.evaluate.jobs.feature_network"
    monkeypatch.setattr(rows, lambda name: lambda images: images.mean(2))
    monkeypatch.setattr("teramind.evaluate.frechet.TILE", 16)
    real = noise(13)
    generated = np.clip(real.astype(int) + brighter, 0, 255).astype(np.uint8)
    paths = files(generated, real)
    record = evaluate_volume(**paths, holdout=HOLDOUT, frechet="any")
    assert {(row["stain"], row["area"]) for row in record["frechet"]} == {
        (stain, area) for stain in ("DAPI", "PolyT") for area in ("holdout", "whole")
    }
    for row in record["frechet"]:
        assert row["tiles"] == (12 if row["area"] == "holdout" else 48)
        assert (row["generated"] > 5 * row["real"]) == bool(brighter)
        assert brighter or row["generated"] == row["real"]
    table = pd.read_csv(paths["table"])
    assert table[table["measure"] == "frechet"]["section"].isna().all()


@pytest.mark.parametrize(
    ("reference", "holdout", "place", "complaint"),
    [
        (noise(1, (1, SECTIONS, HEIGHT, WIDTH)), None, {}, "c = 2"),
        (noise(1), None, {"corner": (HEIGHT, 0)}, "share nothing"),
        (noise(1), None, {"section": SECTIONS}, "share nothing"),
        (noise(1), Rect(HEIGHT, 0, 16, 16), {}, "holdout"),
    ],
)
def test_what_cannot_be_compared_is_refused(files, reference, holdout, place, complaint):
    paths = files(noise(1), reference, **place)
    with pytest.raises(UserError, match=complaint):
        evaluate_volume(**paths, holdout=holdout)
    assert not paths["summary"].exists() and not paths["table"].exists()
