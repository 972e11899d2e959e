"""MNIST and Morpho-MNIST as columns, from files on this machine; nothing is downloaded.

An idx file is two zero bytes, the type, the number of axes, their lengths, the bytes; here only unsigned
bytes (type 8), plain or gzipped (LeCun, Cortes & Burges, *The MNIST database*).

Morpho-MNIST has three causes of an image: digit, stroke thickness t (px) and intensity i (0..255).

    digit := MNIST's label                   t := 0.5 + g,  g ~ Gamma(10, rate 5)
    i := 64 + 191 sigmoid(2 t - 5 + e),      e ~ N(0, 0.5^2)
    image := MNIST's digit, redrawn at t and i (``datasets.redrawing``)

The laws are those of Pawlowski, Castro & Glocker 2020 (*Deep structural causal models*), the redrawing is by
Castro et al. 2019 (*Morpho-MNIST*). A folder has the layout of the published set:

    train-images-idx3-ubyte.gz  train-labels-idx1-ubyte.gz  train-morpho.csv (index, thickness, intensity)

and ``t10k-...`` for the test rows, in MNIST's own order.

Since the equations are known, so are the true counterfactuals: e is recovered from the row,
2 t - 5 + e = logit((i - 64) / 191), and the digit is redrawn at the new t, and at the i that follows from it
or is set. No equation says how another digit of the same hand looks: under do(digit) the image is unknown.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalgen.data.sources import Split, source_of
from causalgen.datasets.redrawing import morphomnist_images
from graphs.errors import DataError

__all__ = [
    "ATTRIBUTES",
    "MNISTSource",
    "MorphoMNISTSource",
    "Split",
    "draw_attributes",
    "file_prefix",
    "find_idx",
    "idx_bytes",
    "intensity_of",
    "mnist",
    "morphomnist",
    "morphomnist_truth",
    "read_attributes",
    "read_digits",
    "read_idx",
]

_UNSIGNED_BYTES = 8

ATTRIBUTES = ("thickness", "intensity")

_LEAST = 1e-9

Columns = Mapping[str, NDArray[Any]]

Floats = NDArray[np.float64]


def mnist(folder: str | os.PathLike[str], split: Split = "train") -> dict[str, NDArray[Any]]:
    """MNIST (LeCun, Cortes & Burges; CC BY-SA 3.0), as columns that ``scm.fit`` takes.

    Args:
        folder: holds the idx files, plain or gzipped, in itself or in ``MNIST/raw`` (as torchvision keeps
            them).
        split: "train" (60,000 rows) or "test" (10,000).

    Returns:
        ``digit`` (N,) int64 and ``image`` (N, 28, 28) uint8.

    Raises:
        DataError: a file is missing or damaged, or images and labels disagree.
    """
    root = Path(folder)
    raw = root / "MNIST" / "raw"
    if raw.is_dir():
        return read_digits(raw, split)
    if root.is_dir() and not any(root.glob("*-ubyte*")):
        raise DataError(
            f"No MNIST in {root}: its files are expected there or in {raw}; nothing is downloaded."
        )
    return read_digits(root, split)


MNISTSource = source_of("mnist", mnist, image="image", categorical="digit")
"""``mnist:DIR``."""


def read_digits(folder: Path, split: Split) -> dict[str, NDArray[Any]]:
    """Images and labels of MNIST's file names in a folder; arguments and errors as ``mnist``."""
    prefix = file_prefix(split)
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}. Nothing is downloaded here: get the data first.")
    images = read_idx(find_idx(folder, f"{prefix}-images-idx3-ubyte"), axes=3)
    labels = read_idx(find_idx(folder, f"{prefix}-labels-idx1-ubyte"), axes=1)
    if len(images) != len(labels):
        raise DataError(
            f"{folder}: {prefix} has {len(images):,} images but {len(labels):,} labels. "
            "One of the files belongs to another set."
        )
    return {"digit": labels.astype(np.int64), "image": images}


def file_prefix(split: str) -> str:
    """How the names of a split's files begin."""
    prefixes = {"train": "train", "test": "t10k"}
    if split not in prefixes:
        raise DataError(f"Expected the split 'train' or 'test', got {split!r}.")
    return prefixes[split]


