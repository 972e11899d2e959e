"""A pendulum, a sun and the shadow: angle a and light b cause a shadow, and all four the image (CausalVAE).

    a ~ U[-36, 39.6]   degrees from the vertical      b ~ U[54, 133.2]   degrees, of the rays to the ground
    pivot at (10, 10.5), tip at (10 + 9.5 sin a, 10.5 - 9.5 cos a); a ray through (x, y) meets y = -0.5 at
    s(x, y) = x - (y + 0.5) cot b
    shadow_length   := max(3, |s(pivot) - s(tip)|)      shadow_position := (s(pivot) + s(tip)) / 2
    image := rod (black) from the pivot to (10 + 8 sin a, 10.5 - 8 cos a), with a bob (firebrick) of radius
             1.5 there; a sun (orange) of radius 3 at (10 + 10 cot b, 20.5); the shadow, a line on y = -0.5

Geometry, colours and ranges are those of Yang et al. 2021 (*CausalVAE*), whose code draws the scene with
matplotlib on 96 x 96 pixels: x in [0, 20] and y in [-1, 21] fill a figure of one inch within its margins,
lines are 3 points wide, discs have an edge of half a point more, and what leaves the axes is cut. The shapes
here cover each pixel by its part, at any size; theirs are snapped to whole pixels where they are level. They
drew 84 x 87 images on a grid of steps of 0.9 degrees; here the angles are drawn anew.

Nothing is random but the angles, so every true counterfactual is known.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalgen.data.sources import Split, source_of
from causalgen.datasets.folders import read_folder
from graphs.errors import DataError, DomainError, ShapeError
from graphs.variables import Continuous
from graphs.variables.arrays import as_array

__all__ = [
    "ANGLES",
    "LIGHTS",
    "MEASURES",
    "NUMBERS",
    "PendulumSource",
    "draw_scenes",
    "pendulum",
    "pendulum_images",
    "pendulum_truth",
    "shadow_of",
]

ANGLES, LIGHTS = (-36.0, 39.6), (54.0, 133.2)
"""Published ranges, degrees: of the pendulum 0.9 i, -40 <= i < 44, and of the light 0.9 j, 60 <= j < 148."""

NUMBERS = ("angle", "light", "shadow_length", "shadow_position")
"""The causes of the image."""

Columns = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float64]

_PIVOT = (10.0, 10.5)
_ROD, _TIP, _BOB, _SUN, _SUN_HEIGHT, _GROUND, _LEAST = 8.0, 9.5, 1.5, 3.0, 20.5, -0.5, 3.0
_WIDE, _LOW, _HIGH = 20.0, -1.0, 21.0
"""The axes: x in [0, 20], y in [-1, 21]."""

_LEFT, _TOP, _ACROSS, _DOWN = 0.125, 0.12, 0.775, 0.77
"""Where matplotlib's default margins put the axes, in parts of the figure from its top left corner."""

_LINE, _EDGE = 3 / 72, 0.5 / 72
"""Width of a line, and what its edge adds to a disc, in parts of the figure: 3 points and half a point."""

_COLOURS = np.array([[178, 34, 34], [255, 165, 0], [0, 0, 0], [255, 255, 255]]) / 255
"""Firebrick, orange, black, white."""

_TOLERANCE = 1e-3
"""Scene units by which a row's shadow may miss its equation."""

_CHUNK, _SMALLEST, _TRACE = 64, 16, 0.3


def pendulum(folder: str | os.PathLike[str], split: Split = "train") -> dict[str, NDArray[Any]]:
    """The pendulum's rows, as columns that ``scm.fit`` takes.

    Args:
        folder: as ``causalgen data pendulum`` writes it: ``train.csv`` and ``test.csv``, whose column
            ``image`` holds paths of PNG files relative to the folder.
        split: "train" or "test".

    Returns:
        ``angle`` and ``light`` in degrees, ``shadow_length`` and ``shadow_position`` in units of the scene,
        each (N,) float64, and ``image`` (N, 3, S, S) uint8.

    Raises:
        DataError: a file is missing or damaged, or a picture is not as large as the first.
    """
    return read_folder("pendulum", folder, split, dict.fromkeys(NUMBERS, Continuous()))


