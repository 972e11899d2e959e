"""Encode with what is out of bounds moved onto the bound, where a user asks for that instead of an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from graphs.variables import Categorical, Image, Variable
from graphs.variables.arrays import Array, as_array, is_picture

__all__ = ["encode_clipped"]


def encode_clipped(variable: Variable, value: object, *, where: str) -> Array:
    """``variable.encode``, with numbers moved into the bounds and pixels into [0, 1]; never NaN or infinity.

    A category has no neighbour to be moved to: an unknown one stays an error.

    >>> from graphs.variables import Continuous
    >>> encode_clipped(Continuous(lower=0), [-2, 3], where="Intervention on 'x'")
    array([0., 3.])

    Raises:
        ShapeError: the wrong shape.
        DomainError: what has no place in the domain even so.
    """
    if isinstance(variable, Categorical):
        return variable.encode(value, where=where)
    if isinstance(variable, Image):
        return variable.encode(_clipped_pixels(value, where=where), where=where)
    unbounded = variable.model_copy(update={"lower": None, "upper": None})
    rows = unbounded.encode(value, where=where)
    if variable.lower is not None or variable.upper is not None:
        np.clip(rows, variable.lower, variable.upper, out=rows)
    return rows


def _clipped_pixels(value: object, *, where: str) -> object:
    items = cast(Sequence[object], value) if isinstance(value, (list, tuple)) else [value]
    if any(map(is_picture, items)):
        return cast(object, value)
    array = as_array(cast(object, value), where=where)
    return array.clip(0, 1) if array.dtype.kind == "f" else array
