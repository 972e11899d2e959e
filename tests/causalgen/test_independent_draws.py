"""What is independent given the evidence is drawn independently, however it is inferred."""

import networkx as nx
import numpy as np
import pytest

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
