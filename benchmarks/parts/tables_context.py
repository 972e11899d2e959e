"""What every section of the benchmark of tables gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .tables_model import LinearModel

__all__ = ["Context", "Result", "target"]

Result = dict[str, Any]


@dataclass
class Context:
    """A run of the benchmark.

    Attributes:
        pythons: interpreters of the peers that were given, by contender.
        folder: for the rows of the cases, removed at the end.
        results: where pictures go.
        nodes: of the models.
        rows: of evidence.
        threads: numbers of threads to compare at.
        turns: of each comparison.
        budget: seconds that one contender may take in one comparison.
        grow_nodes: numbers of nodes for the growth.
        grow_rows: numbers of rows for the growth, at 50 nodes.
        memory_rows: rows whose peak memory is measured.
        console: to print on.
        keep: writes a section's result so far.
    """

    pythons: dict[str, str]
    folder: Path
    results: Path
    nodes: tuple[int, ...]
    rows: int
    threads: tuple[int, ...]
    turns: int
    budget: float
    grow_nodes: tuple[int, ...]
    grow_rows: tuple[int, ...]
    memory_rows: int
    console: Console
    keep: Callable[[Result], None] = lambda result: None

    def case(self, nodes: int, rows: int) -> Path:
        """The folder of a case; the same numbers give the same case."""
        folder = self.folder / f"{nodes}x{rows}"
        return folder if folder.exists() else LinearModel.random(nodes, seed=nodes).save(folder, rows, seed=1)

    def missing(self, *names: str) -> list[str]:
        """What is not measured, and why, to be said in the result."""
        return [
            f"{name}: not measured (give --{name.split('-')[0].lower()}-python)"
            for name in names
            if name not in self.pythons
        ]

    def show(self, title: str, rows: Sequence[Result]) -> None:
        """Print rows as a table; columns in order of first appearance, nothing nested."""
        plain = [{key: value for key, value in row.items() if not isinstance(value, dict)} for row in rows]
        columns = list(dict.fromkeys(name for row in plain for name in row))
        table = Table(*columns, title=title, title_justify="left")
        for row in plain:
            table.add_row(*(_text(row.get(name, "")) for name in columns))
        self.console.print(table)


def target(what: str, value: float, *, least: float | None = None, most: float | None = None) -> Result:
    """What was to be reached, and whether it was."""
    met = (least is None or value >= least) and (most is None or value <= most)
    bound = f">= {least:g}" if least is not None else f"<= {most:g}"
    return {"what": what, "value": value, "bound": bound, "met": met}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list):
        return " - ".join(map(_text, value))
    return str(value)
