"""Additive noise of any law: its density, its draws, and the likeliest line underneath."""

import math

import pytest
import torch

from causalgen.testing import check_mechanism
from graphs.variables import Categorical, Continuous
from mechanisms.tables.additive import Additive
from tests.mechanisms.fit import codes, fit, generator, normal

X = normal(2000)
U = torch.empty(2000, dtype=torch.float64).exponential_(generator=generator(1))


@pytest.fixture(scope="module")
def skewed():
    mechanism = Additive(noise="spline").bind(Continuous(), {"x": Continuous()})
    fit(mechanism, 2 * X + U, {"x": X}, steps=300)
    mechanism.finish(2 * X + U, {"x": X})
    return mechanism


def test_the_function_is_the_likeliest_and_the_noise_is_what_it_leaves(skewed):
    weight, bias = skewed.function.weight, skewed.function.bias
    noise = skewed.abduct(2 * X + U, {"x": X}, generator=generator()).noise["residual"]
    torch.testing.assert_close(noise, 2 * X + U - weight.item() * X - bias, rtol=0, atol=1e-12)
    best = skewed.log_prob(2 * X + U, {"x": X}).mean().item()
    for buffer in (weight, bias):
        for step in (-3e-3, 3e-3):
            buffer.add_(step)
            assert skewed.log_prob(2 * X + U, {"x": X}).mean().item() < best
            buffer.sub_(step)


@pytest.mark.parametrize("law", [pytest.param("edge", marks=pytest.mark.slow), "two peaks"])
def test_the_line_is_nearer_to_the_truth_than_least_squares(law):
    """Slopes of four samples of two numbers and a category, by the root mean square of their errors."""
    likeliest, squares = [], []
    for seed in range(4):
        a, b, kind = normal(600, seed=seed), normal(600, seed=50 + seed), codes(3, 600, seed)
        u = torch.empty(600, dtype=torch.float64).exponential_(generator=generator(200 + seed))
        if law == "two peaks":
            u = 1.5 * (2 * codes(2, 600, 90 + seed) - 1) + 0.2 * normal(600, seed=70 + seed)
        value = 2 * a - b + 0.5 * kind + u
        parents = {"a": Continuous(), "b": Continuous(), "kind": Categorical(3)}
        rows = {"a": a, "b": b, "kind": kind}
        mechanism = Additive(noise="spline").bind(Continuous(), parents)
        fit(mechanism, value, rows, steps=200)
        mechanism.function.prepare(value[:, None], rows)
        for found in (squares, likeliest):
            weight = mechanism.function.weight[:, 0]
            found += [weight[0] - 2, weight[1] + 1, weight[4] - weight[2] - 1]
            mechanism.finish(value, rows)
    errors = [torch.stack(each).square().mean().sqrt().item() for each in (likeliest, squares)]
    assert errors[0] < errors[1] / 2


def test_the_density_is_that_of_the_draws(skewed):
    grid = torch.linspace(-3, 12, 20_001).double()
    density = skewed.log_prob(grid, {"x": torch.zeros_like(grid)}).detach().exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=1e-3)
    drawn = skewed.sample_noise(20_000, generator=generator())["residual"]
    below = torch.trapezoid(density * (grid < 1), grid).item()
    centre = skewed.function.bias.item()
    assert (drawn + centre < 1).double().mean().item() == pytest.approx(below, abs=0.015)
    assert below == pytest.approx(1 - math.exp(-1), abs=0.04)  # the law of u, exponential
    assert -skewed.log_prob(2 * X + U, {"x": X}).mean().item() == pytest.approx(1, abs=0.1)  # its entropy


@pytest.mark.parametrize("function", ["linear", "network"])
def test_laws(function):
    value = torch.stack([X + U, U], 1)
    mechanism = Additive(noise="spline", function=function).bind(Continuous(shape=(2,)), {"x": Continuous()})
    fit(mechanism, value, {"x": X}, steps=60)
    check_mechanism(mechanism, value[:200], {"x": X[:200]})


def test_a_network_has_the_gradient_of_least_squares_too():
    mechanism = Additive(function="network", noise="spline").bind(Continuous(), {"a": Continuous()})
    value, parents = normal(30, seed=1), {"a": normal(30, seed=2)}
    mechanism.prepare(value, parents)
    loss = mechanism.loss(value, parents, generator=generator(0))
    torch.testing.assert_close(loss, -mechanism.log_prob(value, parents))
    weights = list(mechanism.function.parameters())
    residual = mechanism.function.add_to(value[:, None], parents, sign=-1) / mechanism.scale
    parts = (-mechanism.log_prob(value, parents), 0.5 * residual.square().sum(-1))
    found, nll, squares = (torch.autograd.grad(each.sum(), weights) for each in (loss, *parts))
    for one, two, three in zip(found, nll, squares, strict=True):
        torch.testing.assert_close(one, two + three)
