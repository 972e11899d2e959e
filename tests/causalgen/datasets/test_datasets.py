"""Data sets by name: their files, their laws, the command that makes one, and fitting on it."""

import gzip
import json

import networkx as nx
import numpy as np
import pytest
from typer.testing import CliRunner

import causalgen as cg
from causalgen.cli import main as cli
from causalgen.data.reading import read_data
from causalgen.datasets.mnist import idx_bytes, read_idx

NODES = {
    "digit": cg.Categorical(10),
    "thickness": cg.Continuous(lower=0),
    "intensity": cg.Continuous(lower=64, upper=255),
    "image": cg.Image(1, 28, 28),
}


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_idx_files_come_back_plain_and_gzipped(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "a.gz").write_bytes(idx_bytes(array))
    (tmp_path / "a").write_bytes(gzip.decompress(idx_bytes(array)))
    for name in ("a.gz", "a"):
        np.testing.assert_array_equal(read_idx(tmp_path / name, axes=3), array)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (gzip.decompress(idx_bytes(np.zeros((2, 3), np.uint8)))[:-1], "6 bytes, but 5 follow"),
        (b"no idx file at all", "is no idx file of unsigned bytes with 2 axes"),
        (b"", "is no idx file"),
    ],
)
def test_a_damaged_idx_file_is_told(tmp_path, data, message):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(cg.DataError, match=message):
        read_idx(tmp_path / "a", axes=2)


def test_a_damaged_gzip_is_told(tmp_path):
    (tmp_path / "a.gz").write_bytes(idx_bytes(np.zeros((2, 3), np.uint8))[:-9])
    with pytest.raises(cg.DataError, match="Cannot read"):
        read_idx(tmp_path / "a.gz", axes=2)


def test_mnist_is_read_from_either_layout(rows, mnist_folder):
    for folder in (mnist_folder, mnist_folder / "MNIST" / "raw"):
        columns = cg.datasets.mnist(folder, "test")
        np.testing.assert_array_equal(columns["digit"], rows["label"])
        np.testing.assert_array_equal(columns["image"], rows["original"])


def test_mnist_that_is_not_there_is_told(mnist_folder, tmp_path):
    with pytest.raises(cg.DataError, match="There is no folder .*nowhere"):
        cg.datasets.mnist(tmp_path / "nowhere")
    with pytest.raises(cg.DataError, match="'train' or 'test', got 'validation'"):
        cg.datasets.mnist(mnist_folder, "validation")
    raw = mnist_folder / "MNIST" / "raw"
    (raw / "t10k-labels-idx1-ubyte.gz").write_bytes(idx_bytes(np.zeros(5, np.uint8)))
    with pytest.raises(cg.DataError, match="24 images but 5 labels"):
        cg.datasets.mnist(mnist_folder, "test")
    (raw / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(cg.DataError, match="neither t10k-images-idx3-ubyte nor"):
        cg.datasets.mnist(mnist_folder, "test")


def test_the_published_folder_is_read(rows, published_folder):
    columns = cg.datasets.morphomnist(published_folder, "test")
    for name, key in (("digit", "label"), ("thickness",) * 2, ("intensity",) * 2, ("image", "published")):
        np.testing.assert_array_equal(columns[name], rows[key])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("index,thickness\n0,2\n", "lacks the column 'intensity'; it has index, thickness"),
        ("a\n1\n", "lacks the column 'thickness' and 'intensity'"),
        ("", "Cannot read the table"),
        ("index,thickness,intensity\n0,2,100\n", "has 1 rows, but there are 24 images"),
        ("index,thickness,intensity\n1,2,100\n", "'index' must count the rows from 0"),
        (
            "thickness,intensity\n2,100\nthick,100\n",
            "row 1: expected thickness to be a number above 0, got 'thick'",
        ),
        ("thickness,intensity\n2,300\n", r"row 0: expected intensity to be a number in \(0, 255\]"),
        ("thickness,intensity\n2,\n", "row 0: expected intensity"),
    ],
)
def test_a_bad_table_is_told(published_folder, table, message):
    (published_folder / "t10k-morpho.csv").write_text(table)
    with pytest.raises(cg.DataError, match=message):
        cg.datasets.morphomnist(published_folder, "test")


