"""CSV files, each cell read as what its variable says: no type is guessed from the cells of a column.

    numbers    a decimal number in ASCII, as 5, -2.5 or 1e-3, perhaps with spaces around it
    labels     text exactly as written, so that "007" and "NA" may be labels: ``graphs.variables``
    images     a path, exactly as written
    a gap      an empty cell; for numbers also NA, nan, null and the like

A file is refused, with the line, where a record has not exactly as many fields as the header or two columns
have one name, whichever columns are used: read otherwise, its values would move to other columns.
"""

from __future__ import annotations

import csv
import gzip
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphs.errors import DataError
from graphs.variables import Categorical, Image, Variable
from graphs.variables.arrays import ADVICE_ON_DATES, ADVICE_ON_TEXTS, is_date

__all__ = ["SEPARATORS", "csv_header", "read_csv"]

GAPS = frozenset(["", "NA", "NaN", "nan", "N/A", "n/a", "NULL", "null", "None", "<NA>", "#N/A"])
"""Cells of a column of numbers that say that there is none."""

TRUTH = {"True": 1, "true": 1, "TRUE": 1, "False": 0, "false": 0, "FALSE": 0}
"""Codes of two numbered categories, as a table of booleans is written."""

SEPARATORS = "Columns of a .csv file are separated by commas, of a .tsv file by tabs."

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NO_NUMBER = "expected a number"
_Block = Sequence[object] | NDArray[np.generic]

_ROWS = 16384
"""Records that are held as text at a time."""


def csv_header(path: Path) -> list[str]:
    """The names of a CSV file's columns."""
    return _header(_records(path), path)


def read_csv(
    path: Path, columns: Mapping[str, Sequence[str]], variables: Mapping[str, Variable]
) -> dict[str, NDArray[np.generic] | list[object]]:
    """The cells of some columns of a file in UTF-8, perhaps gzipped, by tabs where its name says .tsv.

    ``columns`` are by node: its column, or one for each of its numbers; ``variables`` decide how cells are
    read.

    Returns:
        Numbers as (N,), or as (N, *event) where there are several columns, NaN in gaps; labels and paths as a
        list, None in gaps.
    """
    records = _records(path)
    header = _header(records, path)
    fields = [(node, name, header.index(name)) for node, names in columns.items() for name in names]
    parsers = {node: _parser(variables[node]) for node in columns}
    read: dict[str, list[_Block]] = {name: [] for _, name, _ in fields}
    rows, first = _rows(records, len(header), path), 0
    while block := list(islice(rows, _ROWS)):
        cells = list(zip(*block, strict=True))
        for node, name, field in fields:
            where = f"Column {name!r} of {path.name}"
            read[name].append(_parsed(cells[field], parsers[node], where, first))
        first += len(block)
    return {node: _column([read[name] for name in columns[node]], variables[node]) for node in columns}


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line and fields of each record, the header's first; blank lines have no fields."""
    line, name = 1, path.name.lower()
    opened: Any = gzip.open if name.endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if ".tsv" in name else ",", strict=True)
        try:
            for record in reader:
                yield line, record
                line = reader.line_num + 1
        except csv.Error as error:
            hint = f" {SEPARATORS}" if line == 1 else ""  # of a header in quotes
            raise DataError(f"Cannot read the table {path}, line {line}: {error}.{hint}") from error
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path.name}, line {line} or after it, is not UTF-8: {error}. Save it as UTF-8."
            ) from error


def _header(records: Iterator[tuple[int, list[str]]], path: Path) -> list[str]:
    header = next((record for _, record in records if record), None)
    if header is None:
        raise DataError(
            f"Cannot read the table {path}: it is empty, expected a line with the names of the columns."
        )
    for name, count in Counter(header).items():
        if count > 1 and name:  # columns without a name cannot be meant by anything
            raise DataError(f"Column {name!r} of {path.name} is there {count} times. Rename all but one.")
    return header


