"""Many rows at once: their shapes, the distinct ones (each is computed once), a slab allocator for columns.

What touching fresh memory costs, a page fault every 4 KiB and the clearing of pages, is more than the
arithmetic of a table's node. So columns share slabs of huge pages, and a slab goes back to a pool with the
last of its columns. The operating system may take a slab in the pool away at any time (``MADV_FREE``). A
counterfactual of ten linear nodes takes 1.5 times as long without, at 100,000 rows and at a million.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cache
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphs.errors import MechanismError

__all__ = [
    "by_row",
    "check_finite",
    "column_like",
    "copy_column",
    "distinct_rows",
    "rank_among_equals",
    "repeat_rows",
    "where_rows",
]


def repeat_rows(value: Tensor, times: int) -> Tensor:
    """All rows ``times`` times over, sample-major: row r of sample s is row ``s * N + r``."""
    return value if times == 1 else value.repeat(times, *[1] * (value.ndim - 1))


def by_row(values: Tensor, like: Tensor) -> Tensor:
    """One number a row, (N,), so shaped that it goes with another tensor's rows (N, *event)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def where_rows(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Rows of ``yes`` (N, *event) where mask (N,), of ``no`` elsewhere, as the former's type."""
    return torch.where(by_row(mask, yes), yes, no.to(yes))


def distinct_rows(columns: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The first row of each distinct one, (U,), and for every row which of those it equals, (N,).

    Rows are equal where all columns are, at least one tensor (N, ...).
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


def check_finite(made: Tensor, what: str, parents: Mapping[str, Tensor]) -> None:
    """Refuse to answer with NaN or infinite numbers.

    Raises:
        MechanismError: names the first such row and its parents of one number.
    """
    if bool(made.isfinite().all()):
        return
    row = int((~made.flatten(1).isfinite().all(1)).nonzero()[0])
    numbers = {name: value[row] for name, value in parents.items() if value.ndim == 1}
    told = ", ".join(f"{name} = {value.item():g}" for name, value in numbers.items()) or "its parents"
    raise MechanismError(
        f"The {what} of row {row} is not finite under {told}: parents far from what fitting saw, or damaged "
        "weights."
    )


_SLAB = 32 << 20
"""Bytes of one slab. What no column touches stays unbacked by memory."""
_SMALL, _LARGE = 64 << 10, 8 << 20
"""Columns below or above this many bytes get memory of their own."""
_ALIGNMENT = 64
_POOL: deque[mmap.mmap] = deque(maxlen=16)


def column_like(like: Tensor, rows: int) -> Tensor:
    """An uninitialised tensor of so many rows, else like another; it has a storage of its own extent."""
    shape = (rows, *like.shape[1:])
    if not like.is_cpu or not _SMALL <= like.element_size() * prod(shape) <= _LARGE:
        return like.new_empty(shape)
    return torch.from_numpy(_piece(shape, _numpy_dtype(like.dtype)))


def copy_column(source: NDArray[Any]) -> Tensor:
    """A contiguous copy of an array."""
    if not _SMALL <= source.nbytes <= _LARGE:
        return torch.from_numpy(source.copy())
    column = _piece(source.shape, source.dtype)
    np.copyto(column, source)
    return torch.from_numpy(column)


class _Slab:
    """Owns a slab while any array or tensor looks into it."""

    def __init__(self) -> None:
        try:  # asked beforehand, another thread might come between
            self.memory = _POOL.pop()
        except IndexError:
            self.memory = _new_memory()
        self.used = 0
        self.__array_interface__ = np.frombuffer(self.memory, np.uint8).__array_interface__

    def __del__(self) -> None:
        if hasattr(mmap, "MADV_FREE"):
            self.memory.madvise(mmap.MADV_FREE)
            _POOL.append(self.memory)


class _Filling(threading.local):
    """The slab that this thread fills: no longer there once all of its columns are gone."""

    def __init__(self) -> None:
        self.slab: weakref.ref[_Slab] | None = None


_FILLING = _Filling()


def _piece(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Uninitialised."""
    size = dtype.itemsize * prod(shape)
    slab = None if _FILLING.slab is None else _FILLING.slab()
    if slab is None or slab.used + size > _SLAB:
        slab = _Slab()
        _FILLING.slab = weakref.ref(slab)
    piece = np.asarray(slab)[slab.used : slab.used + size]
    slab.used += -(-size // _ALIGNMENT) * _ALIGNMENT
    return piece.view(dtype).reshape(shape)


def _new_memory() -> mmap.mmap:
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    memory = mmap.mmap(-1, _SLAB, **private)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


@cache
def _numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    return torch.empty(0, dtype=dtype).numpy().dtype
