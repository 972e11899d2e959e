"""Arguments of metrics, validated (images, codes of classes, numbers of rows), and their distances.

Images are (N, C, H, W), or (N, H, W) for one channel: uint8 in 0..255 or floats in [0, 1], as numpy arrays or
tensors, N at least 1. Classes are codes, (N,).

Distances of two values of a variable, row by row:

image        mean |a - b| over channels and pixels, on 0..255     "L1 on 0..255"
continuous   mean |a - b| over components, in the variable's unit
categorical  1 where they differ, else 0                          "share that differs"
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphs.errors import DataError, DomainError, ShapeError
from graphs.variables import Categorical, Image, Variable
from graphs.variables.arrays import as_array, as_numbers
from graphs.variables.numeric import unbounded

__all__ = ["check_same_rows", "class_codes", "distance", "distance_unit", "image_rows", "rows_of_class"]


def image_rows(images: object, *, where: str = "Images", image: Image | None = None) -> Tensor:
    """Checked images as (N, C, H, W) float32 in [0, 1]; the argument may lend its memory.

    Messages say ``where``, as in "The counterfactual images"; ``image`` has the size they must have.
    """
    array = as_array(images, where=where)
    if array.ndim not in (3, 4) or (image is not None and array.ndim == 3 and image.channels != 1):
        raise ShapeError(
            f"{where}: expected shape (N, C, H, W), or (N, H, W) for one channel, got {array.shape}. "
            "One image? image[None]."
        )
    if len(array) == 0:
        raise DataError(f"{where}: there are none; the selection is empty. Select at least one row.")
    array = array[:, None] if array.ndim == 3 else array
    if array.dtype == np.uint8 and array.size and array.max() == 1:
        raise DomainError(
            f"{where}: uint8 images are 0..255, and the largest value here is 1. "
            "Give images in [0, 1] as floats."
        )
    variable = image if image is not None else Image(*map(int, array.shape[1:]))
    pixels = variable.pixels(array, where=where)
    if pixels.dtype == np.uint8:
        pixels = pixels.astype(np.float32) / np.float32(255)
    return torch.from_numpy(np.require(pixels, requirements=["C", "W"]))


def class_codes(classes: object, *, where: str, count: int | None = None) -> NDArray[np.int64]:
    """Checked codes of classes, (N,)."""
    array = as_numbers(classes, where=where)
    if array.ndim != 1:
        raise ShapeError(f"{where}: expected a code a row, shape (N,), got {array.shape}.")
    with np.errstate(invalid="ignore"):  # nan is no code, and is told below
        codes = array.astype(np.int64)
    bad = (codes != array) | (codes < 0) | (codes >= (count if count is not None else np.iinfo(np.int64).max))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        upper = "" if count is None else f" in 0..{count - 1}"
        raise DomainError(f"{where}: row {row} is {array[row].item()!r}, expected a whole number{upper}.")
    return codes


def check_same_rows(**named: object) -> None:
    """Refuse arrays whose numbers of rows differ."""
    rows = {name.replace("_", " "): len(each) for name, each in named.items()}  # type: ignore[arg-type]
    if len(set(rows.values())) > 1:
        told = ", ".join(f"{name} {count:,}" for name, count in rows.items())
        raise ShapeError(f"Row i of each must belong to row i of the others, but the rows differ: {told}.")


def rows_of_class(codes: NDArray[np.int64], code: int, *, fewest: int, where: str) -> NDArray[np.int64]:
    """Numbers of the rows that have a class."""
    rows = np.flatnonzero(codes == code)
    if len(rows) < fewest:
        raise DataError(
            f"{where}: class {code} has {len(rows)} images, expected at least {fewest}. "
            "Give more images of it, or leave its rows out."
        )
    return rows


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
        # How far what a mechanism made has left the bounds is measured too.
        free = unbounded(variable)
        first, second = (torch.as_tensor(free.encode(each, where=where)) for each in (one, other))
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
