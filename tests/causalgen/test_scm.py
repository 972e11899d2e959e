"""The face: declaring, describing, options, files, and what it says to bad input."""

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch

import causalgen as cg
from causalgen.fitting.training_loop import TrainingLoop

VARIABLES = {"a": cg.Categorical(3), "b": cg.Continuous(lower=0, upper=1)}


def test_mechanisms_follow_the_variable_where_none_is_named():
    graph = nx.DiGraph([("a", "b"), ("b", "picture")])
    scm = cg.SCM(graph, {**VARIABLES, "picture": cg.Image(1, 8, 8)}, {"picture": cg.mechanisms.Diffusion()})
    assert [m.spec.kind for m in scm.mechanisms.values()] == ["categorical", "auto", "diffusion"]
    assert "picture  image 1x8x8  <- diffusion(b)  (not fitted)" in scm.describe()


def test_a_cycle_is_named():
    with pytest.raises(cg.CycleError, match=r"a -> b -> a|b -> a -> b"):
        cg.SCM(nx.DiGraph([("a", "b"), ("b", "a")]), VARIABLES)


def test_declarations_that_do_not_fit_say_so():
    graph = nx.DiGraph([("a", "b")])
    with pytest.raises(cg.GraphError, match="'b' has no variable"):
        cg.SCM(graph, {"a": VARIABLES["a"]})
    with pytest.raises(cg.UnknownNameError, match=r"'c' in variables.*Known: a, b"):
        cg.SCM(graph, {**VARIABLES, "c": cg.Continuous()})
    with pytest.raises(cg.UnknownNameError, match="in mechanisms"):
        cg.SCM(graph, VARIABLES, {"B": cg.mechanisms.Flow()})
    with pytest.raises(cg.MechanismError, match="Node 'b'.*images"):
        cg.SCM(graph, VARIABLES, {"b": cg.mechanisms.Diffusion()})
    with pytest.raises(cg.MechanismError, match="got 'flow'"):
        cg.SCM(graph, VARIABLES, {"b": "flow"})


def test_questions_before_fitting_name_the_node():
    scm = cg.SCM(nx.DiGraph([("a", "b")]), VARIABLES)
    with pytest.raises(cg.NotFittedError, match="'a'.*fit"):
        scm.sample(3)
    with pytest.raises(cg.NotFittedError, match="'a'.*fit"):
        scm.save_pretrained("nowhere")
    with pytest.raises(cg.NotFittedError, match="'a'.*fit"):
        scm.log_prob({"a": 1, "b": 0.5})


def chain():
    """x -> y -> z, linear."""
    return cg.SCM(
        nx.DiGraph([("x", "y"), ("y", "z")]),
        {node: cg.Continuous() for node in "xyz"},
        {node: cg.mechanisms.Additive() for node in "xyz"},
    )


def test_each_node_is_fitted_on_the_rows_that_have_it_and_its_parents():
    random = np.random.default_rng(0)
    data = pd.DataFrame(random.normal(size=(50, 3)), columns=["x", "y", "z"])
    gaps = data.copy()
    gaps.loc[:9, "x"], gaps.loc[5:19, "y"], gaps.loc[40:, "z"] = np.nan, np.nan, None
    scm = chain().fit(gaps, missing="drop", progress=False)
    assert scm.fit_report is not None
    assert {node: each.dropped for node, each in scm.fit_report.items()} == {"x": 10, "y": 20, "z": 25}
    assert "z: all 25 rows, 25 left out (values missing)" in str(scm.fit_report)
    for node, complete in {"x": gaps[["x"]], "y": gaps[["x", "y"]], "z": gaps[["y", "z"]]}.items():
        alone = chain().fit(complete.dropna(), nodes=[node], progress=False)
        for key, value in alone.mechanisms[node].state_dict().items():
            if key == "seen_range" and node != "z":  # what its child saw, too
                child = gaps[["x", "y"] if node == "x" else ["y", "z"]].dropna()[node]
                value = torch.tensor([max(value[0], child.min()), min(value[1], child.max())]).double()
            assert torch.equal(value, scm.mechanisms[node].state_dict()[key]), (node, key)
    assert np.isnan(gaps.loc[0, "x"])


