"""Morpho-MNIST with three causes of an image: digit, stroke thickness t (px) and intensity i (0..255).

    digit := MNIST's label                   t := 0.5 + g,  g ~ Gamma(10, rate 5)
    i := 64 + 191 sigmoid(2 t - 5 + e),      e ~ N(0, 0.5^2)
    image := MNIST's digit, redrawn at t and i (``datasets.redrawing``)

The laws are those of Pawlowski, Castro & Glocker 2020 (*Deep structural causal models*), the redrawing is by
Castro et al. 2019 (*Morpho-MNIST*). A folder has the layout of the published set:

    train-images-idx3-ubyte.gz  train-labels-idx1-ubyte.gz  train-morpho.csv (index, thickness, intensity)

and ``t10k-...`` for the test rows, in MNIST's own order.

Since the equations are known, so are the true counterfactuals: e is recovered from the row,
2 t - 5 + e = logit((i - 64) / 191), and the digit is redrawn at the new t, and at the i that follows from it
or is set. No equation says how another digit of the same hand looks: under do(digit) the image is unknown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalgen.data.sources import Split, source_of
from causalgen.datasets.mnist import file_prefix, read_digits
from causalgen.datasets.redrawing import morphomnist_images
from graphs.errors import DataError

__all__ = [
    "ATTRIBUTES",
    "MorphoMNISTSource",
    "draw_attributes",
    "intensity_of",
    "morphomnist",
    "morphomnist_truth",
    "read_attributes",
]

ATTRIBUTES = ("thickness", "intensity")

_LEAST = 1e-9

Columns = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float64]


def morphomnist(folder: str | os.PathLike[str], split: Split = "train") -> dict[str, NDArray[Any]]:
    """Morpho-MNIST, as columns that ``scm.fit`` takes.

    Args:
        folder: as ``causalgen data morphomnist`` writes it, or as it is published.
        split: "train" or "test".

    Returns:
        ``digit`` (N,) int64, ``thickness`` and ``intensity`` (N,) float64, ``image`` (N, 28, 28) uint8.

    Raises:
        DataError: a file is missing or damaged, or the files disagree.
    """
    root = Path(folder)
    digits = read_digits(root, split)
    table = root / f"{file_prefix(split)}-morpho.csv"
    attributes = read_attributes(table)
    if len(attributes["thickness"]) != len(digits["digit"]):
        raise DataError(
            f"{table} has {len(attributes['thickness']):,} rows, but there are {len(digits['digit']):,} "
            "images beside it. It belongs to another set."
        )
    return {"digit": digits["digit"], **attributes, "image": digits["image"]}


MorphoMNISTSource = source_of("morphomnist", morphomnist, image="image", categorical="digit")
"""``morphomnist:DIR``."""


def read_attributes(path: Path) -> dict[str, Floats]:
    """Thickness and intensity of a published table, by name, each (N,)."""
    import pandas  # slow to import

    if not path.is_file():
        raise DataError(f"There is no table {path}.")
    try:
        frame = pandas.read_csv(path)
    except (OSError, ValueError) as error:
        raise DataError(f"Cannot read the table {path}: {error}") from error
    missing = [name for name in ATTRIBUTES if name not in frame.columns]
    if missing:
        raise DataError(
            f"{path} lacks the column {' and '.join(map(repr, missing))}; it has {', '.join(frame.columns)}."
        )
    if "index" in frame.columns and not np.array_equal(frame["index"], np.arange(len(frame))):
        raise DataError(
            f"{path}: the column 'index' must count the rows from 0, in the order of MNIST's images."
        )
    columns: dict[str, Floats] = {}
    for name in ATTRIBUTES:
        columns[name] = np.asarray(pandas.to_numeric(frame[name], errors="coerce"), dtype=np.float64)
    for name, most in zip(ATTRIBUTES, (np.inf, 255), strict=True):
        wrong = np.flatnonzero(~((columns[name] > 0) & (columns[name] <= most) & np.isfinite(columns[name])))
        if len(wrong):
            bound = "a number above 0" if name == "thickness" else "a number in (0, 255]"
            raise DataError(
                f"{path}, row {wrong[0]}: expected {name} to be {bound}, got {frame[name][wrong[0]]!r}."
            )
    return columns


def draw_attributes(rows: int, *, seed: int | Sequence[int]) -> dict[str, Floats]:
    """Thickness and intensity from their law, by name, each (rows,)."""
    random = np.random.default_rng(seed)
    thickness = 0.5 + random.gamma(10, 1 / 5, rows)
    return {"thickness": thickness, "intensity": intensity_of(thickness, random.normal(0, 0.5, rows))}


def intensity_of(thickness: Floats, noise: Floats | float = 0.0) -> Floats:
    """The true equation of intensity, with e ~ N(0, 0.5^2): 64 + 191 sigmoid(2 t - 5 + e)."""
    return 64 + 191 / (1 + np.exp(-(2 * thickness - 5 + noise)))


def morphomnist_truth(
    columns: Mapping[str, Any], originals: object, image: str = "image"
) -> Callable[[NDArray[np.int64], Columns], Columns]:
    """Morpho-MNIST's true counterfactual worlds, for ``cg.evaluate``.

    Args:
        columns: ``digit``, ``thickness`` (px) and ``intensity`` (0..255) of the data's rows, (N,) each.
        originals: MNIST's digits behind these rows, uint8 (N, 28, 28).
        image: name of the image node.

    Returns:
        (row numbers, what is set) -> values; the image is among them unless the digit was set.

    Raises:
        DataError: numbers of rows that disagree.
    """
    factual = {name: np.asarray(columns[name]) for name in ("digit", "thickness", "intensity")}
    digits = np.asarray(originals)
    rows = {name: len(values) for name, values in factual.items()} | {"originals": len(digits)}
    if len(set(rows.values())) > 1:
        raise DataError(f"The originals must be those of the rows, but their numbers differ: {rows}.")

    def truth(asked: NDArray[np.int64], do: Columns) -> dict[str, NDArray[Any]]:
        world = {name: values[asked] for name, values in factual.items()}
        if "thickness" in do:
            noise = _noise(world["thickness"], world["intensity"])
            world["intensity"] = intensity_of(np.asarray(do["thickness"], float), noise)
        world |= {name: np.asarray(values) for name, values in do.items()}
        if "digit" not in do:
            made = morphomnist_images(digits[asked], world["thickness"], world["intensity"])
            world[image] = made[:, None].astype(np.float32) / np.float32(255)
        return world

    return truth


def _noise(thickness: NDArray[np.float64], intensity: NDArray[np.float64]) -> NDArray[np.float64]:
    share = ((intensity - 64) / 191).clip(_LEAST, 1 - _LEAST)
    return np.log(share / (1 - share)) - (2 * thickness - 5)
