"""Image files into one uint8 array, each checked before it is trusted.

A path in a table is data, perhaps somebody else's: it is relative to the table's folder and stays inside it,
also through links. The size, of the file and of the picture, is compared before a pixel is decoded, so that a
bomb costs nothing, and only formats that PIL decodes itself are opened: ``graphs.variables.picture``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures
from PIL import UnidentifiedImageError

from graphs.errors import DataError, DomainError
from graphs.text import shortened
from graphs.variables import Image
from graphs.variables.picture import FORMATS, MAX_PIXELS, is_picture, ranged

__all__ = ["ENDINGS", "MAX_BYTES", "picture_cell", "picture_column"]

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".npy")
"""How names of such files end, where a text may mean something else; what a file is, its content says."""

_ARRAY = b"\x93NUMPY"
"""How a .npy file begins."""

MAX_BYTES = 256 * 2**20
"""Largest file that is opened: MAX_PIXELS of four channels, not compressed, and some more."""


def picture_column(
    items: Sequence[object], variable: Image, *, column: str, folder: Path | None, first: int = 0
) -> NDArray[Any]:
    """Pictures and paths of picture files as (N, C, H, W) uint8, or, with a range, float32 in [0, 1].

    Items are PIL images, the bytes of picture files, or paths: relative to the table's ``folder`` and within
    it, or, where that is None, the caller's own. ``first`` is the number of the first row, for messages.
    Other sizes become what the variable says; colours are converted.
    """
    pixels = np.empty((len(items), *variable.shape), dtype=np.uint8 if variable.range is None else np.float32)
    root = None if folder is None else folder.resolve()
    for row, item in enumerate(items):
        where = f"{column}, row {first + row}"
        if isinstance(item, bytes):
            pixels[row] = _decode(BytesIO(item), len(item), "in the cell", variable, where)
        elif is_picture(item):
            pixels[row] = _pixels(cast(Pictures.Image, item), variable, where)
        elif isinstance(item, (str, os.PathLike)):
            text = os.fspath(item)
            if not text:
                raise DataError(f"{where}: the path is empty. Give a picture's, or None where there is none.")
            path = Path(str(text)) if root is None else _inside(root, str(text), where)
            pixels[row] = _read(path, variable, where)
        else:
            shape = getattr(item, "shape", None)
            told = shortened(repr(item), 60) if shape is None else f"an array of shape {tuple(shape)}"
            raise DataError(
                f"{where}: expected a picture or the path of one, as in other rows, got {told}. Give all "
                "rows alike."
            )
    return pixels


def picture_cell(cell: object) -> object:
    """A cell that may hold a picture, as a picture, path or array.

    Without the ``{"bytes": ..., "path": ...}`` that image data sets have, and without the arrays of arrays
    that lists of lists of pixels come as, whose type says whether they are bytes.

    >>> picture_cell({"bytes": None, "path": "7.png"})
    '7.png'
    """
    if isinstance(cell, dict) and cell.keys() == {"bytes", "path"}:
        return cell["path"] if cell["bytes"] is None else cell["bytes"]
    if isinstance(cell, np.ndarray) and cell.dtype == object:
        try:
            return np.array([picture_cell(part) for part in cell])
        except ValueError:  # of several shapes, which the variable refuses
            return cell.tolist()
    return cell


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


def _read(path: Path, variable: Image, where: str) -> NDArray[Any]:
    if not path.is_file():
        raise DataError(f"{where}: there is no file {path}.")
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(
            f"{where}: cannot read the picture {path}: {error.strerror or error}. "
            "Let it be read, or give another."
        ) from error
    with file:
        return _decode(file, path.stat().st_size, str(path), variable, where)


def _decode(file: BinaryIO, size: int, name: str, variable: Image, where: str) -> NDArray[Any]:
    """The pixels of an open file."""
    if size > MAX_BYTES:
        raise DataError(
            f"{where}: the file {name} has {size:,} bytes, expected at most {MAX_BYTES:,}. "
            "Save the picture as PNG first."
        )
    begins = file.read(len(_ARRAY))
    file.seek(0)
    if begins == _ARRAY:
        return _array(file, variable, f"{where} ({Path(name).name})")
    with _open(file, name, where) as picture:
        return _pixels(picture, variable, where=f"{where} ({Path(name).name})")


def _array(file: BinaryIO, variable: Image, where: str) -> NDArray[Any]:
    """(C, H, W) of an open .npy file: uint8, or numbers of the variable's range."""
    shape = variable.shape
    try:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0
        found = (header if version == (1, 0) else np.lib.format.read_array_header_2_0)(file)[0]
        if found == shape or (shape[0] == 1 and found == shape[1:]):  # its header may claim to be huge
            file.seek(0)
            array = np.load(file, allow_pickle=False)
        else:
            array = None
    except Exception as error:  # a damaged header raises nearly anything
        raise DataError(f"{where}: cannot read the array: {error}. Give one that np.save wrote.") from error
    if array is None:
        raise DataError(
            f"{where}: expected an array of shape {shape}, got {found}. Channels come first, and "
            "arrays are not resized."
        )
    whole = array.reshape(shape)
    if variable.range is None:
        if whole.dtype != np.uint8:
            raise DataError(
                f"{where}: expected uint8, got {whole.dtype}. Declare what is black and what is white, as in "
                "range: [0, 65535]."
            )
        return whole
    if whole.dtype == np.uint8 or whole.dtype.kind not in "uif":
        raise DataError(
            f"{where}: expected numbers of more than 8 bits for the variable's range, got {whole.dtype}. "
            "Save them all alike, or declare no range."
        )
    try:
        return ranged(whole, variable.range, where=where)
    except DomainError as error:
        raise DataError(str(error)) from error


def _open(file: BinaryIO, name: str, where: str) -> Pictures.Image:
    """The picture of a file, not decoded."""
    try:
        return Pictures.open(file, formats=FORMATS)
    except (Pictures.DecompressionBombError, Pictures.DecompressionBombWarning) as error:
        raise DataError(
            f"{where}: the picture {name} is larger than {MAX_PIXELS:,} pixels. Resize it first."
        ) from error
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise DataError(
            f"{where}: cannot read the picture {name}: expected an undamaged file of one of {known}, "
            f"got {_start(file)}. Save it again, as PNG."
        ) from error
    except Exception as error:  # what a broken file raises depends on its format: nearly anything
        raise DataError(
            f"{where}: cannot read the picture {name}: {error}. Give an undamaged one."
        ) from error


def _start(file: BinaryIO) -> str:
    """How a file begins, which tells what it is."""
    file.seek(0)
    start = file.read(8)
    return f"one that begins with {start!r}" if start else "an empty one"


def _pixels(picture: Pictures.Image, variable: Image, where: str) -> NDArray[Any]:
    """(C, H, W) of an open picture; nothing is decoded before its size is known to be right."""
    try:
        return variable.of_picture(picture, where=where)
    except DomainError as error:
        raise DataError(str(error)) from error
