"""The default mechanism is chosen by held-out likelihood, said in the report, and saved as what it is."""

from typing import Literal

import networkx as nx
import numpy as np
import pytest
import torch
from torch import nn

import causalgen as cg
from causalgen.data.table import Table
from causalgen.fitting.choosing import choose_mechanism
from causalgen.fitting.fit import fit_mechanism
from graphs.errors import MechanismError, NotFittedError
from mechanisms.encoders import Encoder
from mechanisms.equation.mechanism import Equation
from mechanisms.tables.additive import Additive
from mechanisms.tables.auto import Auto
from mechanisms.tables.flow import Flow

RANDOM = np.random.default_rng(0)
X, U = RANDOM.normal(size=(2, 600))


def model(rows, mechanism=None, **bounds):
    variables = {"x": cg.Continuous(), "y": cg.Continuous(**bounds)}
    chosen = {} if mechanism is None else {"y": mechanism}
    scm = cg.SCM(nx.DiGraph([("x", "y")]), variables, {"x": cg.mechanisms.Additive()} | chosen)
    return scm.fit(rows, progress=False)


@pytest.fixture(scope="module")
def linear():
    return model({"x": X, "y": 2 * X + U})


@pytest.mark.parametrize(
    ("y", "kind"),
    [
        (None, Additive()),
        (2 * X + np.exp(U), "spline"),
        (X + (0.2 + np.abs(X)) * U, "flow"),
    ],
    ids=["linear", "skewed", "heteroscedastic"],
)
def test_the_simplest_form_that_the_rows_allow(linear, y, kind):
    scm = linear if y is None else model({"x": X, "y": y})
    spec, report = scm.mechanisms["y"].spec, scm.fit_report["y"]
    assert kind in (spec, spec.kind, getattr(spec, "noise", None))
    assert len(report.choice["candidates"]) == 5 and report.choice["chosen"]["kind"] == spec.kind
    assert f"chosen: {report.choice['label']}" in str(report) and "held-out log-likelihood" in str(report)


def test_a_small_linear_table_is_answered_by_least_squares():
    """The flow missed an effect of 2 by .5 to .75 here."""
    x, y = X[:100], 2 * X[:100] + U[:100]
    scm = model({"x": x, "y": y})
    slope = np.polyfit(x, y, 1)[0]
    shifted = scm.counterfactual({"x": x, "y": y}, do={"x": cg.Shift(1)})["y"]
    np.testing.assert_allclose(np.asarray(shifted) - y, slope, rtol=1e-10)


def test_bounds_are_kept():
    y = 1 / (1 + np.exp(-X - 0.5 * U))
    scm = model({"x": X, "y": y}, lower=0, upper=1)
    assert scm.mechanisms["y"].spec.kind == "flow"
    assert "outside the bounds" in str(scm.fit_report["y"])
    assert scm.sample(1000, seed=0)["y"].max() < 1


def test_before_it_is_fitted_it_is_auto(tmp_path):
    scm = cg.SCM(nx.DiGraph([("x", "y")]), {node: cg.Continuous() for node in "xy"})
    assert "auto(x)  (not fitted)" in scm.describe()
    assert scm.to_yaml().count("kind: auto") == 2
    with pytest.raises(NotFittedError):
        scm.sample(3)
    again = cg.SCM.from_yaml(_written(tmp_path, scm.to_yaml()))
    assert again.mechanisms["y"].spec == Auto() and again.to_yaml() == scm.to_yaml()
    with pytest.raises(MechanismError, match="'auto' needs a continuous variable"):
        cg.SCM(nx.DiGraph([("x", "y")]), scm.variables | {"y": cg.Integer()}, {"y": Auto()})


def test_it_is_saved_as_what_was_chosen(linear, tmp_path):
    scm = linear
    loaded = cg.SCM.from_pretrained(scm.save_pretrained(tmp_path / "model"))
    assert loaded.mechanisms["y"].spec == Additive()
    rows = {"x": X[:5], "y": U[:5]}
    np.testing.assert_array_equal(
        *(each.counterfactual(rows, do={"x": 0.0}, seed=0)["y"] for each in (scm, loaded))
    )


def test_resuming_loads_what_was_chosen(tmp_path):
    table = Table({"x": X, "y": 2 * X + U})
    auto = Auto(training={"epochs": 5}).bind(cg.Continuous(), {"x": cg.Continuous()})
    first, fitted = choose_mechanism("y", auto, table, seed=0, run_dir=tmp_path, progress=False)
    second, loaded = choose_mechanism("y", auto, table, seed=0, run_dir=tmp_path, resume=True, progress=False)
    assert first == second and fitted.spec == loaded.spec and loaded.fitted
    assert all((fitted.state_dict()[key] == value).all() for key, value in loaded.state_dict().items())


