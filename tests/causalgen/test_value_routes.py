"""One value means the same by whichever route it comes, or is refused by every route that can say it.

Routes of typed values: Python, lists, data frames (pandas, polars), Parquet, JSON, training data and ``do``.
Routes of text: CSV, ``--set``, ``--do`` and strings in ``do``; there a number is its digits, and a truth
value is a word that only two numbered categories and labels know.
"""

import datetime
import json
from decimal import Decimal
from fractions import Fraction

import networkx as nx
import numpy as np
import pandas as pd
import PIL.Image
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import causalgen as cg
from causalgen.cli.assignments import parse_assignments
from causalgen.cli.given import read_evidence
from causalgen.counterfactuals.evidence import encode_partial
from causalgen.data.parquet_rows import ParquetRows
from causalgen.data.reading import read_data

VARIABLES = {
    "number": cg.Continuous(),
    "count": cg.Integer(),
    "two": cg.Categorical(2),
    "five": cg.Categorical(5),
    "yesno": cg.Categorical(["yes", "no"]),
    "ranks": cg.Categorical(["1", "2", "3"]),
    "tens": cg.Categorical([10, 1, 0]),
    "truth": cg.Categorical(["True", "False"]),
    "mixed": cg.Categorical(["a", 1]),
    "halves": cg.Categorical(["0.5", "1.5"]),
}
REFUSED, GAP = "refused", "gap"
ONE = {"number": 1.0, "count": 1, "two": 1, "five": 1, "ranks": "1", "tens": 1, "mixed": 1}
ZERO = {"number": 0.0, "count": 0, "two": 0, "five": 0, "tens": 0}
HALF = {"number": 0.5, "halves": "0.5"}
TRUE = {"number": 1.0, "count": 1, "two": 1, "five": 1, "tens": 1, "truth": "True", "mixed": 1}
GAPS = dict.fromkeys(VARIABLES, GAP)
NOTHING: dict[str, object] = {}

TYPED = [
    (1, ONE),
    (1.0, ONE),
    (np.int8(1), ONE),
    (np.uint8(1), ONE),
    (np.int64(1), ONE),
    (np.uint64(1), ONE),
    (np.float16(1), ONE),
    (np.float32(1), ONE),
    (np.float64(1), ONE),
    (np.array(1), ONE),
    (np.array(1.0), ONE),
    (torch.tensor(1), ONE),
    (torch.tensor(1, dtype=torch.uint8), ONE),
    (torch.tensor(1.0, dtype=torch.bfloat16), ONE),
    (torch.tensor(1.0, dtype=torch.float64, requires_grad=True), ONE),
    (Decimal("1"), ONE),
    (0, ZERO),
    (-0.0, ZERO),
    (0.5, HALF),
    (np.float32(0.5), HALF),
    (Decimal("0.5"), HALF),
    (Fraction(1, 2), {"number": 0.5}),
    (-1, {"number": -1.0, "count": -1}),
    (1e40, {"number": 1e40}),
    (2**53, {"number": 2.0**53}),
    (2**53 + 1, NOTHING),
    (10**30, NOTHING),
    (10**400, NOTHING),
    (float("inf"), NOTHING),
    (True, TRUE),
    (np.bool_(True), TRUE),
    (torch.tensor(True), TRUE),
    (float("nan"), GAPS),
    (np.float32("nan"), GAPS),
    (None, GAPS),
    (pd.NA, GAPS),
    (np.ma.masked, GAPS),
    ("1", {"ranks": "1", "tens": 1, "mixed": 1}),
    ("1.0", {"ranks": "1", "tens": 1, "mixed": 1}),
    ("0.5", {"halves": "0.5"}),
    ("yes", {"yesno": "yes"}),
    ("Yes", NOTHING),
    ("True", {"truth": "True"}),
    ("01", NOTHING),
    ("", NOTHING),
    (datetime.date(2020, 1, 1), NOTHING),
    (pd.Timestamp("2020"), NOTHING),
    (datetime.timedelta(1), NOTHING),
    (1j, NOTHING),
    (b"1", NOTHING),
    (object(), NOTHING),
    ({"a": 1}, NOTHING),
]
TEXTS = [
    ("1", ONE),
    ("1.0", ONE),
    ("0", ZERO),
    ("-0.0", ZERO),
    ("0.5", HALF),
    ("-1", {"number": -1.0, "count": -1}),
    ("1e40", {"number": 1e40}),
    (str(2**53 + 1), NOTHING),
    ("inf", NOTHING),
    ("yes", {"yesno": "yes"}),
    ("Yes", NOTHING),
    ("True", {"two": 1, "truth": "True"}),
    ("2020-01-01", NOTHING),
    ("1,5", NOTHING),
]


