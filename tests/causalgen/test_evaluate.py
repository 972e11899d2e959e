"""``cg.evaluate`` and ``causalgen evaluate``: what a report holds, where the answer is known by hand."""

import json
import re
from dataclasses import replace

import networkx as nx
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
from matplotlib.figure import Figure
from PIL import Image as PILImage
from typer.testing import CliRunner

import causalgen as cg
from causalgen.cli import main as cli
from causalgen.counterfactuals.export import to_png
from causalgen.evaluation import pictures
from causalgen.evaluation.metric import FLOOR, MECHANISM, METRICS, MODEL, Metric
from causalgen.evaluation.questions import other_values
from causalgen.evaluation.report import EvaluatedModel
from causalgen.metrics.evaluators.evaluators import Evaluators, Recipe, find_roles
from graphs.errors import (
    CheckpointError,
    DataError,
    DomainError,
    EvidenceError,
    NotFittedError,
    ShapeError,
    UnknownNameError,
)
from tests.causalgen.metrics import shades
from tests.causalgen.metrics.test_axioms import logits


@pytest.fixture(scope="module")
def data():
    return shades.rows(120)


def truth_of(data):
    """The true model: 0.4 between kinds, a quarter of the shade in the image."""

    def truth(rows, do):
        kind, shade = data["kind"][rows], data["shade"][rows]
        new = do["shade"] if "shade" in do else shade + 0.4 * (do["kind"] - kind)
        tint = ((new - shade) / 4)[:, None, None, None].astype(np.float32)
        return {"kind": do.get("kind", kind), "shade": new, "image": data["image"][rows] + tint}

    return truth


EVALUATORS = {"kind": logits, "shade": shades.shade_of}


@pytest.fixture(scope="module")
def exact(data):
    scm = shades.shades().fit(data, progress=False)
    return cg.evaluate(scm, data, evaluators=EVALUATORS, truth=truth_of(data), progress=False)


def score(report, metric, **where):
    (entry,) = report.find(metric, **where)
    return entry.score


def test_an_exact_mechanism_is_told_to_be(exact):
    for do in ("shade", "kind"):
        assert score(exact, "effectiveness", subject=MECHANISM, do=do, of="shade").value < 1e-5
        assert score(exact, "true error", subject=MECHANISM, do=do, of="pixels").value < 1e-4
        assert score(exact, "reversibility", do=do).value < 1e-3
    for cycles in ("1", "10"):
        assert score(exact, "composition", node="image", of=cycles).value < 1e-3


def test_doing_nothing_is_the_distance_to_what_was_asked(exact, data):
    nothing = score(exact, "effectiveness", subject="do nothing", do="kind", of="shade")
    assert nothing.value == pytest.approx(0.4, abs=1e-5)
    assert score(exact, "distance", subject="do nothing", do="kind").value == 0
    moved = score(exact, "distance", subject=MECHANISM, do="kind").value
    assert moved == pytest.approx(255 * 0.4 / 4, rel=1e-4)
    assert score(exact, "true error", subject="do nothing", do="kind", of="pixels").value == pytest.approx(
        moved
    )
    assert score(exact, "minimality", subject="do nothing", do="kind").value == pytest.approx(
        0.2954, abs=1e-4
    )


def test_the_floor_is_what_is_read_from_factual_images(exact, data):
    light = data["image"].mean((1, 2, 3)) > 0.5
    floor = score(exact, "effectiveness", subject=FLOOR, of="kind")
    assert floor.value == pytest.approx((light == data["kind"]).mean())


def test_the_whole_model_is_apart_where_a_cause_depends_on_another(exact):
    """do(kind) moves the shade, do(shade) does not move the kind."""
    assert exact.find("distance", subject=MODEL, do="kind")
    assert not exact.find("distance", subject=MODEL, do="shade")
    # The fitted step from kind to shade is not quite 0.4.
    error = score(exact, "effectiveness", subject=MODEL, do="kind", of="shade").value
    assert 1e-4 < error < 0.1


def test_counterfactuals_of_an_exact_mechanism_have_the_interventional_law(exact):
    for do in ("shade", "kind"):
        (law,) = exact.find("consistency", subject=MECHANISM, do=do, of="shade")
        assert law.score.value < 1.36 * (2 / law.score.rows) ** 0.5
        assert law.score.unit == "KS distance"
    assert exact.find("consistency", subject=MODEL, do="kind", of="pixel variance")
    text = str(exact)
    assert "image under do(kind): interventional consistency" in text


