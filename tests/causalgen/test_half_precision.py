"""Images denoised in 16 bits: near the answers in float32, half the weights, and nothing else rounded."""

import copy

import networkx as nx
import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch
from typer.testing import CliRunner

import causalgen as cg
from causalgen.cli.main import app
from causalgen.saving.pretrained import load_folder
from mechanisms.base import Mechanism

ROWS = 48
PREDICTOR = {"kind": "strided", "channels": [8], "unshuffle": 1}
OPTIONS = {
    "backbone": {"kind": "unet", "channels": [16], "unshuffle": 1},
    "training": {"epochs": 2, "steps": 0, "batch_size": 16, "precision": "float32"},
    "predictor": PREDICTOR,
    "solver": {"kind": "anchored", "steps": 4},
    "code": {"training": {"epochs": 1, "steps": 0}, "encoder": PREDICTOR},
}


def rows():
    random = np.random.default_rng(0)
    kind, dose = random.integers(0, 2, ROWS), random.normal(size=ROWS)
    x = (0.3 + 0.3 * kind[:, None, None, None] + 0.05 * random.normal(size=(ROWS, 1, 8, 8))).clip(0, 1)
    return {"kind": kind, "dose": dose, "x": x.astype(np.float32)}


def model(**options):
    return cg.SCM(
        nx.DiGraph([("kind", "x"), ("dose", "x")]),
        {"kind": cg.Categorical(2), "dose": cg.Continuous(), "x": cg.Image(1, 8, 8)},
        {"dose": cg.mechanisms.Additive(), "x": cg.mechanisms.Diffusion(**OPTIONS | options)},
    )


@pytest.fixture(scope="module")
def fitted():
    return model().fit(rows(), seed=0, progress=False)


@pytest.fixture
def scm(fitted):
    return copy.deepcopy(fitted)


def few():
    return {name: column[:6] for name, column in rows().items()}


def dtypes(module):
    return {each.dtype for each in module.parameters()}


def weights(scm):
    return scm.mechanisms["x"].denoiser.network.state_dict()


@pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, 0.02), ("float16", 0.002)])
def test_answers_in_16_bits_are_near_those_in_32(scm, dtype, most):
    whole = scm.counterfactual(few(), do={"kind": 1}, seed=0)["x"]
    x = scm.mechanisms["x"]
    assert scm.to(dtype=dtype) is scm
    assert dtypes(x.denoiser.network) == {getattr(torch, str(dtype).removeprefix("torch."))}
    assert dtypes(x.predictor) | dtypes(x.code) == {torch.float32}
    noise = scm.abduct(few(), seed=0).noise["x"]
    assert noise["x_T"].dtype == torch.float32
    half = scm.counterfactual(few(), do={"kind": 1}, seed=0)["x"]
    assert half.dtype == torch.float32
    assert 0 < (half - whole).abs().mean() < most
    null = scm.counterfactual(few(), do={}, seed=0, copy_unaffected=False)["x"]
    assert (null - torch.as_tensor(few()["x"])).abs().max() < most


def test_a_model_saved_in_16_bits_is_the_one_of_rounded_weights(scm, tmp_path):
    whole = scm.save_pretrained(tmp_path / "whole") / "x.safetensors"
    rounded = {name: each.half().float() for name, each in weights(scm).items()}
    loaded = cg.SCM.from_pretrained(scm.to(dtype=torch.float16).save_pretrained(tmp_path / "half"))
    assert whole.stat().st_size - (tmp_path / "half" / "x.safetensors").stat().st_size > 0.9 * 2 * sum(
        each.numel() for each in rounded.values()
    )
    assert {name: each.dtype for name, each in weights(loaded).items()} == {
        name: torch.float32 for name in rounded
    }
    assert all(torch.equal(each, rounded[name]) for name, each in weights(loaded).items())


def test_a_fit_is_the_same_after_16_bits(fitted, scm):
    again = scm.to(dtype="bfloat16").fit(rows(), seed=0, progress=False)
    once, twice = (each.mechanisms["x"].parameters() for each in (fitted, again))
    assert all(torch.equal(one, other) for one, other in zip(once, twice, strict=True))


def test_other_options_keep_16_bits_and_leave_the_first_model(scm):
    half = scm.with_options("x", solver={"steps": 3}).to(dtype=torch.bfloat16)
    assert dtypes(half.mechanisms["x"].denoiser.network) == {torch.bfloat16}
    assert dtypes(half.with_options("x", solver={"steps": 5}).mechanisms["x"].denoiser.network) == {
        torch.bfloat16
    }
    assert dtypes(scm.mechanisms["x"]) == {torch.float32}


