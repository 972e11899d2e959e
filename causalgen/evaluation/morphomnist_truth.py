"""The true counterfactuals of Morpho-MNIST, whose generator is known: see ``datasets.morphomnist``.

e is recovered from the row: 2 t - 5 + e = logit((i - 64) / 191)
do(t):      t is set; i follows by its true equation with the same e; the digit is redrawn at both
do(i):      the digit is redrawn at the new brightness
do(digit):  no equation says how another digit of the same hand looks: the image stays unknown
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalgen.data.sources import split_source
from causalgen.datasets.generating import morphomnist_images
from causalgen.datasets.mnist import mnist
from causalgen.datasets.morphomnist import intensity_of, morphomnist
from causalgen.evaluation.questions import Columns, Truth
from graphs.errors import DataError

__all__ = ["morphomnist_truth", "read_morphomnist_truth"]

_LEAST = 1e-9


def morphomnist_truth(columns: Mapping[str, Any], originals: object, image: str = "image") -> Truth:
    """Morpho-MNIST's true counterfactual worlds, for ``scm.evaluate``.

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


def read_morphomnist_truth(data: str, mnist_folder: Path | str, image: str) -> Truth:
    """``morphomnist_truth`` of a set named as ``morphomnist:DIR`` or ``morphomnist:DIR:test``.

    Raises:
        DataError: the data are another set, or MNIST's files are not there.
    """
    if not data.startswith("morphomnist:"):
        raise DataError(
            f"True counterfactuals are known of morphomnist:DIR, got --data {data}. Leave --truth out."
        )
    folder, split = split_source(data)
    return morphomnist_truth(morphomnist(folder, split), mnist(mnist_folder, split)["image"], image)


def _noise(thickness: NDArray[np.float64], intensity: NDArray[np.float64]) -> NDArray[np.float64]:
    share = ((intensity - 64) / 191).clip(_LEAST, 1 - _LEAST)
    return np.log(share / (1 - share)) - (2 * thickness - 5)
