import math

import pytest
import torch

from causalgen.checking.statistics import (
    adjusted_p_values,
    independence_test,
    kernel_features,
    ranked_columns,
    tail_bound,
)
from tests.mechanisms.fit import codes, generator, normal

N = 400


def features(values):
    return kernel_features(ranked_columns(values))


def p_value(x, y, seed=0, permutations=999):
    return independence_test(features(x), features(y), permutations=permutations, generator=generator(seed))[
        1
    ]


def test_p_values_of_independent_pairs_are_uniform():
    found = torch.tensor(
        [p_value(normal(100, seed=2 * i), normal(100, seed=2 * i + 1), i) for i in range(200)]
    )
    for level in (0.1, 0.5, 0.9):
        share = (found <= level).double().mean().item()
        assert share == pytest.approx(level, abs=4 * (level * (1 - level) / 200) ** 0.5)


@pytest.mark.parametrize(
    "y",
    [
        normal(N) + 3 * normal(N, seed=1),
        normal(N) ** 2 + 0.3 * normal(N, seed=1),  # no correlation
        normal(N) * normal(N, seed=1),  # only the spread depends
        torch.exp(4 * normal(N) + normal(N, seed=1)),  # outliers
        (normal(N) + normal(N, seed=1) > 0).long(),
        torch.stack([normal(N, seed=1), normal(N) + normal(N, seed=2)], 1),
    ],
    ids=["linear", "square", "spread", "heavy tails", "category", "vector"],
)
def test_dependence_is_found(y):
    assert p_value(normal(N), y) <= 1 / 1000


@pytest.mark.parametrize("value", [4.0, 16.0, 30.0])
def test_tails_are_bounded(value):
    """P(z^2 >= v) is erfc(sqrt(v / 2)), of two weights of 1/2 it is exp(-v): the bound is above, if near."""
    of_one, of_two = math.erfc((value / 2) ** 0.5), math.exp(-value)
    for weights, exact in ((torch.ones(1), of_one), (torch.ones(2) / 2, of_two)):
        assert exact <= tail_bound(weights, value) <= max(40 * value**0.5 * exact, 1e-9)
    # Equal weights far below the value, as of independent features, and one that is below its mean.
    assert tail_bound(torch.full((400,), 0.01), 40.0) == 1e-9 and tail_bound(torch.ones(9), 5.0) == 1.0


def test_strength_is_1_of_itself_and_0_of_a_constant():
    x = features(normal(N))
    strength = independence_test(x, x, permutations=9, generator=generator())[0]
    assert strength == pytest.approx(1.0, abs=1e-5)
    constant = features(torch.full((N,), 3.0))
    assert independence_test(x, constant, permutations=9, generator=generator()) == (0.0, 1.0)


def test_features_are_those_of_the_kernel():
    columns = ranked_columns(normal(50))
    distances = torch.cdist(columns, columns)
    kernel = (-0.5 * (distances / distances[distances > 0].median()).square()).exp()
    centred = kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean()
    found = kernel_features(columns).double()
    assert (found @ found.T - centred).abs().max() < 0.03
    assert found.shape[1] < 20


def test_ranks_share_ties():
    ranks = ranked_columns(torch.tensor([3.0, 1.0, 3.0, 100.0]))[:, 0]
    assert ranks[0] == ranks[2]
    assert (ranks[3] - ranks[0] == ranks[0] - ranks[1]) and ranks.mean().abs() < 1e-12


def test_permutations_come_from_the_generator_alone():
    x, y = normal(N), codes(3, N)
    assert p_value(x, y, seed=4) == p_value(x, y, seed=4)


def test_adjusted_p_values():
    assert adjusted_p_values([]) == []
    # By hand: 4/1 * .01; then 4/2 * .04 and 4/3 * .045, both above 4/4 * .05, which they are lowered to.
    assert adjusted_p_values([0.05, 0.01, 0.04, 0.045]) == pytest.approx([0.05, 0.04, 0.05, 0.05])
