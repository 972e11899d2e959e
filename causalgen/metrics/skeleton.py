"""Distance transform and medial axis of binary images, exact and for a whole batch at once.

    D(p) = min over background q of |p - q|        squared, one axis after the other (Felzenszwalb &
                                                   Huttenlocher 2012: the transform is separable)
    medial axis: take foreground pixels away in order of D, corners last, unless one is the end of an arm or
    holds its neighbours together (ordered thinning; the algorithm of scikit-image's ``medial_axis``)

Whether taking a pixel away keeps its neighbours together depends on those eight alone: they form one
8-connected piece exactly when Yokoi's number (1973) is at most 1. The thinning is sequential within an image,
so its k-th step is done for all images together. What lies outside the image is background.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["medial_axis", "squared_distances"]

Mask = NDArray[np.bool_]

# The eight neighbours in a ring from the right, as (down, right); those at even places share an edge.
_BORDER = np.array([[0, 0], [1, 1], [1, 1]])
"""A pixel of background around each image of a batch."""

_RING = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


def squared_distances(masks: Mask) -> NDArray[np.int32]:
    """Squared distance of each foreground pixel to the nearest background pixel, 0 in the background.

    Args:
        masks: True in the foreground, (N, H, W).

    Returns:
        (N, H, W), in squared pixels.
    """
    padded = np.pad(masks, _BORDER)
    down = np.arange(padded.shape[1], dtype=np.int32)[None, :, None]
    above = np.maximum.accumulate(np.where(padded, -1, down), 1)
    below = np.minimum.accumulate(np.where(padded, down.size, down)[:, ::-1], 1)[:, ::-1]
    column = np.minimum(down - above, below - down) ** 2
    best, offset = column.copy(), 1
    # A column further off than the largest distance left cannot improve anything.
    while offset**2 < best.max(initial=0):
        left, right = best[:, :, offset:], best[:, :, :-offset]
        np.minimum(left, column[:, :, :-offset] + offset**2, out=left)
        np.minimum(right, column[:, :, offset:] + offset**2, out=right)
        offset += 1
    return best[:, 1:-1, 1:-1]


def medial_axis(masks: Mask, squared: NDArray[np.int32]) -> Mask:
    """The skeleton: one pixel wide, connected as the foreground is, and centred in it.

    Args:
        masks: True in the foreground, (N, H, W).
        squared: of ``squared_distances``.

    Returns:
        True on the skeleton, (N, H, W).
    """
    padded = np.pad(masks, _BORDER)
    area, width = padded[0].size, padded.shape[2]
    ring = np.array([row * width + column for row, column in _RING])
    flat = padded.reshape(-1).astype(np.uint8)
    pixels = np.flatnonzero(flat)
    corner = 8 - flat[pixels[:, None] + ring].sum(1, dtype=np.int64)
    # One fixed arbitrary order among equals, so that an image's skeleton does not depend on its batch.
    arbitrary = np.random.default_rng(0).permutation(area)[pixels % area]
    pixels = pixels[np.lexsort((arbitrary, corner, squared[masks], pixels // area))]
    counts = masks.sum((1, 2))
    # Images with most pixels first: those still busy at step k are then the first few.
    by_count = np.argsort(-counts, kind="stable")
    starts = (np.cumsum(counts) - counts)[by_count]
    busy = np.searchsorted(-counts[by_count], -np.arange(counts.max(initial=0)))
    keep, powers = _kept(), 1 << np.arange(8)
    for step, images in enumerate(busy):
        centre = pixels[starts[:images] + step]
        flat[centre] = keep[flat[centre[:, None] + ring] @ powers]
    return flat.reshape(padded.shape)[:, 1:-1, 1:-1].astype(bool)


@cache
def _kept() -> NDArray[np.uint8]:
    """For each of the 256 neighbourhoods, whether thinning keeps the pixel in its middle."""
    neighbours = (np.arange(256)[:, None] >> np.arange(8)) & 1
    empty = 1 - neighbours
    after, beyond = np.roll(empty, -1, 1), np.roll(empty, -2, 1)
    pieces = (empty - empty * after * beyond)[:, ::2].sum(1)
    return ((pieces > 1) | (neighbours.sum(1) < 2)).astype(np.uint8)
