"""Fits of images: least steps, what is said before they end, and the precision of the forward passes."""

import networkx as nx
import numpy as np
import pytest
import torch
from PIL import Image as Pictures
from typer.testing import CliRunner

import causalgen as cg
from causalgen.cli import main as cli
from causalgen.fitting import runtime
from causalgen.fitting.runtime import bfloat16_pays, image_precision
from graphs.variables import Continuous, Image

CPU = torch.device("cpu")
TRAINING = {"epochs": 1, "steps": 7, "batch_size": 16, "validation": 0.1}
ROWS = {"p": np.random.default_rng(0).integers(0, 256, (40, 1, 36, 36), dtype=np.uint8)}


def model(**training):
    graph: nx.DiGraph = nx.DiGraph()
    graph.add_node("p")
    image = cg.mechanisms.Diffusion(
        backbone={"channels": (8, 8), "unshuffle": 6}, predictor=None, training=TRAINING | training
    )
    return cg.SCM(graph, {"p": cg.Image(1, 36, 36)}, {"p": image})


def weights(scm):
    return torch.cat([each.detach().flatten() for each in scm.mechanisms["p"].parameters()])


def test_steps_are_a_least_number_and_too_few_are_told():
    report = model().fit(ROWS, progress=False).fit_report["p"]
    assert report.steps == 9  # whole epochs of 3 batches
    assert report.least_steps == 6000
    assert report.advice == (
        "p: 9 steps are few for images of this size, expected at least 6,000. Give training: {steps: 6000}."
    )
    assert model(epochs=5).fit(ROWS, progress=False).fit_report["p"].steps == 15


def test_length_and_memory_are_told_after_the_first_steps_and_change_nothing(capsys, tmp_path):
    told = model().fit(ROWS, progress=True, run_dir=tmp_path / "run")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("p: warning: 9 steps are few") and lines[1] == "p: 9 steps of 16 images"
    assert lines[2].startswith("p: about ") and "images/s" in lines[2] and "GB of memory" in lines[2]
    assert '"event": "estimate"' in (tmp_path / "run" / "log.jsonl").read_text()
    silent = model().fit(ROWS, progress=False)
    assert capsys.readouterr().err == ""
    assert torch.equal(weights(told), weights(silent))


def test_auto_is_bfloat16_for_larger_images_where_it_pays(monkeypatch):
    for pays, larger in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(runtime, "bfloat16_pays", lambda pays=pays: pays)
        assert image_precision("auto", Image(3, 64, 64), CPU) == larger
        assert image_precision("auto", Image(1, 28, 28), CPU) == "float32"
        assert image_precision("float32", Image(3, 64, 64), CPU) == "float32"
        assert image_precision("bfloat16", Image(1, 28, 28), CPU) == "bfloat16"
        assert image_precision("auto", Continuous(), CPU) == "auto"


def test_whether_bfloat16_pays_is_measured_only_where_it_is_native(monkeypatch):
    state = torch.get_rng_state()
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    bfloat16_pays.cache_clear()
    assert not bfloat16_pays()
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    bfloat16_pays.cache_clear()
    try:
        assert bfloat16_pays() == bfloat16_pays()
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        bfloat16_pays.cache_clear()


def test_a_resumed_run_keeps_the_precision_that_it_began_with(monkeypatch, tmp_path):
    monkeypatch.setattr(runtime, "bfloat16_pays", lambda: True)
    whole = model().fit(ROWS, progress=False)
    assert whole.fit_report["p"].precision == "bfloat16" and "(bfloat16)" in str(whole.fit_report)
    scm = model()
    loss, calls = scm.mechanisms["p"].loss, []

    def interrupted(*args, **options):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return loss(*args, **options)

    monkeypatch.setattr(scm.mechanisms["p"], "loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scm.fit(ROWS, progress=False, run_dir=tmp_path)
    monkeypatch.setattr(runtime, "bfloat16_pays", lambda: False)
    resumed = model().fit(ROWS, progress=False, run_dir=tmp_path, resume=True)
    assert resumed.fit_report["p"].precision == "bfloat16"
    assert torch.equal(weights(resumed), weights(whole))
    assert not torch.equal(weights(model().fit(ROWS, progress=False)), weights(whole))


def test_half_of_the_images_are_mirrored_where_that_is_said(monkeypatch):
    scm = model(flip=True, epochs=3)
    left = np.zeros((40, 1, 36, 36), np.uint8)
    left[..., :18] = 255
    seen = []
    loss = scm.mechanisms["p"].loss

    def watched(value, parents, **options):
        seen.append(value[:, 0, 0, 0] > 0)
        assert torch.equal(value.abs(), torch.ones_like(value))
        return loss(value, parents, **options)

    monkeypatch.setattr(scm.mechanisms["p"], "loss", watched)
    scm.fit({"p": left}, progress=False)
    *steps, evaluated = seen
    assert bool(evaluated.all())  # held-out rows are as they are
    share = torch.cat(steps[:9]).double().mean().item()
    assert 0.3 < share < 0.7  # of 108: five standard deviations
    assert not torch.equal(steps[0], steps[3])


def test_an_image_parent_rules_mirroring_out():
    graph = nx.DiGraph([("mask", "p")])
    with pytest.raises(cg.MechanismError, match="'p': .*flip mirrors images, but the parent 'mask'"):
        cg.SCM(
            graph,
            {"mask": cg.Image(1, 8, 8), "p": cg.Image(1, 8, 8)},
            {"p": cg.mechanisms.Diffusion(training={"flip": True})},
        )


def test_the_command_says_on_how_many_rows_causes_were_recovered(tmp_path):
    """Of two held-out rows it draws no conclusion: whether an image tells a cause takes a hundred."""
    random = np.random.default_rng(0)
    for row in range(40):
        Pictures.fromarray(random.integers(0, 256, (4, 4), dtype=np.uint8)).save(tmp_path / f"{row}.png")
    rows = [f"{row % 2},{row}.png" for row in range(40)]
    (tmp_path / "rows.csv").write_text("\n".join(["k,p", *rows]))
    network = "{channels: [8], unshuffle: 1}"
    (tmp_path / "scm.yaml").write_text(
        "causalgen: 1\nnodes:\n  k: {variable: {type: categorical, categories: 2}}\n"
        "  p:\n    variable: {type: image, shape: [1, 4, 4]}\n    parents: [k]\n"
        f"    mechanism: {{kind: diffusion, backbone: {network}, predictor: {network}, "
        "training: {epochs: 1, validation: 0.05}}\n"
    )
    words = ["fit", tmp_path / "scm.yaml", "--data", tmp_path / "rows.csv", "--out", tmp_path / "model"]
    ran = CliRunner().invoke(cli.app, list(map(str, words)))
    assert ran.exit_code == 0, ran.output
    told = [line for line in ran.output.splitlines() if "recovered" in line]
    assert len(told) == 1 and told[0].startswith("k recovered from p: accuracy ")
    assert told[0].endswith(" (2 held-out rows)")
