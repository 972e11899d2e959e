"""Consistency with the interventional law: what is known of sets of images made by hand."""

import numpy as np
import pytest

from causalgen.metrics import attribute_distance, variance_ratio
from causalgen.metrics.feature_distance import variance_within
from graphs.errors import DataError, ShapeError


def images(n, spread=0.1, seed=0):
    random = np.random.default_rng(seed)
    groups = random.integers(0, 3, n)
    return (0.3 + 0.2 * groups)[:, None, None, None] + spread * random.uniform(-1, 1, (n, 1, 4, 5)), groups


def test_variance_within_groups_is_the_pooled_unbiased_one():
    pixels, groups = images(60)
    expected = sum((pixels[groups == g].var(0, ddof=1) * (groups == g).sum()).sum() for g in range(3)) / 60
    assert np.mean(variance_within(pixels.astype(np.float32), groups)) == pytest.approx(expected, rel=1e-5)


def test_an_image_alone_in_its_group_is_left_out():
    pixels, groups = images(20)
    groups[0] = 7
    found = variance_within(pixels, groups)
    assert np.isnan(found[0]) and np.isfinite(found[1:]).all()
    assert variance_ratio(pixels, groups, pixels, groups).left_out == 1


@pytest.mark.parametrize("size", [2, 5])
def test_intervals_hold_the_truth_where_groups_are_small(size):
    """Two rows of a group tell its variance once, not twice: of such pairs 0.81 of the intervals held it."""
    random, groups = np.random.default_rng(0), np.repeat(np.arange(120 // size), size)
    tone = lambda rows: np.float32(0.5 + 0.1 * random.normal(size=(rows, 1, 1, 1)).clip(-4, 4))  # noqa: E731
    samples, held = tone(20_000), 0
    for _ in range(150):
        score = variance_ratio(tone(120), groups, samples[:2000], np.zeros(2000))
        truth = 0.01 / float(samples[:2000].var(ddof=1))
        held += score.low <= truth <= score.high
    assert held / 150 > 0.9


@pytest.mark.parametrize("share", [0.5, 1, 1.2])
def test_the_ratio_is_the_square_of_the_spread(share):
    made, real = images(400, spread=0.1 * share, seed=1), images(400, seed=2)
    score = variance_ratio(made[0], made[1], real[0], real[1])
    assert score.value == pytest.approx(share**2, rel=0.03) and score.low < score.value < score.high


def test_attributes_are_compared_by_their_distribution_functions():
    one, other = np.random.default_rng(0).normal(size=(2, 80))
    other[3] = np.nan
    score = attribute_distance(one, other)
    known = np.delete(other, 3)
    points = np.concatenate([one, known])[:, None]
    apart = np.abs((one <= points).mean(1) - (known <= points).mean(1)).max()
    assert score.value == pytest.approx(apart)
    assert attribute_distance(one, one).value == 0 and attribute_distance(other, one).left_out == 1


def test_refusals():
    pixels, groups = images(6)
    with pytest.raises(ShapeError, match="a group for each of 6 images"):
        variance_within(pixels, groups[:5])
    with pytest.raises(DataError, match="do not vary"):
        variance_ratio(pixels, groups, np.zeros_like(pixels), groups)
    with pytest.raises(DataError, match="could be measured"):
        attribute_distance([np.nan], [1.0])


@pytest.mark.parametrize("groups", [[0, 0, None], [0.0, 0.0, float("nan")]])
def test_an_image_without_a_group_is_refused(groups):
    with pytest.raises(DataError, match="no group"):
        variance_within(np.zeros((3, 1, 2, 2), np.float32), groups)