@pytest.fixture(scope="module")
def models():
    """A model of one node for each variable."""
    graph = nx.DiGraph()
    graph.add_node("v")
    made = {}
    for name, variable in VARIABLES.items():
        first = variable.decode(torch.tensor([0]))[0] if isinstance(variable, cg.Categorical) else 0
        made[name] = cg.SCM(graph, {"v": variable}, {"v": cg.mechanisms.Constant(value=first)})
    return made


def evidence(scm, given):
    values, missing, *_ = encode_partial(given, scm.variables, scm.device)
    return GAP if "v" in missing else plain(scm.variables["v"].decode(values["v"]))


def table(scm, source):
    read = read_data(source, scm.variables, gaps=True)
    return GAP if read.gaps else plain(scm.variables["v"].decode(read["v"]))


def plain(values):
    (value,) = np.asarray(values).tolist()
    return value


def parquet(scm, value, folder):
    pd.DataFrame({"v": [value]}).to_parquet(folder / "v.parquet")
    return table(scm, folder / "v.parquet")


def frame(value):
    try:
        return pd.DataFrame({"v": [value]})
    except OverflowError:  # pandas 2 infers no dtype for a whole number beyond the largest float
        return pd.DataFrame({"v": [value]}, dtype=object)


def csv(scm, text, folder):
    pd.DataFrame({"v": [text], "w": "x"}).to_csv(folder / "v.csv", index=False)
    return table(scm, folder / "v.csv")


def read_json(scm, value, folder):
    (folder / "v.json").write_text(json.dumps({"v": value}))
    return evidence(scm, read_evidence(str(folder / "v.json"), scm, ()))


def do(scm, value):
    return plain(scm.sample(1, do={"v": value}, seed=0)["v"])


ROUTES = {
    "dict": lambda scm, value, folder: evidence(scm, {"v": value}),
    "list": lambda scm, value, folder: evidence(scm, {"v": [value]}),
    "frame": lambda scm, value, folder: evidence(scm, frame(value)),
    "objects": lambda scm, value, folder: evidence(scm, {"v": boxed(value)}),
    "row": lambda scm, value, folder: evidence(scm, pd.Series({"v": value}, dtype=object)),
    "data": lambda scm, value, folder: table(scm, {"v": [value]}),
    "data frame": lambda scm, value, folder: table(scm, frame(value)),
    "polars": lambda scm, value, folder: evidence(scm, pl.DataFrame({"v": [value]})),
    "polars series": lambda scm, value, folder: evidence(scm, {"v": pl.Series([value])}),
    "polars data": lambda scm, value, folder: table(scm, pl.DataFrame({"v": [value]})),
    "parquet": parquet,
    "json": read_json,
    "do": lambda scm, value, folder: do(scm, value),
}


def can_say(route, value):
    """Whether a route can express the value: files hold no Python objects, text in do is an expression."""
    if route == "parquet":
        return type(value) in (int, float, bool, str, bytes, Decimal) and not (
            isinstance(value, int) and abs(value) >= 2**63
        )
    if route.startswith("polars"):
        plain = type(value) in (int, float, bool, str, bytes, Decimal, datetime.date, datetime.timedelta)
        return value is None or (plain and not (isinstance(value, int) and abs(value) >= 2**63))
    if route == "json":
        return value is None or type(value) in (int, float, bool, str, dict)
    if route == "do":
        return not isinstance(value, str)
    return True


