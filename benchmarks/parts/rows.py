"""The rows that are evaluated: the first MNIST test images, each with one random other digit.

The guidance model is fitted on the 60,000 training images, the judge on test rows 1000 to 9999: rows 0 to 999
are new to both. The other digits come from a fixed seed and do not depend on how many rows are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from causalgen.datasets.mnist import mnist

__all__ = ["EVALUATED", "Rows", "evaluated_rows", "mnist_arrays"]

EVALUATED = 1000
"""Test rows 0 to 999 are for evaluation."""

_SEED = 2022


@dataclass(frozen=True)
class Rows:
    """Images with their digits, and the digits asked for.

    Attributes:
        images: (N, 28, 28) uint8.
        digits: (N,) int64.
        targets: (N,) int64, each another digit than its own.
    """

    images: NDArray[np.uint8]
    digits: NDArray[np.int64]
    targets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, index: slice) -> Rows:
        return Rows(self.images[index], self.digits[index], self.targets[index])

    @property
    def evidence(self) -> dict[str, NDArray[np.generic]]:
        """What the model is told."""
        return {"digit": self.digits, "image": self.images}

    @property
    def pixels(self) -> NDArray[np.float64]:
        """The images in [0, 1], (N, 28, 28)."""
        return self.images / 255.0


def mnist_arrays(folder: str, part: Literal["train", "test"]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 28, 28) and digits (N,) of the "train" or "test" part, from torchvision's layout.

    Raises:
        DataError: the files are not there; nothing is downloaded.
    """
    columns = mnist(folder, part)
    return columns["image"], columns["digit"]


def evaluated_rows(folder: str, count: int = EVALUATED) -> Rows:
    """The first ``count`` test images, each with a random other digit."""
    if not 1 <= count <= EVALUATED:
        raise SystemExit(
            f"--rows lies in 1..{EVALUATED}: the judge was trained on the other test rows; got {count}"
        )
    images, digits = mnist_arrays(folder, "test")
    shifts = np.random.default_rng(_SEED).integers(1, 10, size=EVALUATED)
    targets = (digits[:EVALUATED] + shifts) % 10
    return Rows(images[:count], digits[:count], targets[:count])
