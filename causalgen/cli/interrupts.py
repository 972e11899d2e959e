"""Interrupts: SIGINT and SIGTERM end a command in one line, with the exit code 128 + number of the signal.

Both unwind the command like an error, so that temporaries are removed, and what it would have replaced stays.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

__all__ = ["Commands"]


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which may come from a scheduler or a container that stops."""


class Commands(TyperGroup):
    """Commands that may be interrupted; what an interrupt was raised with is told too."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        with _terminable():
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt as interrupt:
                terminated = isinstance(interrupt, _Terminated)
                typer.echo(
                    " ".join(["Terminated." if terminated else "Interrupted.", *interrupt.args]), err=True
                )
                raise typer.Exit(128 + (signal.SIGTERM if terminated else signal.SIGINT)) from interrupt


@contextmanager
def _terminable() -> Iterator[None]:
    """Raise on SIGTERM, unless somebody else heeds or ignores it."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(*_: object) -> None:
    raise _Terminated