def _rows(records: Iterator[tuple[int, list[str]]], width: int, path: Path) -> Iterator[list[str]]:
    """The fields of each data row; blank lines are none, unless they might be an empty cell."""
    blank: int | None = None
    for line, record in records:
        if len(record) == width:
            if blank is not None and width == 1:
                raise DataError(
                    f"Cannot read the table {path}: line {blank} is blank. "
                    'Write "" for an empty cell, or take the line out.'
                )
            yield record
        elif record:
            fix = "Quote a value that has a separator in it"
            if len(record) < width:
                fix = "Write a separator for each cell, also for an empty one"
            elif not any(record[width:]):
                fix = "Take the separator at its end out"
            raise DataError(
                f"Cannot read the table {path}: line {line} has {len(record)} fields, where the header has "
                f"{width}. {fix}, so that each value stays in its column."
            )
        else:
            blank = line


def _parser(variable: Variable) -> Callable[[str], object]:
    """What turns a cell into a value; it raises ValueError with what was expected."""
    if _is_text(variable):
        return str if isinstance(variable, Categorical) and "" in (variable.labels or ()) else _text
    return _two_codes if isinstance(variable, Categorical) and variable.size == 2 else _number


def _is_text(variable: Variable) -> bool:
    return isinstance(variable, Image) or (isinstance(variable, Categorical) and variable.labels is not None)


def _text(text: str) -> str | None:
    return text or None


def _two_codes(text: str) -> float:
    return TRUTH[text] if text in TRUTH else _number(text)


def _number(text: str) -> float:
    """A cell as float64: whole numbers exactly, others to the nearest; NaN for a gap."""
    text = text.strip(" \t")
    if (match := _NUMBER.fullmatch(text)) is None:
        if text in GAPS:
            return math.nan
        raise ValueError(_NO_NUMBER)
    value = float(text)
    if abs(value) < 2.0**53 and (value or not re.search("[1-9]", match[1])):
        return value
    if not math.isfinite(value) or not value:
        raise ValueError("expected a number that float64 can hold")
    if "." not in text and match[2] is None and int(text) != value:
        raise ValueError("a whole number beyond 2**53 that float64 cannot hold exactly")
    return value


def _plain_numbers(cells: Sequence[str]) -> NDArray[np.float64] | None:
    """``_number`` of each cell, many times as fast, where none needs a closer look; else None."""
    if not re.fullmatch(r"[-+.0-9eE,]*", ",".join(cells)):
        return None
    try:
        numbers = np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        return None
    rounded = any(cells[row].strip("+-0.") for row in np.flatnonzero(numbers == 0).tolist())
    return None if rounded or not (np.abs(numbers) < 2.0**53).all() else numbers


def _parsed(cells: Sequence[str], parse: Callable[[str], object], where: str, first: int) -> _Block:
    """The values of some cells, the first of them in row ``first``."""
    if parse in (_number, _two_codes) and (numbers := _plain_numbers(cells)) is not None:
        return numbers
    values: list[object] = []
    for row, cell in enumerate(cells):
        try:
            values.append(parse(cell))
        except ValueError as error:
            advice = f"{ADVICE_ON_TEXTS} A gap is an empty cell." if str(error) == _NO_NUMBER else ""
            advice = ADVICE_ON_DATES if is_date(cell) else advice
            raise DataError(f"{where}: row {first + row} is {cell!r}, {error}.{advice}") from error
    return values


def _column(parts: Sequence[list[_Block]], variable: Variable) -> NDArray[np.generic] | list[object]:
    """The blocks of a column, or of one for each number of a vector, as what a variable takes."""
    if _is_text(variable):
        values = [value for block in parts[0] for value in block]
        return values if isinstance(variable, Image) else np.array(values, dtype=object)
    none = np.empty(0)
    arrays = [np.concatenate([none, *(np.asarray(block, np.float64) for block in part)]) for part in parts]
    array = arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=-1).reshape(-1, *variable.event_shape)
    if variable.type != "continuous" and np.isfinite(array).all() and (array == np.floor(array)).all():
        return array.astype(np.int64)  # messages show what was written
    return array
