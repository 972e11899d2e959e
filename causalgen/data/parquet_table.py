"""Parquet files as DataFrames that hold what the file holds: no index, no rounding, no types guessed.

pandas would take a column for the index where the file's metadata say so, and make whole numbers with gaps
floats, which hold them exactly only up to 2**53.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphs.errors import DataError
from graphs.variables import Image, Variable

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
    numbers = [name for node, parts in columns.items() for name in parts if _holds_numbers(variables[node])]
    for name in numbers:
        _refuse_inexact(plain[name], f"Column {name!r} of {path.name}")
    frame = pyarrow.table(plain).to_pandas(ignore_metadata=True, integer_object_nulls=True)
    for name in numbers:
        if pyarrow.types.is_decimal(plain[name].type) or pyarrow.types.is_integer(plain[name].type):
            frame[name] = frame[name].astype("float64") if frame[name].dtype == object else frame[name]
    return frame


def _holds_numbers(variable: Variable) -> bool:
    return not isinstance(variable, Image) and getattr(variable, "labels", None) is None


def _refuse_inexact(column: Any, where: str) -> None:
    """Refuse what is no number, and whole numbers that float64 does not hold exactly."""
    import pyarrow.compute
    from pyarrow import types

    compute: Any = pyarrow.compute  # its functions are made at run time, unknown to type checkers

    while (
        types.is_list(column.type)
        or types.is_large_list(column.type)
        or types.is_fixed_size_list(column.type)
    ):
        column, where = column.combine_chunks().flatten(), f"{where}, in its lists"
    if types.is_temporal(column.type):
        raise DataError(f"{where}: expected numbers, got dates or times ({column.type}). Convert them first.")
    if types.is_integer(column.type):
        ends = compute.min_max(column).as_py()
        if ends["min"] is None or (-(2**53) <= ends["min"] and ends["max"] <= 2**53):
            return
    elif not types.is_decimal(column.type):
        return
    for row, item in enumerate(column.to_pylist()):
        if item is not None and item == int(item) and float(item) != item:
            raise DataError(
                f"{where}: row {row} is {item}, a whole number beyond 2**53 that float64 cannot hold exactly."
            )
