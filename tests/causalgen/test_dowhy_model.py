"""An SCM as DoWhy's model: DoWhy's samples, interventional means and counterfactuals are those of the SCM."""

import random
import sys

import networkx as nx
import numpy as np
import pandas as pd
import pytest

import causalgen as cg
from causalgen.counterfactuals.dowhy_model import _Wrapped

LINEAR = cg.mechanisms.Additive()
DRAWS = 4000


def model(**more):
    """y = 1 + 2 x + u, z = y - x + v, all standard normal: known means under every intervention."""
    x, u, v = np.random.default_rng(0).normal(size=(3, 500))
    y = 1 + 2 * x + u
    data = {"x": x, "y": y, "z": y - x + v}
    graph = nx.DiGraph([("x", "y"), ("y", "z"), ("x", "z")])
    variables = {node: cg.Continuous() for node in data}
    mechanisms = {node: LINEAR for node in data}
    for node, (variable, parents, column) in more.items():
        graph.add_node(node)
        graph.add_edges_from((parent, node) for parent in parents)
        variables[node], data[node] = variable, column(data)
        mechanisms.pop(node, None)
    return cg.SCM(graph, variables, mechanisms), data


def fitted(**more):
    scm, data = model(**more)
    return scm.fit(data, seed=0, progress=False), pd.DataFrame(data)


def kind(data):
    return np.where(data["x"] + np.random.default_rng(1).normal(size=500) > 0, "up", "down")


@pytest.fixture
def gcm():
    states = random.getstate(), np.random.get_state()
    gcm = pytest.importorskip("dowhy.gcm", reason="the extra dowhy is not installed")
    gcm.config.disable_progress_bars()
    gcm.util.general.set_random_seed(0)
    yield gcm
    random.setstate(states[0])
    np.random.set_state(states[1])


@pytest.mark.filterwarnings("ignore")
def test_samples_interventions_and_counterfactuals_are_the_same(gcm):
    scm, data = fitted()
    theirs = scm.to_dowhy()
    assert isinstance(theirs, gcm.InvertibleStructuralCausalModel)
    ours = scm.sample(DRAWS, seed=0).to_frame()
    drawn = gcm.draw_samples(theirs, DRAWS)
    set_to = gcm.interventional_samples(theirs, {"y": lambda _: 3.0}, num_samples_to_draw=DRAWS)
    expected = scm.sample(DRAWS, do={"y": 3.0}, seed=0).to_frame()
    for one, other in ((drawn, ours), (set_to, expected)):
        for node in data:
            error = 5 * np.hypot(one[node].std(), other[node].std()) / DRAWS**0.5 + 1e-9
            assert abs(one[node].mean() - other[node].mean()) <= error
            assert np.isclose(one[node].std(), other[node].std(), rtol=0.1)
    cf = gcm.counterfactual_samples(theirs, {"x": lambda x: x + 1}, observed_data=data.head(20))
    answer = scm.counterfactual(data.head(20), do={"x": cg.Shift(1)}, seed=0)
    for node in data:
        np.testing.assert_allclose(cf[node], answer[node], rtol=0, atol=1e-9)


def test_parents_beyond_their_bounds_have_children_as_in_samples():
    """They were refused, in the middle of a draw."""
    scm = cg.SCM(
        nx.DiGraph([("x", "y")]),
        {"x": cg.Continuous(lower=0), "y": cg.Continuous()},
        {"x": LINEAR, "y": cg.mechanisms.Equation(value="2 * x + u", noise={"u": {"normal": [0, 1]}})},
    ).fit({"x": np.abs(np.random.default_rng(0).normal(size=500)), "y": np.zeros(500)}, progress=False)
    with pytest.warns(UserWarning, match="'x': its value in row .* outside its bounds"):
        assert float(scm.sample(500, seed=0)["x"].min()) < 0
    child = _Wrapped(scm.mechanisms["y"], ["x"])
    made = child.evaluate(np.array([[-0.5], [0.5]]), np.array([[2.0], [1.0]]))
    assert made.ravel().tolist() == [1.0, 2.0]


