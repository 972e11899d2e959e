"""Rows in which an experiment set a node: it is fitted to the others, and its children to all."""

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import causalgen as cg
from causalgen.cli import main as cli
from causalgen.data.reading import read_data
from graphs.errors import (
    DataError,
    EvidenceError,
    ExtrapolationWarning,
    PartialEvidenceError,
    UnknownNameError,
)

EDGES = [("need", "dose"), ("need", "pain"), ("dose", "pain")]
NAMES = ("need", "dose", "pain")


def trial(n, seed=0):
    """need -> dose -> pain <- need; in two rows of five the dose is drawn anew, whatever the need."""
    random = np.random.default_rng(seed)
    need, was = random.normal(size=n), random.random(n) < 0.4
    by_itself = 0.8 * need + 0.6 * random.normal(size=n)
    dose = np.where(was, random.uniform(-6, 6, n), by_itself)
    pain = need - 1.5 * dose + random.normal(size=n)
    return pd.DataFrame({"need": need, "dose": dose, "pain": pain, "trial": was})


ROWS = trial(2000)


def model(mechanism=None):
    mechanism = mechanism or cg.mechanisms.Additive()
    return cg.SCM(nx.DiGraph(EDGES), dict.fromkeys(NAMES, cg.Continuous()), dict.fromkeys(NAMES, mechanism))


def fitted(data, mechanism=None, **options):
    return model(mechanism).fit(data, progress=False, **options)


def weights(scm, node):
    state, of_rows = scm.mechanisms[node].state_dict(), ("seen_range", "experiments")
    return {name: each for name, each in state.items() if name not in of_rows}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "mechanism",
    [
        None,
        cg.mechanisms.Flow(training={"epochs": 2}),
        cg.mechanisms.Auto(training={"epochs": 2}),
        cg.mechanisms.Empirical(),
    ],
    ids=["additive", "flow", "auto", "empirical"],
)
def test_each_mechanism_is_fitted_to_the_rows_that_tell_of_it(mechanism):
    """As to a table of these rows alone, bit for bit."""
    rows = ROWS.head(300)
    if isinstance(mechanism, cg.mechanisms.Empirical):  # of a root
        mechanisms = {"dose": mechanism, "pain": cg.mechanisms.Additive()}
        scm = cg.SCM(nx.DiGraph([("dose", "pain")]), dict.fromkeys(NAMES[1:], cg.Continuous()), mechanisms)
        marked = scm.fit(cg.Rows(rows, intervened={"dose": "trial"}), progress=False)
        alone = rows["dose"][~rows["trial"]].to_numpy()
        assert set(marked.sample(500, seed=0)["dose"].tolist()) <= set(alone.tolist())
        return
    marked = fitted(cg.Rows(rows, intervened={"dose": "trial"}), mechanism)
    by_itself, every = fitted(rows[~rows["trial"]].reset_index(drop=True), mechanism), fitted(rows, mechanism)
    assert same(weights(marked, "dose"), weights(by_itself, "dose"))
    for node in ("need", "pain"):
        assert same(weights(marked, node), weights(every, node))
    assert marked.mechanisms["need"].experiments is None is every.mechanisms["dose"].experiments
    told = {node: marked.mechanisms[node].experiments.tolist() for node in ("dose", "pain")}
    assert told == {"dose": [True, False], "pain": [False, False, True]}
    assert not same(weights(marked, "dose"), weights(every, "dose"))
    assert marked.fit_report["dose"].intervened == rows["trial"].sum()
    assert marked.fit_report["pain"].intervened == marked.fit_report["dose"].dropped == 0
    assert f"{rows['trial'].sum()} left out (set by an experiment)" in str(marked.fit_report["dose"])


def test_the_true_mechanisms_are_found():
    """By least squares of numpy, and near the truth."""
    scm = fitted(cg.Rows(ROWS, intervened={"dose": ROWS["trial"]}))
    alone = ROWS[~ROWS["trial"]]
    slope = np.polyfit(alone["need"], alone["dose"], 1)[0]
    assert scm.mechanisms["dose"].function.weight.item() == pytest.approx(slope, rel=1e-6)
    assert slope == pytest.approx(0.8, abs=0.05)
    columns = np.column_stack([ROWS["need"], ROWS["dose"], np.ones(len(ROWS))])
    found = np.linalg.lstsq(columns, ROWS["pain"], rcond=None)[0]
    assert scm.mechanisms["pain"].function.weight.flatten().tolist() == pytest.approx(found[:2], rel=1e-6)


