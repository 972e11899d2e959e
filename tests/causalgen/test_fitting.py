"""The training loop against a loop written by hand, and against itself interrupted."""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Literal, final

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from torch import Tensor, nn

import causalgen.fitting.progress
from causalgen.data.table import Table
from causalgen.fitting.fit import fit_mechanism
from causalgen.fitting.fit_report import FitReport, NodeReport
from causalgen.fitting.progress import Progress, duration
from causalgen.fitting.runtime import resolve_precision
from causalgen.fitting.training_loop import learning_rate
from graphs.errors import CheckpointError, ChecksumError, FormatVersionError, MechanismError
from graphs.variables import Categorical, Continuous, Image
from mechanisms.base import Abducted, Mechanism, MechanismSpec, Noise, Parents
from mechanisms.networks import reproducible_initialisation
from mechanisms.options import fit_afresh, take_weights
from mechanisms.seeds import keyed_generator, keyed_seed
from mechanisms.tables.additive import Additive
from mechanisms.tables.categorical import Categorical as CategoricalSpec
from mechanisms.training import OwnLoss, Training


class Stop(Exception):
    """Stands for whatever ends a process."""


class Line(MechanismSpec, frozen=True):
    kind: Literal["line"] = "line"
    training: Training | None = Training(epochs=3, batch_size=16)

    def make(self, variable, parents):
        return LineMechanism(self, variable, parents)