def test_a_fit_starts_from_a_model_or_from_the_folder_of_one(tmp_path):
    random = np.random.default_rng(0)
    a = random.integers(0, 3, 60)
    data = {"a": a, "b": np.clip(0.3 * a + 0.2 + 0.05 * random.normal(size=60), 0.01, 0.99)}

    def model(**training):
        flow = cg.mechanisms.Flow(training=cg.mechanisms.Training(validation=0, **training))
        return cg.SCM(nx.DiGraph([("a", "b")]), VARIABLES, {"b": flow})

    earlier = model(epochs=20).fit(data, progress=False)
    trained = dict(earlier.mechanisms["b"].named_parameters())
    for start in (earlier, earlier.save_pretrained(tmp_path / "earlier"), None):
        later = model(epochs=1, learning_rate=1e-9).fit(data, progress=False, start=start)
        same = [
            torch.allclose(weight, trained[name], atol=1e-6)
            for name, weight in later.mechanisms["b"].named_parameters()
        ]
        assert all(same) == (start is not None)
    with pytest.raises(cg.MechanismError, match="Node 'b' cannot start .*its mechanism differs"):
        model(epochs=1).fit(data, progress=False, start=_additive(data))
    with pytest.raises(cg.MechanismError, match="Node 'a' cannot start .*there it is not fitted"):
        model(epochs=1).fit(data, progress=False, start=model())


@pytest.mark.parametrize(
    "mechanism",
    [
        cg.mechanisms.Additive(),
        cg.mechanisms.Additive(function="network", training={"epochs": 2}),
        cg.mechanisms.Flow(training={"epochs": 2}),
    ],
)
def test_an_earlier_fit_decides_nothing_and_whoever_has_it_keeps_it(mechanism):
    random = np.random.default_rng(0)
    x, u = random.normal(size=(2, 100))
    rising, falling = {"x": x, "y": 3 * x + u}, {"x": x, "y": 1 - 3 * x + u}
    row, do = {"x": 1.0, "y": 2.0}, {"x": 2.0}

    def new():
        variables = {node: cg.Continuous() for node in "xy"}
        mechanisms = {"x": cg.mechanisms.Additive(), "y": mechanism}
        return cg.SCM(nx.DiGraph([("x", "y")]), variables, mechanisms)

    scm = new().fit(rising, progress=False)
    other, done, abduction = scm.with_options("y"), scm.do(do), scm.abduct(row)
    asked = [
        lambda: scm.counterfactual(row, do),
        lambda: done.sample(1, seed=0),
        lambda: abduction.counterfactual(do),
    ]
    before = [ask()["y"].item() for ask in asked]
    other.fit(falling, progress=False)
    assert [ask()["y"].item() for ask in asked] == before
    scm.fit(falling, progress=False)
    assert [ask()["y"].item() for ask in asked[1:]] == before[1:]
    alone = new().fit(falling, progress=False)
    assert scm.counterfactual(row, do)["y"].item() == alone.counterfactual(row, do)["y"].item()


def test_models_of_other_options_are_fitted_apart():
    x, u = np.random.default_rng(0).normal(size=(2, 60))
    rows = {"x": x, "y": np.sin(3 * x) + u}
    network = {"y": cg.mechanisms.Additive(function="network", training={"epochs": 1})}
    base = cg.SCM(nx.DiGraph([("x", "y")]), {node: cg.Continuous() for node in "xy"}, network)
    base = base.fit(rows, nodes=["x"], progress=False)
    short = base.with_options("y").fit(rows, nodes=["y"], progress=False)
    before = short.log_prob(rows)
    base.with_options("y", training={"epochs": 9}).fit(rows, nodes=["y"], progress=False)
    assert torch.equal(short.log_prob(rows), before)
    with pytest.raises(cg.NotFittedError, match="'y'"):
        base.log_prob(rows)


def _additive(data):
    graph = nx.DiGraph([("a", "b")])
    return cg.SCM(graph, VARIABLES, {"b": cg.mechanisms.Additive()}).fit(data, progress=False)