@pytest.mark.parametrize("share", [1, 0.5])
def test_noise_of_half_the_range_shows_as_a_quarter_of_the_pixel_variance(share):
    """As an abduction that shrinks the noise would make it."""
    data = shades.rows(120, seed=5)
    scm = shades.shades().fit(data, progress=False)
    pattern = data["image"] - 0.5 - data["shade"][:, None, None, None].astype(np.float32) / 4
    alike = {"kind": data["kind"], "shade": np.zeros(120), "image": 0.5 + np.float32(share) * pattern}
    report = cg.evaluate(scm, alike, rows=120, evaluators=EVALUATORS, progress=False)
    found = score(report, "consistency", subject=MECHANISM, do="kind", of="pixel variance")
    assert found.value == pytest.approx(share**2, rel=0.06) and found.low < found.value < found.high


@pytest.mark.parametrize("name", ["intensity", "thickness", "size", "slant"])
def test_no_variable_is_measured_for_its_name(name, data):
    """An X-ray's intensity is no pen stroke: the same model, its shade by another name."""
    scm = cg.SCM(
        nx.DiGraph([(name, "image")]),
        variables={name: cg.Continuous(lower=-1.5, upper=1.5), "image": cg.Image(1, 6, 6)},
        mechanisms={name: cg.mechanisms.Additive(), "image": shades.Tinted(cause=name)},
    )
    named = {name: data["shade"][:30], "image": data["image"][:30]}
    scm = scm.fit(named, progress=False)
    report = cg.evaluate(scm, named, progress=False)
    assert not report.find("effectiveness") and any(f"nothing reads {name}" in note for note in report.notes)
    asked = cg.evaluate(scm, named, measures={name: shades.shade_of}, progress=False)
    assert score(asked, "effectiveness", subject=MECHANISM, of=name, by="measured").value < 1e-5
    strokes = cg.evaluate(scm, named, measures="strokes", progress=False)
    assert strokes.find("effectiveness", of=name, by="measured")
    with pytest.raises(DomainError, match="measures is 'strokes', 'pendulum', or attribute .* got 'stroke'"):
        cg.evaluate(scm, named, measures="stroke", progress=False)


def test_controls_are_real_images_of_the_class(exact):
    for subject in ("random real", "nearest real"):
        assert score(exact, "effectiveness", subject=subject, do="shade", of="shade").value < 0.05


def test_whoever_reads_gets_tensors_for_every_metric(data):
    """Networks got arrays of numpy for consistency and likeness, and failed."""
    scm = shades.shades().fit(data, progress=False)

    def network(images):
        return 4 * (images.flatten(1).mean(1, keepdim=True) - 0.5)

    by_network, by_hand = (
        cg.evaluate(scm, data, evaluators={"shade": each}, measures={"tint": each}, progress=False)
        for each in (network, shades.shade_of)
    )
    for metric, do in (("consistency", "shade"), ("likeness", "kind")):
        for of in ("shade", "tint"):
            found = score(by_network, metric, subject=MECHANISM, do=do, of=of)
            assert found.value == pytest.approx(score(by_hand, metric, subject=MECHANISM, do=do, of=of).value)


def test_readers_are_of_the_image_nodes_that_they_fit(data):
    """With a second image node whoever read the first one was refused, as no cause of the other's."""

    def narrow(images):
        if images.shape[-1] != shades.SIDE:
            raise ShapeError("not narrow")
        return images.amax((1, 2, 3))

    plain = shades.shades()
    graph = nx.DiGraph([*plain.graph.edges, ("shade", "wide")])
    variables = {**plain.variables, "wide": cg.Image(1, shades.SIDE, 9)}
    mechanisms = {name: shades.Tinted() for name in ("image", "wide")}
    rows = data | {"wide": data["image"].repeat(2, -1)[..., :9]}
    scm = cg.SCM(graph, variables, mechanisms | {"shade": cg.mechanisms.Additive()}).fit(rows, progress=False)
    options = {"evaluators": EVALUATORS, "measures": {"narrow": narrow}, "progress": False}
    report = cg.evaluate(scm, rows, **options)
    for node in ("image", "wide"):
        found = score(report, "effectiveness", subject=MECHANISM, node=node, do="shade", of="shade")
        assert found.value == pytest.approx(
            score(report, "effectiveness", subject=FLOOR, node=node, of="shade").value, abs=1e-5
        )
    assert not report.find("effectiveness", node="wide", of="kind")
    assert report.find("likeness", node="image", of="narrow") and not report.find(
        "likeness", node="wide", of="narrow"
    )
    assert any("no likeness of narrow. not narrow" in note for note in report.notes)
    with pytest.raises(DataError, match="predictor of 'age'"):
        cg.evaluate(scm, rows, evaluators={"age": logits}, progress=False)
    with pytest.raises(DomainError, match="'pendulum' is for colour images"):
        cg.evaluate(scm, rows, measures="pendulum", progress=False)


