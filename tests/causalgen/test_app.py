"""The page of ``causalgen app`` without a browser: controls, questions, files, views, and who may open it."""

import asyncio
import errno
import io
import json
import os
import socket
import warnings
from concurrent.futures import ThreadPoolExecutor
from zipfile import ZipFile

import gradio as gr
import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image as PILImage
from PIL.PngImagePlugin import PngInfo

import causalgen as cg
from causalgen.cli.app import server
from causalgen.cli.app.controls import CARRIED, control_of, held_picture, read_controls, shown
from causalgen.cli.app.downloads import (
    counterfactual_downloads,
    effect_downloads,
    effect_lines,
    worlds_lines,
)
from causalgen.cli.app.inputs import as_picture, told
from causalgen.cli.app.layout import offered
from causalgen.cli.app.questions import ask, ask_effect, effect_targets, open_model
from causalgen.cli.app.views import answer_html, difference_image, effect_html, graph_html
from causalgen.counterfactuals.export import to_png
from causalgen.saving import atomic

LABELS = ["pug", "<b>lab</b>", "=1+1"]
VARIABLES = {
    "kind": cg.Categorical(LABELS),
    "digit": cg.Categorical(3),
    "size": cg.Continuous(lower=0, upper=10, unit="cm"),
    "count": cg.Integer(lower=0),
    "place": cg.Continuous(shape=[2]),
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """kind, size -> weight = 2 size + u; weight -> heavy; saved, with rows, one of which lacks its size."""
    root = tmp_path_factory.mktemp("app")
    equation = cg.mechanisms.Equation
    scm = cg.SCM(
        nx.DiGraph([("kind", "weight"), ("size", "weight"), ("weight", "heavy")]),
        {
            "kind": cg.Categorical(LABELS),
            "size": cg.Continuous(lower=0, upper=10, unit="cm"),
            "weight": cg.Continuous(unit="kg"),
            "heavy": cg.Categorical(["no", "yes"]),
        },
        {
            "kind": equation(value="floor(u)", noise={"u": {"uniform": [0, 3]}}),
            "size": equation(value="u", noise={"u": {"uniform": [0, 10]}}),
            "weight": equation(value="2*size + u", noise={"u": {"normal": [0, 1]}}),
            "heavy": equation(value="where(weight > 10, 1, 0)"),
        },
        name="shop & <co>",
    )
    scm.save_pretrained(root / "model")
    rows = pd.DataFrame({"kind": LABELS, "size": [1.0, np.nan, 0.1 + 0.2], "weight": [2.5, 7.0, 1 / 3]})
    rows.assign(heavy="no").to_csv(root / "rows.csv", index=False)
    return open_model(str(root / "model"), str(root / "rows.csv"))


@pytest.fixture(scope="module")
def album(pictures, tmp_path_factory):
    """The images of ``pictures``, saved, with rows beside the model."""
    scm, data = pictures
    root = tmp_path_factory.mktemp("album")
    scm.save_pretrained(root / "model")
    frame = pd.DataFrame({"kind": data["kind"][:4], "picture": [f"{row}.png" for row in range(4)]})
    for row in range(4):
        PILImage.fromarray(data["picture"][row, 0]).save(root / f"{row}.png")
    frame.to_csv(root / "rows.csv", index=False)
    return open_model(str(root / "model"), str(root / "rows.csv"))


def first(model, row=0):
    """What the page's controls give of a row that was picked."""
    values = {node: shown(model.rows[node][row], v) for node, v in model.scm.variables.items()}
    values = {node: None if isinstance(value, np.ndarray) else value for node, value in values.items()}
    return read_controls(values, model.scm.variables, "Evidence")


@pytest.mark.parametrize(
    ("node", "raw", "value"),
    [
        ("kind", "1", "<b>lab</b>"), ("digit", "0", 0), ("size", " 2.5 ", 2.5), ("count", "3", 3),
        ("place", "[0.5, 2]", [0.5, 2]),
    ],
)  # fmt: skip
def test_a_control_gives_its_value(node, raw, value):
    assert read_controls({node: raw}, VARIABLES, "Evidence") == {node: value}


@pytest.mark.parametrize("raw", ["", "  ", None])
def test_an_empty_control_leaves_its_node_out(raw):
    assert read_controls(dict.fromkeys(VARIABLES, raw), VARIABLES, "Evidence") == {}


@pytest.mark.parametrize(
    ("node", "raw", "message"),
    [
        ("kind", "3", "code of no category"), ("kind", "-1", "code of no category"),
        ("digit", 1.0, "code of no category"), ("kind", "pug", "code of no category"),
        ("size", "ten", "Evidence 'size': expected a number"), ("size", "1,5", "expected a number"),
        ("size", "11", "above the upper bound 10"), ("size", "nan", "finite"), ("size", "1e999", "finite"),
        ("count", "2.5", "whole number"), ("count", "-1", "below the lower bound 0"),
        ("place", "0.5, 2", "numbers in brackets"), ("place", "[1]", "shape"),
        ("place", "[NaN, 1]", "Evidence 'place'"), ("place", "[" * 10**5, "numbers in brackets"),
        ("place", '{"a": 1}', "numbers in brackets"),
    ],
)  # fmt: skip
def test_what_is_no_value_is_refused(node, raw, message):
    with pytest.raises(cg.CausalgenError, match=message):
        read_controls({node: raw}, VARIABLES, "Evidence")


def test_where_nodes_are_set_other_text_is_an_expression():
    given = {"size": "size + 1", "place": "place * 2"}
    assert read_controls(given, VARIABLES, "Set", expressions=True) == given
    with pytest.raises(cg.DomainError, match="Set 'size'.*upper bound"):
        read_controls({"size": "11"}, VARIABLES, "Set", expressions=True)


@pytest.mark.parametrize("number", [0.1 + 0.2, 1 / 3, 5e-324, -1.7976931348623157e308, 2.0**53 - 1])
def test_a_number_goes_through_its_control_to_the_last_bit(number):
    variables = {"x": cg.Continuous(), "v": cg.Continuous(shape=[2])}
    raw = {"x": shown(np.float64(number), variables["x"]), "v": shown(np.array([number, 1]), variables["v"])}
    assert read_controls(raw, variables, "Evidence") == {"x": number, "v": [number, 1]}


def test_controls_say_bounds_units_and_categories():
    hints = {node: control_of(variable).hint for node, variable in VARIABLES.items()}
    assert hints["size"] == "0 to 10 cm"
    assert hints["count"] == "whole, at least 0"
    assert control_of(cg.Integer(0, 1234567)).hint == "whole, 0 to 1234567"
    assert control_of(VARIABLES["kind"]).choices == tuple(LABELS)


def test_worlds_side_by_side_are_those_of_one_abduction(shop):
    evidence = first(shop)
    page = ask(shop, None, evidence, {"size": 4.0}, seed=3, samples=1)
    page = ask(shop, page, evidence, {"size": "size + 1", "kind": "pug"}, seed=3, samples=1)
    assert list(page.worlds) == ["size = 4", "size = size + 1, kind = pug"]
    # weight = 2 size + u with u = 2.5 - 2 * 1
    assert page.worlds["size = 4"].answer["weight"].item() == 8.5
    assert page.worlds["size = size + 1, kind = pug"].answer["weight"].item() == 4.5
    assert len(ask(shop, page, evidence, {"size": 4.0}, seed=3, samples=1).worlds) == 2


def test_a_whole_number_has_its_digits_in_the_evidence_as_in_the_worlds(shop):
    page = ask(shop, None, {"size": 1.0, "weight": 23456.0}, {"size": 2.0}, seed=0, samples=1)
    assert "<td>23456</td>" in answer_html(page) and "<td>23458</td>" in answer_html(page)


@pytest.mark.parametrize("change", ["evidence", "seed", "samples"])
def test_other_evidence_begins_anew(shop, change):
    evidence = first(shop)
    page = ask(shop, None, evidence, {"size": 4.0}, seed=0, samples=1)
    other = {**evidence, "weight": 9.0} if change == "evidence" else evidence
    seed, samples = int(change == "seed"), 1 + (change == "samples")
    again = ask(shop, page, other, {"size": 5.0}, seed=seed, samples=samples)
    assert list(again.worlds) == ["size = 5"]


def test_what_is_not_observed_is_inferred(shop):
    page = ask(shop, None, first(shop, 1), {"kind": "pug"}, seed=0, samples=20)
    answer = page.worlds["kind = pug"].answer
    direct = shop.scm.counterfactual(
        {"kind": "<b>lab</b>", "weight": 7.0, "heavy": "no"}, {"kind": "pug"}, num_samples=20, seed=0
    )
    assert answer.sources["size"].tolist() == ["inferred"]
    for node in ("size", "weight"):
        assert torch.equal(answer[node], direct[node])
    assert "inferred" in answer_html(page)


@pytest.mark.parametrize(
    ("evidence", "do", "options", "message"),
    [
        ({"weight": 1.0}, {}, {}, "Nothing to ask"),
        ({}, {"size": 1.0}, {}, "Nothing was observed"),
        ({"weight": 1.0}, {"size": 1.0}, {"samples": 0}, "Draws is a whole number of at least 1"),
        ({"weight": 1.0}, {"size": 1.0}, {"samples": 1.5}, "Draws is a whole number"),
        ({"weight": 1.0}, {"size": 1.0}, {"samples": 10_001}, "at most 10,000"),
        ({"weight": 1.0}, {"size": 1.0}, {"seed": None}, "Seed is a whole number"),
        ({"weight": 1.0}, {"size": "size +"}, {}, "size \\+"),
        ({"weight": 1.0}, {"size": "os.system"}, {}, "os"),
    ],
)  # fmt: skip
def test_a_question_that_cannot_be_answered_is_refused(shop, evidence, do, options, message):
    with pytest.raises(cg.CausalgenError, match=message):
        ask(shop, None, evidence, do, **{"seed": 0, "samples": 1, **options})


def test_there_are_only_so_many_worlds(shop):
    page = None
    for number in range(12):
        page = ask(shop, page, {"size": 1.0, "weight": 2.0}, {"size": number / 2}, seed=0, samples=1)
    with pytest.raises(cg.InterventionError, match="12 worlds"):
        ask(shop, page, {"size": 1.0, "weight": 2.0}, {"size": 9.0}, seed=0, samples=1)


def test_warnings_are_told_and_no_filter_is_left_changed(linear, tmp_path):
    scm, data = linear
    scm.save_pretrained(tmp_path / "model")
    pd.DataFrame(data).to_csv(tmp_path / "rows.csv", index=False)
    model, before = open_model(str(tmp_path / "model"), str(tmp_path / "rows.csv")), list(warnings.filters)
    page = ask(model, None, first(model), {"x": 1000.0}, seed=0, samples=1)
    assert any("extrapolation" in told for told in page.warnings)
    assert "extrapolation" in answer_html(page)
    assert warnings.filters == before


def test_many_pages_at_once_get_the_answers_of_one(album):
    questions = [
        ({"kind": row % 2, "picture": album.rows["picture"][row % 4]}, {"kind": (row + 1) % 2}, row)
        for row in range(8)
    ]

    def answer(question):
        evidence, do, seed = question
        (world,) = ask(album, None, evidence, do, seed=seed, samples=1).worlds.values()
        return world.answer["picture"]

    serial = [answer(each) for each in questions]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(answer, questions))
    assert all(torch.equal(one, other) for one, other in zip(serial, together, strict=True))


