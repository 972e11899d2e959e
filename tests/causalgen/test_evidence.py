"""Evidence as users give it: kept as it was, and read the same in whatever form it comes."""

import warnings

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch

import causalgen as cg
from graphs.errors import DomainError
from mechanisms.extrapolation import warn_unseen


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


def test_columns_of_no_node_are_told_and_misspelt_ones_refused(linear):
    scm, data = linear
    rows = {node: np.array(values[:3]) for node, values in data.items()}
    expected = scm.counterfactual(rows, do={"x": 3.0}, seed=0)
    wide = pd.DataFrame({**rows, "ward": ["a", "b", "c"], "visit 2": 1})
    told = "Evidence for 'ward', 'visit 2' is not used: no such node"
    for given in (wide, wide.to_dict("list"), {**rows, "ward": object(), "visit 2": None}):
        with pytest.warns(UserWarning, match=told):
            found = scm.counterfactual(given, do={"x": 3.0}, seed=0)
        assert np.array_equal(found["y"], expected["y"])
    for name in ("X", "x ", " x", "_x"):
        with pytest.raises(cg.UnknownNameError, match="Did you mean 'x', which has no value. Rename it, or"):
            scm.counterfactual(
                wide.drop(columns=["ward", "visit 2"]).rename(columns={"x": name}), do={"y": 0.0}
            )
    with pytest.raises(cg.UnknownNameError, match="Unknown node 'ward' in evidence. Known: w, x, y, z"):
        scm.abduct({"ward": 1.0})


def test_a_long_name_misspelt_by_a_letter_is_refused():
    nodes = ["age", "thickness", "visit_1", "bmi"]
    graph = nx.DiGraph()
    graph.add_nodes_from(nodes)
    equation = cg.mechanisms.Equation(value="u", noise={"u": {"normal": [0, 1]}})
    scm = cg.SCM(graph, dict.fromkeys(nodes, cg.Continuous()), dict.fromkeys(nodes, equation))
    for name, node in (
        ("Age", "age"),
        ("thicknes", "thickness"),
        ("Thikcness", "thickness"),
        ("BMI ", "bmi"),
    ):
        given = {each: 1.0 for each in nodes if each != node} | {name: 1.0}
        with pytest.raises(cg.UnknownNameError, match=f"Did you mean {node!r}, which has no value"):
            scm.abduct(given)
    with pytest.warns(UserWarning, match="'visit_2' is not used"):
        scm.abduct({"age": 1.0, "visit_2": 1.0})
    with pytest.warns(UserWarning, match="'Age' is not used"):  # the node itself has a value
        scm.abduct({"age": 1.0, "Age": 2.0})


def test_one_row_of_a_frame_is_evidence_and_keeps_its_name(linear):
    scm, data = linear
    frame = pd.DataFrame(data).iloc[:5].rename(index=lambda row: f"patient {row}")
    expected = scm.counterfactual(frame.iloc[[2]], do={"x": 3.0}, seed=0)
    found = scm.counterfactual(frame.iloc[2], do={"x": 3.0}, seed=0)
    assert found.rows == 1 and found.to_frame().equals(expected.to_frame())
    for node in "xyzw":
        assert found[node].index.tolist() == ["patient 2"]
        assert found[node].equals(expected[node])
    assert found.factual["x"].index.tolist() == ["patient 2"]
    mixed = frame.assign(note="n").iloc[2]  # a column of objects
    with pytest.warns(UserWarning, match="'note' is not used"):
        assert scm.counterfactual(mixed, do={"x": 3.0}, seed=0)["y"].equals(expected["y"])
    twice = pd.concat([frame.iloc[2], frame.iloc[2].iloc[:1]])
    with pytest.raises(cg.EvidenceError, match="2 columns 'x'"):
        scm.counterfactual(twice, do={"x": 3.0})


def test_a_node_that_is_the_index_of_a_frame_is_not_inferred(linear):
    scm, data = linear
    frame = pd.DataFrame(data).iloc[:3]
    with pytest.raises(cg.EvidenceError, match=r"'x' as its index, and no column of that node.*reset_index"):
        scm.abduct(frame.set_index("x"))
    both = scm.counterfactual(frame.set_index("x", drop=False), do={"y": 0.0}, seed=0)
    assert both["x"].tolist() == frame["x"].tolist()


@pytest.mark.parametrize("name", ["columns", "index", "items", "name"])
def test_a_row_of_a_frame_may_have_a_node_that_pandas_names_so(name):
    equation = cg.mechanisms.Equation(value="u", noise={"u": {"normal": [0, 1]}})
    nodes = (name, "other")
    scm = cg.SCM(
        nx.empty_graph(list(nodes), create_using=nx.DiGraph),
        dict.fromkeys(nodes, cg.Continuous()),
        dict.fromkeys(nodes, equation),
    )
    frame = pd.DataFrame({name: [1.0, 2.0], "other": [3.0, 4.0]})
    assert scm.counterfactual(frame.iloc[1], do={"other": 0.0})[name].tolist() == [2.0]