def test_a_missing_table_is_told(published_folder):
    (published_folder / "t10k-morpho.csv").unlink()
    with pytest.raises(cg.DataError, match="There is no table .*t10k-morpho.csv"):
        cg.datasets.morphomnist(published_folder, "test")


def test_attributes_follow_their_law():
    drawn = cg.datasets.draw_attributes(40_000, seed=3)
    thickness, intensity = drawn["thickness"], drawn["intensity"]
    assert thickness.min() > 0.5
    assert thickness.mean() == pytest.approx(0.5 + 10 / 5, abs=0.015)
    assert thickness.std() == pytest.approx(10**0.5 / 5, abs=0.015)
    assert ((intensity > 64) & (intensity < 255)).all()
    noise = np.log((intensity - 64) / (255 - intensity)) - (2 * thickness - 5)
    assert noise.mean() == pytest.approx(0, abs=0.01)
    assert noise.std() == pytest.approx(0.5, abs=0.01)
    assert abs(np.corrcoef(noise, thickness)[0, 1]) < 0.02
    np.testing.assert_allclose(cg.datasets.intensity_of(thickness, noise), intensity)
    np.testing.assert_array_equal(cg.datasets.draw_attributes(40_000, seed=3)["thickness"], thickness)


def test_the_command_with_published_tables_makes_the_published_images(
    rows, mnist_folder, published_folder, tmp_path
):
    out = tmp_path / "out"
    result = run(
        "data", "morphomnist", "--mnist", mnist_folder, "--out", out, "--split", "test",
        "--tables", published_folder, "--workers", 1,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert f"--data morphomnist:{out}" in result.output
    made = cg.datasets.morphomnist(out, "test")
    np.testing.assert_array_equal(made["image"], rows["published"])
    np.testing.assert_array_equal(made["thickness"], rows["thickness"])
    about = json.loads((out / "morphomnist.json").read_text())
    assert about["splits"]["test"]["rows"] == 24
    assert about["splits"]["test"]["thickness and intensity"].startswith("t10k-morpho.csv, sha256")
    assert sorted([*about["sha256"], "morphomnist.json"]) == sorted(path.name for path in out.iterdir())
    assert list(tmp_path.glob(".*")) == []


def test_drawn_values_follow_the_seed_and_are_those_of_the_images(rows, mnist_folder, tmp_path):
    folders = [
        cg.datasets.make_morphomnist(mnist_folder, tmp_path / name, splits=splits, seed=seed, progress=False)
        for name, splits, seed in (("a", ("train", "test"), 1), ("b", ("test",), 1), ("c", ("test",), 2))
    ]
    a, b, c = (cg.datasets.morphomnist(folder, "test") for folder in folders)
    np.testing.assert_array_equal(a["image"], b["image"])
    assert (a["thickness"] != c["thickness"]).all()
    assert (a["thickness"] != cg.datasets.morphomnist(folders[0], "train")["thickness"]).all()
    again = cg.datasets.morphomnist_images(rows["original"], a["thickness"], a["intensity"])
    np.testing.assert_array_equal(again, a["image"])


def test_a_folder_of_ours_is_replaced_and_another_refused(mnist_folder, tmp_path):
    def make(out):
        return cg.datasets.make_morphomnist(mnist_folder, out, splits=("test",), progress=False)

    folder = make(tmp_path / "out")
    assert make(folder) == folder
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(cg.DataError, match="the folder holds other things"):
        make(other)
    assert (other / "thesis.txt").read_text() == "mine"
    with pytest.raises(cg.DataError, match="it is no folder"):
        make(other / "thesis.txt")


def test_tables_that_disagree_are_told_before_anything_is_made(mnist_folder, published_folder, tmp_path):
    table = published_folder / "t10k-morpho.csv"
    make = cg.datasets.make_morphomnist
    with pytest.raises(cg.DataError, match="is one table for 2 splits"):
        make(mnist_folder, tmp_path / "out", tables=table, progress=False)
    with pytest.raises(cg.DataError, match="There is no table .*train-morpho.csv"):
        make(mnist_folder, tmp_path / "out", tables=published_folder, progress=False)
    table.write_text("thickness,intensity\n2,100\n")
    with pytest.raises(cg.DataError, match="has 1 rows, but MNIST's test split has 24 images"):
        make(mnist_folder, tmp_path / "out", splits=("test",), tables=table, progress=False)
    with pytest.raises(cg.DataError, match="got none"):
        make(mnist_folder, tmp_path / "out", splits=(), progress=False)
    assert not (tmp_path / "out").exists()


def test_the_command_tells_wrong_splits_and_missing_mnist(mnist_folder, tmp_path):
    result = run("data", "morphomnist", "--mnist", mnist_folder, "--out", tmp_path / "o", "--split", "all")
    assert result.exit_code == 1
    assert "got 'all'" in str(result.exception)
    result = run("data", "morphomnist", "--mnist", tmp_path / "nowhere", "--out", tmp_path / "o")
    assert "There is no folder" in str(result.exception)


def test_the_source_string_matches_nodes_by_name_or_type(rows, published_folder):
    source = f"morphomnist:{published_folder}:test"
    table = read_data(source, NODES)
    np.testing.assert_array_equal(table["image"][:, 0], rows["published"])
    np.testing.assert_array_equal(table["intensity"], rows["intensity"])
    renamed = {"y": NODES["digit"], "thickness": NODES["thickness"], "x": NODES["image"]}
    table = read_data(source, renamed)
    np.testing.assert_array_equal(table["y"], rows["label"])
    assert list(table) == ["y", "thickness", "x"]
    named = read_data(source, {"t": NODES["thickness"]}, columns={"t": "thickness"})
    np.testing.assert_array_equal(named["t"], rows["thickness"])


@pytest.mark.parametrize(
    ("source", "nodes", "message"),
    [
        ("morphomnist:", NODES, "names no folder"),
        ("morphomnist:{}", NODES, "neither train-images-idx3-ubyte nor"),
        ("morphomnist:{}:test", {"thicknes": NODES["thickness"]}, "Did you mean 'thickness'"),
        (
            "morphomnist:{}:test",
            {"a": cg.Image(1, 28, 28), "b": cg.Image(1, 28, 28)},
            "'a' .* means no column",
        ),
        ("morphomnist:{}:test", {"image": cg.Image(1, 32, 32)}, "32"),
        ("morphomnist:{}:test", {"digit": cg.Categorical(3)}, "digit"),
        ("morphomnist:{}:test", {"intensity": cg.Continuous(upper=100)}, "intensity"),
    ],
)
def test_a_source_that_does_not_fit_is_told(published_folder, source, nodes, message):
    with pytest.raises(cg.DataError, match=message):
        read_data(source.format(published_folder), nodes)


def test_a_model_is_fitted_on_a_folder(published_folder):
    graph = nx.DiGraph([("thickness", "intensity")])
    graph.add_node("digit")
    scm = cg.SCM(
        graph,
        variables={name: NODES[name] for name in ("digit", "thickness", "intensity")},
        mechanisms={
            name: cg.mechanisms.Flow(training=cg.mechanisms.Training(epochs=2))
            for name in ("thickness", "intensity")
        },
    )
    scm.fit(f"morphomnist:{published_folder}:test", progress=False)
    assert all(mechanism.fitted for mechanism in scm.mechanisms.values())


def test_synthetic_sets_are_what_they_say():
    table = cg.datasets.measurements(4000, seed=1)
    residual = table["y"] - 2 * table["x"] - 1
    assert residual.std() == pytest.approx(0.5, abs=0.03)
    bars = cg.datasets.bars(50, seed=1)
    assert bars["picture"].dtype == np.uint8
    lit = bars["picture"] > 0
    np.testing.assert_array_equal(lit.any(2).all(1), bars["kind"] == 0)
    np.testing.assert_array_equal(lit.any(1).all(1), bars["kind"] == 1)
    np.testing.assert_array_equal(bars["picture"].max((1, 2)), (255 * bars["brightness"]).round())
    np.testing.assert_array_equal(cg.datasets.bars(50, seed=1)["picture"], bars["picture"])
