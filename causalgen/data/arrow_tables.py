"""Arrow tables as DataFrames that hold what they hold: no index, no rounding, no types guessed.

They come from Parquet files, and from frames of other libraries (polars, pyarrow, DuckDB, ...), which hand
their columns over by Arrow's PyCapsule protocol, ``__arrow_c_stream__``, or by the older ``__dataframe__``.
Results hand theirs over the same way: ``polars.from_dataframe(result)``.

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
from graphs.variables.arrays import ADVICE_ON_DATES, ADVICE_ON_DURATIONS, ADVICE_ON_TIMES

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Tabular", "arrow_frame", "arrow_table", "is_arrow", "parquet_header", "read_parquet"]


class Tabular:
    """A result that ``to_frame`` gives as a table, which other libraries may take by Arrow's protocol."""

    __slots__ = ()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The table's stream; levels of its index are columns, unless that only counts the rows from 0."""
        from pyarrow import ArrowInvalid, ArrowTypeError

        frame: Any = getattr(self, "to_frame")()  # noqa: B009 - whose result it is, the class says
        if hasattr(frame.index, "start") and (frame.index.start, frame.index.step) != (0, 1):
            frame = frame.set_axis(frame.index.to_numpy()).rename_axis(frame.index.name)  # else it is dropped
        try:
            return frame.__arrow_c_stream__(requested_schema)
        except (ArrowInvalid, ArrowTypeError) as error:
            raise DataError(
                f"The table cannot be handed over as Arrow columns: {error}. Use to_frame()."
            ) from error


def is_arrow(source: object) -> bool:
    """Whether it is a frame of another library than pandas that hands its columns over."""
    if hasattr(source, "iloc") or isinstance(source, Mapping):
        return False
    return hasattr(source, "__arrow_c_stream__") or hasattr(source, "__dataframe__")


def arrow_table(source: Any) -> Any:
    """The columns of such a frame as a ``pyarrow.Table``."""
    import pyarrow

    try:
        if hasattr(source, "__arrow_c_stream__"):
            return pyarrow.table(source)
        from pyarrow.interchange import from_dataframe

        return from_dataframe(source)
    except Exception as error:  # of the other library as well
        kind = f"{type(source).__module__.partition('.')[0]} {type(source).__name__}"
        raise DataError(f"Cannot take over the columns of the {kind}: {error}. Give other types.") from error


def parquet_header(path: Path) -> list[str]:
    """The names of a Parquet file's columns."""
    import pyarrow.parquet

    header: list[str] = pyarrow.parquet.read_schema(path, memory_map=False).names
    for name, count in Counter(header).items():
        if count > 1:
            raise DataError(f"Column {name!r} of {path.name} is there {count} times. Rename all but one.")
    return header


def read_parquet(
    path: Path, columns: Mapping[str, Sequence[str]], variables: Mapping[str, Variable]
) -> DataFrame:
    """Some columns of a Parquet file, for each node one, or one for each of its numbers."""
    import pyarrow.parquet

    names = [name for parts in columns.values() for name in parts]
    # In one thread: files are small, and the threads of Arrow's pool outlive the reading.
    table = pyarrow.parquet.read_table(
        path, columns=names, use_threads=False, page_checksum_verification=True
    )
    return arrow_frame(table, columns, variables, f" of {path.name}")


def arrow_frame(
    table: Any, columns: Mapping[str, Sequence[str]], variables: Mapping[str, Variable], origin: str
) -> DataFrame:
    """Some columns of a ``pyarrow.Table``, as ``read_parquet`` reads them."""
    import pyarrow

    names = {name: variables[node] for node, parts in columns.items() for name in parts}
    plain: dict[str, Any] = {}
    for name in names:
        column = table.column(name)
        plain[name] = _spelt_out(column) if pyarrow.types.is_dictionary(column.type) else column
    numbers = [
        name
        for name, each in names.items()
        if not isinstance(each, Image) and getattr(each, "labels", None) is None
    ]
    for name in numbers:
        _refuse_inexact(plain[name], f"Column {name!r}{origin}")
    frame = pyarrow.table(plain).to_pandas(ignore_metadata=True, integer_object_nulls=True)
    for name in numbers:
        if pyarrow.types.is_decimal(plain[name].type) or pyarrow.types.is_integer(plain[name].type):
            frame[name] = frame[name].astype("float64") if frame[name].dtype == object else frame[name]
    return frame


def _spelt_out(column: Any) -> Any:
    """A column of codes in a dictionary as its values."""
    import pyarrow

    kind = column.type.value_type
    if str(kind) != "string_view":
        return column.cast(kind)
    kind = pyarrow.large_string()  # Arrow has no kernel that takes the other
    return pyarrow.chunked_array(
        [each.dictionary.cast(kind).take(each.indices) for each in column.chunks], kind
    )


def _refuse_inexact(column: Any, where: str) -> None:
    """Refuse what is no number, and whole numbers that float64 does not hold exactly."""
    import pyarrow.compute
    from pyarrow import types

    compute: Any = pyarrow.compute  # its functions are made at run time, unknown to type checkers

    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    while any(is_one(column.type) for is_one in lists):
        column, where = column.combine_chunks().flatten(), f"{where}, in its lists"
    if types.is_duration(column.type):
        raise DataError(f"{where}: expected numbers, got durations ({column.type}).{ADVICE_ON_DURATIONS}")
    if types.is_temporal(column.type):
        advice = ADVICE_ON_TIMES if types.is_time(column.type) else ADVICE_ON_DATES
        raise DataError(f"{where}: expected numbers, got dates or times ({column.type}).{advice}")
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
