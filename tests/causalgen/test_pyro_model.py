"""An SCM as a Pyro program: Pyro's answers and ours agree."""

import networkx as nx
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Importance, Predictive
from torch.testing import assert_close

import causalgen as cg
from graphs.errors import DomainError, MechanismError, NotFittedError, ShapeError


@pytest.fixture(autouse=True)
def fork_rng_from():
    """Pyro draws from the global state."""
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        yield


@pytest.fixture(scope="module")
def mixed():
    """Every low-dimensional mechanism, with and without a Pyro distribution of its own."""

    def program(parents):
        return parents["flow"] + pyro.sample("u", dist.Normal(0.0, 1.0))

    random = np.random.default_rng(1)
    n = 200
    table = random.integers(0, 3, n)
    data = {"drawn": random.integers(0, 2, n), "table": table}
    data["flow"] = table + random.normal(size=n)
    data["grid"] = np.round(data["flow"] + random.normal(size=n))
    data["affine"] = data["flow"] + random.normal(size=n)
    data["gate"] = data["table"] + random.exponential(size=n)
    data["program"] = data["flow"] + random.normal(size=n)
    flow = {"transform": "affine", "hidden": (4,), "training": {"epochs": 2}}
    scm = cg.SCM(
        nx.DiGraph(
            [
                ("drawn", "table"),
                ("table", "flow"),
                ("flow", "grid"),
                ("flow", "affine"),
                ("table", "gate"),
                ("flow", "program"),
            ]
        ),
        variables={
            node: cg.Categorical(2 if node == "drawn" else 3)
            if node in ("drawn", "table")
            else cg.Continuous()
            for node in data
        },
        mechanisms={
            "drawn": cg.mechanisms.Empirical(),
            "flow": cg.mechanisms.Flow(**flow),
            "grid": cg.mechanisms.Flow(dequantize=1, **flow),
            "affine": cg.mechanisms.Equation(value="flow + u", noise={"u": {"normal": [0, 1]}}),
            "gate": cg.mechanisms.Equation(value="table + u", noise={"u": {"exponential": [1]}}),
            "program": cg.mechanisms.Program(program=program),
        },
    )
    return scm.fit(data, progress=False), data


def trace(model, n):
    found = poutine.trace(model).get_trace(n)
    found.compute_log_prob()
    return found


def site_values(found, scm):
    return {node: found.nodes[node]["value"] for node in scm.variables}


def test_density_of_a_trace_is_ours(linear, categories, mixed):
    for scm, _ in (linear, categories, mixed):
        found = trace(scm.to_pyro(), 50)
        codes = site_values(found, scm)
        decoded = {node: scm.variables[node].decode(value) for node, value in codes.items()}
        total = sum(found.nodes[node]["log_prob"] for node in scm.variables)
        assert_close(total, scm.log_prob(decoded))
        assert_close(found.log_prob_sum(), scm.log_prob(decoded).sum())


def test_impossible_values_have_no_density_in_either(mixed):
    scm, data = mixed
    rows = {node: torch.as_tensor(column[:3]) for node, column in data.items()}
    rows["gate"] = rows["table"] - 1.0  # exponential noise below 0
    found = trace(pyro.condition(scm.to_pyro(), data=rows), 3)
    assert bool((found.nodes["gate"]["log_prob"] == -torch.inf).all())
    assert bool((scm.log_prob(rows) == -torch.inf).all())


@pytest.mark.parametrize("do", [{}, {"x": 1.0}, {"y": -2.0}])
def test_interventions_agree(linear, do):
    scm, _ = linear
    n = 20000
    set_to = {node: torch.tensor(value).double() for node, value in do.items()}
    ours = scm.sample(n, do=do, seed=0)
    theirs = poutine.do(scm.to_pyro(), data=set_to)(n)
    for node in scm.variables:
        error = 5 * (ours[node].std() + theirs[node].std()) / n**0.5 + 1e-12
        assert abs(ours[node].mean() - theirs[node].mean()) < error
        assert_close(ours[node].std(), theirs[node].std(), rtol=0.05, atol=1e-9)


def test_interventions_on_categories_agree(categories):
    scm, _ = categories
    n = 20000
    ours = scm.sample(n, do={"a": "high"}, seed=0)
    theirs = poutine.do(scm.to_pyro(), data={"a": torch.tensor(2)})(n)
    assert_close(
        theirs["b"].bincount(minlength=3) / n,
        torch.as_tensor(ours["b"]).bincount(minlength=3) / n,
        rtol=0,
        atol=0.02,
    )
    assert abs(ours["c"].mean() - theirs["c"].mean()) < 0.1


def test_conditionals_agree_with_the_closed_form(linear):
    scm, _ = linear
    rows = torch.stack([scm.sample(200000, seed=0)[node] for node in ("x", "z")])
    covariance, mean = rows.cov(), rows.mean(1)
    expected = mean[0] + covariance[0, 1] / covariance[1, 1] * (2.0 - mean[1])
    model = pyro.condition(scm.to_pyro(), data={"z": torch.tensor([2.0]).double()})
    # One particle a row: each row's own log density is its weight.
    found = trace(pyro.condition(scm.to_pyro(), data={"z": torch.full((50000,), 2.0).double()}), 50000)
    weights = found.nodes["z"]["log_prob"].softmax(0)
    assert abs((weights * found.nodes["x"]["value"]).sum() - expected) < 0.06
    posterior = Importance(model, num_samples=300).run(1)
    drawn = torch.stack([posterior().nodes["x"]["value"][0] for _ in range(500)])
    assert abs(drawn.mean() - expected) < 0.35


