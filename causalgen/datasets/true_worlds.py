"""True counterfactuals of Morpho-MNIST: abduction, action and prediction by its known equations.

e is recovered from the row: 2 t - 5 + e = logit((i - 64) / 191)
do(t):      t is set; i follows by its true equation with the same e; the digit is redrawn at both
do(i):      the digit is redrawn at the new brightness
do(digit):  no equation says how another digit of the same hand looks: the image stays unknown
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalgen.datasets.generating import morphomnist_images
from causalgen.datasets.morphomnist import intensity_of
from graphs.errors import DataError

__all__ = ["morphomnist_truth"]

Columns = Mapping[str, NDArray[Any]]

_LEAST = 1e-9


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
