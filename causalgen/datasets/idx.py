"""MNIST's own file format, idx: two zero bytes, the type, the number of axes, their lengths, the bytes.

Only unsigned bytes (type 8), plain or gzipped (LeCun, Cortes & Burges, *The MNIST database*).
"""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graphs.errors import DataError

__all__ = ["find_idx", "idx_bytes", "read_idx"]

_UNSIGNED_BYTES = 8


def find_idx(folder: Path, name: str) -> Path:
    """The file ``name`` of a folder, or ``name.gz`` where that is not there.

    Raises:
        DataError: neither is.
    """
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"There is neither {name} nor {name}.gz in {folder}.")


def read_idx(path: Path, axes: int) -> NDArray[np.uint8]:
    """The array of an idx file with so many axes.

    Raises:
        DataError: the file cannot be read, or is no such array.
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"Cannot read {path}: {error}.") from error
    head = 4 + 4 * axes
    if len(data) < head or data[:4] != bytes([0, 0, _UNSIGNED_BYTES, axes]):
        raise DataError(f"{path} is no idx file of unsigned bytes with {axes} axes: it begins {data[:4]!r}.")
    shape = tuple(int.from_bytes(data[at : at + 4]) for at in range(4, head, 4))
    if len(data) - head != prod(shape):
        raise DataError(
            f"{path} says its array has shape {shape}, {prod(shape):,} bytes, but {len(data) - head:,} "
            "follow. It is cut short or damaged: get it again."
        )
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """An array as a gzipped idx file, the same bytes for the same array."""
    head = bytes([0, 0, _UNSIGNED_BYTES, array.ndim]) + b"".join(n.to_bytes(4) for n in array.shape)
    return gzip.compress(head + array.tobytes(), compresslevel=6, mtime=0)