def boxed(value):
    array = np.empty(1, dtype=object)
    array[0] = value
    return array


def outcome(route, *arguments):
    try:
        return route(*arguments)
    except cg.CausalgenError:
        return REFUSED


def case(value):
    return f"{type(value).__name__} {str(value)[:20]}"


@pytest.mark.parametrize(("value", "meaning"), TYPED, ids=[case(value) for value, _ in TYPED])
def test_a_typed_value_means_the_same_by_every_route(models, tmp_path, value, meaning):
    for name, scm in models.items():
        expected = meaning.get(name, REFUSED)
        for route, ask in ROUTES.items():
            if can_say(route, value):
                found = outcome(ask, scm, value, tmp_path)
                wanted = REFUSED if route == "do" and expected == GAP else expected
                assert found == wanted and type(found) is type(wanted), (name, route)


TEXT_ROUTES = {
    "csv": csv,
    "set": lambda scm, text, folder: evidence(scm, parse_assignments([f"v={text}"], scm.variables, "--set")),
    "--do": lambda scm, text, folder: do(
        scm, parse_assignments([f"v={text}"], scm.variables, "--do", expressions=True)["v"]
    ),
    "do": lambda scm, text, folder: do(scm, text),
}


@pytest.mark.parametrize(("text", "meaning"), TEXTS)
def test_a_text_means_the_same_by_every_route(models, tmp_path, text, meaning):
    for name, scm in models.items():
        expected = meaning.get(name, REFUSED)
        for route, ask in TEXT_ROUTES.items():
            if (route == "do" and text == "True") or (route in ("--do", "do") and text == "2020-01-01"):
                continue  # in an expression, a name and a difference
            found = outcome(ask, scm, text, tmp_path)
            assert found == expected and type(found) is type(expected), (name, route)


@pytest.mark.parametrize(
    ("column", "meaning"),
    [
        (pd.Series([1], dtype="Int64"), ONE),
        (pd.Series([1], dtype="UInt8"), ONE),
        (pd.Series([1], dtype="Float64"), ONE),
        (pd.Series([1], dtype="int64[pyarrow]"), ONE),
        (pd.Series([1], dtype="double[pyarrow]"), ONE),
        (pd.Series([1], dtype="category"), ONE),
        (pd.Series([1], dtype=object), ONE),
        (pd.Series([True]), TRUE),
        (pd.Series([True], dtype="boolean"), TRUE),
        (pd.Series([True], dtype="bool[pyarrow]"), TRUE),
        (pd.Series([True], dtype="category"), TRUE),
        (pd.Series(["yes"], dtype="string"), {"yesno": "yes"}),
        (pd.Series(["yes"], dtype="string[pyarrow]"), {"yesno": "yes"}),
        (pd.Series(["yes"], dtype="category"), {"yesno": "yes"}),
        (pd.Series(["1"], dtype="category"), {"ranks": "1", "tens": 1, "mixed": 1}),
        (pd.Series([pd.NA], dtype="Int64"), GAPS),
        (pd.Series([pd.NA], dtype="boolean"), GAPS),
        (pd.Series([pd.NA], dtype="string"), GAPS),
        (pd.Series([None], dtype="double[pyarrow]"), GAPS),
        (pd.Series([None], dtype="category"), GAPS),
        (np.ma.masked_array([99.0], mask=[True]), GAPS),
        (np.ma.masked_array([1], mask=[False]), ONE),
    ],
    ids=lambda column: str(getattr(column, "dtype", "")),
)
def test_a_column_of_any_type_means_its_values(models, tmp_path, column, meaning):
    for name, scm in models.items():
        expected = meaning.get(name, REFUSED)
        for form in ({"v": column}, pd.DataFrame({"v": column})):
            for ask in (evidence, table):
                found = outcome(ask, scm, form)
                assert found == expected and type(found) is type(expected), (name, ask)
        if isinstance(column, pd.Series):
            pd.DataFrame({"v": column}).to_parquet(tmp_path / "v.parquet")
            assert outcome(table, scm, tmp_path / "v.parquet") == expected, name


