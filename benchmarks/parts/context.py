"""What every section gets: model, rows, judge, options, and a way to print and keep what it finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from safetensors.torch import save
from torch import Tensor

import causalgen as cg

from .answers import image_mechanism
from .judge import Judge, load_judge
from .rows import Rows, evaluated_rows

__all__ = ["Context", "Result"]

Result = dict[str, Any]

_DIGITS = {"images/s": ".2f", "images/cpu s": ".2f", "L1": ".2f", "null L1": ".3f", "null L1 clamped": ".3f",
           "evaluations": ".1f", "gradients": ".1f"}  # fmt: skip


@dataclass
class Context:
    """A run of the benchmark.

    Attributes:
        mnist: folder of MNIST in torchvision's layout.
        model: gallery name or folder.
        judge_file: where the judge is, or will be.
        counts: numbers of rows by what they are for.
        steps: of the table.
        fast_steps: of the fast setting.
        morphomnist: folder of the published Morpho-MNIST test set, or None.
        console: to print on.
        keep: writes a section's result so far.
    """

    mnist: str
    model: str
    judge_file: Path
    counts: dict[str, int]
    steps: tuple[int, ...]
    fast_steps: int
    morphomnist: Path | None
    console: Console
    keep: Callable[[Result], None] = lambda result: None

    @cached_property
    def scm(self) -> cg.SCM:
        """The model, as it was saved."""
        return cg.SCM.from_pretrained(self.model)

    @cached_property
    def judge(self) -> Judge:
        """The judge, trained where there is none yet."""
        return load_judge(self.judge_file, self.mnist, self.console)

    def rows(self, purpose: str) -> Rows:
        """The evaluated rows for a purpose."""
        return evaluated_rows(self.mnist, self.counts[purpose])

    def identity(self) -> dict[str, str]:
        """The model and its judge, with digests of their weights."""
        return {
            "model": Path(self.model).name,
            "weights": _digest(image_mechanism(self.scm).state_dict()),
            "judge": _digest(self.judge.state_dict()),
        }

    def show(self, title: str, rows: Sequence[Result]) -> None:
        """Print rows of figures as a table; columns in order of first appearance."""
        columns = list(dict.fromkeys(name for row in rows for name in row))
        table = Table(*columns, title=title, title_justify="left")
        for row in rows:
            table.add_row(*(_text(name, row.get(name, "")) for name in columns))
        self.console.print(table)


def _digest(state: Mapping[str, Tensor]) -> str:
    return sha256(save(dict(state))).hexdigest()[:16]


def _text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return format(value, _DIGITS.get(name, ".3f" if 0.01 <= abs(value) or value == 0 else ".1e"))
    if isinstance(value, list):
        return " - ".join(_text(name, each) for each in value)
    return str(value)