def run(lines):
    """What a script of the page leaves behind."""
    space = {}
    exec(lines.replace("    print(world)", "    pass").replace("print(effect)", ""), space)
    return space


def test_the_python_gives_the_same_worlds(shop):
    page = ask(shop, None, first(shop, 1), {"kind": "=1+1", "size": 2.0}, seed=5, samples=7)
    page = ask(shop, page, first(shop, 1), {"size": "size / 2"}, seed=5, samples=7)
    again = run(worlds_lines(shop, page))["worlds"]
    assert list(again) == list(page.worlds)
    for label, world in page.worlds.items():
        pd.testing.assert_frame_equal(again[label].to_frame(), world.answer.to_frame(), check_exact=True)


def test_the_python_gives_the_same_pictures(album):
    uploaded = np.random.default_rng(1).integers(0, 256, (1, 8, 8), dtype=np.uint8)
    for picture in (uploaded, album.rows["picture"][2]):
        page = ask(album, None, {"picture": picture, "kind": 0}, {"kind": 1}, seed=2, samples=1)
        page = ask(album, page, {"picture": picture, "kind": 0}, {"picture": uploaded}, seed=2, samples=1)
        again = run(worlds_lines(album, page))["worlds"]
        for label, world in page.worlds.items():
            assert torch.equal(again[label]["picture"], world.answer["picture"])


