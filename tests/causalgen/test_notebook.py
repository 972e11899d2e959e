"""What a notebook shows: texts of a few lines, well formed and escaped pieces of pages, pictures inside."""

import base64
import io
import re
from html.parser import HTMLParser
from itertools import pairwise
from statistics import NormalDist

import networkx as nx
import numpy as np
import pytest
import torch
from matplotlib.legend import Legend
from matplotlib.text import Text
from PIL import Image as PILImage

import causalgen as cg
from causalgen.counterfactuals.export import figure_svg
from causalgen.counterfactuals.missing_evidence.distributions import MixturePosterior, SamplePosterior
from causalgen.plotting.effect_plots import plot_posterior
from causalgen.plotting.graph_plots import plot_graph
from causalgen.plotting.plots import plot_image_rows

HOSTILE = ("<b>bold</b>", "R&D", r'$\frac"', "plain")


class Page(HTMLParser):
    """Reads a piece of a page: its tables, the sources of its images; fails where tags do not match."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tables, self.images, self.tags, self.words = [], [], [], set(), []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "img":
            self.images.append(dict(attrs)["src"])
            assert dict(attrs)["alt"]
            return
        self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data


def read(shown):
    page = Page(shown._repr_html_())
    for source in page.images:
        kind, data = re.fullmatch(r"data:image/(png|svg\+xml);base64,([A-Za-z0-9+/=]+)", source).groups()
        raw = base64.b64decode(data)
        if kind == "png":
            PILImage.open(io.BytesIO(raw)).verify()
        else:
            assert b"<svg" in raw and b"<script" not in raw
    return page


@pytest.fixture(scope="module")
def clinic():
    """Numbers, and labels and units that would be markup and formulas."""
    rng = np.random.default_rng(0)
    kind, dose = rng.integers(0, 4, 400), rng.normal(size=400)
    pain = 2 * dose + kind + rng.normal(size=400)
    data = {"kind": np.array(HOSTILE, dtype=object)[kind], "dose": dose, "pain": pain}
    scm = cg.SCM(
        nx.DiGraph([("kind", "pain"), ("dose", "pain")]),
        {
            "kind": cg.Categorical(HOSTILE),
            "dose": cg.Continuous(unit="<i>mg</i> & $"),
            "pain": cg.Continuous(),
        },
        {"dose": cg.mechanisms.Additive(), "pain": cg.mechanisms.Additive()},
        name="a <script>x</script> & b",
    )
    return scm.fit(data, seed=0, progress=False), data


@pytest.fixture(scope="module")
def shown(clinic):
    """One of everything."""
    scm, data = clinic
    evidence = {"kind": [HOSTILE[0], None, HOSTILE[2]], "dose": [1.0, None, None], "pain": [2.0, 3.0, 1.0]}
    ab = scm.abduct(evidence, num_samples=20, seed=0)
    effect = scm.effect("pain", do={"dose": 1.0}, versus={"dose": 0.0}, given="kind", n=100, seed=0)
    chain = cg.SCM(
        nx.DiGraph([("a", "m"), ("m", "y"), ("a", "y")]),
        {node: cg.Continuous() for node in "amy"},
        {
            "a": cg.mechanisms.Equation(value="u", noise={"u": {"normal": [0, 1]}}),
            "m": cg.mechanisms.Equation(value="2*a + u", noise={"u": {"normal": [0, 1]}}),
            "y": cg.mechanisms.Equation(value="a + 3*m + u", noise={"u": {"normal": [0, 1]}}),
        },
    )
    return {
        "scm": scm,
        "graph": scm.graph,
        "fit report": scm.fit_report,
        "check": scm.check(data, seed=0),
        "abduction": ab,
        **{f"posterior of {node}": ab.posterior(node) for node in scm.variables},
        "counterfactual": ab.counterfactual({"dose": 0.5}),
        "one draw": scm.counterfactual(evidence, {"dose": 0.5}, seed=0),
        "contrast": ab.contrast({"dose": 1.0}, {"dose": 0.0}),
        "draws": scm.sample(30, seed=0),
        "effect": effect,
        "natural effects": chain.natural_effects(
            "y", do={"a": 1.0}, versus={"a": 0.0}, through=["m"], n=50, seed=0
        ),
        "noise": ab.noise_of("kind"),
    }


NAMES = (
    "scm graph check abduction counterfactual contrast draws effect noise".split()
    + ["fit report", "one draw", "natural effects"]
    + [f"posterior of {node}" for node in ("kind", "dose", "pain")]
)


@pytest.mark.parametrize("name", NAMES)
def test_a_repr_is_a_few_lines_without_raw_tensors(shown, name):
    text = repr(shown[name])
    assert "tensor(" not in text and "array(" not in text and " object at 0x" not in text
    assert len(text.splitlines()) <= 9 and len(text) < 900


@pytest.mark.parametrize("name", [name for name in NAMES if name != "noise"])
def test_pages_are_well_formed_and_escape_every_name(shown, name):
    page = read(shown[name])
    assert page.tags <= {"div", "style", "h4", "p", "ul", "li", "img", "caption"} | {
        "table", "thead", "tbody", "tr", "th", "td",
    }  # fmt: skip
    assert "tensor(" not in "".join(page.words)
    assert page.tables


def test_the_page_of_a_model_has_a_line_a_node_and_its_graph(clinic):
    scm, _ = clinic
    page = read(scm)
    head, *lines = page.tables[0]
    assert head == ["node", "variable", "parents", "mechanism", "state"]
    assert [line[0] for line in lines] == list(scm.variables)
    assert lines[-1][2:] == ["kind, dose", "additive", "fitted"]
    assert "R&D" in lines[1][1] or "R&D" in lines[0][1]
    assert len(page.images) == 1 and page.images[0].startswith("data:image/svg+xml")
    assert "a <script>x</script> & b" in "".join(page.words)


def test_a_model_says_what_is_not_fitted(clinic):
    fitted, data = clinic
    new = cg.SCM(fitted.graph, fitted.variables, {"dose": cg.mechanisms.Additive()}, name="new")
    assert repr(new) == "SCM(new, not fitted: dose; kind; pain <- kind, dose)"
    assert {line[-1] for line in read(new).tables[0][1:]} == {"not fitted"}
    new.fit(data, nodes=["kind", "dose"], seed=0, progress=False)
    assert repr(new) == "SCM(new, pain not fitted: dose; kind; pain <- kind, dose)"
    assert [line[-1] for line in read(new).tables[0][1:]] == ["fitted", "fitted", "not fitted"]


def test_a_large_model_is_cut_and_says_so():
    nodes = [f"n{k:03}" for k in range(200)]
    scm = cg.SCM(
        nx.DiGraph(list(pairwise(nodes))),
        dict.fromkeys(nodes, cg.Continuous()),
        dict.fromkeys(nodes, cg.mechanisms.Additive()),
    )
    assert "... 188 more nodes" in repr(scm) and len(repr(scm)) < 400
    assert "200 nodes and 199 edges" in repr(scm.graph) and len(repr(scm.graph)) < 200
    for shown in (scm, scm.graph):
        page = read(shown)
        assert not page.images  # nobody could read it
        assert len(page.tables[0]) == 25 and "and 176 more" in "".join(page.words)


def test_factual_names_only_what_was_observed(shown, clinic):
    head, *lines = read(shown["counterfactual"]).tables[0]
    assert head == ["node", "evidence", "counterfactual", "provenance"]
    (dose,) = [line for line in lines if line[0] == "dose"]
    first, *others = dose[1].split(", ")
    assert first == "1" and all("(inferred)" in each for each in others) and len(others) == 2
    scm, data = clinic
    whole = scm.counterfactual({node: each[:2] for node, each in data.items()}, {"dose": 0.0}, seed=0)
    assert read(whole).tables[0][0][1] == "factual"


def test_one_draw_says_that_it_is_one(shown):
    assert "one draw of a distribution" in "".join(read(shown["one draw"]).words)
    assert "one draw" not in "".join(read(shown["counterfactual"]).words)


def test_images_are_shown_as_pictures(pictures):
    scm, data = pictures
    (node,) = [name for name, variable in scm.variables.items() if isinstance(variable, cg.Image)]
    evidence = {name: values[:2] for name, values in data.items()}
    lacking = {name: values for name, values in evidence.items() if name != node}
    observed, ab = scm.counterfactual(evidence, {}, seed=0), scm.abduct(lacking, num_samples=2, seed=0)
    posterior = ab.posterior(node)
    for each in (observed, ab.counterfactual({}), scm.sample(2, seed=0), posterior):
        page = read(each)
        assert len(page.images) == 1 and page.images[0].startswith("data:image/png")
        assert "tensor(" not in repr(each) and len(repr(each).splitlines()) < 12
    labels = {text.get_text() for text in observed.plot().findobj(Text)}
    assert "factual" in labels
    labels = {text.get_text() for text in ab.counterfactual({}).plot().findobj(Text)}
    assert "factual" not in labels and "evidence" in labels


def test_a_mean_image_is_told_by_its_range(pictures):
    scm, _ = pictures
    (node,) = [name for name, variable in scm.variables.items() if isinstance(variable, cg.Image)]
    effect = scm.effect(node, do={"kind": 1}, versus={"kind": 0}, statistic=lambda image: image, n=3, seed=0)
    assert "numbers, (" in repr(effect) and len(repr(effect)) < 400
    assert len(read(effect).images) == 1


def test_quantiles_of_weighted_draws_and_of_mixtures():
    draws = SamplePosterior(
        torch.tensor([[3.0], [1.0], [2.0]]), torch.tensor([[0.2], [0.5], [0.3]]), node="x"
    )  # 1 with .5, 2 with .3, 3 with .2
    assert [draws.quantile(level).item() for level in (0.4, 0.5, 0.6, 0.8, 0.81, 1.0)] == [1, 1, 2, 2, 3, 3]
    mean, spread = draws.moments()
    # Over 1 - sum of squared weights, as S - 1 of S equal draws.
    assert mean.item() == pytest.approx(1.7) and spread.item() == pytest.approx((0.61 / 0.62) ** 0.5)
    mixture = MixturePosterior(
        torch.tensor([[0.3], [0.7]], dtype=torch.float64),
        torch.tensor([[-2.0], [1.0]]).double(),
        torch.tensor([[[[4.0]]], [[[0.25]]]]).double(),
    )
    for level in (0.05, 0.5, 0.95):
        at = mixture.quantile(level).item()
        assert 0.3 * NormalDist(-2, 2).cdf(at) + 0.7 * NormalDist(1, 0.5).cdf(at) == pytest.approx(
            level, abs=1e-9
        )


def test_a_posterior_is_summarised_by_what_is_known(shown):
    table = shown["posterior of kind"].summary()
    assert table["source"].tolist() == ["observed", "inferred", "observed"]
    assert table.filter(like="p(").sum(axis=1).tolist() == pytest.approx([1, 1, 1])
    assert table.loc[0, f"p({HOSTILE[0]})"] == 1
    numbers = shown["posterior of dose"].summary()
    assert numbers.loc[0, ["mean", "sd", "5%", "95%"]].tolist() == [1, 0, 1, 1]
    assert (numbers.loc[1:, "5%"] < numbers.loc[1:, "mean"]).all()


def overlaps(figure):
    """Pairs of texts whose boxes cross by more than half a point."""
    figure.canvas.draw()
    keys = {text for legend in figure.findobj(Legend) for text in legend.get_texts()}  # placed when drawn
    found = set(figure.findobj(Text)) - keys
    texts = [text for text in found if text.get_text().strip() and text.get_visible()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    return [
        (one, other)
        for k, (one, a) in enumerate(boxes)
        for other, b in boxes[:k]
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
    ]


def test_captions_and_labels_do_not_collide():
    images = np.zeros((4, 1, 8, 8))
    captions = {"a": ["thickness 3.241 +- 0.053\n(inferred)"] * 4, "b " * 90: ["one\ntwo"] * 4}
    long = "do(intensity = a long expression of other nodes, exp(thickness) + 3 * digit) and more"
    figure = plot_image_rows(
        {"a": images, "b " * 90: images, long: images}, captions=captions, title="a title that is long " * 4
    )
    assert overlaps(figure) == []
    width = figure.bbox.x1
    assert all(text.get_window_extent().x1 <= width + 1 for text in figure.findobj(Text) if text.get_text())


@pytest.mark.parametrize("rows", [3, 30])
def test_panels_have_room_for_their_texts(rows):
    labels = [f"a rather long label {k}" for k in range(12)]
    names = ["a_name_that_is_much_too_long_for_one_panel_of_it", "short", "kind"]
    rng = np.random.default_rng(0)
    scm = cg.SCM(
        nx.DiGraph([(names[0], "short"), ("kind", "short")]),
        {
            names[0]: cg.Continuous(unit="microgram per litre"),
            "short": cg.Continuous(unit="a unit of many words, none of them short"),
            "kind": cg.Categorical(labels),
        },
        {name: cg.mechanisms.Additive() for name in names[:2]},
    )
    data = {
        names[0]: 1e4 * rng.normal(size=60),
        "short": rng.normal(size=60),
        "kind": np.array(labels, dtype=object)[np.arange(60) % 12],
    }
    scm.fit(data, seed=0, progress=False)
    evidence = {name: values[:rows] for name, values in data.items()}
    cf = scm.counterfactual(evidence, {names[0]: "100 + 2 * 3 * 4 * 5 * 6 + 7"}, seed=0)
    assert overlaps(cf.plot()) == []
    effect = scm.effect("short", do={names[0]: 1.0}, given="kind", n=200, seed=0)
    assert overlaps(effect.plot()) == []
    lacking = {names[0]: evidence[names[0]], "kind": evidence["kind"]}
    ab = scm.abduct(lacking | {"kind": [None] * rows}, seed=0)
    for node in ("short", "kind"):
        assert overlaps(plot_posterior(ab.posterior(node))) == []


def test_the_same_picture_is_the_same_bytes():
    graph = cg.CausalGraph.from_networkx(nx.DiGraph([("a", "b"), ("b", "c")]))
    one, other = (figure_svg(plot_graph(graph, dict.fromkeys("abc", cg.Continuous()))) for _ in range(2))
    assert one == other and b'id="n0"' in one
    for name in set(re.findall(rb'(?:url\(|href=")#([\w-]+)', one)):
        assert b'id="' + name + b'"' in one