def test_categories_too():
    random = np.random.default_rng(1)
    x, was = random.integers(0, 2, 4000), random.random(4000) < 0.5
    y = np.where(was, random.integers(0, 2, 4000), random.random(4000) < 0.2 + 0.6 * x).astype(int)
    scm = cg.SCM(nx.DiGraph([("x", "y")]), {"x": cg.Categorical(2), "y": cg.Categorical(2)})
    scm.fit(cg.Rows({"x": x, "y": y}, intervened={"y": was}), progress=False)
    drawn = scm.sample(20_000, do={"x": 1}, seed=0)["y"].double().mean().item()
    assert drawn == pytest.approx(y[(x == 1) & ~was].mean(), abs=0.02)


def test_marks_of_all_kinds_say_the_same(tmp_path):
    was = ROWS["trial"]
    ROWS.to_csv(tmp_path / "rows.csv", index=False)
    ROWS.assign(trial=was.astype(int)).to_csv(tmp_path / "numbers.csv", index=False)
    ROWS.to_parquet(tmp_path / "rows.parquet")
    variables = dict.fromkeys(NAMES, cg.Continuous())
    for source, mark in [
        (ROWS, "trial"),
        (ROWS, was),
        (ROWS, was.to_numpy()),
        (ROWS, was.astype(float).tolist()),
        (dict(ROWS), was.astype("boolean")),
        (tmp_path / "rows.csv", "trial"),
        (tmp_path / "numbers.csv", "trial"),
        (tmp_path / "rows.parquet", "trial"),
    ]:
        table = read_data(cg.Rows(source, intervened={"dose": mark}), variables, experiments=True)
        assert table.intervened["dose"].tolist() == was.tolist()


def test_what_was_set_has_been_seen():
    """No extrapolation of the children; of a child that was set itself, its parents' values do not count."""
    scm = fitted(cg.Rows(ROWS, intervened={"dose": "trial"}))
    scm.sample(5, do={"dose": 5.9}, seed=0)  # warnings are errors
    scm = fitted(cg.Rows(ROWS, intervened={"dose": "trial", "pain": ROWS["dose"].abs() > 2}))
    with pytest.warns(ExtrapolationWarning, match="'dose'"):
        scm.sample(5, do={"dose": 5.9}, seed=0)
    scm.sample(5, do={"dose": 1.9}, seed=0)


def test_gaps_and_experiments_are_counted_apart():
    rows = ROWS.head(100).assign(need=[np.nan] * 10 + ROWS["need"][10:100].tolist())
    report = fitted(cg.Rows(rows, intervened={"dose": "trial"}), missing="drop").fit_report["dose"]
    assert (report.dropped, report.intervened) == (10, rows["trial"][10:].sum())
    assert report.rows == (~rows["trial"][10:]).sum()


def test_a_check_leaves_them_out():
    data = cg.Rows(ROWS, intervened={"dose": "trial"})
    scm = fitted(data)
    report = scm.check(data, seed=0)
    assert report.ok
    assert report.intervened["dose"] == report.to_dict()["intervened"]["dose"]
    assert "an experiment set 'dose' in" in report.verdict
    assert not fitted(ROWS).check(ROWS, seed=0).ok
    every = scm.check(cg.Rows(ROWS, intervened={"dose": np.ones(len(ROWS))}), seed=0)
    assert every.fits["dose"].measure == "none"
    assert "all but 0 rows" in every.skipped["dose"]


def test_false_alarms_are_as_rare_as_without():
    """Of checks of the true model."""
    values = {"need": "u", "dose": "0.8*need + 0.6*u", "pain": "need - 1.5*dose + u"}
    equations = {
        name: cg.mechanisms.Equation(value=value, noise={"u": {"normal": [0, 1]}})
        for name, value in values.items()
    }
    scm = cg.SCM(nx.DiGraph(EDGES), dict.fromkeys(NAMES, cg.Continuous()), equations)
    found = 0
    for seed in range(20):
        rows = trial(150, seed=100 + seed)
        found += not scm.check(cg.Rows(rows, intervened={"dose": "trial"}), seed=seed, level=0.05).ok
    assert found <= 4  # of 20 at 5 %: more in 3 of 1,000


