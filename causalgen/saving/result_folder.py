"""Saved results: a folder of plain files and a ``result.json`` with values, file names and their checksums.

It replaces an empty folder or an earlier result, and nothing else: what is not in that result's list of files
belongs to somebody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from causalgen.saving.manifest import FolderFormat

__all__ = ["RESULT", "check_result_folder", "write_result"]

RESULT = "result.json"

_FORMAT = FolderFormat("causalgen-result", "result", RESULT, lists_names=True, most_bytes=2**30)


def write_result(
    folder: Path | str, files: Iterable[tuple[str, bytes]], metadata: Mapping[str, Any], name: str = RESULT
) -> Path:
    """Write a result, all or nothing, and give its folder: files by path, and a JSON of ``metadata``.

    Raises:
        CheckpointError: the folder holds something else, or cannot be written; it is unchanged then.
    """
    replace(_FORMAT, manifest=name).save(folder, files, metadata)
    return Path(folder)


def check_result_folder(folder: Path | str, name: str = RESULT) -> None:
    """Refuse a place that holds anything but an earlier result; a long computation asks before it begins.

    Raises:
        CheckpointError: it does, or cannot be read.
    """
    replace(_FORMAT, manifest=name).check_place(folder)