def test_missing_cells_are_refused_unless_told_otherwise():
    data = {"x": [0.0, 1.0, np.nan, 3.0], "y": [0.0, np.nan, np.nan, 3.0], "z": [0.0, 1.0, 2.0, 3.0]}
    scm = chain()
    told = (
        r"missing in 2 of the 4 rows: column 'x' in 1 \(first in row 2\), column 'y' in 2 "
        r"\(first in row 1\); expected a value in every row. Fill them.*missing='drop'"
    )
    with pytest.raises(cg.DataError, match=told):
        scm.fit(data, progress=False)
    with pytest.raises(cg.DataError, match="missing is 'refuse' or 'drop', got 'ignore'"):
        scm.fit(data, missing="ignore", progress=False)
    empty = {"x": [None, np.nan], "y": [1.0, 2.0], "z": [1.0, 2.0]}
    with pytest.raises(cg.DataError, match="Column 'x': none of the 2 rows has a value"):
        scm.fit(empty, progress=False)
    with pytest.raises(cg.DataError, match="node 'x': none of the 2 rows has a value of 'x'. Fill"):
        scm.fit(empty, missing="drop", progress=False)
    apart = {"x": [None, None, 1.0, 2.0], "y": [1.0, 2.0, None, None], "z": [1.0, 2.0, 3.0, 4.0]}
    with pytest.raises(cg.DataError, match="node 'y': none of the 4 rows has a value of all of y, x"):
        scm.fit(apart, missing="drop", progress=False)
    assert not any(mechanism.fitted for mechanism in scm.mechanisms.values())
    with pytest.warns(UserWarning, match="Node 'z': a linear function .* goes through all 2 rows"):
        assert scm.fit(apart, nodes=["z"], missing="drop", progress=False).mechanisms["z"].fitted


@pytest.mark.parametrize(
    ("evidence", "error", "words"),
    [
        ({"kind": 1, "pictures": 0}, cg.UnknownNameError, "'pictures' in evidence. Did you mean 'picture'"),
        ({"extra": 2}, cg.UnknownNameError, "'extra' in evidence"),
        ({"kind": 1, "picture": np.zeros((1, 9, 8))}, cg.ShapeError, "9"),
        ({"kind": 1, "picture": np.full((1, 8, 8), np.nan)}, cg.DomainError, "nan|NaN"),
        ({"kind": 1, "picture": np.full((1, 8, 8), 200.0)}, cg.DomainError, "255"),
        ({"kind": 2, "picture": np.zeros((1, 8, 8))}, cg.DomainError, "0..1"),
        ({"kind": [0, 1], "picture": np.zeros((3, 1, 8, 8))}, cg.ShapeError, "2 rows"),
        ({}, cg.EvidenceError, "empty"),
        (3, cg.EvidenceError, "int"),
    ],
)
def test_bad_evidence_is_one_clear_error(pictures, evidence, error, words):
    scm, _ = pictures
    with pytest.raises(error, match=words):
        scm.counterfactual(evidence, do={"kind": 0})


@pytest.mark.parametrize(
    ("do", "error", "words"),
    [
        ({"kid": 0}, cg.UnknownNameError, "Did you mean 'kind'"),
        ({"kind": 2}, cg.DomainError, "Intervention on 'kind'"),
        ({"kind": [0, 1, 0]}, cg.InterventionError, "3 rows, but the evidence has 2"),
        ({"kind": lambda k: k + 5}, cg.DomainError, "function's value"),
        ({"kind": [0, 1], "picture": np.zeros((3, 1, 8, 8))}, cg.InterventionError, "equal numbers"),
        ([("kind", 1)], cg.InterventionError, "list"),
    ],
)
def test_bad_interventions_are_one_clear_error(pictures, do, error, words):
    scm, data = pictures
    evidence = {node: values[:2] for node, values in data.items()}
    with pytest.raises(error, match=words):
        scm.counterfactual(evidence, do=do, seed=0)


def test_numbers_of_draws_are_checked(linear):
    scm, _ = linear
    with pytest.raises(cg.EvidenceError, match="sample: n, .* at least 1, got 0"):
        scm.sample(0)
    with pytest.raises(cg.EvidenceError, match="num_samples"):
        scm.abduct({"x": 0.0, "y": 0.0, "z": 0.0, "w": 0.0}, num_samples=0)
    with pytest.raises(cg.UnknownNameError, match="in targets"):
        scm.sample(1, targets=["q"])
    with pytest.raises(cg.InterventionError, match="already"):
        scm.do({"x": 1.0}).do({"x": 2.0})


def test_evidence_is_not_changed(pictures):
    scm, data = pictures
    evidence = {node: values[:3].copy() for node, values in data.items()}
    scm.counterfactual(evidence, do={"kind": 1}, seed=0)
    assert all(np.array_equal(evidence[node], data[node][:3]) for node in data)


