"""How a fit shows that it is alive: a bar on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

__all__ = ["FitProgress"]

LINE_SECONDS = 30.0
"""Without a terminal, one line this often: logs stay readable, and nobody thinks it hangs."""


class FitProgress:
    """Progress of one node's fit, a context manager.

    Args:
        node: its name.
        total: steps in all.
        done: steps done before, by a run that this one resumes.
        enabled: False shows nothing at all.
        console: where to; standard error unless given.
    """

    def __init__(
        self, node: str, total: int, *, done: int = 0, enabled: bool = True, console: Console | None = None
    ) -> None:
        self._node = node
        self._total = total
        self._done = done
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._console: Console | None = None
        self._next_line = time.perf_counter() + LINE_SECONDS
        if enabled:
            from rich.console import Console

            self._console = console or Console(stderr=True)

    def __enter__(self) -> FitProgress:
        if self._console is not None and self._console.is_terminal and not self._console.is_jupyter:
            self._bar = self._make_bar(self._console)
            self._task = self._bar.add_task(
                self._node, total=self._total, completed=self._done, loss="", rate="", left=""
            )
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, loss: float, rows_per_second: float, seconds_left: float) -> None:
        """Show where the fit is: the mean loss since the last update, and the pace."""
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task,
                completed=step,
                loss=f"loss {loss:.4g}",
                rate=f"{rows_per_second:,.0f} rows/s",
                left=f"{duration(seconds_left)} left",
            )
        elif self._console is not None and time.perf_counter() >= self._next_line:
            self._next_line = time.perf_counter() + LINE_SECONDS
            self._console.print(
                f"{self._node}: step {step}/{self._total}, loss {loss:.4g}, {rows_per_second:,.0f} rows/s, "
                f"{duration(seconds_left)} left",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    def _make_bar(self, console: Console) -> Progress:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            *(TextColumn("{task.fields[" + field + "]}") for field in ("loss", "rate", "left")),
            console=console,
            refresh_per_second=4,
        )


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
