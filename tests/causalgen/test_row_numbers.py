"""Errors and warnings name a row by its number in the data that the user gave, not in the part at hand."""

import networkx as nx
import numpy as np
import pytest
import torch

import causalgen as cg
from causalgen.counterfactuals.rows import abduct_rows, generate_rows
from graphs.errors import DataError, DomainError, EvidenceError, numbered_rows, warn
from tests.causalgen.metrics import shades

BAD = 110


@pytest.fixture(scope="module")
def asked():
    """A model with ``twice = 2 shade``, and 120 rows: row 110 is another, and row 5 has a gap."""
    data = shades.rows(120) | {"twice": np.zeros(120)}
    data["twice"] = 2 * data["shade"]
    edges = [("kind", "shade"), ("shade", "image"), ("shade", "twice")]
    scm = cg.SCM(
        nx.DiGraph(edges),
        variables={
            "kind": cg.Categorical(2),
            "shade": cg.Continuous(lower=-1.5, upper=1.5),
            "image": cg.Image(1, shades.SIDE, shades.SIDE),
            "twice": cg.Continuous(),
        },
        mechanisms={
            "shade": cg.mechanisms.Additive(),
            "image": shades.Tinted(),
            "twice": cg.mechanisms.Equation(value="2 * shade"),
        },
    ).fit(data, progress=False)
    data["kind"] = data["kind"].astype(float)
    data["kind"][5], data["twice"][BAD] = np.nan, 9
    return scm, data


@pytest.mark.parametrize("metrics", [None, ["composition"]])
def test_an_evaluation_of_some_rows_names_the_row_of_the_data(asked, metrics):
    scm, data = asked
    with pytest.raises(EvidenceError, match=f"'twice': Row {BAD}: the value is 9.0"):
        cg.evaluate(scm, data, rows=117, metrics=metrics, missing="drop", progress=False)


def test_composition_names_the_row_of_the_evidence(asked):
    scm, data = asked
    evidence = {name: data[name] for name in ("shade", "twice")}
    with pytest.raises(EvidenceError, match=f"Row {BAD}:"):
        cg.metrics.composition(scm, evidence, "twice")


def test_a_check_names_the_row_of_the_data(asked):
    scm, data = asked
    (problem,) = scm.check(data, missing="drop").problems
    assert f"Row {BAD}: the value is 9.0" in problem and not problem.endswith("..")


def test_an_abduction_in_chunks_names_the_row_of_all(asked, monkeypatch):
    mechanism = asked[0].mechanisms["twice"]
    monkeypatch.setattr(type(mechanism), "chunk_rows", 4)
    shade = torch.arange(12, dtype=torch.float64)
    value = 2 * shade
    value[9] = 0
    with pytest.raises(EvidenceError, match="Row 9: the value is 0"):
        abduct_rows(mechanism, "twice", value, {"shade": shade}, seed=0)


def test_a_generation_in_chunks_names_the_row_of_all(asked, monkeypatch):
    mechanism = asked[0].mechanisms["twice"]
    monkeypatch.setattr(type(mechanism), "chunk_rows", 4)
    generated = mechanism.generate

    def refuses(parents, noise):
        if 9.0 in parents["shade"]:
            raise EvidenceError(f"Row {parents['shade'].tolist().index(9)}: no")
        return generated(parents, noise)

    monkeypatch.setattr(mechanism, "generate", refuses)
    shade = torch.arange(12, dtype=torch.float64)
    noise = mechanism.sample_noise(12, generator=torch.Generator())
    with pytest.raises(EvidenceError, match="Row 9: no"):
        generate_rows(mechanism, "twice", {"shade": shade}, noise)


def test_numbers_nest_and_quoted_names_stay():
    with (
        pytest.warns(UserWarning, match="^Node 'my row 1': the node's row 70 of 3 rows$"),
        numbered_rows([50, 60, 70]),
        numbered_rows(range(1, 3)),
    ):
        warn("Node 'my row 1': the node's row 1 of 3 rows")


def test_samples_stand_one_after_another():
    """Row 7 of 4 samples of 3 rows is row 1 of the third sample."""
    with pytest.raises(EvidenceError, match="^Row 60: no"), numbered_rows([50, 60, 70]):
        raise EvidenceError("Row 7: no")


