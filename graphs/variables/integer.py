"""The variable whose values are whole numbers: counts, years, scores.

Canonically float64, in data units, as every number of a table is: conditioning, expressions and linear
algebra take it as it is, and float64 holds every whole number that is admitted, below 2**53. Outside it is
int64. Nothing is ever rounded on the way in.
"""

from __future__ import annotations

from typing import Annotated, Literal, Protocol, cast, overload, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from graphs.declared import python_only
from graphs.errors import DomainError
from graphs.variables.arrays import Array, as_array, as_numbers, as_rows, first_bad
from graphs.variables.base import Values, VariableBase, by_name, refuse_bool_and_text

__all__ = ["Integer", "LARGEST"]

LARGEST = 2**53 - 1
"""The largest whole number admitted: beyond, float64 skips some."""

_Bound = Annotated[int, BeforeValidator(refuse_bool_and_text), Field(ge=-LARGEST, le=LARGEST)]

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

    type: Literal["integer"] = "integer"
    lower: _Bound | None = None
    upper: _Bound | None = None
    unit: str = ""

    @overload
    def __init__(self, /, lower: int | None = None, upper: int | None = None, unit: str = "") -> None: ...
    @overload
    def __init__(
        self,
        /,
        *,
        lower: int | None = None,
        upper: int | None = None,
        unit: str = "",
        type: Literal["integer"],
    ) -> None: ...
    @python_only
    def __init__(self, /, *args: object, **data: object) -> None:
        """Declare the bounds and the unit."""
        super().__init__(**by_name("Integer", ("lower", "upper", "unit"), args, data))

    @model_validator(mode="after")
    def _check_bounds(self) -> Integer:
        if self.lower is not None and self.upper is not None and not self.lower < self.upper:
            raise ValueError(f"lower must be below upper, got lower {self.lower} and upper {self.upper}")
        return self

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one value: ()."""
        return ()

    @property
    def dtype(self) -> str:
        """Canonical dtype: "float64"."""
        return "float64"

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
            self._refuse(given, bad, "expected a whole number between -2**53 and 2**53", where=where)
        if (rows != np.floor(rows)).any():
            advice = "expected a whole number; round it first, as by round(...) in an expression"
            self._refuse(given, rows != np.floor(rows), advice, where=where)
        if self.lower is not None and rows.min() < self.lower:
            self._refuse(given, rows < self.lower, f"below the lower bound {self.lower}", where=where)
        if self.upper is not None and rows.max() > self.upper:
            self._refuse(given, rows > self.upper, f"above the upper bound {self.upper}", where=where)
        return rows

    def _refuse(self, rows: Array, bad: Array, why: str, *, where: str) -> None:
        index = first_bad(bad)
        raise DomainError(f"{where}: row {index[0]} is {rows[index].item()!r}, {why} ({self.describe()}).")

    def decode(self, values: Values) -> Values:
        """The values as int64, a numpy array or a tensor as they came."""
        if isinstance(values, _Tensor):
            return cast(Values, values.long())
        return cast(Values, as_array(values, where="Values").astype(np.int64))

    def describe(self) -> str:
        """A few words for listings, as in "integer [0, inf) visits"."""
        words = ["integer"]
        if self.lower is not None or self.upper is not None:
            low = "(-inf" if self.lower is None else f"[{self.lower}"
            high = "inf)" if self.upper is None else f"{self.upper}]"
            words.append(f"{low}, {high}")
        return " ".join(word for word in [*words, self.unit] if word)