def test_a_vector_may_come_as_its_columns():
    graph = nx.DiGraph([("v", "y")])
    scm = cg.SCM(
        graph,
        {"v": cg.Continuous(shape=(2,)), "y": cg.Continuous()},
        {
            "v": cg.mechanisms.Additive(),
            "y": cg.mechanisms.Additive(),
        },
    )
    random = np.random.default_rng(0)
    v = random.normal(size=(50, 2))
    frame = pd.DataFrame({"v_0": v[:, 0], "v_1": v[:, 1], "y": v.sum(1)})
    scm.fit(frame, progress=False)
    found = scm.counterfactual(frame.iloc[:3], do={"y": 0.0}, seed=0)
    assert np.allclose(found["v"], v[:3])


def test_an_answer_with_a_matrix_is_evidence_again(tmp_path):
    """Its columns v_0 .. v_5 were no values of v, which was inferred."""
    random = np.random.default_rng(0)
    v = random.normal(size=(50, 2, 3))
    shapes = {"v": cg.Continuous(shape=(2, 3)), "y": cg.Continuous()}
    scm = cg.SCM(nx.DiGraph([("v", "y")]), shapes, dict.fromkeys(shapes, cg.mechanisms.Additive()))
    scm = scm.fit({"v": v, "y": v[:, 0, 1]}, progress=False)
    found = scm.counterfactual({"v": v[:3], "y": [1.0, 2.0, 3.0]}, do={"v": cg.Shift(0.1)}, seed=0)
    again = scm.counterfactual(found.to_frame(), do={}, seed=0)
    assert np.allclose(again["v"], v[:3] + 0.1)


@pytest.fixture(scope="module")
def clinic():
    """ward -> bmi, fitted on two of three wards and bmi from 15 to 45."""
    random = np.random.default_rng(0)
    ward = random.choice(["a", "b"], 300)
    bmi = np.clip(30 + 5 * (ward == "a") + 3 * random.normal(size=300), 15, 45)
    scm = cg.SCM(
        nx.DiGraph([("ward", "bmi")]),
        {"ward": cg.Categorical(["a", "b", "c"]), "bmi": cg.Continuous()},
        {"bmi": cg.mechanisms.Additive()},
    )
    return scm.fit({"ward": ward, "bmi": bmi}, progress=False), bmi


def said(ask):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        ask()
    return [str(each.message) for each in found if each.category is cg.ExtrapolationWarning]


def test_evidence_that_fitting_never_saw_warns_once(clinic, tmp_path):
    scm, bmi = clinic
    low, high = bmi.min(), bmi.max()
    loaded = cg.SCM.from_pretrained(scm.save_pretrained(tmp_path / "model"))
    for model in (scm, loaded):
        (told,) = said(lambda m=model: m.abduct({"ward": "c", "bmi": 30.0}))
        assert told.startswith(
            "Evidence 'ward': row 0 is 'c', a category that fitting never saw; it saw 'a', 'b' (1"
        )
        (told,) = said(lambda m=model: m.counterfactual({"ward": ["a", "b"], "bmi": [30.0, 400.0]}, do={}))
        assert told.startswith(
            f"Evidence 'bmi': row 1 is 400, outside [{low:g}, {high:g}], the range seen in"
        )
        (told,) = said(lambda m=model: m.sample(2, do={"ward": "c"}))
        assert told.startswith("Intervention on 'ward': row 0 is 'c', a category that fitting never saw")
    assert not said(lambda: scm.abduct({"ward": ["a", "b"], "bmi": [low - 0.01 * low, high * 1.01]}))
    assert not said(lambda: scm.abduct({"ward": [None, "b"], "bmi": [np.nan, 30.0]}))
    assert not said(lambda: scm.abduct({"ward": ["b"], "bmi": [high + 0.9 * (high - low)]}))
    assert said(lambda: scm.abduct({"ward": ["b"], "bmi": [high + 1.1 * (high - low)]}))
    assert said(lambda: scm.abduct({"ward": ["b"], "bmi": [low - 1.1 * (high - low)]}))


def test_models_saved_without_what_fitting_saw_load_and_do_not_warn(clinic):
    scm, _ = clinic
    for node in ("ward", "bmi"):
        fresh = cg.SCM(scm.graph, scm.variables, {"bmi": cg.mechanisms.Additive()}).mechanisms[node]
        older = {
            name: each for name, each in scm.mechanisms[node].state_dict().items() if name != "seen_range"
        }
        fresh.load_state_dict(older)
        assert fresh.fitted and fresh.seen_range is None
        assert not said(
            lambda made=fresh: warn_unseen(torch.tensor([2]), made.seen_range, made.variable, where="x")
        )