PendulumSource = source_of("pendulum", pendulum, image="image")
"""``pendulum:DIR``."""


def draw_scenes(rows: int, *, seed: int | Sequence[int], experiments: float = 0.0) -> dict[str, Floats]:
    """Causes of the image from their law, by name, each (rows,).

    Where nobody ever sets a shadow, no data can tell whether the image's shadow follows ``shadow_length``
    and ``shadow_position`` or the angles: all four always agree. In rows of experiments, about this share of
    all, somebody did: the shadow's length, its position or both, one as often as the other, are those of
    other scenes.

    Raises:
        DomainError: a share outside [0, 1].
    """
    if not 0 <= experiments <= 1:
        raise DomainError(f"experiments: expected a share in [0, 1], got {experiments}.")
    random = np.random.default_rng(seed)
    angle, light = random.uniform(*ANGLES, rows), random.uniform(*LIGHTS, rows)
    length, position = shadow_of(angle, light)
    if experiments:
        kind = np.where(random.random(rows) < experiments, random.integers(1, 4, rows), 0)
        # The two are drawn apart: an experiment's length says nothing of its position.
        others = [shadow_of(random.uniform(*ANGLES, rows), random.uniform(*LIGHTS, rows)) for _ in range(2)]
        length = np.where(kind & 1, others[0][0], length)
        position = np.where(kind & 2, others[1][1], position)
    return dict(zip(NUMBERS, (angle, light, length, position), strict=True))


def shadow_of(angle: Floats | float, light: Floats | float) -> tuple[Floats, Floats]:
    """The true equations of ``shadow_length`` and ``shadow_position``, in units of the scene.

    Args:
        angle: of the pendulum, degrees from the vertical, positive to the right.
        light: of the rays to the ground, degrees in (0, 180); 90 is a sun above the pivot.
    """
    radians = np.radians(np.asarray(angle, np.float64))
    slope = 1 / np.tan(np.radians(np.asarray(light, np.float64)))
    pivot = _PIVOT[0] - (_PIVOT[1] - _GROUND) * slope
    tip = _PIVOT[0] + _TIP * np.sin(radians) - (_PIVOT[1] - _TIP * np.cos(radians) - _GROUND) * slope
    return np.maximum(_LEAST, np.abs(pivot - tip)), (pivot + tip) / 2


def pendulum_images(
    angle: object, light: object, shadow_length: object, shadow_position: object, *, size: int = 64
) -> NDArray[np.uint8]:
    """The true equation of the image.

    Args:
        angle: (N,) or a number, degrees.
        light: (N,) or a number, degrees in (0, 180).
        shadow_length: (N,) or a number, units of the scene, whose width is 20.
        shadow_position: (N,) or a number, of the shadow's middle; the frame shows 0 to 20.
        size: S, pixels of a side; published with 96.

    Returns:
        (N, 3, S, S) uint8.

    Raises:
        DomainError: a light outside (0, 180), a negative length, a value that is not finite, fewer than 16
            pixels.
        ShapeError: numbers of rows that disagree.
    """
    causes = _checked(angle, light, shadow_length, shadow_position)
    if size < _SMALLEST:
        raise DomainError(f"size: expected at least {_SMALLEST} pixels, got {size}.")
    parts = [slice(start, start + _CHUNK) for start in range(0, len(causes[0]), _CHUNK)]
    made = [_drawn(*(each[part] for each in causes), size=size) for part in parts]
    return np.concatenate(made) if made else np.empty((0, 3, size, size), np.uint8)


