"""The training loop: AdamW steps over shuffled rows, of mechanisms and evaluators, resumable between any two.

    theta_{k+1} = AdamW(theta_k, clip(grad mean_n loss_n)),  learning rate: linear warm-up, cosine to 0
    average_{k+1} = d average_k + (1 - d) theta_{k+1},  d = min(ema, (1 + k) / (10 + k));  kept at the end

A part with a loss of its own (``OwnLoss``) is clipped by itself.

Processes share each batch: each draws what one process alone would have drawn for all of it, keeps its share
of rows, and weighs its mean loss by that share. So their number changes rounding alone, also from one run to
one that resumes it. Layers that draw (dropout) draw apart in each.

Lean on purpose: a step of a table node takes well under a millisecond, so whatever happens in each step
is a few tensor operations; showing, logging and saving are looked after a few times a second.

Early stopping keeps the weights whose held-out loss is least, and stops once it has not fallen for long. That
loss is looked at between epochs, at most once in 5 steps, and after the last one, of the averaged weights
where there is an average. The weights that training began with are a candidate too. All of it is part of a
run's state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from causalgen.fitting.progress import Clock, Progress
from causalgen.fitting.run_folder import RunFolder, State
from causalgen.fitting.runtime import Precision, Runtime, all_like, autocast, like, resolve_precision, whole
from graphs.errors import CheckpointError, MechanismError, warn
from mechanisms.seeds import SharedDraws, keyed_generator, keyed_seed, seed_layers
from mechanisms.training import OwnLoss, Training

__all__ = ["EarlyStopping", "Objective", "TrainingLoop", "learning_rate", "patience_of"]

_PATIENCE = 15
"""Epochs without a better held-out loss, for ``patience: auto`` of a table node."""

_STEPS_APART = 5

_LEAST_STEPS = 60
"""Steps that these epochs take at least: of a small table, an epoch is a step or two."""

_ENOUGH_BATCHES, _CLEAR_RISE = 8, 6.0
"""Batches of an epoch that say how far its mean loss is by chance, and how many such errors are none."""


def patience_of(settings: Training, *, images: bool) -> int | None:
    """Epochs that a fit waits for a better held-out loss; None where it never stops early."""
    if settings.validation == 0:
        return None
    if settings.patience == "auto":
        return None if images else _PATIENCE
    return settings.patience


class EarlyStopping:
    """The weights and buffers with the least held-out loss so far, after ``step`` steps."""

    def __init__(self, held_out_loss: Callable[[], float], patience: int, batches: int) -> None:
        self._held_out_loss = held_out_loss
        self._patience = max(patience * batches, _LEAST_STEPS)
        self.best, self.step, self.looked = math.inf, 0, -1
        self.kept: dict[str, Tensor] = {}

    def due(self, step: int) -> bool:
        """Whether it is time to look again, between two epochs."""
        return self.looked < 0 or step - self.looked >= _STEPS_APART

    def look(self, step: int, tensors: Callable[[], Mapping[str, Tensor]]) -> None:
        """Measure the weights after so many steps, and keep them where they are the best."""
        self.looked = step
        loss = self._held_out_loss()
        if not self.kept or loss < self.best:  # never against a loss that is no number
            self.best, self.step = loss, step
            self.kept = {name: tensor.detach().clone() for name, tensor in tensors().items()}

    @property
    def done(self) -> bool:
        """Whether the best weights are too long ago."""
        return self.looked - self.step >= self._patience

    def values(self) -> dict[str, Any]:
        """Its plain values, for a run's state."""
        return {"best": self.best, "best_step": self.step, "looked": self.looked}

    def restore(self, values: Mapping[str, Any], kept: dict[str, Tensor]) -> None:
        """Go on from a state."""
        self.best, self.step = float(values["best"]), int(values["best_step"])
        self.looked, self.kept = int(values["looked"]), kept


