"""A PIL image into pixels, exactly or not at all: the only place that knows what its formats and modes hide.

    taken                                      refused, since pixels would be guessed, lost or not there
    1 to 8 bits a channel, grey or a palette   16 bits, 32 bits, floats, unless their range is declared
    alpha that is 255 everywhere               real transparency, where the variable has no such channel
    one frame                                  several frames or pages
    EXIF orientation: applied                  inks and Lab, whose colours depend on a profile
    PNG, JPEG, BMP, GIF, TIFF, WebP            other formats, which PIL may start a program for
    tiles and strips that cover the picture    a frame within its screen, strips that are missing

Another size is refused, or resized where that is asked for: bilinear, averaged where the picture shrinks.
With a range ``[low, high]`` a picture is one channel of 16 or 32 bits or of floats, and becomes
``(pixel - low) / (high - low)``; 8 bits, whose range is another, are refused then, and so is a pixel outside.

What a header says is looked at before anything is decoded. A colour profile or gamma in a file changes
nothing: the bytes are the pixels. PIL images are told by what they can do; the library is never imported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from graphs.errors import DomainError, ShapeError
from graphs.variables.arrays import first_bad
from graphs.variables.numeric import bound_text

__all__ = ["FORMATS", "MAX_PIXELS", "Resize", "is_picture", "picture_pixels", "ranged"]

MAX_PIXELS = 50_000_000
"""Largest picture that is decoded; PIL itself only warns until twice as many."""

Resize = Literal["crop", "stretch"]
"""How a picture of another size is resized: its middle, in proportion, or all of it, out of proportion."""

_BILINEAR = 2
"""PIL.Image.Resampling.BILINEAR."""

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
"""Decoded by PIL itself; for others, such as EPS, it starts other programs, whatever the file's name is."""

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""The PIL mode that holds so many 8-bit channels."""

_ORIENTATION = 0x0112
"""The EXIF tag that says how a camera was held."""

_SIZE, _BITS, _TILE = (256, 257), (258,), (322, 323)
"""Tags of TIFF: width and height before it is turned, bits a channel, width and height of a tile.

A tile may be far larger than the picture, and is decoded whole."""

_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0

_MAX_TILE = 1024
"""Largest side of a tile, unless the picture itself is larger."""


class _Picture(Protocol):
    """What a PIL image can do."""

    mode: str
    size: tuple[int, int]

    def convert(self, mode: str) -> _Picture: ...
    def point(self, lut: Callable[[Any], Any]) -> _Picture: ...
    def resize(
        self, size: tuple[int, int], resample: int, box: tuple[float, float, float, float]
    ) -> _Picture: ...
    def getchannel(self, channel: str) -> _Picture: ...
    def getexif(self) -> Mapping[int, int]: ...


def is_picture(value: object) -> bool:
    """Whether ``value`` is a PIL image."""
    return all(hasattr(value, name) for name in ("mode", "size", "convert", "getchannel"))


def picture_pixels(
    picture: object,
    shape: tuple[int, int, int],
    *,
    where: str,
    limits: tuple[float, float] | None = None,
    resize: Resize | None = None,
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Pixels of a PIL image, perhaps of one that is open and not decoded yet, turned as its EXIF says.

    Colours become grey by luma, a palette its colours. The size must be ``shape``, (channels, height, width),
    unless ``resize`` says how another becomes it. ``limits`` are what is 0 and what is 1, of more than 8
    bits: the pixels are then float32 in [0, 1], else uint8.

    Raises:
        DomainError: its pixels would have to be guessed, are outside the limits, or cannot be decoded.
        ShapeError: it has another size.
    """
    image = cast(_Picture, picture)
    mode, middle = _MODES.get(shape[0]), 0
    if mode is None:
        raise DomainError(
            f"{where}: a PIL image has 1 to 4 channels, the variable has {shape[0]}; give an array."
        )
    try:
        _check_header(image, shape, where, limits, resize)
        if "A" not in mode and _is_transparent(image):
            raise DomainError(f"{where}: the PIL image is transparent; paste it on a background first.")
        if limits is None:
            image = image.convert(mode)
        else:
            given = np.asarray(image)
            ranged(given, limits, where=where)
            if image.mode.startswith("I"):  # PIL's floats have 24 bits, which few need about their middle
                middle = (int(given.min()) + int(given.max())) // 2
                image = image.convert("I").point(lambda pixel: pixel - middle).convert("F")
        # After decoding: the EXIF of a PNG may be at its end.
        orientation = cast(_Picture, picture).getexif().get(_ORIENTATION, 1)
        if resize is not None:
            image = _resized(image, shape, orientation, resize)
        pixels = _turned(np.asarray(image), orientation)
    except DomainError:
        raise
    except Exception as error:  # what a broken file raises depends on its format: nearly anything
        raise DomainError(f"{where}: cannot read the picture: {error}. Give an undamaged one.") from error
    if pixels.shape[:2] != shape[1:]:
        raise _of_another_size(pixels.shape[0], pixels.shape[1], shape, where)
    pixels = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    # Within the limits before they were averaged, and after it but for roundings.
    if limits is None:
        return pixels.astype(np.uint8)
    return ranged((pixels.astype(np.float64) + middle).clip(*limits), limits, where=where)


