"""The variables whose values are numbers: real numbers or arrays of them, and whole numbers (counts).

Canonically both are float64, in data units: conditioning, expressions and linear algebra take whole numbers
as they are, and float64 holds every one that is admitted, below 2**53. Outside they are int64. Nothing is
ever rounded on the way in.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite
from typing import Annotated, ClassVar, Literal, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, field_validator, model_validator

from graphs.errors import DomainError
from graphs.limits import DIMENSIONS
from graphs.variables.arrays import Array, as_array, as_numbers, as_rows, first_bad
from graphs.variables.base import (
    Bound,
    Size,
    Unit,
    Values,
    VariableBase,
    by_position,
    check_numbers,
    refuse_bool_and_text,
)

__all__ = ["Continuous", "Integer", "LARGEST", "bound_text", "limits", "unbounded"]


class Continuous(VariableBase):
    """A real number, or a fixed-shape array of them, perhaps bounded.

    >>> Continuous(lower=0, unit="px").encode(2, where="Evidence 'thickness'")
    array([2.])

    Attributes:
        lower: least value, itself allowed, though a ``flow`` takes only values inside its bounds; None
            for no bound.
        upper: largest value, likewise.
        unit: of the data, for people.
        shape: of one value; () is a scalar.
    """

    dtype: ClassVar[str] = "float64"

    type: Literal["continuous"] = "continuous"
    lower: Bound | None = None
    upper: Bound | None = None
    unit: Unit = ""
    shape: Annotated[tuple[Size, ...], Field(max_length=DIMENSIONS)] = ()

    @by_position
    def __init__(
        self,
        /,
        lower: float | None = None,
        upper: float | None = None,
        unit: str = "",
        shape: Sequence[int] = (),
        *,
        type: Literal["continuous"] = "continuous",
    ) -> None: ...

    @field_validator("shape")
    @classmethod
    def _check_shape(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        check_numbers(shape)
        return shape

    @model_validator(mode="after")
    def _check_bounds(self) -> Continuous:
        if self.lower is not None and self.upper is not None and not self.lower < self.upper:
            low, high = bound_text(self.lower), bound_text(self.upper)
            raise ValueError(f"lower must be below upper, got lower {low} and upper {high}")
        return self

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one value: ``shape``."""
        return self.shape

    def encode(self, value: object, *, where: str, copy: bool = True) -> NDArray[np.float64]:
        """``value`` as (B, *shape) float64, finite and within the bounds; one value is one row.

        Without ``copy`` it may share the memory of ``value``.

        Raises:
            ShapeError: neither ``shape`` nor (B, *shape).
            DomainError: NaN, infinite, out of bounds, or not numbers.
        """
        array = as_rows(as_numbers(value, where=where), self.shape, where=where)
        rows = np.array(array, dtype=np.float64, order="C", copy=copy or None)
        if (
            array.dtype.kind in "iu"
            and array.dtype.itemsize == 8
            and (rows.astype(array.dtype) != array).any()
        ):
            index = first_bad(rows.astype(array.dtype) != array)
            raise DomainError(
                f"{where}: row {index[0]} is {array[index]}, a whole number beyond 2**53 that float64 cannot "
                "hold exactly."
            )
        if rows.size == 0:
            return rows
        low, high = rows.min(), rows.max()  # both are NaN if anything is
        if not (isfinite(low) and isfinite(high)):
            _refuse(self, rows, ~np.isfinite(rows), "expected finite numbers", where)
        if self.lower is not None and low < self.lower:
            _refuse(self, rows, rows < self.lower, f"below the lower bound {bound_text(self.lower)}", where)
        if self.upper is not None and high > self.upper:
            _refuse(self, rows, rows > self.upper, f"above the upper bound {bound_text(self.upper)}", where)
        return rows

    def decode(self, values: Values) -> Values:
        """The values as they are."""
        return values

    def describe(self) -> str:
        """A few words for listings, as in "continuous [64, 255] px"."""
        return _described(self, "continuous", "x".join(map(str, self.shape)))

    def encode_clipped(self, value: object, *, where: str) -> NDArray[np.float64]:
        """As ``encode``, with numbers moved into the bounds; never NaN or infinity."""
        return _clipped(self, value, where)


LARGEST = 2**53 - 1
"""The largest whole number admitted: beyond, float64 skips some."""

_Bound = Annotated[int, Field(ge=-LARGEST, le=LARGEST), BeforeValidator(refuse_bool_and_text)]

_MOST_VALUES = 1024


@runtime_checkable
class _Tensor(Protocol):
    """What a torch tensor can do."""

    def long(self) -> _Tensor: ...


