"""What fits and evaluations do as time passes: show where they are, log, save their state, estimate the end.

On a terminal a bar shows it, anywhere else a line now and then.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from causalgen.fitting.run_folder import RunFolder, State
from causalgen.fitting.runtime import Runtime, peak_memory
from graphs.errors import MechanismError
from mechanisms.training import Training

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

__all__ = ["Clock", "Progress", "Timed"]

LINE_SECONDS = 30.0
"""Without a terminal, one line this often: logs stay readable, and nobody thinks it hangs."""

SHOW_SECONDS = 0.5

LOG_SECONDS = 5.0

_TIMED_STEPS = 3
"""Steps of a training on images, after its first one, that its length is estimated from."""


class Progress:
    """Progress through a known number of steps, some perhaps done by an earlier run; a context manager."""

    def __init__(
        self,
        name: str,
        total: int,
        *,
        done: int = 0,
        unit: str = "",
        enabled: bool = True,
        console: Console | None = None,
    ) -> None:
        self._name, self._total, self._unit = name, max(1, total), unit
        self._first = self._done = done
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._console: Console | None = None
        self._began = time.perf_counter()
        self._next_line = self._began + LINE_SECONDS
        if enabled:
            from rich.console import Console

            self._console = console or Console(stderr=True)

    def __enter__(self) -> Progress:
        if self._console is not None and self._console.is_terminal and not self._console.is_jupyter:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[details]}", markup=False),
                console=self._console,
                refresh_per_second=4,
            )
            self._task = self._bar.add_task(self._name, total=self._total, completed=self._done, details="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        """A line of its own, at once."""
        if self._console is not None:
            self._console.print(f"{self._name}: {text}", markup=False, highlight=False, soft_wrap=True)

    def begin(self, name: str, total: int | None = None) -> None:
        """Say what comes now; with a total it is counted from 0."""
        self._name = name
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=name)
        if total is not None:
            self._total, self._first, self._done = max(1, total), 0, 0
            self._began = time.perf_counter()
            if self._bar is not None and self._task is not None:
                self._bar.update(self._task, total=self._total, completed=0, details="")

    def advance(self, steps: int) -> None:
        """So many more steps are done."""
        self.update(self._done + steps)

    def update(self, done: int, *details: str) -> None:
        """So many steps are done; ``details`` are shown with the time that is left at this pace."""
        self._done = done
        now = time.perf_counter()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, details=" ".join([*details, self._left(now)]))
        elif self._console is not None and now >= self._next_line:
            self._next_line = now + LINE_SECONDS
            count = f"{self._unit} {done}/{self._total}".strip()
            self.say(", ".join([count, *details, self._left(now)]))

    def _left(self, now: float) -> str:
        pace = (now - self._began) / max(1, self._done - self._first)
        return f"{duration(pace * max(0, self._total - self._done))} left"


def duration(seconds: float) -> str:
    """A length of time for people.

    >>> duration(75), duration(7260), duration(8.2)
    ('1m15s', '2h01m', '8s')
    """
    if not math.isfinite(seconds):
        return "?"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


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
