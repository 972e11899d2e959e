"""``causalgen data``: folders of data sets made here, all or nothing.

morphomnist   MNIST redrawn, with the layout of the published set
pendulum      drawn scenes: a table and PNG files for each split
faces         drawn portraits, likewise
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalgen.datasets.faces import draw_faces, face_images
from causalgen.datasets.folders import check_target, write_folder
from causalgen.datasets.mnist import (
    ATTRIBUTES,
    Split,
    draw_attributes,
    file_prefix,
    idx_bytes,
    mnist,
    read_attributes,
)
from causalgen.datasets.pendulum import draw_scenes, pendulum_images
from causalgen.datasets.redrawing import morphomnist_images
from causalgen.saving.atomic import new_folder, write_synced
from graphs.errors import DataError

__all__ = ["ABOUT", "make_faces", "make_morphomnist", "make_pendulum", "write_morphomnist"]

ABOUT = "morphomnist.json"
"""The file that says how a folder was made, and marks it as one that may be replaced."""

Columns = Mapping[str, NDArray[Any]]


def make_morphomnist(
    mnist_folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    splits: Sequence[Split] = ("train", "test"),
    tables: str | os.PathLike[str] | None = None,
    seed: int = 0,
    workers: int = 1,
    progress: bool = True,
) -> Path:
    """Make Morpho-MNIST of MNIST and write it, all or nothing.

    Args:
        mnist_folder: of ``mnist``.
        out: the folder to write; one written before is replaced.
        splits: which to make.
        tables: thickness and intensity to use instead of drawing them: a folder with ``train-morpho.csv`` and
            ``t10k-morpho.csv``, or one such table where one split is made.
        seed: of the drawn values.
        workers: processes, as in ``morphomnist_images``.
        progress: show a bar.

    Returns:
        The folder.

    Raises:
        DataError: MNIST or a table is missing or disagrees with the other, or ``out`` holds other things.
        OSError: the folder cannot be written.
    """
    target = check_target(Path(out), ABOUT)
    if not splits or len(set(splits)) < len(splits):
        raise DataError(f"Expected the splits train, test or both, got {', '.join(splits) or 'none'}.")
    # All that can be wrong is found before the first of many minutes.
    digits = {split: mnist(mnist_folder, split) for split in splits}
    causes = {split: _causes(split, splits, len(digits[split]["digit"]), tables, seed) for split in splits}
    made: dict[str, Columns] = {}
    for split in splits:
        values = causes[split][0]
        thickness, intensity = (values[name] for name in ATTRIBUTES)
        images = morphomnist_images(
            digits[split]["image"], thickness, intensity, workers=workers, progress=progress
        )
        made[split] = {"digit": digits[split]["digit"], **values, "image": images}
    return write_morphomnist(target, made, {split: attributes for split, (_, attributes) in causes.items()})


def write_morphomnist(out: Path, made: Mapping[str, Columns], origins: Mapping[str, str]) -> Path:
    """Write columns by split, as ``morphomnist`` reads them, and where their values come from."""
    target = check_target(out, ABOUT)
    files: dict[str, bytes] = {}
    for split, columns in made.items():
        prefix = file_prefix(split)
        files[f"{prefix}-images-idx3-ubyte.gz"] = idx_bytes(columns["image"])
        files[f"{prefix}-labels-idx1-ubyte.gz"] = idx_bytes(columns["digit"].astype(np.uint8))
        files[f"{prefix}-morpho.csv"] = _table(columns)
    about = {
        "format": "causalgen-morphomnist",
        "version": 1,
        "source": "MNIST (LeCun, Cortes & Burges; CC BY-SA 3.0), redrawn",
        "recipe": [
            "Castro et al. 2019, Morpho-MNIST",
            "Pawlowski, Castro & Glocker 2020, Deep structural causal models",
        ],
        "splits": {
            split: {"rows": len(columns["digit"]), "thickness and intensity": origins[split]}
            for split, columns in made.items()
        },
        "sha256": {name: sha256(data).hexdigest() for name, data in files.items()},
    }
    files[ABOUT] = (json.dumps(about, indent=2) + "\n").encode()
    with new_folder(target) as temporary:
        for name, data in files.items():
            write_synced(temporary / name, data)
    return target


def make_pendulum(
    out: str | os.PathLike[str],
    *,
    rows: int = 62_500,
    size: int = 64,
    experiments: float = 0.0,
    seed: int = 0,
) -> Path:
    """Draw pendulums and write them: ``train.csv`` and ``test.csv``, and a folder of PNG files for each.

    Args:
        out: the folder to write; one written before is replaced.
        rows: in all, at least 5; a fifth of them, rounded down, are the test rows.
        size: pixels of a side of an image.
        experiments: share of the *training* rows in which a shadow is set, as ``draw_scenes`` has it.
        seed: of the draws.

    Returns:
        The folder.

    Raises:
        DataError: fewer rows, or ``out`` holds other things.
        DomainError: a size below 16, or a share outside [0, 1].
        OSError: the folder cannot be written.
    """
    recipe = "Yang et al. 2021, CausalVAE; angles drawn uniformly over the published ranges"
    about = {"recipe": recipe, "size": size, "seed": seed, "experiments": experiments}

    def scenes(split: Split, count: int) -> Columns:
        share = experiments if split == "train" else 0.0
        return draw_scenes(count, seed=[seed, split == "test"], experiments=share)

    return write_folder(
        "pendulum", out, rows, about, scenes, lambda part: pendulum_images(*part.values(), size=size)
    )


def make_faces(
    out: str | os.PathLike[str], *, rows: int = 30_000, size: int = 64, seed: int = 0, progress: bool = False
) -> Path:
    """Draw portraits and write them: ``train.csv`` and ``test.csv``, and a folder of PNG files for each.

    Args:
        out: the folder to write; one written before is replaced.
        rows: in all, at least 5; a fifth of them, rounded down, are the test rows.
        size: pixels of a side of an image.
        seed: of the draws.
        progress: show a bar.

    Returns:
        The folder.

    Raises:
        DataError: fewer rows, ``out`` holds other things, or the extra ``datasets`` is not installed.
        DomainError: a size below 16.
        OSError: the folder cannot be written.
    """
    from rich.progress import Progress

    about = {
        "parts": "ToonHead by Johan Melin, CC BY 4.0, figma.com/community/file/1589627891082866389; "
        "changed: a larger mouth",
        "size": size,
        "seed": seed,
    }

    def portraits(split: Split, count: int) -> Columns:
        return draw_faces(count, seed=[seed, split == "test"])

    with Progress(disable=not progress) as bar:
        task = bar.add_task("portraits", total=rows)

        def images(part: Columns) -> NDArray[np.uint8]:
            drawn = face_images(part, size=size)
            bar.advance(task, len(drawn))
            return drawn

        return write_folder("faces", out, rows, about, portraits, images)


def _causes(
    split: Split, splits: Sequence[Split], rows: int, tables: str | os.PathLike[str] | None, seed: int
) -> tuple[Columns, str]:
    """Thickness and intensity of a split, and where they come from."""
    if tables is None:
        # Each split its own stream, whichever others are made beside it.
        return draw_attributes(rows, seed=[seed, split == "test"]), f"drawn from their law, seed {seed}"
    path = Path(tables)
    if path.is_dir():
        path = path / f"{file_prefix(split)}-morpho.csv"
    elif len(splits) > 1:
        raise DataError(
            f"{path} is one table for {len(splits)} splits: give a folder with both, or one split."
        )
    values = read_attributes(path)
    if len(values["thickness"]) != rows:
        raise DataError(
            f"{path} has {len(values['thickness']):,} rows, but MNIST's {split} split has {rows:,} images."
        )
    return values, f"{path.name}, sha256 {sha256(path.read_bytes()).hexdigest()}"


def _table(columns: Columns) -> bytes:
    values = zip(*(columns[name].tolist() for name in ATTRIBUTES), strict=True)
    lines = [f"{row},{thickness!r},{intensity!r}" for row, (thickness, intensity) in enumerate(values)]
    return "\n".join([f"index,{','.join(ATTRIBUTES)}", *lines, ""]).encode()