def test_labels_may_be_texts_and_numbers(data):
    """They do not sort, and need not."""
    plain = shades.shades()
    reports = []
    for labels in (["dark", "1"], ["dark", 1]):
        variables = {**plain.variables, "kind": cg.Categorical(labels)}
        mechanisms = {"shade": cg.mechanisms.Additive(), "image": shades.Tinted()}
        rows = data | {"kind": np.array(labels, dtype=object)[data["kind"]]}
        scm = cg.SCM(plain.graph, variables, mechanisms).fit(rows, progress=False)
        reports.append(cg.evaluate(scm, rows, metrics=["likeness", "consistency"], progress=False))
    one, other = ([entry.to_dict() for entry in each.entries] for each in reports)
    assert one == other and reports[1].find("likeness", do="kind", of="pixels")


def test_a_mechanism_that_does_nothing_scores_as_doing_nothing(data):
    scm = shades.shades(moves=False).fit(data, progress=False)
    report = cg.evaluate(scm, data, evaluators=EVALUATORS, truth=truth_of(data), progress=False)
    for metric, of in (("effectiveness", "shade"), ("effectiveness", "kind"), ("true error", "pixels")):
        lazy = score(report, metric, subject=MECHANISM, do="shade", of=of)
        nothing = score(report, metric, subject="do nothing", do="shade", of=of)
        assert lazy.value == pytest.approx(nothing.value, abs=1e-5)
    assert score(report, "distance", subject=MECHANISM, do="shade").value < 1e-4
    assert score(report, "reversibility", do="shade").value < 1e-4


def test_without_a_truth_other_causes_stay_factual(data):
    scm = shades.shades().fit(data, progress=False)
    report = cg.evaluate(scm, data, evaluators=EVALUATORS, progress=False)
    assert not report.find("true error") and not report.truth
    assert score(report, "distance", subject=MECHANISM, do="kind").value < 1e-4
    # The whole model is held to the shade that it made itself.
    assert score(report, "effectiveness", subject=MODEL, do="kind", of="shade").value < 1e-5


def test_the_same_seed_gives_the_same_report(exact, data):
    scm = shades.shades().fit(data, progress=False)
    again = cg.evaluate(scm, data, evaluators=EVALUATORS, truth=truth_of(data), progress=False)
    assert again.to_dict()["entries"] == exact.to_dict()["entries"]


def test_workers_give_the_same_report(pictures, monkeypatch):
    scm, data = pictures
    monkeypatch.setattr("causalgen.metrics.node_passes.BATCH_ROWS", 16)  # several batches to share
    drawn = scm.with_options("picture", abduction="posterior")
    alone, shared = (
        cg.evaluate(drawn, data, rows=32, workers=workers, progress=False).to_dict()["entries"]
        for workers in (1, 2)
    )
    assert alone == shared
    with pytest.raises(EvidenceError, match="at least 1, or a pool"):
        cg.evaluate(drawn, data, workers=0, progress=False)


def test_another_seed_asks_about_other_rows(linear):
    scm, data = linear
    one, other = (cg.evaluate(scm, data, rows=30, progress=False, seed=seed) for seed in (0, 1))
    assert one.find("composition") != other.find("composition")


def test_a_table_without_images(linear):
    scm, data = linear
    report = cg.evaluate(scm, data, progress=False)
    assert report.rows == 200 and report.available == 400 and report.check["ok"]
    found = {entry.node: entry.score.value for entry in report.find("log-likelihood")}
    assert sum(found.values()) == pytest.approx(float(scm.log_prob(data).mean()), rel=1e-9)
    assert all(entry.score.value < 1e-9 for entry in report.find("composition"))
    assert not report.pictures and not report.find("effectiveness")
    assert "log-likelihood, nats a row" in str(report)


