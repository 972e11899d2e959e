"""Distance of two values of a variable, row by row: L1 on 0..255, absolute error, or whether they differ.

image        mean |a - b| over channels and pixels, on 0..255     "L1 on 0..255"
continuous   mean |a - b| over components, in the variable's unit
categorical  1 where they differ, else 0                          "share that differs"
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from causalgen.metrics.image_rows import image_rows
from graphs.errors import DataError, ShapeError
from graphs.variables import Categorical, Image, Variable

__all__ = ["distance", "distance_unit"]


def distance(variable: Variable, one: object, other: object, *, where: str = "Values") -> NDArray[np.float64]:
    """How far the rows of two columns are apart.

    >>> distance(Categorical(3), [0, 1], [0, 2]).tolist()
    [0.0, 1.0]

    Args:
        variable: what both columns hold.
        one: N rows in the user's form; images floats in [0, 1] or uint8.
        other: N rows.
        where: what the columns are, for messages.

    Returns:
        (N,), see the head of this module.

    Raises:
        DataError: no rows.
        ShapeError: different numbers of rows.
        DomainError: images of another range.
    """
    if isinstance(variable, Image):
        first, second = (image_rows(each, where=where) for each in (one, other))
    else:
        first, second = (torch.as_tensor(_encoded(variable, each, where)) for each in (one, other))
    if first.shape != second.shape:
        raise ShapeError(f"{where}: {tuple(first.shape)} against {tuple(second.shape)}: rows must be paired.")
    if not len(first):
        raise DataError(f"{where}: an empty selection has no distance.")
    if isinstance(variable, Categorical):
        return (first != second).double().numpy()
    apart = (first.double() - second.double()).abs().reshape(len(first), -1).mean(1)
    return (apart * (255 if isinstance(variable, Image) else 1)).numpy()


def distance_unit(variable: Variable) -> str:
    """What ``distance`` counts.

    >>> distance_unit(Image(1, 28, 28))
    'L1 on 0..255'
    """
    if isinstance(variable, Image):
        return "L1 on 0..255"
    return "share that differs" if isinstance(variable, Categorical) else variable.unit or "its unit"


def _encoded(variable: Variable, values: object, where: str) -> NDArray[np.generic]:
    # What a mechanism generates may leave the bounds; how far it went is what is measured.
    if not isinstance(variable, Categorical | Image):
        variable = variable.model_copy(update={"lower": None, "upper": None})
    return variable.encode(values, where=where)
