"""Parquet tables too large for memory: any rows by number, read as they are asked for.

A file, or a folder of files of one schema in the order of their names; rows are numbered from 0 through all
of them. A file is read forward, a batch at a time, so that memory depends neither on its length nor on that
of its row groups; to go back costs as much as to read from the start of a row group.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalgen.data.arrow_tables import arrow_frame
from causalgen.data.frames import PARQUET_ENDINGS, frame_columns, present_columns, reading, vector_columns
from causalgen.data.pictures import picture_cell, picture_column
from graphs.errors import DataError, numbered_rows
from graphs.variables import Image, Variable

__all__ = ["ParquetRows", "RefusedRow", "RowsRead", "parquet_files"]

_BATCH = 8_192
"""Most rows of a file that are decoded at once."""

_BUFFER = 1 << 20
"""Bytes of a column's chunk that are read at once; without, pyarrow reads the chunk whole."""


@dataclass(frozen=True)
class RefusedRow:
    """A row with a picture that cannot be read: its number in the table, the column, and why."""

    row: int
    column: str
    reason: str


@dataclass(frozen=True)
class RowsRead:
    """Some rows of a table, by node, with their numbers (n,), and those that are none of it."""

    columns: Mapping[str, Any]
    numbers: NDArray[np.int64]
    refused: Sequence[RefusedRow]


