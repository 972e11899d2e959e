"""Figures of merit: effectiveness with its interval, distance in grey levels, measured correlations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalgen.metrics import size, slant, thickness

from .judge import Judge
from .rows import Rows

__all__ = ["Pixels", "correlations", "grey_levels", "merits", "target", "wilson"]

Pixels = NDArray[np.float64]

_MEASURES = {"thickness": thickness, "slant": slant, "size": size}


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    z = 1.959964
    share, spread = successes / n, z**2 / n
    centre = share + spread / 2
    half = z * np.sqrt(share * (1 - share) / n + spread / (4 * n))
    # Rounding leaves -1e-17 of a share of 0.
    return max(0.0, float((centre - half) / (1 + spread))), min(1.0, float((centre + half) / (1 + spread)))


def grey_levels(images: Pixels, others: Pixels) -> float:
    """Mean absolute difference of images in [0, 1], on the scale 0..255."""
    return 255 * float(np.abs(images - others).mean())


def correlations(images: Pixels, others: Pixels) -> dict[str, float]:
    """Pearson's correlation of each measure over pairs of images in which it exists."""
    found: dict[str, float] = {}
    for name, measure in _MEASURES.items():
        pair = np.stack([measure(images), measure(others)])
        pair = pair[:, ~np.isnan(pair).any(0)]
        found[f"r {name}"] = float(np.corrcoef(*pair)[0, 1]) if pair.shape[1] > 2 else math.nan
    return found


def merits(images: Pixels, rows: Rows, judge: Judge, *, measured: bool = True) -> dict[str, Any]:
    """Effectiveness of images that stand for ``rows``, L1 to the factual and, where asked, correlations."""
    hits = int((judge.digits(images) == rows.targets).sum())
    figures = {
        "effectiveness": hits / len(rows),
        "interval": list(wilson(hits, len(rows))),
        "L1": grey_levels(images, rows.pixels),
    }
    return figures | (correlations(images, rows.pixels) if measured else {})


def target(
    what: str, value: float, *, least: float | None = None, most: float | None = None
) -> dict[str, Any]:
    """A figure beside the one bound that it is meant to keep."""
    if least is not None:
        return {"what": what, "value": value, "bound": f">= {least:g}", "met": value >= least}
    assert most is not None
    return {"what": what, "value": value, "bound": f"<= {most:g}", "met": value <= most}
