"""MNIST as columns, from its idx files on this machine; nothing is downloaded. ``mnist:DIR`` names it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from causalgen.data.sources import DataSource, Split
from causalgen.datasets.idx import find_idx, read_idx
from graphs.errors import DataError

__all__ = ["MNISTSource", "Split", "file_prefix", "mnist", "read_digits"]


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
    """How the names of a split's files begin.

    Raises:
        DataError: no such split.
    """
    prefixes = {"train": "train", "test": "t10k"}
    if split not in prefixes:
        raise DataError(f"Expected the split 'train' or 'test', got {split!r}.")
    return prefixes[split]
