"""Times, amounts and lengths as people say them."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teramind.units import amount, duration, scale_bar, size


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (71.99 * 3600, "71 h 59 min"),
        (72 * 3600, "3 days 00 h"),
        (1e9, "11,574 days 01 h"),
    ],
)
def test_times_have_the_two_units_that_matter(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (1023, "1,023 B"), (1536, "1.5 KiB"), (5 << 40, "5 TiB"), (2e16, "18,190 TiB")],
)
def test_amounts_have_binary_units(count, words):
    assert size(count) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 "), (7.5, "7.5 "), (999.7, "1,000 "), (1234, "1.23 k"), (5e15, "5,000 T")],
)
def test_a_prefix_stands_before_the_unit_that_follows(count, words):
    assert amount(count) == words


@settings(max_examples=50, deadline=None)
@given(width_um=st.floats(0.5, 2e5))
def test_a_scale_bar_is_round_and_fits(width_um):
    percent, label = scale_bar(width_um)
    number, unit = label.split()
    length = float(number) * {"mm": 1000, "µm": 1}[unit]
    assert re.sub("[.0]|e-.*", "", number) in {"1", "2", "5"}
    assert percent == pytest.approx(100 * length / width_um, rel=1e-5)
    assert 9.9 < percent <= 25