class Means(Encoder, frozen=True):
    """Of Python alone: no entry point names it."""

    kind: Literal["means"] = "means"

    @property
    def features(self):
        return 1

    def check_size(self, height, width):
        return

    def build(self, image_channels):
        return Mean()


class Mean(nn.Module):
    def forward(self, x, sigma):
        return x.mean((1, 2, 3))[:, None]


def test_an_encoder_of_python_alone_is_chosen_and_resumed(tmp_path):
    """It ended in an error of pydantic's once all was fitted."""
    table = Table({"p": np.arange(12 * 16, dtype=np.uint8).reshape(12, 1, 4, 4), "y": X[:12]})
    found = []
    for resume in (False, True):
        spec = Auto(encoder=Means(), training={"epochs": 1})
        mechanism = spec.bind(cg.Continuous(), {"p": cg.Image(1, 4, 4)})
        options = {"seed": 0, "run_dir": tmp_path, "resume": resume, "progress": False}
        found.append(choose_mechanism("y", mechanism, table, **options))
    (report, chosen), (again, loaded) = found
    assert "means" in report.choice["label"] and again == report
    assert loaded.spec == chosen.spec and loaded.spec.encoder == Means()
    assert all(map(torch.equal, chosen.state_dict().values(), loaded.state_dict().values()))


@pytest.mark.parametrize(("doubtful", "rows"), [(np.inf, 150), (-1.0, 600)])
def test_of_many_rows_a_quarter_is_held_out_and_all_in_doubt(monkeypatch, doubtful, rows):
    monkeypatch.setattr("causalgen.fitting.choosing._DOUBTFUL", doubtful)
    auto = Auto(training={"epochs": 3}).bind(cg.Continuous(), {"x": cg.Continuous()})
    report, _ = choose_mechanism("y", auto, Table({"x": X, "y": 2 * X + U}), seed=0, progress=False)
    assert {each["rows"] for each in report.choice["candidates"].values()} == {rows}


def test_an_outlier_does_not_hide_what_all_other_rows_tell(monkeypatch):
    """Normal noise makes Cauchy rows 12 less likely each, which one row alone had made uncertain."""
    cauchy = Equation(value="u", noise={"u": {"cauchy": [0, 1]}})
    monkeypatch.setattr(Auto, "candidates", lambda self, variable, parents: (Additive(), cauchy))
    y = np.random.default_rng(1).standard_cauchy(300)
    report, chosen = choose_mechanism("y", Auto().bind(cg.Continuous(), {}), Table({"y": y}), seed=0)
    normal, true = (each["log_likelihood"] for each in report.choice["candidates"].values())
    assert true > normal + 5 and chosen.spec.kind == "equation"


def test_a_candidate_whose_training_fails_is_left_out(monkeypatch):
    def fit(name, mechanism, *args, **options):
        if mechanism.spec.kind == "flow":
            raise cg.MechanismError("Fitting node 'y': its loss became nan.")
        return fit_mechanism(name, mechanism, *args, **options)

    monkeypatch.setattr("causalgen.fitting.choosing.fit_mechanism", fit)
    auto = Auto(training={"epochs": 2}).bind(cg.Continuous(), {"x": cg.Continuous()})
    report, chosen = choose_mechanism("y", auto, Table({"x": X, "y": 2 * X + U}), seed=0, progress=False)
    assert chosen.spec.kind == "additive"
    assert report.choice["candidates"]["flow"] == {"excluded": "Fitting node 'y': its loss became nan"}
    assert "its loss became nan" in str(report)


def test_an_outlier_alone_decides_nothing(monkeypatch):
    """One row far off makes the wider noise likelier on average, and in no other row."""
    wide, narrow = (Equation(value="u", noise={"u": {"normal": [0, scale]}}) for scale in (100, 1))
    monkeypatch.setattr(Auto, "candidates", lambda self, variable, parents: (wide, narrow))
    y = np.append(np.random.default_rng(1).uniform(-1, 1, 99), 60.0)
    report, chosen = choose_mechanism("y", Auto().bind(cg.Continuous(), {}), Table({"y": y}), seed=0)
    assert chosen.spec == narrow and report.choice["reason"].endswith("where a row counts for at most 10")