def test_images_of_more_than_8_bits_are_asked_and_repeated_to_all_bits(pictures, tmp_path):
    scm, data = pictures
    random, image = np.random.default_rng(1), cg.Image(1, 8, 8, range=[0, 4095])
    deep = cg.SCM(scm.graph, {**scm.variables, "picture": image}, {"picture": scm.mechanisms["picture"].spec})
    deep = deep.fit({**data, "picture": data["picture"] / 255}, progress=False)
    deep.save_pretrained(tmp_path / "model")
    np.save(tmp_path / "row.npy", random.uniform(0, 4095, (8, 8)))
    PILImage.fromarray(random.integers(0, 4096, (8, 8), dtype=np.uint16)).save(tmp_path / "upload.png")
    (tmp_path / "rows.csv").write_text("kind,picture\n0,row.npy\n")
    model = open_model(str(tmp_path / "model"), str(tmp_path / "rows.csv"))
    uploaded = held_picture(tmp_path / "upload.png", image, "Upload")
    for pixels, file in ((model.rows["picture"][0], "row.npy"), (uploaded, "upload.png")):
        held = gr.Image(format="png").postprocess(as_picture(pixels)).path  # what the browser has
        seen = np.asarray(PILImage.open(held))
        numbers = (
            np.load(tmp_path / file) if file == "row.npy" else np.asarray(PILImage.open(tmp_path / file))
        )
        np.testing.assert_array_equal(seen, np.round(255 * (numbers / 4095).astype(np.float32)))
        evidence = read_controls({"kind": "0", "picture": held}, deep.variables, "Evidence")
        page = ask(model, None, evidence, {"kind": 1}, seed=2, samples=1)
        direct = deep.counterfactual({"kind": 0, "picture": (numbers / 4095)[None]}, {"kind": 1}, seed=2)
        (again,) = run(worlds_lines(model, page))["worlds"].values()
        assert torch.equal(again["picture"], page.worlds["kind = 1"].answer["picture"])
        assert (again["picture"] - direct["picture"]).abs().max() < 1e-5  # 8 bits miss by 1e-3
        # Saved from the page and uploaded, it is the same; what a program has edited is not.
        assert np.array_equal(held_picture(held, image, "Upload"), evidence["picture"])
        with PILImage.open(held) as picture:
            text, other = PngInfo(), PILImage.fromarray(255 - np.asarray(picture))
            text.add_text(CARRIED, picture.info[CARRIED])
        other.save(tmp_path / "edited.png", pnginfo=text)
        with pytest.raises(cg.DataError, match="8 bits a channel"):
            held_picture(tmp_path / "edited.png", image, "Upload")