def test_a_missing_edge_that_the_check_finds_is_in_the_notes():
    """Of the check the report has a table of fits, and these were all ok."""
    a, u, v = np.random.default_rng(0).normal(size=(3, 200))
    rows = {"a": a, "b": a + u, "c": a + v}
    graph, linear = nx.DiGraph([("a", "b")]), {node: cg.mechanisms.Additive() for node in rows}
    graph.add_node("c")
    scm = cg.SCM(graph, {node: cg.Continuous() for node in rows}, linear).fit(rows, progress=False)
    found = cg.evaluate(scm, rows, rows=20, metrics=["log_likelihood"], progress=False)
    assert any(note.startswith("scm.check: c depends on a beyond its parents") for note in found.notes)
    assert "FAILS" not in str(found) and "depends on a beyond" in str(found)


def test_step_residuals_are_told_apart(pictures):
    scm, data = pictures
    report = cg.evaluate(scm, data, rows=12, progress=False)
    kept = score(report, "composition", node="picture", of="10", by="with residuals")
    bare = score(report, "composition", node="picture", of="10", by="without residuals")
    assert kept.value < 1e-2 < bare.value
    assert any("nothing reads kind" in note for note in report.notes)


def test_trained_networks_score_the_category_they_know(pictures):
    """Networks with whatever weights: what is scored, and what is said where it cannot be."""
    scm, data = pictures
    networks = Evaluators("bars", find_roles(scm.variables), Recipe())
    report = cg.evaluate(scm, data, rows=8, evaluators=networks, progress=False)
    for metric in ("IM1", "IM2", "CLD"):
        assert score(report, metric, subject=MECHANISM, do="kind").rows == 8
    assert score(report, "CLD", subject=FLOOR).value <= score(report, "CLD", subject="do nothing").value
    assert score(report, "CLD", subject="do nothing").value == pytest.approx(np.log(1 + np.e))
    assert any("no FD" in note and "checksum" in note for note in report.notes)
    other = Evaluators(
        "bars", find_roles({"kind": cg.Categorical(3), "picture": cg.Image(1, 8, 8)}), Recipe()
    )
    with pytest.raises(DomainError, match="another variable 'kind': categorical, 3"):
        cg.evaluate(scm, data, rows=8, evaluators=other, progress=False)
    other = Evaluators(
        "bars", find_roles({"kind": cg.Categorical(2), "picture": cg.Image(1, 4, 8)}), Recipe()
    )
    with pytest.raises(DomainError, match="read image 1x4x8"):
        cg.evaluate(scm, data, rows=8, evaluators=other, progress=False)
    other = Evaluators(
        "bars", find_roles({"sort": cg.Categorical(2), "picture": cg.Image(1, 8, 8)}), Recipe()
    )
    with pytest.raises(DomainError, match="know none of the causes kind"):
        cg.evaluate(scm, data, rows=8, evaluators=other, progress=False)


def test_the_page_is_one_file_and_needs_no_network(exact, tmp_path):
    page = exact.save(tmp_path / "report")
    text = page.read_text(encoding="utf-8")
    assert page == tmp_path / "report" / "index.html"
    assert not re.findall(r'(?:src|href)="(?!data:)', text) and "http" not in text and "<script" not in text
    assert text.count("<table>") == text.count("</table>") >= 6
    told = json.loads((tmp_path / "report" / "report.json").read_text())
    assert told["entries"] == exact.to_dict()["entries"]
    for name in ("image.png", "image-do-shade-predictor.png", "image-composition.png"):
        with PILImage.open(tmp_path / "report" / "pictures" / name) as picture:
            assert picture.size[0] > 300
    exact.save(tmp_path / "report")  # an earlier report is replaced
    (tmp_path / "report" / "mine.txt").write_text("kept")
    with pytest.raises(CheckpointError, match="mine.txt"):
        exact.save(tmp_path / "report")


def test_a_node_has_its_own_pictures(exact, tmp_path):
    """Those of another node, image-2, stood among those of image."""
    other = {"image-2.png": b"", "image-2-composition.png": b"", "image-2-do-kind-draws.png": b""}
    text = replace(exact, pictures={**exact.pictures, **other}).save(tmp_path / "r").read_text("utf-8")
    assert "image 2" not in text and text.count("<img") == len(exact.pictures)


