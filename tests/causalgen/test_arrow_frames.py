"""Frames of other libraries in, tables to other libraries out: the same rows and answers as by pandas."""

from datetime import time
from decimal import Decimal

import networkx as nx
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import causalgen as cg
from causalgen.data.reading import read_data


class Interchanged:
    """A frame that has the older protocol alone."""

    def __init__(self, frame):
        self.__dataframe__ = pa.Table.from_pandas(frame).__dataframe__


def numbers(rows=60):
    random = np.random.default_rng(0)
    x = random.normal(size=rows)
    return pd.DataFrame(
        {"x": x, "kind": random.choice(["a", "b"], rows), "v_0": x, "v_1": -x, "y": 2 * x + 1}
    )


VARIABLES = {
    "x": cg.Continuous(),
    "kind": cg.Categorical(["a", "b"]),
    "v": cg.Continuous(shape=[2]),
    "y": cg.Continuous(),
}
WAYS = {
    "polars": pl.from_pandas,
    "pyarrow": pa.Table.from_pandas,
    "interchange": Interchanged,
}


@pytest.fixture(scope="module")
def scm():
    graph = nx.DiGraph([("x", "y"), ("kind", "y")])
    graph.add_node("v")
    mechanisms = {node: cg.mechanisms.Additive() for node in "xvy"}
    return cg.SCM(graph, VARIABLES, mechanisms).fit(numbers(), seed=0, progress=False)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_frames_are_the_same_data_and_evidence(scm, way):
    theirs, ours = read_data(way(numbers()), VARIABLES), read_data(numbers(), VARIABLES)
    assert theirs.fingerprint() == ours.fingerprint()
    again = cg.SCM(scm.graph, VARIABLES, {node: scm.mechanisms[node].spec for node in VARIABLES})
    again.fit(way(numbers()), seed=0, progress=False)
    rows = numbers(5).assign(other=1)
    with pytest.warns(UserWarning, match="'other' is not used"):
        cf = again.counterfactual(way(rows), do={"x": 1.0}, seed=0)
    expected = scm.counterfactual(numbers(5), do={"x": 1.0}, seed=0)
    for node in VARIABLES:
        assert np.array_equal(np.asarray(cf[node]), np.asarray(expected[node]))
    assert again.check(way(numbers()), seed=0) == again.check(numbers(), seed=0)


def test_gaps_are_inferred_and_misspellings_refused(scm):
    rows = pl.DataFrame({"x": [1.0, None], "y": [3.0, 5.0], "kind": ["a", None]})
    given = scm.counterfactual(rows, do={"kind": "b"}, seed=0)
    expected = scm.counterfactual(
        {"x": [1.0, None], "y": [3.0, 5.0], "kind": ["a", None]}, do={"kind": "b"}, seed=0
    )
    assert np.array_equal(given["y"], expected["y"])
    with pytest.raises(cg.UnknownNameError, match="Did you mean 'kind'"):
        scm.counterfactual(rows.rename({"kind": "kinds"}), do={"x": 1.0})
    with pytest.raises(cg.DataError, match=r"no column 'v' of the data frame, nor v_0 .. v_1"):
        scm.fit(rows.drop_nulls(), progress=False)


def test_tables_go_out_with_their_samples(scm):
    cf = scm.counterfactual(pl.DataFrame(numbers(4)), do={"x": 1.0}, num_samples=3, seed=0)
    frame = cf.to_frame()
    for table in (pl.from_dataframe(cf), pl.from_arrow(pa.table(cf))):
        assert table.columns == [*frame.columns, "sample", "row"]
        for name, column in frame.reset_index().items():
            assert table[name].to_list() == column.to_list()
    effect = scm.effect("y", do={"x": 1.0}, versus={"x": 0.0}, n=50, seed=0)
    assert pl.from_dataframe(effect).to_dicts() == effect.to_frame().to_dict("records")


def test_the_index_of_some_rows_of_a_frame_goes_out_with_them(scm):
    """That of rows 10 to 12 was left out, as those from 0 on are, which it only counts."""
    rows = numbers()
    for name, column in ((None, "__index_level_0__"), ("patient", "patient")):
        some = rows.iloc[10:13].rename_axis(name)
        table = pa.table(scm.counterfactual(some, do={"x": 1.0}, seed=0))
        assert table[column].to_pylist() == [10, 11, 12]
    assert "__index_level_0__" not in pa.table(scm.counterfactual(rows.head(3), do={}, seed=0)).column_names


