"""Image files into one uint8 array, each checked before it is trusted.

A path in a table is data, perhaps somebody else's: it is relative to the table's folder and stays inside it,
also through links. The size is compared before a pixel is decoded, so that a bomb costs nothing, and only
formats that PIL decodes itself are opened.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures
from PIL import UnidentifiedImageError

from graphs.errors import DataError, DomainError
from graphs.variables import Image
from graphs.variables.arrays import is_picture, picture_pixels

__all__ = ["MAX_PIXELS", "picture_column"]

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
"""Read by PIL itself; for others, such as EPS, it starts other programs, whatever the file's name is."""

MAX_PIXELS = 50_000_000
"""Largest picture that is decoded; PIL itself only warns until twice as many."""


def picture_column(
    items: Sequence[object], variable: Image, *, column: str, folder: Path | None
) -> NDArray[np.uint8]:
    """Pictures and paths of picture files as (N, C, H, W) uint8.

    Args:
        items: PIL images, or paths: relative to ``folder`` and within it.
        variable: the size they must have; colours are converted, sizes are not.
        column: what the column is, for messages, as in "Column 'image' of train.csv".
        folder: of the table; None for data in memory, whose paths are the caller's own.

    Raises:
        DataError: a file that is missing, unreadable or out of bounds, or an image of another size.
    """
    pixels = np.empty((len(items), *variable.shape), dtype=np.uint8)
    root = None if folder is None else folder.resolve()
    for row, item in enumerate(items):
        where = f"{column}, row {row}"
        if is_picture(item):
            with _reading(where, "the picture"):
                pixels[row] = _pixels(cast(Pictures.Image, item), variable, where)
        elif isinstance(item, (str, os.PathLike)):
            text = os.fspath(item)
            path = Path(str(text)) if root is None else _inside(root, str(text), where)
            pixels[row] = _read(path, variable, where)
        else:
            raise DataError(f"{where}: expected a picture or the path of one, got {item!r}.")
    return pixels


def _inside(root: Path, text: str, where: str) -> Path:
    """The file that a table's path means; it must lie in the table's folder."""
    fix = f"Give a path relative to the table's folder {root}, and inside it."
    if PurePosixPath(text).is_absolute() or PureWindowsPath(text).drive or PureWindowsPath(text).root:
        raise DataError(f"{where}: the path {text!r} is absolute. {fix}")
    try:
        path = (root / text).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links, a null byte
        raise DataError(f"{where}: {text!r} is no path ({error}). {fix}") from error
    if not path.is_relative_to(root):
        raise DataError(f"{where}: the path {text!r} leads out of the table's folder. {fix}")
    return path


def _read(path: Path, variable: Image, where: str) -> NDArray[np.uint8]:
    if not path.is_file():
        raise DataError(f"{where}: there is no file {path}.")
    with _reading(where, f"the picture {path}"), Pictures.open(path, formats=FORMATS) as picture:
        return _pixels(picture, variable, where=f"{where} ({path.name})")


@contextmanager
def _reading(where: str, what: str) -> Iterator[None]:
    """Errors of PIL and of domains as ours."""
    try:
        with warnings.catch_warnings():
            # Ours is the stricter limit, checked before decoding.
            warnings.simplefilter("ignore", Pictures.DecompressionBombWarning)
            yield
    except DataError:
        raise
    except DomainError as error:
        raise DataError(str(error)) from error
    except Pictures.DecompressionBombError as error:
        raise DataError(f"{where}: {what} is larger than {MAX_PIXELS:,} pixels.") from error
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise DataError(f"{where}: cannot read {what}: expected a file of one of {known}.") from error
    except Exception as error:  # what a broken file raises depends on its format: nearly anything
        raise DataError(f"{where}: cannot read {what}: {error}.") from error


def _pixels(picture: Pictures.Image, variable: Image, where: str) -> NDArray[np.uint8]:
    """(C, H, W) of an open picture; nothing is decoded before its size is known to be right."""
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise DataError(f"{where}: {width} x {height} is larger than {MAX_PIXELS:,} pixels.")
    sizes = (variable.height, variable.width)
    pixels = None
    if {height, width} == set(sizes):  # perhaps lying on its side: its orientation may stand at its end
        pixels = picture_pixels(picture, variable.channels, where=where)
        height, width = pixels.shape[1:]
    if pixels is None or (height, width) != sizes:
        raise DataError(
            f"{where}: expected an image of height {variable.height} and width {variable.width}, "
            f"got height {height} and width {width}. Resize it first."
        )
    return pixels
