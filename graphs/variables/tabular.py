"""What a node's values are: categories, whole numbers, real numbers or images.

Every variable has an event shape and one canonical encoding, batch-first:

    variable      event shape   canonical encoding
    Categorical   ()            int64 codes 0..K-1
    Integer       ()            float64, whole (``graphs.variables.integer``)
    Continuous    shape         float64, in data units
    Image         (C, H, W)     float32 in [-1, 1]

``encode`` turns what a user gives into it, checking everything; ``decode`` turns it back.
Law: ``encode(decode(encode(x))) == encode(x)``, for images up to 1e-7. Both leave their input alone,
and what ``encode`` returns never shares memory with it unless told so. Row numbers in messages start at 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import isfinite
from numbers import Real
from typing import Annotated, Literal, cast, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from graphs.declared import python_only
from graphs.errors import DomainError
from graphs.variables.arrays import Array, as_array, as_numbers, as_rows, first_bad
from graphs.variables.base import Bound, Size, Values, VariableBase, by_name
from graphs.variables.image import Image
from graphs.variables.integer import Integer
from graphs.variables.labels import Labels

__all__ = ["Categorical", "Continuous", "Image", "Integer", "Variable"]


class Categorical(VariableBase):
    """One of K categories: numbered 0..K-1, or labelled.

    Values of labelled ones are labels, never codes (``graphs.variables.labels``); ``decode`` turns codes
    into labels.

    >>> Categorical(10).encode([3, 9], where="Evidence 'digit'")
    array([3, 9])
    >>> Categorical(["cat", "dog"]).encode("dog", where="Evidence 'animal'")
    array([1])

    Attributes:
        categories: K, at least 1, or the K labels: distinct strings or integers.
        ordered: whether the order of the categories means something.
    """

    type: Literal["categorical"] = "categorical"
    categories: int | tuple[str | int, ...]
    ordered: bool = False

    @overload
    def __init__(self, /, categories: int | Sequence[str | int], ordered: bool = False) -> None: ...
    @overload
    def __init__(
        self, /, *, categories: int | Sequence[str | int], ordered: bool = False, type: Literal["categorical"]
    ) -> None: ...
    @python_only
    def __init__(self, /, *args: object, **data: object) -> None:
        """Declare the categories."""
        super().__init__(**by_name("Categorical", ("categories", "ordered"), args, data))

    @field_validator("categories", mode="before")
    @classmethod
    def _check_categories(cls, value: object) -> object:
        if isinstance(value, np.ndarray):
            value = cast(object, value.tolist())
        if isinstance(value, (list, tuple)):
            items = cast(Sequence[object], value)
            labels = tuple(item.item() if isinstance(item, np.integer) else item for item in items)
            if not labels:
                raise ValueError("expected at least one category, got an empty list")
            for label in labels:
                if isinstance(label, bool) or not isinstance(label, (str, int)):
                    raise ValueError(f"labels are strings or integers, got {label!r}")
            texts = [str(label) for label in labels]
            if len(set(texts)) < len(labels):
                twice = next(text for text in texts if texts.count(text) > 1)
                alike = [label for label in labels if str(label) == twice]
                if len(set(alike)) == 1:
                    raise ValueError(f"the label {alike[0]!r} appears twice")
                raise ValueError(
                    f"the labels {alike[0]!r} and {alike[1]!r} are written alike, so that a table could not "
                    "tell them apart"
                )
            return labels
        if isinstance(value, np.integer):
            value = int(cast(int, value))
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(
                f"expected a number of categories of at least 1, or a list of labels, got {value!r}"
            )
        return value

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one value: ()."""
        return ()

    @property
    def dtype(self) -> str:
        """Canonical dtype: "int64"."""
        return "int64"

    @property
    def size(self) -> int:
        """K, the number of categories."""
        return self.categories if isinstance(self.categories, int) else len(self.categories)

    @cached_property
    def labels(self) -> tuple[str | int, ...] | None:
        """The labels in order of their codes, or None where the categories are only numbered."""
        return None if isinstance(self.categories, int) else self.categories

    @cached_property
    def _labels(self) -> Labels:
        return Labels(self.labels or ())

    def encode(self, value: object, *, where: str) -> NDArray[np.int64]:
        """Codes of ``value``: (B,) int64 in 0..K-1; a scalar is one row.

        Labelled categories are given by label (``graphs.variables.labels``), numbered ones by number; whole
        floats and booleans count as numbers.

        Raises:
            ShapeError: not a scalar or (B,).
            DomainError: an unknown category or label, NaN, or values that are not categories at all.
        """
        if self.labels is not None:
            array = as_array(value, where=where, objects=True)
            return self._encode_labels(as_rows(array, (), where=where), where=where)
        rows = as_rows(as_numbers(value, where=where), (), where=where)
        # NaN makes every comparison false, so one test covers it.
        if rows.size and not (rows.min() >= 0 and rows.max() < self.size):
            self._refuse(rows, ~((rows >= 0) & (rows < self.size)), where=where)
        codes = rows.astype(np.int64)
        if rows.dtype.kind == "f" and (codes != rows).any():
            self._refuse(rows, codes != rows, where=where)
        return codes

    def _encode_labels(self, rows: Array, *, where: str) -> NDArray[np.int64]:
        codes = self._labels.codes(rows)
        if (codes < 0).any():
            self._refuse(rows, codes < 0, where=where)
        return codes

    def _refuse(self, rows: Array, bad: Array, *, where: str) -> None:
        index = first_bad(bad)
        item: object = rows[index]
        nested = isinstance(item, (list, tuple, dict))
        shown = repr(item) if isinstance(item, str) else str(item)
        known, fix = f"0..{self.size - 1}", ""
        if self.labels is not None:
            known = ", ".join(map(repr, self.labels[:20])) + (", ..." if self.size > 20 else "")
            if isinstance(item, (Real, np.bool_)) and item == item:
                fix = " A number is no code here: give the label, which variable.decode(code) tells."
            elif nested:
                fix = " Labels are strings or integers."
        raise DomainError(
            f"{where}: row {index[0]} is {shown}, expected one of the {self.size} categories {known}.{fix}"
        )

    def decode(self, values: Values) -> Values | NDArray[np.object_]:
        """Codes of any shape as they are, or their labels in a numpy object array of that shape.

        Raises:
            DomainError: a code of no label.
        """
        if self.labels is None:
            return values
        table = np.empty(self.size, dtype=object)
        table[:] = self.labels
        codes = as_numbers(values, where="Codes")
        if codes.size and not (codes.min() >= 0 and codes.max() < self.size):  # numpy counts -1 from the end
            worst = codes[first_bad(~((codes >= 0) & (codes < self.size)))].item()
            raise DomainError(f"Codes: {worst!r} is none of the codes 0..{self.size - 1}.")
        return cast(NDArray[np.object_], np.asarray(table[codes], dtype=object))

    def describe(self) -> str:
        """A few words for listings, as in "categorical, 10"."""
        words = f"categorical, {self.size}"
        if self.labels is not None:
            words += ": " + ", ".join(map(str, self.labels[:5])) + (", ..." if self.size > 5 else "")
        return words + (", ordered" if self.ordered else "")


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

    type: Literal["continuous"] = "continuous"
    lower: Bound | None = None
    upper: Bound | None = None
    unit: str = ""
    shape: tuple[Size, ...] = ()

    @overload
    def __init__(
        self,
        /,
        lower: float | None = None,
        upper: float | None = None,
        unit: str = "",
        shape: Sequence[int] = (),
    ) -> None: ...
    @overload
    def __init__(
        self,
        /,
        *,
        lower: float | None = None,
        upper: float | None = None,
        unit: str = "",
        shape: Sequence[int] = (),
        type: Literal["continuous"],
    ) -> None: ...
    @python_only
    def __init__(self, /, *args: object, **data: object) -> None:
        """Declare the bounds, the unit and the shape."""
        super().__init__(**by_name("Continuous", ("lower", "upper", "unit", "shape"), args, data))

    @model_validator(mode="after")
    def _check_bounds(self) -> Continuous:
        if self.lower is not None and self.upper is not None and not self.lower < self.upper:
            raise ValueError(f"lower must be below upper, got lower {self.lower:g} and upper {self.upper:g}")
        return self

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one value: ``shape``."""
        return self.shape

    @property
    def dtype(self) -> str:
        """Canonical dtype: "float64"."""
        return "float64"

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
        if self.lower is None and self.upper is None:
            with np.errstate(over="ignore", invalid="ignore"):
                total = rows.sum()
            if isfinite(total):  # one pass says it all
                return rows
        low, high = rows.min(), rows.max()  # both are NaN if anything is
        if not (isfinite(low) and isfinite(high)):
            self._refuse(rows, ~np.isfinite(rows), "expected finite numbers", where=where)
        if self.lower is not None and low < self.lower:
            self._refuse(rows, rows < self.lower, f"below the lower bound {self.lower:g}", where=where)
        if self.upper is not None and high > self.upper:
            self._refuse(rows, rows > self.upper, f"above the upper bound {self.upper:g}", where=where)
        return rows

    def _refuse(self, rows: Array, bad: Array, why: str, *, where: str) -> None:
        index = first_bad(bad)
        at = f" at {list(index[1:])}" if self.shape else ""
        raise DomainError(
            f"{where}: row {index[0]} is {rows[index].item()!r}{at}, {why} ({self.describe()})."
        )

    def decode(self, values: Values) -> Values:
        """The values as they are."""
        return values

    def describe(self) -> str:
        """A few words for listings, as in "continuous [64, 255] px"."""
        words = ["continuous", "x".join(map(str, self.shape))]
        if self.lower is not None or self.upper is not None:
            low = "(-inf" if self.lower is None else f"[{self.lower:g}"
            high = "inf)" if self.upper is None else f"{self.upper:g}]"
            words.append(f"{low}, {high}")
        return " ".join(word for word in [*words, self.unit] if word)


Variable = Annotated[Categorical | Continuous | Image | Integer, Field(discriminator="type")]
"""Any variable; in a file, told apart by ``type``."""
