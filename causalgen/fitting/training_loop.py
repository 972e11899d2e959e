"""The training loop: AdamW steps over shuffled rows, of mechanisms and evaluators, resumable between any two.

    theta_{k+1} = AdamW(theta_k, clip(grad mean_n loss_n)),  learning rate: linear warm-up, cosine to 0
    average_{k+1} = d average_k + (1 - d) theta_{k+1},  d = min(ema, (1 + k) / (10 + k));  kept at the end

Lean on purpose: a step of a table node takes well under a millisecond, so whatever happens in each step
is a few tensor operations; showing, logging and saving are looked after a few times a second.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from causalgen.fitting.early_stopping import EarlyStopping, patience_of
from causalgen.fitting.progress import Progress, duration
from causalgen.fitting.run_folder import RunFolder, State
from causalgen.fitting.runtime import Precision, Runtime, autocast, peak_memory, resolve_precision
from graphs.errors import CheckpointError, MechanismError
from mechanisms.seeds import keyed_generator, keyed_seed, seed_layers
from mechanisms.training import Training

__all__ = ["Objective", "TrainingLoop", "learning_rate"]

SHOW_SECONDS = 0.5
LOG_SECONDS = 5.0

_TIMED_STEPS = 3
"""Steps of a training on images, after its first one, that its length is estimated from."""


@dataclass(frozen=True)
class Objective:
    """What is minimised: the mean loss of a module over rows.

    Attributes:
        module: whose parameters are trained and whose state is kept.
        inputs: the arguments of ``loss`` for some rows, given by number, on the module's device.
        loss: (*inputs, generator) -> loss of each row, (B,), or their mean.
        rows: numbers of the training rows.
        keys: name the streams of random numbers, as in ("fit", "x").
        label: in messages, as in "node 'x'".
        images: whether rows hold images, which decides precision and patience.
        stage: number of this training among those of one fit.
        fixed: parts of the module that are used and not trained.
        progress: told the share of the steps done, before each step.
        noise: a generator that goes on from step to step. By default each step seeds its own, so that what
            it draws depends on its number alone: a run of several processes, or a resumed one, needs that.
    """

    module: nn.Module
    inputs: Callable[[Tensor], tuple[Any, ...]]
    loss: Callable[..., Tensor]
    rows: Tensor
    keys: tuple[str, ...]
    label: str
    images: bool
    stage: int = 0
    fixed: tuple[nn.Module, ...] = ()
    progress: Callable[[float], None] | None = None
    noise: torch.Generator | None = None


class _MeanLoss(nn.Module):
    """The mean loss of a batch as a module's forward, which is what accelerate can wrap."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.module, self._loss = objective.module, objective.loss

    def forward(self, *inputs: Any) -> Tensor:
        return self._loss(*inputs).mean()


def learning_rate(step: int, total: int, settings: Training) -> float:
    """The rate of a step, counted from 0: a linear rise over the warm-up, then half a cosine to 0."""
    warmup = math.ceil(settings.warmup * total)
    if step < warmup:
        return settings.learning_rate * (step + 1) / (warmup + 1)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