def pendulum_truth(
    columns: Mapping[str, Any], size: int, image: str = "image"
) -> Callable[[NDArray[np.int64], Columns], Columns]:
    """The pendulum's true counterfactual worlds, for ``cg.evaluate``.

    An angle that is set moves the shadow; a shadow that is set moves nothing else.

    Args:
        columns: ``angle``, ``light``, ``shadow_length`` and ``shadow_position`` of the rows, (N,) each.
        size: S, pixels of a side of their images.
        image: name of the image node.

    Returns:
        (row numbers, what is set) -> values, the image (n, 3, S, S) in [0, 1] among them.

    Raises:
        DataError: a row whose shadow is not that of its angles: what its world would be is not known.
    """
    factual = dict(zip(NUMBERS, _checked(*(columns[name] for name in NUMBERS)), strict=True))
    for name, due in zip(NUMBERS[2:], shadow_of(factual["angle"], factual["light"]), strict=True):
        wrong = np.flatnonzero(np.abs(factual[name] - due) > _TOLERANCE)
        if len(wrong):
            raise DataError(
                f"Row {wrong[0]}: expected {name} {due[wrong[0]]:.4f} by its angle and light, got "
                f"{factual[name][wrong[0]]:.4f}. Give rows of `causalgen data pendulum`."
            )

    def truth(asked: NDArray[np.int64], do: Columns) -> dict[str, NDArray[Any]]:
        world = {name: values[asked] for name, values in factual.items()}
        set_to = {name: np.asarray(values) for name, values in do.items()}
        world |= set_to
        world["shadow_length"], world["shadow_position"] = shadow_of(world["angle"], world["light"])
        world |= set_to
        made = pendulum_images(*(world[name] for name in NUMBERS), size=size)
        return {**world, image: made.astype(np.float32) / np.float32(255)}

    return truth


def measured_angle(images: object) -> Floats:
    """The pendulum's angle in degrees, by the centroid of the bob.

    What is measured takes pixels apart into the scene's four colours: three channels and a sum of one say how
    much of each.

    Args:
        images: (N, 3, S, S) in [0, 1].

    Returns:
        (N,); nan where there is no bob.

    Raises:
        ShapeError: another shape.
        DomainError: not floats in [0, 1].
    """
    x, y, _ = _centre(_colour(images, 0))
    return np.degrees(np.arctan2(x - _PIVOT[0], _PIVOT[1] - y))


def measured_light(images: object) -> Floats:
    """The light's angle in degrees, by the sun's visible part; arguments and errors as ``measured_angle``."""
    sun = _colour(images, 1)
    x, _, _ = _centre(sun)
    visible, middles = _suns(sun.shape[2])
    return np.degrees(np.arctan2(_SUN_HEIGHT - _PIVOT[1], np.interp(x, visible, middles) - _PIVOT[0]))


@cache
def _suns(size: int) -> tuple[Floats, Floats]:
    """Centroid of the visible part of suns, and where their middles are: the frame cuts some."""
    middles = np.linspace(-_SUN, _WIDE + _SUN, 131)
    lights = np.degrees(np.arctan2(_SUN_HEIGHT - _PIVOT[1], middles - _PIVOT[0]))
    drawn = pendulum_images(0, lights, 0, -_WIDE, size=size) / 255
    return _centre(_colour(drawn, 1))[0], middles


def measured_shadow_length(images: object) -> Floats:
    """Length of the visible shadow in units of the scene; arguments and errors as ``measured_angle``."""
    length = _shadow(images)[1]
    return np.where(length > 0, length, np.nan)


def measured_shadow_position(images: object) -> Floats:
    """Middle of the visible shadow in units of the scene; arguments and errors as ``measured_angle``."""
    return _shadow(images)[0]


MEASURES: Mapping[str, Callable[[object], Floats]] = MappingProxyType(
    {
        "angle": measured_angle,
        "light": measured_light,
        "shadow_length": measured_shadow_length,
        "shadow_position": measured_shadow_position,
    }
)
"""The causes of the image, measured on it without a network."""


