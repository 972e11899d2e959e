"""Named data sources: what a plug-in adds by an entry point, and how a name is told from a path."""

import pytest

import causalgen as cg
from causalgen.data.reading import read_data
from causalgen.data.sources import SOURCES, is_named

PLUG_IN = """
import numpy as np
from causalgen.data.sources import DataSource

class Zoo(DataSource):
    kind = "zoo"
    defaults = {"categorical": "species"}

    def read(self, folder, split):
        rows = 3 if split == "test" else 5
        return {"species": np.arange(rows) % 2, "weight": np.arange(rows) + 0.5}

class Wrong:
    kind = "wrong"
"""


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """An installed package with two entry points, one of them wrong."""
    (tmp_path / "zoo_of_tests.py").write_text(PLUG_IN)
    about = tmp_path / "zoo_of_tests-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo-of-tests\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[causalgen.datasets]\nzoo = zoo_of_tests:Zoo\nwrong = zoo_of_tests:Wrong\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def test_a_plug_in_names_a_data_set(zoo):
    assert {"mnist", "morphomnist", "zoo"} <= set(SOURCES.kinds())
    variables = {"kind": cg.Categorical(2), "weight": cg.Continuous()}
    table = read_data("zoo:anywhere", variables)
    assert table["kind"].tolist() == [0, 1, 0, 1, 0]
    assert read_data("zoo:anywhere:test", variables)["weight"].tolist() == [0.5, 1.5, 2.5]
    with pytest.raises(cg.DataError, match="'mass' .* means no column of zoo:.*Columns: species, weight"):
        read_data("zoo:anywhere", {"mass": cg.Continuous()})
    with pytest.raises(cg.DataError, match="names no folder. Write zoo:DIR"):
        read_data("zoo:", variables)


def test_a_plug_in_that_is_no_data_source_is_told(zoo):
    with pytest.raises(cg.MechanismError, match="data set 'wrong' must be a DataSource subclass"):
        read_data("wrong:anywhere", {"x": cg.Continuous()})


def test_a_path_is_not_a_name():
    assert is_named("mnist:DIR") and is_named("morphomnist:DIR:test")
    assert not is_named("C:mnist.csv") and not is_named("mnist") and not is_named(3)
    with pytest.raises(cg.DataError, match="a named one: .*'mnist:DIR', 'morphomnist:DIR'"):
        read_data(3, {"x": cg.Continuous()})


def test_nodes_take_mnist_by_name_or_type(mnist_folder, rows):
    variables = {"y": cg.Categorical(10), "x": cg.Image(1, 28, 28)}
    table = read_data(f"mnist:{mnist_folder}:test", variables)
    assert table["y"].tolist() == rows["label"].tolist()
    named = {"a": cg.Categorical(10), "b": cg.Categorical(10)}
    table = read_data(f"mnist:{mnist_folder}:test", named, columns={"a": "digit", "b": "digit"})
    assert table["a"].tolist() == table["b"].tolist() == rows["label"].tolist()
    with pytest.raises(
        cg.DataError, match=r"Node 't' \(continuous\) means no column of mnist:.*digit, image"
    ):
        read_data(f"mnist:{mnist_folder}:test", variables | {"t": cg.Continuous()})