@pytest.mark.parametrize(
    ("column", "meaning"),
    [
        (pl.Series([1], dtype=pl.Int8), ONE),
        (pl.Series([1], dtype=pl.UInt64), ONE),
        (pl.Series([1], dtype=pl.Float32), ONE),
        (pl.Series([Decimal(1)], dtype=pl.Decimal(20, 2)), ONE),
        (pl.Series([True]), TRUE),
        (pl.Series(["yes"]), {"yesno": "yes"}),
        (pl.Series(["yes"], dtype=pl.Categorical), {"yesno": "yes"}),
        (pl.Series(["1"], dtype=pl.Enum(["0", "1"])), {"ranks": "1", "tens": 1, "mixed": 1}),
        (pl.Series([None], dtype=pl.Int64), GAPS),
        (pl.Series([None], dtype=pl.Boolean), GAPS),
        (pl.Series([None], dtype=pl.String), GAPS),
        (pl.Series([None], dtype=pl.Categorical), GAPS),
        (pl.Series([None], dtype=pl.Null), GAPS),
        (pl.Series([float("nan")]), GAPS),
        (pl.Series([2**53 + 1], dtype=pl.Int64), NOTHING),
        (pl.Series([datetime.datetime(2020, 1, 1)]), NOTHING),
    ],
    ids=lambda column: str(getattr(column, "dtype", "")),
)
def test_a_polars_column_of_any_type_means_its_values(models, column, meaning):
    arrow = pa.table(pl.DataFrame({"v": column}))
    for name, scm in models.items():
        expected = meaning.get(name, REFUSED)
        for form in ({"v": column}, pl.DataFrame({"v": column}), arrow, arrow.to_batches()[0]):
            for ask in (evidence, table):
                found = outcome(ask, scm, form)
                assert found == expected and type(found) is type(expected), (name, ask, type(form))


PIXELS = np.array([[[0, 51], [102, 255]]], dtype=np.uint8)


def test_a_picture_means_the_same_by_every_route(tmp_path):
    graph = nx.DiGraph()
    graph.add_node("v")
    image = cg.Image(1, 2, 2)
    scm = cg.SCM(graph, {"v": image}, {"v": cg.mechanisms.Constant(value=PIXELS / 255)})
    path = tmp_path / "v.png"
    picture = PIL.Image.fromarray(PIXELS[0])
    picture.save(path)
    floats = PIXELS / 255
    expected = image.encode(PIXELS, where="v")
    for given in (
        PIXELS,
        PIXELS[0],
        floats,
        floats.tolist(),
        floats.astype(np.float32),
        torch.from_numpy(PIXELS),
        torch.from_numpy(floats),
        picture,
        path,
        str(path),
    ):
        for form in ({"v": given}, {"v": [given]}, pd.DataFrame({"v": [given]})):
            values, missing, *_ = encode_partial(form, scm.variables, scm.device)
            assert not missing and np.allclose(values["v"], expected, atol=1e-7)
        if not isinstance(given, str):
            assert np.allclose(scm.sample(1, do={"v": given})["v"], floats, atol=1e-7)
    (tmp_path / "v.json").write_text(json.dumps({"v": "v.png"}))
    values, *_ = encode_partial(read_evidence(str(tmp_path / "v.json"), scm, ()), scm.variables, scm.device)
    assert np.array_equal(values["v"], expected)
    frame = pd.DataFrame({"v": ["v.png"]})
    frame.to_csv(tmp_path / "v.csv", index=False)
    frame.to_parquet(tmp_path / "v.parquet")
    for source in (tmp_path / "v.csv", tmp_path / "v.parquet", {"v": [picture]}, {"v": [str(path)]}):
        assert np.array_equal(read_data(source, scm.variables)["v"], PIXELS[None])
    for wrong in (
        PIXELS.astype(int),
        floats * 255,
        np.full((1, 2, 2), np.nan),
        np.zeros((2, 2, 1, 1)),
        3,
        "none.png",
    ):
        with pytest.raises(cg.CausalgenError):
            encode_partial({"v": wrong}, scm.variables, scm.device)


