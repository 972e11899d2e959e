"""What is said about rows that lack a value."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from graphs.errors import DataError

__all__ = ["refuse_gaps"]

_SHOWN = 5


def refuse_gaps(
    gaps: Mapping[str, NDArray[np.bool_]], names: Mapping[str, str], told: str, *, allowed: bool
) -> None:
    """Refuse rows that lack a value, unless they are allowed.

    Args:
        gaps: which rows, (N,) bool, by node.
        names: of the columns, by node.
        told: what the columns are of, as in " of train.csv".
        allowed: whether to let them pass.

    Raises:
        DataError: how many rows lack a value, in which columns, where first, and what to do about it.
    """
    found = {node: mask for node, mask in gaps.items() if mask.any()}
    if allowed or not found:
        return
    empty = next((node for node, mask in found.items() if mask.all()), None)
    if empty is not None:
        raise DataError(
            f"Column {names[empty]!r}{told}: none of the {len(found[empty]):,} rows has a value. "
            "Give it values, or leave the node out."
        )
    lacking = np.logical_or.reduce(list(found.values()))
    each = [
        f"column {names[node]!r} in {int(mask.sum()):,} (first in row {int(mask.argmax())})"
        for node, mask in found.items()
    ]
    more = f", and {len(each) - _SHOWN} more columns" if len(each) > _SHOWN else ""
    raise DataError(
        f"Values are missing in {int(lacking.sum()):,} of the {len(lacking):,} rows{told}: "
        f"{', '.join(each[:_SHOWN])}{more}; expected a value in every row. "
        "Fill them, drop those rows, or fit with missing='drop' (--missing drop), which leaves out, for each "
        "node, the rows that lack it or one of its parents."
    )