def test_latents_and_distilled_flows_are_denoised_in_16_bits(fitted):
    latent = model(
        code=None,
        autoencoder={"config": {"block_out_channels": [8, 8]}, "training": {"epochs": 1, "steps": 0}},
    ).fit(rows(), seed=0, progress=False)
    whole = latent.counterfactual(few(), do={"kind": 1}, seed=0)["x"]
    half = latent.to(dtype="bfloat16").counterfactual(few(), do={"kind": 1}, seed=0)["x"]
    assert 0 < (half - whole).abs().mean() < 0.05
    quick = {"steps": 2, "training": {"epochs": 1, "steps": 0}}
    with pytest.warns(UserWarning, match="the student ends"):
        student = cg.distil(fitted, rows(), options=quick, seed=0, progress=False)
    x = student.to(dtype="bfloat16").mechanisms["x"]
    assert dtypes(x.denoiser.network) | dtypes(x.student.denoiser.network) == {torch.bfloat16}
    assert torch.isfinite(student.counterfactual(few(), do={"kind": 1}, seed=0)["x"]).all()


def test_what_cannot_have_16_bits_is_refused_and_unchanged(scm):
    table = cg.SCM(nx.DiGraph([("a", "b")]), {"a": cg.Continuous(), "b": cg.Continuous()})
    with pytest.raises(cg.MechanismError, match="this model has none"):
        table.to(dtype=torch.bfloat16)
    for wrong in ("int8", torch.float64, 16):
        with pytest.raises(cg.MechanismError, match="one of float32, bfloat16, float16"):
            scm.to(dtype=wrong)
    with pytest.raises(cg.MechanismError, match="expected one such as 'cpu'"):
        scm.to(torch.bfloat16)
    with torch.no_grad():
        next(scm.mechanisms["x"].denoiser.network.parameters()).view(-1)[0] = 1e5
    with pytest.raises(cg.MechanismError, match="1e.05 is too large for float16.*bfloat16"):
        scm.to(dtype="float16")
    assert dtypes(scm.mechanisms["x"]) == {torch.float32}
    assert dtypes(scm.to(dtype="bfloat16").mechanisms["x"].denoiser.network) == {torch.bfloat16}


def command(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=True)


def test_commands_take_a_dtype(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    columns = rows()
    for number, image in enumerate(columns["x"]):
        PIL.Image.fromarray((image[0] * 255).astype(np.uint8)).save(f"{number}.png")
    table = {"kind": columns["kind"], "dose": columns["dose"], "x": [f"{k}.png" for k in range(ROWS)]}
    pd.DataFrame(table).to_csv("rows.csv", index=False)
    model(code=None).to_yaml("scm.yaml")
    done = command("fit", "scm.yaml", "--data", "rows.csv", "--out", "model", "--dtype", "float16")
    assert done.exit_code == 0, done.output
    assert "--dtype float16" in (tmp_path / "model" / "README.md").read_text()
    saved = load_folder("model")[1]["x"]
    assert {each.dtype for name, each in saved.items() if ".network." in name} == {torch.float16}
    asked = ("counterfactual", "model", "--evidence", "rows.csv:0-3", "--do", "kind=1", "--out")
    for out, more in (("whole", ()), ("half", ("--dtype", "bfloat16"))):
        done = command(*asked, out, *more)
        assert done.exit_code == 0, done.output
    whole, half = ((tmp_path / out / "result.json").read_text() for out in ("whole", "half"))
    assert "bfloat16" in half
    assert "dtype" not in whole
    cg.SCM(nx.DiGraph([("a", "b")]), {"a": cg.Continuous(), "b": cg.Continuous()}).to_yaml("table.yaml")
    pd.DataFrame({"a": range(9), "b": range(9)}).to_csv("table.csv", index=False)
    refused = command("fit", "table.yaml", "--data", "table.csv", "--out", "no", "--dtype", "float16")
    assert isinstance(refused.exception, cg.MechanismError)
    assert "this model has none" in str(refused.exception)
    assert not [*tmp_path.glob("no*")]


def test_a_device_that_cannot_hold_a_mechanism_gets_none(scm, monkeypatch):
    places = {}

    def to(mechanism, device):  # as to an mps device
        if str(device) == "cpu:0" and mechanism is scm.mechanisms["x"]:
            raise TypeError("no float64 there")
        places[mechanism.spec.kind] = str(device)

    monkeypatch.setattr(Mechanism, "to", to)
    with pytest.raises(cg.MechanismError, match="device 'cpu:0'.*no float64 there"):
        scm.to("cpu:0", "bfloat16")
    assert set(places.values()) == {"cpu"}
    assert dtypes(scm.mechanisms["x"]) == {torch.float32}