class _Fitted(Mechanism):
    """Only what fitting needs; counts and remembers what the loop passes."""

    abduction = "exact"
    deterministic = True

    def __init__(self, spec, variable, parents):
        super().__init__(spec, variable, parents)
        self.seen: list[Tensor] = []
        self.stop_at: int | None = None

    def sample_noise(self, n: int, *, generator: torch.Generator) -> Noise:
        raise NotImplementedError

    def generate(self, parents: Parents, noise: Noise) -> Tensor:
        raise NotImplementedError

    def abduct(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Abducted:
        raise NotImplementedError

    def _remember(self, value: Tensor) -> None:
        if self.training:
            if len(self.seen) == self.stop_at:
                raise Stop
            self.seen.append(value.clone())


class LineMechanism(_Fitted):
    """Half the squared error of a line."""

    def __init__(self, spec, variable, parents):
        super().__init__(spec, variable, parents)
        self.weight = nn.Parameter(torch.tensor([0.5, -0.25], dtype=torch.float64))

    def loss(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Tensor:
        self._remember(value)
        return 0.5 * (value - self.weight[0] * parents["a"] - self.weight[1]) ** 2

    def validate(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Mapping[str, float]:
        return {"largest error": float((value - self.weight[0] * parents["a"] - self.weight[1]).abs().max())}


class Reader(OwnLoss):
    """Its loss is steep, here and there far steeper."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def loss(self, value: Tensor) -> Tensor:
        return self.slope * value.exp() ** 4


class ReadLineMechanism(LineMechanism):
    """A line, and beside it a reader that shares nothing with it."""

    def __init__(self, spec, variable, parents):
        super().__init__(spec, variable, parents)
        self.reader = Reader()

    def loss(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Tensor:
        return super().loss(value, parents, generator=generator) + self.reader.loss(value)


@final
class PictureMechanism(_Fitted):
    """A small network with everything that makes resuming hard: dropout, running averages, loss noise."""

    def __init__(self, spec, variable, parents):
        super().__init__(spec, variable, parents)
        self.network = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.Dropout(0.3),
            nn.SiLU(),
            nn.Conv2d(4, 1, 3, padding=1),
        )
        self.dtypes: set[torch.dtype] = set()

    def loss(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Tensor:
        self._remember(value)
        noise = torch.randn(value.shape, generator=generator)
        out = self.network(value + noise)
        self.dtypes.add(out.dtype)
        return ((out - value) ** 2).float().mean((1, 2, 3))


@final
class WellMechanism(_Fitted):
    """A loss with a well at 0 in a plain that is flat: whoever steps out never comes back."""

    def __init__(self, spec, variable, parents):
        super().__init__(spec, variable, parents)
        self.weight = nn.Parameter(torch.tensor([0.3]))

    def loss(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Tensor:
        return 1 - torch.exp(-self.weight.square()) + 0.1 * torch.rand(len(value), generator=generator)


ROWS = 101


@pytest.fixture
def line_table() -> Table:
    rng = np.random.default_rng(0)
    a = rng.normal(size=ROWS)
    return Table({"a": a, "b": 2 * a + 1 + 0.1 * rng.normal(size=ROWS)})


@pytest.fixture
def picture_table() -> Table:
    return Table({"x": np.random.default_rng(0).integers(0, 256, (30, 1, 6, 6), dtype=np.uint8)})


def line(**training) -> LineMechanism:
    spec = Line(training=Training(**({"epochs": 3, "batch_size": 16} | training)))
    return LineMechanism(spec, Continuous(), {"a": Continuous()})


def picture(seed: int = 0, **training) -> PictureMechanism:
    spec = Line(training=Training(**({"epochs": 3, "batch_size": 8} | training)))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return PictureMechanism(spec, Image(1, 6, 6), {})


def fit(mechanism, table, name="b", seed=0, **options) -> NodeReport:
    return fit_mechanism(name, mechanism, table, seed=seed, progress=False, **options)


def same(first: nn.Module, second: nn.Module) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


# --- what a fit computes ---


class Pictured(Line, frozen=True):
    kind: Literal["pictured"] = "pictured"

    def make(self, variable, parents):
        return PictureMechanism(self, variable, parents)


class Modes(LineMechanism):
    """It keeps in which mode each part of its fit found it."""

    def finish(self, value, parents):
        self.modes = [self.training]

    def validate(self, value, parents, *, generator):
        self.modes.append(self.training)
        return {}

    def mark_fitted(self):
        self.modes.append(self.training)
        super().mark_fitted()


@pytest.mark.parametrize("patience", [None, 1])
def test_what_is_taken_of_a_trained_mechanism_is_taken_in_evaluation_mode(line_table, patience):
    """Else dropout draws in it, and running averages go on over held-out rows."""
    mechanism = Modes(Line(training=Training(epochs=1, patience=patience)), Continuous(), {"a": Continuous()})
    fit(mechanism, line_table)
    assert mechanism.modes == [False] * 3


def test_a_fit_begins_with_the_running_averages_of_a_new_mechanism(picture_table):
    new, fitted = (Pictured().bind(Image(1, 6, 6), {}) for _ in range(2))
    fit(fitted, picture_table, "x")
    begun = fit_afresh(fitted).state_dict()
    averages = [name for name in begun if "running" in name or "tracked" in name]
    assert len(averages) == 3
    for name, first in new.state_dict().items():
        assert torch.equal(begun[name], first) or name == "fitted_flag"
    assert not torch.equal(fitted.state_dict()[averages[0]], begun[averages[0]])


def test_frozen_weights_of_others_are_taken_into_memory_of_ones_own():
    with reproducible_initialisation():
        own, other, sharing = (nn.Linear(2, 2).requires_grad_(False) for _ in range(3))
    before = own.weight.clone()
    sharing.weight.data, sharing.bias.data = own.weight.data, own.bias.data
    take_weights("", sharing, other)
    assert torch.equal(sharing.weight, other.weight) and torch.equal(own.weight, before)
    assert sharing.weight.data_ptr() != other.weight.data_ptr()


def test_is_adamw_with_clipping_a_schedule_and_an_average(line_table):
    """The loop against its formulas, written out, on the batches that it passed."""
    settings = Training(
        epochs=4, batch_size=16, learning_rate=0.05, warmup=0.2, weight_decay=0.1, gradient_clip=0.3, ema=0.9
    )
    mechanism = line(**settings.model_dump())
    report = fit(mechanism, line_table)

    weight = nn.Parameter(torch.tensor([0.5, -0.25], dtype=torch.float64))
    optimizer = torch.optim.AdamW([weight], weight_decay=0.1)
    average = weight.detach().clone()
    a_of = {float(b): float(a) for a, b in zip(line_table["a"], line_table["b"], strict=True)}
    for step, b in enumerate(mechanism.seen):
        a = torch.tensor([a_of[float(each)] for each in b], dtype=torch.float64)
        optimizer.zero_grad()
        (0.5 * (b - weight[0] * a - weight[1]) ** 2).mean().backward()
        nn.utils.clip_grad_norm_([weight], 0.3)
        optimizer.param_groups[0]["lr"] = learning_rate(step, report.steps, settings)
        optimizer.step()
        average.lerp_(weight.detach(), 1 - min(0.9, (1 + step) / (10 + step)))
    torch.testing.assert_close(mechanism.weight.detach(), average, rtol=1e-12, atol=1e-12)


def test_the_gradient_of_a_part_with_its_own_loss_is_clipped_apart(line_table):
    settings = Training(epochs=4, batch_size=16, learning_rate=0.05, gradient_clip=0.01, validation=0)
    alone, read = (
        kind(Line(training=settings), Continuous(), {"a": Continuous()})
        for kind in (LineMechanism, ReadLineMechanism)
    )
    for each in (alone, read):
        fit(each, line_table)
    assert torch.equal(alone.weight, read.weight)
    assert read.reader.slope < 0.5


def test_without_average_the_last_weights_are_kept(line_table):
    mechanism = line(ema=0, learning_rate=0.1, epochs=60)
    report = fit(mechanism, line_table)
    torch.testing.assert_close(
        mechanism.weight.detach(), torch.tensor([2.0, 1.0]).double(), atol=0.05, rtol=0
    )
    assert report.validation_loss is not None and report.validation_loss < 0.02
    assert mechanism.fitted and not mechanism.training


@pytest.mark.parametrize(("rate", "diverged"), [(20.0, True), (0.01, False)])
def test_a_loss_that_ends_above_what_it_was_is_told(picture_table, recwarn, rate, diverged):
    settings = Training(epochs=6, batch_size=3, learning_rate=rate, ema=0, patience=None, warmup=0.2)
    report = fit(WellMechanism(Line(training=settings), Image(1, 6, 6), {}), picture_table, "x")
    told = [str(each.message) for each in recwarn if "Training diverged" in str(each.message)]
    assert bool(told) is diverged
    assert report.train_loss is not None
    if diverged:
        assert report.train_loss > 0.9
        assert "node 'x'" in told[0] and "learning_rate (now 20)" in told[0]
        rising = [str(each.message) for each in recwarn if "Training diverges" in str(each.message)]
        assert len(rising) == 1 and "node 'x' rose to" in rising[0]  # before the last epoch


def test_a_loss_that_only_varies_is_no_divergence(picture_table, recwarn):
    settings = Training(epochs=200, batch_size=3, learning_rate=1e-6, ema=0, patience=None)
    fit(WellMechanism(Line(training=settings), Image(1, 6, 6), {}), picture_table, "x")
    assert not [each for each in recwarn if "Training diverge" in str(each.message)]


def test_learning_rate_rises_then_falls_to_nothing():
    settings = Training(learning_rate=2.0, warmup=0.1)
    rates = [learning_rate(step, 100, settings) for step in range(100)]
    assert rates[:10] == sorted(rates[:10]) and 0 < rates[0] < 0.5
    assert rates[10] == max(rates) == 2.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(1.0)  # half-way down the cosine
    assert 0 < rates[-1] < 0.001


def test_every_training_row_is_used_once_an_epoch_and_no_held_out_one(line_table):
    mechanism = line(epochs=2, validation=0.2)
    report = fit(mechanism, line_table)
    assert (report.rows, report.held_out) == (81, 20)
    epochs = torch.cat(mechanism.seen).tolist()
    assert sorted(epochs[:81]) == sorted(epochs[81:]) and epochs[:81] != epochs[81:]
    assert len(set(epochs)) == 81
    sizes = [len(batch) for batch in mechanism.seen]
    assert max(sizes) <= 16 and max(sizes) - min(sizes) <= 1 and report.steps == len(sizes)


def test_the_same_rows_are_held_out_for_every_node(line_table):
    first, second = line(validation=0.2), line(validation=0.2)
    fit(first, line_table)
    table = Table({"a": line_table["a"], "other": line_table["b"]})
    fit(second, table, name="other")
    assert set(torch.cat(first.seen).tolist()) == set(torch.cat(second.seen).tolist())


def test_report_tells_the_held_out_loss_and_figures_of_the_kept_weights(line_table):
    mechanism = line(validation=0.2)
    report = fit(mechanism, line_table)
    seen = set(torch.cat(mechanism.seen).tolist())
    rows = torch.tensor([row for row, b in enumerate(line_table["b"]) if b not in seen])
    b, a = line_table.tensor("b", rows), line_table.tensor("a", rows)
    error = (b - mechanism.weight[0] * a - mechanism.weight[1]).detach()
    assert report.validation_loss == pytest.approx(float(0.5 * (error**2).mean()), rel=1e-12)
    assert report.figures == {"largest error": pytest.approx(float(error.abs().max()))}
    assert report.parameters == 2 and report.seconds > 0 and report.train_loss is not None


def test_a_seed_decides_everything(picture_table):
    one, two, other = picture(), picture(), picture()
    reports = [
        fit(one, picture_table, "x", 1),
        fit(two, picture_table, "x", 1),
        fit(other, picture_table, "x", 2),
    ]
    assert same(one, two) and not same(one, other)
    assert reports[0].validation_loss == reports[1].validation_loss


def test_one_row_can_be_fitted():
    report = fit(line(), Table({"a": np.ones(1), "b": np.ones(1)}))
    assert (report.rows, report.held_out, report.validation_loss) == (1, 0, None)


# --- mechanisms of the house ---


def test_closed_forms_take_no_steps():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 400)
    mechanism = CategoricalSpec().bind(Categorical(3), {})
    report = fit(mechanism, Table({"c": codes}), "c")
    assert report.steps == 0 and report.held_out == 20 and mechanism.fitted
    assert report.train_loss == pytest.approx(math.log(3), abs=0.02)


@pytest.mark.parametrize("noise", ["normal", "empirical"])
def test_networks_in_float64_find_the_function(noise):
    rng = np.random.default_rng(0)
    a = rng.uniform(-2, 2, 500)
    table = Table({"a": a, "b": np.sin(a) + 0.1 * rng.normal(size=500)})
    spec = Additive(
        function="network", noise=noise, training=Training(epochs=60, batch_size=64, learning_rate=0.01)
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mechanism = spec.bind(Continuous(), {"a": Continuous()})
    fit(mechanism, table)
    assert {value.dtype for value in mechanism.parameters()} == {torch.float64}
    at = torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)
    zero = Noise(7, {"residual": torch.zeros(7, dtype=torch.float64)})
    torch.testing.assert_close(mechanism.generate({"a": at}, zero).detach(), at.sin(), atol=0.1, rtol=0)


@pytest.mark.parametrize("deviation", [0.05, 0.3])
def test_the_noise_beside_a_network_is_as_wide_as_what_it_leaves(deviation):
    """In the few steps of 200 rows it hardly moved from the deviation of b: 1.0."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=2200)
    b = a + 0.5 * np.sin(2 * a) + deviation * rng.normal(size=2200)
    mechanism = Additive(function="network").bind(Continuous(), {"a": Continuous()})
    fit(mechanism, Table({"a": a[:200], "b": b[:200]}))
    new = torch.tensor(b[200:]), {"a": torch.tensor(a[200:])}
    residual = mechanism.abduct(*new, generator=torch.Generator()).noise["residual"].detach()
    drawn = mechanism.sample_noise(2000, generator=torch.Generator().manual_seed(0))["residual"]
    assert drawn.std().item() == pytest.approx(residual.std().item(), rel=0.2)


# --- precision ---


@pytest.mark.parametrize(("precision", "dtype"), [("bfloat16", torch.bfloat16), ("float32", torch.float32)])
def test_precision_is_that_of_training_and_evaluation_is_full(picture_table, precision, dtype):
    mechanism = picture(precision=precision, validation=0)
    fit(mechanism, picture_table, "x")
    assert mechanism.dtypes == {dtype}
    assert {value.dtype for value in mechanism.parameters()} == {torch.float32}


def test_auto_precision_leaves_tables_alone():
    cpu = torch.device("cpu")
    assert resolve_precision("auto", cpu, images=False) == "float32"
    assert resolve_precision("bfloat16", cpu, images=False) == "bfloat16"
    assert resolve_precision("auto", torch.device("mps"), images=True) == "float32"


# --- early stopping ---


def overfitting(noise: Literal["normal", "empirical"] = "normal", **training) -> tuple[Mechanism, Table]:
    """A network that can learn 40 rows of noise by heart."""
    rng = np.random.default_rng(0)
    table = Table({"a": rng.normal(size=50), "b": rng.normal(size=50)})
    settings = Training(**({"epochs": 300, "batch_size": 10, "learning_rate": 1e-2} | training))
    spec = Additive(function="network", noise=noise, training=settings)
    return spec.bind(Continuous(), {"a": Continuous()}), table


def test_training_stops_and_the_best_weights_are_kept():
    stopped, table = overfitting("empirical")  # of which nothing but the network is fitted
    looked: list[float] = []
    loss = stopped.loss

    def recorded(value, parents, **options):
        found = loss(value, parents, **options)
        if not stopped.training:
            looked.append(float(found.mean()))
        return found

    stopped.loss = recorded
    report = fit(stopped, table)
    assert report.kept_step is not None and (report.rows, report.held_out) == (40, 10)
    assert 60 <= report.steps - report.kept_step < 60 + 8 and report.steps < 4 * 300
    *each, training, held_out = looked  # before every other epoch of 4 steps, and for the report
    assert len(each) == report.steps / 8 + 1
    assert report.validation_loss == held_out == min(each) == each[report.kept_step // 8]
    assert report.train_loss == training
    whole, _ = overfitting("empirical", patience=None, validation=0.2)
    long = fit(whole, table)
    assert (long.rows, long.steps, long.kept_step) == (40, 4 * 300, None)
    assert long.train_loss < report.train_loss and long.validation_loss > report.validation_loss


def test_what_overfits_is_told_with_a_remedy():
    learned, table = overfitting(patience=None, validation=0.4)
    report = FitReport({"b": fit(learned, table)})
    (told,) = report.advice
    assert told.startswith("b: the held-out loss is") and "it overfits 30 rows. Take a simpler" in told
    assert told in str(report) and "No figure here holds the error of the fitted parameters" in str(report)
    compared = {"chosen": {}, "label": "flow", "reason": "the highest", "candidates": {}}
    for name in ("additive", "flow"):
        compared["candidates"][name] = {"log_likelihood": -1.0, "rows": 20}
    assert replace(report["b"], choice=compared).advice is None  # rows held out chose it among simpler ones
    few, _ = overfitting()
    assert "40 rows are few for a mechanism that is trained" in str(fit(few, table).advice)
    many, _ = overfitting(epochs=20, batch_size=256)
    x = np.random.default_rng(1).normal(size=(2, 1000))
    assert fit(many, Table({"a": x[0], "b": x[0] + x[1]})).advice is None


def test_held_out_rows_of_probability_zero_are_counted():
    """Every category occurs once, so that none of a held-out row was seen."""
    counted = CategoricalSpec(smoothing=0, training=Training(validation=0.5)).bind(Categorical(40), {})
    report = fit_mechanism("x", counted, Table({"x": np.arange(40)}), seed=0, progress=False)
    assert report.impossible == 20 and report.validation_loss == math.inf
    assert "held-out loss inf (20 rows have probability 0; of a fit without 20 of them)" in str(report)
    assert report.advice is not None and report.advice.startswith("x: 20 of 20 held-out rows have")


def test_patience_is_for_tables_unless_asked(picture_table):
    plain, asked = picture(), picture(patience=100)
    assert fit(plain, picture_table, "x").kept_step is None
    report = fit(asked, picture_table, "x")
    assert report.kept_step is not None and (report.rows, report.held_out) == (24, 6)


# --- what cannot be fitted ---


def test_a_loss_that_is_not_finite_stops_the_fit(line_table, tmp_path):
    table = Table({"a": line_table["a"], "b": np.full(ROWS, 1e300)})
    with pytest.raises(MechanismError, match="loss of node 'b' became inf by step"):
        fit(line(), table, run_dir=tmp_path)


def test_nothing_to_train_is_told(line_table):
    mechanism = line()
    mechanism.weight.requires_grad_(False)
    with pytest.raises(MechanismError, match="'line' of node 'b' has no trainable parameter"):
        fit(mechanism, line_table)


# --- run folders ---


@pytest.mark.parametrize(
    ("stop_at", "training"),
    [
        *((stop, {}) for stop in (0, 1, 5, 8, 11)),
        (5, {"patience": 1, "epochs": 90}),
        pytest.param(70, {"patience": 1, "epochs": 90}, marks=pytest.mark.slow),
    ],
)
def test_resuming_is_as_if_nothing_had_happened(picture_table, tmp_path, stop_at, training):
    picture = partial(globals()["picture"], **training)
    whole = picture()
    report = fit(whole, picture_table, "x")
    stopped = picture()
    stopped.stop_at = stop_at
    with pytest.raises(Stop):
        fit(stopped, picture_table, "x", run_dir=tmp_path, checkpoint_seconds=0)
    resumed = picture(seed=1)  # a new process has other initial weights
    again = fit(resumed, picture_table, "x", run_dir=tmp_path, resume=True)
    assert same(whole, resumed)
    assert len(resumed.seen) == len(whole.seen) - stop_at
    assert (again.train_loss, again.validation_loss) == (report.train_loss, report.validation_loss)


SCRIPT = """
import os, signal, sys, numpy as np, torch
from causalgen.fitting.fit import fit_mechanism
from causalgen.data.table import Table
from graphs.variables import Continuous
from mechanisms.tables.additive import Additive
from mechanisms.training import Training

def make(seed):
    torch.manual_seed(seed)
    training = Training(epochs=30, batch_size=32)
    spec = Additive(function="network", hidden=(16, 16), training=training)
    return spec.bind(Continuous(), {"a": Continuous()})

a = np.random.default_rng(0).normal(size=640)
table = Table({"a": a, "b": np.sin(a)})

def fit(mechanism, **options):
    return fit_mechanism("b", mechanism, table, seed=3, progress=False, checkpoint_seconds=0.02, **options)

if __name__ == "__main__":
    mechanism, calls = make(0), 0
    loss = mechanism.loss
    def killed(*args, **options):
        global calls
        calls += 1
        if calls == 350:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss(*args, **options)
    mechanism.loss = killed
    fit(mechanism, run_dir=sys.argv[1])
"""


def test_a_fit_killed_by_the_system_resumes_bit_for_bit(tmp_path):
    script, folder = tmp_path / "fit.py", tmp_path / "run"
    script.write_text(SCRIPT)
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, script, folder], env=os.environ | paths, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    with safe_open(folder / "b.safetensors", framework="pt") as file:
        assert 0 < json.loads(file.metadata()["values"])["step"] < 350
    half = {"__name__": "half"}
    exec(SCRIPT, half)
    with torch.random.fork_rng():
        whole, resumed = half["make"](0), half["make"](1)
    first, second = half["fit"](whole), half["fit"](resumed, run_dir=folder, resume=True)
    assert same(whole, resumed)
    assert first.steps == second.steps == 30 * 17 and first.kept_step == second.kept_step
    assert (first.train_loss, first.validation_loss) == (second.train_loss, second.validation_loss)


def test_a_finished_node_is_loaded_not_fitted_again(picture_table, tmp_path):
    fitted = picture()
    report = fit(fitted, picture_table, "x", run_dir=tmp_path)
    loaded = picture(seed=1)
    assert fit(loaded, picture_table, "x", run_dir=tmp_path, resume=True) == report
    assert same(fitted, loaded) and loaded.fitted and not loaded.seen


def test_a_run_that_has_begun_is_not_overwritten(line_table, tmp_path):
    fit(line(), line_table, run_dir=tmp_path)
    with pytest.raises(CheckpointError, match=r"already holds a fit of node 'b'.*resume=True"):
        fit(line(), line_table, run_dir=tmp_path)


def test_nothing_to_resume_is_told(line_table, tmp_path):
    with pytest.raises(CheckpointError, match="Nothing to resume"):
        fit(line(), line_table, run_dir=tmp_path / "typo", resume=True)


def test_a_node_that_had_not_begun_begins_on_resume(line_table, picture_table, tmp_path):
    fit(line(), line_table, run_dir=tmp_path)
    assert fit(picture(), picture_table, "x", run_dir=tmp_path, resume=True).steps
    assert list(json.loads((tmp_path / "run.json").read_text())["nodes"]) == ["b", "x"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 1}, "seed was 0, now 1"),
        ({"epochs": 4}, "mechanism.training.epochs was 3, now 4"),
        ({"row": True}, "data was .*, now "),
        ({"upper": 9.0}, "variable.upper was None, now 9"),
    ],
)
def test_a_run_is_resumed_only_with_what_it_began_with(line_table, tmp_path, change, told):
    fit(line(), line_table, run_dir=tmp_path)
    mechanism = line(**({"epochs": 4} if "epochs" in change else {}))
    if "upper" in change:
        mechanism.variable = Continuous(upper=change["upper"])
    if "row" in change:
        line_table = Table({"a": line_table["a"], "b": np.append(line_table["b"][:-1], 0.0)})
    with pytest.raises(CheckpointError, match=told):
        fit(mechanism, line_table, seed=change.get("seed", 0), run_dir=tmp_path, resume=True)


