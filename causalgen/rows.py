"""Rows: with B rows of evidence and S samples a tensor has B rows, or S * B, sample-major.

Masks say which rows something holds for: a tensor of either length, or True or False for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

__all__ = ["Mask", "differs", "either", "level_rows", "repeat_rows"]

Mask = Tensor | bool
"""Which rows: (n,) bool, or True or False for all."""


def repeat_rows(value: Tensor, times: int) -> Tensor:
    """All rows ``times`` times over, sample-major."""
    return value if times == 1 else value.repeat(times, *[1] * (value.ndim - 1))


def level_rows(value: Tensor, n: int, rows: int) -> Tensor:
    """A tensor of B rows as one of n = S * B rows."""
    return value if value.shape[0] == n else repeat_rows(value, n // rows)


def differs(value: Tensor, before: Tensor) -> Mask:
    """Which rows differ, (n,); True or False where all or none do."""
    different = _unequal(value, before)
    if different.ndim > 1:
        different = different.flatten(1).any(1)
    # numpy counts and compares several times faster than torch.
    found = int(np.count_nonzero(different.numpy()) if different.is_cpu else different.count_nonzero())
    return different if 0 < found < len(different) else found > 0


def either(masks: Iterable[Mask]) -> Mask:
    """Rows in which any mask holds."""
    found: Mask = False
    for mask in masks:
        if mask is True or found is True:
            return True
        if mask is not False:
            found = mask if found is False else _or(found, mask)
    return found


def _or(a: Mask, b: Mask) -> Tensor:
    assert isinstance(a, Tensor) and isinstance(b, Tensor)
    n = max(len(a), len(b))
    return repeat_rows(a, n // len(a)) | repeat_rows(b, n // len(b))


def _unequal(value: Tensor, before: Tensor) -> Tensor:
    if value.is_cpu and before.is_cpu:
        return torch.from_numpy(np.asarray(value.numpy() != before.numpy()))
    return value != before