def test_uint8_and_float_images_are_the_same_evidence(pictures):
    scm, data = pictures
    whole = scm.counterfactual({"kind": 0, "picture": data["picture"][0]}, do={"kind": 1}, seed=0)
    share = scm.counterfactual({"kind": 0, "picture": data["picture"][0] / 255.0}, do={"kind": 1}, seed=0)
    torch.testing.assert_close(whole["picture"], share["picture"], rtol=0, atol=1e-5)


def test_a_frame_keeps_its_index(linear):
    scm, data = linear
    frame = pd.DataFrame(data).iloc[5:9].set_index(pd.Index(list("pqrs")))
    cf = scm.counterfactual(frame, do={"x": 1.0}, seed=0)
    assert list(cf["z"].index) == list("pqrs")
    assert list(cf.factual["y"]) == list(frame["y"])


def test_log_prob_is_the_sum_over_nodes_and_names_who_has_none(linear, pictures):
    scm, data = linear
    rows = {node: values[:7] for node, values in data.items()}
    residual = {node: scm.abduct(rows).noise[node]["residual"] for node in scm.graph.nodes}
    expected = sum(
        torch.distributions.Normal(0, scm.mechanisms[node].scale).log_prob(u) for node, u in residual.items()
    )
    torch.testing.assert_close(scm.log_prob(rows), expected, rtol=1e-12, atol=1e-12)
    scm, data = pictures
    with pytest.raises(cg.MechanismError, match="'picture'.*density"):
        scm.log_prob({node: values[:2] for node, values in data.items()})


def test_other_options_share_the_weights(pictures):
    scm, _ = pictures
    fast = scm.with_options("picture", solver={"steps": 2}, guidance={"kind": "anticausal", "scale": 1.0})
    mine, theirs = scm.mechanisms["picture"], fast.mechanisms["picture"]
    assert theirs.spec.solver.steps == 2
    assert theirs.spec.solver.kind == "anchored"
    assert theirs.spec.guidance.kind == "anticausal"
    assert mine.spec.solver.steps == 4
    pointers = [{p.data_ptr() for p in m.parameters()} for m in (mine, theirs)]
    assert pointers[0] == pointers[1]
    with pytest.raises(cg.MechanismError, match="other weights"):
        scm.with_options("picture", backbone={"channels": (16, 32)})
    with pytest.raises(cg.UnknownNameError, match="'pic'"):
        scm.with_options("pic", solver={"steps": 2})
    with pytest.raises(cg.UnknownNameError, match="Did you mean 'solver'"):
        scm.with_options("picture", solvr={"steps": 2})
    with pytest.raises(cg.SpecError, match="greater than or equal to 1, got 0"):
        scm.with_options("picture", solver={"steps": 0})


def test_one_option_of_a_default_part_keeps_the_others():
    scm = cg.SCM(
        nx.DiGraph([("a", "p")]),
        {"a": VARIABLES["a"], "p": cg.Image(1, 8, 8)},
        {"p": cg.mechanisms.Diffusion(backbone={"channels": (8,)}, predictor=None)},
    )
    solver = scm.with_options("p", solver={"residuals": False}).mechanisms["p"].spec.solver
    assert (solver.kind, solver.steps, solver.residuals) == ("anchored", 16, False)


def test_a_saved_model_gives_the_same_answers(pictures, tmp_path):
    scm, data = pictures
    folder = scm.save_pretrained(tmp_path / "model", card="# Model\n")
    again = cg.SCM.from_pretrained(folder)
    evidence = {node: values[:3] for node, values in data.items()}
    for model in (scm, again):
        assert model.to_yaml() == scm.to_yaml()
    assert torch.equal(
        scm.counterfactual(evidence, do={"kind": 1}, seed=0)["picture"],
        again.counterfactual(evidence, do={"kind": 1}, seed=0)["picture"],
    )
    weights = folder / "picture.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(cg.ChecksumError, match=r"picture\.safetensors"):
        cg.SCM.from_pretrained(folder)


def test_unknown_models_are_named(tmp_path):
    with pytest.raises(cg.UnknownNameError, match="model 'mnst' in the gallery"):
        cg.SCM.from_pretrained("mnst")
    with pytest.raises(cg.CheckpointError, match="No folder"):
        cg.SCM.from_pretrained(tmp_path / "absent")


def test_a_yaml_file_round_trips(pictures, tmp_path):
    scm, _ = pictures
    text = scm.to_yaml(tmp_path / "scm.yaml")
    again = cg.SCM.from_yaml(tmp_path / "scm.yaml")
    assert again.to_yaml() == text == (tmp_path / "scm.yaml").read_text()
    assert again.graph == scm.graph
    assert {n: m.spec for n, m in again.mechanisms.items()} == {n: m.spec for n, m in scm.mechanisms.items()}


