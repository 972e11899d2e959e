"""Values as users hold them, turned into numpy arrays: the only place that knows other containers.

Scalars, (nested) lists, numpy arrays, pandas Series and frames and torch tensors are told
apart by what they can do, never by importing their library. Everything here raises ``ShapeError`` or
``DomainError``, and every message starts with ``where``, such as "Evidence 'digit'".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from graphs.errors import DomainError, ShapeError

__all__ = [
    "ADVICE_ON_DATES",
    "ADVICE_ON_DURATIONS",
    "ADVICE_ON_TEXTS",
    "ADVICE_ON_TIMES",
    "Array",
    "as_array",
    "as_cells",
    "as_numbers",
    "as_rows",
    "first_bad",
    "is_date",
    "listed_nulls",
]

Array = NDArray[Any]

ADVICE_ON_DATES = " Count from a day of your choice, in pandas (dates - day).dt.days."
"""What to do about dates where numbers should be."""

ADVICE_ON_DURATIONS = " Divide by a unit of your choice, as by numpy.timedelta64(1, 'h')."
"""The same of durations."""

ADVICE_ON_TIMES = " Count from midnight, as by time.hour + time.minute / 60."
"""The same of times of day."""

ADVICE_ON_TEXTS = (
    " Texts are labels, which a variable declares, as cg.Categorical(['no', 'yes']); a number has a decimal "
    "point and no unit."
)
"""The same of texts."""

_ADVICE = {date: ADVICE_ON_DATES, timedelta: ADVICE_ON_DURATIONS, time: ADVICE_ON_TIMES}

_DATE = re.compile(r"\d{4}-\d\d?-\d\d?(?!\d)|\d{1,2}[./]\d{1,2}[./]\d{2,4}(?!\d)")


@runtime_checkable
class _Tensor(Protocol):
    """What a torch tensor can do."""

    def detach(self) -> _Tensor: ...
    def cpu(self) -> _Tensor: ...
    def float(self) -> _Tensor: ...
    def numpy(self) -> Array: ...


def as_array(value: object, *, where: str, objects: bool = False) -> Array:
    """``value`` as a numpy array, possibly sharing its memory.

    What a masked array masks is NaN, or None in an array of objects: its data there mean nothing.

    Args:
        value: a scalar, list, numpy array, pandas object or tensor, or a list of such.
        where: what the value is, for error messages.
        objects: keep the items of a list as they are, so that [1, "a"] does not become ["1", "a"].

    Raises:
        ShapeError: the rows have different shapes.
    """
    if isinstance(value, (list, tuple)) and _holds_masked(cast(object, value)):
        value = _unmasked(cast(object, value))
    if isinstance(value, np.ma.MaskedArray):
        array = _filled(cast(np.ma.MaskedArray[Any, Any], value), objects)
    elif isinstance(value, np.ndarray):
        array = cast(Array, value)
    elif isinstance(value, _Tensor):
        tensor = value.detach().cpu()
        try:
            return tensor.numpy()
        except TypeError as error:  # numpy has no bfloat16, nor sparse tensors
            if "layout" in str(error):
                raise ShapeError(f"{where}: {error}") from error
            return tensor.float().numpy()
    elif (listed := listed_nulls(cast(object, value))) is not value:
        return as_array(listed, where=where, objects=True)
    elif isinstance(value, (list, tuple)) and _holds_arrays(cast(Sequence[object], value)):
        return _stack(cast(Sequence[object], value), where=where)
    else:
        try:
            array = np.asarray(value, dtype=object) if objects else as_cells(cast(object, value))
        except (ValueError, TypeError) as error:
            raise ShapeError(f"{where}: rows must all have one shape, and these do not ({error}).") from error
    if array.dtype == object and array.ndim == 1 and not isinstance(value, (list, tuple)):
        if _holds_arrays(array):  # a column of arrays or tensors
            return _stack(cast(Sequence[object], array), where=where)
        if not objects and len(array) and all(isinstance(item, (list, tuple)) for item in array):
            return as_array(list(array), where=where)  # a column of lists
    return array


def listed_nulls(value: object) -> object:
    """A column of polars or pyarrow that lacks values as a list, None in each gap; anything else as it is.

    As arrays of numpy they would be floats, which do not hold all whole numbers; and a null of pyarrow's
    dictionary would be its last entry.
    """
    column = cast(Any, value)
    count = getattr(column, "null_count", 0)
    count = count() if callable(count) else count
    if not isinstance(count, int) or not count:
        return value
    return cast(object, column.to_list() if hasattr(column, "to_list") else column.to_pylist())


def as_cells(value: object) -> Array:
    """numpy's array of a column; objects of pandas' whole numbers with gaps, which floats may not hold."""
    array = np.asarray(value)
    whole = getattr(getattr(value, "dtype", None), "kind", "") in ("i", "u")
    return np.asarray(value, dtype=object) if whole and array.dtype.kind == "f" else array


def _filled(value: np.ma.MaskedArray[Any, Any], objects: bool) -> Array:
    if not np.ma.getmaskarray(value).any():
        return value.data
    numbers = value.dtype.kind in "bf" and not objects  # floats may not hold whole ones
    array: Array = value.data.astype(np.float64 if numbers else object)
    array[np.ma.getmaskarray(value)] = np.nan if numbers else None
    return array


def _holds_masked(item: object) -> bool:
    """Whether it is ``np.ma.masked``, or a nested list that holds it."""
    if isinstance(item, (list, tuple)):
        return any(map(_holds_masked, cast(Sequence[object], item)))
    return item is np.ma.masked


def _unmasked(item: object) -> object:
    if isinstance(item, (list, tuple)):
        return [_unmasked(each) for each in cast(Sequence[object], item)]
    return None if item is np.ma.masked else item


def _holds_arrays(items: Sequence[object] | Array) -> bool:
    """Whether the items are arrays or tensors of their own (judged by the first)."""
    return len(items) > 0 and hasattr(items[0], "__array__") and not isinstance(items[0], np.generic)


def _stack(items: Sequence[object], *, where: str) -> Array:
    arrays = [as_array(item, where=where) for item in items]
    for row, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise ShapeError(f"{where}: row {row} has shape {array.shape}, but row 0 has {arrays[0].shape}.")
    return np.stack(arrays)


def as_numbers(value: object, *, where: str) -> Array:
    """``value`` as an array of booleans, integers or floats, possibly sharing its memory.

    Raises:
        DomainError: the values are text, dates, complex numbers or other objects.
        ShapeError: the rows have different shapes.
    """
    array = as_array(value, where=where)
    if array.dtype == object:
        for index, item in np.ndenumerate(array):
            row = index[0] if index else 0
            if not isinstance(item, (Real, Decimal, np.bool_)) and item is not None:
                advice = next((told for kind, told in _ADVICE.items() if isinstance(item, kind)), "")
                advice = ADVICE_ON_TEXTS if isinstance(item, str) and not _is_number(item) else advice
                raise DomainError(f"{where}: row {row} is {item!r}, expected a number.{advice}")
            if isinstance(item, (Integral, Decimal)) and not _is_float(item):
                raise DomainError(
                    f"{where}: row {row} is {str(item)[:30]}, a whole number beyond 2**53 that float64 "
                    "cannot hold exactly."
                )
        return array.astype(np.float64)  # None becomes NaN, for the caller to refuse
    if array.dtype.kind not in "biuf":
        example = array.flat[0].item() if array.size else ""
        example = str(array.flat[0]) if array.size and array.dtype.kind in "mM" else example
        raise DomainError(f"{where}: expected numbers, got {_kind(array, example)}")
    return array


def _kind(array: Array, example: object) -> str:
    """What an array holds instead of numbers, and how it becomes numbers."""
    shown = f"dtype {array.dtype} (row 0: {example!r}). "
    if array.dtype.kind == "m":
        return f"durations, {shown.rstrip()}{ADVICE_ON_DURATIONS}"
    if array.dtype.kind == "M" or (isinstance(example, str) and is_date(example)):
        return f"dates or times, {shown.rstrip()}{ADVICE_ON_DATES}"
    if isinstance(example, str) and not _is_number(example):
        return f"{shown.rstrip()}{ADVICE_ON_TEXTS}"
    return f"{shown}Convert it first, as by value.astype(float)."


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def is_date(text: str) -> bool:
    """Whether a text begins like a date, such as 2024-05-31, 31.5.2024 or 5/31/24."""
    return _DATE.match(text) is not None


def _is_float(number: Integral | Decimal) -> bool:
    """Whether float64 holds a whole number exactly; of other numbers it holds the nearest."""
    if isinstance(number, Decimal):
        whole = number.is_finite() and number == number.to_integral_value()
        return not whole or Decimal(float(number)) == number
    try:
        return int(float(number)) == int(number)
    except OverflowError:
        return False


def as_rows(array: Array, event: tuple[int, ...], *, where: str) -> Array:
    """``array`` as (B, *event); an array of shape ``event`` is one row."""
    if array.shape == event:
        return array[None]
    if array.ndim == len(event) + 1 and array.shape[1:] == event:
        return array
    many = "(B" + "".join(f", {size}" for size in event) + ("," if not event else "") + ")"
    column = array.ndim == len(event) + 2 and array.shape[-1] == 1
    hint = " Drop the last axis: value[..., 0]." if column else ""
    raise ShapeError(
        f"{where}: expected shape {event} for one row or {many} for B rows, got {array.shape}.{hint}"
    )


def first_bad(bad: Array) -> tuple[int, ...]:
    """Index of the first True in row order; ``bad`` has one."""
    return tuple(int(i) for i in np.argwhere(bad)[0])
