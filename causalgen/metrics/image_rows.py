"""Validation of metrics' arguments: images (N, C, H, W), codes of classes, equal numbers of rows.

Images are (N, C, H, W), or (N, H, W) for one channel: uint8 in 0..255 or floats in [0, 1], as numpy arrays or
tensors, N at least 1. Classes are codes, (N,).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphs.errors import DataError, DomainError, ShapeError
from graphs.variables import Image
from graphs.variables.arrays import as_array, as_numbers

__all__ = ["check_same_rows", "class_codes", "image_rows", "rows_of_class"]


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
