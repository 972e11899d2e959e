"""Tables of pandas, from files and from memory, into one unchecked column a variable.

A CSV says little about types, so the variables do: labels and paths are read as text (a label "NA" is a
label, "007" is not 7), everything else as pandas reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphs.errors import DataError
from graphs.variables import Categorical, Image, Variable

if TYPE_CHECKING:
    from pandas import DataFrame  # slow to import, and only tables need it

__all__ = ["frame_columns", "read_frame"]

CSV_ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
PARQUET_ENDINGS = (".parquet", ".pq")


def read_frame(path: Path, variables: Mapping[str, Variable], names: Mapping[str, str]) -> DataFrame:
    """The columns of a CSV or Parquet file that these variables need, as a DataFrame.

    Raises:
        DataError: no such file, another ending, a missing column, or a file that is no such table.
    """
    if not path.is_file():
        raise DataError(f"There is no data file {path}.")
    name = path.name.lower()
    if not name.endswith(CSV_ENDINGS + PARQUET_ENDINGS):
        raise DataError(
            f"Cannot read {path}: expected a table in {', '.join(CSV_ENDINGS + PARQUET_ENDINGS)}."
        )
    try:
        if name.endswith(CSV_ENDINGS):
            return _read_csv(path, variables, names, "\t" if ".tsv" in name else ",")
        return _read_parquet(path, variables, names)
    except DataError:
        raise
    except Exception as error:  # pandas and pyarrow each raise a dozen kinds
        raise DataError(f"Cannot read the table {path}: {error}") from error


def _read_csv(
    path: Path, variables: Mapping[str, Variable], names: Mapping[str, str], separator: str
) -> DataFrame:
    import pandas

    header = [str(name) for name in pandas.read_csv(path, sep=separator, nrows=0).columns]
    wanted = _needed(header, variables, names, f" of {path.name}")
    text: Any = {names[node]: str for node, variable in variables.items() if _is_text(variable)}
    missing = ["", "NA", "NaN", "nan", "N/A", "n/a", "NULL", "null", "None", "<NA>", "#N/A"]
    return pandas.read_csv(
        path,
        sep=separator,
        usecols=wanted,
        dtype=text,
        keep_default_na=False,
        na_values={name: [""] if name in text else missing for name in wanted},
    )


def _read_parquet(path: Path, variables: Mapping[str, Variable], names: Mapping[str, str]) -> DataFrame:
    import pandas
    import pyarrow.parquet

    header = [str(name) for name in pyarrow.parquet.read_schema(path).names]
    return pandas.read_parquet(path, columns=_needed(header, variables, names, f" of {path.name}"))


def _is_text(variable: Variable) -> bool:
    if isinstance(variable, Categorical):
        return variable.labels is not None and all(isinstance(label, str) for label in variable.labels)
    return isinstance(variable, Image)


def frame_columns(
    frame: DataFrame, variables: Mapping[str, Variable], names: Mapping[str, str], told: str
) -> dict[str, object]:
    """Columns by node: arrays, or lists of pictures and paths.

    Raises:
        DataError: a column that is missing or there twice, or a missing value.
    """
    _needed(list(frame.columns), variables, names, told)
    return {node: _column(frame, variable, names[node], told) for node, variable in variables.items()}


def _column(frame: DataFrame, variable: Variable, name: str, told: str) -> object:
    if name not in frame.columns:
        parts = [_column(frame, variable, part, told) for part in _parts(name, variable)]
        return np.stack([np.asarray(part, dtype=np.float64) for part in parts], axis=-1)
    series = frame[name]
    gaps = np.flatnonzero(series.isna().to_numpy())
    if len(gaps):
        raise DataError(
            f"Column {name!r}{told}, row {gaps[0]}: the value is missing (NaN), {len(gaps):,} in all; "
            f"expected {variable.describe()}. Fill them or drop those rows."
        )
    values = series.to_numpy()
    if values.dtype == object or isinstance(variable, Image):
        return _unpacked(list(values))
    # pandas' own nullable numbers come as objects or floats; there are no gaps left to lose.
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