def test_sample_rows_are_named_in_the_python():
    model = open_model("mnist", None)
    evidence = {"image": model.rows["image"][3], "digit": 0}
    page = ask(model, None, evidence, {"digit": 5}, seed=0, samples=1)
    lines = worlds_lines(model, page)
    assert 'rows["image"][3]' in lines.replace("'", '"') and "b64decode" not in lines
    (again,) = run(lines)["worlds"].values()
    (world,) = page.worlds.values()
    assert torch.equal(again["image"], world.answer["image"])


def test_files_hold_every_world(album):
    evidence = {"picture": album.rows["picture"][0], "kind": 0}
    page = ask(album, None, evidence, {"kind": 1}, seed=0, samples=1)
    files = dict(counterfactual_downloads(album, page))
    (label, world), *_ = page.worlds.items()
    assert PILImage.open(io.BytesIO(files["counterfactual.png"])).width > 100
    told = json.loads(files["counterfactual.json"])
    assert told["worlds"][label]["provenance"] == {"kind": ["interventional"], "picture": ["approximate"]}
    table = pd.read_csv(io.BytesIO(files["counterfactual.csv"]))
    assert table.to_dict("list") == {"world": ["do(kind = 1)"], "kind": [1]}
    with ZipFile(io.BytesIO(files["counterfactual.zip"])) as archive:
        image = archive.read("kind_=_1/picture/0000.png")
        assert {"result.json", "question.py", "picture.png", "factual/values.csv"} <= set(archive.namelist())
    assert image == to_png(np.asarray(world.answer["picture"][0]))


