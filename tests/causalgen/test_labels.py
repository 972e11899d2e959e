"""Values are labels only where they are labels: codes and truth values never choose a treatment."""

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch

import causalgen as cg


@pytest.fixture(scope="module")
def trial():
    """t ("yes" or "no") -> y, where "yes" gives 3 more."""
    random = np.random.default_rng(0)
    t = np.where(random.random(500) < 0.5, "yes", "no")
    data = pd.DataFrame({"t": t, "y": 3.0 * (t == "yes") + random.normal(size=500)})
    return model(cg.Categorical(["yes", "no"])), data


def model(treatment):
    return cg.SCM(
        nx.DiGraph([("t", "y")]),
        {"t": treatment, "y": cg.Continuous()},
        {"y": cg.mechanisms.Additive()},
    )


@pytest.mark.parametrize("coded", [lambda t: t == "yes", lambda t: (t == "yes").astype(int)])
def test_a_treatment_as_truth_values_is_refused_or_means_itself(trial, coded):
    scm, data = trial
    recoded = data.assign(t=coded(data["t"]))
    told = (
        r"Column 't' of the data frame: row \d+ is "
        r"(?:(True|False), .*'yes', 'no'\. Give the labels|(0|1), .*'yes', 'no'\. A number is no code here)"
    )
    with pytest.raises(cg.DataError, match=told):
        scm.fit(recoded, progress=False)
    with pytest.raises(cg.DataError, match="'yes', 'no'"):
        scm.fit({"t": list(recoded["t"]), "y": data["y"]}, progress=False)
    numbered = model(cg.Categorical(2)).fit(recoded, progress=False)
    labelled = model(cg.Categorical(["yes", "no"])).fit(data, progress=False)
    assert numbered.effect("y", do={"t": True}, versus={"t": False}, n=50, seed=0).value == pytest.approx(
        labelled.effect("y", do={"t": "yes"}, versus={"t": "no"}, n=50, seed=0).value
    )
    assert labelled.effect("y", do={"t": "yes"}, versus={"t": "no"}, n=50, seed=0).value == pytest.approx(
        3, abs=0.3
    )
    for value in (True, 1, 0.0, np.bool_(1), torch.tensor([0]), "1", "0 + 1", "True"):
        with pytest.raises((cg.DomainError, cg.UnknownNameError), match="'yes', 'no'"):
            labelled.sample(2, do={"t": value})
        if not isinstance(value, str):
            with pytest.raises(cg.DomainError, match="Evidence 't': row 0 .*'yes', 'no'"):
                labelled.abduct({"t": value, "y": 0.0})


def test_labels_that_look_like_numbers_are_no_codes():
    values = ["1", "2", "3"] * 20
    variables = {"d": cg.Categorical(["1", "2", "3"]), "y": cg.Categorical(4)}
    table = cg.mechanisms.Categorical(smoothing=0)
    scm = cg.SCM(nx.DiGraph([("d", "y")]), variables, {"y": table})
    scm.fit({"d": list(map(int, values)), "y": list(map(int, values))}, progress=False)
    for one in (1, 1.0, "1", np.int8(1), np.float32(1), torch.tensor(1), "1.0"):
        assert scm.sample(2, do={"d": one})["y"].tolist() == [1, 1]
        evidence = pd.DataFrame({"d": [one.item() if hasattr(one, "item") else one]})
        assert scm.counterfactual(evidence, do={}, seed=0)["d"].tolist() == ["1"]
    with pytest.raises(cg.DomainError, match="row 0 is 0, expected one of the 3 categories '1', '2', '3'"):
        scm.sample(2, do={"d": 0})


@pytest.mark.parametrize("labels", [[1, 2, 3], ["1", "2", "3"], [0, 2, 1], ["-1", "0", "2.5"]])
def test_expressions_refuse_labels_that_are_other_numbers_than_their_codes(labels):
    """Where kind is 2, the dose was that of kind 3."""
    variables = {"kind": cg.Categorical(labels), "dose": cg.Continuous()}
    graph, dose = nx.DiGraph([("kind", "dose")]), cg.mechanisms.Equation(value="10 * (kind == 2)")
    with pytest.raises(cg.MechanismError, match="labels of parent 'kind' for codes"):
        cg.SCM(graph, variables, {"dose": dose})
    with pytest.raises(cg.MechanismError, match="labels of its variable for codes"):
        kind = cg.mechanisms.Equation(value="1 + (dose > 0)")
        cg.SCM(nx.DiGraph([("dose", "kind")]), variables, {"kind": kind})
    unread = cg.mechanisms.Equation(value="u", noise={"u": {"normal": [0, 1]}})
    cg.SCM(graph, variables, {"dose": unread})
    scm = cg.SCM(graph, variables, {"dose": cg.mechanisms.Additive()})
    scm.fit({"kind": [labels[0], labels[1], labels[2]] * 9, "dose": [0.0, 1.0, 2.0] * 9}, progress=False)
    for do in ({"dose": "10 * (kind == 2)"}, {"kind": "2 - kind"}, {"kind": "1 + (dose > 9)"}):
        with pytest.raises(cg.InterventionError, match="labels of 'kind' for codes.*a Policy"):
            scm.sample(3, do=do)
    policy = cg.Policy(lambda kind: 10.0 * (kind == labels[1]), reads=["kind"])
    answer = scm.counterfactual({"kind": labels, "dose": [0.0, 1.0, 2.0]}, do={"dose": policy})
    assert answer["dose"].tolist() == [0.0, 10.0, 0.0]