class TrainingLoop:
    """The fit of one module by gradient steps.

    Args:
        objective: what to minimise.
        settings: of the loop; ``validation`` and ``patience`` matter with ``held_out_loss`` alone.
        seed: keys every random number.
        runtime: device, processes.
        held_out_loss: of the weights as they are, for early stopping.

    Attributes:
        step: steps taken.
        total: steps in all.
        seconds: time taken, by the runs that this one resumes too.
        rate: the last step's learning rate.
        precision: of the forward passes; a resumed run keeps that of its start.
    """

    def __init__(
        self,
        objective: Objective,
        settings: Training,
        seed: int,
        runtime: Runtime,
        held_out_loss: Callable[[], float] | None = None,
    ) -> None:
        self.objective, self.settings, self.seed, self.runtime = objective, settings, seed, runtime
        self.module, self.rows = objective.module, objective.rows
        named = [(key, value) for key, value in self.module.named_parameters() if value.requires_grad]
        if not named:
            raise MechanismError(f"There is nothing to train: {objective.label} has no trainable parameter.")
        self._names = [key for key, _ in named]
        self._parameters = [value for _, value in named]
        # Without gradient history: the average must not remember the steps.
        self._weights = [value.detach() for value in self._parameters]
        self._average = [value.clone() for value in self._weights] if self.settings.ema else []
        self._optimizer = torch.optim.AdamW(
            self._parameters,
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            fused=True,
        )
        # Batches of nearly equal size: no short last one with a noisy gradient, and no row left out.
        self._batches = math.ceil(len(self.rows) / self.settings.batch_size)
        epochs = max(self.settings.epochs, math.ceil(self.settings.steps / self._batches))
        self.step, self.total = 0, self._batches * epochs
        self.seconds, self.rate = 0.0, 0.0
        self.precision: Precision = resolve_precision(
            settings.precision, runtime.device, images=objective.images
        )
        patience = patience_of(settings, images=objective.images)
        self.stopping: EarlyStopping | None = None
        if patience is not None and held_out_loss is not None:
            agreed = partial(_agreed, runtime, held_out_loss)
            self.stopping = EarlyStopping(agreed, patience, self._batches)
        # Apple's GPUs have no float64.
        exact = torch.float32 if runtime.device.type == "mps" else torch.float64
        self._epoch_loss = torch.zeros((), dtype=exact, device=runtime.device)

    def run(self, bar: Progress, folder: RunFolder | None = None, checkpoint_seconds: float = 60.0) -> float:
        """Take the steps that are left; keep the averaged or the best weights; the last epoch's mean loss."""
        clock = _Clock(self, bar, folder, checkpoint_seconds)
        if folder is not None and self.step == 0:
            folder.save(self.state())  # the weights it began with, which a new process may not have
        mean_loss, optimizer = self.runtime.prepare(_MeanLoss(self.objective), self._optimizer)
        if self.step == 0:
            # With several processes all have just got the weights of the first one.
            for average, weight in zip(self._average, self._weights, strict=False):
                average.copy_(weight)
        self._train_mode()
        context = autocast(self.precision, self.runtime.device)
        noise = self.objective.noise or torch.Generator(self.runtime.device)
        base = keyed_seed(self.seed, *self.objective.keys, "noise", self.runtime.rank)
        while self.step < self.total and not self._stops():
            for batch in self._rest_of_epoch():
                if self.objective.noise is None:
                    self._seed_step((base + self.step) % 2**63, noise)
                if self.objective.progress is not None:
                    self.objective.progress(self.step / self.total)
                inputs = self.objective.inputs(batch)
                with context:
                    loss = mean_loss(*inputs, noise)
                self._update(loss, optimizer)
                clock.tick(loss, len(batch))
        clock.stop()
        if self.step == self.total:
            self._stops()
        self._keep()
        return float(self._epoch_loss) / self._batches

    def state(self) -> State:
        """Everything that the steps to come depend on."""
        tensors = {f"model.{key}": value for key, value in self.module.state_dict().items()}
        tensors |= {f"average.{key}": value for key, value in zip(self._names, self._average, strict=False)}
        for key, parameter in zip(self._names, self._parameters, strict=True):
            moments = self._optimizer.state.get(parameter, {})
            tensors |= {f"optimizer.{key}.{what}": moment for what, moment in moments.items()}
        tensors["epoch_loss"] = self._epoch_loss
        values: dict[str, Any] = {
            "stage": self.objective.stage,
            "step": self.step,
            "seconds": self.seconds,
            "precision": self.precision,
        }
        if self.stopping is not None:
            tensors |= {f"kept.{key}": value for key, value in self.stopping.kept.items()}
            values |= self.stopping.values()
        return State(tensors, values)

    def restore(self, state: State) -> None:
        """Go on from a state; the mechanism and the settings must be those it was taken of."""
        try:
            self.module.load_state_dict(_below("model.", state.tensors))
            for key, average in zip(self._names, self._average, strict=False):
                average.copy_(state.tensors[f"average.{key}"])
            moments = {
                index: _laid_out(_below(f"optimizer.{key}.", state.tensors), self._weights[index])
                for index, key in enumerate(self._names)
            }
            groups = self._optimizer.state_dict()["param_groups"]
            self._optimizer.load_state_dict(
                {"state": {index: each for index, each in moments.items() if each}, "param_groups": groups}
            )
            self._epoch_loss.copy_(state.tensors["epoch_loss"])
            self.step, self.seconds = int(state.values["step"]), float(state.values["seconds"])
            self.precision = state.values.get("precision", self.precision)
            if self.stopping is not None:
                self.stopping.restore(state.values, _below("kept.", state.tensors))
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"The saved state of {self.objective.label} does not fit it: {error}"
            ) from error

    def _stops(self) -> bool:
        """Look at the held-out loss, between two epochs; whether it has not fallen for long enough."""
        if self.stopping is None:
            return False
        if self.step % self._batches == 0 and (self.stopping.due(self.step) or self.step == self.total):
            weights = [weight.clone() for weight in self._weights] if self._average else []
            self._average_weights()
            self.stopping.look(self.step, self._tensors)
            for weight, before in zip(self._weights, weights, strict=False):
                weight.copy_(before)
            self._train_mode()
        return self.stopping.done

    def _keep(self) -> None:
        """The weights to keep, in place of the last ones."""
        if self.stopping is None:
            self._average_weights()
            return
        for key, tensor in self._tensors().items():
            tensor.copy_(self.stopping.kept[key])

    def _train_mode(self) -> None:
        self.module.train()
        for part in self.objective.fixed:
            part.eval()

    def _average_weights(self) -> None:
        for weight, average in zip(self._weights, self._average, strict=False):
            weight.copy_(average)

    def _tensors(self) -> dict[str, Tensor]:
        """All that training may change, by name: parameters, and buffers such as running averages."""
        named = (*self.module.named_parameters(), *self.module.named_buffers())
        return {key: value.detach() for key, value in named}

    def _rest_of_epoch(self) -> tuple[Tensor, ...]:
        """The row numbers of the batches that are left in this epoch, this process's share of each."""
        epoch, done = divmod(self.step, self._batches)
        if done == 0:
            self._epoch_loss.zero_()
        generator = keyed_generator(self.seed, *self.objective.keys, "order", epoch)
        order = self.rows[torch.randperm(len(self.rows), generator=generator)]
        batches = order.tensor_split(self._batches)[done:]
        if self.runtime.processes == 1:
            return batches
        # A batch with fewer rows than processes is given to all of them whole.
        rank, processes = self.runtime.rank, self.runtime.processes
        return tuple(batch[rank::processes] if len(batch) >= processes else batch for batch in batches)

    def _seed_step(self, seed: int, noise: torch.Generator) -> None:
        """The loss's own noise, and what layers such as dropout draw."""
        noise.manual_seed(seed)
        seed_layers(seed, self.runtime.device)

    def _update(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        self.runtime.backward(loss)
        nn.utils.clip_grad_norm_(self._parameters, self.settings.gradient_clip)
        self.rate = learning_rate(self.step, self.total, self.settings)
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate
        optimizer.step()
        if self._average:
            decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
            get_ema_multi_avg_fn(decay)(self._average, self._weights, self.step)
        self._epoch_loss += loss.detach()
        self.step += 1


class _Clock:
    """Looks after showing, logging and saving, as time passes."""

    def __init__(
        self, loop: TrainingLoop, bar: Progress, folder: RunFolder | None, checkpoint_seconds: float
    ) -> None:
        self._loop, self._bar, self._folder, self._every = loop, bar, folder, checkpoint_seconds
        now = time.perf_counter()
        self._last = now
        self._next_show = now + SHOW_SECONDS
        self._next_log, self._next_save = now + LOG_SECONDS, now + checkpoint_seconds
        self._loss = torch.zeros((), device=loop.runtime.device)
        self._rows, self._steps, self._since = 0, 0, now
        self._rate = 0.0
        self._log_loss, self._log_steps = 0.0, 0  # since the last line of the log
        self._timed = -1 if loop.objective.images and loop.step < loop.total else _TIMED_STEPS
        self._began = now
        if self._timed < 0:
            bar.say(f"{loop.total - loop.step:,} steps of {loop.settings.batch_size:,} images")

    def tick(self, loss: Tensor, rows: int) -> None:
        """Called after every step: cheap, unless something is due."""
        self._loss += loss.detach()
        self._rows += rows
        self._steps += 1
        now = time.perf_counter()
        if self._timed < _TIMED_STEPS:
            self._estimate(now, rows)
        if now >= self._next_show or now >= self._next_save:
            self._look(now)

    def _estimate(self, now: float, rows: int) -> None:
        """Say how long it takes and how much memory, by the steps after the very first, a slow one."""
        self._timed += 1
        if self._timed == 0:
            self._began = now
        if self._timed < _TIMED_STEPS:
            return
        loop, step = self._loop, max((now - self._began) / _TIMED_STEPS, 1e-9)
        left, rate = step * (loop.total - loop.step), rows * loop.runtime.processes / step
        memory = peak_memory(loop.runtime.device)
        held = "" if memory is None else f", {memory / 1e9:.1f} GB of memory"
        self._bar.say(f"about {duration(left)} by the first steps, {rate:,.0f} images/s{held}")
        if self._folder is not None:
            self._folder.log(
                "estimate", seconds=round(left, 1), rows_per_second=round(rate, 1), memory=memory
            )

    def stop(self) -> None:
        """Called after the last step."""
        if self._steps:
            self._look(time.perf_counter(), last=True)
        if self._log_steps:
            self._log()

    def _look(self, now: float, *, last: bool = False) -> None:
        loop = self._loop
        loss = float(self._loss) / self._steps
        if not math.isfinite(loss):
            # Before saving: the state on the disk stays the last good one.
            raise MechanismError(
                f"The loss of {loop.objective.label} became {loss} by step {loop.step}. "
                f"Lower training.learning_rate (now {loop.settings.learning_rate:g}), or look for outliers."
            )
        loop.seconds += now - self._last
        self._last = now
        rate = self._rows * loop.runtime.processes / max(now - self._since, 1e-9)
        self._bar.update(loop.step, f"loss {loss:.4g}", f"{rate:,.0f} rows/s")
        self._log_loss += loss * self._steps
        self._log_steps += self._steps
        self._rate = rate
        if now >= self._next_log:
            self._log()
            self._next_log = now + LOG_SECONDS
        if self._folder is not None and now >= self._next_save and not last:
            self._folder.save(loop.state())
            self._next_save = time.perf_counter() + self._every
        self._next_show = now + SHOW_SECONDS
        self._loss.zero_()
        self._rows, self._steps, self._since = 0, 0, now

    def _log(self) -> None:
        loop = self._loop
        if self._folder is not None:
            self._folder.log(
                "step",
                step=loop.step,
                steps=loop.total,
                loss=self._log_loss / self._log_steps,
                learning_rate=loop.rate,
                rows_per_second=round(self._rate, 1),
                seconds=round(loop.seconds, 3),
            )
        self._log_loss, self._log_steps = 0.0, 0


def _agreed(runtime: Runtime, loss: Callable[[], float]) -> float:
    return runtime.agreed(loss())


def _laid_out(moments: Mapping[str, Tensor], weight: Tensor) -> dict[str, Tensor]:
    """Moments in the memory layout of their weight, which a fused optimizer takes for granted."""
    return {
        what: torch.empty_like(weight).copy_(each) if each.shape == weight.shape else each
        for what, each in moments.items()
    }


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
