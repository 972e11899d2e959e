"""DoWhy-GCM on the same data: the same fit and counterfactuals, and means within Monte Carlo error.

Its answers were recorded under its own Python by ``benchmarks/peers/dowhy_agreement.py``, with the data.
"""

import json
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

import causalgen as cg

RECORD = json.loads((Path(__file__).parent / "data" / "dowhy_agreement.json").read_text())
PARENTS = RECORD["parents"]
QUESTIONS = RECORD["questions"]


@pytest.fixture(scope="module")
def scm():
    """Least squares and empirical noise, as DoWhy's linear additive-noise models have; fitted on its rows."""
    graph = nx.DiGraph()
    graph.add_nodes_from(PARENTS)
    graph.add_edges_from((parent, node) for node, parents in PARENTS.items() for parent in parents)
    linear = cg.mechanisms.Additive(noise="empirical", training={"validation": 0})  # all rows, as there
    root = cg.mechanisms.Empirical()
    return cg.SCM(
        graph,
        {node: cg.Continuous() for node in PARENTS},
        {node: linear if parents else root for node, parents in PARENTS.items()},
    ).fit(RECORD["data"], seed=0, progress=False)


def asked(question):
    return question["set"] | {node: cg.Shift(amount) for node, amount in question["shift"].items()}


def test_the_fitted_coefficients_are_the_same(scm):
    for node, fitted in RECORD["coefficients"].items():
        function = scm.mechanisms[node].function
        slopes = [fitted["slopes"][parent] for parent in PARENTS[node]]
        np.testing.assert_allclose(function.weight[:, 0], slopes, rtol=0, atol=1e-9)
        np.testing.assert_allclose(function.bias, fitted["intercept"], rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", QUESTIONS)
def test_counterfactuals_are_the_same(scm, name):
    theirs = QUESTIONS[name]["counterfactual"]
    rows = {node: RECORD["data"][node][: len(theirs[node])] for node in PARENTS}
    ours = scm.counterfactual(rows, do=asked(QUESTIONS[name]), seed=0)
    for node in PARENTS:
        np.testing.assert_allclose(ours[node], theirs[node], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", QUESTIONS)
def test_interventional_means_agree_within_monte_carlo_error(scm, name):
    question, n = QUESTIONS[name], RECORD["draws"]
    ours = scm.sample(n, do=asked(question), seed=0)
    for node in PARENTS:
        error = np.hypot(question["standard_error"][node], ours[node].std().item() / n**0.5)
        assert abs(ours[node].mean().item() - question["mean"][node]) <= 5 * error + 1e-12