def test_training_starts_from_the_weights_of_another_model(line_table, tmp_path):
    earlier = line(epochs=40, learning_rate=0.1, validation=0.0)
    fit(earlier, line_table)
    begun, went_on = line(epochs=1, learning_rate=1e-9), line(epochs=1, learning_rate=1e-9)
    fit(begun, line_table)
    report = fit(went_on, line_table, start=earlier, run_dir=tmp_path)
    assert report.train_loss is not None and report.train_loss < 0.02
    torch.testing.assert_close(went_on.weight, earlier.weight, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(begun.weight, earlier.weight, atol=0.1)
    # The run is of that start: with another one, or none, it would have ended elsewhere.
    with pytest.raises(CheckpointError, match="start was "):
        fit(line(epochs=1, learning_rate=1e-9), line_table, run_dir=tmp_path, resume=True)


def test_a_damaged_state_is_refused(line_table, tmp_path):
    fit(line(), line_table, run_dir=tmp_path)
    path = tmp_path / "b.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ChecksumError, match=r"is damaged.*Delete it"):
        fit(line(), line_table, run_dir=tmp_path, resume=True)
    path.write_bytes(data[:50])
    with pytest.raises(CheckpointError, match="Cannot read the state"):
        fit(line(), line_table, run_dir=tmp_path, resume=True)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", CheckpointError),
        ('{"format": 1}', CheckpointError),
        ('{"format": 3, "nodes": {}}', FormatVersionError),
        ('{"format": "1", "nodes": {}}', CheckpointError),
        ("[" * 100_000, CheckpointError),
    ],
)
def test_a_run_file_that_cannot_be_read_is_refused(line_table, tmp_path, text, error):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(error, match=r"run\.json"):
        fit(line(), line_table, run_dir=tmp_path, resume=True)


