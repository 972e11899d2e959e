"""Data frames and table files into one unchecked column a variable.

A file is read by what its variables say (``csv_table``, ``arrow_tables``); a frame holds what it holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from causalgen.data.arrow_tables import arrow_frame, arrow_table, parquet_header, read_parquet
from causalgen.data.csv_table import SEPARATORS, csv_header, read_csv
from causalgen.data.pictures import picture_cell
from graphs.errors import CausalgenError, DataError, ShapeError, did_you_mean, near_misses
from graphs.variables import Image, Variable
from graphs.variables.arrays import as_cells, as_numbers, as_rows

if TYPE_CHECKING:
    from pandas import DataFrame, Index  # slow to import, and only tables need it

__all__ = [
    "arrow_columns",
    "as_events",
    "file_columns",
    "first_other",
    "frame_columns",
    "join_columns",
    "number_names",
    "part_names",
    "present_columns",
    "reading",
    "refuse_other_index",
    "table_header",
    "vector_columns",
]

CSV_ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
PARQUET_ENDINGS = (".parquet", ".pq")


def file_columns(
    path: Path, variables: Mapping[str, Variable], names: Mapping[str, str]
) -> Mapping[str, object]:
    """Columns of a CSV or Parquet file by node: arrays, or lists of labels, pictures and paths."""
    origin = f" of {path.name}"
    needed = _needed(table_header(path), variables, names, origin)
    with reading(f"the table {path}"):
        if _is_csv(path):
            return read_csv(path, needed, variables)
        frame = read_parquet(path, needed, variables)
    return frame_columns(frame, variables, names, origin)


def _is_csv(path: Path) -> bool:
    return path.name.lower().endswith(CSV_ENDINGS)


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Errors of a library that reads ``what``, as a DataError that names it."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # a broken file raises a dozen kinds
        raise DataError(f"Cannot read {what}: {error}") from error


def table_header(path: Path) -> list[str]:
    """The columns of a CSV or Parquet file, as they are named there."""
    if path.is_dir():
        endings = ", ".join(CSV_ENDINGS + PARQUET_ENDINGS)
        raise DataError(
            f"Cannot read {path}: it is a folder, expected a table ({endings}) with a column for each node. "
            "A column of images holds the paths of their files."
        )
    if not path.is_file():
        raise DataError(f"There is no data file {path}.")
    if not path.name.lower().endswith(CSV_ENDINGS + PARQUET_ENDINGS):
        raise DataError(
            f"Cannot read {path}: expected a table in {', '.join(CSV_ENDINGS + PARQUET_ENDINGS)}."
        )
    with reading(f"the table {path}"):
        return csv_header(path) if _is_csv(path) else parquet_header(path)


def present_columns(
    path: Path, wanted: Mapping[str, Variable], known: Mapping[str, Variable]
) -> tuple[dict[str, Variable], list[str]]:
    """Those wanted that a table file has columns for, and the names of columns that mean no variable.

    Variables are by the name of their column; ``known`` are all names that columns may rightly have. Where
    the file has none of those wanted, all are given, for the reader to refuse.
    """
    header = table_header(path)
    parts = {name: vector_columns(name, variable, header, known) for name, variable in known.items()}
    meant = {each for name, its in parts.items() for each in (name, *its)}
    strange = [name for name in header if name and name not in meant]
    found = {
        name: variable
        for name, variable in wanted.items()
        if name in header or not set(parts[name]).isdisjoint(header)
    }
    absent = [each for name in wanted if name not in found for each in (name, *parts[name])]
    for name, near in near_misses(strange, absent):
        raise DataError(
            f"Column {name!r} of {path.name} means no node; {near!r}, which it looks like, has no column. "
            f"Rename it {near!r}, or take it out."
        )
    return found or dict(wanted), strange


def arrow_columns(
    source: object, variables: Mapping[str, Variable], names: Mapping[str, str], *, some: bool = False
) -> dict[str, object]:
    """Columns of a frame of another library by node, as ``frame_columns`` gives them."""
    table, origin = arrow_table(source), " of the data frame"
    header: list[str] = table.column_names
    spread = {node: vector_columns(names[node], each, header, names) for node, each in variables.items()}
    if some:
        variables = {
            node: each
            for node, each in variables.items()
            if names[node] in header or (spread[node] and set(spread[node]) <= set(header))
        }
    needed = _needed(header, variables, names, origin)
    with reading("the data frame"):
        frame = arrow_frame(table, needed, variables, origin)
    used = {name for parts in needed.values() for name in parts}
    rest = {name: None for name in header if some and name not in used}
    return {**rest, **frame_columns(frame, variables, names, origin)}


def frame_columns(
    frame: DataFrame, variables: Mapping[str, Variable], names: Mapping[str, str], origin: str
) -> dict[str, object]:
    """Columns by node: arrays, or lists of pictures and paths."""
    needed = _needed(list(frame.columns), variables, names, origin)
    return {
        node: _column(frame, variable, needed[node], names[node], origin)
        for node, variable in variables.items()
    }


def _column(frame: DataFrame, variable: Variable, columns: Sequence[str], name: str, origin: str) -> object:
    if columns != [name]:
        parts = [as_numbers(_cells(frame, part), where=f"Column {part!r}{origin}") for part in columns]
        return as_events(parts, variable)
    values = _cells(frame, name)
    if isinstance(variable, Image):
        return [picture_cell(cell) for cell in values]
    if values.dtype == object:
        # Parquet's list columns hold arrays of objects.
        return [
            each.tolist() if isinstance(each, np.ndarray) and each.dtype == object else each
            for each in values
        ]
    return values


def _cells(frame: DataFrame, name: str) -> NDArray[Any]:
    """One column's cells; pandas' own ways of saying that there is none become None."""
    series = frame[name]
    values = as_cells(series)
    if values.dtype == object and (gaps := series.isna().to_numpy()).any():
        values = values.copy()
        values[gaps] = None
    return values


def refuse_other_index(
    columns: Mapping[str, object], what: str, error: type[CausalgenError]
) -> dict[int, Index]:
    """Refuse Series of one length whose indexes differ: their rows would be paired by place, not by name.

    Only Series have an index; gives the indexes by their lengths. ``what`` they are is for messages, as
    "Evidence".
    """
    first: dict[int, tuple[str, Any]] = {}
    for node, value in columns.items():
        index: Any = getattr(value, "index", None)
        if not hasattr(index, "equals"):  # a list has a method of that name
            continue
        other, known = first.setdefault(len(index), (node, index))
        if (row := first_other(index, known)) is not None:
            raise error(
                f"{what} {node!r}: the Series has another index than {other!r}, first in row {row}: "
                f"{index[row]}, expected {known[row]}. Put them in one DataFrame, which matches rows by "
                "their index, or give series.to_numpy() to go by place."
            )
    return {length: index for length, (_, index) in first.items()}


def first_other(index: Any, expected: Any) -> int | None:
    """The first place at which an index has another entry than one of its length; None where there is none.

    Indexes may differ in type alone, as times of two time zones do.
    """
    if index.equals(expected):
        return None
    return next((row for row in range(len(index)) if not _same(index[row], expected[row])), None)


def _same(one: Any, other: Any) -> bool:
    """Whether entries of two indexes are equal; of two that are missing, both are."""
    with suppress(TypeError):  # NA is neither
        return bool(one == other)
    return one is other


def part_names(name: str, count: int, others: Collection[str]) -> list[str]:
    """The columns of a vector's numbers: ``name_0`` .., or ``name[0]`` .. where one of these means another.

    >>> part_names("v", 2, ["v", "v_1"])
    ['v[0]', 'v[1]']
    """
    plain = [f"{name}_{index}" for index in range(count)]
    return plain if set(plain).isdisjoint(others) else [f"{name}[{index}]" for index in range(count)]


def number_names(node: str, variable: Variable, others: Collection[str]) -> list[str]:
    """The node, or of a vector the name of each of its numbers, which is that of no node."""
    return part_names(node, prod(variable.event_shape), others) if variable.event_shape else [node]


def vector_columns(
    name: str, variable: Variable, header: Collection[object], others: Collection[str]
) -> list[str]:
    """The columns that several numbers may be spread over, as far as a header tells; else none."""
    if not variable.event_shape or variable.type != "continuous":
        return []
    count = prod(variable.event_shape)
    bracketed = [f"{name}[{index}]" for index in range(count)]
    return bracketed if set(bracketed) & set(header) else part_names(name, count, others)


def join_columns(
    given: Mapping[str, object], parts: Sequence[str], variable: Variable, what: str
) -> NDArray[Any]:
    """Columns of one number each as values (N, *event); one that has a single row serves all.

    Raises:
        ShapeError, DomainError: other numbers of rows, or no numbers; ``what`` they are begins the message.
    """
    wheres = [f"{what} {part!r}" for part in parts]
    columns = [
        as_rows(as_numbers(given[part], where=where), (), where=where)
        for part, where in zip(parts, wheres, strict=True)
    ]
    rows = max(map(len, columns))
    for where, column in zip(wheres, columns, strict=True):
        if len(column) not in (1, rows):
            raise ShapeError(f"{where} has {len(column)} rows where others of its vector have {rows}.")
    return as_events([np.broadcast_to(column, rows) for column in columns], variable)


def as_events(parts: Sequence[NDArray[Any]], variable: Variable) -> NDArray[Any]:
    """Columns of numbers (N,) each, as ``number_names`` orders them, as values (N, *event)."""
    return np.stack(parts, axis=-1).reshape(-1, *variable.event_shape)


_SEPARATORS = (";", "\t", "|", ",")
"""What a table's columns may be separated by that was read as one column."""