def test_refits_leave_them_out(tmp_path):
    """The total effect of the need passes through the dose's own mechanism."""
    data = cg.Rows(ROWS, intervened={"dose": "trial"})
    scm = fitted(data)
    asked = {"do": {"need": 1.0}, "versus": {"need": 0.0}, "n": 200, "seed": 0, "progress": False}
    found = scm.effect("pain", **asked, refits=40, data=data)
    alone = ROWS[~ROWS["trial"]]
    slope, error = np.polyfit(alone["need"], alone["dose"], 1, cov=True)
    # pain = (1 - 1.5 slope) need: the slope's error is nearly all of it
    assert found.value == pytest.approx(1 - 1.5 * slope[0], abs=0.05)
    assert found.standard_error == pytest.approx(np.hypot(1.5 * error[0, 0] ** 0.5, 0.025), rel=0.4)
    saved = cg.SCM.from_pretrained(scm.save_pretrained(tmp_path / "model"))
    for each in (scm, saved, saved.with_options("pain", training={"validation": 0.1})):
        with pytest.raises(EvidenceError, match="an experiment set 'dose', and these data do not say which"):
            each.effect("pain", **asked, refits=2, data=ROWS)
    scm.fit(ROWS, nodes=["dose"], seed=0, progress=False)  # to all of them
    assert scm.effect("pain", **asked, refits=2, data=ROWS).refits == 2


def test_a_row_that_an_experiment_set_is_asked_of_the_model_under_it():
    """Its dose tells nothing of the noise of doses, and its pain as much as any other of that of pains."""
    scm = fitted(cg.Rows(ROWS, intervened={"dose": "trial"}))
    row = ROWS[ROWS["trial"]].head(1)
    dose = row["dose"].item()
    cf = scm.do({"dose": dose}).counterfactual({name: [row[name].item()] for name in NAMES}, do={"need": 0.0})
    slope = scm.mechanisms["pain"].function.weight.flatten()[0].item()
    assert cf["dose"].item() == dose
    assert cf["pain"].item() == pytest.approx(row["pain"].item() - slope * row["need"].item())


@pytest.mark.parametrize(
    ("rows", "error", "match"),
    [
        (
            {"intervened": {"dosis": "trial"}},
            UnknownNameError,
            "Unknown node 'dosis' in Rows. Did you mean 'dose'",
        ),
        (
            {"columns": {"dosis": "trial"}},
            UnknownNameError,
            "Unknown node 'dosis' in Rows. Did you mean 'dose'",
        ),
        (
            {"intervened": {"dose": "trail"}},
            DataError,
            "no column 'trail' of the data frame. Did you mean 'trial'",
        ),
        ({"intervened": {"dose": [True, False]}}, DataError, "a label for each of the 2,000 rows, got shape"),
        (
            {"intervened": {"dose": "dose"}},
            DataError,
            "Column 'dose' of the data frame, row 0 is .*: expected whether 'dose' was set in it",
        ),
        (
            {"intervened": {"dose": [True] * 1999 + [None]}},
            DataError,
            r"intervened\['dose'\], row 1999 is None",
        ),
        (
            {"intervened": {"dose": np.ones(2000)}},
            DataError,
            "in all of the 2,000 rows .* an experiment set it",
        ),
        ({"intervened": {"dose": ROWS["trial"].sample(frac=1, random_state=0)}}, DataError, "index"),
    ],
)
def test_what_cannot_be_meant_is_refused(rows, error, match):
    scm = model()
    with pytest.raises(error, match=match):
        scm.fit(cg.Rows(ROWS, **rows), progress=False)
    assert scm.fit_report is None


def test_what_is_no_mapping_is_refused():
    with pytest.raises(DataError, match="intervened is a mapping of nodes"):
        cg.Rows(ROWS, intervened=["dose"])  # pyright: ignore[reportArgumentType]


def test_who_takes_every_value_as_its_own_refuses_them():
    data = cg.Rows(ROWS, intervened={"dose": "trial"})
    scm = fitted(data)
    with pytest.raises(DataError, match="Rows in which an experiment set 'dose' will not do here"):
        cg.evaluate(scm, data)
    with pytest.raises(cg.CausalgenError):
        scm.counterfactual(data, do={"dose": 1})
    with pytest.raises(UnknownNameError, match="Unknown node 'dos' in Rows"):
        cg.evaluate(scm, cg.Rows(ROWS, columns={"dos": "trial"}))


def told(*arguments):
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output or result.exception
    return result.output