def test_a_run_folder_that_cannot_be_written_is_told_before_training(line_table, tmp_path):
    (tmp_path / "file").write_text("")
    mechanism = line()
    with pytest.raises(CheckpointError, match="Cannot use the run folder"):
        fit(mechanism, line_table, run_dir=tmp_path / "file" / "run")
    assert not mechanism.seen


def test_the_log_is_a_json_object_a_line_also_after_a_torn_one(line_table, tmp_path):
    (tmp_path / "log.jsonl").write_text('{"torn": ')
    fit(line(), line_table, run_dir=tmp_path)
    _, *lines = (tmp_path / "log.jsonl").read_text().splitlines()
    events = [json.loads(each) for each in lines]
    assert [event["event"] for event in events] == ["step", "fitted"]
    assert events[0]["step"] == events[0]["steps"] == events[1]["steps"]
    assert {"loss", "learning_rate", "rows_per_second"} <= events[0].keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.safetensors", "log.jsonl", "run.json"]


# --- seeds, progress, reports ---


def test_keyed_seeds_are_told_apart_and_stay_the_same():
    assert keyed_seed(0, "fit", "x", 1) == 8011649420407774401
    keys = [(0,), (1,), (0, "a"), (0, "a", 1), (0, "a", "1"), (0, "a1"), (0, 1, "a")]
    assert len({keyed_seed(*key) for key in keys}) == len(keys)
    assert all(0 <= keyed_seed(*key) < 2**63 for key in keys)
    draws = [torch.rand(3, generator=keyed_generator(0, "a")) for _ in range(2)]
    assert torch.equal(*draws)


