"""Fits by two processes that share every batch (gloo, on this machine's CPU): the weights of one process.

The module is its own worker: ``python -m torch.distributed.run --nproc-per-node 2 -m <this> WHAT FOLDER``.
"""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch.distributed import fsdp

from causalgen.data.table import Table
from causalgen.fitting import runtime
from causalgen.fitting.choosing import choose_mechanism
from causalgen.fitting.fit import _NodeFit, fit_mechanism
from causalgen.fitting.runtime import AcceleratedRuntime, LocalRuntime, _together, is_first, leave_processes
from causalgen.fitting.training_loop import Objective, TrainingLoop, _StepNoise
from graphs.errors import MechanismError
from graphs.variables import Categorical, Continuous, Image
from mechanisms.diffusion import latents
from mechanisms.diffusion.backbones import DiT, UNet
from mechanisms.diffusion.code import Code
from mechanisms.diffusion.latents import Autoencoder
from mechanisms.diffusion.mechanism import Diffusion, DiffusionMechanism
from mechanisms.diffusion.predictor import ResNet
from mechanisms.encoders import Strided
from mechanisms.networks import reproducible_initialisation
from mechanisms.seeds import SharedDraws, drawn_for_rows, layers_apart
from mechanisms.tables.additive import Additive
from mechanisms.tables.auto import Auto
from mechanisms.tables.flow import FlowMechanism
from mechanisms.training import ImageTraining, Training

ROWS = 39
BEGUN = 4
"""Steps of fits that stop, to be resumed by another number of processes."""

WITHOUT_EFFECT = "to_k.bias"
"""Of attention: softmax takes it away, so that its gradient is rounding, of which Adam makes steps."""

ENCODER = Strided(channels=(4,), unshuffle=1, cells=2, width=8)


class Stop(Exception):
    """Stands for whatever ends a process."""


def table():
    draw = np.random.default_rng(0)
    digit, shade = draw.integers(0, 3, ROWS), draw.normal(size=ROWS)
    level = 100 + 40 * shade + 30 * digit
    x = np.clip(level[:, None, None, None] + 20 * draw.normal(size=(ROWS, 1, 8, 8)), 0, 255)
    return Table({"x": x.astype(np.uint8), "digit": digit, "shade": shade, "seen": level})


def picture():
    """All that a step of an image node draws, under a style code; batches of 8 and 7 rows."""
    # With independence 4 or 12 one entry of all these weights ends 2e-5 off, with 8 none by 1e-5.
    stage = Training(epochs=1, batch_size=20)
    code = Code(width=2, nats=3.0, independence=8.0, encoder=ENCODER, training=stage)
    spec = Diffusion(
        backbone=UNet(channels=(16,), unshuffle=1),
        predictor=ResNet(channels=(16,), unshuffle=1),
        code=code,
        training=Training(epochs=3, batch_size=8, validation=0),
    )
    return spec.bind(Image(1, 8, 8), {"digit": Categorical(3), "shade": Continuous()})


def reading():
    """A table node with an image parent: float64, with early stopping."""
    spec = Additive(function="network", encoder=ENCODER, training=Training(epochs=6, batch_size=9))
    return spec.bind(Continuous(), {"x": Image(1, 8, 8)})


def fit(mechanism, node="x", **options):
    return fit_mechanism(node, mechanism, table(), seed=3, progress=False, **options)


def begin(mechanism, folder, happens):
    """Fit, saving every state; ``happens`` is told the loss of each step before it is taken."""
    loss, steps = mechanism.loss, []

    def watched(value, parents, **options):
        if not mechanism.training:
            return loss(value, parents, **options)
        steps.append(0)
        return happens(len(steps) - 1, loss(value, parents, **options))

    mechanism.loss = watched
    fit(mechanism, run_dir=folder, checkpoint_seconds=0)


def stop(step, loss):
    if step == BEGUN:
        raise Stop
    return loss


def transformer():
    """A network whose blocks are gathered one by one."""
    spec = Diffusion(
        backbone=DiT(patch=4, width=16, depth=2, heads=2),
        predictor=None,
        training=Training(epochs=2, batch_size=8, validation=0.3, patience=1),
    )
    return spec.bind(Image(1, 8, 8), {"digit": Categorical(3)})


