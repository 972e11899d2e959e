"""The Morpho-MNIST generator: a digit redrawn at a stroke thickness and an intensity.

    enlarge 16 times, cut at half the range   ->  strokes
    r = int(16 |thickness - their thickness| / 2);  dilate, or erode, by a disk of radius r  ->  strokes
    shrink 16 times;  multiply so that the median of the bright half is ``intensity``;  clip to 0..255

Setting the thickness is of Castro, Tan, Kainz, Konukoglu & Glocker 2019 (*Morpho-MNIST*, JMLR 20), the
brightness of Pawlowski, Castro & Glocker 2020 (*Deep structural causal models*). The published images were
made by their code on a scikit-image of its day, whose choices are kept: bicubic interpolation (Keys 1981, a =
-1/2), Gaussians of sigma 16 / 3 cut at 4 sigma, truncation to whole numbers after every step, ties of the
medial axis in the order of ``RandomState(0)``, and a disk that is a shrunken image itself, every lit pixel of
which counts.

Enlarging and shrinking are separable and linear (up to clipping), so each is two small matrices; dilation by
a disk looks, in each row of the disk, at the distance to the nearest stroke along a row of the image.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from causalgen.datasets.medial_axis import distances_along, medial_axis, squared_distances
from graphs.errors import DomainError, ShapeError
from graphs.variables.arrays import as_array

__all__ = ["SCALE", "morphomnist_images", "redraw"]

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]

_AT_A_WORKER = 16
"""Rows that one is sent at a time: few enough for a processor's cache."""

SCALE = 16
"""How often images are enlarged."""

_SIGMA = 2 * SCALE / 6
_REACH = int(4 * _SIGMA + 0.5)
# Where the disk of radius 19 is shrunken, samples fall on pixel centres, and rounding lit four pixels more.
_MORE_OF_THE_DISK = {19: ((-17, -13), (13, -17), (13, 17), (17, -13))}
_BELOW_ONE = np.float32(255 * (1 - 1e-6))


def morphomnist_images(
    digits: object, thickness: object, intensity: object, *, workers: int = 1, progress: bool = False
) -> Bytes:
    """Digits redrawn at a stroke thickness and an intensity: Morpho-MNIST's true equation of the image.

    With an original MNIST digit and counterfactual parents it gives the *true* counterfactual image. Of the
    10,000 published test images it returns 9,979 to the bit, and the others up to 22 pixels in all.

    Args:
        digits: original images, uint8 (N, 28, 28) or (N, 1, 28, 28), bright on dark.
        thickness: in px, above 0 and no more than a side of the image, (N,) or one for all.
        intensity: 0 < i <= 255, (N,) or one for all.
        workers: processes to use. More than 1 starts new ones, so call it under
            ``if __name__ == "__main__":`` in a script.
        progress: show a bar.

    Returns:
        uint8, of the shape of ``digits``.

    Raises:
        ShapeError: another shape, or lengths that differ.
        DomainError: no uint8, a blank image, a value out of range, or a thickness at which no stroke is left.
    """
    from rich.progress import track

    images = _checked_digits(digits)
    flat = images.reshape(len(images), *images.shape[-2:])
    rows = len(flat)
    thick = _checked("thickness", thickness, rows, max(flat.shape[1:]))
    bright = _checked("intensity", intensity, rows, 255)
    parts = [slice(start, start + _AT_A_WORKER) for start in range(0, rows, _AT_A_WORKER)]
    jobs = [(part.start, flat[part], thick[part], bright[part]) for part in parts]
    out = np.empty_like(flat)
    with _results(jobs, workers) as results:
        shown = track(results, "images", total=len(parts), disable=not progress)
        for part, result in zip(parts, shown, strict=True):
            out[part] = result
    return out.reshape(images.shape)


def _redraw_part(job: tuple[int, Bytes, Doubles, Doubles]) -> Bytes:
    start, digits, thickness, intensity = job
    out = redraw(digits, thickness, intensity)
    blank = np.flatnonzero(out.max((1, 2), initial=0) == 0)
    if len(blank):
        row = blank[0]
        raise DomainError(
            f"Row {start + row}: no stroke is left of the digit at thickness {thickness[row]:g} px. "
            "Ask for more."
        )
    return out