def test_training_rows_of_refits_keep_their_numbers_beside_evidence_of_others(asked):
    scm, data = asked
    rows = {name: data[name] for name in ("kind", "shade")}
    rows["kind"] = np.nan_to_num(rows["kind"])
    evidence = {"kind": rows["kind"][3:8], "shade": rows["shade"][3:8]}
    rows["shade"] = rows["shade"].astype(object)
    rows["shade"][BAD] = "abc"
    question = {"do": {"kind": 1}, "evidence": evidence, "refits": 2, "data": rows, "seed": 0}
    with pytest.raises(DataError, match=f"row {BAD} is 'abc'"), numbered_rows(range(3, 8)):
        scm.effect("shade", **question)


def failing_in_some_draws():
    """a is missing in row 1 of 3; b = 3 - a^2, which must not be negative, is 3 in the others."""
    normal = cg.mechanisms.Equation(value="u", noise={"u": {"normal": [0, 1]}})
    scm = cg.SCM(
        nx.DiGraph([("a", "b"), ("b", "c")]),
        {"a": cg.Continuous(), "b": cg.Continuous(lower=0), "c": cg.Continuous()},
        {"a": normal, "b": cg.mechanisms.Equation(value="3 - a**2"), "c": normal},
    )
    return scm, {"a": [0.0, np.nan, 0.0], "b": [3.0, np.nan, 3.0]}


def test_a_draw_that_leaves_its_bounds_is_told_by_the_row_of_the_evidence():
    scm, evidence = failing_in_some_draws()
    with pytest.warns(UserWarning, match="'b': its value in row 1 comes out"):
        scm.counterfactual(evidence, {"a": "a + 1"}, num_samples=50, seed=0)


def test_a_draw_that_an_intervention_refuses_is_told_by_the_row_of_the_evidence():
    scm, evidence = failing_in_some_draws()
    with pytest.raises(DomainError, match="'b': the function's value: row 1 is"):
        scm.counterfactual(evidence, {"b": "3 - a**2"}, num_samples=50, seed=0)


@pytest.mark.parametrize("value", ["log(a)", "log(a) + u"])
def test_a_value_that_is_drawn_in_a_gap_is_told_by_the_row_of_the_gap(value):
    normal = {"u": {"normal": [0, 1]}}
    scm = cg.SCM(
        nx.DiGraph([("a", "b")]),
        dict.fromkeys("ab", cg.Continuous()),
        {
            "a": cg.mechanisms.Equation(value="u", noise=normal),
            "b": cg.mechanisms.Equation(value=value, noise=normal if "u" in value else {}),
        },
    )
    with pytest.raises(DomainError, match="'b': Row 2: the equation"):
        scm.counterfactual({"a": [1.0, 2.0, -1.0], "b": [0.0, np.log(2), np.nan]}, {"a": 3.0}, seed=0)


def test_a_particle_that_has_no_value_is_told_by_the_row_of_the_evidence():
    """b = sqrt(a) of a below 0, which only the second row's particles may take, one in 90 of them."""
    scm = cg.SCM(
        nx.DiGraph([("k", "a"), ("a", "b"), ("b", "c")]),
        {"k": cg.Categorical(2)} | dict.fromkeys("abc", cg.Continuous()),
        {
            "k": cg.mechanisms.Equation(value="u", noise={"u": {"bernoulli": [0.5]}}),
            "a": cg.mechanisms.Equation(value="exp(u) - 0.1 * k", noise={"u": {"normal": [0, 1]}}),
            "b": cg.mechanisms.Equation(value="sqrt(a) + u", noise={"u": {"normal": [0, 1]}}),
            "c": cg.mechanisms.Equation(value="b + u", noise={"u": {"normal": [0, 1]}}),
        },
    )
    with pytest.raises(DomainError, match="'b': Row 1: the equation"):
        scm.counterfactual({"k": [0, 1], "c": 1.0}, {"c": 0.0}, targets=["b"], seed=0)


def test_an_error_in_a_natural_value_names_the_node():
    """Whose value an expression reads, not the half of it that the engine computes."""
    scm, _ = failing_in_some_draws()
    log = cg.mechanisms.Equation(value="log(a)")
    scm = cg.SCM(scm.graph, scm.variables, {**scm.mechanisms, "b": log})
    with pytest.raises(DomainError, match="^Node 'b': Row 0: the equation"):
        scm.counterfactual({"a": 2.0, "b": np.log(2)}, {"a": -1.0, "b": "b + 1"}, seed=0)
