"""Encoding of columns with gaps: None, NaN, pandas' NA, or masked where a row has no value."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from math import prod
from typing import cast

import numpy as np
from numpy.typing import NDArray

from graphs.errors import DomainError
from graphs.variables import Categorical, Continuous, Image, Integer, Variable
from graphs.variables.arrays import Array, as_array, listed_nulls
from graphs.variables.numeric import limits
from graphs.variables.picture import is_picture

__all__ = ["encode_gaps", "fill_gaps"]


def encode_gaps(variable: Variable, value: object, *, where: str) -> tuple[Array, NDArray[np.bool_] | None]:
    """``variable.encode``, and which rows have no value, (B,) or None; these hold something, not to be read.

    An image has no value where it is None. A NaN pixel is an error, and so is a vector of which only some
    numbers are NaN: which law these have given the others, only the joint law of both would tell. The result
    may share the memory of ``value``.

    >>> encode_gaps(Continuous(), [1.0, float("nan")], where="Evidence 'x'")[1]
    array([False,  True])
    """
    try:
        if isinstance(variable, Continuous):
            return variable.encode(value, where=where, copy=False), None
        return variable.encode(value, where=where), None
    except DomainError:
        filled = fill_gaps(variable, value, where=where)
        if filled is None:
            raise
    values, gaps = filled
    return variable.encode(values, where=where), gaps


def fill_gaps(
    variable: Variable, value: object, *, where: str, partial: bool = False
) -> tuple[object, NDArray[np.bool_]] | None:
    """The value with a valid one in each gap, not encoded yet, and which rows these are, (B,) bool.

    None where there is no gap. ``partial`` says whether a vector of which only some numbers are NaN is a gap
    too, or refused.
    """
    if isinstance(variable, Image):
        return _filled_images(variable, value)
    if variable.event_shape:
        value = _spelt_out(variable, value)
    array = as_array(value, where=where, objects=isinstance(variable, Categorical))
    if array.ndim == 0 or (array.ndim == 1 and variable.event_shape == array.shape):
        array = array[None]
    missing = _missing(array).reshape(len(array), prod(array.shape[1:]))
    gaps = cast(NDArray[np.bool_], missing.any(axis=1) if partial else missing.all(axis=1))
    if (missing.any(axis=1) != gaps).any():
        row = int((missing.any(axis=1) != gaps).argmax())
        raise DomainError(
            f"{where}: row {row} has {int((~missing[row]).sum())} of its {missing.shape[1]} numbers, the "
            "others are NaN; expected all or none. Make all of them NaN to have the whole vector inferred, "
            "or declare a node for each number, to have some inferred from the others."
        )
    if not array.size or not gaps.any():
        return None
    labelled = isinstance(variable, Categorical) and variable.labels is not None
    array = np.array(array, dtype=object if labelled else None)  # what came in stays as it is
    array[gaps] = _any_value(variable)
    return array, gaps


def _spelt_out(variable: Continuous | Categorical | Integer, value: object) -> object:
    """A list or column of vectors with NaN in every number of those that are missing as a whole."""
    value, nothing = listed_nulls(value), np.full(variable.event_shape, np.nan)
    if type(value) not in (list, tuple) and np.ndim(cast(Array, value)) == 0:
        return [nothing] if _is_gap(value) else value
    listed = type(value) in (list, tuple) or getattr(getattr(value, "dtype", None), "kind", "") == "O"
    items = list(cast(Iterable[object], value)) if listed else []
    gaps = [_is_gap(item) for item in items]
    vectors = any(hasattr(item, "__len__") for item in items)  # else these may be the numbers of one vector
    if not any(gaps) or not (vectors or (all(gaps) and len(items) != variable.event_shape[0])):
        return value
    return [nothing if gap else item for item, gap in zip(items, gaps, strict=True)]


def _filled_images(variable: Image, value: object) -> tuple[object, NDArray[np.bool_]] | None:
    if value is None:
        return np.zeros((1, *variable.shape), np.float32), np.ones(1, np.bool_)
    if is_picture(value) or not hasattr(value, "__iter__") or getattr(value, "ndim", 1) == 0:
        return None
    items = list(cast(list[object], value))
    gaps = np.array([_is_gap(item) for item in items], dtype=np.bool_)
    if not gaps.any():
        return None
    blank: object = np.zeros(variable.shape, np.float32)
    given = next((item for item in items if not _is_gap(item)), blank)
    return [given if gap else item for item, gap in zip(items, gaps, strict=True)], gaps


def _missing(array: Array) -> NDArray[np.bool_]:
    if array.dtype.kind == "f":
        return np.isnan(array)
    if array.dtype != object:
        return np.zeros(array.shape, np.bool_)
    return np.array([_is_gap(item) for item in array.flat], dtype=np.bool_).reshape(array.shape)


def _is_gap(item: object) -> bool:
    """Whether one item says that there is no value."""
    if isinstance(item, (float, np.floating, Decimal)):
        return bool(item != item)
    if isinstance(item, np.ma.MaskedArray):
        return bool(np.ma.getmaskarray(cast(Array, item)).all())
    return item is None or type(item).__name__ in ("NAType", "NaTType")


def _any_value(variable: Categorical | Continuous | Integer) -> object:
    if isinstance(variable, Categorical):
        return 0 if variable.labels is None else variable.labels[0]
    lower, upper = limits(variable)
    return min(max(0.0, lower), upper)