@contextmanager
def _results(jobs: list[tuple[int, Bytes, Doubles, Doubles]], workers: int) -> Iterator[Iterator[Bytes]]:
    if workers < 1:
        raise DomainError(f"Expected at least 1 worker, got {workers}.")
    if workers == 1 or len(jobs) < 2:
        yield map(_redraw_part, jobs)
        return
    # Forked, a process could inherit a lock that a thread of torch holds.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            yield pool.map(_redraw_part, jobs)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _checked_digits(digits: object) -> Bytes:
    images = as_array(digits, where="Digits")
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[1] != 1) or 0 in images.shape[1:]:
        raise ShapeError(
            f"Digits: expected shape (N, H, W) or (N, 1, H, W), got {images.shape}. One image? image[None]."
        )
    if images.dtype != np.uint8:
        raise DomainError(
            f"Digits: expected uint8 in 0..255, got {images.dtype}. Of floats in [0, 1]: "
            "(255 * digits).round().astype('uint8')."
        )
    blank = np.flatnonzero(np.ptp(images.reshape(len(images), -1), axis=1) == 0) if len(images) else []
    if len(blank):
        raise DomainError(
            f"Digits, row {blank[0]}: the image has no contrast, so there is nothing to redraw."
        )
    return images


def _checked(name: str, values: object, rows: int, most: float) -> Doubles:
    array = as_array(values, where=name.capitalize()).astype(np.float64)
    if array.shape not in ((), (rows,)):
        raise ShapeError(f"{name.capitalize()}: expected one number or shape ({rows},), got {array.shape}.")
    array = np.broadcast_to(array, rows)
    wrong = np.flatnonzero(~((array > 0) & (array <= most) & np.isfinite(array)))
    if len(wrong):
        row, given = wrong[0], array[wrong[0]]
        raise DomainError(f"{name.capitalize()}, row {row}: expected in (0, {most:g}], got {given:g}.")
    return array


def redraw(digits: Bytes, thickness: NDArray[np.float64], intensity: NDArray[np.float64]) -> Bytes:
    """The digits at this thickness (px) and intensity (0..255); all (N,), images (N, H, W), not blank.

    Where no stroke is left the image is blank.
    """
    strokes = _strokes(digits)
    delta = thickness - _thickness(strokes)
    for row, change in enumerate(delta):
        _spread(strokes[row], int(SCALE * abs(change) / 2), thicker=bool(change >= 0))
    images = _shrink(strokes)
    out = np.empty_like(images)
    for row, image in enumerate(images):
        low, high = int(image.min()), int(image.max())
        bright = np.median(image[image >= low + (high - low) * 0.5]) if high else 1
        out[row] = np.clip(image * (intensity[row] / bright), 0, 255)
    return out


def _strokes(digits: Bytes) -> Mask:
    """Where the enlarged images reach the middle of their range: (N, 16 H, 16 W)."""
    (tall, smooth_tall), (wide, smooth_wide) = (_enlarging(length) for length in digits.shape[1:])
    unit = digits.astype(np.float32) / np.float32(255)
    low, high = unit.min((1, 2), keepdims=True), unit.max((1, 2), keepdims=True)
    large = _product(_product(tall, unit), wide.T).clip(low, high)
    levels = _whole(_banded(smooth_wide, _banded(smooth_tall, large).swapaxes(1, 2)).swapaxes(1, 2))
    low, high = levels.min((1, 2)).astype(int), levels.max((1, 2)).astype(int)
    return levels >= ((low + high + 1) // 2).astype(np.uint8)[:, None, None]


def _thickness(strokes: Mask) -> NDArray[np.float64]:
    """Twice the mean distance to the background along the medial axis, px of the small image: (N,)."""
    rows, columns = (np.flatnonzero(strokes.any(axes)) for axes in ((0, 2), (0, 1)))
    # With the background's nearest pixels, where the image has them; what lies outside it is not background.
    strokes = strokes[:, max(rows[0] - 1, 0) : rows[-1] + 2, max(columns[0] - 1, 0) : columns[-1] + 2]
    squared = squared_distances(strokes, bordered=False)
    axis = medial_axis(strokes, squared, ties=lambda count: np.random.RandomState(0).permutation(count))
    distances = np.sqrt(squared[axis])
    image = np.repeat(np.arange(len(axis)), axis.sum((1, 2)))
    return 2 / SCALE * np.bincount(image, distances) / np.bincount(image)


def _spread(strokes: Mask, radius: int, *, thicker: bool) -> None:
    """Dilate or erode one image (H, W) by the disk, in place; what lies outside counts as neither."""
    source = strokes if thicker else ~strokes
    beside = distances_along(~source[None], 2)[0]
    reached = np.zeros_like(source)
    height, width = source.shape
    for down, half in enumerate(_disk(radius)):
        near = beside <= half
        reached[: height - down] |= near[down:]
        reached[down:] |= near[: height - down]
    for down, right in _MORE_OF_THE_DISK.get(radius, ()):
        to = np.s_[max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)]
        of = np.s_[max(down, 0) : height - max(-down, 0), max(right, 0) : width - max(-right, 0)]
        reached[to] |= source[of]
    strokes[:] = reached if thicker else ~reached


