"""torchvision-style data sets (``torch.utils.data.Dataset``): ``len(d)`` items ``(image, label)`` as columns.

The image goes to the only image variable, the label to the only categorical one. Where the data set
holds plain arrays and transforms nothing (MNIST, CIFAR), they are taken whole, not an item at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeGuard, cast

import numpy as np
from numpy.typing import NDArray

from causalgen.data.pictures import picture_column
from graphs.errors import DataError
from graphs.variables import Image, Variable
from graphs.variables.arrays import as_array
from graphs.variables.picture import is_picture

__all__ = ["Dataset", "dataset_columns", "is_dataset"]


class Dataset(Protocol):
    """Anything with a length and numbered items."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> object: ...


def is_dataset(source: object) -> TypeGuard[Dataset]:
    """Whether ``source`` is a sequence of items in torchvision's style, and no mapping or table."""
    named = (
        isinstance(source, Mapping) or hasattr(source, "columns") or isinstance(source, (str, bytes, Path))
    )
    return not named and hasattr(source, "__len__") and hasattr(source, "__getitem__")


def dataset_columns(source: Dataset, variables: Mapping[str, Variable]) -> dict[str, object]:
    """The columns that a data set has for these variables, unchecked.

    Raises:
        DataError: the variables are not one image and at most one category, or an item is no such pair.
    """
    image, label = _names(variables)
    arrays = _whole(source)
    if arrays is None:
        arrays = _items(source, image, cast(Image, variables[image]))
    images, labels = arrays
    return {image: images} | ({} if label is None else {label: labels})


def _names(variables: Mapping[str, Variable]) -> tuple[str, str | None]:
    images = [name for name, variable in variables.items() if variable.type == "image"]
    labels = [name for name, variable in variables.items() if variable.type == "categorical"]
    if len(images) != 1 or len(labels) > 1 or len(images) + len(labels) < len(variables):
        found = ", ".join(f"{name} ({variable.describe()})" for name, variable in variables.items())
        raise DataError(
            "A data set of (image, label) items fits one image variable and at most one categorical "
            f"variable; the model has {found}. Give a table or a dict of arrays, with a column for each."
        )
    return images[0], labels[0] if labels else None


def _whole(source: Dataset) -> tuple[object, object] | None:
    """Its arrays as (N, C, H, W) or (N, H, W) uint8 and labels, where it holds such and changes nothing."""
    data, targets = getattr(source, "data", None), getattr(source, "targets", None)
    changes = any(
        getattr(source, name, None) is not None for name in ("transform", "target_transform", "transforms")
    )
    if data is None or targets is None or changes:
        return None
    images = as_array(data, where="The data set's images")
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or len(images) != len(source):
        return None
    # torchvision keeps colour images channels last, as PIL does.
    return (np.moveaxis(images, -1, 1) if images.ndim == 4 else images), targets


def _items(source: Dataset, image: str, variable: Image) -> tuple[NDArray[Any], list[object]]:
    images: list[object] = []
    labels: list[object] = []
    for row in range(len(source)):
        where = f"The data set's image ({image!r}), row {row}"
        try:
            item = source[row]
        except Exception as error:
            raise DataError(f"The data set's row {row} cannot be read: {error}.") from error
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise DataError(
                f"The data set's row {row}: expected a pair (image, label), got {type(item).__name__}."
            )
        picture, target = cast(tuple[object, object], tuple(item))
        # Pictures become bytes at once: decoded lazily, they would keep their files open.
        pixels = (
            picture_column([picture], variable, column=where, folder=None)[0]
            if is_picture(picture)
            else picture
        )
        images.append(pixels)
        # A 0-dimensional tensor or array is a plain number.
        plain = getattr(target, "item", None)
        labels.append(plain() if callable(plain) else target)
    return as_array(images, where=f"The data set's images ({image!r})"), labels