def test_settings_are_those_of_every_candidate():
    number, parents = cg.Continuous(), {"x": cg.Continuous()}
    specs = Auto(training={"epochs": 3}).candidates(number, parents)
    assert {spec.training.epochs for spec in specs} == {3}
    assert specs[0].training.learning_rate == Additive().training.learning_rate
    assert Auto().candidates(number, {}) == (Additive(), Flow())
    assert Auto().candidates(number, parents)[-1] == Flow()
    assert Auto().candidates(cg.Integer(lower=0), parents) == (cg.mechanisms.Counts(), Flow())


@pytest.mark.parametrize(("law", "kind"), [("negative binomial", "counts"), ("two kinds", "flow")])
def test_a_count_is_chosen_a_mechanism_too(law, kind):
    random = np.random.default_rng(0)
    x, prone = random.normal(size=500), random.gamma(2, 0.5, 500)
    mean = np.exp(0.5 + 0.6 * x) * prone if law == "negative binomial" else random.choice([1.0, 15.0], 500)
    graph, variables = nx.DiGraph([("x", "y")]), {"x": cg.Continuous(), "y": cg.Integer(lower=0)}
    assert cg.SCM(graph, variables).mechanisms["y"].spec.kind == "auto"
    scm = cg.SCM(graph, variables, {"y": Auto(training={"epochs": 15})})
    scm.fit({"x": x, "y": random.poisson(mean)}, progress=False)
    assert scm.mechanisms["y"].spec.kind == kind
    assert f"chosen: {kind}" in str(scm.fit_report["y"])


def test_a_count_that_an_image_causes_has_nothing_to_choose_from():
    spec, scan = Auto(training={"epochs": 1}), {"scan": cg.Image(1, 4, 4)}
    assert [each.kind for each in spec.candidates(cg.Integer(lower=0), scan)] == ["flow"]
    table = Table(
        {"scan": np.random.default_rng(0).random((40, 1, 4, 4), np.float32), "y": np.arange(40.0) // 4}
    )
    report, chosen = choose_mechanism(
        "y", spec.bind(cg.Integer(lower=0), scan), table, seed=0, progress=False
    )
    assert chosen.spec.kind == "flow" and report.choice["reason"] == "the only one that can read its parents"
    with pytest.raises(cg.MechanismError, match="or an integer one with lower 0 and no upper, got integer"):
        spec.bind(cg.Integer(lower=1), {})


@pytest.mark.parametrize(("slope", "form"), [(1.5, "linear"), (0.0, "network")])
def test_the_logits_of_a_category_are_chosen_too(tmp_path, slope, form):
    """Logistic regression where it is the truth, even where a network would do; not of |x| > 1."""
    random = np.random.default_rng(0)
    x = random.normal(size=1500)
    y = random.random(1500) < 1 / (1 + np.exp(-(slope * x if slope else 4 * (np.abs(x) - 0.7))))
    scm = cg.SCM(nx.DiGraph([("x", "y")]), {"x": cg.Continuous(), "y": cg.Categorical(2)})
    scm.fit({"x": x, "y": y.astype(int)}, progress=False)
    assert scm.mechanisms["y"].spec.logits == form
    assert f"chosen: categorical(logits: {form})" in str(scm.fit_report["y"])
    scm.save_pretrained(tmp_path / "model")
    again = cg.SCM.from_pretrained(tmp_path / "model")
    drawn = [each.sample(20, seed=0)["y"].tolist() for each in (scm, again)]
    assert drawn[0] == drawn[1]
    assert again.mechanisms["y"].spec.logits == form


def test_hardly_any_rows_are_not_compared():
    scm = model({"x": X[:12], "y": X[:12] ** 2})
    assert scm.mechanisms["y"].spec == Additive()
    assert "fewer than 20 rows" in str(scm.fit_report["y"])


def _written(folder, text):
    path = folder / "scm.yaml"
    path.write_text(text)
    return path


def test_a_network_of_few_rows_is_not_said_to_go_through_them():
    random = np.random.default_rng(0)
    columns = {f"p{k}": random.normal(size=12) for k in range(12)} | {"y": random.normal(size=12)}
    graph = nx.DiGraph([(f"p{k}", "y") for k in range(12)])
    spec = cg.mechanisms.Additive(function="network", training={"epochs": 1})
    scm = cg.SCM(graph, {name: cg.Continuous() for name in columns}, {"y": spec})
    with pytest.warns(UserWarning, match="12 coefficients, which a linear function .* may be noise"):
        scm.fit(columns, seed=0, progress=False)