@cache
def _disk(radius: int) -> tuple[int, ...]:
    """Half-width of the disk in its rows 0 .. radius from the middle."""
    if radius == 0:
        return (0,)
    big, small = 2 * SCALE * radius + 1, 2 * radius + 1
    across = np.arange(big) - SCALE * radius
    disk = (across**2 + across[:, None] ** 2 <= (SCALE * radius) ** 2).astype(np.float64)
    shrink = _interpolation(small, big, cubic=False) @ _gaussian(big)
    lit = shrink @ disk @ shrink.T > 0
    return tuple(int(row.sum()) // 2 for row in lit[radius:])


def _shrink(strokes: Mask) -> Bytes:
    tall, wide = (_shrinking(length // SCALE) for length in strokes.shape[1:])
    return _whole(_product(_product(tall, strokes.astype(np.float32)), wide.T).clip(0, 1))


def _whole(unit: Floats) -> Bytes:
    """0..1 as whole numbers, truncated; 1 becomes 254, since smoothing, rounded, leaves it a little below."""
    levels = 255 * unit
    return np.minimum(levels, _BELOW_ONE, out=levels).astype(np.uint8)


def _banded(smooth: Floats, images: Floats) -> Floats:
    """``smooth @ images``, of which only a band about the diagonal is not 0, a block of rows at a time."""
    rows = len(smooth)
    out = np.empty_like(images)
    for start in range(0, rows, 64):
        stop, first, last = start + 64, max(0, start - _REACH), min(rows, start + 64 + _REACH)
        out[:, start:stop] = _product(smooth[start:stop, first:last], images[:, first:last])
    return out


def _product(one: Floats, other: Floats) -> Floats:
    """Their matrix product, by torch: numpy's threads cannot be told to leave other processes a core.

    On cores that others use, they wait for one another: an image took ten times as long.
    """
    return torch.matmul(torch.from_numpy(one), torch.from_numpy(other)).numpy()


@cache
def _enlarging(length: int) -> tuple[Floats, Floats]:
    """Matrices that interpolate (16 L, L) and then smooth (16 L, 16 L) an axis."""
    large = SCALE * length
    return _interpolation(large, length).astype(np.float32), _gaussian(large).astype(np.float32)


@cache
def _shrinking(length: int) -> Floats:
    """The matrix (L, 16 L) that smooths and then samples an axis."""
    large = SCALE * length
    return (_interpolation(length, large) @ _gaussian(large)).astype(np.float32)


def _interpolation(new: int, old: int, *, cubic: bool = True) -> NDArray[np.float64]:
    """The matrix (new, old) that resamples an axis between pixel centres; beyond the ends it is mirrored."""
    places = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(places).astype(int)
    matrix = np.zeros((new, old))
    for step in (-1, 0, 1, 2):
        t = np.abs(places - (first + step))
        if cubic:
            inner, outer = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
            weights = np.where(t <= 1, inner, np.where(t < 2, outer, 0))
        else:
            weights = np.clip(1 - t, 0, None)
        np.add.at(matrix, (np.arange(new), _mirrored(first + step, old, centre=True)), weights)
    return matrix


def _gaussian(length: int) -> NDArray[np.float64]:
    """The matrix (L, L) of the Gaussian along an axis; beyond the ends the image is mirrored."""
    offsets = np.arange(-_REACH, _REACH + 1)
    weights = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    matrix = np.zeros((length, length))
    rows = np.arange(length)
    for offset, weight in zip(offsets, weights / weights.sum(), strict=True):
        np.add.at(matrix, (rows, _mirrored(rows + offset, length, centre=False)), weight)
    return matrix


def _mirrored(places: NDArray[np.int_], length: int, *, centre: bool) -> NDArray[np.int_]:
    """Indices mirrored at the end pixels' centres, or at their outer edges."""
    if length == 1:
        return np.zeros_like(places)
    if centre:
        period = 2 * length - 2
        places = places % period
        return np.minimum(places, period - places)
    places = places % (2 * length)
    return np.minimum(places, 2 * length - 1 - places)