def test_progress_is_a_line_now_and_then_without_a_terminal(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(causalgen.fitting.progress.time, "perf_counter", lambda: now[0])
    console = Console(file=open(os.devnull, "w"), record=True, width=200)
    with Progress("x", 180, unit="step", console=console) as bar:
        for step in range(100):
            now[0] = float(step)
            bar.update(2 * step, "loss 0.5", "1,234 rows/s")
    console.file.close()
    lines = console.export_text().splitlines()
    assert lines[0] == "x: step 60/180, loss 0.5, 1,234 rows/s, 1m00s left"
    assert len(lines) == 3


def test_progress_is_a_bar_on_a_terminal():
    console = Console(file=open(os.devnull, "w"), record=True, width=120, force_terminal=True)
    with Progress("picture", 10, done=4, console=console) as bar:
        bar.begin("image")
        bar.advance(5)
        bar.update(10, "loss 0.25", "2,000 rows/s")
    console.file.close()
    text = console.export_text()
    assert all(each in text for each in ("image", "10/10", "loss 0.25", "2,000 rows/s", "0s left"))


def test_nothing_is_shown_when_nothing_should_be(line_table, capsys):
    fit(line(), line_table)
    assert capsys.readouterr() == ("", "")


def test_durations_are_for_people():
    assert [duration(each) for each in (0, 59.6, 3599, 7260, math.inf)] == [
        "0s",
        "1m00s",
        "59m59s",
        "2h01m",
        "?",
    ]


def test_reports_read_well_and_are_plain(line_table):
    report = FitReport({"b": fit(line(), line_table)})
    assert str(report).startswith("b: 81 rows, 20 held out, 2 parameters, 18 steps (the best after 18) in 0.")
    assert "held-out loss" in str(report) and "largest error" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["b"]["steps"] == report["b"].steps == 18
    assert str(FitReport({})) == "nothing was fitted"
