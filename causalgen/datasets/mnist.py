"""MNIST as columns, from its idx files on this machine; nothing is downloaded. ``mnist:DIR`` names it.

An idx file is two zero bytes, the type, the number of axes, their lengths, the bytes; here only unsigned
bytes (type 8), plain or gzipped (LeCun, Cortes & Burges, *The MNIST database*).
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from causalgen.data.sources import DataSource, Split
from graphs.errors import DataError

__all__ = ["MNISTSource", "Split", "file_prefix", "find_idx", "idx_bytes", "mnist", "read_digits", "read_idx"]

_UNSIGNED_BYTES = 8


@final
class MNISTSource(DataSource):
    """``mnist:DIR``."""

    kind: ClassVar[str] = "mnist"
    defaults: ClassVar[Mapping[str, str]] = {"image": "image", "categorical": "digit"}

    def read(self, folder: str, split: Split) -> dict[str, NDArray[Any]]:
        """As ``mnist``."""
        try:
            return mnist(folder, split)
        except DataError as error:
            raise DataError(
                f"No MNIST in {folder!r}: {error} Its files are expected there or in "
                f"{Path(folder) / 'MNIST' / 'raw'}; nothing is downloaded."
            ) from error


def mnist(folder: str | os.PathLike[str], split: Split = "train") -> dict[str, NDArray[Any]]:
    """MNIST (LeCun, Cortes & Burges; CC BY-SA 3.0), as columns that ``scm.fit`` takes.

    Args:
        folder: holds the idx files, plain or gzipped, in itself or in ``MNIST/raw`` (as torchvision keeps
            them).
        split: "train" (60,000 rows) or "test" (10,000).

    Returns:
        ``digit`` (N,) int64 and ``image`` (N, 28, 28) uint8.

    Raises:
        DataError: a file is missing or damaged, or images and labels disagree.
    """
    root = Path(folder)
    raw = root / "MNIST" / "raw"
    return read_digits(raw if raw.is_dir() else root, split)


def read_digits(folder: Path, split: Split) -> dict[str, NDArray[Any]]:
    """Images and labels of MNIST's file names in a folder; arguments and errors as ``mnist``."""
    prefix = file_prefix(split)
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}. Nothing is downloaded here: get the data first.")
    images = read_idx(find_idx(folder, f"{prefix}-images-idx3-ubyte"), axes=3)
    labels = read_idx(find_idx(folder, f"{prefix}-labels-idx1-ubyte"), axes=1)
    if len(images) != len(labels):
        raise DataError(
            f"{folder}: {prefix} has {len(images):,} images but {len(labels):,} labels. "
            "One of the files belongs to another set."
        )
    return {"digit": labels.astype(np.int64), "image": images}


def file_prefix(split: str) -> str:
    """How the names of a split's files begin."""
    prefixes = {"train": "train", "test": "t10k"}
    if split not in prefixes:
        raise DataError(f"Expected the split 'train' or 'test', got {split!r}.")
    return prefixes[split]


def find_idx(folder: Path, name: str) -> Path:
    """The file ``name`` of a folder, or ``name.gz`` where that is not there."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"There is neither {name} nor {name}.gz in {folder}.")


def read_idx(path: Path, axes: int) -> NDArray[np.uint8]:
    """The array of an idx file with so many axes."""
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