def test_a_one_draw_table_comes_back_as_evidence(scm):
    drawn = scm.sample(6, seed=1)
    table = pl.from_dataframe(drawn)
    assert table.columns == list(drawn.to_frame().columns)
    again = scm.counterfactual(table, do={"y": cg.Shift(0)}, seed=0)
    for node in VARIABLES:
        assert np.array_equal(np.asarray(again[node]), np.asarray(drawn[node]))


def test_columns_that_arrow_does_not_have_are_refused(scm):
    with pytest.raises(cg.DataError, match="columns of the polars DataFrame"):
        read_data(pl.DataFrame({"x": pl.Series([1], dtype=pl.Int128)}), {"x": cg.Continuous()})
    graph = nx.DiGraph()
    graph.add_node("m")
    mixed = cg.SCM(graph, {"m": cg.Categorical(["a", 1])}, {"m": cg.mechanisms.Categorical()})
    drawn = mixed.fit({"m": ["a", 1] * 20}, progress=False).sample(20, seed=0)
    with pytest.raises(cg.DataError, match=r"Use to_frame\(\)"):
        pl.from_dataframe(drawn)


LABELS = cg.Categorical(["a", "b"])


@pytest.mark.parametrize(
    ("column", "variable", "rows"),
    [
        (pa.array(["b", None, "a"]).dictionary_encode(), LABELS, [1, None, 0]),
        (pa.chunked_array([["b"], [None, "a"]]).dictionary_encode(), LABELS, [1, None, 0]),
        (pa.array([2, None, 0]).dictionary_encode(), cg.Categorical(3), [2, None, 0]),
        (pa.array([2**53 + 1, None, 7]), cg.Categorical([7, 2**53, 2**53 + 1]), [2, None, 0]),
        (pl.Series(["b", None, "a"], dtype=pl.Categorical), LABELS, [1, None, 0]),
        (pl.Series([[1.0, 2.0], None, [3.0, 4.0]]), cg.Continuous(shape=[2]), [[1, 2], None, [3, 4]]),
        (pa.array([[1.0, 2.0], None, [3.0, 4.0]]), cg.Continuous(shape=[2]), [[1, 2], None, [3, 4]]),
    ],
)
def test_a_null_of_a_column_is_a_gap(column, variable, rows):
    """The null of a dictionary was its last entry, "a"; that of a column of vectors was refused."""
    table = read_data({"x": column}, {"x": variable}, gaps=True)
    assert table.gaps["x"].tolist() == [False, True, False]
    assert table["x"][[0, 2]].tolist() == rows[::2]
    with pytest.raises(cg.DataError, match="missing in 1 of the 3 rows"):
        read_data({"x": column}, {"x": variable})


def test_whole_numbers_that_float64_does_not_hold_are_refused():
    big = 2**53 + 1
    objects = np.array([np.int64(big), None], dtype=object)
    decimals = [Decimal(big), Decimal(1)]
    for column in (pa.array([big, None]), objects, decimals, pl.Series([big, None])):
        with pytest.raises(cg.DataError, match=f"'x': row 0 is {big}, a whole number beyond 2"):
            read_data({"x": column}, {"x": cg.Continuous()}, gaps=True)
    exact = [Decimal("0.1"), Decimal(2**60), Decimal("1E+22")]
    assert read_data({"x": exact}, {"x": cg.Continuous()})["x"].tolist() == [0.1, 2.0**60, 1e22]


@pytest.mark.parametrize("way", [pl.from_pandas, pa.Table.from_pandas])
def test_durations_are_told_what_becomes_of_durations(way):
    frame = way(pd.DataFrame({"x": pd.to_timedelta([1, 2], unit="h")}))
    with pytest.raises(cg.DataError, match=r"got durations \(duration\[.s\]\). Divide by a unit"):
        read_data(frame, {"x": cg.Continuous()})
    with pytest.raises(cg.DataError, match=r"got dates or times \(time64\[.s\]\). Count from midnight"):
        read_data(way(pd.DataFrame({"x": [time(8, 30)]})), {"x": cg.Continuous()})
