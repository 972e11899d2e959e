"""Counterfactuals of tables of any length, part by part: memory is flat, and row numbers decide the answer.

What is drawn for a row depends on the rows that are answered with it: noise is keyed by blocks of rows, and
even what nothing is drawn for may differ in its last bit between batches of different shapes. So a table is
answered in parts that its row numbers alone decide,

    part k     rows k * P to (k + 1) * P - 1, asked as one question with the seed of part k

and each part is the same bits whoever answers it, in whatever order, in however many processes. The seed of
part 0 is the seed itself: a table of at most P rows has the answer that ``scm.counterfactual`` gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from causalgen.arguments import as_path, chosen_seed, whole_number
from causalgen.counterfactuals.abduction import Abduction
from causalgen.counterfactuals.interventions import interventions
from causalgen.counterfactuals.nested import own_values
from causalgen.counterfactuals.results import Counterfactual
from causalgen.data.parquet_rows import ParquetRows, RefusedRow
from causalgen.saving.declaration import DeclaredModel
from graphs.errors import DataError, InterventionError, numbered_rows
from graphs.variables import Image
from mechanisms.seeds import keyed_seed

__all__ = ["TablePart", "TableQuestion", "counterfactual_parts"]

_ROWS = 65_536
"""Rows of a part, over samples, of a model without images."""

_FIRST = 64
"""Rows that are looked at before the work begins."""


class _Abducting(DeclaredModel, Protocol):
    """What is asked of an ``SCM``, which this module is beneath."""

    def abduct(
        self, evidence: Mapping[str, Any], *, num_samples: int | None = None, seed: int | None = None
    ) -> Abduction: ...


@dataclass(frozen=True)
class TablePart:
    """Some rows of a table, answered."""

    number: int  # of the part, from 0
    rows: NDArray[np.int64]  # (n,) numbers in the table of the rows that are answered
    refused: Sequence[RefusedRow]  # rows that are not, since a picture cannot be read
    # What the rows would have been, by name of the world; none where no row is answered
    worlds: Mapping[str, Counterfactual]


@dataclass(frozen=True)
class TableQuestion:
    """One question to all rows of a table; ``answer`` takes any part."""

    scm: _Abducting  # the model
    table: ParquetRows  # the rows
    # Interventions by name of the world, each one value or expression for all rows
    does: Mapping[str, Mapping[str, Any]]
    seed: int  # of all draws
    given: Mapping[str, Any] = field(default_factory=dict)  # further evidence by node, the same in every row
    num_samples: int | None = None  # S, None for one draw
    clip: bool = False  # as for ``scm.counterfactual``
    part_rows: int | None = None  # P; None for as many as the model answers together well

    @property
    def size(self) -> int:
        """P, rows of every part but the last.

        As many as the image node that takes the fewest takes at once, or 65,536; divided by samples.
        """
        if self.part_rows is not None:
            return self.part_rows
        images = [
            mechanism.chunk_rows
            for node, mechanism in self.scm.mechanisms.items()
            if isinstance(self.scm.variables[node], Image) and mechanism.chunk_rows is not None
        ]
        return max(1, min([_ROWS, *images]) // (self.num_samples or 1))

    @property
    def parts(self) -> int:
        """How many parts the table has."""
        return -(-self.table.rows // self.size)

    def check(self) -> None:
        """Refuse what a long computation would stumble over: interventions, and the table's first rows."""
        first = self.table.read(0, min(_FIRST, self.size, self.table.rows))
        if len(first.numbers):
            with numbered_rows(first.numbers):
                self.scm.abduct({**first.columns, **self.given}, seed=self.seed)
        for do in own_values(self.does).values():
            read = interventions(do, self.scm.graph, self.scm.variables, self.scm.mechanisms, clip=self.clip)
            for node, each in read.items():
                if each.rows != 1:
                    raise InterventionError(
                        f"Intervention on {node!r} has {each.rows} rows; of a table that is answered in "
                        "parts, give one value or expression for all rows."
                    )

    def answer(self, number: int) -> TablePart:
        """Part ``number``.

        Raises:
            DataError, DomainError, ...: as reading and ``scm.counterfactual`` do, with the rows of the table.
        """
        start = number * self.size
        read = self.table.read(start, min(start + self.size, self.table.rows))
        worlds: Mapping[str, Counterfactual] = {}
        if len(read.numbers):
            seed = self.seed if number == 0 else keyed_seed(self.seed, "part", number)
            evidence = {**read.columns, **self.given}
            with numbered_rows(read.numbers):
                abduction = self.scm.abduct(evidence, num_samples=self.num_samples, seed=seed)
                if abduction.rows != len(read.numbers):
                    raise DataError(f"The evidence has {abduction.rows} rows, the table {len(read.numbers)}.")
                worlds = abduction.worlds(self.does, clip=self.clip)
        return TablePart(number, read.numbers, read.refused, worlds)


def counterfactual_parts(
    scm: _Abducting,
    table: Path | str,
    does: Mapping[str, Mapping[str, Any]],
    *,
    num_samples: int | None = None,
    seed: int | None = None,
    clip: bool = False,
    part_rows: int | None = None,
) -> Iterator[TablePart]:
    """Counterfactuals of a Parquet table of any length, in parts, each read, answered and yielded in turn.

    Args:
        scm: the model.
        table: a Parquet file, or a folder of them. Image columns hold paths within its folder, the bytes of
            picture files, or lists of pixels; nodes without a column are inferred.
        does: interventions by name of the world, as ``scm.abduct(...).worlds`` takes them: one value, or an
            expression, for all rows.
        num_samples: S draws a row; None for one.
        seed: of the draws; with ``part_rows`` it decides the answer.
        clip: move what ``does`` sets out of bounds onto the bound, instead of refusing it.
        part_rows: rows of a part; None for the model's own choice, which fits memory.

    Yields:
        The parts, in order. Rows with pictures that cannot be read are in ``refused``; what else is wrong
        with a row raises.

    Raises:
        DataError: no such table, another schema, or values that no variable has.
        DomainError, InterventionError, ...: as for ``scm.counterfactual``.
    """
    if num_samples is not None:
        num_samples = whole_number(num_samples, "num_samples, None for one draw,", least=1)
    if part_rows is not None:
        part_rows = whole_number(part_rows, "part_rows", least=1)
    if not does:
        raise InterventionError("Nothing to ask: does names no world, as in {'up': {'x': 1.0}}.")
    rows = ParquetRows(as_path(table, "table", DataError), scm.variables)
    question = TableQuestion(
        scm, rows, does, chosen_seed(seed), num_samples=num_samples, clip=clip, part_rows=part_rows
    )
    question.check()
    return (question.answer(number) for number in range(question.parts))
