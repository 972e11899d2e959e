"""Encoding of columns with gaps: None, NaN or pandas' NA where a row has no value."""

from __future__ import annotations

from math import prod
from typing import cast

import numpy as np
from numpy.typing import NDArray

from graphs.arrays import Array, as_array, is_picture
from graphs.errors import DomainError
from graphs.variables import Categorical, Continuous, Image, Variable

__all__ = ["encode_gaps"]


def encode_gaps(variable: Variable, value: object, *, where: str) -> tuple[Array, NDArray[np.bool_] | None]:
    """``variable.encode``, and which rows have no value; these hold something, not to be read.

    An image has no value where it is None. A NaN pixel is an error, and so is a vector of which only some
    numbers are NaN.

    >>> encode_gaps(Continuous(), [1.0, float("nan")], where="Evidence 'x'")[1]
    array([False,  True])

    Returns:
        (B, *event), and (B,) bool or None where every row has a value.

    Raises:
        DomainError, ShapeError: as ``variable.encode``.
    """
    try:
        return variable.encode(value, where=where), None
    except DomainError:
        filled = _filled(variable, value, where=where)
        if filled is None:
            raise
    values, gaps = filled
    return variable.encode(values, where=where), gaps


def _filled(variable: Variable, value: object, *, where: str) -> tuple[object, NDArray[np.bool_]] | None:
    """The value with a valid one in each gap, and which rows these are; None where there is no gap."""
    if isinstance(variable, Image):
        return _filled_images(variable, value)
    array = np.array(as_array(value, where=where, objects=isinstance(variable, Categorical)))
    if array.ndim == 0 or (array.ndim == 1 and variable.event_shape == array.shape):
        array = array[None]
    missing = _missing(array).reshape(len(array), prod(array.shape[1:]))
    gaps = cast(NDArray[np.bool_], missing.all(axis=1))
    if not array.size or not gaps.any():
        return None
    shape = (len(array), *variable.event_shape)
    if array.ndim == 1 and array.shape != shape:  # None stands for a whole vector
        zeros, items = np.zeros(variable.event_shape), cast(list[object], list(array))
        rows = [zeros if gap else item for item, gap in zip(items, gaps.tolist(), strict=True)]
        array = np.array(as_array(rows, where=where))
    array[gaps] = _any_value(variable, array)
    return array, gaps


def _filled_images(variable: Image, value: object) -> tuple[object, NDArray[np.bool_]] | None:
    if value is None:
        return np.zeros((1, *variable.shape), np.float32), np.ones(1, np.bool_)
    if is_picture(value) or not hasattr(value, "__iter__"):
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
    return item is None or type(item).__name__ == "NAType" or (isinstance(item, float) and item != item)


def _any_value(variable: Categorical | Continuous, array: Array) -> object:
    if isinstance(variable, Categorical):
        label = 0 if variable.labels is None else variable.labels[0]
        return 0 if isinstance(label, str) and array.dtype != object else label
    lower = -np.inf if variable.lower is None else variable.lower
    upper = np.inf if variable.upper is None else variable.upper
    return min(max(0.0, lower), upper)
