"""The variable whose values are images: (C, H, W), canonically float32 in [-1, 1].

Outside, an image is uint8 in 0..255, floats in [0, 1] or a PIL picture; ``encode`` computes
``2 * pixels - 1`` in float32, with ``pixels = uint8 / 255``.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar, Literal, Protocol, cast, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator, model_validator

from graphs.declared import python_only
from graphs.errors import DomainError, ShapeError, SpecError, warn
from graphs.variables.arrays import Array, as_array, first_bad
from graphs.variables.base import Bound, Size, Values, VariableBase, by_name, check_numbers
from graphs.variables.picture import Resize, is_picture, picture_pixels

__all__ = ["Image"]

PIXEL_TOLERANCE = 1e-6
"""How far beyond [0, 1] a float image may reach by rounding; it is clipped."""


class _Arithmetic(Protocol):
    """What numpy arrays and torch tensors share."""

    def __add__(self, other: float, /) -> _Arithmetic: ...
    def __truediv__(self, other: float, /) -> _Arithmetic: ...
    def clip(self, low: float, high: float, /) -> object: ...


class Image(VariableBase):
    """An image of C channels, H pixels high and W wide.

    >>> Image(1, 2, 2).encode([[0.0, 0.5], [0.25, 1.0]], where="Evidence 'image'").tolist()
    [[[[-1.0, 0.0], [-0.5, 1.0]]]]

    Attributes:
        shape: (C, H, W), each at least 1.
        resize: how pictures and picture files of another size become this one: "crop" takes the middle in
            proportion, "stretch" takes all. None refuses them, as arrays of another size always are.
        range: [low, high], the pixels that are 0 and 1 in picture files of 16 or 32 bits or floats (PNG,
            TIFF, .npy); None for 8 bits. Other arrays are uint8 or in [0, 1] all the same.
    """

    dtype: ClassVar[str] = "float32"

    type: Literal["image"] = "image"
    shape: tuple[Size, Size, Size]
    resize: Resize | None = None
    range: tuple[Bound, Bound] | None = None

    @overload
    def __init__(
        self,
        /,
        channels: int,
        height: int,
        width: int,
        *,
        resize: Resize | None = None,
        range: tuple[float, float] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        /,
        *,
        shape: Sequence[int],
        type: Literal["image"] = "image",
        resize: Resize | None = None,
        range: tuple[float, float] | None = None,
    ) -> None: ...
    @python_only
    def __init__(self, /, *args: object, **data: object) -> None:
        sizes = ("channels", "height", "width")
        data = by_name("Image", sizes, args, data)
        given = {name: data[name] for name in sizes if name in data}
        if given and (len(given) < 3 or "shape" in data):
            told = ", ".join(f"{name} {value!r}" for name, value in given.items())
            raise SpecError(
                f"Image: expected channels, height and width, as in Image(1, 28, 28), or shape; got {told}"
                + (f" and shape {data['shape']!r}." if "shape" in data else " alone.")
            )
        super().__init__(**data)

    @model_validator(mode="before")
    @classmethod
    def _join_sizes(cls, data: object) -> object:
        sizes = ("channels", "height", "width")
        if isinstance(data, dict) and all(name in data for name in sizes):
            rest = {name: value for name, value in cast(dict[str, object], data).items() if name not in sizes}
            return {**rest, "shape": tuple(cast(object, data[name]) for name in sizes)}
        return cast(object, data)

    @field_validator("shape")
    @classmethod
    def _channels_first(cls, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        check_numbers(shape)
        channels, height, width = shape
        if width <= 4 < min(channels, height):
            raise ValueError(
                f"channels come first: [{width}, {channels}, {height}] for images of {width} channels, "
                f"{channels} pixels high and {height} wide; got {list(shape)}"
            )
        return shape

    @field_validator("range")
    @classmethod
    def _rises(cls, limits: tuple[float, float] | None) -> tuple[float, float] | None:
        if limits is not None and not limits[0] < limits[1]:
            raise ValueError(f"expected [low, high] with low below high, got {list(limits)}")
        return limits

    @property
    def channels(self) -> int:
        """C."""
        return self.shape[0]

    @property
    def height(self) -> int:
        """H, in pixels."""
        return self.shape[1]

    @property
    def width(self) -> int:
        """W, in pixels."""
        return self.shape[2]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one value: (C, H, W)."""
        return self.shape

    def encode(self, value: object, *, where: str) -> NDArray[np.float32]:
        """What ``pixels`` takes as (B, C, H, W) float32 in [-1, 1]: ``2 * pixels - 1``.

        Raises:
            ShapeError: images of another size or number of channels.
            DomainError: floats outside [0, 1], NaN, or integers other than uint8.
        """
        pixels = self.pixels(value, where=where)
        if pixels.dtype == np.uint8:
            pixels = pixels.astype(np.float32) / np.float32(255)
        return cast(NDArray[np.float32], pixels * np.float32(2) - np.float32(1))

    def encode_clipped(self, value: object, *, where: str) -> NDArray[np.float32]:
        """As ``encode``, with float pixels moved into [0, 1]; never NaN or infinity."""
        items = cast(Sequence[object], value) if isinstance(value, (list, tuple)) else [value]
        if not any(map(is_picture, items)):
            array = as_array(cast(object, value), where=where)
            return self.encode(array.clip(0, 1) if array.dtype.kind == "f" else array, where=where)
        return self.encode(cast(object, value), where=where)

    def pixels(self, value: object, *, where: str) -> Array:
        """``value`` checked, as (B, C, H, W): uint8 as given, or float32 in [0, 1]; it may share memory.

        Args:
            value: uint8 in 0..255 or floats in [0, 1], of shape (C, H, W) or (B, C, H, W), also (H, W) or
                (B, H, W) where C = 1; or a PIL image, or a list of them.
            where: what the value is, for error messages.

        Raises:
            ShapeError: images of another size or number of channels.
            DomainError: floats outside [0, 1], NaN, or integers other than uint8.
        """
        array = self._as_images(value, where=where)
        if array.dtype == np.uint8:
            if array.size and array.max() == 1:
                warn(
                    f"{where}: all pixels are 0 or 1 of 255, all but black. For a mask of zeros and ones "
                    "give floats, value.astype(float), or 255 for 1."
                )
            return array
        lacking = [item is None for item in array.flat] if array.dtype == object else []
        if any(lacking):
            index = first_bad(np.reshape(lacking, array.shape))
            raise DomainError(
                f"{where}: row {index[0]} has no value, or one that is masked, at {list(index[1:])}; "
                "expected a whole image. To have it inferred, give None for the image."
            )
        if array.dtype.kind != "f":
            whole = array.dtype.kind in "iu" and array.size and array.min() >= 0
            advice = "(value - low) / (high - low) as floats, by the range of the pixels"
            if array.dtype.kind == "b":
                advice = "value.astype(float), for 0 and 1"
            elif whole and array.max() <= 255:
                advice = "value.astype('uint8'), for 0..255"
            raise DomainError(
                f"{where}: an image is uint8 in 0..255 or float in [0, 1], got dtype {array.dtype}. "
                f"Convert it: {advice}."
            )
        if array.size == 0:
            return array.astype(np.float32)
        low, high = array.min(), array.max()
        if not (low >= -PIXEL_TOLERANCE and high <= 1 + PIXEL_TOLERANCE):  # also where one is NaN
            self._refuse(array, where=where)
        floats = array.astype(np.float32, copy=False)
        return floats.clip(0, 1) if low < 0 or high > 1 else floats

    def of_picture(self, picture: object, *, where: str) -> NDArray[np.uint8] | NDArray[np.float32]:
        """A PIL image as (C, H, W), uint8, or float32 in [0, 1] with ``range``; see ``picture_pixels``."""
        return picture_pixels(picture, self.shape, where=where, limits=self.range, resize=self.resize)

    def _as_images(self, value: object, *, where: str) -> Array:
        """``value`` as (B, C, H, W) of any dtype."""
        if is_picture(value):
            value = [value]
        # A list, or an object column of a table.
        if isinstance(value, (list, tuple)) or getattr(getattr(value, "dtype", None), "kind", "") == "O":
            items = list(cast(Sequence[object], value))
            if items and all(map(is_picture, items)):
                value = [self.of_picture(item, where=f"{where}, row {row}") for row, item in enumerate(items)]
        array = as_array(cast(object, value), where=where)
        if self.channels == 1 and array.shape[-2:] == self.shape[1:] and array.ndim in (2, 3):
            array = array.reshape(-1, *self.shape)
        if array.ndim in (3, 4) and array.shape[-3:] == self.shape:
            return array.reshape(-1, *self.shape)
        hint = self._hint(array.shape)
        raise ShapeError(f"{where}: expected {self._sizes()}, got shape {array.shape}.{hint}")

    def _sizes(self) -> str:
        channels, height, width = self.shape
        grey = f", ({height}, {width}) or (B, {height}, {width})" if channels == 1 else ""
        return f"images of shape {self.shape}, alone or (B, {channels}, {height}, {width}){grey}"

    def _hint(self, shape: tuple[int, ...]) -> str:
        channels, height, width = self.shape
        if shape[-3:] == (height, width, channels):
            return " Channels come first: np.moveaxis(value, -1, -3)."
        if len(shape) <= 2 and shape[-1:] == (self.numel,):
            return (
                " Flat pixels do not say their order. Give lists of rows of pixels, or, where this is their "
                f"order, value.reshape(-1, {channels}, {height}, {width})."
            )
        if len(shape) >= 2 and shape[-2:] != (height, width):
            return f" Resize it to height {height} and width {width} first."
        return ""

    def _refuse(self, array: Array, *, where: str) -> None:
        index = first_bad(~((array >= -PIXEL_TOLERANCE) & (array <= 1 + PIXEL_TOLERANCE)))
        worst = array[index].item()
        if not np.isfinite(worst):
            fix = "Mend the pixel."
        elif worst > 1:
            little = "Clip it: value.clip(0, 1), or clip=True where a question takes it."
            fix = "Give uint8 for 0..255, or divide by 255." if worst > 2 else little
        else:
            fix = "An image in [-1, 1] becomes (value + 1) / 2."
        raise DomainError(
            f"{where}: row {index[0]} has the pixel {worst!r} at {list(index[1:])}, "
            f"expected floats in [0, 1]. {fix}"
        )

    def decode(self, values: Values) -> Values:
        """Canonical images (..., C, H, W) as floats in [0, 1], clamped; same library and device."""
        return cast(Values, ((cast(_Arithmetic, values) + 1.0) / 2.0).clip(0.0, 1.0))

    def within(self, values: Values) -> Values:
        """Canonical images (..., C, H, W) between black and white."""
        return cast(Values, cast(_Arithmetic, values).clip(-1.0, 1.0))

    def describe(self) -> str:
        """A few words for listings, as in "image 1x28x28"."""
        return "image " + "x".join(map(str, self.shape))

    @property
    def numel(self) -> int:
        """Numbers in one image, C * H * W."""
        return prod(self.shape)
