"""Progress of fits and evaluations: a bar on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

__all__ = ["Progress"]

LINE_SECONDS = 30.0
"""Without a terminal, one line this often: logs stay readable, and nobody thinks it hangs."""


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
            self._console.print(
                f"{self._name}: {', '.join([count, *details, self._left(now)])}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

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
