"""Which values mean which label: the same from Python, data frames, CSV, Parquet, JSON and the command line.

A value means a label if it equals it, or if both are written alike:

    value            label
    "a"              "a"
    1, 1.0, "1.0"    "1" or 1       (a column of whole numbers with gaps holds floats)
    0.5              "0.5"
    True             "True" or "true", else 1

Nothing else does: a number is never the code of a label, nor a truth value the code of one of two. A value
that is written as two labels, as 1.0 with labels "1" and "1.0", is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from math import isfinite
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["Labels"]


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
            return found[inverse.reshape(rows.shape)]
        return self._each(cast(list[object], rows.tolist()))

    def _each(self, items: list[object]) -> NDArray[np.int64]:
        texts = self._texts
        found = (texts[item] if type(item) is str and item in texts else self._code(item) for item in items)
        return np.fromiter(found, np.int64, len(items))

    def _code(self, item: object) -> int:
        if isinstance(item, np.generic):
            item = cast(object, item.item())
        if isinstance(item, str) and item in self._texts:
            return self._texts[item]
        found = {self._texts[text] for text in _writings(item) if text in self._texts}
        if isinstance(item, bool) and not found:
            found = {self._wholes[int(item)]} if int(item) in self._wholes else found
        return found.pop() if len(found) == 1 else -1


def _writings(item: object) -> Iterator[str]:
    """The texts that a value may be written as."""
    if isinstance(item, str):
        if _is_whole_float(item):
            yield str(int(item[:-2]))
    elif isinstance(item, bool):
        yield from (str(item), str(item).lower())
    elif isinstance(item, int):
        yield str(item)
    elif isinstance(item, (float, Decimal)) and isfinite(item):
        yield str(item)
        if item == int(item):
            yield str(int(item))


def _is_whole_float(text: str) -> bool:
    """Whether a text is a whole number as floats are written, such as "2.0"."""
    digits = text[:-2].removeprefix("-")
    return (
        text.endswith(".0") and digits.isascii() and digits.isdigit() and (digits == "0" or digits[0] != "0")
    )
