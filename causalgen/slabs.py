"""Memory for the columns of one answer, many columns a slab, and slabs used again.

What touching fresh memory costs, a page fault every 4 KiB and the clearing of pages, is more than the
arithmetic of a table's node. So columns share slabs of huge pages, and a slab goes back to a pool with the
last of its columns. The operating system may take a slab in the pool away at any time (``MADV_FREE``).
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Slabs"]

_SLAB = 32 << 20
"""Bytes of one slab. What no column touches stays unbacked by memory."""
_SMALL, _LARGE = 64 << 10, 8 << 20
"""Columns below or above this many bytes get memory of their own."""
_ALIGNMENT = 64
_POOL: deque[mmap.mmap] = deque(maxlen=16)


class Slabs:
    """Hands out fresh tensors on the CPU, each with a storage of its own extent."""

    def __init__(self) -> None:
        self._slab = np.empty(0, np.uint8)
        self._used = 0

    def copy(self, source: NDArray[Any]) -> Tensor:
        """A contiguous copy of an array."""
        column = self._array(source.shape, source.dtype)
        np.copyto(column, source)
        return torch.from_numpy(column)

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Rows of several tensors, one after the other; a single one is returned as it is."""
        if len(parts) == 1:
            return parts[0]
        if not parts[0].is_cpu:
            return torch.cat(list(parts))
        shape = (sum(map(len, parts)), *parts[0].shape[1:])
        column = torch.from_numpy(self._array(shape, parts[0][:0].numpy().dtype))
        return torch.cat(list(parts), out=column)

    def _array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Uninitialised."""
        size = dtype.itemsize * prod(shape)
        if not _SMALL <= size <= _LARGE:
            return np.empty(shape, dtype)
        if self._used + size > len(self._slab):
            self._slab, self._used = np.asarray(_Slab()), 0
        piece = self._slab[self._used : self._used + size]
        self._used += -(-size // _ALIGNMENT) * _ALIGNMENT
        return piece.view(dtype).reshape(shape)


class _Slab:
    """Owns a slab while any array or tensor looks into it."""

    def __init__(self) -> None:
        self.memory = _POOL.pop() if _POOL else _new_memory()
        self.__array_interface__ = np.frombuffer(self.memory, np.uint8).__array_interface__

    def __del__(self) -> None:
        if hasattr(mmap, "MADV_FREE"):
            self.memory.madvise(mmap.MADV_FREE)
            _POOL.append(self.memory)


def _new_memory() -> mmap.mmap:
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    memory = mmap.mmap(-1, _SLAB, **private)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