def latent():
    """A network of the latents of an autoencoder that an earlier stage trains; batches of 7 and 6 rows."""
    config = {"block_out_channels": [16, 16], "norm_num_groups": 4}
    spec = Diffusion(
        backbone=DiT(patch=2, width=16, depth=1, heads=2),
        predictor=None,
        autoencoder=Autoencoder(config=config, training=Training(epochs=1, batch_size=20)),
        training=Training(epochs=2, batch_size=7, validation=0),
    )
    return spec.bind(Image(1, 8, 8), {"digit": Categorical(3)})


def split_work(folder):
    """Fits whose weights are split; how many of its blocks' weights a process holds, and what all end in."""
    runtime.LEAST, latents._PIXELS_A_CALL = 1, 1  # an autoencoder takes one image a call
    shares, steps, loss = [], [], DiffusionMechanism.loss

    def watched(mechanism, *inputs, **options):
        if mechanism.training:
            blocks = mechanism.denoiser.network.blocks.parameters()
            shares.extend(weight.to_local().numel() / weight.numel() for weight in blocks)
        return loss(mechanism, *inputs, **options)

    def stopped(mechanism, *inputs, **options):
        steps.append(0)
        return stop(len(steps) - 1, loss(mechanism, *inputs, **options))

    fits = {"whole": picture(), "resumed": picture(), "latent": latent(), "read": reading()}
    reports = [
        fit(fits["whole"]),
        fit(fits["resumed"], run_dir=folder / "by one", resume=True),
        fit(fits["latent"]),
        fit(fits["read"], "seen"),
    ]
    blocks = fits["blocks"] = transformer()
    DiffusionMechanism.loss = watched
    reports.append(fit(blocks))
    DiffusionMechanism.loss = stopped
    with pytest.raises(Stop):
        fit(picture(), run_dir=folder / "by shares", checkpoint_seconds=0)
    if is_first():
        for name, each in fits.items():
            save_file(each.state_dict(), folder / f"split {name}.safetensors")
        figures = [figures_of(each) for each in reports]
        (folder / "split.json").write_text(json.dumps([min(shares), max(shares), figures]))


def step_of(folder):
    """Steps in the state of a run, whose tensors are all finite."""
    from safetensors import safe_open

    with safe_open(folder / "x.safetensors", framework="pt") as file:
        assert all(bool(file.get_tensor(name).isfinite().all()) for name in file.keys())
        return json.loads(file.metadata()["values"])["step"]


def work(what, folder):
    """What each of the processes does."""
    other, stamp = os.environ["RANK"] == "1", folder / "died"

    def lost(step, loss):
        return loss * float("nan") if step == BEGUN and other else loss

    def dies(step, loss):
        if step == BEGUN and other:
            stamp.write_text(str(time.time()))
            os.kill(os.getpid(), signal.SIGKILL)
        return loss

    if what == "split":
        split_work(folder)
        return
    if what == "dies":
        begin(picture(), folder / "killed", dies)
    whole, read, resumed = picture(), reading(), picture()
    reports = [fit(whole), fit(read, "seen"), fit(resumed, run_dir=folder / "by one", resume=True)]
    with pytest.raises(Stop):
        begin(picture(), folder / "by two", stop)
    with pytest.raises(MechanismError, match="loss of node 'x' became nan by step 5"):
        begin(picture(), folder / "lost", lost)
    if is_first():
        for name, each in (("whole", whole), ("read", read), ("resumed", resumed)):
            save_file(each.state_dict(), folder / f"{name}.safetensors")
        (folder / "reports.json").write_text(json.dumps([figures_of(each) for each in reports]))
    choose(folder / "chosen")


def choose(folder):
    """The choice of a form; the second process, if there is one, finds the other form likelier by far."""
    if os.environ.get("RANK") == "1":
        log_prob = FlowMechanism.log_prob
        FlowMechanism.log_prob = lambda *args: log_prob(*args) + 100
    spec = Auto(encoder=ENCODER, training=Training(epochs=1, batch_size=9))
    mechanism = spec.bind(Continuous(), {"x": Image(1, 8, 8)})
    report, chosen = choose_mechanism("seen", mechanism, table(), seed=3, progress=False)
    folder.mkdir(exist_ok=True)
    (folder / os.environ.get("RANK", "0")).write_text(json.dumps([report.choice, chosen.spec.kind]))


def figures_of(report):
    return [each for each in (report.steps, report.train_loss, report.validation_loss) if each is not None]


def launched(what, folder, **environment):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tests.causalgen.test_shared_batches", what, str(folder)]
    paths = {"PYTHONPATH": os.pathsep.join([os.getcwd(), *filter(None, sys.path)]), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command,
        env=os.environ | paths | environment,
        check=False,
        timeout=300,
        capture_output=True,
        text=True,
    )


