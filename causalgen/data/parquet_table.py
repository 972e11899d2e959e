"""Parquet files as DataFrames that hold what the file holds: no index, no rounding, no types guessed.

pandas would take a column for the index where the file's metadata say so, and make whole numbers with gaps
floats, which hold them exactly only up to 2**53.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphs.errors import DataError
from graphs.variables import Variable

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["parquet_header", "read_parquet"]


def parquet_header(path: Path) -> list[str]:
    """The names of a Parquet file's columns.

    Raises:
        DataError: a name is there twice.
    """
    import pyarrow.parquet

    header: list[str] = pyarrow.parquet.read_schema(path, memory_map=False).names
    for name, count in Counter(header).items():
        if count > 1:
            raise DataError(f"Column {name!r} of {path.name} is there {count} times. Rename all but one.")
    return header


def read_parquet(
    path: Path, columns: Mapping[str, Sequence[str]], variables: Mapping[str, Variable]
) -> DataFrame:
    """Some columns of a Parquet file.

    Args:
        path: of the file.
        columns: by node: its column, or one for each of its numbers.
        variables: by node.

    Raises:
        DataError: dates where numbers should be, or a whole number that float64 cannot hold exactly.
    """
    import pyarrow
    import pyarrow.parquet

    names = {name: variables[node] for node, parts in columns.items() for name in parts}
    # In one thread: files are small, and the threads of Arrow's pool outlive the reading.
    table = pyarrow.parquet.read_table(
        path, columns=list(names), use_threads=False, page_checksum_verification=True
    )
    plain: dict[str, Any] = {}
    for name in names:
        column = table.column(name)
        if pyarrow.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        plain[name] = column
    frame = pyarrow.table(plain).to_pandas(ignore_metadata=True, integer_object_nulls=True)
    for node, parts in columns.items():
        for name in parts:
            where = f"Column {name!r} of {path.name}"
            frame[name] = _exact(frame[name], plain[name].type, variables[node], where)
    return frame


def _exact(series: Any, arrow_type: Any, variable: Variable, where: str) -> Any:
    """Numbers as float64 or int64 can hold them; what is no number stays as it is."""
    import pyarrow

    if variable.type == "image" or getattr(variable, "labels", None) is not None:
        return series
    if pyarrow.types.is_temporal(arrow_type):
        raise DataError(f"{where}: expected numbers, got dates or times ({arrow_type}). Convert them first.")
    whole = pyarrow.types.is_integer(arrow_type)
    if not whole and not pyarrow.types.is_decimal(arrow_type):
        return series
    if (
        whole
        and series.dtype != object
        and (series.empty or -(2**53) <= series.min() <= series.max() <= 2**53)
    ):
        return series
    for row, item in enumerate(series):
        if isinstance(item, (int, Decimal)) and item == int(item) and float(item) != item:
            raise DataError(
                f"{where}: row {row} is {item}, a whole number beyond 2**53 that float64 cannot hold exactly."
            )
    return series.astype("float64")
