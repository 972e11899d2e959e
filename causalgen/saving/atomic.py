"""Atomic writes of files and folders: after a crash there is the old one or the new one, never half of one.

Write beside the target, fsync the file, rename over the target, fsync the folder.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

__all__ = ["new_folder", "write_atomic", "write_synced"]


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_atomic(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``; after a crash it is the old file or the new one.

    Raises:
        OSError: the folder is missing or unwritable, or the disk is full; ``path`` is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        write_synced(temporary, data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk; a no-op where folders cannot be opened."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside ``target``, put in its place when the block ends without an error.

    Raises:
        OSError: the folder cannot be made or put there; ``target`` is unchanged.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        for folder, _, _ in os.walk(temporary):
            _sync_folder(Path(folder))
        _swap_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap_folder(temporary: Path, target: Path) -> None:
    """Put a finished folder in its place; a full folder cannot be renamed over, so it steps aside.

    Raises:
        OSError: the folder cannot be put there; what was there before still is.
    """
    aside = target.with_name(f".{target.name}.{uuid4().hex}.old")
    occupied = target.exists()
    if occupied:
        target.rename(aside)
    try:
        temporary.rename(target)
    except BaseException:
        if occupied:
            aside.rename(target)
        raise
    _sync_folder(target.parent)
    shutil.rmtree(aside, ignore_errors=True)