@pytest.mark.filterwarnings("ignore")
def test_a_change_is_attributed_by_two_models(gcm):
    """The constant of y rises by 2 and nothing else: so does the mean of z, and all of it is y's."""
    before, data = fitted()
    changed = pd.DataFrame({"x": data["x"], "y": data["y"] + 2, "z": data["z"] + 2})
    after = model()[0].fit(changed, seed=0, progress=False)
    change = gcm.distribution_change_of_graphs(
        before.to_dowhy(),
        after.to_dowhy(),
        "z",
        num_samples=1000,
        difference_estimation_func=lambda one, other: np.mean(other) - np.mean(one),
    )
    for node, share in {"x": 0.0, "y": 2.0, "z": 0.0}.items():  # means of z have the error sqrt(3 / 1000)
        assert abs(change[node] - share) <= 5 * (2 * 3 / 1000) ** 0.5
    with pytest.raises(cg.MechanismError, match="distribution_change_of_graphs"):
        gcm.fit(before.to_dowhy(), data)


@pytest.mark.filterwarnings("ignore")
def test_anomalies_and_influence_are_those_of_a_linear_model(gcm):
    """z = 1 + x + u + v: a third of its variance is each noise's; an outlier of u is y's."""
    scm, _ = fitted()
    theirs = scm.to_dowhy()
    shares = gcm.intrinsic_causal_influence(
        theirs, "z", num_samples_randomization=300, num_samples_baseline=300
    )
    assert all(abs(share - 1) < 0.4 for share in shares.values())
    outlier = pd.DataFrame({"x": [0.0], "y": [7.0], "z": [7.0]})
    scores = gcm.attribute_anomalies(theirs, "z", outlier, num_distribution_samples=1000)
    assert scores["y"][0] > 3 and abs(scores["x"][0]) + abs(scores["z"][0]) < scores["y"][0]


@pytest.mark.filterwarnings("ignore")
def test_labels_are_carried_by_a_probabilistic_model(gcm):
    scm, _ = fitted(kind=(cg.Categorical(["down", "up"]), ["x"], kind))
    theirs = scm.to_dowhy()
    assert not isinstance(theirs, gcm.StructuralCausalModel)
    drawn = gcm.interventional_samples(theirs, {"x": lambda _: 1.0}, num_samples_to_draw=DRAWS)
    share = (scm.sample(DRAWS, do={"x": 1.0}, seed=0).to_frame()["kind"] == "up").mean()
    assert set(drawn["kind"]) == {"up", "down"}
    assert abs((drawn["kind"] == "up").mean() - share) <= 5 * (0.5 / DRAWS) ** 0.5
    with pytest.raises(cg.MechanismError, match="Fit the SCM"):
        gcm.fit(theirs, drawn)


def test_what_dowhy_cannot_carry_is_refused():
    with pytest.raises(cg.NotFittedError, match="Node 'x'"):
        model()[0].to_dowhy()
    scm, _ = model(v=(cg.Continuous(shape=[2]), ["x"], lambda data: np.zeros((500, 2))))
    with pytest.raises(cg.MechanismError, match="Node 'v'.* more than one number"):
        scm.to_dowhy()
    picture = (cg.Image(1, 8, 8), ["x"], lambda data: np.zeros((500, 1, 8, 8)))
    with pytest.raises(cg.MechanismError, match="Node 'i'.* more than one number"):
        model(i=picture)[0].to_dowhy()


def test_the_extra_is_named_where_dowhy_is_not_there(monkeypatch):
    scm, _ = fitted()
    monkeypatch.setitem(sys.modules, "dowhy", None)
    monkeypatch.setitem(sys.modules, "dowhy.gcm", None)
    with pytest.raises(cg.MechanismError, match=r"pip install '\.\[dowhy\]'"):
        scm.to_dowhy()
