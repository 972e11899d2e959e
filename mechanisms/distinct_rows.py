"""Which rows are equal: work on each distinct row is done once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["distinct_rows", "rank_among_equals"]


def distinct_rows(columns: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The first row of each distinct one, (U,), and for every row which of those it equals, (N,).

    Args:
        columns: at least one tensor (N, ...); rows are equal where all columns are.
    """
    rows = torch.cat([column.reshape(len(column), -1).double() for column in columns], 1)
    _, inverse = torch.unique(rows, dim=0, return_inverse=True)
    numbers = torch.arange(len(rows), device=rows.device)
    first = numbers.new_full((int(inverse.max()) + 1,), len(rows)).scatter_reduce(0, inverse, numbers, "amin")
    return first, inverse


def rank_among_equals(inverse: Tensor) -> Tensor:
    """How many earlier rows equal each one, (N,); ``inverse`` is that of ``distinct_rows``."""
    order = inverse.argsort(stable=True)
    counts = inverse.bincount()
    starts = counts.cumsum(0) - counts
    numbers = torch.arange(len(inverse), device=inverse.device)
    return torch.empty_like(inverse).index_copy(0, order, numbers - starts[inverse[order]])
