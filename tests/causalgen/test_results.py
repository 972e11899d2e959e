"""Results: frames, folders, pictures, HTML, provenance."""

import json

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from PIL import Image as PILImage

import causalgen as cg
from causalgen.plotting.plots import plot_graph, plot_image_rows


def test_frames_have_labels_and_sample_rows(categories):
    scm, data = categories
    evidence = {node: values[:4] for node, values in data.items()}
    one = scm.counterfactual(evidence, do={"a": "mid"}, seed=0).to_frame()
    assert list(one.columns) == ["a", "b", "c"]
    assert set(one["a"]) == {"mid"}
    many = scm.counterfactual(evidence, do={"a": "mid"}, num_samples=3, seed=0).to_frame()
    assert many.index.names == ["sample", "row"]
    assert len(many) == 12


def test_a_frame_round_trips_its_index(linear):
    scm, data = linear
    frame = pd.DataFrame(data).iloc[:3].set_axis(["p", "q", "r"])
    assert list(scm.counterfactual(frame, do={"x": 0.0}, seed=0).to_frame().index) == ["p", "q", "r"]


def test_saving_writes_values_pictures_and_provenance(pictures, tmp_path):
    scm, data = pictures
    evidence = {node: values[:3] for node, values in data.items()}
    cf = scm.counterfactual(evidence, do={"kind": 1}, seed=5)
    folder = cf.save(tmp_path / "result")
    assert not list(tmp_path.glob(".*"))
    told = json.loads((folder / "result.json").read_text())
    assert told["seed"] == 5
    assert told["do"] == {"kind": "1"}
    assert told["provenance"]["kind"] == ["interventional"] * 3
    assert list(pd.read_csv(folder / "values.csv")["kind"]) == [1, 1, 1]
    with PILImage.open(folder / "picture" / "0002.png") as picture:
        written = np.asarray(picture)
    np.testing.assert_allclose(written / 255, cf["picture"][2, 0], atol=0.5 / 255 + 1e-6)


def test_an_unwritable_folder_leaves_nothing(linear, tmp_path):
    scm, _ = linear
    (tmp_path / "file").write_text("")
    with pytest.raises(cg.CheckpointError, match="Cannot save"):
        scm.sample(2, seed=0).save(tmp_path / "file" / "result")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("model", ["linear", "categories", "pictures"])
def test_everything_can_be_drawn(model, request):
    scm, data = request.getfixturevalue(model)
    evidence = {node: values[:5] for node, values in data.items()}
    for draws in (scm.sample(4, seed=0), scm.counterfactual(evidence, do={}, seed=0)):
        figure = draws.plot(rows=3)
        figure.canvas.draw()
        assert "<table" in draws._repr_html_()
        assert "data:image/png" in draws._repr_html_()


def test_the_grid_frames_what_it_is_told_to():
    rows = {"factual": np.zeros((3, 1, 4, 4)), "do": np.ones((3, 3, 4, 4))}
    figure = plot_image_rows(rows, {"do": [True, False, False]})
    figure.canvas.draw()
    (axes,) = figure.axes
    assert len(axes.images) == 6
    assert len(axes.patches) == 1


def test_the_graph_names_every_node(categories):
    scm, _ = categories
    figure = plot_graph(scm.graph, scm.variables)
    figure.canvas.draw()
    words = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert all(node in words for node in scm.graph.nodes)


def test_unknown_nodes_and_repr(linear):
    scm, _ = linear
    draws = scm.sample(3, seed=0)
    with pytest.raises(cg.UnknownNameError, match="'q' in the result"):
        _ = draws["q"]
    assert repr(draws) == "Draws(3 rows: w, x, y, z)"
    assert len(draws) == 4


def test_gaps_in_labels_of_a_frame_are_gaps_everywhere(tmp_path):
    coin = cg.mechanisms.Equation(value="u", noise={"u": {"bernoulli": 0.5}})
    noisy = cg.mechanisms.Equation(value="k + u", noise={"u": {"normal": [0, 1]}})
    scm = cg.SCM(
        nx.DiGraph([("k", "y")]),
        {"k": cg.Categorical(["u", "v"]), "y": cg.Continuous()},
        {"k": coin, "y": noisy},
    )
    found = scm.counterfactual(pd.DataFrame({"k": ["u", None], "y": [0.0, 1.0]}), do={"y": 0.0}, seed=0)
    assert found.factual["k"].tolist() == ["u", None]
    found.save(tmp_path / "out")
    assert found.plot() is not None and "<table" in found._repr_html_()


@pytest.mark.parametrize("samples", [None, 2])
def test_what_is_done_to_an_answer_in_place_changes_no_other(samples):
    graph = nx.DiGraph([("x", "y")])
    normal = {"u": {"normal": [0, 1]}}
    mechanisms = {"x": cg.mechanisms.Equation(value="u", noise=normal)}
    mechanisms["y"] = cg.mechanisms.Equation(value="x + u", noise=normal)
    scm = cg.SCM(graph, {"x": cg.Continuous(), "y": cg.Continuous()}, mechanisms)
    rows = {"x": [1.0, 2.0, None], "y": [3.0, 4.0, 5.0]}
    abduction = scm.abduct(rows, num_samples=samples, seed=0)
    first, second = (abduction.counterfactual({"y": value}) for value in (1.0, 2.0))
    kept = [first.to_frame(), second.to_frame()]
    noise = [leaf for each in (abduction, first) for leaf in each.noise.get("y", {}).values()]
    noise += [*abduction.noise_of("x").values(), first.canonical("x"), abduction.posterior("x").mean]
    noise += [first.draws("x"), first.draws("y"), first.factual_canonical("y"), first.inferred_draws("x")]
    for values in (first["x"], first.factual["x"], first.inferred["x"], second["y"], *noise):
        values.mul_(100.0)
    again = abduction.counterfactual({"y": 2.0})
    for answer, frame in zip((first, second, again), (*kept, kept[1]), strict=True):
        pd.testing.assert_frame_equal(answer.to_frame(), frame)