def test_counts_are_not_drawn_for_labels_that_are_other_numbers_than_their_codes():
    graph = nx.DiGraph()
    graph.add_node("t")
    scm = cg.SCM(graph, {"t": cg.Categorical([2, 0, 1])}).fit({"t": [2, 0, 1]}, progress=False)
    for law in ({"bernoulli": 0.5}, {"binomial": [2, 0.5]}, torch.distributions.Bernoulli(0.5)):
        with pytest.raises(cg.InterventionError, match=r"on 't': draws of .* for codes, and that of 2 is 0"):
            scm.do({"t": cg.Stochastic(law)})
    for law in ({"categorical": [0, 0, 1]}, torch.distributions.Categorical(torch.tensor([0.0, 0, 1]))):
        assert set(scm.sample(5, do={"t": cg.Stochastic(law)}, seed=0)["t"]) == {1}
    scm = cg.SCM(graph, {"t": cg.Categorical([0, 1])}).fit({"t": [0, 1]}, progress=False)
    assert set(scm.sample(9, do={"t": cg.Stochastic({"bernoulli": 0.5})}, seed=0)["t"]) == {0, 1}


def test_codes_of_results_go_back_in_as_labels(categories):
    scm, _ = categories
    drawn = scm.sample(6, seed=0)
    codes = drawn.canonical("a")
    labels = scm.variables["a"].decode(codes)
    assert labels.tolist() == drawn["a"].tolist()
    found = scm.counterfactual({"a": labels, "b": drawn["b"], "c": drawn["c"]}, do={"a": "low"}, seed=0)
    assert found.factual["a"].tolist() == drawn["a"].tolist()
    with pytest.raises(cg.DomainError, match=r"variable.decode\(code\)"):
        scm.counterfactual({"a": codes, "b": drawn["b"], "c": drawn["c"]}, do={"a": "low"}, seed=0)


def test_functions_return_labels_and_expressions_codes(categories):
    scm, _ = categories
    natural = scm.sample(9, seed=0)["a"]
    assert scm.sample(9, do={"a": lambda a: a}, seed=0)["a"].tolist() == natural.tolist()
    ranks = {"low": 0, "mid": 1, "high": 2}
    turned = scm.sample(9, do={"a": "2 - a"}, seed=0)["a"]
    assert [ranks[each] for each in turned] == [2 - ranks[each] for each in natural]
    with pytest.raises(cg.DomainError, match="function's value: row 0 is 0, .*'low', 'mid', 'high'"):
        scm.sample(9, do={"a": lambda a: np.zeros(len(a), int)}, seed=0)
    drawn = scm.sample(9, do={"a": cg.Stochastic({"bernoulli": [1.0]})}, seed=0)["a"]
    assert drawn.tolist() == ["mid"] * 9


def test_a_value_fed_from_another_world_is_a_label_or_refused():
    """Categories of other variables meet by label, whatever the order of their codes."""
    graph = nx.DiGraph()
    graph.add_nodes_from(["left", "right", "code"])
    scm = cg.SCM(
        graph,
        {
            "left": cg.Categorical(["yes", "no"]),
            "right": cg.Categorical(["no", "yes"]),
            "code": cg.Categorical(2),
        },
    )
    rows = {"left": ["yes", "no", "no"], "right": ["yes", "yes", "no"], "code": [0, 1, 1]}
    abduction = scm.fit(rows, progress=False).abduct(rows)
    fed = abduction.worlds({"one": {}, "two": {"right": cg.WorldRef("one")["left"]}})["two"]
    assert fed["right"].tolist() == ["yes", "no", "no"]
    with pytest.raises(cg.DomainError, match="'yes'. A number is no code here"):
        abduction.worlds({"one": {}, "two": {"right": cg.WorldRef("one")["code"]}})
