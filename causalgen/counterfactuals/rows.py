"""Rows: with B rows of evidence and S samples a tensor has B rows, or S * B, sample-major.

Masks say which rows something holds for: a tensor of either length, or True or False for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite

import numpy as np
import torch
from torch import Tensor

from graphs.errors import DomainError, InterventionError
from mechanisms.rows import repeat_rows

__all__ = [
    "Mask",
    "broadcast_rows",
    "by_sample",
    "common_rows",
    "differs",
    "either",
    "expand_value",
    "refuse_nonfinite",
]

Mask = Tensor | bool
"""Which rows: (n,) bool, or True or False for all."""


def broadcast_rows(value: Tensor, n: int, rows: int) -> Tensor:
    """A tensor of B rows as one of n = S * B rows."""
    return value if value.shape[0] == n else repeat_rows(value, n // rows)


def by_sample(values: Tensor, samples: int, rows: int) -> Tensor:
    """(B, *event), or sample-major (S * B, *event), as (S, B, *event)."""
    return broadcast_rows(values, samples * rows, rows).reshape(samples, rows, *values.shape[1:])


def common_rows(rows: int, counts: Mapping[str, int]) -> int:
    """How many rows a question has, by those of the evidence and of each intervention."""
    asked = max(counts.values(), default=1)
    if asked not in (1, rows) and rows != 1:
        node = next(node for node, count in counts.items() if count == asked)
        raise InterventionError(
            f"Intervention on {node!r} has {asked} rows, but the evidence has {rows}. "
            "Give one value, or one a row."
        )
    return max(asked, rows)


def expand_value(value: Tensor, rows: int) -> Tensor:
    """One row's value, or S draws of it, for each of ``rows`` values in ``do``."""
    return value.expand(rows, *value.shape[1:]) if len(value) == 1 else value.repeat_interleave(rows, 0)


def refuse_nonfinite(node: str, value: Tensor) -> None:
    """Refuse a computed value that is NaN or infinite; a sum, which is all that finite values cost, tells."""
    if not value.is_floating_point() or isfinite(value.sum().item()):
        return
    finite = torch.isfinite(value)
    if bool(finite.all()):  # only the sum overflows
        return
    row = int((~finite).nonzero()[0, 0])
    worst = value[row][~finite[row]].flatten()[0].item()
    count = int((~finite).reshape(len(finite), -1).any(1).sum())
    raise DomainError(
        f"Node {node!r}: its value in row {row} comes out as {worst} ({count} of {len(value)} rows do), "
        "expected finite numbers. Check the values that it is computed from, and its mechanism."
    )


def differs(value: Tensor, before: Tensor) -> Mask:
    """Which rows differ, (n,); True or False where all or none do."""
    if value.shape[0] == 1:
        return not torch.equal(value, before)
    if value.is_cpu and before.is_cpu:  # numpy compares and counts several times faster than torch
        unequal = value.numpy() != before.numpy()
        unequal = unequal if unequal.ndim == 1 else unequal.reshape(len(unequal), -1).any(1)
        found = int(np.count_nonzero(unequal))
        return torch.from_numpy(unequal) if 0 < found < len(unequal) else found > 0
    different = (value != before).flatten(1).any(1) if value.ndim > 1 else value != before
    found = int(different.count_nonzero())
    return different if 0 < found < len(different) else found > 0


def either(masks: Iterable[Mask]) -> Mask:
    """Rows in which any mask holds."""
    found: Mask = False
    for mask in masks:
        if mask is True or found is True:
            return True
        if mask is not False:
            assert isinstance(mask, Tensor)
            if isinstance(found, Tensor):
                n = max(len(found), len(mask))
                mask = repeat_rows(found, n // len(found)) | repeat_rows(mask, n // len(mask))
            found = mask
    return found
