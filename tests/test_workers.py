"""Threads that share out the batches of a band give what one thread gives."""

import itertools
import threading
import time
import weakref

import numpy as np
import pytest
import torch
from test_generate import LATE, make_generator, random_network, run_slabs

from teramind.engine.phase_plane import PhasePlane
from teramind.engine.workers import side_by_side
from teramind.geometry import Rect
from teramind.network.fast import FOLDED, WINOGRAD, FastNetwork


@pytest.fixture
def torch_threads():
    """Sets torch's threads, and puts them back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("form", "threads"),
    [(FOLDED, 2), (FOLDED, 50), (WINOGRAD, 2)],
    ids=["folded", "more threads than patches", "winograd"],
)
def test_the_state_is_that_of_one_thread(torch_threads, form, threads):
    network = FastNetwork(random_network(torch.float64), form)
    found = {}
    for count in (1, threads):
        torch_threads(count)
        found[count] = run_slabs(make_generator(network, schedule=LATE[-2:]))
    assert np.abs(found[threads] - found[1]).max() < 1e-9


def test_each_batch_is_computed_by_one_thread_and_there_are_several(torch_threads, monkeypatch):
    network, seen = random_network(torch.float32), []
    decode, both = network.decode, threading.Barrier(2)

    def watched(features, time):
        seen.append((threading.current_thread(), torch.get_num_threads(), len(features.middle)))
        both.wait(timeout=60)  # passed only if two threads are in here together
        return decode(features, time)

    monkeypatch.setattr(network, "decode", watched)
    torch_threads(2)
    run_slabs(make_generator(network, bounds=Rect(0, 0, 128, 128), slab=128, phases=1))
    assert {threads for _, threads, _ in seen} == {1}
    assert threading.main_thread() not in {thread for thread, _, _ in seen}
    assert {patches for _, _, patches in seen} == {8}  # all 16 of a step in two batches


def test_which_features_of_genes_are_kept_does_not_hang_on_who_is_first(torch_threads, monkeypatch):
    """What has no room is computed anew, in other batches, which may round otherwise."""
    network, planes = random_network(torch.float32), []
    one = sum(level.nbytes for level in network.genes(torch.ones(1, 2, 2, 1, 3)))
    monkeypatch.setattr("teramind.engine.gene_features.GENE_BYTES", 15 * one)  # of 24 patches
    monkeypatch.setattr(PhasePlane, "broken", lambda plane, mask: planes.append(plane))
    genes, calls = network.genes.forward, itertools.count()
    torch_threads(2)
    for late in (0, 1):

        def waits(counts, late=late):
            if next(calls) % 2 == late:
                time.sleep(0.1)
            return genes(counts)

        monkeypatch.setattr(network.genes, "forward", waits)
        run_slabs(make_generator(network, schedule=LATE[-1:]))
    first, second = (plane.genes.place for plane in planes)
    assert 0 < (first >= 0).sum() < first.size
    assert np.array_equal(first, second)


@pytest.mark.parametrize("threads", [1, 2])
def test_only_the_band_above_is_held_while_the_next_is_encoded(torch_threads, monkeypatch, threads):
    bands, held, encode_band = [], [], PhasePlane._encode_band

    def watched(plane, *given):
        held.append(sum(band() is not None for band in bands))
        band = encode_band(plane, *given)
        bands.append(weakref.ref(band.features.middle))
        return band

    monkeypatch.setattr(PhasePlane, "_encode_band", watched)
    monkeypatch.setattr("teramind.engine.phase_plane.BATCH", 1)  # a band is one row
    torch_threads(threads)
    run_slabs(make_generator(random_network(torch.float32), schedule=LATE[-1:]))
    assert held == [0, 1, 1, 1]  # of three rows, above which is one more


def test_torch_has_its_threads_again_afterwards(torch_threads):
    torch_threads(2)
    with side_by_side(2) as each:
        assert list(each(lambda _: torch.get_num_threads(), range(4))) == [1] * 4
    assert torch.get_num_threads() == 2
    later = []
    new = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    new.start()
    new.join()
    assert later == [2]


def test_a_fault_in_a_thread_is_raised_and_what_waits_is_not_begun(torch_threads):
    torch_threads(2)
    begun = []

    def fail(item):
        begun.append(item)
        if item == 0:
            raise ValueError("no number")
        threading.Event().wait(0.05)

    with pytest.raises(ValueError, match="no number"), side_by_side(2) as each:
        list(each(fail, range(100)))
    assert len(begun) < 100