def _colour(images: object, colour: int) -> Floats:
    """(N, S, S) how much of each pixel one of the scene's colours covers; a faint trace counts as none."""
    array = as_array(images, where="Images")
    side = array.shape[-1] if array.ndim == 4 else 0
    if side < _SMALLEST or array.shape[1:] != (3, side, side):
        raise ShapeError(f"Images: expected (N, 3, S, S), S at least {_SMALLEST}, got {array.shape}.")
    if not np.issubdtype(array.dtype, np.floating) or not (np.all(array >= 0) and np.all(array <= 1)):
        raise DomainError("Images: expected floats in [0, 1]. Divide bytes by 255.")
    weights = np.linalg.inv(np.vstack([_COLOURS.T, np.ones(4)]))[colour]
    cover = np.full(array[:, 0].shape, weights[3])
    for channel, weight in enumerate(weights[:3]):
        cover += weight * array[:, channel]
    return np.where(cover > _TRACE, cover, 0.0).clip(0, 1)


def _centre(cover: Floats) -> tuple[Floats, Floats, Floats]:
    """Centroid in scene units and area in pixels, (N,) each; nan where there is nothing."""
    size = cover.shape[1]
    places = (np.arange(size) + 0.5) / size
    area = cover.sum((1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        across, down = (cover.sum(1) @ places) / area, (cover.sum(2) @ places) / area
    return _WIDE * (across - _LEFT) / _ACROSS, _HIGH - (_HIGH - _LOW) * (down - _TOP) / _DOWN, area


def _shadow(images: object) -> tuple[Floats, Floats]:
    """Middle and length of the black line on the ground, in scene units, (N,) each."""
    black = _colour(images, 2)
    size = black.shape[1]
    highest = int(size * (_TOP + _DOWN * (_HIGH - _GROUND) / (_HIGH - _LOW) - _LINE))
    low = np.zeros_like(black)
    low[:, highest:] = black[:, highest:]
    middle, _, area = _centre(low)
    whole = pendulum_images(0, 90, 2 * _WIDE, _WIDE / 2, size=size) / 255
    column = _colour(whole, 2)[0, highest:, size // 2].sum()
    return middle, area / column / size * _WIDE / _ACROSS


def _checked(*causes: Any) -> list[Floats]:
    """The four numbers of each row, (N,) each."""
    given = [np.asarray(each, np.float64) for each in causes]
    try:
        rows = np.broadcast_arrays(*given)
    except ValueError as error:
        shapes = ", ".join(f"{name} {each.shape}" for name, each in zip(NUMBERS, given, strict=True))
        raise ShapeError(f"Expected numbers, or as many of each, got shapes {shapes}.") from error
    rows = [np.atleast_1d(each) for each in rows]
    for name, each in zip(NUMBERS, rows, strict=True):
        fits, expected = np.isfinite(each), "a finite number"
        if name == "light":
            fits, expected = (each > 0) & (each < 180), "degrees above 0 and below 180"
        elif name == "shadow_length":
            fits, expected = fits & (each >= 0), "a number of at least 0"
        if not fits.all():
            row = int(fits.argmin())
            raise DomainError(f"{name}, row {row}: expected {expected}, got {each[row]:g}.")
    return rows


def _drawn(angle: Floats, light: Floats, length: Floats, position: Floats, *, size: int) -> NDArray[np.uint8]:
    """(n, 3, size, size): later shapes over earlier ones, each by the part of a pixel that it covers."""
    edges = np.arange(size + 1, dtype=np.float32)
    radians = np.radians(angle)
    bob = _pixels(_PIVOT[0] + _ROD * np.sin(radians), _PIVOT[1] - _ROD * np.cos(radians), size)
    pivot = _pixels(*_PIVOT, size)
    sun = _pixels(_PIVOT[0] + (_SUN_HEIGHT - _PIVOT[1]) / np.tan(np.radians(light)), _SUN_HEIGHT, size)
    begin, level = _pixels(position - length / 2, _GROUND, size)
    end, _ = _pixels(position + length / 2, _GROUND, size)
    half, reach = _LINE * size / 2, 2 * _BOB * size / _WIDE
    frame_across = _span(edges, size * _LEFT, size * (_LEFT + _ACROSS))
    frame_down = _span(edges, size * _TOP, size * (_TOP + _DOWN))
    pixels = np.ones((len(angle), 3, size, size), np.float32)

    def paint(colour: int, high: Any, low: Any, cover: Callable[[Any, Any], NDArray[np.float32]]) -> None:
        # Only the rows of pixels that the shape reaches in any of these images.
        top, bottom = max(int(np.min(high)) - 1, 0), min(int(np.max(low)) + 2, size)
        part = cover((edges[:-1] + 0.5)[None, None, :], (edges[top:bottom] + 0.5)[None, :, None])
        part *= frame_across * frame_down[top:bottom, None]
        for channel, value in enumerate(_COLOURS[colour].astype(np.float32)):
            region = pixels[:, channel, top:bottom]
            region += part * (value - region)

    ends = np.minimum(pivot[1], bob[1]), np.maximum(pivot[1], bob[1])
    paint(2, ends[0] - half, ends[1] + half, lambda x, y: _rod(x, y, pivot, bob, half))
    paint(0, bob[1] - reach, bob[1] + reach, lambda x, y: _disc(x, y, bob, _BOB, size))
    paint(1, 0, sun[1] + 2 * reach, lambda x, y: _disc(x, y, sun, _SUN, size))
    across = _span(edges, begin, end)[:, None]
    paint(2, level - half, level + half, lambda x, y: (half + 0.5 - np.abs(y - level)).clip(0, 1) * across)
    return np.rint(255 * pixels).astype(np.uint8)


def _pixels(x: Floats | float, y: Floats | float, size: int) -> tuple[Any, Any]:
    """Scene units in pixels from the top left corner of the image."""
    return (
        np.asarray(size * (_LEFT + _ACROSS * np.asarray(x) / _WIDE), np.float32),
        np.asarray(size * (_TOP + _DOWN * (_HIGH - np.asarray(y)) / (_HIGH - _LOW)), np.float32),
    )


def _span(edges: NDArray[np.float32], begin: Any, end: Any) -> NDArray[np.float32]:
    """The part of each pixel of a line that lies between two places: (..., S) for places (...,)."""
    begin, end = np.asarray(begin, np.float32)[..., None], np.asarray(end, np.float32)[..., None]
    return (np.minimum(edges[1:], end) - np.maximum(edges[:-1], begin)).clip(0, 1)


def _disc(across: Any, down: Any, centre: tuple[Any, Any], radius: float, size: int) -> NDArray[np.float32]:
    """Cover (n, S, S) of an ellipse, round in scene units, by the distance from its edge to first order."""
    wide = size * (radius * _ACROSS / _WIDE + _EDGE)
    tall = size * (radius * _DOWN / (_HIGH - _LOW) + _EDGE)
    x = (across - np.reshape(centre[0], (-1, 1, 1))) / np.float32(wide)
    y = (down - np.reshape(centre[1], (-1, 1, 1))) / np.float32(tall)
    squared = x * x + y * y
    slope = np.sqrt(x * x / np.float32(wide**2) + y * y / np.float32(tall**2))
    root = np.sqrt(squared)
    return (0.5 - (root - 1) * root / np.maximum(slope, np.float32(1e-6))).clip(0, 1)


def _rod(
    across: Any, down: Any, begin: tuple[Any, Any], end: tuple[Any, Any], half: float
) -> NDArray[np.float32]:
    """Cover (n, S, S) of a line with blunt ends."""
    x, y = across - begin[0], down - begin[1]
    along_x, along_y = (np.reshape(each, (-1, 1, 1)) for each in (end[0] - begin[0], end[1] - begin[1]))
    length = np.hypot(along_x, along_y)
    along = (x * along_x + y * along_y) / length
    aside = np.abs(x * along_y - y * along_x) / length
    return (half + 0.5 - aside).clip(0, 1) * np.minimum(along + 0.5, length - along + 0.5).clip(0, 1)
