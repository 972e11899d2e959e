"""Evidence as users give it: kept as it was, and read the same in whatever form it comes."""

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch

import causalgen as cg
from graphs.errors import DomainError


def test_evidence_stays_what_it_was_when_its_arrays_change(linear):
    scm, data = linear
    evidence = {node: np.array(values[:50]) for node, values in data.items()}
    expected = scm.counterfactual(evidence, do={"x": 3.0}, seed=0)
    abduction = scm.abduct(evidence, seed=0)
    before = {node: expected[node].clone() for node in expected}
    for values in evidence.values():
        values += 7
    later = abduction.counterfactual({"x": 3.0})
    for node in expected:
        assert torch.equal(expected[node], before[node])
        assert torch.equal(later[node], before[node])


def test_evidence_may_be_read_only(linear):
    scm, data = linear
    evidence = {node: np.array(values[:50]) for node, values in data.items()}
    for values in evidence.values():
        values.setflags(write=False)
    assert isinstance(scm.counterfactual(evidence, do={"x": 3.0}, seed=0), cg.Counterfactual)


FORMS = {
    "arrays": lambda rows: rows,
    "frame": pd.DataFrame,
    "lists": lambda rows: {node: values.tolist() for node, values in rows.items()},
    "tensors": lambda rows: {node: torch.from_numpy(values) for node, values in rows.items()},
    "float32": lambda rows: {node: values.astype(np.float32) for node, values in rows.items()},
    "one column float32": lambda rows: rows | {"y": rows["y"].astype(np.float32)},
    "reversed": lambda rows: {node: rows[node] for node in reversed(rows)},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [1, 3])
def test_the_answer_does_not_depend_on_the_form_of_evidence(linear, form, count):
    scm, data = linear
    # Numbers that float32 holds too.
    rows = {node: np.round(np.asarray(values[:count]) * 16) / 16 for node, values in data.items()}
    expected = scm.counterfactual(rows, do={"x": 3.0}, seed=0)
    found = scm.counterfactual(FORMS[form](rows), do={"x": 3.0}, seed=0)
    for node in expected:
        assert np.array_equal(np.asarray(found[node]), expected[node].numpy())


@pytest.mark.parametrize("others", [1.0, np.array([1.0])])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.inf, "expected finite numbers"),
        (-0.5, "below the lower bound 0"),
        (7.0, "above the upper bound 6"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(others, value, message):
    scm = cg.SCM(
        nx.DiGraph([("x", "y")]),
        {"x": cg.Continuous(), "y": cg.Continuous(lower=0, upper=6)},
        {"x": cg.mechanisms.Additive(), "y": cg.mechanisms.Additive()},
    ).fit({"x": np.arange(5.0), "y": np.arange(5.0)}, seed=0, progress=False)
    with pytest.raises(DomainError, match=f"Evidence 'y': row 0 .*{message}"):
        scm.counterfactual({"x": others, "y": np.array([value])}, do={"x": 2.0}, seed=0)
