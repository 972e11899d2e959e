"""Folders of drawn data sets: a table for each split, whose column ``image`` holds paths of PNG files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures

from causalgen.data.frames import file_columns
from causalgen.data.pictures import picture_column
from causalgen.data.sources import Split
from causalgen.saving.atomic import new_folder, write_synced
from graphs.errors import DataError
from graphs.variables import Categorical, Image, Variable

__all__ = ["check_target", "read_folder", "write_folder"]

Columns = Mapping[str, NDArray[Any]]

_TEST_SHARE = 5
"""One row in so many is a test row."""

_AT_ONCE = 512
"""Images drawn before they are written."""


def read_folder(
    kind: str, folder: str | os.PathLike[str], split: Split, variables: Mapping[str, Variable]
) -> dict[str, NDArray[Any]]:
    """The columns of a split: those of the variables, labels as text, and ``image`` (N, C, S, S) uint8."""
    table = Path(folder) / f"{split}.csv"
    if not table.is_file():
        raise DataError(f"There is no table {table}. Make the set with: causalgen data {kind} --out {folder}")
    raw = file_columns(
        table, {**variables, "image": Image(3, 1, 1)}, {name: name for name in (*variables, "image")}
    )
    where = f"Column {{!r}} of {table}"
    columns: dict[str, NDArray[Any]] = {}
    for name, variable in variables.items():
        columns[name] = variable.encode(raw[name], where=where.format(name))
        if isinstance(variable, Categorical) and variable.labels is not None:
            columns[name] = np.array(variable.labels)[columns[name]]
    paths = list(raw["image"])  # pyright: ignore[reportArgumentType] - a column of paths
    side = _side(table, paths)
    column = where.format("image")
    pixels = picture_column(paths, Image(3, side, side), column=column, folder=table.parent)
    return {**columns, "image": pixels}


def _side(table: Path, paths: Sequence[object]) -> int:
    """Pixels of a side of the first picture; the others are compared with it as they are read."""
    first = table.parent / str(paths[0]) if paths else table
    try:
        with Pictures.open(first, formats=["PNG"]) as picture:
            return picture.height
    except (OSError, ValueError) as error:
        raise DataError(f"Column 'image' of {table}, row 0: expected a PNG file, got {first}.") from error


def write_folder(
    kind: str,
    out: str | os.PathLike[str],
    rows: int,
    about: Mapping[str, object],
    columns_of: Callable[[Split, int], Columns],
    images_of: Callable[[Columns], NDArray[np.uint8]],
) -> Path:
    """Draw a set and write it, all or nothing; gives the folder.

    ``{kind}.json`` says how it was made, as in ``about``, and marks it as one that may be replaced. Of the
    rows of both splits, at least 5, a fifth, rounded down, are the test rows. ``columns_of`` gives the causes
    of a split with so many rows, (n,) each, ``images_of`` the images of such columns, (n, 3, S, S).

    Raises:
        DataError: fewer rows, or ``out`` holds other things.
        OSError: the folder cannot be written.
    """
    target = check_target(Path(out), f"{kind}.json")
    if rows < _TEST_SHARE:
        raise DataError(
            f"Expected at least {_TEST_SHARE} rows, a fifth of which are for testing, got {rows}."
        )
    test = rows // _TEST_SHARE
    counts: dict[Split, int] = {"train": rows - test, "test": test}
    with new_folder(target) as temporary:
        for split, count in counts.items():
            columns = columns_of(split, count)
            (temporary / split).mkdir()
            paths = [f"{split}/{row:06d}.png" for row in range(count)]
            for start in range(0, count, _AT_ONCE):
                part = slice(start, start + _AT_ONCE)
                images = images_of({name: values[part] for name, values in columns.items()})
                for path, pixels in zip(paths[part], images, strict=True):
                    # Without a sync each, which would take longer than the drawing: the table comes last.
                    Pictures.fromarray(pixels.transpose(1, 2, 0)).save(temporary / path)
            values = zip(*(each.tolist() for each in columns.values()), paths, strict=True)
            lines = [
                ",".join(each if isinstance(each, str) else repr(each) for each in row) for row in values
            ]
            table = "\n".join([",".join([*columns, "image"]), *lines, ""])
            write_synced(temporary / f"{split}.csv", table.encode())
        document = {"format": f"causalgen-{kind}", "version": 1, **about, "rows": counts}
        write_synced(temporary / f"{kind}.json", (json.dumps(document, indent=2) + "\n").encode())
    return target


def check_target(out: Path, about: str) -> Path:
    """The place to write to, if that may be done: it is new, empty, or holds ``about``."""
    target = out.resolve()
    if target.exists() and not target.is_dir():
        raise DataError(f"Cannot write the data to {out}: it is no folder. Choose another place.")
    if target.is_dir() and any(target.iterdir()) and not (target / about).is_file():
        raise DataError(
            f"Cannot write the data to {out}: the folder holds other things. Choose another place."
        )
    return target