def ranged(pixels: NDArray[Any], limits: tuple[float, float], *, where: str) -> NDArray[np.float32]:
    """Pixels as float32 in [0, 1], of limits that are 0 and 1.

    Raises:
        DomainError: one is outside, or no number.
    """
    low, high = limits
    outside = ~((pixels >= low) & (pixels <= high))
    if outside.any():
        index = first_bad(outside)
        raise DomainError(
            f"{where}: the pixel at {list(index)} is {pixels[index].item()!r}, expected "
            f"{bound_text(low)} to {bound_text(high)}, the variable's range. Declare that of the pixels."
        )
    return ((pixels.astype(np.float64) - low) / (high - low)).astype(np.float32).clip(0, 1)


def _resized(image: _Picture, shape: tuple[int, int, int], orientation: int, resize: Resize) -> _Picture:
    """A decoded picture that has the shape once it is turned; itself where it has it already."""
    _, height, width = shape
    if orientation in (5, 6, 7, 8):
        height, width = width, height
    if image.size == (width, height):
        return image
    across, down = image.size
    box = (0.0, 0.0, float(across), float(down))
    if resize == "crop":
        scale = min(across / width, down / height)
        left, top = (across - scale * width) / 2, (down - scale * height) / 2
        box = (left, top, across - left, down - top)
    return image.resize((width, height), _BILINEAR, box)