HEAD = "causalgen: 1\nnodes:\n  a:\n    variable: {type: categorical, categories: 3}\n"


@pytest.mark.parametrize(
    ("mechanism", "place", "words"),
    [
        ("{kind: categoricl}", "5:23", "Did you mean 'categorical'"),
        ("{kind: diffusion}", "5:16", "images"),
        ("{smoothing: 1}", "5:16", "kind"),
        ("{kind: categorical, training: {epochs: 0}}", "5:55", "greater than or equal to 1"),
    ],
)
def test_mechanism_errors_in_a_file_say_where(tmp_path, mechanism, place, words):
    path = tmp_path / "scm.yaml"
    path.write_text(f"{HEAD}    mechanism: {mechanism}\n")
    with pytest.raises(cg.SpecError, match=words) as caught:
        cg.SCM.from_yaml(path)
    assert f"scm.yaml:{place}" in str(caught.value)


def test_interventions_cannot_be_written(linear):
    scm, _ = linear
    with pytest.raises(cg.MechanismError, match="'x': it was intervened on"):
        scm.do({"x": cg.Shift(1)}).to_yaml()
    with pytest.raises(cg.MechanismError, match="'x': it was intervened on"):
        scm.do({"x": 1.0}).to_yaml()


def test_a_fit_that_was_interrupted_or_failed_decides_nothing_of_a_later_one(monkeypatch):
    x, u = np.random.default_rng(0).normal(size=(2, 60))
    rows = {"x": x, "y": np.sin(3 * x) + u}

    def new():
        network = cg.mechanisms.Additive(function="network", training={"epochs": 2})
        variables = {node: cg.Continuous() for node in "xy"}
        return cg.SCM(nx.DiGraph([("x", "y")]), variables, {"x": cg.mechanisms.Additive(), "y": network})

    alone = new().fit(rows, progress=False).log_prob(rows)
    steep = new().with_options("y", training={"learning_rate": 1e300})
    with pytest.raises(cg.MechanismError, match="learning_rate"):
        steep.fit(rows, progress=False)
    mended = steep.with_options("y", training={"learning_rate": 1e-3})
    assert torch.equal(mended.fit(rows, progress=False).log_prob(rows), alone)

    scm, update = new(), TrainingLoop._update
    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoop, "_update", interrupted(update, after=1))
        with pytest.raises(KeyboardInterrupt):
            scm.fit(rows, progress=False)
    with pytest.raises(cg.NotFittedError):
        scm.sample(1, seed=0)
    assert torch.equal(scm.fit(rows, progress=False).log_prob(rows), alone)


def interrupted(update, after):
    """An update of weights that is interrupted once some were made."""
    made = 0

    def once(loop, *arguments):
        nonlocal made
        made += 1
        if made > after:
            raise KeyboardInterrupt
        return update(loop, *arguments)

    return once


def test_a_model_that_another_was_made_from_before_any_fit_stays_as_it_was():
    x = np.random.default_rng(0).normal(size=40)
    additive = dict.fromkeys("xy", cg.mechanisms.Additive())
    base = cg.SCM(nx.DiGraph([("x", "y")]), {node: cg.Continuous() for node in "xy"}, additive)
    other, done = base.with_options("y"), base.do({"x": 1.0})
    base.fit({"x": x, "y": 2 * x}, progress=False)
    for each in (other, done):
        with pytest.raises(cg.NotFittedError):
            each.sample(1, seed=0)


def test_what_auto_chose_is_chosen_again():
    x, u = np.random.default_rng(0).normal(size=(2, 200))
    few, many = {"x": x[:10], "y": 2 * x[:10] + u[:10]}, {"x": x, "y": np.sin(3 * x) + 0.05 * u}
    quick = {"x": cg.mechanisms.Additive(), "y": cg.mechanisms.Auto(training={"epochs": 60})}
    scm = cg.SCM(nx.DiGraph([("x", "y")]), {node: cg.Continuous() for node in "xy"}, quick)
    kinds = [scm.fit(rows, seed=0, progress=False).fit_report["y"].choice["chosen"] for rows in (few, many)]
    assert [each.get("function", "linear") for each in kinds] == ["linear", "network"]
    assert scm.fit(many, seed=0, progress=False, start=scm).fit_report["y"].choice is None
