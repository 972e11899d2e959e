"""Intervals against published numbers and against what they promise."""

import numpy as np
import pytest

from causalgen.metrics.image_rows import distance, distance_unit
from causalgen.metrics.likeness import attribute_correlation
from causalgen.metrics.scores import bootstrap_interval, mean_score, share_score, wilson_interval
from graphs.errors import DataError, DomainError, ShapeError
from graphs.variables import Categorical, Continuous, Image


@pytest.mark.parametrize(
    ("successes", "trials", "expected"),
    # Newcombe 1998 (*Statistics in Medicine* 17), table I, method 3.
    [
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson_as_published(successes, trials, expected):
    assert wilson_interval(successes, trials) == pytest.approx(expected, abs=5e-5)


def test_wilson_stays_inside_and_mirrors():
    low, high = wilson_interval(3, 10)
    assert wilson_interval(7, 10) == pytest.approx((1 - high, 1 - low))
    assert wilson_interval(10, 10)[1] == 1.0 and wilson_interval(0, 10)[0] == 0.0


def test_bootstrap_agrees_with_the_normal_interval():
    values = np.random.default_rng(0).normal(5, 2, 2000)
    low, high = bootstrap_interval(values, seed=1)
    reach = 1.96 * values.std() / np.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - reach, values.mean() + reach), abs=0.15 * reach)
    assert bootstrap_interval(values, seed=1) == (low, high)


def test_bootstrap_in_pieces_covers_all_resamples(monkeypatch):
    values = np.random.default_rng(0).normal(size=100)
    monkeypatch.setattr("causalgen.metrics.scores._NUMBERS_AT_ONCE", 100 * 300)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high


@pytest.mark.parametrize(("rows", "least"), [(3, 0.9), (5, 0.92), (12, 0.92)])
def test_intervals_of_few_rows_hold_the_truth(rows, least):
    """Percentiles alone held it in 0.72, 0.83 and 0.90; those of a correlation of three in 0.57."""
    random = np.random.default_rng(0)
    held = np.zeros((300, 2))
    for trial in range(300):
        one, other = random.normal(size=(2, rows))
        for place, (score, truth) in enumerate(
            [(mean_score(one), 0.0), (attribute_correlation(one + other, one), 0.5**0.5)]
        ):
            held[trial, place] = score.low <= truth <= score.high
    assert (held.mean(0) > least).all()


def test_rows_that_all_agree_are_no_certainty_of_values_within_limits():
    assert mean_score([1.0] * 20, limits=(0, 1)).low == pytest.approx(wilson_interval(20, 20)[0])
    assert mean_score([0.0] * 20, limits=(0, 1)).high == pytest.approx(wilson_interval(0, 20)[1])
    assert bootstrap_interval([2.0] * 20) == (2, 2)


def test_intervals_stay_within_limits():
    assert mean_score([0.0, 3.0], limits=(0, np.inf)).low == 0 > mean_score([0.0, 3.0]).low


def test_scores_say_what_they_are():
    score = mean_score([1.0, np.nan, 3.0], "px")
    assert (score.value, score.rows, score.left_out, score.unit) == (2.0, 2, 1, "px")
    assert mean_score([2.0]).to_dict()["low"] is None
    assert str(mean_score([2.0])) == "2.000"
    blank = mean_score([np.nan, np.nan])
    assert blank.to_dict()["value"] is None and blank.rows == 0 and blank.left_out == 2
    assert share_score([True, False]).value == 0.5


@pytest.mark.parametrize(
    ("variable", "one", "other", "expected", "unit"),
    [
        (Image(1, 1, 2), [[[[0.0, 1.0]]]], [[[[0.5, 1.0]]]], 63.75, "L1 on 0..255"),
        (Image(1, 1, 2), np.array([[[[0, 255]]]], dtype=np.uint8), [[[[0.5, 1.0]]]], 63.75, "L1 on 0..255"),
        (Continuous(unit="px"), [1.0], [3.5], 2.5, "px"),
        (Continuous(lower=0), [1.0], [-0.5], 1.5, "its unit"),
        (Continuous(shape=(2,)), [[1.0, 2.0]], [[2.0, 5.0]], 2.0, "its unit"),
        (Categorical(["a", "b"]), ["a"], ["b"], 1.0, "share that differs"),
    ],
)
def test_distances(variable, one, other, expected, unit):
    one = np.array(one, dtype=np.float32) if isinstance(variable, Image) and isinstance(one, list) else one
    assert distance(variable, one, other) == pytest.approx([expected])
    assert distance_unit(variable) == unit


def test_what_has_no_score():
    with pytest.raises(DataError, match="empty selection"):
        mean_score([])
    with pytest.raises(DataError, match="one number a row"):
        mean_score([[1.0]])
    with pytest.raises(DomainError, match="5 of 4"):
        wilson_interval(5, 4)
    with pytest.raises(DomainError, match="confidence"):
        mean_score([1.0, 2.0], confidence=95)
    with pytest.raises(ShapeError, match="paired"):
        distance(Continuous(), [1.0], [1.0, 2.0])
