"""What is independent given the evidence is drawn so, however it is inferred; and what draws are worth."""

import networkx as nx
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import causalgen as cg

SAMPLES = 2000
NORMAL = {"u": {"normal": [0, 1]}}
COIN = {"u": {"uniform": [0, 1]}}


ROUTES = {
    "a normal distribution": ({"x": ("u", NORMAL), "y": ("{x} + u", NORMAL)}, {"y": 1.0}),
    "categories": ({"c": ("", None), "d": ("{c}", None)}, {"d": 1}),
    "a mixture": ({"c": ("u > 0.5", COIN), "x": ("{c} + u", NORMAL), "y": ("{x} + u", NORMAL)}, {"y": 0.5}),
    "particles": ({"x": ("u", NORMAL), "y": ("exp({x}) + u", NORMAL)}, {"y": 1.0}),
    "the prior": ({"x": ("u", NORMAL), "y": ("u", NORMAL)}, {"y": 1.0}),
}
"""Equation and noise of each node of a chain, its parent in braces, or neither where a table of probabilities
is fitted; and what is observed."""


@pytest.mark.parametrize("route", ROUTES)
def test_chains_that_nothing_joins_are_drawn_independently(route):
    """Two chains of one law and with the same evidence: the draws vary, and do not correlate."""
    nodes, evidence = ROUTES[route]
    graph, variables, mechanisms = nx.DiGraph(), {}, {}
    for chain in "ab":
        names = {node: f"{node}{chain}" for node in nodes}
        graph.add_nodes_from(names.values())
        for node, (value, noise) in nodes.items():
            graph.add_edges_from((names[parent], names[node]) for parent in nodes if f"{{{parent}}}" in value)
            variables[names[node]] = cg.Categorical(2) if node in "cd" else cg.Continuous()
            if noise is not None:
                mechanisms[names[node]] = cg.mechanisms.Equation(value=value.format(**names), noise=noise)
    scm = cg.SCM(graph, variables, mechanisms)
    if not mechanisms:
        coin = np.random.default_rng(0).random((4, 400)) > 0.4
        c, d = coin[:2], coin[:2] ^ coin[2:]
        scm.fit(dict(zip(["ca", "cb", "da", "db"], [*c, *d], strict=True)), progress=False)
    seen = {f"{node}{chain}": value for node, value in evidence.items() for chain in "ab"}
    drawn = scm.abduct(seen, num_samples=SAMPLES, seed=0).counterfactual({})
    for node in nodes.keys() - evidence.keys():
        one, other = (drawn[f"{node}{chain}"][:, 0].double().numpy() for chain in "ab")
        assert min(one.std(), other.std()) > 0.1
        assert abs(np.corrcoef(one, other)[0, 1]) < 4 / SAMPLES**0.5


def respond(parents):
    """Neither draw is told anything by y: all weights are equal."""
    pyro.sample("idle", dist.Normal(0.0, 1.0))
    return pyro.sample("y", dist.Normal(parents["x"], 1.0))


@pytest.mark.parametrize("part", [None, 2], ids=["whole", "in parts"])
@pytest.mark.parametrize("samples", [None, 1, 3])
def test_draws_of_equal_weight_are_worth_their_number(samples, part, monkeypatch):
    """Kong's size of S draws, each one of P equal particles, is S * P."""
    scm = cg.SCM(
        nx.DiGraph([("x", "y")]),
        {"x": cg.Continuous(), "y": cg.Continuous()},
        {
            "x": cg.mechanisms.Equation(value="u", noise=NORMAL),
            "y": cg.mechanisms.Program(program=respond, particles=80),
        },
    )
    monkeypatch.setattr(scm.mechanisms["y"], "chunk_rows", part)
    abduction = scm.abduct({"x": [0.0, 1.0, 2.0], "y": [0.5, -1.0, 0.0]}, num_samples=samples, seed=0)
    worth = 80.0 * (samples or 1)
    assert abduction.effective_sample_size.tolist() == pytest.approx([worth] * 3, rel=1e-6)
    assert abduction.weights.dtype == torch.float64
    assert abduction.weights.sum(0).tolist() == pytest.approx([1.0] * 3, abs=1e-15)


def test_noise_of_the_first_rows_does_not_depend_on_those_that_follow(categories, monkeypatch):
    """It is keyed by the block of rows."""
    scm, data = categories
    for node in "ab":
        monkeypatch.setattr(scm.mechanisms[node], "chunk_rows", 10)
    rows = {node: data[node][:25] for node in "abc"}
    noise = {n: scm.abduct({node: each[:n] for node, each in rows.items()}, seed=1).noise for n in (10, 25)}
    for node in "ab":
        for name, leaf in noise[10][node].items():
            assert torch.equal(noise[25][node][name][:10], leaf)
            assert not torch.equal(noise[25][node][name][10:20], leaf)