def test_pictures_tell_values_and_labels_whole():
    """Below an image stood "shadow_position ", without a number, and labels were cut to one text."""
    columns = {"shadow_position": np.array([12.3456]), "dose": np.array([0.00312])}
    assert re.fullmatch(r"shadow.* 12\.35\ndose 0\.00312", pictures._values(columns, list(columns), 0))
    variable = cg.Categorical([f"category {code}" for code in range(400)])
    axes = Figure().subplots()
    for count in (3, 400):
        pictures._bars(axes, variable, np.arange(count), np.arange(count))
        texts = [label.get_text() for label in axes.get_xticklabels()]
        assert len(set(texts)) == len(texts) <= 30 and texts[1] == f"category {1 if count == 3 else 14}"


def test_names_are_escaped_on_the_page(tmp_path):
    random = np.random.default_rng(0)
    label = np.array(["<b>&", 'a"c'])[random.integers(0, 2, 40)]
    scm = cg.SCM(
        nx.DiGraph([("k", "x")]),
        variables={"k": cg.Categorical(["<b>&", 'a"c']), "x": cg.Continuous(unit="<i>")},
        mechanisms={"x": cg.mechanisms.Additive()},
        name="<script>",
    ).fit({"k": label, "x": random.normal(size=40)}, progress=False)
    page = cg.evaluate(scm, {"k": label, "x": random.normal(size=40)}, progress=False).save(tmp_path / "r")
    text = page.read_text(encoding="utf-8")
    assert "<script>" not in text and "<i>" not in text and "&lt;script&gt;" in text


@pytest.mark.parametrize("variable", [cg.Categorical(3), cg.Categorical([4, 7, 9]), cg.Continuous()])
def test_new_values_are_other_ones(variable):
    random = np.random.default_rng(0)
    values = random.normal(size=50) if variable.type == "continuous" else random.integers(0, 3, 50)
    values = np.asarray(variable.decode(values))
    other = other_values(variable, values, seed=3)
    assert (other != values).all()
    if variable.type == "continuous":
        assert sorted(other) == sorted(values)
    else:
        assert set(other.tolist()) == set(values.tolist())


def test_the_true_world_of_morphomnist():
    digits = np.zeros((2, 28, 28), np.uint8)
    digits[:, 5:22, 12:16] = 255
    columns = {
        "digit": [1, 1],
        "thickness": [3.0, 3.0],
        "intensity": cg.datasets.intensity_of(np.full(2, 3.0), 0.3),
    }
    truth = cg.datasets.morphomnist_truth(columns, digits)
    world = truth(np.array([1]), {"thickness": np.array([2.0])})
    assert world["intensity"] == pytest.approx(cg.datasets.intensity_of(np.array([2.0]), 0.3))
    assert world["image"].shape == (1, 1, 28, 28)
    assert cg.metrics.intensity(world["image"]) == pytest.approx(world["intensity"], abs=2)
    brighter = truth(np.array([0]), {"intensity": np.array([200.0])})
    assert brighter["thickness"] == 3.0 and brighter["intensity"] == 200
    other = truth(np.array([0]), {"digit": np.array([7])})
    assert "image" not in other and other["thickness"] == 3.0
    with pytest.raises(DataError, match="originals"):
        cg.datasets.morphomnist_truth(columns, digits[:1])


def test_what_cannot_be_evaluated(data, linear):
    scm = shades.shades()
    with pytest.raises(NotFittedError, match="'kind' has not been fitted"):
        cg.evaluate(scm, data, progress=False)
    scm = scm.fit(data, progress=False)
    with pytest.raises(DataError, match="120 rows.*got 500"):
        cg.evaluate(scm, data, rows=500, progress=False)
    with pytest.raises(DataError, match="lack the column 'shade'"):
        cg.evaluate(scm, {"kind": data["kind"], "image": data["image"]}, progress=False)
    with pytest.raises(DataError, match="at least 2 rows"):
        cg.evaluate(scm, {name: values[:1] for name, values in data.items()}, progress=False)
    with pytest.raises(DataError, match="no rows"):
        cg.evaluate(scm, {name: values[:0] for name, values in data.items()}, progress=False)
    with pytest.raises(DataError, match="predictor of 'age'.*no cause of the image"):
        cg.evaluate(scm, data, evaluators={"age": logits}, progress=False)
    with pytest.raises(DataError, match=r"\[0, 1\]"):
        cg.evaluate(scm, data | {"image": 255 * data["image"]}, progress=False)


