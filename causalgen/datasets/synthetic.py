"""Synthetic data for examples and tests, without files: the same rows for the same seed.

measurements   x := u_x,  y := 2 x + 1 + u_y               two numbers, the true counterfactual known
bars           kind -> picture                              a bright bar, upright or lying, in 8 x 8 pixels
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["bars", "measurements"]


def measurements(rows: int, *, seed: int = 0) -> dict[str, NDArray[Any]]:
    """``x`` ~ N(0, 1) and ``y`` = 2 x + 1 + N(0, 0.5^2), each (rows,)."""
    random = np.random.default_rng(seed)
    x = random.normal(size=rows)
    return {"x": x, "y": 2 * x + 1 + random.normal(0, 0.5, rows)}


def bars(rows: int, *, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Pictures of a bar: ``kind``, ``brightness`` and ``picture``.

    ``kind`` (rows,) is 0 upright or 1 lying, ``brightness`` (rows,) in (0, 1), ``picture`` (rows, 8, 8)
    uint8. The bar lies in row, or stands in column, 1 to 6 of its picture and is 255 * brightness bright.
    """
    random = np.random.default_rng(seed)
    kind, place = random.integers(0, 2, rows), random.integers(1, 7, rows)
    brightness = random.uniform(0.3, 1, rows)
    picture = np.zeros((rows, 8, 8))
    picture[np.arange(rows), :, place] = 255 * brightness[:, None]
    picture = np.where(kind[:, None, None] == 1, picture.swapaxes(1, 2), picture)
    return {"kind": kind, "brightness": brightness, "picture": picture.round().astype(np.uint8)}
