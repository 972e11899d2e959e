"""Saved results: they read back as data, replace only their own kind, and lose nothing."""

import json
from hashlib import sha256

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch

import causalgen as cg
from causalgen.counterfactuals.export import to_frame, to_png
from causalgen.counterfactuals.summaries import inferred_texts, node_texts
from causalgen.data.reading import read_data
from causalgen.saving.manifest import write_result


@pytest.fixture(scope="module")
def vectors():
    """a pair of numbers -> a number."""
    random = np.random.default_rng(0)
    pair = random.normal(size=(50, 2))
    data = {"pair": pair, "sum": pair.sum(1) + random.normal(size=50)}
    scm = cg.SCM(
        nx.DiGraph([("pair", "sum")]),
        variables={"pair": cg.Continuous(shape=(2,)), "sum": cg.Continuous()},
        mechanisms={"pair": cg.mechanisms.Additive(), "sum": cg.mechanisms.Additive()},
    )
    return scm.fit(data, progress=False), data


@pytest.mark.parametrize("model", ["linear", "categories", "pictures", "vectors"])
def test_a_saved_result_reads_back_as_data(model, request, tmp_path):
    scm, data = request.getfixturevalue(model)
    evidence = {node: values[:3] for node, values in data.items()}
    cf = scm.counterfactual(evidence, do={}, seed=0)
    cf.save(tmp_path / "cf")
    for table, values in (("values.csv", cf), ("factual/values.csv", cf.factual)):
        read = read_data(tmp_path / "cf" / table, scm.variables)
        for node, variable in scm.variables.items():
            expected = variable.encode(values[node], where=node)
            tolerance = 1.01 / 255 if isinstance(variable, cg.Image) else 0
            np.testing.assert_allclose(read.tensor(node).numpy(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("samples", [None, 2])
def test_no_name_of_a_node_is_lost(tmp_path, samples):
    """Nodes named like the index, the samples, and the columns of a vector."""
    names = ["row", "sample", "v_0", "v_1", "row_index"]
    random = np.random.default_rng(0)
    data = {name: random.normal(size=40) for name in names} | {"v": random.normal(size=(40, 2))}
    scm = cg.SCM(
        nx.DiGraph([(name, "v") for name in names]),
        variables={name: cg.Continuous() for name in names} | {"v": cg.Continuous(shape=(2,))},
        mechanisms={name: cg.mechanisms.Additive() for name in [*names, "v"]},
    ).fit(data, progress=False)
    evidence = {name: values[:3] for name, values in data.items()}
    cf = scm.counterfactual(evidence, do={"row": 1.0}, num_samples=samples, seed=0)
    frame = cf.to_frame()
    both = [*frame.columns, *frame.index.names]
    assert len(set(both)) == len(both) == 7 + (1 if samples is None else 2)
    _summaries_name_each_number_once(cf, data, scm.counterfactual(evidence, do={}, seed=0))
    if samples is None:  # the table is evidence as it stands
        again = scm.counterfactual(frame, do={}, seed=0)
        assert np.array_equal(again["v"], cf["v"]) and np.array_equal(again["v_0"], cf["v_0"])
    folder = cf.save(tmp_path / "cf")
    for file, values in (("values.csv", cf), ("factual/values.csv", cf.factual)):
        read = read_data(folder / file, scm.variables)
        for name, variable in scm.variables.items():
            wanted = np.asarray(values[name]).reshape(-1, *variable.event_shape)
            assert np.array_equal(read[name], wanted)
    table = pd.DataFrame({"v_0": [1.0], "v_1": [2.0]})
    with pytest.raises(cg.DataError, match=r"no column 'v' .*nor v\[0\] .. v\[1\]"):
        read_data(table, {name: scm.variables[name] for name in ("v", "v_0", "v_1")})


def _summaries_name_each_number_once(cf, data, world):
    """A line for each number: of the vector by the names of the table's columns, of each node by its own."""
    wanted = {node: data[node][:3] for node in data if node not in ("v", "row")}
    wanted |= {
        "row": np.ones(3),
        **{name: cf.draws("v").mean(0)[:, k] for k, name in enumerate(["v[0]", "v[1]"])},
    }
    summary = cf.summary()
    assert summary.index.is_unique
    assert set(summary.index.get_level_values("node")) == wanted.keys()
    for name, values in wanted.items():
        assert np.allclose(summary.loc[name]["mean"], values), name
    if cf.samples is None:
        contrast = cg.Contrast(cf, world).summary()
        assert contrast.index.is_unique and np.allclose(contrast.loc["v_0"]["mean"], 0)
    assert set(node_names(cf)) == wanted.keys()


def node_names(cf):
    """Names of the lines that are printed."""
    names = [name for _, name, _ in node_texts(cf)]
    assert len(set(names)) == len(names)
    return names


def test_missing_numbers_of_a_vector_and_a_node_of_that_name_are_both_shown():
    """In a notebook's page too."""
    random = np.random.default_rng(0)
    data = {"v_0": random.normal(size=40), "v": random.normal(size=(40, 2))}
    scm = cg.SCM(
        nx.DiGraph([("v", "v_0")]),
        {"v": cg.Continuous(shape=(2,)), "v_0": cg.Continuous()},
        {"v": cg.mechanisms.Additive(), "v_0": cg.mechanisms.Additive()},
    ).fit(data, progress=False)
    gaps = scm.counterfactual({"v": np.full((1, 2), np.nan), "v_0": [7.0]}, do={"v_0": 1.0}, seed=0)
    texts = inferred_texts(gaps)
    assert texts == {"v": {f"v[{k}]": [f"{gaps.inferred['v'][0][k]:.4g}"] for k in range(2)}}
    page = gaps._repr_html_()
    assert "v[0]" in page and "v[1]" in page and "7" in page


def test_samples_are_all_saved(categories, pictures, tmp_path):
    scm, data = categories
    evidence = pd.DataFrame({node: values[:2] for node, values in data.items()}, index=["p", "q"])
    cf = scm.counterfactual(evidence, do={"a": "mid"}, num_samples=3, seed=0)
    frame = to_frame(cf)
    assert frame.index.names == ["sample", None]
    assert frame.index.tolist() == [(s, r) for s in range(3) for r in "pq"]
    for node in cf:
        np.testing.assert_array_equal(frame[node].to_numpy().reshape(3, 2), np.asarray(cf[node]))
    told = json.loads((cf.save(tmp_path / "table") / "result.json").read_text())
    assert np.array(told["values"]["c"]).shape == (3, 2)
    assert told["index"] == ["p", "q"]
    scm, data = pictures
    evidence = {node: values[:2] for node, values in data.items()}
    folder = scm.counterfactual(evidence, do={"kind": 1}, num_samples=3, seed=0).save(tmp_path / "pictures")
    assert len(list((folder / "picture").glob("*.png"))) == 6
    assert len(list((folder / "factual" / "picture").glob("*.png"))) == 2


def test_an_index_of_several_levels_is_kept(linear):
    scm, data = linear
    index = pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["site", "visit"])
    frame = pd.DataFrame({node: values[:2] for node, values in data.items()}, index=index)
    one = to_frame(scm.counterfactual(frame, do={"x": 0.0}, seed=0))
    pd.testing.assert_index_equal(one.index, index)
    many = to_frame(scm.counterfactual(frame, do={"x": 0.0}, num_samples=2, seed=0))
    assert many.index.names == ["sample", "site", "visit"]


@pytest.mark.parametrize("name", ["x", "sample"])
def test_a_level_of_an_index_that_is_called_like_a_column_gets_a_name_of_its_own(linear, name):
    scm, data = linear
    frame = pd.DataFrame(
        {node: values[:2] for node, values in data.items()}, index=pd.Index([7, 9], name=name)
    )
    for samples in (None, 2):
        table = scm.counterfactual(frame, do={"x": 0.0}, num_samples=samples, seed=0).to_frame()
        assert table.reset_index().columns.is_unique and table["x"].tolist() == [0.0] * len(table)
    assert "sample_index" in table.index.names or name == "x"


def test_a_level_that_gets_a_name_of_its_own_takes_no_other_level_s(linear):
    scm, data = linear
    index = pd.MultiIndex.from_tuples([(7, 1), (9, 2)], names=["x", "x_index"])
    frame = pd.DataFrame({node: values[:2] for node, values in data.items()}, index=index)
    table = scm.counterfactual(frame, do={"x": 0.0}, seed=0).to_frame()
    assert table.reset_index()["x_index"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("levels", "names"),
    [([None, "row"], ["row_index", "row"]), (["a", "a"], ["a", "a_index"]), ([None, "x"], ["row", "x"])],
)
def test_no_level_of_an_index_is_lost_in_a_summary(linear, levels, names):
    """A level without a name was called row, as the other one."""
    scm, data = linear
    index = pd.MultiIndex.from_tuples([("s", 1), ("t", 1)], names=levels)
    frame = pd.DataFrame({node: values[:2] for node, values in data.items()}, index=index)
    found = scm.counterfactual(frame, do={"x": 0.0}, num_samples=2, seed=0).summary()
    assert list(found.index.names) == ["node", *names, "category"]
    assert found.loc["x"].index.droplevel("category").tolist() == [("s", 1), ("t", 1)]


def test_whole_numbers_are_shown_with_all_their_digits():
    scm = cg.SCM(
        nx.DiGraph([("visits", "cost")]),
        {"visits": cg.Integer(), "cost": cg.Continuous()},
        {
            "visits": cg.mechanisms.Equation(value="floor(u)", noise={"u": {"uniform": [0, 1e6]}}),
            "cost": cg.mechanisms.Equation(value="2.5 * visits"),
        },
    )
    cf = scm.counterfactual({"visits": 12345, "cost": 30862.5}, do={"visits": 20231}, seed=0)
    assert [text for _, _, text in node_texts(cf)] == ["20231", "50578"]


def test_codes_beside_gaps_are_written_whole(categories, tmp_path):
    scm, data = categories
    evidence = {"a": data["a"][:2], "b": [None, 1], "c": data["c"][:2]}
    scm.counterfactual(evidence, do={}, seed=0).save(tmp_path / "cf")
    cells = pd.read_csv(tmp_path / "cf" / "inferred" / "values.csv", dtype=str)["b"].tolist()
    assert len(cells) == 1 and cells[0] in ("0", "1", "2")


def test_a_result_replaces_a_result_and_nothing_else(linear, tmp_path):
    scm, _ = linear
    draws = scm.sample(2, seed=0)
    (tmp_path / "empty").mkdir()
    draws.save(tmp_path / "empty")
    scm.sample(3, seed=0).save(tmp_path / "empty")
    assert len(pd.read_csv(tmp_path / "empty" / "values.csv")) == 3
    (tmp_path / "empty" / "mine.txt").write_text("mine")
    with pytest.raises(cg.CheckpointError, match="mine.txt"):
        draws.save(tmp_path / "empty")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(cg.CheckpointError, match="no folder"):
        draws.save(tmp_path / "file")
    other = tmp_path / "other"
    other.mkdir()
    (other / "result.json").write_text('{"files": ["result.json"]}')
    with pytest.raises(cg.CheckpointError, match=r"result\.json"):
        draws.save(other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "other"]


def test_the_manifest_of_a_result_vouches_for_its_files(tmp_path):
    write_result(tmp_path / "r", [("a.txt", b"a"), ("deep/b.txt", b"b")], {"values": [1, 2]})
    manifest = json.loads((tmp_path / "r" / "result.json").read_text())
    assert manifest["values"] == [1, 2] and manifest["version"] == 1 and manifest["libraries"]["torch"]
    assert manifest["files"] == ["result.json", "a.txt", "deep/b.txt"]
    assert manifest["sha256"] == {
        name: sha256(data).hexdigest() for name, data in (("a.txt", b"a"), ("deep/b.txt", b"b"))
    }


def test_a_result_of_the_first_format_is_replaced_and_a_newer_one_is_not(tmp_path):
    (tmp_path / "values.csv").write_text("x")
    first = {"format": "causalgen-result", "version": 1, "files": ["result.json", "values.csv"]}
    (tmp_path / "result.json").write_text(json.dumps(first))
    write_result(tmp_path, [("a.txt", b"a")], {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "result.json"]
    (tmp_path / "result.json").write_text(json.dumps(first | {"version": 2}))
    with pytest.raises(cg.FormatVersionError, match="format version 2"):
        write_result(tmp_path, [("a.txt", b"a")], {})


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", "", "c:a", "a\\b"])
def test_no_file_of_a_result_leads_out_of_its_folder(tmp_path, name):
    with pytest.raises(cg.CheckpointError, match="is no file of a saved result"):
        write_result(tmp_path / "r", [(name, b"")], {})
    assert not list(tmp_path.iterdir())


def test_a_failure_halfway_leaves_the_old_result(tmp_path):
    write_result(tmp_path / "r", [("a.txt", b"old")], {})

    def files():
        yield "a.txt", b"new"
        raise OSError(28, "No space left on device")

    with pytest.raises(cg.CheckpointError, match="No space left"):
        write_result(tmp_path / "r", files(), {})
    assert (tmp_path / "r" / "a.txt").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_any_number_of_channels_makes_a_png(channels):
    assert (
        to_png(torch.rand(channels, 4, 6, generator=torch.Generator().manual_seed(0)).numpy())[1:4] == b"PNG"
    )
