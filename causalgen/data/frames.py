"""Tables of pandas, from files and from memory, into one unchecked column a variable.

A CSV says little about types, so the variables do: labels and paths are read as text (a label "NA" is a
label, "007" is not 7), everything else as pandas reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graphs.arrays import as_numbers
from graphs.errors import DataError
from graphs.variables import Categorical, Image, Variable

if TYPE_CHECKING:
    from pandas import DataFrame  # slow to import, and only tables need it

__all__ = ["frame_columns", "present_columns", "read_frame"]

CSV_ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
PARQUET_ENDINGS = (".parquet", ".pq")


def read_frame(path: Path, variables: Mapping[str, Variable], names: Mapping[str, str]) -> DataFrame:
    """The columns of a CSV or Parquet file that these variables need, as a DataFrame.

    Raises:
        DataError: no such file, another ending, a missing column, or a file that is no such table.
    """
    wanted = _needed(_header(path), variables, names, f" of {path.name}")
    with _reading(path):
        import pandas

        if _is_csv(path):
            return _read_csv(path, wanted, variables, names)
        return pandas.read_parquet(path, columns=wanted)


def _is_csv(path: Path) -> bool:
    return path.name.lower().endswith(CSV_ENDINGS)


def _separator(path: Path) -> str:
    return "\t" if ".tsv" in path.name.lower() else ","


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # pandas and pyarrow each raise a dozen kinds
        raise DataError(f"Cannot read the table {path}: {error}") from error


def _header(path: Path) -> list[str]:
    """The columns of a table file."""
    if not path.is_file():
        raise DataError(f"There is no data file {path}.")
    if not path.name.lower().endswith(CSV_ENDINGS + PARQUET_ENDINGS):
        raise DataError(
            f"Cannot read {path}: expected a table in {', '.join(CSV_ENDINGS + PARQUET_ENDINGS)}."
        )
    with _reading(path):
        if _is_csv(path):
            import pandas

            return [str(name) for name in pandas.read_csv(path, sep=_separator(path), nrows=0).columns]
        import pyarrow.parquet

        return [str(name) for name in pyarrow.parquet.read_schema(path).names]


def _read_csv(
    path: Path, wanted: list[str], variables: Mapping[str, Variable], names: Mapping[str, str]
) -> DataFrame:
    import pandas

    text: Any = {names[node]: str for node, variable in variables.items() if _is_text(variable)}
    missing = ["", "NA", "NaN", "nan", "N/A", "n/a", "NULL", "null", "None", "<NA>", "#N/A"]
    return pandas.read_csv(
        path,
        sep=_separator(path),
        usecols=wanted,
        dtype=text,
        keep_default_na=False,
        na_values={name: [""] if name in text else missing for name in wanted},
    )


def _is_text(variable: Variable) -> bool:
    if isinstance(variable, Categorical):
        return variable.labels is not None and all(isinstance(label, str) for label in variable.labels)
    return isinstance(variable, Image)


def present_columns(
    path: Path, wanted: Mapping[str, Variable], known: Mapping[str, Variable]
) -> dict[str, Variable]:
    """Those wanted that a table file has columns for, and those that it misspells, for the reader to refuse.

    Args:
        path: of the file.
        wanted: variables by name of their column.
        known: all names that columns may rightly have.

    Returns:
        All that are wanted, where the file has none of them.

    Raises:
        DataError: no such file, or it is no table.
    """
    header = _header(path)
    strange = [name for name in header if name not in known]
    found = {
        name: variable
        for name, variable in wanted.items()
        if name in header
        or set(_parts(name, variable)) & set(header)
        or get_close_matches(name, strange, n=1, cutoff=0.8)
    }
    return found or dict(wanted)


def frame_columns(
    frame: DataFrame, variables: Mapping[str, Variable], names: Mapping[str, str], told: str
) -> dict[str, object]:
    """Columns by node: arrays, or lists of pictures and paths.

    Raises:
        DataError: a column that is missing or there twice.
    """
    _needed(list(frame.columns), variables, names, told)
    return {node: _column(frame, variable, names[node], told) for node, variable in variables.items()}


def _column(frame: DataFrame, variable: Variable, name: str, told: str) -> object:
    if name not in frame.columns:
        parts = [
            as_numbers(_cells(frame, part), where=f"Column {part!r}{told}") for part in _parts(name, variable)
        ]
        return np.stack(parts, axis=-1)
    values = _cells(frame, name)
    if values.dtype == object or isinstance(variable, Image):
        return _unpacked(list(values))
    return values


def _cells(frame: DataFrame, name: str) -> NDArray[Any]:
    """One column's cells; pandas' own ways of saying that there is none become None."""
    series = frame[name]
    values = series.to_numpy()
    if values.dtype == object and (gaps := series.isna().to_numpy()).any():
        values = values.copy()
        values[gaps] = None
    return values


def _unpacked(items: list[object]) -> list[object]:
    """Cells that hold lists or arrays, as Parquet's list columns do, as plain nested lists."""
    return [
        item.tolist() if isinstance(item, np.ndarray) and item.dtype == object else item for item in items
    ]


def _parts(name: str, variable: Variable) -> list[str]:
    if len(variable.event_shape) != 1 or variable.type != "continuous":
        return []
    return [f"{name}_{index}" for index in range(prod(variable.event_shape))]


def _needed(
    header: Sequence[str], variables: Mapping[str, Variable], names: Mapping[str, str], told: str
) -> list[str]:
    """The columns to read; a missing one is an error that names the nearest."""
    needed: list[str] = []
    for node, variable in variables.items():
        name = names[node]
        parts = _parts(name, variable)
        if name in header:
            needed.append(name)
        elif parts and all(part in header for part in parts):
            needed += parts
        else:
            texts = [str(each) for each in header]
            near = get_close_matches(name, texts, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            others = f", nor {parts[0]} .. {parts[-1]}" if parts else ""
            raise DataError(f"There is no column {name!r}{told}{others}.{hint} Columns: {', '.join(texts)}.")
    for name in needed:
        if list(header).count(name) > 1:
            raise DataError(
                f"Column {name!r}{told} is there {list(header).count(name)} times. Rename all but one."
            )
    return needed
