"""Checked rows to fit on, held as they are small: images stay uint8 until a batch of them is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphs.errors import DataError, UnknownNameError
from graphs.text import counted

__all__ = ["Table"]


class Table(Mapping[str, NDArray[Any]]):
    """Columns by node, all with the same rows, already checked (``data.reading.read_data`` does that).

    Storage is canonical (int64 codes, float64 numbers, float32 images in [-1, 1]), but images that came
    as uint8 stay (N, C, H, W) uint8 in 0..255. ``len(table)`` counts columns, ``table.rows`` rows.

    Args:
        columns: by node, each (N, *event).
        gaps: rows without a value, (N,) bool, of the nodes where there are some; their columns hold something
            there, not to be read.
        numbers: of the rows in the data that they were taken from, (N,); 0 to N - 1 where None.
        copies: numbers, (N,), equal for rows that are copies of one another; None where none are known to be.
        intervened: rows in which an experiment set the value, (N,) bool, of the nodes where there are some,
            those without a column too.

    Raises:
        DataError: no columns, or columns of different length.
    """

    def __init__(
        self,
        columns: Mapping[str, NDArray[Any]],
        gaps: Mapping[str, NDArray[np.bool_]] | None = None,
        numbers: NDArray[np.int64] | None = None,
        copies: NDArray[np.int64] | None = None,
        intervened: Mapping[str, NDArray[np.bool_]] | None = None,
    ) -> None:
        if not columns:
            raise DataError("The data have no columns.")
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            sizes = ", ".join(f"{name!r} has {length:,}" for name, length in lengths.items())
            raise DataError(f"All columns must have the same number of rows: {sizes}.")
        self.rows: int = next(iter(lengths.values()))
        # torch wants writable, contiguous memory; frames hand out read-only views.
        self._columns = {
            name: np.require(column, requirements=["C", "W"]) for name, column in columns.items()
        }
        self._tensors = {name: torch.from_numpy(column) for name, column in self._columns.items()}
        self._fingerprints: dict[str, str] = {}
        self.gaps: dict[str, NDArray[np.bool_]] = dict(gaps or {})
        self.numbers = np.arange(self.rows) if numbers is None else numbers
        self.copies = copies
        self.intervened: dict[str, NDArray[np.bool_]] = dict(intervened or {})

    def incomplete(self, nodes: Iterable[str]) -> NDArray[np.bool_]:
        """Rows in which one of these nodes has no value, (N,)."""
        masks = [self.gaps[node] for node in nodes if node in self.gaps]
        return np.logical_or.reduce(masks) if masks else np.zeros(self.rows, np.bool_)

    def complete(self, nodes: Sequence[str]) -> Table:
        """Some columns, in the rows where all of them have a value; the table itself where every row does."""
        kept = ~self.incomplete(nodes)
        return self if kept.all() else self.part(nodes, kept)

    def drawn(self, node: str) -> NDArray[np.bool_]:
        """Rows in which no experiment set the node, so that its own mechanism drew its value, (N,)."""
        return ~self.intervened[node] if node in self.intervened else np.ones(self.rows, np.bool_)

    def rows_to_fit(self, node: str, parents: Iterable[str]) -> NDArray[np.bool_]:
        """Rows that tell of a node's mechanism, (N,): drawn by it, and the parents' values are known too."""
        return self.drawn(node) & ~self.incomplete([node, *parents])

    def part(self, nodes: Sequence[str], rows: NDArray[Any]) -> Table:
        """Some columns, in some rows that have a value in them all: a mask (N,), or row numbers."""
        copies = None if self.copies is None else self.copies[rows]
        intervened = {node: self.intervened[node][rows] for node in nodes if node in self.intervened}
        columns = {node: self[node][rows] for node in nodes}
        return Table(columns, None, self.numbers[rows], copies, intervened)

    def __getitem__(self, node: str) -> NDArray[Any]:
        try:
            return self._columns[node]
        except KeyError:
            raise UnknownNameError.of("column", node, self._columns) from None

    def __contains__(self, node: object) -> bool:
        return node in self._columns

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    __eq__ = object.__eq__  # a mapping of arrays has no truth value to compare by
    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        columns = ", ".join(f"{name} {column.dtype}{list(column.shape[1:])}" for name, column in self.items())
        return f"Table({counted(self.rows, 'row')}: {columns})"

    def tensor(self, node: str, index: Tensor | None = None, *, device: torch.device | str = "cpu") -> Tensor:
        """Canonical values of one node: (N, *event), for the rows asked, (N,) int64 on the CPU, in order.

        None asks for all rows, which may share the table's memory. Bytes travel to the device, floats are
        made there.
        """
        values = self._tensors[node] if node in self._tensors else torch.from_numpy(self[node])
        if index is not None:
            values = values.index_select(0, index)
        values = values.to(device)
        if values.dtype == torch.uint8:
            # The same roundings as Image.encode, so that a row is the same bits here and as evidence.
            return values.to(torch.float32).div_(255).mul_(2).sub_(1)
        return values

    def fingerprint(self, nodes: Sequence[str] | None = None) -> str:
        """A digest of the names and contents of some columns (all by default)."""
        for node in self if nodes is None else nodes:
            if node not in self._fingerprints:
                column = self[node]
                digest = blake2b(f"{node} {column.dtype} {column.shape}\n".encode(), digest_size=16)
                digest.update(column.data)
                self._fingerprints[node] = digest.hexdigest()
        joined = "\n".join(self._fingerprints[node] for node in sorted(self if nodes is None else nodes))
        return blake2b(joined.encode(), digest_size=16).hexdigest()