def assert_near(state, mechanism, within=1e-5):
    expected = mechanism.state_dict()
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        if not name.endswith(WITHOUT_EFFECT):
            torch.testing.assert_close(
                state[name], value, rtol=0, atol=within, msg=lambda told, name=name: f"{name}: {told}"
            )


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    with pytest.raises(Stop):
        begin(picture(), folder / "by one", stop)
    done = launched("fits", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def alone():
    mechanism = picture()
    return mechanism, fit(mechanism)


def test_two_processes_end_in_the_weights_of_one(shared, alone):
    """And in one choice of a form: else one would wait for the steps of a fit that the other does not make.

    All that these processes did is looked at here, so that no other worker starts them again.
    """
    mechanism, report = alone
    assert_near(load_file(shared / "whole.safetensors"), mechanism)
    read = reading()
    figures = [figures_of(report), figures_of(fit(read, "seen"))]
    assert_near(load_file(shared / "read.safetensors"), read, within=1e-10)
    for found, expected in zip(json.loads((shared / "reports.json").read_text()), figures, strict=False):
        assert found == pytest.approx(expected, rel=1e-6)
    assert_resumed_by_another_number(shared, mechanism)
    assert step_of(shared / "lost") == BEGUN  # a loss that one process loses spoils no state
    assert_one_choice(shared)


def assert_resumed_by_another_number(shared, mechanism):
    assert_near(load_file(shared / "resumed.safetensors"), mechanism)
    assert step_of(shared / "by two") == BEGUN
    resumed = picture()
    fit(resumed, run_dir=shared / "by two", resume=True)
    assert_near(resumed.state_dict(), mechanism)


def assert_one_choice(shared):
    first, second = ((shared / "chosen" / rank).read_text() for rank in "01")
    choose(shared / "alone")
    assert first == second
    (choice, kind), (alone, kind_alone) = json.loads(first), json.loads((shared / "alone" / "0").read_text())
    assert kind == kind_alone == "additive"
    for label, figures in alone["candidates"].items():
        assert choice["candidates"][label] == pytest.approx(figures, rel=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(fsdp, "fully_shard"), reason="FSDP2 came with torch 2.6")
def test_weights_split_over_processes_end_in_those_of_one(tmp_path, alone):
    with pytest.raises(Stop):
        begin(picture(), tmp_path / "by one", stop)
    done = launched("split", tmp_path, ACCELERATE_USE_FSDP="true", FSDP_VERSION="2")
    assert done.returncode == 0, done.stderr
    least, most, figures = json.loads((tmp_path / "split.json").read_text())
    assert least == most == 0.5
    inner, read, blocks = latent(), reading(), transformer()
    reports = [alone[1], alone[1], fit(inner), fit(read, "seen"), fit(blocks)]
    for found, expected in zip(figures, reports, strict=True):
        assert found == pytest.approx(figures_of(expected), rel=1e-5)
    expected = {"whole": alone[0], "resumed": alone[0], "latent": inner, "read": read, "blocks": blocks}
    for name, each in expected.items():
        assert_near(load_file(tmp_path / f"split {name}.safetensors"), each)
    assert step_of(tmp_path / "by shares") == BEGUN
    resumed = picture()
    fit(resumed, run_dir=tmp_path / "by shares", resume=True)
    assert_near(resumed.state_dict(), alone[0])


@pytest.mark.slow
def test_a_process_that_dies_ends_the_job(tmp_path):
    done = launched("dies", tmp_path)
    assert done.returncode != 0
    assert time.time() - float((tmp_path / "died").read_text()) < 30
    assert step_of(tmp_path / "killed") == BEGUN
    resumed = picture()
    assert fit(resumed, run_dir=tmp_path / "killed", resume=True).steps == 15


def test_a_process_whose_others_are_gone_says_so():
    gone = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer."
    with pytest.raises(MechanismError, match=r"Another of the 2 processes.*resume=True"), _together(2):
        raise RuntimeError(gone)
    with pytest.raises(RuntimeError, match="^out of memory"), _together(2):
        raise RuntimeError("out of memory")


def test_shares_of_draws_are_those_of_one_process():
    def draw(n, generator):
        return {
            "strata": torch.rand(n, generator=generator) + torch.arange(n),
            "order": torch.randperm(n, generator=generator),
        }

    with torch.random.fork_rng():
        torch.manual_seed(0)
        whole = drawn_for_rows(draw, 5, torch.Generator().manual_seed(1))
        for rank in (0, 1):
            generator = SharedDraws()
            generator.batch, generator.rows = torch.Generator().manual_seed(1), 5
            generator.own = slice(rank, None, 2)
            torch.manual_seed(0)
            own = drawn_for_rows(draw, 3 - rank, generator)
            assert all(torch.equal(own[name], whole[name][rank::2]) for name in whole)


@torch.no_grad()
def test_images_are_mirrored_as_in_one_process():
    images, training = torch.arange(5.0)[:, None, None, None] + torch.arange(2), ImageTraining(flip=True)
    seen: Any = partial(_NodeFit._seen, SimpleNamespace(settings=training))
    alone = torch.Generator().manual_seed(1)
    whole, drawn = seen(images, alone), torch.rand(5, generator=alone)
    for rank in (0, 1):
        generator = SharedDraws()
        generator.batch, generator.rows = torch.Generator().manual_seed(1), 5
        generator.own = slice(rank, None, 2)
        assert torch.equal(seen(images[rank::2], generator), whole[rank::2])
        assert torch.equal(torch.rand(5, generator=generator.batch), drawn)  # what the loss draws next
    assert not torch.equal(whole, images)


def test_layers_draw_apart_from_the_loss():
    """One that drops whole images by ``torch.rand(n)`` dropped those that the loss's first draws chose."""
    layer = torch.nn.Dropout(0.5)
    for machine in (LocalRuntime(), Two()):
        noise = _StepNoise(0, ("k",), machine)
        with layers_apart(layer):
            of_loss = [noise.of(3, 8, slice(None))]
            of_loss += [each.batch for each in of_loss if isinstance(each, SharedDraws)]
            layers = torch.rand(8)
        assert not any(torch.equal(layers, torch.rand(8, generator=each)) for each in of_loss)


class Two:
    """A runtime of which another process exists."""

    device, rank, processes, is_main, splits = torch.device("cpu"), 1, 2, True, False

    def prepare(self, objective, optimizer):
        return objective, optimizer

    def backward(self, loss):
        loss.backward()

    def mean(self, value):
        return value


@pytest.mark.parametrize(("rows", "own", "weight"), [(8, 4, 1), (7, 3, 6 / 7), (2, 1, 1), (1, 1, 1)])
def test_shares_weigh_what_they_hold(rows, own, weight):
    share, found = loop(1)._share(rows)
    assert len(range(rows)[share]) == own and found == weight


def loop(width, *layers):
    with reproducible_initialisation():
        module = torch.nn.Sequential(torch.nn.Linear(1, width), *layers)

    def inputs(rows):
        return (rows[:, None].float(),)

    def loss(x, generator):
        return module(x).square().mean(1)

    objective = Objective(module, inputs, loss, torch.arange(8), ("k",), "node 'x'", images=True)
    return TrainingLoop(objective, Training(epochs=1, batch_size=8), 0, Two())


def test_normalisation_over_a_batch_is_told():
    class Silent:
        def update(self, *_):
            return

        def say(self, _):
            return

    with pytest.warns(UserWarning, match="node 'x' has BatchNorm1d, which each of 2 processes"):
        loop(3, torch.nn.BatchNorm1d(3)).run(Silent())


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("mixed_precision", "bf16", "mixed_precision 'bf16'.*training.precision"),
        ("gradient_accumulation_steps", 4, "accumulate gradients over 4 steps"),
        ("distributed_type", type("Kind", (), {"name": "DEEPSPEED"}), "set to DEEPSPEED.*--use_fsdp"),
    ],
)
def test_settings_of_accelerate_that_would_change_a_fit_are_refused(monkeypatch, name, value, told):
    monkeypatch.setattr(Accelerator, name, value)
    with pytest.raises(MechanismError, match=told):
        AcceleratedRuntime()


def test_fsdp_of_version_1_is_refused_and_a_torch_without_2(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setattr(Accelerator, "num_processes", 2)
    monkeypatch.delenv("FSDP_VERSION", raising=False)
    with pytest.raises(MechanismError, match="--fsdp_version 2"):
        AcceleratedRuntime()
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.delattr(fsdp, "fully_shard", raising=False)
    with pytest.raises(MechanismError, match="needs torch 2.6 or later, this is .*--multi_gpu"):
        AcceleratedRuntime()


if __name__ == "__main__":
    work(sys.argv[1], Path(sys.argv[2]))
    leave_processes()