def test_a_full_disk_is_told_on_the_page(tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic, "write_synced", full)
    with pytest.raises(gr.Error, match="Cannot write .*table.csv: No space left on device"):
        told(offered)(["table"], {"table.csv": b"x"}, tmp_path)


def test_files_of_a_table_have_a_picture_of_each_world(shop):
    page = ask(shop, None, first(shop), {"size": 4.0}, seed=0, samples=3)
    heights = []
    for do in ({"size": 4.0}, {"size": 5.0}):
        page = ask(shop, page, first(shop), do, seed=0, samples=3)
        files = dict(counterfactual_downloads(shop, page))
        heights.append(PILImage.open(io.BytesIO(files["counterfactual.png"])).height)
    assert heights[1] == 2 * heights[0]
    table = pd.read_csv(io.BytesIO(files["counterfactual.csv"]))
    assert table["draw"].tolist() == [0, 1, 2] * 2
    assert table["weight"].tolist() == [8.5] * 3 + [10.5] * 3


def test_nodes_may_have_the_names_of_the_table_s_own_columns(tmp_path):
    root = {"value": "u", "noise": {"u": {"normal": [0, 1]}}}
    equations = {"world": root, "draw": {"value": "3*world"}}
    scm = cg.SCM(
        nx.DiGraph([("world", "draw")]),
        dict.fromkeys(equations, cg.Continuous()),
        {node: cg.mechanisms.Equation(**each) for node, each in equations.items()},
    )
    scm.save_pretrained(tmp_path / "model")
    pd.DataFrame({"world": [1.0], "draw": [3.0]}).to_csv(tmp_path / "rows.csv", index=False)
    model = open_model(str(tmp_path / "model"), str(tmp_path / "rows.csv"))
    page = ask(model, None, {"world": 1.0, "draw": 3.0}, {"world": 2.0}, seed=0, samples=2)
    table = pd.read_csv(io.BytesIO(dict(counterfactual_downloads(model, page))["counterfactual.csv"]))
    assert table["world"].tolist() == [2.0] * 2 and table["draw"].tolist() == [6.0] * 2
    assert table["world_index"].tolist() == ["do(world = 2)"] * 2 and table["draw_index"].tolist() == [0, 1]


def test_an_effect_has_its_interval_and_its_python(shop):
    assert effect_targets(shop.scm) == ["weight", "heavy"]
    options = {"n": 500, "confidence": 0.9, "seed": 1}
    asked = ask_effect(shop, "weight", None, {"size": 3.0}, {"size": 1.0}, {}, **options)
    assert asked.effect.value == pytest.approx(4.0, abs=1e-12)  # twice the difference of size
    assert run(effect_lines(shop, asked))["effect"].value == asked.effect.value
    one = ask_effect(shop, "weight", None, {"size": "size + 2"}, {}, first(shop), **options)
    assert one.effect.value == 4.0 and one.effect.individual_error is not None
    assert run(effect_lines(shop, one))["effect"].value == 4.0
    heavy = ask_effect(shop, "heavy", "yes", {"size": "size / 2"}, {}, {}, **options)
    low, high = heavy.effect.interval
    # P(2 size + u > 10) = 1/2; P(size + u > 10) = E[max(u, 0)] / 10 = 1 / (10 sqrt(2 pi))
    truth = 1 / (10 * np.sqrt(2 * np.pi)) - 0.5
    assert abs(heavy.effect.value - truth) < 4 * heavy.effect.standard_error < 4 * 0.05
    again = run(effect_lines(shop, heavy))["effect"]
    assert (again.value, again.interval) == (heavy.effect.value, (low, high))
    assert "90 % interval" in effect_html(heavy) and "Effect on heavy = yes of" in effect_html(heavy)
    files = dict(effect_downloads(shop, heavy))
    assert pd.read_csv(io.BytesIO(files["effect.csv"]))["low"].item() == low
    assert json.loads(files["effect.json"])["estimates"][0]["high"] == high


