"""A saved result is a folder of plain files, and ``result.json`` says what they are; it is written last.

Saving builds the folder beside its place and renames it there: after a crash it is the old result or the
new one. It replaces an empty folder or an earlier result, and nothing else: what is not in that result's list
of files belongs to somebody.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from causalgen.saving.atomic import swap_folder, sync_folder, write_synced
from graphs.errors import CheckpointError

__all__ = ["RESULT", "check_result_folder", "write_result"]

RESULT = "result.json"

_FORMAT = "causalgen-result"
_MOST_BYTES = 2**30


def write_result(
    folder: Path | str, files: Iterable[tuple[str, bytes]], told: Mapping[str, Any], name: str = RESULT
) -> Path:
    """Write a result, all or nothing.

    Args:
        folder: where to; its parents are made when missing.
        files: path in the folder and content of each file.
        told: what ``result.json`` says beside the list of files.
        name: of that file, where it is another one.

    Returns:
        ``folder``.

    Raises:
        CheckpointError: the folder holds something else, or cannot be written; it is unchanged then.
    """
    check_result_folder(folder, name)
    target = Path(folder).resolve()
    temporary = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
    try:
        temporary.mkdir(parents=True)
        names = [name]
        for file, data in files:
            (temporary / file).parent.mkdir(parents=True, exist_ok=True)
            write_synced(temporary / file, data)
            names.append(file)
        text = json.dumps({"format": _FORMAT, "version": 1, **told, "files": names}, indent=1)
        write_synced(temporary / name, f"{text}\n".encode())
        for inner in sorted({(temporary / file).parent for file in names}):
            sync_folder(inner)
        swap_folder(temporary, target)
    except OSError as error:
        raise CheckpointError(f"Cannot save the result in {target}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Path(folder)


def check_result_folder(folder: Path | str, name: str = RESULT) -> None:
    """Refuse a place that holds anything but an earlier result; a long computation asks before it begins.

    Raises:
        CheckpointError: it does, or cannot be read.
    """
    target = Path(folder).resolve()
    refusal = f"Cannot save the result in {target}: "
    try:
        if not target.exists():
            return
        if not target.is_dir():
            raise CheckpointError(f"{refusal}it is no folder. Choose another place.")
        found = {path.relative_to(target).as_posix() for path in target.rglob("*") if not path.is_dir()}
        foreign = sorted(found - _files_of_result(target / name)) if found else []
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{refusal}{error.strerror or error}.") from error
    if foreign:
        raise CheckpointError(
            f"{refusal}it holds {foreign[0]!r}, which is no part of an earlier result. Choose another place."
        )


def _files_of_result(path: Path) -> set[str]:
    """The files of the result that ``path`` describes; none where it describes no result."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return set()
        told = json.loads(path.read_bytes())
        return set(map(str, told["files"])) if told["format"] == _FORMAT else set()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()
