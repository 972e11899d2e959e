"""Draws of every family follow Pyro's density of it, and bad parameters are told apart."""

import pytest
import torch

from causalgen.checking.statistics import distance_to_density, distance_to_table
from graphs.errors import SpecError, UnknownNameError
from mechanisms.tables.noise_families import FAMILIES, noise_law
from tests.mechanisms.fit import generator

LAWS = {
    "bernoulli": [[0.3], [0.0], [1.0]],
    "beta": [[2.0, 5.0], [0.5, 0.7]],
    "binomial": [[7, 0.4]],
    "categorical": [[0.2, 0.5, 0.3], [0.5, 0.5, 0.0], [0.0, 1.0], [0.1] * 10],
    "cauchy": [[1.0, 2.0]],
    "exponential": [[3.0]],
    "gamma": [[2.5, 2.0], [0.7, 0.1]],
    "geometric": [[0.3], [0.9], [1.0]],
    "gumbel": [[-1.0, 2.0]],
    "half_normal": [[2.0]],
    "laplace": [[1.0, 0.5]],
    "log_normal": [[0.3, 0.8]],
    "logistic": [[2.0, 0.5]],
    "normal": [[-1.0, 3.0]],
    "poisson": [[3.5], [40.0]],
    "student_t": [[4.0, 1.0, 2.0]],
    "uniform": [[-2.0, 5.0]],
}
EXAMPLES = [(name, parameters) for name, each in LAWS.items() for parameters in each]
N = 4000


def test_every_family_has_an_example():
    assert tuple(sorted(LAWS)) == FAMILIES.kinds()


@pytest.mark.parametrize(("name", "parameters"), EXAMPLES)
def test_draws_follow_pyros_density(name, parameters):
    law = noise_law({name: parameters})
    draws = law.sample(N, generator(3))
    assert draws.shape == (N,) and draws.dtype == torch.float64
    low, high = law.bounds()
    assert low <= draws.min() and draws.max() <= high and bool(draws.isfinite().all())
    assert torch.equal(law.nearest(draws), draws) and bool(law.log_prob(draws).isfinite().all())
    # The density is integrated between the draws: leave the ends, where it may be infinite or far apart.
    if law.discrete:
        distance = distance_to_table(draws, law.log_prob)
    else:
        kept = draws.sort().values[20:-20]
        inner = distance_to_density(
            kept, lambda values: law.log_prob(values) - torch.tensor((N - 40) / N).log()
        )
        distance = inner - 40 / N
    assert distance < 2.3 / N**0.5


@pytest.mark.parametrize(("name", "parameters"), EXAMPLES)
def test_draws_have_pyros_moments(name, parameters):
    law = noise_law({name: parameters})
    if name in ("cauchy", "categorical"):
        return
    draws, distribution = law.sample(20_000, generator(4)), law.distribution()
    error = 5 * (distribution.variance / 20_000).sqrt()
    assert (draws.mean() - distribution.mean).abs() <= error + 1e-12


@pytest.mark.parametrize("name", LAWS)
def test_the_generator_alone_decides(name):
    law = noise_law({name: LAWS[name][0]})
    one, again, other = (law.sample(50, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)


@pytest.mark.parametrize("name", LAWS)
def test_finite_support_has_all_probability(name):
    support = noise_law({name: LAWS[name][0]}).finite_support
    assert (support is None) == (name not in ("bernoulli", "binomial", "categorical"))
    if support is not None:
        total = noise_law({name: LAWS[name][0]}).log_prob(support).exp().sum()
        torch.testing.assert_close(total.item(), 1.0)


def test_the_ends_of_a_half_open_support_have_a_density():
    for name in ("uniform", "beta", "gamma"):
        law = noise_law({name: LAWS[name][0]})
        ends = law.nearest(torch.tensor([-1e9, 1e9]).double())
        assert bool((law.log_prob(ends) > -torch.inf).all())


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"normal": [0, 0]}, "normal: scale must be above 0, got 0"),
        ({"normal": [0, -1]}, "normal: scale must be above 0, got -1"),
        ({"normal": [1]}, r"normal takes 2 parameter\(s\), loc, scale; got \[1\]"),
        ({"normal": [0, 1, 2]}, "takes 2"),
        ({"uniform": [1, 1]}, "uniform: high must be above the one before it, got 1"),
        ({"bernoulli": [1.5]}, r"bernoulli: probs must be in \[0, 1\], got 1.5"),
        ({"binomial": [2.5, 0.5]}, "binomial: total_count must be a whole number of at least 1, got 2.5"),
        ({"categorical": [0.5, 0.6]}, "add up to 1.1"),
        ({"categorical": [1.5, -0.5]}, "none negative"),
        ({"categorical": []}, "add up to 0"),
        ({}, "one family.*got none"),
        ({"normal": [0, 1], "gamma": [1, 1]}, r"one family.*got \['gamma', 'normal'\]"),
    ],
)
def test_bad_parameters(written, message):
    with pytest.raises(SpecError, match=message):
        noise_law(written)


def test_unknown_family_names_the_nearest():
    with pytest.raises(UnknownNameError, match="'gama'. Did you mean 'gamma'"):
        noise_law({"gama": [1, 1]})