class Integer(VariableBase):
    """A whole number, perhaps bounded.

    >>> Integer(lower=0, unit="visits").encode([2, 3.0], where="Evidence 'visits'")
    array([2., 3.])

    Attributes:
        lower: least value, itself allowed; None for no bound.
        upper: largest value, itself allowed; None for no bound.
        unit: of the data, for people.
    """

    event_shape: ClassVar[tuple[int, ...]] = ()
    dtype: ClassVar[str] = "float64"

    type: Literal["integer"] = "integer"
    lower: _Bound | None = None
    upper: _Bound | None = None
    unit: Unit = ""

    @by_position
    def __init__(
        self,
        /,
        lower: int | None = None,
        upper: int | None = None,
        unit: str = "",
        *,
        type: Literal["integer"] = "integer",
    ) -> None: ...

    @model_validator(mode="after")
    def _check_bounds(self) -> Integer:
        if self.lower is not None and self.upper is not None and not self.lower < self.upper:
            raise ValueError(f"lower must be below upper, got lower {self.lower} and upper {self.upper}")
        return self

    @property
    def counts(self) -> bool:
        """Whether it is a whole number from 0 on, without an upper bound."""
        return self.lower == 0 and self.upper is None

    @property
    def values(self) -> range | None:
        """Every value, where both bounds are given and there are at most 1,024; else None."""
        if self.lower is None or self.upper is None or self.upper - self.lower >= _MOST_VALUES:
            return None
        return range(self.lower, self.upper + 1)

    def encode(self, value: object, *, where: str) -> NDArray[np.float64]:
        """``value`` as (B,) float64, whole and within the bounds; a scalar is one row.

        Whole floats and booleans count as whole numbers.

        Raises:
            ShapeError: not a scalar or (B,).
            DomainError: NaN, infinite, not whole, 2**53 or beyond, out of bounds, or not numbers.
        """
        given = as_rows(as_numbers(value, where=where), (), where=where)
        rows = np.array(given, dtype=np.float64)
        if rows.size == 0:
            return rows
        if not (np.abs(rows) <= LARGEST).all():  # NaN compares false
            bad = ~(np.abs(rows) <= LARGEST)
            _refuse(self, given, bad, "expected a whole number between -2**53 and 2**53", where)
        if (rows != np.floor(rows)).any():
            advice = "expected a whole number; round it first, as by round(...) in an expression"
            _refuse(self, given, rows != np.floor(rows), advice, where)
        if self.lower is not None and rows.min() < self.lower:
            _refuse(self, given, rows < self.lower, f"below the lower bound {self.lower}", where)
        if self.upper is not None and rows.max() > self.upper:
            _refuse(self, given, rows > self.upper, f"above the upper bound {self.upper}", where)
        return rows

    def decode(self, values: Values) -> Values:
        """The values as int64, a numpy array or a tensor as they came."""
        if isinstance(values, _Tensor):
            return cast(Values, values.long())
        return cast(Values, as_array(values, where="Values").astype(np.int64))

    def describe(self) -> str:
        """A few words for listings, as in "integer [0, inf) visits"."""
        return _described(self, "integer")

    def encode_clipped(self, value: object, *, where: str) -> NDArray[np.float64]:
        """As ``encode``, with numbers moved into the bounds; never NaN or infinity."""
        return _clipped(self, value, where)


def bound_text(bound: float) -> str:
    """A bound in as many digits as it takes to tell it from any other.

    >>> bound_text(0.5), bound_text(1693526400.0), bound_text(12)
    ('0.5', '1693526400', '12')
    """
    short = f"{bound:g}"
    return short if isinstance(bound, float) and float(short) == bound else repr(bound).removesuffix(".0")


def limits(variable: Continuous | Integer) -> tuple[float, float]:
    """The bounds, infinite where there is none."""
    low, high = variable.lower, variable.upper
    return -inf if low is None else low, inf if high is None else high


_Any = TypeVar("_Any", bound=VariableBase)


def unbounded(variable: _Any) -> _Any:
    """A number's variable without its bounds, which what a mechanism makes may leave; others as they are."""
    numeric = isinstance(variable, Continuous | Integer)
    return variable.model_copy(update={"lower": None, "upper": None}) if numeric else variable


def _refuse(variable: Continuous | Integer, rows: Array, bad: Array, why: str, where: str) -> None:
    index = first_bad(bad)
    at = f" at {list(index[1:])}" if variable.event_shape else ""
    raise DomainError(
        f"{where}: row {index[0]} is {rows[index].item()!r}{at}, {why} ({variable.describe()})."
    )


def _described(variable: Continuous | Integer, *words: str) -> str:
    """The words, the bounds and the unit."""
    bounds = ""
    if variable.lower is not None or variable.upper is not None:
        low = "(-inf" if variable.lower is None else "[" + bound_text(variable.lower)
        high = "inf)" if variable.upper is None else bound_text(variable.upper) + "]"
        bounds = f"{low}, {high}"
    return " ".join(word for word in (*words, bounds, variable.unit) if word)


def _clipped(variable: Continuous | Integer, value: object, where: str) -> NDArray[np.float64]:
    rows = unbounded(variable).encode(value, where=where)
    if variable.lower is not None or variable.upper is not None:
        np.clip(rows, variable.lower, variable.upper, out=rows)
    return rows