def _check_header(
    image: _Picture,
    shape: tuple[int, int, int],
    where: str,
    limits: tuple[float, float] | None,
    resize: Resize | None,
) -> None:
    """Refuse what needs no decoding to be refused."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DomainError(
            f"{where}: expected at most {MAX_PIXELS:,} pixels, got {width} x {height}. Resize it first."
        )
    # It may lie on its side: its orientation may stand at its end.
    if resize is None and {height, width} != set(shape[1:]):
        raise _of_another_size(height, width, shape, where)
    # Whether there is a second frame, not how many: of a GIF, that would walk through all.
    if getattr(image, "is_animated", False):
        raise DomainError(
            f"{where}: expected one picture, got several frames; save the one that is meant alone, or give "
            "picture.copy()."
        )
    form = getattr(image, "format", None)
    if form not in (None, *FORMATS):
        raise DomainError(
            f"{where}: expected a picture of one of {', '.join(FORMATS)}, got {form}. "
            "Save it as PNG, or give picture.copy(), which decodes it."
        )
    tags = getattr(image, "tag_v2", {})
    _check_depth(image, shape, where, limits, tags)
    if image.mode in ("CMYK", "LAB"):
        raise DomainError(
            f"{where}: a PIL image of mode {image.mode!r} has colours that depend on a profile; "
            "convert it to RGB first."
        )
    side = max(_numbers(tags, _TILE), default=0)
    if side > max(_MAX_TILE, 2 * width, 2 * height):
        raise DomainError(
            f"{where}: tiles of {side:,} pixels for a picture of {width} x {height}. Save it as PNG first."
        )
    if not _is_covered(image, tags):
        raise DomainError(
            f"{where}: the file has pixels for a part of its {width} x {height} only; "
            "paste them on a background first."
        )


def _check_depth(
    image: _Picture,
    shape: tuple[int, int, int],
    where: str,
    limits: tuple[float, float] | None,
    tags: Mapping[int, Any],
) -> None:
    """Refuse bits a channel that the variable does not declare, and those that decoding would cut."""
    whole = image.mode.startswith("I") or image.mode == "F"  # all bits are kept
    if limits is None:
        if whole or _is_deep(image, tags):
            raise DomainError(
                f"{where}: a PIL image of mode {image.mode!r} has more than 8 bits a channel; declare its "
                "range, as in range: [0, 65535], convert it to 8 bits first, or give a float array in [0, 1]."
            )
        return
    if not whole or shape[0] != 1:
        why = "is cut to 8 bits by decoding" if _is_deep(image, tags) else "has 8 bits a channel"
        why = f"has one channel, the variable {shape[0]}" if whole else why
        raise DomainError(
            f"{where}: a PIL image of mode {image.mode!r} {why}, but the variable declares the range "
            f"{bound_text(limits[0])} to {bound_text(limits[1])} of more than 8 bits. Give a .npy file of "
            f"shape {shape}, or declare no range."
        )
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # decoding inverts 8 bits, and leaves more as they are
        raise DomainError(
            f"{where}: the TIFF says that 0 is white, and more than 8 bits are not inverted by decoding. "
            "Save it with 0 as black."
        )


def _of_another_size(height: int, width: int, shape: tuple[int, int, int], where: str) -> ShapeError:
    return ShapeError(
        f"{where}: expected an image of height {shape[1]} and width {shape[2]}, "
        f"got height {height} and width {width}. Resize it first, or declare how, as in resize: crop."
    )


def _is_deep(image: _Picture, tags: Mapping[int, Any]) -> bool:
    """Whether decoding will cut 16 bits a channel to 8: the raw modes are such as "RGB;16B"."""
    raw = re.search(r";16[A-Z]", str(getattr(image, "tile", None)))
    return raw is not None or max(_numbers(tags, _BITS), default=0) > 8


def _numbers(tags: Mapping[int, Any], wanted: Sequence[int]) -> list[int]:
    return [int(each) for tag in wanted for each in np.ravel(tags.get(tag, ()))]


def _is_covered(image: _Picture, tags: Mapping[int, Any]) -> bool:
    """Whether what is still to be decoded fills the picture: the rest would come out black."""
    width, height = _numbers(tags, _SIZE) or image.size
    tiles = cast("Sequence[Any]", getattr(image, "tile", ()))
    boxes = {tuple(map(int, tile[1])) for tile in tiles if tile[1] is not None}
    if not boxes or (0, 0, width, height) in boxes:
        return True
    covered = np.zeros((height, width), dtype=bool)
    for left, top, right, bottom in boxes:
        covered[top:bottom, left:right] = True
    return bool(covered.all())


def _is_transparent(image: _Picture) -> bool:
    if not getattr(image, "has_transparency_data", "A" in image.mode):
        return False
    return bool((np.asarray(image.convert("RGBA").getchannel("A")) < 255).any())


def _turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """(height, width, ...) as seen, by the EXIF tag Orientation, 1 to 8; others turn nothing."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels
