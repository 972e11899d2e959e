"""Pictures: what they show, that nothing overlaps, and that pyplot stays out of it."""

import subprocess
import sys
import warnings
from itertools import combinations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import causalgen as cg
from causalgen.plotting.graph_plots import lay_out
from causalgen.plotting.notebook import html
from causalgen.plotting.plots import plot_graph, plot_image_rows, plot_worlds
from graphs.causal_graph import CausalGraph
from tests.causalgen.metrics import shades

GAP, PASSAGE = 0.3, 0.05


@st.composite
def dags(draw):
    """A random DAG of at most 12 nodes, and their widths."""
    count = draw(st.integers(1, 12))
    parents = {
        f"n{node}": [f"n{other}" for other in range(node) if draw(st.booleans())] for node in range(count)
    }
    return CausalGraph(parents), {node: draw(st.floats(0.5, 3)) for node in parents}


@settings(max_examples=60, deadline=None)
@given(dags())
def test_nothing_overlaps_and_arrows_point_down(drawn):
    graph, widths = drawn
    layout = lay_out(graph, widths, GAP, PASSAGE)
    boxes = [(layer, x, widths[node]) for node, (x, layer) in layout.nodes.items()]
    passing = [(layer, x, PASSAGE) for route in layout.routes.values() for x, layer in route[1:-1]]
    for (layer, x, width), (other_layer, other_x, other_width) in combinations(boxes + passing, 2):
        if layer == other_layer:
            assert abs(x - other_x) >= (width + other_width) / 2 + GAP - 1e-9
    assert set(layout.routes) == set(graph.edges)
    for (cause, effect), route in layout.routes.items():
        assert (route[0], route[-1]) == (layout.nodes[cause], layout.nodes[effect])
        assert [layer for _, layer in route] == list(range(route[0][1], route[-1][1] + 1))
    assert layout == lay_out(graph, widths, GAP, PASSAGE)


def test_a_chain_is_straight_and_siblings_are_centred():
    chain = lay_out(CausalGraph({"a": (), "b": ("a",), "c": ("b",)}), {"a": 1, "b": 2, "c": 3}, GAP, PASSAGE)
    assert [x for x, _ in chain.nodes.values()] == pytest.approx([0, 0, 0])
    fork = lay_out(CausalGraph({"a": (), "b": ("a",), "c": ("a",)}), {"a": 1, "b": 1, "c": 1}, GAP, PASSAGE)
    assert fork.nodes["a"][0] == pytest.approx(0)
    assert fork.nodes["b"][0] == pytest.approx(-fork.nodes["c"][0])


def test_a_graph_nobody_could_read_is_refused():
    graph = CausalGraph({f"n{node}": () for node in range(201)})
    with pytest.raises(cg.GraphError, match="201"):
        plot_graph(graph, {})


def test_worlds_stand_below_the_evidence(pictures):
    scm, data = pictures
    abduction = scm.abduct({node: values[:5] for node, values in data.items()}, seed=0)
    worlds = abduction.worlds({"do(kind = 0)": {"kind": 0}, "do(kind = 1)": {"kind": 1}})
    (axes,) = plot_worlds(worlds, rows=3).axes
    words = [text.get_text() for text in axes.texts]
    read = [word for word in words if word.startswith("model reads")]
    assert len(read) == 3  # each row is another in one of the two worlds
    assert [word for word in words if not word.startswith("kind") and word not in read] == [
        "factual",
        *worlds,
        "the first 3 of 5 rows",
    ]
    assert not any("rows" in text.get_text() for text in plot_worlds(worlds).axes[0].texts)
    assert words.count("kind 0") + words.count("kind 1") == 3
    assert len(axes.images) == 9
    np.testing.assert_allclose(axes.images[0].get_array(), data["picture"][0, 0] / 255, atol=1e-6)
    np.testing.assert_allclose(axes.images[6].get_array(), worlds["do(kind = 1)"]["picture"][0, 0], atol=1e-6)


def test_values_that_were_set_row_by_row_are_told_below_the_images(pictures):
    scm, data = pictures
    evidence = {node: values[:2] for node, values in data.items()}
    (axes,) = scm.counterfactual(evidence, do={"kind": [0, 1]}, seed=0).plot().axes
    words = [text.get_text() for text in axes.texts]
    assert "do(kind)" in words
    # The second was set to what it was, so that nothing is read; what a small model reads is not the point.
    assert words[-2].startswith("kind 0\nmodel reads\nkind ")
    assert words[-1] == "kind 1"


def test_whole_numbers_are_told_whole():
    """The year 1987 stood as 1.99e+03 below its image, and 20231 as 2.023e+04 in notebooks."""
    scm = cg.SCM(
        nx.DiGraph([("year", "image")]),
        variables={"year": cg.Continuous(), "image": cg.Image(1, shades.SIDE, shades.SIDE)},
        mechanisms={"year": cg.mechanisms.Empirical(), "image": shades.Tinted(cause="year")},
    )
    rows = {"year": np.array([1987.0, 20231.0, 3e4]), "image": np.zeros((3, 1, shades.SIDE, shades.SIDE))}
    two = {node: column[:2] for node, column in rows.items()}
    cf = scm.fit(rows, progress=False).counterfactual(two, do={"year": cg.Shift(1)}, seed=0)
    words = [text.get_text() for text in cf.plot().axes[0].texts]
    assert {"year 1987", "year 1988", "year 20231", "year 20232"} <= set(words)
    assert "<td>1987, 20231</td>" in html(cf)


def test_images_of_several_sizes_and_channels_share_a_picture():
    rows = {"a": np.zeros((2, 1, 4, 4)), "b": np.ones((2, 3, 8, 4)), "c": np.ones((1, 2, 4, 4))}
    figure = plot_image_rows(rows, title="a title", observed=0)
    figure.canvas.draw()
    (axes,) = figure.axes
    boxes = [image.get_extent() for image in axes.images]
    heights = [abs(bottom - top) for _, _, bottom, top in boxes]
    assert heights[2] == pytest.approx(2 * heights[0])
    assert all(a[2] <= b[3] for a, b in zip(boxes[:2], boxes[2:4], strict=True))


def test_few_rows_are_drawn_one_by_one_and_many_as_distributions(categories):
    scm, data = categories
    few = scm.counterfactual({node: values[:3] for node, values in data.items()}, do={"a": "mid"}, seed=0)
    axes = few.plot().axes
    assert [each.get_title(loc="left") for each in axes] == ["a", "b", "c"]
    assert axes[0].get_title(loc="right") == "do = mid"
    assert [label.get_text() for label in axes[0].get_xticklabels()] == ["low", "mid", "high"]
    factual, after = axes[2].get_lines()
    np.testing.assert_allclose(factual.get_xdata(), data["c"][:3])
    np.testing.assert_allclose(after.get_xdata(), few["c"])
    many = scm.counterfactual({node: values[:30] for node, values in data.items()}, do={"a": "mid"}, seed=0)
    assert many.plot().axes[0].patches
    assert not many.plot().axes[2].get_lines()


def test_pyplot_is_never_imported():
    code = "import causalgen.plotting.plots, sys; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_inferred_values_are_drawn_apart_and_the_legend_says_so(categories):
    scm, data = categories
    evidence = {node: list(values[:4]) for node, values in data.items()}
    evidence["c"][1] = None
    evidence["a"][2] = None
    cf = scm.counterfactual(evidence, do={"b": 0}, num_samples=5, seed=0)
    figure = cf.plot()
    figure.canvas.draw()
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["factual", "inferred", "counterfactual"]
    lines = {line.get_label(): line for line in figure.axes[2].get_lines()}
    observed = np.asarray(lines["factual"].get_xdata(), float)
    np.testing.assert_allclose(observed, [data["c"][0], np.nan, *data["c"][2:4]])
    drawn = np.asarray(lines["inferred"].get_xdata(), float)
    np.testing.assert_allclose(np.sort(drawn), np.sort(cf.inferred["c"][:, 1]))
    whole = scm.counterfactual({node: values[:4] for node, values in data.items()}, do={"b": 0}, seed=0)
    assert [text.get_text() for text in whole.plot().legends[0].get_texts()] == ["factual", "counterfactual"]
    many = {node: [*values, *data[node][:30]] for node, values in evidence.items()}
    axes = scm.counterfactual(many, do={"b": 0}, num_samples=5, seed=0).plot().axes[2]
    assert axes.get_legend_handles_labels()[1] == ["factual", "inferred", "counterfactual"]


def test_a_picture_that_was_not_seen_has_an_empty_place(pictures):
    scm, data = pictures
    evidence = {"kind": [None, 1, 0], "picture": [data["picture"][0], None, data["picture"][2]]}
    (axes,) = scm.counterfactual(evidence, do={"kind": 1}, seed=0).plot().axes
    words = [text.get_text() for text in axes.texts]
    assert words.count("not\nobserved") == 1 and "inferred" in words
    assert sum("(inferred)" in word for word in words) == 1
    assert len(axes.images) == 2 + 1 + 3


def test_of_many_draws_a_few_are_shown(pictures):
    scm, data = pictures
    evidence = {node: values[:1] for node, values in data.items()}
    (axes,) = scm.counterfactual(evidence, do={"kind": 1}, num_samples=30, seed=0).plot().axes
    assert len(axes.images) == 1 + 8
    assert any("#8 of 30" in text.get_text().replace("\n", " ") for text in axes.texts)


def _groups():
    """y = t * (1 + 2 [g is "other"]) + u: the effect of a unit of t is 1 or 3, by g, and 2.4 in the mean."""
    equation, normal = cg.mechanisms.Equation, {"u": {"normal": [0, 1]}}
    return cg.SCM(
        CausalGraph({"g": (), "t": (), "y": ("t", "g")}),
        {"g": cg.Categorical(["all", "other"]), "t": cg.Continuous(), "y": cg.Continuous()},
        {
            "g": equation(value="u", noise={"u": {"bernoulli": 0.7}}),
            "t": equation(value="u", noise=normal),
            "y": equation(value="t * (1 + 2*g) + u", noise=normal),
        },
    )


def _points(axes):
    """What each line of a plot of intervals says: its name, and where its point stands."""
    points = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    return list(zip([text.get_text() for text in axes.get_yticklabels()], points, strict=True))


def test_a_group_called_all_stands_beside_the_effect_over_all():
    effect = _groups().effect("y", do={"t": 1}, versus={"t": 0}, given="g", n=20_000, seed=0)
    drawn = _points(effect.plot().axes[0])
    assert [name for name, _ in drawn] == ["all", "all", "other"]
    assert np.allclose([point for _, point in drawn], [2.4, 1, 3], atol=0.05)


def _mediated() -> cg.SCM:
    """x -> m -> y, and x -> y: a direct effect of 1, and one of 2 * 3 through m."""
    equation, normal = cg.mechanisms.Equation, {"u": {"normal": [0, 1]}}
    return cg.SCM(
        CausalGraph({"x": (), "m": ("x",), "y": ("x", "m")}),
        dict.fromkeys("xmy", cg.Continuous()),
        {
            "x": equation(value="u", noise=normal),
            "m": equation(value="2*x + u", noise=normal),
            "y": equation(value="x + 3*m + u", noise=normal),
        },
    )


