"""Rows that a mechanism cannot be fitted to are refused before any node is trained, by node and row."""

import warnings

import networkx as nx
import numpy as np
import pandas as pd
import pytest

import causalgen as cg
from causalgen.fitting import fit as fitting
from graphs.errors import DataError, MechanismError

RANDOM = np.random.default_rng(0)
DOSE = RANDOM.uniform(1, 2, 200)


@pytest.fixture(autouse=True)
def _nothing_is_trained(monkeypatch):
    def trained(*_args, **_options):
        raise AssertionError("a node was fitted before all were looked at")

    monkeypatch.setattr(fitting, "TrainingLoop", trained)


def fit(rows, mechanism=None, **options):
    """dose -> level, trained in this order."""
    scm = cg.SCM(
        nx.DiGraph([("dose", "level")]),
        {"dose": cg.Continuous(), "level": cg.Continuous(lower=0)},
        {"dose": cg.mechanisms.Flow(), "level": mechanism or cg.mechanisms.Flow()},
    )
    return scm.fit(rows, progress=False, **options)


def test_a_value_on_a_bound_names_node_row_and_remedy():
    level = DOSE.copy()
    level[17] = 0
    told = (
        r"node 'level', row 17 of which is 0.0: 1 of 200 rows is on a bound \(lower: 0\).*Widen.*lower: -0.5"
    )
    with pytest.raises(DataError, match=told):
        fit({"dose": DOSE, "level": level})


def test_wider_bounds_are_told_in_digits_that_tell_them_from_these():
    """It was advised to widen 1.7e9 to 1.7e+09."""
    scm = cg.SCM(
        nx.DiGraph([("dose", "time")]), {"dose": cg.Continuous(), "time": cg.Continuous(lower=1.7e9)}
    )
    with pytest.raises(DataError, match=r"Widen the bounds to lower: 1699999999\.5,"):
        scm.fit({"dose": DOSE, "time": 1.7e9 + np.arange(200)}, progress=False)


def test_the_row_is_that_of_the_table_also_where_others_are_dropped():
    rows = pd.DataFrame({"dose": DOSE, "level": DOSE})
    rows.loc[:9, "dose"], rows.loc[30, "level"] = np.nan, 0
    with pytest.raises(DataError, match="row 30 of which is 0.0: 1 of 190 rows"):
        fit(rows, missing="drop")


def test_an_atom_is_no_density():
    level = np.where(np.arange(200) % 4, DOSE, 0)
    with pytest.raises(DataError, match="50 of 200 rows are on a bound.*two nodes"):
        fit({"dose": DOSE, "level": level})


def test_values_off_a_grid():
    with pytest.raises(DataError, match=r"node 'level', row 0.*off the grid 0 \+ k \* 1"):
        fit({"dose": DOSE, "level": DOSE}, cg.mechanisms.Flow(dequantize=1))


@pytest.mark.parametrize(("rows", "least"), [(1, 10), (9, 10)])
def test_too_few_rows_to_train(rows, least):
    with pytest.raises(DataError, match=f"node 'dose'.*'flow' needs at least {least} rows, got {rows}"):
        fit({"dose": DOSE[:rows], "level": DOSE[:rows]})


def test_one_row_has_no_deviation():
    variables, additive = (
        {node: each() for node in "ab"} for each in (cg.Continuous, cg.mechanisms.Additive)
    )
    scm = cg.SCM(nx.DiGraph([("a", "b")]), variables, additive)
    with pytest.raises(DataError, match="'additive' needs at least 2 rows.*less to learn .'equation'."):
        scm.fit({"a": [1.0], "b": [2.0]}, progress=False)


TOWN = RANDOM.integers(0, 5, 200)
HEIGHT, AGE = RANDOM.normal(170, 10, 200), RANDOM.normal(40, 5, 200)
NUMBER, TOWNS = cg.Continuous(), cg.Categorical(["a", "b", "c", "d", "e", "nobody's"])


