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


def test_masked_values_are_missing_and_never_the_value_below_the_mask(linear):
    _, data = linear
    mask = np.arange(len(data["x"])) % 7 == 0
    spoilt = np.where(mask, 99999.0, data["x"])
    masked = np.ma.masked_array(spoilt, mask=mask)
    scm = cg.SCM(
        nx.DiGraph([("x", "y")]),
        {"x": cg.Continuous(), "y": cg.Continuous()},
        {"x": cg.mechanisms.Additive(), "y": cg.mechanisms.Additive()},
    )
    with pytest.raises(cg.DataError, match="Values are missing in 58 of the 400 rows: column 'x'"):
        scm.fit({"x": masked, "y": data["y"]}, progress=False)
    scm.fit({"x": masked, "y": data["y"]}, missing="drop", seed=0, progress=False)
    assert scm.fit_report["x"].dropped == mask.sum()
    drawn = scm.sample(500, seed=0)["x"]
    assert drawn.abs().max() < 10
    found = scm.counterfactual({"x": masked[:8], "y": data["y"][:8]}, do={"y": 0.0}, seed=0)
    gaps = scm.counterfactual(
        {"x": np.where(mask, np.nan, data["x"])[:8], "y": data["y"][:8]}, do={"y": 0.0}, seed=0
    )
    assert torch.equal(found["x"], gaps["x"]) and found["x"].abs().max() < 10
    assert (found.provenance["x"] == "inferred").tolist() == mask[:8].tolist()
    one = scm.counterfactual({"x": np.ma.masked, "y": 1.0}, do={"y": 0.0}, seed=0)
    none = scm.counterfactual({"x": None, "y": 1.0}, do={"y": 0.0}, seed=0)
    assert torch.equal(one["x"], none["x"]) and one.provenance["x"].tolist() == ["inferred"]
    with pytest.raises(cg.DomainError, match="Intervention on 'x': row 1 is nan"):
        scm.sample(2, do={"x": np.ma.masked_array([1.0, 2.0], mask=[0, 1])})
