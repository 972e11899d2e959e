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


@pytest.mark.parametrize("samples", [None, 1, 3])
def test_draws_of_equal_weight_are_worth_their_number(samples):
    """Kong's size of S draws, each one of P equal particles, is S * P."""
    scm = cg.SCM(
        nx.DiGraph([("x", "y")]),
        {"x": cg.Continuous(), "y": cg.Continuous()},
        {
            "x": cg.mechanisms.Equation(value="u", noise=NORMAL),
            "y": cg.mechanisms.Program(program=respond, particles=80),
        },
    )
    abduction = scm.abduct({"x": [0.0, 1.0], "y": [0.5, -1.0]}, num_samples=samples, seed=0)
    worth = 80.0 * (samples or 1)
    assert abduction.effective_sample_size.tolist() == pytest.approx([worth, worth], rel=1e-6)
    assert abduction.weights.dtype == torch.float64
    assert abduction.weights.sum(0).tolist() == pytest.approx([1.0, 1.0], abs=1e-15)


def test_noise_of_the_first_rows_does_not_depend_on_those_that_follow(categories, monkeypatch):
    """It is keyed by the block of rows."""
    scm, data = categories
    monkeypatch.setattr("causalgen.counterfactuals.row_blocks._BLOCK", 10)
    rows = {node: data[node][:25] for node in "abc"}
    noise = {n: scm.abduct({node: each[:n] for node, each in rows.items()}, seed=1).noise for n in (10, 25)}
    for node in "ab":
        for name, leaf in noise[10][node].items():
            assert torch.equal(noise[25][node][name][:10], leaf)
            assert not torch.equal(noise[25][node][name][10:20], leaf)