def find_idx(folder: Path, name: str) -> Path:
    """The file ``name`` of a folder, or ``name.gz`` where that is not there."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"There is neither {name} nor {name}.gz in {folder}.")


def read_idx(path: Path, axes: int) -> NDArray[np.uint8]:
    """The array of an idx file with so many axes."""
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"Cannot read {path}: {error}.") from error
    head = 4 + 4 * axes
    if len(data) < head or data[:4] != bytes([0, 0, _UNSIGNED_BYTES, axes]):
        raise DataError(f"{path} is no idx file of unsigned bytes with {axes} axes: it begins {data[:4]!r}.")
    shape = tuple(int.from_bytes(data[at : at + 4]) for at in range(4, head, 4))
    if len(data) - head != prod(shape):
        raise DataError(
            f"{path} says its array has shape {shape}, {prod(shape):,} bytes, but {len(data) - head:,} "
            "follow. It is cut short or damaged: get it again."
        )
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """An array as a gzipped idx file, the same bytes for the same array."""
    head = bytes([0, 0, _UNSIGNED_BYTES, array.ndim]) + b"".join(n.to_bytes(4) for n in array.shape)
    return gzip.compress(head + array.tobytes(), compresslevel=6, mtime=0)


def morphomnist(folder: str | os.PathLike[str], split: Split = "train") -> dict[str, NDArray[Any]]:
    """Morpho-MNIST, as columns that ``scm.fit`` takes.

    Args:
        folder: as ``causalgen data morphomnist`` writes it, or as it is published.
        split: "train" or "test".

    Returns:
        ``digit`` (N,) int64, ``thickness`` and ``intensity`` (N,) float64, ``image`` (N, 28, 28) uint8.

    Raises:
        DataError: a file is missing or damaged, or the files disagree.
    """
    root = Path(folder)
    digits = read_digits(root, split)
    table = root / f"{file_prefix(split)}-morpho.csv"
    attributes = read_attributes(table)
    if len(attributes["thickness"]) != len(digits["digit"]):
        raise DataError(
            f"{table} has {len(attributes['thickness']):,} rows, but there are {len(digits['digit']):,} "
            "images beside it. It belongs to another set."
        )
    return {"digit": digits["digit"], **attributes, "image": digits["image"]}


MorphoMNISTSource = source_of("morphomnist", morphomnist, image="image", categorical="digit")
"""``morphomnist:DIR``."""


def read_attributes(path: Path) -> dict[str, Floats]:
    """Thickness and intensity of a published table, by name, each (N,)."""
    import pandas  # slow to import

    if not path.is_file():
        raise DataError(f"There is no table {path}.")
    try:
        frame = pandas.read_csv(path)
    except (OSError, ValueError) as error:
        raise DataError(f"Cannot read the table {path}: {error}") from error
    missing = [name for name in ATTRIBUTES if name not in frame.columns]
    if missing:
        raise DataError(
            f"{path} lacks the column {' and '.join(map(repr, missing))}; it has {', '.join(frame.columns)}."
        )
    if "index" in frame.columns and not np.array_equal(frame["index"], np.arange(len(frame))):
        raise DataError(
            f"{path}: the column 'index' must count the rows from 0, in the order of MNIST's images."
        )
    columns: dict[str, Floats] = {}
    for name, most in zip(ATTRIBUTES, (np.inf, 255), strict=True):
        values = np.asarray(pandas.to_numeric(frame[name], errors="coerce"), dtype=np.float64)
        wrong = np.flatnonzero(~((values > 0) & (values <= most) & np.isfinite(values)))
        if len(wrong):
            bound = "a number above 0" if name == "thickness" else "a number in (0, 255]"
            raise DataError(
                f"{path}, row {wrong[0]}: expected {name} to be {bound}, got {frame[name][wrong[0]]!r}."
            )
        columns[name] = values
    return columns


def draw_attributes(rows: int, *, seed: int | Sequence[int]) -> dict[str, Floats]:
    """Thickness and intensity from their law, by name, each (rows,)."""
    random = np.random.default_rng(seed)
    thickness = 0.5 + random.gamma(10, 1 / 5, rows)
    return {"thickness": thickness, "intensity": intensity_of(thickness, random.normal(0, 0.5, rows))}


def intensity_of(thickness: Floats, noise: Floats | float = 0.0) -> Floats:
    """The true equation of intensity, with e ~ N(0, 0.5^2): 64 + 191 sigmoid(2 t - 5 + e)."""
    return 64 + 191 / (1 + np.exp(-(2 * thickness - 5 + noise)))


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