COLOURS = np.random.default_rng(0).integers(0, 256, (3, 2, 2, 3), dtype=np.uint8)
GREYS = COLOURS[:, :1]


def nested(kind, depth):
    return nested(pa.list_(kind), depth - 1) if depth else kind


def pixel_routes(scm, file):
    """Canonical images by each route that has columns of lists."""

    def data(source):
        return read_data(source, scm.variables).tensor("v")

    def evidence(source):
        return encode_partial(source, scm.variables, scm.device)[0]["v"]

    table = pq.read_table(file)
    return {
        "data, Parquet": lambda: data(file),
        "data, Arrow": lambda: data(table),
        "data, pandas": lambda: data(pd.read_parquet(file)),
        "evidence, Arrow": lambda: evidence(table),
        "evidence, pandas": lambda: evidence(pd.read_parquet(file)),
        "--evidence": lambda: evidence(read_evidence(str(file), scm, ())),
        "--table": lambda: evidence(ParquetRows(file, scm.variables).read(0, 3).columns),
    }


@pytest.mark.parametrize(
    ("pixels", "kind", "refused"),
    [
        (COLOURS, pa.uint8(), None),
        (COLOURS / 255, pa.float32(), None),
        (GREYS, pa.uint8(), None),
        (GREYS[:, 0], pa.uint8(), None),
        (GREYS[:, 0] / 255, pa.float64(), None),
        (COLOURS, pa.int64(), "uint8 in 0..255 or float.*got dtype int64"),
        (COLOURS.reshape(3, -1), pa.uint8(), r"Flat pixels do not say their order.*reshape\(-1, 2, 2, 3\)"),
        (GREYS.reshape(3, -1), pa.uint8(), r"Flat pixels do not say their order.*reshape\(-1, 1, 2, 3\)"),
    ],
)
def test_lists_of_pixels_mean_the_same_by_every_route(tmp_path, pixels, kind, refused):
    image = cg.Image(2, 2, 3) if pixels.size == COLOURS.size else cg.Image(1, 2, 3)
    scm = cg.SCM(
        nx.DiGraph({"v": []}), {"v": image}, {"v": cg.mechanisms.Constant(value=np.zeros(image.shape))}
    )
    cells = pa.array(pixels.tolist(), nested(kind, pixels.ndim - 1))
    pq.write_table(pa.table({"v": cells}), tmp_path / "v.parquet")
    for route, ask in pixel_routes(scm, tmp_path / "v.parquet").items():
        if refused:
            with pytest.raises(cg.CausalgenError, match=refused):
                ask()
        else:
            held = COLOURS if image.channels == 2 else GREYS
            assert np.allclose(ask().numpy(), held / 255 * 2 - 1, atol=1e-6), route


def test_rows_of_pixels_of_several_shapes_are_refused_by_every_route(tmp_path):
    scm = cg.SCM(
        nx.DiGraph({"v": []}), {"v": cg.Image(1, 2, 3)}, {"v": cg.mechanisms.Constant(value=GREYS[0] / 255)}
    )
    cells = [[[0, 1, 2], [3, 4]], [[0, 1, 2], [3, 4, 5]], [[0, 1, 2]]]
    pq.write_table(pa.table({"v": pa.array(cells, nested(pa.uint8(), 2))}), tmp_path / "v.parquet")
    for ask in pixel_routes(scm, tmp_path / "v.parquet").values():
        with pytest.raises(cg.CausalgenError, match="shape"):
            ask()