def test_the_old_keyword_is_refused_with_the_new_one(linear):
    scm, data = linear
    with pytest.raises(TypeError, match="evaluate: the keyword 'judges' is now 'evaluators'"):
        cg.evaluate(scm, data, judges={})


def test_metrics_are_chosen_by_kind(linear):
    scm, data = linear
    report = cg.evaluate(scm, data, metrics=["log_likelihood"], progress=False)
    assert {entry.metric for entry in report.entries} == {"log-likelihood"}
    with pytest.raises(UnknownNameError, match="metric 'log_likelyhood'.*log_likelihood"):
        cg.evaluate(scm, data, metrics=["log_likelyhood"], progress=False)


def test_built_in_metrics_are_registered_and_final():
    for kind in METRICS.kinds():
        metric = METRICS.get(kind)
        assert metric.kind == kind and not metric.__subclasses__() and getattr(metric, "__final__", False)


def test_classes_with_too_few_images_are_noted(data):
    few = {name: values[:8] for name, values in data.items()}
    scm = shades.shades().fit(data, progress=False)
    report = cg.evaluate(scm, few, evaluators=EVALUATORS, progress=False)
    assert any("no minimality. Class" in note for note in report.notes)
    assert any("scm.check needs 20 rows" in note for note in report.notes)
    assert report.find("effectiveness", subject=MECHANISM)


@pytest.fixture(scope="module")
def folder(pictures, tmp_path_factory):
    scm, data = pictures
    root = tmp_path_factory.mktemp("evaluate")
    scm.save_pretrained(root / "model")
    for row in range(8):
        (root / f"{row}.png").write_bytes(to_png(data["picture"][row] / 255))
    table = pd.DataFrame({"kind": data["kind"][:8], "picture": [f"{row}.png" for row in range(8)]})
    table.to_csv(root / "table.csv", index=False)
    return root


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_rows_with_gaps_are_left_out_where_told(data):
    """As those rows taken out by hand; the truth is asked by the row numbers of the data as they were."""
    scm = shades.shades().fit(data, progress=False)
    lacking = np.isin(np.arange(120), [0, 3, 4, 50, 119])
    gaps = data | {"shade": np.where(lacking, np.nan, data["shade"])}
    with pytest.raises(DataError, match="missing in 5 of the 120 rows: .*missing='drop'"):
        cg.evaluate(scm, gaps, progress=False)
    options = {"evaluators": EVALUATORS, "rows": 60, "seed": 2, "progress": False}
    found = cg.evaluate(scm, gaps, missing="drop", truth=truth_of(data), **options)
    rest = {node: values[~lacking] for node, values in data.items()}
    by_hand = cg.evaluate(scm, rest, truth=truth_of(rest), **options)
    assert [each.to_dict() for each in found.entries] == [each.to_dict() for each in by_hand.entries]
    assert found.available == 115 and by_hand.check == scm.check(rest, seed=2).to_dict()
    assert found.check == scm.check(gaps, missing="drop", seed=2).to_dict() != by_hand.check
    assert "5 of the 120 rows of the data lack a value and were left out." in str(found)
    with pytest.raises(DataError, match="have 115 rows without missing values, of 120: .*got 116"):
        cg.evaluate(scm, gaps, missing="drop", rows=116, progress=False)
    with pytest.raises(DataError, match="missing is 'refuse' or 'drop', got 'skip'"):
        cg.evaluate(scm, gaps, missing="skip", progress=False)


def test_the_command_leaves_rows_with_gaps_out(folder, tmp_path):
    table = pd.read_csv(folder / "table.csv").astype({"kind": "Int64"})
    table.loc[5, "kind"] = None
    table.to_csv(folder / "gaps.csv", index=False)
    words = ["evaluate", folder / "model", "--data", folder / "gaps.csv", "--out", tmp_path / "r"]
    assert "--missing drop" in str(run(*words).exception)
    assert "'skip' is not one of 'refuse'" in run(*words, "--missing", "skip").output
    told = run(*words, "--missing", "drop")
    assert told.exit_code == 0 and "1 of the 8 rows of the data lack a value" in told.output, told.output


def test_the_command(folder, tmp_path):
    told = run(
        "evaluate", folder / "model", "--data", folder / "table.csv", "--rows", 6, "--out", tmp_path / "r"
    )
    assert told.exit_code == 0, told.output
    assert "picture under do(kind)" in told.output and "without residuals" in told.output
    assert (tmp_path / "r" / "index.html").is_file()
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert report["rows"] == 6 and report["available"] == 8


