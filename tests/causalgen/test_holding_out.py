"""Copies of a row are held out together, or trained on together."""

import networkx as nx
import numpy as np
import pytest
import torch

import causalgen as cg
from causalgen.data.table import Table
from causalgen.fitting.holding_out import distinct_rows, folds, split, with_copies

RANDOM = np.random.default_rng(0)
X, U = RANDOM.normal(size=(2, 60))
ROWS = {"x": X, "y": 2 * X + U, "kind": RANDOM.integers(0, 2, 60)}


def copied(times, rows=ROWS):
    return {node: np.repeat(column, times, axis=0) for node, column in rows.items()}


def test_copies_are_told():
    table = with_copies(Table(copied(10)))
    assert distinct_rows(table) == 60
    assert (table.copies == table.copies.reshape(60, 10)[:, :1].repeat(10)).all()
    some = np.concatenate([np.arange(60), np.flatnonzero(ROWS["kind"] == 0)])  # one category twice as often
    assert distinct_rows(with_copies(Table({node: each[some] for node, each in ROWS.items()}))) == 60


def test_copies_of_rows_with_images_are_told():
    """A category that is balanced by repeating its pictures: nothing but these tells its rows apart."""
    pictures = (255 * RANDOM.random((60, 3, 4, 5))).astype(np.uint8)
    for columns in (pictures, pictures.astype(np.float32) / 255):
        table = with_copies(Table(copied(10, {"kind": ROWS["kind"], "scan": columns})))
        assert (table.copies == table.copies.reshape(60, 10)[:, :1].repeat(10)).all()
        assert distinct_rows(table) == 60 and with_copies(Table({"scan": columns} | ROWS)).copies is None
    # One picture may belong to several rows.
    assert with_copies(Table(ROWS | {"scan": pictures[:1].repeat(60, 0)})).copies is None


def test_pictures_that_follow_from_their_causes_are_no_copies():
    """Whole combinations of the causes would be held out, and never be learned."""
    shape, level = (each.ravel().repeat(20) for each in np.mgrid[:10, :10])
    drawn = (20 * shape + level).astype(np.uint8)[:, None, None, None].repeat(4, 2)
    for unit in (1, 0.25):
        assert with_copies(Table({"shape": shape, "level": unit * level, "scan": drawn})).copies is None
    noisy = drawn + np.random.default_rng(0).integers(0, 50, drawn.shape).astype(np.uint8)
    table = with_copies(Table(copied(10, {"shape": shape[::20], "scan": noisy[::20]})))
    assert distinct_rows(table) == 100


@pytest.mark.parametrize(
    "rows",
    [
        ROWS,
        {"x": RANDOM.integers(0, 5, 600).astype(float), "kind": RANDOM.integers(0, 2, 600)},  # whole numbers
        {"x": RANDOM.normal(size=2000).round(1), "y": RANDOM.normal(size=2000).round(1)},  # rounded ones
        {"x": RANDOM.normal(size=2000).round(1)},
    ],
)
def test_rows_that_are_equal_by_chance_are_no_copies(rows):
    table = with_copies(Table(rows))
    assert table.copies is None and distinct_rows(table) == table.rows


def test_gaps_tell_rows_apart():
    gaps = {"y": np.arange(120) % 4 == 0}
    assert distinct_rows(with_copies(Table(copied(2), gaps))) == 60 + 30


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_no_copy_of_a_held_out_row_is_trained_on(share):
    table = with_copies(Table(copied(10)))
    held_out, training = split(table, share, seed=3)
    assert len(held_out) == 600 * share and sorted([*held_out.tolist(), *training.tolist()]) == [*range(600)]
    assert not set(table.copies[held_out]) & set(table.copies[training])
    assert table.part(["x"], training.numpy()).copies is not None


def test_a_row_that_is_most_of_them_is_trained_on():
    often = np.concatenate([np.zeros(500, int), np.arange(60)])
    table = with_copies(Table({node: column[often] for node, column in ROWS.items()}))
    held_out, _ = split(table, 0.05, seed=0)
    assert len(held_out) == 28 and 0 not in often[held_out]


def test_copies_are_in_one_fold():
    table = with_copies(Table(copied(10)))
    parts = folds(table, torch.randperm(600, generator=torch.Generator().manual_seed(0)), 4)
    assert [len(part) for part in parts] == [150] * 4
    numbers = [set(table.copies[part]) for part in parts]
    assert sum(map(len, numbers)) == 60


def test_copies_do_not_make_a_flexible_mechanism_look_good(monkeypatch):
    """Of 60 rows that are there ten times `auto` took a flow, which had learned them by heart."""
    flow = cg.mechanisms.Flow(training={"epochs": 40})
    monkeypatch.setattr(
        cg.mechanisms.Auto, "candidates", lambda self, variable, parents: (cg.mechanisms.Additive(), flow)
    )
    graph = nx.DiGraph([("x", "y")])
    scm = cg.SCM(graph, dict.fromkeys("xy", cg.Continuous()), {"x": cg.mechanisms.Empirical()})
    scm.fit({node: column for node, column in copied(10).items() if node != "kind"}, progress=False)
    assert scm.mechanisms["y"].spec.kind == "additive"


def test_rows_that_repeat_all_that_a_node_reads_are_copies_to_it(monkeypatch):
    """A clinic's size and budget in the rows of its patients: a flow had learned these by heart."""
    flow = cg.mechanisms.Flow(training={"epochs": 40})
    monkeypatch.setattr(
        cg.mechanisms.Auto, "candidates", lambda self, variable, parents: (cg.mechanisms.Additive(), flow)
    )
    rows = {node: column for node, column in copied(10).items() if node != "kind"}
    rows["own"] = rows["y"] + np.random.default_rng(1).normal(size=600)
    mechanisms = {"x": cg.mechanisms.Empirical(), "own": cg.mechanisms.Additive()}
    models = [
        cg.SCM(nx.DiGraph([("x", "y"), ("y", "own")]), dict.fromkeys(rows, cg.Continuous()), mechanisms).fit(
            rows, nodes=nodes, progress=False
        )
        for nodes in (None, ["y"])
    ]
    assert [scm.mechanisms["y"].spec.kind for scm in models] == ["additive", "additive"]
    assert (
        distinct_rows(with_copies(Table(rows), ["x", "y"])) == 60 and with_copies(Table(rows)).copies is None
    )


def test_a_refit_holds_out_whole_rows_of_its_resampling(monkeypatch):
    """Rows drawn with replacement are there several times: refits stopped by rows they had trained on."""
    seen = []
    monkeypatch.setattr(
        "causalgen.fitting.fit.split_rows",
        lambda table, share, seed: seen.append((table, *split(table, share, seed))) or seen[-1][1:],
    )
    rows = {node: ROWS[node] for node in "xy"}
    variables = dict.fromkeys(rows, cg.Continuous())
    flow = cg.mechanisms.Flow(training={"epochs": 2})
    scm = cg.SCM(nx.DiGraph([("x", "y")]), variables, {"x": cg.mechanisms.Empirical(), "y": flow})
    scm.fit(rows, progress=False)
    seen.clear()
    scm.effect("y", do={"x": 1.0}, versus={"x": 0.0}, n=10, seed=0, refits=2, data=rows, progress=False)
    trained = [each for each in seen if len(each[1])]
    assert trained
    for table, held_out, training in trained:
        assert not set(table["y"][held_out]) & set(table["y"][training])
