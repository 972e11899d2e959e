"""The variable whose values are categories, and which values mean which label, wherever they come from.

Python, data frames, CSV, Parquet, JSON and the command line agree: a value means a label if it equals it,
or if both are written alike:

    value            label
    "a"              "a"
    1, 1.0, "1.0"    "1" or 1       (a column of whole numbers with gaps holds floats; not those, 2.0**53
                                    or more in float64, that may have been another whole number)
    0.5              "0.5"
    True             "True" or "true", else 1

Nothing else does: a number is never the code of a label, nor a truth value the code of one of two. A value
that is written as two labels, as 1.0 with labels "1" and "1.0", is none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import cached_property
from math import inf, isfinite
from numbers import Real
from typing import Annotated, Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from graphs.errors import DomainError, did_you_mean
from graphs.limits import CATEGORIES, LABELS
from graphs.text import check_text
from graphs.variables.arrays import Array, as_array, as_numbers, as_rows, first_bad
from graphs.variables.base import Values, VariableBase, by_position

__all__ = ["Categorical", "Labels"]


_FLOAT = np.dtype(np.float64)

# The validator below says the same in plainer words; the schema of a file has it from here.
_Number = Annotated[int, Field(ge=1, le=CATEGORIES)]
_Listed = Annotated[tuple[str | int, ...], Field(min_length=1, max_length=LABELS)]


class Categorical(VariableBase):
    """One of K categories: numbered 0..K-1, or labelled.

    Values of labelled ones are labels, never codes (``Labels``); ``decode`` turns codes
    into labels.

    >>> Categorical(10).encode([3, 9], where="Evidence 'digit'")
    array([3, 9])
    >>> Categorical(["cat", "dog"]).encode("dog", where="Evidence 'animal'")
    array([1])

    Attributes:
        categories: K, at least 1, or the K labels: distinct strings or integers.
        ordered: whether the order of the categories means something.
    """

    event_shape: ClassVar[tuple[int, ...]] = ()
    dtype: ClassVar[str] = "int64"

    type: Literal["categorical"] = "categorical"
    categories: _Number | _Listed
    ordered: bool = False

    @by_position
    def __init__(
        self,
        /,
        categories: int | Sequence[str | int],
        ordered: bool = False,
        *,
        type: Literal["categorical"] = "categorical",
    ) -> None: ...

    @field_validator("categories", mode="before")
    @classmethod
    def _check_categories(cls, value: object) -> object:
        if hasattr(value, "tolist"):  # of numpy or pandas
            value = cast(Any, value).tolist()
        if isinstance(value, (list, tuple)):
            items = cast(Sequence[object], value)
            labels = tuple(item.item() if isinstance(item, np.integer) else item for item in items)
            if not labels:
                raise ValueError("expected at least one category, got an empty list")
            if len(labels) > LABELS:
                raise ValueError(f"{len(labels):,} labels, at most {LABELS:,} are allowed")
            for label in labels:
                if isinstance(label, bool) or not isinstance(label, (str, int)):
                    raise ValueError(
                        f"labels are strings or integers, got {label!r}; a text that reads otherwise, "
                        'such as "True" or "1e5", is quoted'
                    )
                if isinstance(label, str):
                    check_text(label, "label")
            texts = Counter(map(str, labels))
            if len(texts) < len(labels):
                twice = next(text for text, count in texts.items() if count > 1)
                alike = [label for label in labels if str(label) == twice]
                if len(set(alike)) == 1:
                    raise ValueError(f"the label {alike[0]!r} appears twice")
                raise ValueError(
                    f"the labels {alike[0]!r} and {alike[1]!r} are written alike, so that a table could not "
                    "tell them apart"
                )
            return labels
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(
                f"expected a number of categories of at least 1, or a list of labels, got {value!r}"
            )
        if value > CATEGORIES:
            raise ValueError(f"{value} categories, at most {CATEGORIES:,} are allowed")
        return value

    @property
    def size(self) -> int:
        """K, the number of categories."""
        return self.categories if isinstance(self.categories, int) else len(self.categories)

    @cached_property
    def labels(self) -> tuple[str | int, ...] | None:
        """The labels in order of their codes, or None where the categories are only numbered."""
        return None if isinstance(self.categories, int) else self.categories

    @property
    def misread(self) -> str:
        """Why an expression, which has codes for categories, would be misread: a label is another number."""
        for code, label in enumerate(self.labels or ()):
            try:
                other = float(label) != code
            except ValueError:  # no number
                continue
            if other:
                return f"and that of {label!r} is {code} ({self.describe()})."
        return ""

    @cached_property
    def _labels(self) -> Labels:
        return Labels(self.labels or ())

    def encode(self, value: object, *, where: str) -> NDArray[np.int64]:
        """Codes of ``value``: (B,) int64 in 0..K-1; a scalar is one row.

        Labelled categories are given by label (``Labels``), numbered ones by number; whole
        floats and booleans count as numbers.

        Raises:
            ShapeError: not a scalar or (B,).
            DomainError: an unknown category or label, NaN, or values that are not categories at all.
        """
        if self.labels is not None:
            array = as_array(value, where=where, objects=True)
            rows = as_rows(array, (), where=where)
            codes = self._labels.codes(rows)
            if (codes < 0).any():
                self._refuse(rows, codes < 0, where=where)
            return codes
        rows = as_rows(as_numbers(value, where=where), (), where=where)
        # NaN makes every comparison false, so one test covers it.
        if rows.size and not (rows.min() >= 0 and rows.max() < self.size):
            self._refuse(rows, ~((rows >= 0) & (rows < self.size)), where=where)
        codes = rows.astype(np.int64)
        if rows.dtype.kind == "f" and (codes != rows).any():
            self._refuse(rows, codes != rows, where=where)
        return codes

    def _refuse(self, rows: Array, bad: Array, *, where: str) -> None:
        index = first_bad(bad)
        item: object = rows[index]
        nested = isinstance(item, (list, tuple, dict))
        shown = repr(item) if isinstance(item, str) else str(item)
        known, fix = f"0..{self.size - 1}", ""
        if self.labels is not None:
            known = ", ".join(map(repr, self.labels[:20])) + (", ..." if self.size > 20 else "")
            if isinstance(item, (bool, np.bool_)):
                fix = (
                    " Give the labels; where they are True and False themselves, declare 'True' and 'False'."
                )
            elif _may_be_another(item, rows.dtype):
                fix = " Floats do not tell such whole numbers apart: give whole numbers, or texts."
            elif isinstance(item, Real) and item == item:
                fix = " A number is no code here: give the label, which variable.decode(code) tells."
            elif nested:
                fix = " Labels are strings or integers."
            elif isinstance(item, str):
                fix = did_you_mean(item, self.labels)
            elif shown in map(str, self.labels):  # such as pandas' intervals, and dates
                fix = f" It is of type {type(item).__name__}, and only looks so: give texts, as str(value)."
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

    def encode_clipped(self, value: object, *, where: str) -> NDArray[np.int64]:
        """As ``encode``: a category has no neighbour that an unknown one could be moved to."""
        return self.encode(value, where=where)


class Labels:
    """Labels in order of their codes, no two of them written alike."""

    def __init__(self, labels: Sequence[str | int]) -> None:
        self._texts = {str(label): code for code, label in enumerate(labels)}
        self._wholes = {label: code for code, label in enumerate(labels) if isinstance(label, int)}

    def codes(self, rows: NDArray[Any]) -> NDArray[np.int64]:
        """The code of each value, (B,); -1 for what is no label."""
        if rows.dtype.kind in "biuf":  # a column of numbers repeats few of them
            distinct, inverse = np.unique(rows, return_inverse=True)
            found = self._each(cast(list[object], distinct.tolist()))
            if rows.dtype.kind == "f":
                found[[_may_be_another(each, rows.dtype) for each in distinct.tolist()]] = -1
            return found[inverse.reshape(rows.shape)]
        return self._each(cast(list[object], rows.tolist()))

    def _each(self, items: list[object]) -> NDArray[np.int64]:
        texts = self._texts
        found = (texts[item] if type(item) is str and item in texts else self._code(item) for item in items)
        return np.fromiter(found, np.int64, len(items))

    def _code(self, item: object) -> int:
        if isinstance(item, np.generic):
            known = cast("np.generic[Any]", item)
            if _may_be_another(known, known.dtype):
                return -1
            item = cast(object, known.item())
        if isinstance(item, str) and item in self._texts:
            return self._texts[item]
        found = {self._texts[text] for text in _writings(item) if text in self._texts}
        if isinstance(item, bool) and not found:
            found = {self._wholes[int(item)]} if int(item) in self._wholes else found
        return found.pop() if len(found) == 1 else -1


def _may_be_another(item: object, dtype: np.dtype[Any] = _FLOAT) -> bool:
    """Whether a float is so large that it may stand for several whole numbers."""
    if not isinstance(item, (float, np.floating)):
        return False
    digits = np.finfo(dtype if dtype.kind == "f" else _FLOAT).nmant + 1
    return 2.0**digits <= abs(float(cast(float, item))) < inf


def _writings(item: object) -> Iterator[str]:
    """The texts that a value may be written as."""
    if isinstance(item, str):
        if _is_whole_float(item):
            yield str(int(item[:-2]))
    elif isinstance(item, bool):
        yield from (str(item), str(item).lower())
    elif isinstance(item, int):
        yield str(item)
    elif isinstance(item, (float, Decimal)) and isfinite(item) and not _may_be_another(item):
        yield str(item)
        if item == int(item):
            yield str(int(item))


def _is_whole_float(text: str) -> bool:
    """Whether a text is a whole number as floats are written, such as "2.0"."""
    digits = text[:-2].removeprefix("-")
    return (
        text.endswith(".0") and digits.isascii() and digits.isdigit() and (digits == "0" or digits[0] != "0")
    )