def _sum_model():
    sum_of = cg.mechanisms.Equation(value="x + u", noise={"u": {"normal": [0, 1]}})
    root = cg.mechanisms.Equation(value="u", noise={"u": {"normal": [0, 1]}})
    variables = {"x": cg.Continuous(), "y": cg.Continuous()}
    return cg.SCM(nx.DiGraph([("x", "y")]), variables, {"x": root, "y": sum_of})


def test_series_of_different_indexes_are_not_paired_by_place():
    rows = pd.DataFrame({"x": [1.0, 2.0, 3.0], "y": [10.0, 20.0, 30.0]}, index=["a", "b", "c"])
    other = rows["y"].iloc[::-1]
    # pandas pairs them by their names: x + y is 11, 22, 33, where places would make it 31, 22, 13.
    assert (rows["x"] + other).loc[["a", "b", "c"]].tolist() == [11.0, 22.0, 33.0]
    scm = _sum_model()
    linear = cg.SCM(scm.graph, scm.variables, dict.fromkeys("xy", cg.mechanisms.Additive()))
    for ask in (
        lambda: scm.abduct({"x": rows["x"], "y": other}),
        lambda: scm.log_prob({"x": rows["x"], "y": other}),
        lambda: scm.abduct({"x": [1.0] * 3, "y": [1.0] * 3}).counterfactual({"x": rows["x"], "y": other}),
        lambda: linear.fit({"x": rows["x"], "y": other}, progress=False),
        lambda: read_data({"x": rows["x"], "y": other}, scm.variables),
    ):
        with pytest.raises(
            cg.CausalgenError, match="'y': the Series has another index than 'x'.* c, expected a"
        ):
            ask()
    kept = scm.abduct({"x": rows["x"], "y": other.loc[rows.index]}).counterfactual({"x": 0.0})
    assert kept["y"].tolist() == [9.0, 18.0, 27.0]
    assert scm.abduct({"x": rows["x"], "y": other.to_numpy()}).rows == 3
    assert scm.abduct({"x": 1.0, "y": other}).rows == 3


def test_series_in_do_are_matched_to_series_of_the_evidence():
    rows = pd.DataFrame({"x": [1.0, 2.0, 3.0], "y": [10.0, 20.0, 30.0]}, index=["a", "b", "c"])
    new = pd.Series([7.0, 8.0, 9.0], index=["c", "b", "a"])
    # By name: y + new - x is 18 for a, 26 for b, 34 for c; places would make it 16, 26, 36.
    expected = rows["y"] + new - rows["x"]
    assert expected.loc[["a", "b", "c"]].tolist() == [18.0, 26.0, 34.0]
    scm, ones = _sum_model(), {"x": [1.0] * 3, "y": [1.0] * 3}
    answer = scm.counterfactual(rows, do={"x": 0.0})
    for evidence in (dict(rows.items()), {"x": 1.0, "y": rows["y"]}, rows, answer, dict(answer)):
        with pytest.raises(cg.InterventionError, match="index than the evidence, first in row 0: c, expecte"):
            scm.counterfactual(evidence, do={"x": new})
    for ask in (
        lambda: scm.abduct(ones).contrast({"x": rows["x"]}, {"x": new}),
        lambda: scm.abduct(ones).worlds({"one": {"x": rows["x"]}, "other": {"x": new}}),
        lambda: scm.effect("y", do={"x": rows["x"]}, versus={"x": new}, n=3),
        lambda: scm.effect("y", do={"x": rows["x"]}, versus={"x": new}, evidence={"x": 1.0, "y": 2.0}, n=4),
    ):
        with pytest.raises(
            cg.InterventionError, match="'x in .*' *: the Series has another index than 'x in"
        ):
            ask()
    found = scm.counterfactual(dict(rows.items()), do={"x": new.loc[rows.index]})
    assert found["y"].tolist() == expected.loc[rows.index].tolist()
    # An answer to a DataFrame is evidence with the DataFrame's index.
    pd.testing.assert_series_equal(scm.counterfactual(answer, do={"x": rows["x"]})["y"], rows["y"])


