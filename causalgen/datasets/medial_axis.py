"""Distance transform and medial axis of binary images, exact and for a whole batch at once.

    D(p) = min over background q of |p - q|        squared, one axis after the other (Felzenszwalb &
                                                   Huttenlocher 2012: the transform is separable)
    medial axis: take foreground pixels away in order of D, corners last, unless one is the end of an arm or
    holds its neighbours together (ordered thinning; the algorithm of scikit-image's ``medial_axis``)

Whether taking a pixel away keeps its neighbours together depends on those eight alone: they form one
8-connected piece exactly when Yokoi's number (1973) is at most 1. So pixels that are no neighbours do not
wait for each other: all whose turn comes before that of their neighbours are decided together, in all images.
What lies outside the image is background.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["distances_along", "medial_axis", "squared_distances"]

Mask = NDArray[np.bool_]
Offsets = NDArray[np.int64]

_AT_ONCE = 250_000
"""Pixels whose distances are found at once."""

_DONE = np.iinfo(np.int64).max

_BORDER = np.array([[0, 0], [1, 1], [1, 1]])
"""A pixel of background around each image of a batch."""

# The eight neighbours in a ring from the right, as (down, right); those at even places share an edge.
_RING = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


def squared_distances(masks: Mask, *, bordered: bool = True) -> NDArray[np.int32]:
    """Squared distance (N, H, W) of foreground pixels to the nearest of the background; 0 in it.

    Masks (N, H, W) are True in the foreground. With ``bordered`` what lies outside the image is background;
    else only the image's own pixels count, and without any the distances are at least H + W.
    """
    few = max(1, _AT_ONCE // max(1, masks[0].size)) if len(masks) else 1
    edge = 1 if bordered else 0
    out = np.zeros(masks.shape, np.int32)
    for start in range(0, len(masks), few):
        padded = np.pad(masks[start : start + few], _BORDER * edge)
        _, height, width = padded.shape
        across, along = distances_along(padded, 2), distances_along(padded, 1)
        best, across, offset = np.minimum(across, along) ** 2, across**2, 1
        # A row further off than the largest distance left, or than the image is high, improves nothing.
        while offset**2 < best.max(initial=0) and offset < height:
            other = across + offset**2
            np.minimum(best[:, offset:], other[:, :-offset], out=best[:, offset:])
            np.minimum(best[:, :-offset], other[:, offset:], out=best[:, :-offset])
            offset += 1
        out[start : start + few] = best[:, edge : height - edge, edge : width - edge]
    return out


def distances_along(masks: Mask, axis: int) -> NDArray[np.int32]:
    """Distance of each pixel to the background along axis 1 or 2, (N, H, W); H + W where there is none."""
    place = np.indices(masks.shape, np.int32, sparse=True)[axis]
    far = sum(masks.shape[1:])
    before = np.maximum.accumulate(np.where(masks, -2 * far, place), axis)
    after = np.flip(np.minimum.accumulate(np.flip(np.where(masks, 2 * far, place), axis), axis), axis)
    return np.minimum(np.minimum(place - before, after - place), far)


def medial_axis(
    masks: Mask, squared: NDArray[np.int32], *, ties: Callable[[int], NDArray[np.integer]] | None = None
) -> Mask:
    """The skeleton of masks (N, H, W): one pixel wide, connected as the foreground is, and centred in it.

    ``ties`` gives, for an image of k foreground pixels, the place of each, row after row, among equals of
    ``squared`` distance: a permutation of k; by default one fixed arbitrary order of the places in an image.
    """
    padded = np.pad(masks, _BORDER)
    area, width = padded[0].size if len(padded) else 1, padded.shape[2]
    ring = np.array([row * width + column for row, column in _RING])
    lit = padded.reshape(-1).astype(np.uint8)
    pixels = np.flatnonzero(lit)
    corner = np.full(len(pixels), 8)
    for step in ring:
        corner -= lit[pixels + step]
    if ties is None:
        # The same for every image, so that its skeleton does not depend on its batch.
        among = np.random.default_rng(0).permutation(area)[pixels % area]
    else:
        among = np.concatenate([ties(int(count)) for count in masks.sum((1, 2))] or [pixels])
    distance = squared[masks]
    turn = np.full(lit.shape, _DONE)
    turn[pixels] = (distance * np.int64(9) + corner) * area + among
    by_distance = np.argsort(distance, kind="stable")
    groups = np.split(pixels[by_distance], np.flatnonzero(np.diff(distance[by_distance])) + 1)
    for waiting in groups:
        _thin(lit, turn, waiting, ring)
    return lit.reshape(padded.shape)[:, 1:-1, 1:-1].astype(bool)


def _thin(lit: NDArray[np.uint8], turn: NDArray[np.int64], waiting: NDArray[np.int64], ring: Offsets) -> None:
    """Decide on the pixels ``waiting``, in place: those at once whose turn comes before their neighbours'."""
    kept = _kept()
    while waiting.size:
        first = turn[waiting] < turn[waiting[:, None] + ring].min(1)
        now, waiting = waiting[first], waiting[~first]
        around = np.packbits(lit[now[:, None] + ring], axis=1, bitorder="little")[:, 0]
        lit[now] = kept[around]
        turn[now] = _DONE


@cache
def _kept() -> NDArray[np.uint8]:
    """For each of the 256 neighbourhoods, whether thinning keeps the pixel in its middle."""
    neighbours = (np.arange(256)[:, None] >> np.arange(8)) & 1
    empty = 1 - neighbours
    after, beyond = np.roll(empty, -1, 1), np.roll(empty, -2, 1)
    pieces = (empty - empty * after * beyond)[:, ::2].sum(1)
    return ((pieces > 1) | (neighbours.sum(1) < 2)).astype(np.uint8)