def test_on_the_command_line(tmp_path):
    model().to_yaml(tmp_path / "scm.yaml")
    table = tmp_path / "rows.csv"
    ROWS.rename(columns={"pain": "Pain (0-10)"}).to_csv(table, index=False)
    words = ["--data", table, "--rename", "Pain (0-10)=pain", "--intervened", "trial=dose"]
    said = told("fit", tmp_path / "scm.yaml", *words, "--out", tmp_path / "model")
    assert "left out (set by an experiment)" in said
    assert "mean no node" not in said
    data = cg.Rows(table, {"pain": "Pain (0-10)"}, {"dose": "trial"})
    loaded = cg.SCM.from_pretrained(tmp_path / "model")
    assert same(weights(loaded, "dose"), weights(fitted(data), "dose"))
    assert "--intervened trial=dose" in (tmp_path / "model" / "README.md").read_text()
    checked = told("check", tmp_path / "model", *words)
    assert checked.startswith("Checked 3 nodes on 1,000 rows (an experiment set")
    asked = ["effect", tmp_path / "model", "pain", "--do", "need=1", "-n", 100]
    effect = told(*asked, "--refits", 3, *words)
    assert "3 refits" in effect
    for wrong, match in [
        (
            ["effect", tmp_path / "model", "pain", "--do", "need=1", "--intervened", "trial=dose"],
            "are for --refits",
        ),
        (
            [*asked, "--refits", 3, *words[:4], "--intervened", "trial"],
            "expected COLUMN=node, as in 'randomised=dose'",
        ),
        (["check", tmp_path / "model", *words[:4], "--intervened", "trial=dosis"], "Did you mean 'dose'"),
    ]:
        result = CliRunner().invoke(cli.app, [str(each) for each in wrong])
        assert match in str(result.exception)


@pytest.mark.parametrize("order", [NAMES, NAMES[::-1]])
def test_what_experiments_changed_is_kept_of_nodes_fitted_alone_too(order):
    """The pain's parent follows from the need, which an experiment set, though its column is not read."""
    variables = dict.fromkeys(order, cg.Continuous())
    chain = nx.DiGraph([("need", "dose"), ("dose", "pain")])
    scm = cg.SCM(chain, variables, dict.fromkeys(NAMES, cg.mechanisms.Additive()))
    data = cg.Rows(ROWS, intervened={"need": "trial"})
    told = {"need": [True], "dose": [False, True], "pain": [False, True]}
    for nodes in (None, ["pain"]):
        scm.fit(data, nodes=nodes, seed=0, progress=False)
        assert {node: scm.mechanisms[node].experiments.tolist() for node in NAMES} == told
    scm.fit(ROWS, nodes=["pain"], seed=0, progress=False)
    assert scm.mechanisms["pain"].experiments is None


@pytest.mark.parametrize("assigned", [True, False], ids=["assigned", "by itself too"])
def test_a_scan_tells_no_missing_cause_whose_law_an_experiment_changed(assigned, tmp_path):
    """Its predictor learned p(dose | scan) of all rows, not of those where nobody set the dose."""
    rows = {name: ROWS[name][:20].to_numpy() for name in ("need", "dose")}
    rows["scan"] = np.random.default_rng(0).random((20, 1, 4, 4), dtype=np.float32)
    small = {"channels": [8], "unshuffle": 1}
    numbers = dict.fromkeys(("need", "dose"), cg.Continuous())
    scan = cg.mechanisms.Diffusion(backbone=small, predictor=small, training={"epochs": 1})
    edges = [("need", "scan"), ("dose", "scan")] + ([] if assigned else [("need", "dose")])
    mechanisms = {"need": cg.mechanisms.Additive(), "dose": cg.mechanisms.Additive(), "scan": scan}
    scm = cg.SCM(nx.DiGraph(edges), {**numbers, "scan": cg.Image(1, 4, 4)}, mechanisms)
    known, marked = scm.fit(rows, progress=False), cg.Rows(rows, intervened={"dose": ROWS["trial"][:20]})
    known.abduct({"scan": rows["scan"][0]}, seed=0, particles=64).posterior("dose")
    model = cg.SCM.from_pretrained(scm.fit(marked, progress=False).save_pretrained(tmp_path / "model"))
    without = {"scan": rows["scan"][0], "need": 0.0}
    with pytest.raises(PartialEvidenceError, match="an experiment set 'dose' or what causes it"):
        model.abduct(without, seed=0, particles=64).posterior("dose")
    beside = model.abduct({"scan": rows["scan"][0], "dose": 0.0}, seed=0, particles=64)
    if assigned:  # the dose is known, and what chance set it by is the same for every need
        assert beside.posterior("need").values.shape == (64, 1)
    else:
        with pytest.raises(PartialEvidenceError, match="Give the missing parents"):
            beside.posterior("need")
    model.fit(rows, progress=False).abduct(without, seed=0, particles=64).posterior("dose")
