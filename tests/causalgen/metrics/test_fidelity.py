"""Real images to compare with, minimality and the true counterfactual error, on images told by hand."""

import math

import numpy as np
import pytest

from causalgen.metrics.controls import real_images
from causalgen.metrics.fidelity import minimality, true_counterfactual_error
from graphs.errors import DataError, DomainError, ShapeError
from graphs.variables import Categorical, Continuous, Image, Integer
from tests.causalgen.metrics import shades


def flat(values):
    """An image of one brightness for each value, (N, 1, 2, 2)."""
    return np.repeat(np.asarray(values, dtype=np.float32), 4).reshape(-1, 1, 2, 2)


POOL = np.linspace(0, 1, 41)
KINDS = (np.arange(41) % 2).astype(int)


def test_nearest_real_image_of_a_category():
    found = real_images(flat([0.26, 0.5]), [1, 0], flat(POOL), KINDS, Categorical(2))
    assert POOL[found.nearest] == pytest.approx([0.275, 0.5])
    assert KINDS[found.random].tolist() == [1, 0]


def test_random_real_images_are_of_the_class_and_vary():
    wanted = np.arange(300) % 2
    found = real_images(flat(np.full(300, 0.5)), wanted, flat(POOL), KINDS, Categorical(2), seed=3)
    assert (KINDS[found.random] == wanted).all()
    assert set(found.random[wanted == 0]) == set(np.flatnonzero(KINDS == 0))
    again = real_images(flat(np.full(300, 0.5)), wanted, flat(POOL), KINDS, Categorical(2), seed=3)
    assert (again.random == found.random).all()


def test_an_image_is_no_control_of_itself():
    own = np.arange(41)
    found = real_images(flat(POOL), KINDS, flat(POOL), KINDS, Categorical(2), own=own)
    assert (found.nearest != own).all() and (found.random != own).all()
    assert (np.abs(found.nearest - own) == 2).all()


def test_class_of_a_number_is_its_nearest_values():
    random = np.random.default_rng(0)
    values = random.random(1000)
    wanted = random.random(50)
    found = real_images(flat(random.random(50)), wanted, flat(random.random(1000)), values, Continuous())
    for rows in (found.random, found.nearest):
        apart = np.abs(values[rows] - wanted)
        tenth = np.sort(np.abs(values[None] - wanted[:, None]), 1)[:, 9]
        assert (apart <= 2 * tenth + 1e-12).all()


def test_edges_of_the_range_have_a_class_too():
    found = real_images(flat([0.5] * 3), [-9.0, 0.5, 9.0], flat(POOL), POOL, Continuous())
    assert found.nearest[0] <= 1 and found.nearest[2] >= 39


@pytest.mark.parametrize(("weights", "nothing"), [((0.8, 0.2), 0.2954), ((1, 1), math.log(1 + math.e))])
def test_doing_nothing_scores_as_published(weights, nothing):
    images = flat([0.5, 0.51])
    found = minimality(images, images, [0, 0], [1, 1], flat(POOL), KINDS, Categorical(2), weights=weights)
    assert found["counterfactual"].value == found["do nothing"].value == pytest.approx(nothing, abs=1e-3)
    assert found["floor"].value <= nothing


def test_minimality_counts_who_is_nearer():
    """Factual .0 of class 0 (0, .05, ...); the other class is at .025, .075, ...; moved by .05."""
    found = minimality(flat([0.0]), flat([0.05]), [0], [1], flat(POOL), KINDS, Categorical(2))
    nearer, further = 1 / 20, 20 / 21
    expected = math.log(0.8 * math.exp(nearer) + 0.2 * math.exp(further))
    assert found["counterfactual"].value == pytest.approx(expected, rel=1e-6)


def test_minimality_floor_is_the_least_of_all_distances():
    tried = [
        minimality(flat([0.3]), flat([0.3 + d]), [0], [1], flat(POOL), KINDS, Categorical(2))
        for d in np.linspace(0, 0.69, 200)
    ]
    least = min(each["counterfactual"].value for each in tried)
    assert tried[0]["floor"].value == pytest.approx(least, abs=1e-9)


def test_minimality_of_a_number_by_bins_and_features():
    calls = []

    def embed(images):
        calls.append(len(images))
        return images[:, :, :1, :1]

    kwargs = {"embed": embed, "bins": 2}
    found = minimality(flat([0.1]), flat([0.9]), [0.1], [0.9], flat(POOL), POOL, Continuous(), **kwargs)
    assert calls == [1, 1, 41]
    # All of its own half is nearer than where it went; of the other half, all but the last four.
    expected = math.log(0.8 * math.exp(17 / 21) + 0.2 * math.exp(0))
    assert found["counterfactual"].value == pytest.approx(expected, abs=0.03)