def test_what_is_computed_from_a_draw_is_no_surer_than_it(categories):
    """a -> b -> c, a -> c: b is drawn where a changes; c, exact given b, is of that draw."""
    scm, data = categories
    rows = {node: data[node][:12] for node in "abc"}
    found = scm.counterfactual(rows, do={"a": "low"}, seed=0)
    same = rows["a"] == "low"
    assert 0 < same.sum() < 12
    assert set(found.provenance["b"][same]) == {"copied"} == set(found.provenance["c"][same])
    assert set(found.provenance["b"][~same]) == {"posterior"} == set(found.provenance["c"][~same])


def test_where_a_posterior_comes_from_is_told_in_words(linear):
    found = linear[0].abduct({"x": [1.0, np.nan], "y": [2.0, 2.0]}, seed=0).posterior("x")
    assert found.sources.tolist() == ["observed", "inferred"] and found.sources.dtype == object


def test_evidence_that_cannot_be_weighed_names_every_parent_to_give():
    graph = nx.DiGraph([("x", "y"), ("z", "y")])
    scm = cg.SCM(
        graph,
        {node: cg.Continuous() for node in graph},
        {
            "x": cg.mechanisms.Equation(value="u", noise=NORMAL),
            "z": cg.mechanisms.Equation(value="u", noise=NORMAL),
            "y": cg.mechanisms.Equation(value="where(u > x, floor(x * z), 2 * u)", noise=NORMAL),
        },
    )
    with pytest.raises(cg.PartialEvidenceError, match=r"Give its parents x, z, or leave 'y' out"):
        scm.abduct({"y": 1.0}, seed=0).posterior("x")


def test_an_array_that_is_set_is_told_as_one(pictures):
    scm, data = pictures
    row = {node: values[:1] for node, values in data.items()}
    found = scm.counterfactual(row, do={"picture": np.zeros((1, 8, 8), np.uint8)})
    assert found.do == {"picture": "an array"}


def test_an_abduction_tells_its_draws(linear):
    told = repr(linear[0].abduct({"x": [1.0, 2.0]}, num_samples=5, seed=3))
    assert told.startswith("Abduction(5 samples x 2 rows, seed 3: x; not observed: ")
    assert repr(linear[0].abduct({"x": [1.0, 2.0]}, seed=3)).startswith("Abduction(2 rows, seed 3: x; ")


def test_a_likelihood_that_fails_is_told_with_its_node(monkeypatch):
    graph = nx.DiGraph([("x", "y")])
    values = {"x": "u", "y": "exp(x) + u"}
    scm = cg.SCM(
        graph,
        {node: cg.Continuous() for node in graph},
        {node: cg.mechanisms.Equation(value=value, noise=NORMAL) for node, value in values.items()},
    )

    def fail(*_, **__):
        raise cg.MechanismError("no.")

    monkeypatch.setattr(scm.mechanisms["y"], "likelihood", fail)
    with pytest.raises(cg.MechanismError, match=r"^Node 'y': no\.$"):
        scm.abduct({"y": 1.0}, seed=0).posterior("x")


def test_a_second_intervention_on_a_node_is_refused_by_its_name(linear):
    with pytest.raises(cg.InterventionError, match=r"'x' is intervened on already\. Start from the model"):
        linear[0].do({"x": 1.0}).do({"x": 2.0})


def test_two_effects_tell_of_one_cause():
    """x ~ N(0, 1) and two effects x + N(0, 1): x has the mean sum / 3 given these, and the variance 1 / 3."""
    graph = nx.DiGraph([("x", "y"), ("x", "z")])
    values = {"x": "u", "y": "x + u", "z": "x + u"}
    scm = cg.SCM(
        graph,
        {node: cg.Continuous() for node in graph},
        {node: cg.mechanisms.Equation(value=value, noise=NORMAL) for node, value in values.items()},
    )
    found = scm.abduct({"y": [1.0, 4.0, 0.0], "z": [2.0, -1.0, 0.0]}, seed=0).posterior("x")
    assert found.mean.tolist() == pytest.approx([1.0, 1.0, 0.0], abs=1e-12)
    assert found.covariance.flatten().tolist() == pytest.approx([1 / 3] * 3, abs=1e-12)
