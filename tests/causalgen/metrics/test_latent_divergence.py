"""CLD on an encoder whose divergences are known: a pixel is the mean of a unit Gaussian."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from causalgen.metrics.latent_divergence import (
    BENCHMARK,
    PAPER,
    ClassDistances,
    class_distances,
    cld,
    cld_do_nothing,
    cld_floor,
    gaussian_divergence,
)
from graphs.errors import DataError, DomainError, ShapeError

RNG = np.random.default_rng(0)


def encode(images):
    """One latent with unit variance, so that KL = (m - m')² / 2."""
    mean = torch.as_tensor(images).double().flatten(1).mean(1, keepdim=True)
    return mean, torch.zeros_like(mean)


def picture(*values):
    """Images of one grey each."""
    return np.broadcast_to(np.array(values)[:, None, None, None], (len(values), 1, 4, 4)).copy()


def by_hand(own, target):
    """Distances of one factual image given as they are."""
    zero = torch.zeros(1, 1, dtype=torch.float64)
    return ClassDistances(encode, (zero, zero), (np.sort(own),), (np.sort(target),))


@pytest.fixture
def rows():
    """40 real images of two classes, 6 factual ones among them, and distances."""
    real, classes = picture(*RNG.uniform(0, 1, 40)), np.tile([0, 1], 20)
    factual, old = real[:6], classes[:6]
    return factual, class_distances(encode, factual, old, 1 - old, real, classes)


def test_divergence_is_that_of_gaussians():
    m, v, n, w = torch.randn(4, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = kl_divergence(Normal(m, (v / 2).exp()), Normal(n, (w / 2).exp())).sum(-1)
    assert torch.allclose(gaussian_divergence(m, v, n, w), exact, rtol=1e-12)


def test_distances_are_the_divergences_sorted_by_class():
    generator = torch.Generator().manual_seed(1)
    means, spreads = torch.randn(2, 44, 3, dtype=torch.float64, generator=generator)
    real_classes = np.arange(40) % 2

    def lookup(images):
        index = (torch.as_tensor(images)[:, 0, 0, 0] * 255).round().long()
        return means[index], spreads[index]

    found = class_distances(
        lookup, picture(*np.arange(40, 44) / 255), [0, 1, 0, 1], [1, 0, 0, 0],
        picture(*np.arange(40) / 255), real_classes,
    )  # fmt: skip
    for row, (old, new) in enumerate([(0, 1), (1, 0), (0, 0), (1, 0)]):
        for kept, code in ((found.own[row], old), (found.target[row], new)):
            members = real_classes == code
            exact = gaussian_divergence(
                means[:40][members], spreads[:40][members], means[40 + row], spreads[40 + row]
            )
            assert np.allclose(kept, np.sort(exact.numpy()), rtol=1e-9)


def test_doing_nothing_scores_log_of_one_plus_e(rows):
    factual, distances = rows
    assert cld(factual, distances).value == pytest.approx(math.log(1 + math.e))
    assert cld(factual, distances, BENCHMARK).value == pytest.approx(math.log(0.8 + 0.2 * math.e))
    assert cld_do_nothing() == pytest.approx(1.3132617)
    assert cld_do_nothing(BENCHMARK) == pytest.approx(0.2954, abs=1e-4)


def test_a_case_by_hand():
    distances = by_hand(own=[1.0, 2.0, 3.0, 4.0], target=[2.5, 3.5, 4.5, 5.5])
    # At 3: one of four targets is nearer, and two of four of its own class are as far (3 itself counts).
    expected = math.log(math.exp(0.25) + math.exp(0.5))
    assert distances.score(np.array([3.0])) == pytest.approx([expected])
    weighted = math.log(0.8 * math.exp(0.25) + 0.2 * math.exp(0.5))
    assert distances.score(np.array([3.0]), BENCHMARK) == pytest.approx([weighted])


def test_every_value_is_in_range(rows):
    _, distances = rows
    low, high = math.log(2), 1 + math.log(2)
    for d in (0.0, 1e-4, 0.01, 0.1, 10.0):
        scores = distances.score(np.full(6, d))
        assert ((scores >= low - 1e-12) & (scores <= high + 1e-12)).all()


def test_ends_of_the_range():
    apart = by_hand(own=[1.0, 2.0], target=[10.0, 11.0])
    assert apart.score(np.array([5.0])) == pytest.approx([math.log(2)])
    assert apart.least() == pytest.approx([math.log(2)])
    swapped = by_hand(own=[10.0, 11.0], target=[1.0, 2.0])
    assert swapped.score(np.array([5.0])) == pytest.approx([1 + math.log(2)])


@pytest.mark.parametrize("weights", [PAPER, BENCHMARK])
def test_floor_is_the_least_over_a_fine_grid(weights):
    for _ in range(20):
        distances = by_hand(own=RNG.gamma(2, 1, 7), target=RNG.gamma(4, 1, 9))
        # CLD is constant between neighbouring values: these, the gaps and beyond are all there is.
        values = np.sort(np.concatenate([[0], distances.own[0], distances.target[0]]))
        grid = np.concatenate([values, (values[1:] + values[:-1]) / 2, [values[-1] + 1]])
        least = min(float(distances.score(np.array([d]), weights)[0]) for d in grid)
        assert float(distances.least(weights)[0]) == pytest.approx(least, abs=1e-12)


def test_floor_lies_below_everything(rows):
    factual, distances = rows
    floor = cld_floor(distances).value
    assert floor <= cld(factual, distances).value
    assert floor <= cld(picture(*RNG.uniform(0, 1, 6)), distances).value


def test_an_image_of_the_new_class_just_beyond_its_own_scores_less_than_a_far_one():
    real = picture(*np.linspace(0, 0.3, 30), *np.linspace(0.5, 0.8, 30))
    classes = np.repeat([0, 1], 30)
    distances = class_distances(encode, picture(0.2), [0], [1], real, classes)
    assert cld(picture(0.5), distances).value < cld(picture(0.8), distances).value


def test_a_real_image_counts_itself_whatever_batch_it_is_in():
    """A control is one of the real images, and encoded in a batch of another size: the last bits differ."""

    def encode_in_batches(images):
        mean, log_variance = encode(images)
        return mean * (1 + 1e-9 * len(mean)), log_variance

    grey, classes = RNG.uniform(0, 1, 40), np.tile([0, 1], 20)
    old, made = classes[:6], np.arange(21, 27)  # of the other class
    distances = class_distances(encode_in_batches, picture(*grey[:6]), old, 1 - old, picture(*grey), classes)
    apart = np.abs(grey - grey[:6, None])
    d = apart[np.arange(6), made][:, None]
    near = ((apart <= d) & (classes != old[:, None])).sum(1) / 20
    far = ((apart >= d) & (classes == old[:, None])).sum(1) / 20
    expected = np.log(np.exp(near) + np.exp(far)).mean()
    assert cld(picture(*grey[made]), distances).value == pytest.approx(expected)


def test_bad_input_is_refused(rows):
    factual, distances = rows
    real, classes = picture(*np.linspace(0, 1, 30)), np.repeat([0, 1], [25, 5])
    with pytest.raises(DataError, match="class 1 has 5 images, expected at least 10"):
        class_distances(encode, factual, [0] * 6, [1] * 6, real, classes)
    with pytest.raises(ShapeError, match="factual images 6, factual classes 5"):
        class_distances(encode, factual, [0] * 5, [0] * 6, real, classes)
    with pytest.raises(ShapeError, match="real images 30, real classes 29"):
        class_distances(encode, factual, [0] * 6, [0] * 6, real, classes[1:])
    with pytest.raises(ShapeError, match="counterfactual images 5, factual images 6"):
        cld(factual[:5], distances)
    with pytest.raises(DomainError, match="weights are positive"):
        cld(factual, distances, (1.0, 0.0))