def test_true_error_of_the_truth_is_zero_and_beside_it_doing_nothing():
    data = shades.rows(20)
    shade = np.roll(data["shade"], 1)
    truth = data["image"] + (shade - data["shade"])[:, None, None, None].astype(np.float32) / 4
    found = true_counterfactual_error(truth, truth, data["image"], {"shade": shades.shade_of})
    moved = np.abs(shade - data["shade"]).mean()
    assert found["pixels"]["counterfactual"].value == 0
    assert found["pixels"]["do nothing"].value == pytest.approx(255 * moved / 4, rel=1e-4)
    assert found["shade"]["do nothing"].value == pytest.approx(moved, rel=1e-4)
    lazy = true_counterfactual_error(data["image"], truth, data["image"], {"shade": shades.shade_of})
    for quantity in ("pixels", "shade"):
        assert (
            lazy[quantity]["counterfactual"] == lazy[quantity]["do nothing"] == found[quantity]["do nothing"]
        )


def test_what_cannot_be_compared():
    with pytest.raises(DataError, match="Class 2 has 0 real images.*at least 2"):
        real_images(flat([0.5]), [2], flat(POOL), KINDS, Categorical(3))
    with pytest.raises(DataError, match="Class 1 has 20 real images.*at least 30"):
        minimality(flat([0.1]), flat([0.2]), [1], [1], flat(POOL), KINDS, Categorical(2), least=30)
    with pytest.raises(DataError, match=r"^The bin from 0.5 to 1, one of 2, has 2 real images.*at least 10"):
        shades = np.array([0, 0.25, 0.5, 0.75, 1])  # the median is 0.5, and what lies above it are two
        minimality(flat([0]), flat([1]), [0.9], [0.9], flat(shades), shades, Continuous(), bins=2)
    with pytest.raises(ShapeError, match="1 images and 2 values"):
        real_images(flat([0.5]), [1, 0], flat(POOL), KINDS, Categorical(2))
    with pytest.raises(ShapeError, match="one number"):
        real_images(flat([0.5]), flat([0.5]), flat(POOL), flat(POOL), Image(1, 2, 2))
    with pytest.raises(DataError, match="empty"):
        real_images(flat([]), [], flat(POOL), KINDS, Categorical(2))
    with pytest.raises(DomainError, match="weights"):
        minimality(flat([0.1]), flat([0.2]), [0], [1], flat(POOL), KINDS, Categorical(2), weights=(0, 1))
    with pytest.raises(ShapeError, match="Minimality: 1 factual and 2"):
        minimality(flat([0.1]), flat([0.2, 0.3]), [0], [1], flat(POOL), KINDS, Categorical(2))
    with pytest.raises(ShapeError, match="paired"):
        true_counterfactual_error(flat([0.1]), flat([0.1, 0.2]), flat([0.1]))
    with pytest.raises(DomainError, match="0, 1"):
        true_counterfactual_error(255 * flat([0.1]), flat([0.1]), flat([0.1]))


def test_whole_numbers_are_compared_with_all_real_images_of_theirs():
    """Not with those that come first in the file."""
    random = np.random.default_rng(0)
    pool, ages = random.random((1000, 1, 4, 4)).astype(np.float32), random.integers(20, 25, 1000)
    factual = random.random((50, 1, 4, 4)).astype(np.float32)
    found = real_images(factual, np.full(50, 22), pool, ages, Integer())
    own = np.flatnonzero(ages == 22)
    apart = np.abs(factual[:, None] - pool[own][None]).mean((2, 3, 4))
    np.testing.assert_array_equal(found.nearest, own[apart.argmin(1)])
    assert set(found.random) <= set(own) and len(set(found.random)) > 30


def test_a_number_beside_many_of_another_is_compared_with_its_nearest():
    values = np.concatenate([np.zeros(950), np.linspace(0.2, 10, 50)])
    pool = np.random.default_rng(0).random((1000, 1, 2, 2)).astype(np.float32)
    found = real_images(pool[:40], np.full(40, 1.2), pool, values, Continuous())
    assert np.abs(values[found.random] - 1.2).max() < 1.2 and (values[found.random] > 0).all()
