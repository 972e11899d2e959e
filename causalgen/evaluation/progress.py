"""How an evaluation shows that it is alive: a bar on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from causalgen.fitting.progress import LINE_SECONDS, duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

__all__ = ["EvaluationProgress"]


class EvaluationProgress:
    """Progress through a number of passes over rows, a context manager.

    Args:
        total: passes in all, a row each.
        enabled: False shows nothing at all.
    """

    def __init__(self, total: int, *, enabled: bool = True) -> None:
        self._total, self._done, self._what = max(1, total), 0, ""
        self._began = time.perf_counter()
        self._next_line = self._began + LINE_SECONDS
        self._console: Console | None = None
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if enabled:
            from rich.console import Console

            self._console = Console(stderr=True)

    def __enter__(self) -> EvaluationProgress:
        if self._console is not None and self._console.is_terminal and not self._console.is_jupyter:
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
                console=self._console,
                refresh_per_second=4,
            )
            self._task = self._bar.add_task("evaluate", total=self._total)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, what: str) -> None:
        """Say what comes now."""
        self._what = what
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=what)

    def advance(self, passes: int) -> None:
        """So many rows have made one more pass."""
        self._done += passes
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done)
        elif self._console is not None and time.perf_counter() >= self._next_line:
            self._next_line = time.perf_counter() + LINE_SECONDS
            spent = time.perf_counter() - self._began
            left = spent / max(1, self._done) * max(0, self._total - self._done)
            self._console.print(
                f"{self._what}: {100 * self._done / self._total:.0f} %, {duration(left)} left",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