@pytest.mark.parametrize(
    ("target", "category", "do", "message"),
    [
        (None, None, {"size": 1.0}, "Choose the node"),
        ("kind", None, {"size": 1.0}, "Choose the node"),
        ("heavy", None, {"size": 1.0}, "Choose the one whose probability"),
        ("weight", None, {}, "Nothing to ask"),
    ],
)
def test_an_effect_that_cannot_be_asked_is_refused(shop, target, category, do, message):
    with pytest.raises(cg.CausalgenError, match=message):
        ask_effect(shop, target, category, do, {}, {}, n=10, confidence=0.95, seed=0)


def test_what_differs_is_red_where_brighter_and_blue_where_darker():
    before = np.array([[[0.0, 1.0, 0.5]]])
    after = np.array([[[1.0, 0.0, 0.5]]])
    red, blue, white = difference_image(after, before)[:, 0].T
    assert red[0] > red[2] and blue[2] > blue[0]
    assert white.tolist() == [1, 1, 1]


def test_names_and_labels_are_written_to_the_letter(shop):
    page = ask(shop, None, first(shop, 1), {"kind": "<b>lab</b>"}, seed=0, samples=1)
    for written in (answer_html(page), graph_html(shop)):
        assert "<b>lab</b>" not in written
    assert "&lt;b&gt;lab&lt;/b&gt;" in answer_html(page)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("scm.yaml", "has not been fitted"),
        ("model", "no rows of its own: give --data"),
        ("deep.yaml", "1 to 4 channels"),
        ("nosuch", "nosuch"),
    ],
)
def test_a_model_that_cannot_be_asked_is_refused(tmp_path, name, message):
    fitted = cg.SCM(nx.DiGraph({"x": []}), {"x": cg.Continuous()}, {"x": cg.mechanisms.Additive()})
    fitted.to_yaml(tmp_path / "scm.yaml")
    fitted.fit({"x": [0.0, 1.0, 2.0]}, progress=False).save_pretrained(tmp_path / "model")
    cg.SCM(nx.DiGraph({"x": []}), {"x": cg.Image(5, 8, 8)}).to_yaml(tmp_path / "deep.yaml")
    with pytest.raises(cg.CausalgenError, match=message):
        open_model(str(tmp_path / name), None)


def status(headers):
    """What the guard of port 7860 answers; 200 where it lets the request pass."""
    sent = []

    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "headers": [(k.encode(), v.encode()) for k, v in headers]}
    asyncio.run(server.PageGuard(application, 7860)(scope, None, send))
    return sent[0]["status"], dict(sent[0]["headers"])


HERE = ("host", "127.0.0.1:7860")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([HERE], 200),
        ([("host", "localhost:7860")], 200),
        ([HERE, ("origin", "http://127.0.0.1:7860")], 200),
        ([HERE, ("origin", "http://evil.example")], 403),
        ([HERE, ("origin", "null")], 403),
        ([HERE, ("origin", "http://127.0.0.1:8000")], 403),
        ([HERE, ("Origin", "https://127.0.0.1:7860")], 403),
        ([HERE, ("origin", "http://127.0.0.1:7860"), ("origin", "http://evil.example")], 403),
        ([("host", "evil.example:7860")], 403),
        ([("host", "127.0.0.1:7860"), ("host", "evil.example")], 403),
        ([("host", "127.0.0.1")], 403),
        ([], 403),
    ],
)
def test_only_the_page_itself_is_answered(headers, expected):
    code, answered = status(headers)
    assert code == expected
    if code == 200:
        assert b"default-src 'self'" in answered[b"content-security-policy"]


def test_a_port_in_use_is_refused():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(cg.CausalgenError, match="cannot be taken.*--port 0"):
            server.open_socket(taken.getsockname()[1])


def test_a_port_is_of_this_machine_alone():
    with server.open_socket(0) as bound:
        assert bound.getsockname()[0] == "127.0.0.1"


def test_a_missing_gradio_names_the_extra(monkeypatch):
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    with pytest.raises(cg.MechanismError, match=r"pip install '\.\[app\]'"):
        server.run_app("mnist", None, 0, browse=False, device=None, threads=None)


def test_nothing_is_sent_to_anybody(tmp_path, monkeypatch):
    for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "GRADIO_TEMP_DIR",
                 "GRADIO_RUN_HISTORY"):  # fmt: skip
        monkeypatch.setenv(name, "before")
    server.offline(tmp_path)
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert os.environ["GRADIO_TEMP_DIR"] == str(tmp_path)
