"""Likeness and diversity: images whose kept and drawn parts are mixed by hand."""

import numpy as np
import pytest

from causalgen.metrics import attribute_correlation, diversity, kept_in_rank, likeness, moves_of, real_images
from graphs.errors import DataError, DomainError, ShapeError
from graphs.variables import Categorical, Continuous


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("r", [-0.5, 0, 0.8])
def test_a_correlation_is_the_one_by_which_pairs_were_made(r):
    one, other = normal(2, 4000)
    score = attribute_correlation(r * one + (1 - r**2) ** 0.5 * other, one)
    assert score.value == pytest.approx(r, abs=0.03)
    # Fisher's interval: normal on the scale of artanh, with deviation 1 / sqrt(N - 3).
    low, high = np.tanh(np.arctanh(score.value) + 1.96 * np.array([-1, 1]) / 3997**0.5)
    assert (score.low, score.high) == pytest.approx((low, high), abs=0.006)


def test_correlations_leave_out_what_cannot_be_measured():
    one = normal(9)
    two = 3 - 2 * one
    two[4] = np.nan
    score = attribute_correlation(one, two)
    assert score.value == pytest.approx(-1) and (score.rows, score.left_out) == (8, 1)
    assert np.isnan(attribute_correlation(one, np.full(9, 0.1)).value)  # nothing varies
    assert np.isnan(attribute_correlation(one[:2], one[:2]).value)  # two points lie on a line
    with pytest.raises(ShapeError, match=r"\(9,\) and \(8,\)"):
        attribute_correlation(one, two[:8])
    with pytest.raises(DataError, match="at least one row"):
        attribute_correlation([], [])


def test_nothing_of_the_right_law_correlates_more_than_what_keeps_its_rank():
    # Two classes, N(0, 1) and N(m, 2^2), and the other one asked: x -> the other's mean and deviation, by
    # linearity of normal quantiles. Then over rows of both, half each, in closed form:
    m, n = 6.0, 5_000
    one, two, order = normal(n), m + 2 * normal(n, seed=1), np.random.default_rng(2).permutation(n)
    real, real_classes = np.concatenate([normal(n, seed=3), m + 2 * normal(n, seed=4)]), np.repeat([0, 1], n)
    factual, classes = np.concatenate([one, two]), np.repeat([0, 1], n)
    kept = kept_in_rank(factual, classes, 1 - classes, real, real_classes)
    within, between, variance = 2.0, -(m**2) / 4, 2.5 + m**2 / 4
    best = attribute_correlation(kept, factual).value
    assert best == pytest.approx((within + between) / variance, abs=0.02)
    # The same answers for others of their class: the law is right, and they are less alike.
    for share in (0.1, 1.0):
        moved = kept.copy()
        moved[order[: int(share * n)]] = kept[np.sort(order[: int(share * n)])]
        assert attribute_correlation(moved, factual).value < best
    assert kept[:n].mean() == pytest.approx(m, abs=0.05) and kept[:n].std() == pytest.approx(2, abs=0.05)


def test_a_rank_is_kept_among_ties_gaps_and_ends():
    real, real_classes = [0.0, 0.0, 1.0, np.nan, 5.0, 6.0, 7.0], ["a", "a", "a", "b", "b", "b", "b"]
    kept = kept_in_rank([0.0, np.nan, -9.0, 9.0], [*"aaaa"], [*"bbbb"], real, real_classes)
    assert kept[0] == pytest.approx(5.5) and np.isnan(kept[1]) and kept[2:].tolist() == [5.0, 7.0]
    labels = np.array(["a"], dtype=object)
    assert kept_in_rank([1.0], labels, labels, real, real_classes).tolist() == [1.0]
    with pytest.raises(DataError, match="No real image of class 'c'"):
        kept_in_rank([1.0], ["a"], ["c"], real, real_classes)
    with pytest.raises(ShapeError, match=r"\(1,\), \(2,\)"):
        kept_in_rank([1.0], ["a", "a"], ["b"], real, real_classes)


def test_likeness_is_a_share_that_is_counted():
    real = np.array([[0.0], [1.0], [2.0], [5.0], [0.4]])
    classes = [0, 0, 0, 0, 1]
    # Row 0, at 0, moved to 1.4: 1.4 from itself; the others of its class at 0.4, 0.6 and 3.6.
    # Row 1, at 5, moved to 6: nobody is nearer to it. Row 2 has no other of its class.
    score = likeness(
        [[1.4], [6.0], [1.0]], real[[0, 3, 4]], real, [0, 0, 1], classes, own=np.array([0, 3, 4])
    )
    assert score.value == pytest.approx((1 / 3 + 1) / 2) and (score.rows, score.left_out) == (2, 1)


