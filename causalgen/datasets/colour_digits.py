"""Coloured digits: two image nodes, of which one causes the other, and colours that cause the second.

    digit := MNIST's label        shape := MNIST's image m, in [0, 1]
    ink ~ U[0.1, 0.45]^3          paper ~ U[0.55, 0.85]^3                    red, green, blue
    picture := (1 - m) paper + m ink + 0.04 g, clipped to [0, 1];  g a grain, the same in all channels

Each pixel of g is N(0, 1), neighbours alike: white noise smoothed by a Gaussian of 1.5 px, around the edges.
Digit and shape are MNIST's (LeCun, Cortes & Burges), the rest is this module's.

Since the equation is known, so are the true counterfactual pictures: g is what a row's picture has beyond its
colours, and it stays under do(ink), do(paper) and do(shape). No equation says how another digit of the same
hand looks: under do(digit) the picture is unknown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalgen.data.sources import Split, source_of
from causalgen.datasets.mnist import mnist
from graphs.errors import DomainError, ShapeError
from graphs.variables.arrays import as_array

__all__ = ["ColourDigitsSource", "colour_digits", "colour_digits_truth", "colour_pictures", "colours_of"]

INK, PAPER = (0.1, 0.45), (0.55, 0.85)
"""Ranges of the colours, far enough apart to read every digit."""

_GRAIN, _SMOOTH = 0.04, 1.5
_CHUNK = 4096

Columns = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float64]


def colour_digits(folder: str | os.PathLike[str], split: Split = "train") -> dict[str, NDArray[Any]]:
    """MNIST in colour, as columns that ``scm.fit`` takes; the same rows every time.

    Args:
        folder: with MNIST's files, as ``mnist`` takes it.
        split: "train" (60,000 rows) or "test" (10,000).

    Returns:
        ``digit`` (N,) int64, ``shape`` (N, 28, 28) uint8, ``ink`` and ``paper`` (N, 3) float64 in [0, 1], and
        ``picture`` (N, 3, 28, 28) uint8.

    Raises:
        DataError: a file is missing or damaged.
    """
    rows = mnist(folder, split)
    shapes = rows["image"]
    random = np.random.default_rng([0, split == "test"])
    ink, paper = random.uniform(*INK, (len(shapes), 3)), random.uniform(*PAPER, (len(shapes), 3))
    pictures = np.empty((len(shapes), 3, *shapes.shape[1:]), np.uint8)
    for start in range(0, len(shapes), _CHUNK):
        part = slice(start, start + _CHUNK)
        grain = _grain(shapes[part].shape, random)
        pictures[part] = colour_pictures(shapes[part] / 255, ink[part], paper[part], grain)
    return {"digit": rows["digit"], "shape": shapes, "ink": ink, "paper": paper, "picture": pictures}


ColourDigitsSource = source_of("colour-digits", colour_digits, categorical="digit")
"""``colour-digits:DIR``."""


def _grain(shape: tuple[int, ...], random: np.random.Generator) -> Floats:
    """(n, H, W) standard normal, neighbours alike."""
    tall, wide = (_smoothing(length) for length in shape[1:])
    return tall @ random.standard_normal(shape) @ wide.T


def _smoothing(length: int) -> Floats:
    """(L, L) a Gaussian around a circle of L pixels, which keeps the variance of white noise."""
    apart = np.abs(np.arange(length)[:, None] - np.arange(length))
    weights = np.exp(-0.5 * (np.minimum(apart, length - apart) / _SMOOTH) ** 2)
    return weights / np.sqrt((weights**2).sum(1, keepdims=True))


def colour_pictures(shapes: object, inks: object, papers: object, grain: object = 0.0) -> NDArray[np.uint8]:
    """The true equation of the picture.

    Args:
        shapes: (N, H, W) or (N, 1, H, W) in [0, 1]: how much ink there is.
        inks: (N, 3) in [0, 1].
        papers: (N, 3) in [0, 1].
        grain: g, (N, H, W) or a number.

    Returns:
        (N, 3, H, W) uint8.

    Raises:
        ShapeError: shapes that disagree.
        DomainError: a shape or a colour outside [0, 1].
    """
    cover, ink, paper = _checked(shapes, inks, papers)
    grain = as_array(grain, where="Grain")
    flat = (1 - cover) * paper + cover * ink + _GRAIN * (grain[:, None] if grain.ndim == 3 else grain)
    return np.rint(255 * flat.clip(0, 1)).astype(np.uint8)


def colours_of(pictures: object, shapes: object) -> tuple[Floats, Floats]:
    """Ink and paper, read from pictures of known shape without a network: by least squares.

    Args:
        pictures: (N, 3, H, W) in [0, 1].
        shapes: (N, H, W) or (N, 1, H, W) in [0, 1].

    Returns:
        ink (N, 3) and paper (N, 3); nan where a shape is the same everywhere, which tells them not apart.
    """
    seen = as_array(pictures, where="Pictures").astype(np.float64)
    cover, _, _ = _checked(shapes, np.zeros((len(seen), 3)), np.zeros((len(seen), 3)))
    if seen.shape[1:] != (3, *cover.shape[2:]) or len(seen) != len(cover):
        raise ShapeError(
            f"Pictures: expected ({len(cover)}, 3, {cover.shape[2]}, {cover.shape[3]}), got {seen.shape}."
        )
    middle = cover.mean((2, 3), keepdims=True)
    spread = ((cover - middle) ** 2).sum((2, 3))
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = ((cover - middle) * seen).sum((2, 3)) / spread
    paper = seen.mean((2, 3)) - slope * middle[..., 0, 0]
    return paper + slope, paper


def colour_digits_truth(
    columns: Mapping[str, Any], shape: str = "shape", picture: str = "picture"
) -> Callable[[NDArray[np.int64], Columns], Columns]:
    """The true counterfactual worlds of coloured digits, for ``cg.evaluate``.

    Args:
        columns: ``digit``, ``shape``, ``ink``, ``paper`` and ``picture`` of the data's rows, as
            ``colour_digits`` gives them.
        shape: name of the node of the shape.
        picture: name of the node of the picture.

    Returns:
        (row numbers, what is set) -> values; shape and picture are among them unless a digit was set.

    Raises:
        ShapeError: numbers of rows that disagree.
    """
    shapes, pictures = (np.asarray(columns[name]) / 255 for name in ("shape", "picture"))
    cover, ink, paper = _checked(shapes, columns["ink"], columns["paper"])
    if pictures.shape != (len(cover), 3, *cover.shape[2:]):
        raise ShapeError(f"picture: expected {(len(cover), 3, *cover.shape[2:])}, got {pictures.shape}.")
    grain = (pictures - (1 - cover) * paper - cover * ink).mean(1) / _GRAIN
    factual = {"digit": np.asarray(columns["digit"]), "ink": ink[..., 0, 0], "paper": paper[..., 0, 0]}
    factual[shape] = cover.astype(np.float32)

    def truth(asked: NDArray[np.int64], do: Columns) -> dict[str, NDArray[Any]]:
        world: dict[str, NDArray[Any]] = {name: values[asked] for name, values in factual.items()}
        world |= {name: np.asarray(values) for name, values in do.items()}
        if "digit" in do and shape not in do:
            del world[shape]
            return world
        made = colour_pictures(world[shape], world["ink"], world["paper"], grain[asked])
        return {**world, picture: made.astype(np.float32) / np.float32(255)}

    return truth


def _checked(shapes: object, inks: object, papers: object) -> tuple[Floats, Floats, Floats]:
    """Cover (N, 1, H, W), ink and paper (N, 3, 1, 1)."""
    cover = as_array(shapes, where="Shapes").astype(np.float64)
    cover = cover[:, None] if cover.ndim == 3 else cover
    colours = [
        as_array(each, where=name).astype(np.float64) for name, each in (("Ink", inks), ("Paper", papers))
    ]
    if cover.ndim != 4 or cover.shape[1] != 1 or any(each.shape != (len(cover), 3) for each in colours):
        found = ", ".join(str(each.shape) for each in (cover, *colours))
        raise ShapeError(f"Expected shapes (N, H, W), inks (N, 3) and papers (N, 3), got {found}.")
    for name, each in zip(("Shapes", "Ink", "Paper"), (cover, *colours), strict=True):
        if not (np.all(each >= 0) and np.all(each <= 1)):  # nan is neither
            raise DomainError(f"{name}: expected values in [0, 1], got [{each.min():g}, {each.max():g}].")
    ink, paper = (each[:, :, None, None] for each in colours)
    return cover, ink, paper
