"""What a running training shows: tables, curves, samples, and TensorBoard where it is there."""

import csv
import sys

import imagecodecs
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_pair import FIELD, SETTINGS, blob_windows

from teramind.expression.raster import Raster
from teramind.expression.raster_writer import RasterWriter
from teramind.geometry import Rect
from teramind.network import Network
from teramind.schedule import TRAINING_STEPS
from teramind.training.objective import worth_learning
from teramind.training.preview import fullest, generate_piece, piece_of, real_piece
from teramind.training.trainer import Trainer
from teramind.training.watch import BATCHES, Sample, Watch, tensorboard


def rows(path):
    with path.open(newline="") as file:
        return [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def watched(tmp_path_factory, tiny_spec):
    """A training that was looked at after every step, and what it wrote."""
    folder = tmp_path_factory.mktemp("watched")
    windows = blob_windows(folder / "pair", tiny_spec)
    piece = Rect(32, 32, 32, 32)
    sample = Sample(
        generate=lambda network: generate_piece(network, windows.pairs, piece),
        real=real_piece(windows.pairs, tiny_spec.sections, piece),
        stains=tiny_spec.stains,
    )
    watch = Watch(folder / "out", windows, sample, tensorboard(folder / "board"))
    settings = SETTINGS.model_copy(update={"steps": 2, "save_minutes": 1e-9, "keep": 1})
    trainer = Trainer(tiny_spec, windows, settings, folder / "states", watch=watch)
    trainer.run()
    return trainer, watch


def test_losses_are_written_as_they_are(watched):
    trainer, watch = watched
    assert rows(watch.folder / "loss.csv") == trainer.losses
    assert rows(watch.folder / "validation.csv") == trainer.validation
    assert [step for step, _ in trainer.validation] == [1, 2]
    assert (watch.folder / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_validation_loss_of_the_same_network_is_the_same(watched):
    trainer, watch = watched
    network = trainer.averaged()
    assert watch._validation_loss(trainer, network) == trainer.validation[-1][1]


@pytest.mark.parametrize(
    ("loss", "expected"), [("published", lambda t: t), ("shifted", worth_learning)]
)
def test_the_validation_loss_is_at_the_timesteps_of_training(
    windows, tiny_spec, tmp_path, monkeypatch, loss, expected
):
    settings, seen = SETTINGS.model_copy(update={"loss": loss}), []
    trainer = Trainer(tiny_spec, windows, settings, tmp_path)
    monkeypatch.setattr(trainer, "loss", lambda _, batch: seen.extend(batch.t) or torch.zeros(()))
    Watch(tmp_path, windows)._validation_loss(trainer, trainer.network)
    spread = torch.arange(BATCHES) * TRAINING_STEPS // BATCHES + TRAINING_STEPS // (2 * BATCHES)
    assert [int(t) for t in seen] == expected(spread).tolist()


def test_every_checkpoint_leaves_a_picture(watched):
    _, watch = watched
    names = sorted(path.name for path in (watch.folder / "samples").iterdir())
    assert names == [f"step_{step:08d}.png" for step in (1, 2)]
    last = (watch.folder / "samples" / names[-1]).read_bytes()
    assert (watch.folder / "samples.png").read_bytes() == last
    assert imagecodecs.png_decode(last).std() > 0


def test_the_last_states_are_kept(watched):
    trainer, _ = watched
    names = sorted(path.name for path in trainer.folder.iterdir())
    assert names == ["state_00000002.pt"]


def test_tensorboard_shows_every_loss_and_sample_once(watched):
    trainer, watch = watched
    board = EventAccumulator(watch.board.log_dir)
    board.Reload()
    for name, losses in (("training", trainer.losses), ("validation", trainer.validation)):
        shown = [(event.step, event.value) for event in board.Scalars(f"loss/{name}")]
        assert shown == [(step, pytest.approx(loss)) for step, loss in losses]
    first, last = board.Images("samples")
    assert (first.step, last.step) == (1, 2)
    saved = imagecodecs.png_decode((watch.folder / "samples.png").read_bytes())
    shown = imagecodecs.png_decode(last.encoded_image_string)
    np.testing.assert_allclose(shown, saved[..., :3], atol=1)


def test_training_does_without_tensorboard(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert tensorboard(tmp_path) is None


def test_the_real_piece_is_cut_from_the_images(watched):
    trainer, _ = watched
    pairs = trainer.windows.pairs
    rect = Rect(32, 64, 64, 32)
    real = real_piece(pairs, 4, rect)
    np.testing.assert_array_equal(real, pairs.images[:, :, 32:96, 64:96])


def test_the_piece_that_is_looked_at_holds_most_molecules(tmp_path):
    with RasterWriter(tmp_path / "raster", panel=["Th"], sections=3, extent=FIELD) as writer:
        at = np.array([40, 41, 70, 5, 5, 5, 5])
        z = np.array([1, 1, 1, 0, 2, 2, 2])  # sections beside the middle one do not count
        writer.add(section=z, y=at, x=at, gene=0 * z, count=0 * z + 1)
    pieces = [Rect(k, k, 32, 32) for k in (0, 32, 64)]
    assert fullest(pieces, Raster.open(tmp_path / "raster")) == pieces[1]


def test_a_piece_generated_twice_is_the_same(watched, tiny_spec):
    trainer, _ = watched
    piece = piece_of(FIELD, 32)
    assert piece.rounded_out(32) == piece and piece.cut(FIELD) == piece
    network = trainer.averaged()
    first, again = (generate_piece(network, trainer.windows.pairs, piece) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = generate_piece(Network(tiny_spec).eval(), trainer.windows.pairs, piece)
    assert first.shape == (2, 2, piece.height, piece.width)
    assert (other != first).any()
