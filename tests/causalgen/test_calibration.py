"""Simulation-based calibration of every kind of abduction and of partial evidence; and what it catches."""

import networkx as nx
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import causalgen as cg
from causalgen.checking.calibration import calibrate
from causalgen.counterfactuals.abduction import Abduction
from causalgen.counterfactuals.missing_evidence import posterior
from causalgen.counterfactuals.mutilated_model import MutilatedModel
from causalgen.testing import check_calibration
from mechanisms.base import Abducted

FEW = pytest.mark.filterwarnings("ignore:.*effective sample size")
"""Some simulated rows are far out; their draws are rough, and say so."""

NORMAL = {"u": {"normal": [0, 1]}}
Equation = cg.mechanisms.Equation


def additive_program(parents):
    a = pyro.sample("a", dist.Gamma(3.0, 2.0))
    return pyro.sample("y", dist.Normal(parents["x"] * a, 0.7))


def discrete_program(parents):
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    v = pyro.sample("v", dist.Uniform(0.0, 1.0))
    return (v < torch.sigmoid(parents["x"] + a)).double()


def model(x="u", y=None, variable=None, noise=NORMAL):
    return cg.SCM(
        nx.DiGraph([("x", "y")]),
        variables={"x": cg.Continuous(), "y": variable or cg.Continuous()},
        mechanisms={"x": Equation(value=x, noise=noise), "y": y},
    )


@pytest.fixture(scope="module")
def fitted():
    random = np.random.default_rng(0)
    a = random.integers(0, 3, 500)
    b = (a + random.integers(0, 2, 500)) % 3
    data = {"a": a, "b": b, "c": a - 2.0 * b + random.normal(size=500), "d": random.normal(size=500)}
    data["e"] = np.exp(0.3 * data["c"] + 0.3 * random.normal(size=500))
    graph = nx.DiGraph([("a", "b"), ("a", "c"), ("b", "c"), ("c", "e")])
    graph.add_node("d")
    return cg.SCM(
        graph,
        variables={
            "a": cg.Categorical(3),
            "b": cg.Categorical(3, ordered=True),
            "c": cg.Continuous(),
            "d": cg.Continuous(),
            "e": cg.Continuous(lower=0),
        },
        mechanisms={
            "b": cg.mechanisms.Categorical(coupling="monotone"),
            "c": cg.mechanisms.Additive(),
            "d": cg.mechanisms.Additive(noise="empirical"),
            "e": cg.mechanisms.Flow(training={"epochs": 5}),
        },
    ).fit(data, progress=False)


POSTERIORS = {
    "program": model(y=cg.mechanisms.Program(program=additive_program)),
    "discrete program": model(y=cg.mechanisms.Program(program=discrete_program), variable=cg.Categorical(2)),
    "finite noises": model(
        y=Equation(value="k + 2*j", noise={"k": {"binomial": [3, 0.4]}, "j": {"bernoulli": 0.3}}),
        variable=cg.Integer(),
    ),
}


@pytest.mark.parametrize("name", POSTERIORS)
def test_abductions_that_draw_are_calibrated(name):
    check_calibration(POSTERIORS[name], rows=320)


@FEW
@pytest.mark.slow
@pytest.mark.parametrize("name", ["program", "discrete program"])
def test_programs_with_a_hidden_parent_are_calibrated(name):
    found = check_calibration(POSTERIORS[name], ["x"], rows=200, draws=9, particles=500)
    assert {"x", "y.a"} <= found.p_values.keys()


@FEW
@pytest.mark.parametrize("hidden", [[], ["a"], ["c"], ["a", "c"], ["b", "e"], ["d"]])
def test_fitted_models_are_calibrated(fitted, hidden):
    found = check_calibration(fitted, hidden, rows=160, draws=9, particles=2000)
    assert set(hidden) <= found.p_values.keys() and found.ok


@FEW
@pytest.mark.slow
def test_evidence_that_counts_twice_is_caught(monkeypatch):
    def twice(self, node, found):
        weights = found.log_weight.view(self._samples, self._rows)
        chosen = (weights + torch.rand_like(weights).log().neg().log().neg()).argmax(0)
        places = chosen * self._rows + torch.arange(self._rows)
        return Abducted(found.noise.rows(places.repeat(self._samples)))

    monkeypatch.setattr(Abduction, "_equalised", twice)
    with torch.random.fork_rng(), pytest.raises(AssertionError, match=r"y.a: p = .*not calibrated"):
        check_calibration(POSTERIORS["program"], ["x"], rows=200, draws=9, particles=500)


@FEW
@pytest.mark.parametrize(("x", "alone"), [("u", "x"), ("1e-10 * u", "1e10 * x"), ("1e10 + u", "(x - 1e10)")])
def test_particles_without_weights_are_caught_in_any_unit(monkeypatch, x, alone):
    def unweighted(*args, **options):
        for rows, cloud in posterior.clouds(*args, **options):
            yield rows, type(cloud)(cloud.values, cloud.noise, torch.ones_like(cloud.weights))

    scm = model(x, y=Equation(value=f"sin({alone}) + u", noise=NORMAL))
    check_calibration(scm, ["x"], rows=320, particles=400)
    monkeypatch.setattr("causalgen.counterfactuals.missing_evidence.particles.clouds", unweighted)
    with pytest.raises(AssertionError, match="'calibration'"):
        check_calibration(scm, ["x"], rows=320, particles=400)


def test_nothing_unknown_is_refused(linear):
    with pytest.raises(cg.EvidenceError, match="Hide a node"):
        check_calibration(linear[0])
    with pytest.raises(cg.UnknownNameError, match="'q'"):
        check_calibration(linear[0], ["q"])


def test_the_level_is_the_rate_of_false_alarms(linear):
    world, variables = MutilatedModel(linear[0].graph, linear[0].mechanisms), linear[0].variables
    alarms = sum(
        not calibrate(world, variables, ["y"], rows=160, draws=7, seed=seed, level=0.05).ok
        for seed in range(100)
    )
    assert alarms <= 12  # 5 expected; more than 12 in one of a thousand