@pytest.mark.parametrize("images", [False, True])
def test_controls_of_likeness(images):
    """Doing nothing scores 1, an image that knows only the class 1/2; a step to another class is free."""
    random = np.random.default_rng(1)
    shape = (300, 1, 4, 4) if images else (300, 16)
    classes = random.integers(0, 3, 300)
    offset = (0.1 + 0.3 * classes).reshape(300, *(1 for _ in shape[1:]))
    real, other = (offset + 0.1 * random.random(shape) for _ in range(2))
    given = {"real": real, "classes": classes, "real_classes": classes, "own": np.arange(300)}
    assert likeness(real, real, **given).value == 1
    chance = likeness(other, real, **given)
    assert chance.low < 0.5 < chance.high and chance.high - chance.low < 0.1
    step = np.roll(offset, 1, axis=0) - offset
    moved = real + step  # into another class, all else kept
    moves = np.broadcast_to(step, shape).reshape(300, 16)
    assert likeness(moved, real, **given).value < 0.8
    assert likeness(moved, real, **given, moves=moves).value == 1
    far = likeness(other + step, real, **given, moves=moves)
    assert far.low < 0.5 < far.high


def test_moves_are_steps_between_means_and_slopes():
    real = np.array([[0.0, 1.0], [2.0, 1.0], [5.0, 4.0]])
    found = moves_of(real, ["a", "a", "b"], ["a", "b"], ["b", "a"], Categorical(["a", "b"]))
    assert found.tolist() == [[4, 3], [-4, -3]]
    slope = moves_of(real, [-1.0, 0.0, 1.0], [0.0], [1.0], Continuous())
    assert (slope / slope[0, 0]).tolist() == [[1, 0.6]]


def mixed(kept, drawn, draws=4, rows=600, seed=0):
    """Draws (S, N, 3): a part of the row, and one of the draw."""
    return kept * normal(1, rows, 3, seed=seed) + drawn * normal(draws, rows, 3, seed=seed + 1)


@pytest.mark.parametrize(("kept", "drawn"), [(1, 1), (2, 1), (0, 1)])
def test_diversity_is_the_share_of_variance_that_is_drawn(kept, drawn):
    score = diversity(mixed(kept, drawn), mixed(kept, drawn, seed=7))
    share = drawn**2 / (kept**2 + drawn**2)
    assert score.value == pytest.approx(share, rel=0.06) and score.low < share < score.high


def test_draws_that_are_equal_have_no_diversity():
    one, other = mixed(1, 0), mixed(1, 0, seed=7)
    score = diversity(one, other)
    assert (score.value, score.low, score.high) == (0, 0, 0)


def test_diversity_of_images_in_bytes_is_that_of_floats():
    random = np.random.default_rng(0)
    bytes_ = random.integers(0, 256, (2, 3, 5, 1, 4, 4)).astype(np.uint8)
    assert diversity(*bytes_).value == pytest.approx(diversity(*(bytes_ / 255).astype(np.float32)).value)


def test_refusals():
    one = mixed(1, 1, rows=4)
    with pytest.raises(DataError, match="at least 2 draws"):
        diversity(one[:1], one)
    with pytest.raises(ShapeError, match="must be paired"):
        diversity(one, one[:, :3])
    with pytest.raises(ShapeError, match="features"):
        diversity(one[0], one[0])
    with pytest.raises(DataError, match="all equal"):
        diversity(np.ones((2, 4, 3)), np.ones((2, 4, 3)))
    with pytest.raises(ShapeError, match="different sizes"):
        likeness(one[0], one[0], one[0][:, :2], np.zeros(4), np.zeros(4))
    with pytest.raises(ShapeError, match="Moves"):
        likeness(one[0], one[0], one[0], np.zeros(4), np.zeros(4), moves=np.zeros(3))
    with pytest.raises(ShapeError, match="classes"):
        likeness(one[0], one[0], one[0], np.zeros(3), np.zeros(4))
    for own, message in ((np.arange(3), "own rows 3"), (np.arange(4) + 1, "row 3 is 4, expected")):
        with pytest.raises((ShapeError, DomainError), match=message):
            likeness(one[0], one[0], one[0], np.zeros(4), np.zeros(4), own=own)
        pictures = np.zeros((4, 1, 2, 2))
        with pytest.raises((ShapeError, DomainError), match=message):
            real_images(pictures, [0] * 4, pictures, [0] * 4, Categorical(1), own=own, least=1)