@pytest.mark.parametrize(
    "columns",
    [
        {"cm": (NUMBER, HEIGHT), "inches": (NUMBER, (HEIGHT / 2.54).round(4)), "age": (NUMBER, AGE)},
        {"cm": (NUMBER, HEIGHT), "age": (NUMBER, AGE), "both": (NUMBER, HEIGHT + 2 * AGE)},
        {"town": (TOWNS, TOWN), "north": (cg.Categorical(2), TOWN < 2), "age": (NUMBER, AGE)},
        {"two": (cg.Continuous(shape=(2,)), np.stack([HEIGHT, AGE], 1)), "sum": (NUMBER, HEIGHT + AGE)},
        {f"x{k}": (NUMBER, RANDOM.normal(size=4).repeat(50)) for k in range(5)},
        {"town": (TOWNS, TOWN), "north": (cg.Categorical(2), AGE < 40), "age": (NUMBER, AGE)},
        {"same": (cg.Continuous(shape=(2,)), np.stack([AGE, AGE], 1)), "cm": (NUMBER, HEIGHT)},
        {"cm": (NUMBER, HEIGHT), "near": (NUMBER, HEIGHT + 0.01 * AGE), "one": (NUMBER, np.ones(200))},
    ],
    ids=["units", "sum", "regions", "vector", "few", "free", "within", "near"],
)
def test_parents_that_the_rows_do_not_tell_apart_are_named(columns):
    """By numpy's ranks: a parent that adds less than its own columns to those of the others and a constant.

    The effect of inches on a weight that centimetres make was told as half of theirs, by refits +- 0.03.
    """
    given = {
        name: np.eye(variable.size)[values.astype(int)] if variable.type == "categorical" else values
        for name, (variable, values) in columns.items()
    }
    ones = np.ones((200, 1))
    spread = {name: each.reshape(200, -1) - each.reshape(200, -1).mean(0) for name, each in given.items()}

    def rank(names):
        found = np.hstack(
            [spread[name] / max(spread[name].std(), 1e-9) for name in names] + [0 * ones]
        )  # of no names, 0
        return np.linalg.matrix_rank(found, tol=1e-3)

    tied = [
        name
        for name in columns
        if rank(columns) < rank([name]) + rank([other for other in columns if other != name])
    ]
    scm = cg.SCM(
        nx.DiGraph([(name, "y") for name in columns]),
        {**{name: variable for name, (variable, _) in columns.items()}, "y": NUMBER},
        {"y": cg.mechanisms.Additive()},
    )
    rows = {
        name: np.asarray(variable.decode(values.astype(variable.dtype)))
        for name, (variable, values) in columns.items()
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scm.fit({**rows, "y": DOSE}, nodes=["y"], progress=False)
    told = [str(each.message) for each in caught]
    if not tied:
        assert told == []
        return
    assert len(told) == 1 and f"ties its parents {', '.join(tied)}, so" in told[0]
    assert scm.fit_report["y"].advice == told[0].replace("Node 'y'", "y")


def test_a_code_for_what_is_missing_ties_nothing():
    """Two numbers are independent but where both are 1e7: a correlation of 1, to 13 digits."""
    data = {"a": np.where(DOSE > 1.9, 1e7, HEIGHT), "b": np.where(DOSE > 1.9, 1e7, AGE), "y": DOSE}
    graph = nx.DiGraph([("a", "y"), ("b", "y")])
    scm = cg.SCM(graph, {node: NUMBER for node in "aby"}, {"y": cg.mechanisms.Additive()})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scm.fit(data, nodes=["y"], progress=False)


def test_an_equation_of_columns_that_are_constant_in_most_of_many_rows_is_found():
    rows = 30_000
    rare = np.zeros(rows)
    rare[[7, 20_001]] = 1.0, 2.0
    scm = cg.SCM(
        nx.DiGraph([("a", "y"), ("b", "y")]),
        {node: NUMBER for node in "aby"},
        {"y": cg.mechanisms.Additive()},
    )
    data = {"a": rare, "b": 2 * rare, "y": RANDOM.normal(size=rows)}
    with pytest.warns(UserWarning, match="ties its parents a, b"):
        scm.fit(data, nodes=["y"], progress=False)


def three_parents(rows, mechanism):
    """A number, and a category of three, cause y; noise has deviation 1."""
    random = np.random.default_rng(rows)
    data = {"a": random.normal(size=rows), "town": np.arange(rows) % 3}
    data["y"] = data["a"] + data["town"] + random.normal(size=rows)
    variables = {"a": NUMBER, "town": cg.Categorical(3), "y": NUMBER}
    scm = cg.SCM(nx.DiGraph([("a", "y"), ("town", "y")]), variables, {"y": mechanism})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scm.fit(data, nodes=["y"], progress=False)
    columns = np.column_stack([data["a"], np.eye(3)[data["town"]]])
    residual = data["y"] - columns @ np.linalg.lstsq(columns, data["y"], rcond=None)[0]
    return scm, residual, [str(each.message) for each in caught]


@pytest.mark.parametrize("noise", ["normal", "empirical"])
def test_a_fit_through_all_rows_leaves_no_noise_and_says_so(noise):
    """Four coefficients, four rows: the answer of a population, 1 +- 1, was told as 1.3 +- 0 in silence."""
    scm, residual, told = three_parents(4, cg.mechanisms.Additive(noise=noise))
    assert np.abs(residual).max() < 1e-12
    assert scm.do({"a": 0.0, "town": 1}).sample(100, seed=0)["y"].std() < 1e-9
    assert len(told) == 1 and "Node 'y': a linear function of its parents goes through all 4 rows" in told[0]
    assert "Give at least 8 rows" in told[0] and scm.fit_report.advice == [told[0].replace("Node 'y'", "y")]


@pytest.mark.parametrize(("rows", "share"), [(5, "80%"), (7, "57%"), (8, None), (40, None)])
@pytest.mark.parametrize("noise", ["normal", "empirical"])
def test_what_few_rows_take_in_of_the_noise_is_told(rows, share, noise):
    """Four coefficients: normal noise makes up for them, residuals are what they are."""
    scm, residual, told = three_parents(rows, cg.mechanisms.Additive(noise=noise))
    drawn = scm.do({"a": 0.0, "town": 1}).sample(20_000, seed=0)["y"].std().item()
    freedom = rows - 4 if noise == "normal" else rows
    assert drawn == pytest.approx(np.sqrt(np.square(residual).sum() / freedom), rel=0.02)
    assert [f"take in {share}" in each for each in told] == ([] if share is None else [True])


def test_more_parents_than_rows_are_tied_and_leave_no_noise():
    data = dict(zip("abcy", np.random.default_rng(0).normal(size=(4, 3)), strict=True))
    scm = cg.SCM(nx.DiGraph([(each, "y") for each in "abc"]), {each: NUMBER for each in data})
    with pytest.warns(UserWarning, match=r"ties its parents a, b, c.*Also, a linear function.*all 3 rows"):
        scm.fit(data, nodes=["y"], progress=False)


@pytest.mark.parametrize(
    ("each", "options", "taken"),
    [(3, {}, 0.25), (6, {}, 1 / 7), (3, {"smoothing": 0}, 0), (3, {"logits": "linear"}, None)],
)
def test_what_smoothing_takes_of_an_effect_is_told(each, options, taken):
    """Of 30 regions and a drug, with so many rows each, a third of whom recover and two thirds."""
    region, drug, place = np.indices((30, 2, each)).reshape(3, -1)
    rows = {"region": region, "drug": drug, "well": (place < (1 + drug) * each // 3).astype(int)}
    variables = {"region": cg.Categorical(30), "drug": cg.Categorical(2), "well": cg.Categorical(2)}
    graph = nx.DiGraph([("region", "well"), ("drug", "well")])
    scm = cg.SCM(graph, variables, {"well": cg.mechanisms.Categorical(**options)})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scm.fit(rows, progress=False)
    told = [str(one.message) for one in caught]
    assert ["smoothing takes 25% of their effects" in one for one in told] == (
        [True] if taken == 0.25 else []
    )
    if taken is not None:
        question = {"do": {"drug": 1}, "versus": {"drug": 0}, "statistic": lambda well: well == 1}
        effect = scm.effect("well", **question, n=20_000, seed=0)
        assert effect.value == pytest.approx((1 - taken) / 3, abs=4 * effect.standard_error)


def wide(kind, training=None):
    """dose -> level as ``kind`` says, level = 2 dose + u or a picture of it."""
    variables = {"categorical": cg.Categorical(2), "diffusion": cg.Image(1, 4, 4)}
    spec = cg.mechanisms.parse_mechanism({"kind": kind, "training": training})
    edges = [] if kind == "empirical" else [("dose", "level")]
    graph = nx.DiGraph(edges)
    graph.add_nodes_from(["dose", "level"])
    nodes = {"dose": cg.Continuous(), "level": variables.get(kind, cg.Continuous())}
    return cg.SCM(graph, nodes, {"dose": cg.mechanisms.Additive(), "level": spec})


@pytest.mark.parametrize("kind", ["additive", "auto", "flow", "categorical", "empirical", "diffusion"])
def test_without_training_random_weights_are_no_model(kind):
    level = {"categorical": DOSE > 1.5, "diffusion": np.full((200, 1, 4, 4), 0.5)}.get(kind, 2 * DOSE)
    scm = wide(kind)
    with pytest.raises(MechanismError, match="node 'level': its `training` is null.*Leave `training` out"):
        scm.fit({"dose": DOSE, "level": level}, progress=False)
    assert not any(mechanism.fitted for mechanism in scm.mechanisms.values())
    with pytest.raises(cg.CausalgenError, match="not been fitted"):
        scm.sample(3)


def test_without_training_the_weights_of_a_fitted_node_stay():
    scm = wide("additive", {}).fit({"dose": DOSE, "level": 2 * DOSE}, progress=False)
    frozen = scm.with_options("level", training=None)
    frozen.fit({"dose": 3 * DOSE, "level": -7 * DOSE}, progress=False)
    answer = frozen.counterfactual({"dose": 1.0, "level": 2.5}, do={"dose": 2.0}, seed=0)
    assert answer["level"].item() == pytest.approx(4.5)  # level = 2 dose + .5, as before
    assert frozen.sample(500, seed=0)["dose"].mean().item() == pytest.approx(3 * DOSE.mean(), rel=0.05)