class ParquetRows:
    """A Parquet table by row number: a file, or a folder with files.

    Columns of nodes that are ``given`` elsewhere are not read; ``columns`` names those by node that differ
    from the node's. The table has ``rows`` rows and columns of ``nodes``; ``absent`` are nodes with neither a
    column nor a value from elsewhere, ``unused`` columns that mean no node.

    Raises:
        DataError: no such table, files of different schemas, no rows, or no column of any node.
    """

    def __init__(
        self,
        path: Path,
        variables: Mapping[str, Variable],
        *,
        given: Collection[str] = (),
        columns: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self._folder = path.name, path if path.is_dir() else path.parent
        self._files = parquet_files(path)
        own = self._own = {node: (columns or {}).get(node, node) for node in variables}
        wanted = {node: variable for node, variable in variables.items() if node not in given}
        present, self.unused = present_columns(
            self._files[0],
            {own[node]: variable for node, variable in wanted.items()},
            {own[node]: variable for node, variable in variables.items()},
        )
        self._variables = {node: variable for node, variable in wanted.items() if own[node] in present}
        self.nodes = tuple(self._variables)
        self.absent = tuple(node for node in wanted if node not in self._variables)
        heads = [_Head.read(file) for file in self._files]
        for node in self.absent:
            self._refuse_own_column(own[node], variables[node], heads)
        header = _common_types(heads)
        self._columns = {
            node: [own[node]]
            if own[node] in header
            else vector_columns(own[node], variable, header, own.values())
            for node, variable in self._variables.items()
        }
        names = [name for parts in self._columns.values() for name in parts]
        for name in names:
            if name not in header:
                raise DataError(f"There is no column {name!r} of {self.name}. Columns: {', '.join(header)}.")
            self._refuse_other_types(name, header[name], [head.types.get(name) for head in heads])
        self._starts = [0, *np.cumsum([head.rows for head in heads]).tolist()]
        self._digests = [head.digest for head in heads]
        self.rows = self._starts[-1]
        if not self.rows:
            raise DataError(f"The table {self.name} has no rows.")
        self._names: list[str] = names
        self._cursor: tuple[int, _Cursor] | None = None

    def _refuse_own_column(self, name: str, variable: Variable, heads: Sequence[_Head]) -> None:
        """Refuse a column of a node that the first file lacks and another one has: it would not be read."""
        for file, head in zip(self._files, heads, strict=True):
            parts = vector_columns(name, variable, head.types, self._own.values())
            for found in (each for each in (name, *parts) if each in head.types):
                raise DataError(
                    f"The files of {self.name} differ: column {found!r} is missing in {self._files[0].name}, "
                    f"and {head.types[found]} in {file.name}. Give files of one schema."
                )

    def _refuse_other_types(self, name: str, common: Any, types: Sequence[Any]) -> None:
        """Refuse files in which a column is of another type than in others, or missing."""
        for file, kind in zip(self._files, types, strict=True):
            if kind != common and not _is_null(kind):
                first = self._files[types.index(common)].name
                raise DataError(
                    f"The files of {self.name} differ: column {name!r} is {common} in {first}, and "
                    f"{kind or 'missing'} in {file.name}. Give files of one schema."
                )

    def describe(self) -> list[dict[str, Any]]:
        """Name, rows and a digest of the footer of each file: which table this is, without reading it all."""
        counts = np.diff(self._starts).tolist()
        return [
            {"file": file.name, "rows": rows, "footer": digest}
            for file, rows, digest in zip(self._files, counts, self._digests, strict=True)
        ]

    def read(self, start: int, stop: int) -> RowsRead:
        """Rows ``start`` to ``stop - 1``; those with a picture that cannot be read are left out and named."""
        table = self._table(start, stop)
        origin, pictures = f" of {self.name}", dict[str, list[Any]]()
        refused: dict[int, RefusedRow] = {}
        for node, variable in self._variables.items():
            if isinstance(variable, Image):
                column = table.column(self._own[node])
                files = _holds_files(column.type)
                # Python's numbers would not say that pixels are bytes.
                cells = [picture_cell(cell) for cell in (column.to_pylist() if files else column.to_pandas())]
                pictures[node] = self._pictures(cells, node, variable, start, refused) if files else cells
        kept = np.array([row for row in range(stop - start) if row not in refused], dtype=np.int64)
        if refused:
            table = table.take(kept)
        plain = {node: each for node, each in self._variables.items() if node not in pictures}
        columns: dict[str, Any] = {}
        if plain and len(kept):
            with numbered_rows(start + kept):
                frame = arrow_frame(table, {node: self._columns[node] for node in plain}, plain, origin)
                columns = dict(frame_columns(frame, plain, {node: self._own[node] for node in plain}, origin))
        columns |= {node: [cells[row] for row in kept] for node, cells in pictures.items()}
        return RowsRead(
            {node: columns[node] for node in self.nodes if node in columns},
            start + kept,
            tuple(refused[row] for row in sorted(refused)),
        )

    def _pictures(
        self, cells: list[Any], node: str, variable: Image, start: int, refused: dict[int, RefusedRow]
    ) -> list[Any]:
        """The pixels of each cell; rows without a readable one are put among the refused."""
        name, found = self._own[node], list[Any]()
        column = f"Column {name!r} of {self.name}"
        for row, cell in enumerate(cells):
            found.append(None)
            if cell is None:
                continue
            try:
                made = picture_column([cell], variable, column=column, folder=self._folder, first=start + row)
                found[-1] = made[0]
            except DataError as error:
                refused.setdefault(row, RefusedRow(start + row, name, str(error)))
        return found

    def _table(self, start: int, stop: int) -> Any:
        import pyarrow

        pieces: list[Any] = []
        with reading(f"the table {self.name}"):
            while start < stop:
                number = bisect_right(self._starts, start) - 1
                end = min(stop, self._starts[number + 1])
                offset = start - self._starts[number]
                if self._cursor is None or self._cursor[0] != number or self._cursor[1].row > offset:
                    batch = min(_BATCH, stop - start)
                    self._cursor = number, _Cursor(self._files[number], self._names, offset, batch)
                pieces += self._cursor[1].take(offset, end - start)
                start = end
            tables = [pyarrow.Table.from_batches([piece]) for piece in pieces]
            return pyarrow.concat_tables(tables, promote_options="default")  # a column without values is any


def _common_types(heads: Sequence[_Head]) -> dict[str, Any]:
    """The type of each column of the first file, or of the first that has values, where it has none."""
    found = dict(heads[0].types)
    for name, kind in found.items():
        if _is_null(kind):
            found[name] = next(
                (head.types[name] for head in heads if not _is_null(head.types.get(name, kind))), kind
            )
    return found


def _is_null(kind: Any) -> bool:
    """Whether a column has the type of those that hold no value at all, as of an empty frame's text."""
    from pyarrow import types

    return kind is not None and types.is_null(kind)


@dataclass(frozen=True)
class _Head:
    """What a file's footer says: rows, type of each column, and a digest of it all."""

    rows: int
    types: Mapping[str, Any]
    digest: str

    @classmethod
    def read(cls, file: Path) -> _Head:
        import pyarrow.parquet

        with (
            reading(f"the table {file.name}"),
            file.open("rb") as raw,
            pyarrow.parquet.ParquetFile(file) as table,
        ):
            schema = table.schema_arrow
            raw.seek(-8, 2)
            size = int.from_bytes(raw.read(4), "little")
            raw.seek(-8 - size, 2)
            return cls(
                table.metadata.num_rows,
                dict(zip(schema.names, schema.types, strict=True)),
                blake2b(raw.read(size), digest_size=16).hexdigest(),
            )


class _Cursor:
    """Reads a file forward, from ``row`` on."""

    def __init__(self, path: Path, names: Sequence[str], row: int, batch: int) -> None:
        import pyarrow.parquet

        file = pyarrow.parquet.ParquetFile(
            path, buffer_size=_BUFFER, pre_buffer=False, page_checksum_verification=True
        )
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        ends = np.cumsum(sizes)
        group = int(np.searchsorted(ends, row, side="right"))
        self.row = int(ends[group] - sizes[group])
        self._names = list(names)
        # In one thread: the threads of Arrow's pool outlive the reading.
        self._batches: Iterator[Any] = file.iter_batches(
            batch, row_groups=list(range(group, len(sizes))), columns=self._names, use_threads=False
        )
        self._rest: Any = None

    def take(self, start: int, count: int) -> list[Any]:
        """Record batches of ``count`` rows, from one on that it has not passed."""
        found: list[Any] = []
        while count:
            if self._rest is None or not self._rest.num_rows:
                self._rest = next(self._batches).select(self._names)
            skipped = min(start - self.row, self._rest.num_rows)
            piece = self._rest.slice(skipped, count if self.row + skipped == start else 0)
            self._rest = self._rest.slice(skipped + piece.num_rows)
            self.row += skipped + piece.num_rows
            if piece.num_rows:
                found.append(piece)
                count, start = count - piece.num_rows, start + piece.num_rows
        return found


def parquet_files(path: Path) -> list[Path]:
    """The files of a table: the file itself, or those of the folder."""
    if not path.exists():
        raise DataError(f"There is no table {path}.")
    found = [path] if path.is_file() else sorted(each for each in path.iterdir() if _is_parquet(each))
    if not found or not _is_parquet(found[0]):
        raise DataError(
            f"{path} is no Parquet table: expected a file in {', '.join(PARQUET_ENDINGS)}, or a folder of "
            "such files. Write it as Parquet first."
        )
    return found


def _is_parquet(path: Path) -> bool:
    return path.name.lower().endswith(PARQUET_ENDINGS) and path.is_file()


def _holds_files(kind: Any) -> bool:
    """Whether a column's cells are paths, or the bytes of files, rather than lists of pixels."""
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    if types.is_struct(kind):
        return {kind.field(index).name for index in range(kind.num_fields)} == {"bytes", "path"}
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return text or types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)