def test_a_series_of_one_value_is_of_all_rows_and_missing_entries_of_an_index_are_alike():
    one, other = pd.Series([3.0], index=[3]), pd.Series([1.0], index=[7])
    scm, rows = _sum_model(), {"x": [1.0] * 2, "y": [1.0] * 2}
    assert scm.effect("y", do={"x": one}, versus={"x": other}, n=10, seed=0).value == pytest.approx(2)
    worlds = scm.abduct(rows).worlds({"a": {"x": one}, "b": {"x": other}})
    assert (worlds["a"]["y"] - worlds["b"]["y"]).tolist() == [2, 2]
    named = pd.Series([1.0, 2.0], index=pd.Index([1, pd.NA], dtype="Int64"))
    asked = pd.Series([3.0, 4.0], index=pd.Index([1, pd.NA], dtype=object))
    assert scm.counterfactual({"x": named, "y": named}, do={"x": asked})["y"].tolist() == [3, 4]


def test_parts_of_a_vector_that_are_series_are_not_paired_by_place():
    scm = cg.SCM(
        nx.DiGraph({"v": []}), {"v": cg.Continuous(shape=(2,))}, {"v": cg.mechanisms.Constant(value=[0, 0])}
    )
    parts = {"v_0": pd.Series([1.0, 2.0], index=[0, 1]), "v_1": pd.Series([3.0, 4.0], index=[1, 0])}
    with pytest.raises(cg.EvidenceError, match="'v_1': the Series has another index than 'v_0'"):
        scm.abduct(parts)
    assert scm.abduct({"v_0": parts["v_0"], "v_1": [3.0, 4.0]}).rows == 2
    with pytest.raises(cg.InterventionError, match="another index than the evidence"):
        scm.abduct({"v_0": parts["v_0"], "v_1": [3.0, 4.0]}).counterfactual(
            {"v": pd.Series([[1.0, 2.0], [3.0, 4.0]], index=[1, 0])}
        )


def test_indexes_that_differ_in_type_alone_are_the_same():
    utc = pd.date_range("2024-01-01", periods=2, tz="UTC")
    rows = pd.DataFrame({"x": [1.0, 2.0], "y": [2.0, 3.0]}, index=utc)
    moved = pd.Series([5.0, 6.0], index=utc.tz_convert("Europe/Berlin"))
    assert _sum_model().counterfactual(rows, do={"x": moved})["y"].tolist() == [6.0, 7.0]


def test_the_numbers_of_a_vector_in_a_mapping_are_columns_as_in_a_frame():
    variables = {"v": cg.Continuous(shape=(2,)), "y": cg.Continuous()}
    graph, linear = nx.DiGraph([("v", "y")]), dict.fromkeys(variables, cg.mechanisms.Additive())
    parts = {"v_0": [1.0, 2.0, 4.0, 3.0], "v_1": [0.0, 1.0, 0.0, 1.0], "y": [1.0, 2.0, 3.0, 4.0]}
    one, other = (read_data(each, variables) for each in (parts, pd.DataFrame(parts)))
    assert np.array_equal(one["v"], other["v"])
    renamed = cg.Rows({"a_0": parts["v_0"], "a_1": parts["v_1"], "y": parts["y"]}, {"v": "a"})
    assert np.array_equal(read_data(renamed, variables)["v"], one["v"])
    scm = cg.SCM(graph, variables, linear)
    with pytest.raises(cg.DataError, match="Column 'v_1' has 3 rows where others of its vector have 4"):
        scm.fit(parts | {"v_1": [0.0, 1.0, 0.0]}, progress=False)
    with pytest.raises(cg.DomainError, match="Evidence 'v_1' has 3 rows where others of its vector have 4"):
        scm.abduct(parts | {"v_1": [0.0, 1.0, 0.0]})
    served = scm.abduct(parts | {"v_1": 5.0}).counterfactual({}, targets=["v"])
    assert served["v"][:, 1].tolist() == [5.0] * 4