def test_natural_effects_of_several_numbers_are_all_drawn():
    scm = _mediated()
    ask = {"do": {"x": 1}, "versus": {"x": 0}, "through": "m", "n": 10, "seed": 0}
    effects = scm.natural_effects("y", statistic=lambda y: np.stack([y, 2 * y], 1), **ask)
    drawn = _points(effects.plot().axes[0])  # total 7, direct 1, indirect 2 * 3, and twice of each
    assert [name for name, _ in drawn] == [
        f"{part}[{k}]" for part in ("total", "direct", "indirect") for k in (0, 1)
    ]
    assert np.allclose([point for _, point in drawn], [7, 14, 1, 2, 6, 12])
    table = scm.natural_effects("y", statistic=lambda y: np.stack([y, 2 * y], 1)[:, None], **ask).plot()
    pictures = [axes.images[0].get_array() for axes in table.axes if axes.images]
    assert np.allclose(pictures, [[[7, 14]], [[1, 2]], [[6, 12]]])


def test_of_natural_effects_of_many_numbers_each_path_has_its_lines():
    scm = _mediated()
    # Number k is k * y: its total effect is 7 k, k of it direct and 6 k through m.
    effects = scm.natural_effects(
        "y",
        statistic=lambda y: np.outer(y, range(50)),
        **{"do": {"x": 1}, "versus": {"x": 0}, "through": "m", "n": 10, "seed": 0},
    )
    figure = effects.plot()
    expected = {"total": 7, "direct": 1, "indirect": 6}
    drawn = _points(figure.axes[0])
    assert [name for name, _ in drawn] == [f"{part}[{k}]" for part in expected for k in range(13)]
    assert np.allclose(
        [point for _, point in drawn], [size * k for size in expected.values() for k in range(13)]
    )
    assert "of 50 numbers the first 13 are drawn" in figure.get_supxlabel().replace("\n", " ")


def test_plots_leave_the_warning_filters_alone(categories, monkeypatch):
    """They are the process's: a thread that changes them for a moment changes what others are told."""
    entered, enter = [], warnings.catch_warnings.__enter__
    monkeypatch.setattr(
        warnings.catch_warnings, "__enter__", lambda self: entered.append(self) or enter(self)
    )
    scm, data = categories
    few = {node: values[:3] for node, values in data.items()}
    cf = scm.counterfactual(few, do={"a": "mid"}, seed=0)
    posterior = scm.abduct({"c": few["c"]}, seed=0).posterior
    effect = _groups().effect("y", do={"t": 1}, versus={"t": 0}, given="g", n=100, seed=0)
    entered.clear()
    plots = (cf, posterior("a"), posterior("b"), scm.counterfactual(data, do={"a": "mid"}, seed=0), effect)
    entered.clear()
    for each in plots:
        each.plot().canvas.draw()
    assert not entered


def test_rows_are_named_beside_every_line_of_panels():
    chain = {f"n{number}": (f"n{number - 1}",) if number else () for number in range(6)}
    scm = cg.SCM(
        CausalGraph(chain),
        dict.fromkeys(chain, cg.Continuous()),
        {
            node: cg.mechanisms.Equation(value=" + ".join([*parents, "u"]), noise={"u": {"normal": [0, 1]}})
            for node, parents in chain.items()
        },
    )
    figure = scm.counterfactual(dict(scm.sample(3, seed=0)), do={"n1": 1.0}).plot()
    named = [[text.get_text() for text in axes.get_yticklabels()] for axes in figure.axes]
    assert named[0] == named[4] == ["0", "1", "2"]  # four panels a line


def test_bars_of_whole_numbers_hold_equally_many():
    """Of 0 .. 99, each once, some bars held 5 of them and some 4."""
    scm = cg.SCM(
        CausalGraph({"n": (), "y": ()}),
        {"n": cg.Integer(), "y": cg.Continuous()},
        {"n": cg.mechanisms.Empirical(), "y": cg.mechanisms.Additive()},
    )
    rows = {"n": np.arange(100), "y": np.linspace(0.0, 1.0, 100)}
    cf = scm.fit(rows, progress=False).counterfactual(rows, do={"y": 0.5}, seed=0)
    *bars, last = (patch for patch in cf.plot().axes[0].patches if hasattr(patch, "get_height"))
    assert {round(100 * bar.get_height()) for bar in bars} == {3} and round(100 * last.get_height()) == 1