def _needed(
    header: Sequence[object], variables: Mapping[str, Variable], names: Mapping[str, str], origin: str
) -> dict[str, list[str]]:
    """The columns to read by node; a missing one is an error that names the nearest."""
    needed: dict[str, list[str]] = {}
    counts = Counter(header)
    for node, variable in variables.items():
        name = names[node]
        parts = vector_columns(name, variable, counts, names.values())
        if name in counts:
            needed[node] = [name]
        elif parts and all(part in counts for part in parts):
            needed[node] = parts
        else:
            texts = [str(each) for each in header]
            near = [given for given, _ in near_misses(texts, [name])]
            hint = did_you_mean(name, texts) or "".join(did_you_mean(each, [each]) for each in near[:1])
            if len(texts) == 1 and any(name in map(str.strip, texts[0].split(mark)) for mark in _SEPARATORS):
                hint = f" {SEPARATORS}"
            others = f", nor {parts[0]} .. {parts[-1]}" if parts else ""
            raise DataError(
                f"There is no column {name!r}{origin}{others}.{hint} Columns: {', '.join(texts)}."
            )
    for name in (name for parts in needed.values() for name in parts):
        if counts[name] > 1:
            raise DataError(f"Column {name!r}{origin} is there {counts[name]} times. Rename all but one.")
    return needed