def test_the_command_refuses_before_it_works(folder, tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    arguments = ["evaluate", folder / "model", "--data", folder / "table.csv"]
    assert isinstance(run(*arguments, "--out", tmp_path).exception, CheckpointError)
    found = run(*arguments, "--truth", tmp_path, "--out", tmp_path / "r").exception
    assert isinstance(found, DataError) and "morphomnist:DIR" in str(found)
    assert not (tmp_path / "r").exists()


def test_causes_that_are_not_set_are_named(data):
    made = shades.shades()
    scm = cg.SCM(
        nx.DiGraph([*made.graph.edges, ("ink", "image")]),
        {**made.variables, "ink": cg.Continuous(shape=(2,))},
        {"image": shades.Tinted()} | dict.fromkeys(("ink", "shade"), cg.mechanisms.Additive()),
    )
    given = data | {"ink": np.random.default_rng(0).normal(size=(len(data["kind"]), 2))}
    scm = scm.fit(given, progress=False)
    report = cg.evaluate(scm, given, rows=8, evaluators=EVALUATORS, metrics=["distance"], progress=False)
    (note,) = report.notes
    assert note.startswith("image: ink not set, so whether do(ink) works was not measured")


def test_rows_of_probability_zero_are_counted_not_left_out():
    """Of 40 rows one has a category that fitting never saw; 30 have one of probability 3/4."""
    codes, counted = np.array([0] * 30 + [1] * 10), cg.mechanisms.Categorical(smoothing=0)
    scm = cg.SCM(nx.DiGraph({"x": []}), {"x": cg.Categorical(3)}, {"x": counted})
    scm = scm.fit({"x": codes}, progress=False)
    codes[35] = 2
    report = cg.evaluate(scm, {"x": codes}, metrics=["log_likelihood"], progress=False)
    found = score(report, "log-likelihood")
    others = (30 * np.log(0.75) + 9 * np.log(0.25)) / 39
    assert found.value == -np.inf and found.rows == 40 and str(found) == "-inf"
    (note,) = report.notes
    assert "x: 1 of 40 rows have probability 0, the first of them row 35" in note
    assert f"that of the others is {others:.3f} (" in note and "measurable" not in note
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["entries"][0]["value"] is None
    assert re.search(
        "x  +-inf  +log-likelihood .*FAILS: .*Row 35: category 2 has probability zero", str(report)
    )


class _Few(Metric):
    """Which rows a metric of few rows is told to take."""

    kind = "few"

    def __init__(self):
        self.shades = {}

    def measure(self, case):
        self.shades[case.node] = case.columns["shade"][case.few]
        return ()


def test_the_few_rows_that_take_long_are_any_rows_of_ordered_data(data):
    """The first rows of data in the order of their labels are all of one kind."""
    order = np.argsort(data["shade"])
    ordered, seen = {name: values[order] for name, values in data.items()}, _Few()
    cg.evaluate(shades.shades().fit(data, progress=False), ordered, metrics=[seen], progress=False)
    taken = seen.shades["image"]
    assert len(taken) == 32 and np.mean(taken > np.median(data["shade"])) > 0.3


def test_the_likelihood_of_many_rows_is_that_of_rows_all_over_the_data(monkeypatch):
    monkeypatch.setattr("causalgen.evaluation.metric._LIKELIHOOD_ROWS", 40)
    codes = np.array([0] * 90 + [1] * 30)
    scm = cg.SCM(nx.DiGraph({"x": []}), {"x": cg.Categorical(2)}).fit({"x": codes}, progress=False)
    found = score(
        cg.evaluate(scm, {"x": codes}, metrics=["log_likelihood"], progress=False), "log-likelihood"
    )
    assert found.rows == 40
    assert found.value == pytest.approx(0.75 * np.log(0.75) + 0.25 * np.log(0.25), abs=0.02)


def test_what_only_python_can_say_is_told_by_its_name():
    """The function of a program: the report ended in an error of pydantic's, after all was computed."""

    def steady(parents):
        return pyro.sample("u", dist.Normal(0.0, 1.0))

    graph = nx.DiGraph()
    graph.add_node("x")
    scm = cg.SCM(graph, {"x": cg.Continuous()}, {"x": cg.mechanisms.Program(program=steady)})
    told = json.loads(json.dumps(EvaluatedModel.of(scm, {}).to_dict()))
    assert told["options"]["x"]["program"].endswith("steady")