@dataclass(frozen=True)
class Objective:
    """What is minimised: the mean loss of a module over rows."""

    module: nn.Module  # whose parameters are trained and whose state is kept
    # The arguments of ``loss`` for some rows, given by number, on the module's device
    inputs: Callable[[Tensor], tuple[Any, ...]]
    loss: Callable[..., Tensor]  # (*inputs, generator) -> loss of each row, (B,), or their mean
    rows: Tensor  # numbers of the training rows
    keys: tuple[str, ...]  # name the streams of random numbers, as in ("fit", "x")
    label: str  # in messages, as in "node 'x'"
    images: bool  # whether rows hold images, which decides precision and patience
    stage: int = 0  # number of this training among those of one fit
    fixed: tuple[nn.Module, ...] = ()  # parts of the module that are used and not trained
    progress: Callable[[float], None] | None = None  # told the share of the steps done, before each step
    # A generator that goes on from step to step. By default each step seeds its own, so that what it draws
    # depends on its number alone: a run of several processes, or a resumed one, needs that.
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
    """The fit of one module by gradient steps; the seed keys every random number.

    ``validation`` and ``patience`` of the settings matter with ``held_out_loss`` alone, which is of the
    weights as they are. ``seconds`` are those of the runs that this one resumes too; ``rate`` is the last
    step's learning rate, ``precision`` that of the forward passes, which a resumed run keeps.
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
        self.label, self.images = objective.label, objective.images
        named = [(key, value) for key, value in self.module.named_parameters() if value.requires_grad]
        if not named:
            raise MechanismError(f"There is nothing to train: {objective.label} has no trainable parameter.")
        self._names = [key for key, _ in named]
        self._parameters = [value for _, value in named]
        apart = [part for part in self.module.modules() if isinstance(part, OwnLoss)]
        whose = {value: number for number, part in enumerate(apart) for value in part.parameters()}
        numbers = sorted({whose.get(value, -1) for value in self._parameters})
        self._clipped = [[v for v in self._parameters if whose.get(v, -1) == each] for each in numbers]
        self._weights = self._values()
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
        self._risen = 0
        self.precision: Precision = resolve_precision(
            settings.precision, runtime.device, images=objective.images
        )
        patience = patience_of(settings, images=objective.images)
        self.stopping: EarlyStopping | None = None
        if patience is not None and held_out_loss is not None:
            loss = held_out_loss
            self.stopping = EarlyStopping(lambda: runtime.agreed(loss()), patience, self._batches)
        # Apple's GPUs have no float64.
        exact = torch.float32 if runtime.device.type == "mps" else torch.float64
        self._epoch_loss = torch.zeros((), dtype=exact, device=runtime.device)
        self._epoch_squares = self._epoch_loss.clone()
        self._least = torch.full_like(self._epoch_loss, torch.finfo(exact).max)

    def run(self, bar: Progress, folder: RunFolder | None = None, checkpoint_seconds: float = 60.0) -> float:
        """Take the steps that are left; keep the averaged or the best weights; the last epoch's mean loss."""
        clock = Clock(self, bar, folder, checkpoint_seconds)
        if folder is not None and self.step == 0:
            folder.save(self.state())  # the weights it began with, which a new process may not have
        mean_loss, optimizer = self.runtime.prepare(_MeanLoss(self.objective), self._optimizer)
        self._weights = self._values()  # shared by processes, parameters have other memory now
        if self.step == 0:
            # With several processes all have just got the weights of the first one.
            for average, weight in zip(self._average, self._weights, strict=False):
                average.copy_(weight)
        self._train_mode()
        self._tell_normalised_apart()
        noise = self.objective.noise or _StepNoise(self.seed, self.objective.keys, self.runtime)
        while self.step < self.total and not self._stops():
            for batch in self._rest_of_epoch():
                own, weight = self._share(len(batch))
                drawn = noise if isinstance(noise, torch.Generator) else noise.of(self.step, len(batch), own)
                if self.objective.progress is not None:
                    self.objective.progress(self.step / self.total)
                inputs = self.objective.inputs(batch[own])
                with autocast(self.precision, self.runtime.device):
                    loss = mean_loss(*inputs, drawn)
                loss = self._update(loss if weight == 1 else weight * loss, optimizer)
                clock.tick(loss, len(batch))
            self._tell_divergence()
            torch.minimum(self._least, self._epoch_loss / self._batches, out=self._least)
        clock.stop()
        if self.step == self.total:
            self._stops()
        self._keep()
        return float(self._epoch_loss) / self._batches

    def state(self) -> State:
        """Everything that the steps to come depend on; where weights are split, all processes ask at once."""
        tensors = {f"model.{key}": value for key, value in self.module.state_dict().items()}
        tensors |= {f"average.{key}": value for key, value in zip(self._names, self._average, strict=False)}
        for key, parameter in zip(self._names, self._parameters, strict=True):
            moments = self._optimizer.state.get(parameter, {})
            tensors |= {f"optimizer.{key}.{what}": moment for what, moment in moments.items()}
        kept = self.runtime.is_main
        tensors = {key: whole(value, kept=kept) for key, value in tensors.items()}
        tensors["epoch_loss"], tensors["epoch_squares"] = self._epoch_loss, self._epoch_squares
        tensors["least_loss"] = self._least
        values: dict[str, Any] = {
            "stage": self.objective.stage,
            "step": self.step,
            "seconds": self.seconds,
            "precision": self.precision,
        }
        if self.stopping is not None:
            tensors |= {f"kept.{key}": whole(value, kept=kept) for key, value in self.stopping.kept.items()}
            values |= self.stopping.values()
        return State(tensors, values)

    def restore(self, state: State) -> None:
        """Go on from a state; the mechanism and the settings must be those it was taken of."""
        try:
            own = self.module.state_dict()
            self.module.load_state_dict(all_like(_below("model.", state.tensors), own))
            for key, average in zip(self._names, self._average, strict=False):
                average.copy_(like(state.tensors[f"average.{key}"], average))
            moments = {
                index: _laid_out(_below(f"optimizer.{key}.", state.tensors), self._weights[index])
                for index, key in enumerate(self._names)
            }
            groups = self._optimizer.state_dict()["param_groups"]
            self._optimizer.load_state_dict(
                {"state": {index: each for index, each in moments.items() if each}, "param_groups": groups}
            )
            self._epoch_loss.copy_(state.tensors["epoch_loss"])
            if "least_loss" in state.tensors:  # states before there was a warning have none
                self._epoch_squares.copy_(state.tensors["epoch_squares"])
                self._least.copy_(state.tensors["least_loss"])
            self.step, self.seconds = int(state.values["step"]), float(state.values["seconds"])
            self.precision = state.values.get("precision", self.precision)
            if self.stopping is not None:
                own, kept = self._tensors(), _below("kept.", state.tensors)
                # All or, before the first look, none: not those of an earlier version's mechanism.
                kept = {key: kept[key] for key in own} if kept else kept
                self.stopping.restore(state.values, all_like(kept, own))
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

    def _values(self) -> list[Tensor]:
        """The memory of the parameters, without gradient history: the average must not remember the steps."""
        return [value.detach() for value in self._parameters]

    def _train_mode(self) -> None:
        self.module.train()
        for part in self.objective.fixed:
            part.eval()

    def _tell_normalised_apart(self) -> None:
        """Warn of layers whose statistics are those of a batch, of which each process has a share."""
        kinds = {type(each).__name__ for each in self.module.modules() if _normalises_batch(each)}
        if kinds and self.runtime.processes > 1:
            warn(
                f"{self.objective.label} has {', '.join(sorted(kinds))}, which each of "
                f"{self.runtime.processes} processes applies to its own share of a batch: the weights depend "
                "on their number. Fit in one process, or normalise row by row (GroupNorm)."
            )

    def _tell_divergence(self) -> None:
        """Warn where an epoch's loss is above an earlier one's, which no rising price explains.

        Where the last weights are kept: at the end, and, of images, after two such epochs running, so that
        nobody waits in vain. One may be chance, since the least of many epochs is an extreme.
        """
        ends = self.step == self.total
        unclear = self.objective.progress is not None or self._batches < _ENOUGH_BATCHES
        if unclear or self.stopping is not None:
            return
        last, least = float(self._epoch_loss) / self._batches, float(self._least)
        variance = max(float(self._epoch_squares) / self._batches - last**2, 0.0)
        rises = last - least > _CLEAR_RISE * (variance / self._batches) ** 0.5
        self._risen = self._risen + 1 if rises else 0
        if rises and (ends or (self.images and self._risen == 2)):
            how, name = ("ended at", "diverged") if ends else ("rose to", "diverges")
            warn(
                f"Training {name}: the loss of {self.objective.label} {how} {last:.4g}, above the "
                f"{least:.4g} of an earlier epoch. Fit again with a lower training.learning_rate (now "
                f"{self.settings.learning_rate:g})."
            )

    def _average_weights(self) -> None:
        for weight, average in zip(self._weights, self._average, strict=False):
            weight.copy_(average)

    def _tensors(self) -> dict[str, Tensor]:
        """All that training may change, by name: parameters, and buffers such as running averages."""
        named = (*self.module.named_parameters(), *self.module.named_buffers())
        return {key: value.detach() for key, value in named}

    def _rest_of_epoch(self) -> tuple[Tensor, ...]:
        """The row numbers of the batches that are left in this epoch."""
        epoch, done = divmod(self.step, self._batches)
        if done == 0:
            self._epoch_loss.zero_()
            self._epoch_squares.zero_()
        generator = keyed_generator(self.seed, *self.objective.keys, "order", epoch)
        order = self.rows[torch.randperm(len(self.rows), generator=generator)]
        return order.tensor_split(self._batches)[done:]

    def _share(self, rows: int) -> tuple[slice, float]:
        """Which rows of a batch are this process's, and their mean's weight in the mean over processes."""
        processes = self.runtime.processes
        if rows < processes:  # all of them take all
            return slice(None), 1.0
        own = slice(self.runtime.rank, None, processes)
        return own, len(range(rows)[own]) * processes / rows

    def _update(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
        """A step; the loss of the whole batch."""
        optimizer.zero_grad()
        self.runtime.backward(loss)
        for parameters in self._clipped:
            nn.utils.clip_grad_norm_(parameters, self.settings.gradient_clip)
        self.rate = learning_rate(self.step, self.total, self.settings)
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate
        optimizer.step()
        if self._average:
            decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
            get_ema_multi_avg_fn(decay)(self._average, self._weights, self.step)
        whole = self.runtime.mean(loss.detach())
        self._epoch_loss += whole
        self._epoch_squares += whole.square()
        self.step += 1
        return whole


class _StepNoise:
    """What the loss of a step draws by, and, apart from it, layers such as dropout: seeded anew for each."""

    def __init__(self, seed: int, keys: tuple[str, ...], runtime: Runtime) -> None:
        self._shared = runtime.processes > 1
        self._seed = self._own = keyed_seed(seed, *keys, "noise", 0)
        self._layers = keyed_seed(seed, *keys, "layers", runtime.rank)
        self._generator = torch.Generator(runtime.device)
        if self._shared:
            self._own = keyed_seed(seed, *keys, "noise", runtime.rank + 1)
            self._draws = SharedDraws(runtime.device)

    def of(self, step: int, rows: int, own: slice) -> torch.Generator:
        """The generator of a step, for some rows of its batch."""
        seed_layers((self._layers + step) % 2**63)
        self._generator.manual_seed((self._seed + step) % 2**63)
        if not self._shared:
            return self._generator
        self._draws.manual_seed((self._own + step) % 2**63)
        self._draws.batch, self._draws.rows, self._draws.own = self._generator, rows, own
        return self._draws


def _normalises_batch(layer: nn.Module) -> bool:
    batch = isinstance(layer, nn.modules.batchnorm._BatchNorm) and not isinstance(layer, nn.SyncBatchNorm)
    return batch and layer.training


def _laid_out(moments: Mapping[str, Tensor], weight: Tensor) -> dict[str, Tensor]:
    """Moments in the memory layout of their weight, which a fused optimizer takes for granted."""
    return {
        what: torch.empty_like(weight).copy_(like(each, weight)) if each.shape == weight.shape else each
        for what, each in moments.items()
    }


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