def test_predictive(linear):
    scm, _ = linear
    x = torch.linspace(-1, 1, 5).double()[:, None]
    drawn = Predictive(scm.to_pyro(), posterior_samples={"x": x.expand(5, 2000)}, return_sites=["x", "y"])(
        2000
    )
    assert drawn["y"].shape == (5, 2000)
    for sample, value in zip(drawn["y"], x[:, 0].tolist(), strict=True):
        assert abs(sample.mean() - scm.sample(2000, do={"x": value}, seed=0)["y"].mean()) < 0.2
    with pytest.raises(ShapeError, match="one batch dimension"):
        Predictive(scm.to_pyro(), num_samples=3, parallel=True)(4)


def test_an_image_with_a_density_is_a_site_in_the_pixels_that_are_seen():
    def shaded(parents):
        mean = (0.3 + 0.05 * parents["x"]).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2)
        return pyro.sample("pixels", dist.Normal(mean, 0.01).to_event(3))

    scm = cg.SCM(
        nx.DiGraph([("x", "image")]),
        {"x": cg.Categorical(2), "image": cg.Image(1, 2, 2)},
        {
            "x": cg.mechanisms.Equation(value="u", noise={"u": {"bernoulli": [0.5]}}),
            "image": cg.mechanisms.Program(program=shaded),
        },
    )
    found = trace(scm.to_pyro(), 50)
    values = site_values(found, scm)
    expected = (0.3 + 0.05 * values["x"]).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    assert_close(values["image"], expected.float(), rtol=0, atol=0.05)
    assert_close(sum(found.nodes[node]["log_prob"] for node in values), scm.log_prob(values))


def test_images_are_noise_sites_and_a_deterministic_site(pictures):
    scm, _ = pictures
    model = scm.to_pyro()
    found = trace(model, 3)
    assert found.nodes["picture"]["infer"]["_deterministic"]
    picture = found.nodes["picture"]["value"]
    assert picture.shape == (3, 1, 8, 8) and 0 <= picture.min() and picture.max() <= 1
    leaves = {name: node["value"] for name, node in found.nodes.items() if name.startswith("picture.")}
    assert leaves
    again = pyro.condition(model, data={**leaves, "kind": found.nodes["kind"]["value"]})(3)
    assert torch.equal(again["picture"], picture)
    other = poutine.do(model, data={"kind": torch.tensor(1)})(2)
    assert other["kind"].tolist() == [1, 1] and other["picture"].shape == (2, 1, 8, 8)
    with pytest.raises(MechanismError, match=r"'picture' \(diffusion\) has no density"):
        pyro.condition(model, data={"picture": picture})(3)
    shown = torch.zeros(2, 1, 8, 8)
    assert torch.equal(poutine.do(model, data={"picture": shown})(2)["picture"], shown)


@pytest.mark.parametrize(
    ("model", "node", "value", "expected"),
    [
        ("categories", "b", torch.tensor(-1), "a code, 0 to 2"),
        ("categories", "b", torch.tensor(3), "a code, 0 to 2"),
        ("categories", "b", torch.tensor(1.7), "a code, 0 to 2"),
        ("pictures", "picture", torch.full((1, 1, 8, 8), 200, dtype=torch.uint8), r"pixels in \[0, 1\]"),
        ("pictures", "picture", torch.full((1, 1, 8, 8), 200.0), r"pixels in \[0, 1\]"),
    ],
)
def test_what_is_no_value_of_a_node_is_refused(request, model, node, value, expected):
    """1.7 was category 1, other codes other combinations of parents, and bytes were pixels modulo 256."""
    program = request.getfixturevalue(model)[0].to_pyro()
    with pytest.raises(DomainError, match=f"Site '{node}' holds .*, expected {expected}"):
        poutine.do(program, data={node: value})(2)
    if model == "categories":
        with pytest.raises(DomainError, match=f"Site '{node}'"):
            pyro.condition(program, data={node: value.expand(2)})(2)


def test_the_model_after_an_intervention(linear):
    scm, _ = linear
    drawn = scm.do({"x": 3.0, "y": lambda y: y + 1}).to_pyro()(5000)
    assert bool((drawn["x"] == 3).all())
    assert abs((drawn["y"] - drawn["y--natural"]).mean() - 1) < 1e-9


def test_gradients_reach_latent_sites_and_no_weights(linear):
    scm, _ = linear
    y = torch.zeros(2).double().requires_grad_()
    found = trace(pyro.condition(scm.to_pyro(), data={"y": y, "x": torch.ones(2).double()}), 2)
    (gradient,) = torch.autograd.grad(found.log_prob_sum(), y)
    assert bool((gradient != 0).all())
    assert not scm.to_pyro()(3)["z"].requires_grad


def test_an_unfitted_node_is_refused():
    scm = cg.SCM(nx.DiGraph([("a", "b")]), variables={"a": cg.Continuous(), "b": cg.Continuous()})
    with pytest.raises(NotFittedError, match="'a' has not been fitted"):
        scm.to_pyro()
