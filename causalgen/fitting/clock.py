"""What a training loop does as time passes: show where it is, log, save its state, estimate its end."""

from __future__ import annotations

import math
import time
from typing import Protocol

import torch
from torch import Tensor

from causalgen.fitting.progress import Progress, duration
from causalgen.fitting.run_folder import RunFolder, State
from causalgen.fitting.runtime import Runtime, peak_memory
from graphs.errors import MechanismError
from mechanisms.training import Training

__all__ = ["Clock", "Timed"]

SHOW_SECONDS = 0.5
LOG_SECONDS = 5.0

_TIMED_STEPS = 3
"""Steps of a training on images, after its first one, that its length is estimated from."""


class Timed(Protocol):
    """What the clock knows of a training loop; it counts ``seconds``, those of earlier runs included."""

    label: str
    images: bool
    runtime: Runtime
    settings: Training
    step: int
    total: int
    seconds: float
    rate: float

    def state(self) -> State:
        """Everything that the steps to come depend on."""
        ...


class Clock:
    """Looks after showing, logging and saving, as time passes."""

    def __init__(
        self, loop: Timed, bar: Progress, folder: RunFolder | None, checkpoint_seconds: float
    ) -> None:
        self._loop, self._bar, self._folder, self._every = loop, bar, folder, checkpoint_seconds
        now = self._now()
        self._last = now
        self._next_show = now + SHOW_SECONDS
        self._next_log, self._next_save = now + LOG_SECONDS, now + checkpoint_seconds
        self._loss = torch.zeros((), device=loop.runtime.device)
        self._rows, self._steps, self._since = 0, 0, now
        self._rate = 0.0
        self._log_loss, self._log_steps = 0.0, 0  # since the last line of the log
        self._timed = -1 if loop.images and loop.step < loop.total else _TIMED_STEPS
        self._began = now
        if self._timed < 0:
            bar.say(f"{loop.total - loop.step:,} steps of {loop.settings.batch_size:,} images")

    def tick(self, loss: Tensor, rows: int) -> None:
        """Called after every step: cheap, unless something is due."""
        self._loss += loss
        self._rows += rows
        self._steps += 1
        now = self._now()
        if self._timed < _TIMED_STEPS:
            self._estimate(now, rows)
        if now >= self._next_show or now >= self._next_save:
            self._look(now)

    def _now(self) -> float:
        """Seconds; where weights are split the first process's, since saving takes all, at the same step."""
        now, runtime = time.perf_counter(), self._loop.runtime
        return runtime.agreed(now) if runtime.splits else now

    def _estimate(self, now: float, rows: int) -> None:
        """Say how long it takes and how much memory, by the steps after the very first, a slow one."""
        self._timed += 1
        if self._timed == 0:
            self._began = now
        if self._timed < _TIMED_STEPS:
            return
        loop, step = self._loop, max((now - self._began) / _TIMED_STEPS, 1e-9)
        left, rate = step * (loop.total - loop.step), rows / step
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
            self._look(self._now(), last=True)
        if self._log_steps:
            self._log()

    def _look(self, now: float, *, last: bool = False) -> None:
        loop = self._loop
        loss = float(self._loss) / self._steps
        if not math.isfinite(loss):
            # Before saving: the state on the disk stays the last good one.
            raise MechanismError(
                f"The loss of {loop.label} became {loss} by step {loop.step}. "
                f"Lower training.learning_rate (now {loop.settings.learning_rate:g}), or look for outliers."
            )
        loop.seconds += now - self._last
        self._last = now
        rate = self._rows / max(now - self._since, 1e-9)
        self._bar.update(loop.step, f"loss {loss:.4g}", f"{rate:,.0f} rows/s")
        self._log_loss += loss * self._steps
        self._log_steps += self._steps
        self._rate = rate
        if now >= self._next_log:
            self._log()
            self._next_log = now + LOG_SECONDS
        if self._folder is not None and now >= self._next_save and not last:
            self._folder.save(loop.state())
            self._next_save = self._now() + self._every
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
