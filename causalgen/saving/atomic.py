"""Atomic writes of files and folders: at every moment there is the old one or the new one, whole.

Write beside the target, fsync, rename over the target, fsync the parent. A folder with files in it cannot be
renamed over: the two are exchanged in one step (Linux ``renameat2``, macOS ``renamex_np``). Where the system
or the file system has no exchange, the old folder steps aside first; killed between its two renames, a save
leaves it aside, and whoever looks for it next puts it back (``recover_folder``).

A temporary is locked (``flock``) while its process lives; the next write to the target removes those that
nobody holds.
"""

import ctypes
import errno
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

try:
    import fcntl
except ImportError:  # Windows: temporaries of killed writes stay
    fcntl = None

__all__ = ["exclusive", "new_folder", "recover_folder", "sweep", "write_atomic", "write_synced"]

_NO_EXCHANGE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOENT}
"""How a system or a file system says that it has no exchange, or nothing to exchange with."""


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_atomic(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``; after a crash it is the old file or the new one.

    Raises:
        OSError: the folder is missing or unwritable, or the disk is full; ``path`` is unchanged.
    """
    with _temporary(path, Path.touch) as temporary:
        write_synced(temporary, data)
        os.replace(temporary, path)
    _sync_folder(path.parent)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside ``target``, put in its place when the block ends without an error.

    Raises:
        OSError: the folder cannot be made or put there; ``target`` is unchanged.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(target, Path.mkdir) as temporary:
        yield temporary
        for folder, _, _ in os.walk(temporary):
            _sync_folder(Path(folder))
        _swap_folder(temporary, target)
        _sync_folder(target.parent)


def recover_folder(target: Path) -> None:
    """Put a folder back that stepped aside for a save which was killed before its second rename.

    Raises:
        OSError: it cannot be renamed.
    """
    while not target.exists() and (aside := _left(target, "old")):
        try:
            newest = max(aside, key=lambda path: path.stat().st_mtime_ns)
            newest.rename(target)
        except FileNotFoundError:  # another process was faster
            continue
        except OSError as error:
            if not target.exists():
                why = f"{error.strerror or error}; a killed save left it aside: rename {aside[0]} to {target}"
                raise OSError(error.errno, why) from error


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """One process at a time, of those that ask; where there are no locks, all at once."""
    handle = _lock(folder, wait=True)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


@contextmanager
def _temporary(target: Path, make: Callable[[Path], object]) -> Iterator[Path]:
    """A new file or folder beside ``target``, locked, and removed at the end if it is still there."""
    sweep(target)
    temporary, handle = _claim(target, make)
    try:
        yield temporary
    finally:
        _remove(temporary)
        if handle is not None:
            os.close(handle)


def _claim(target: Path, make: Callable[[Path], object]) -> tuple[Path, int | None]:
    while True:
        temporary = _beside(target, "tmp")
        make(temporary)
        with suppress(FileNotFoundError):  # swept before it was locked
            handle = _lock(temporary, wait=True)
            if temporary.exists():
                return temporary, handle
            if handle is not None:
                os.close(handle)


def sweep(target: Path) -> None:
    """Remove what killed writes left beside a path: temporaries of no process, folders that were replaced."""
    aside = _left(target, "old")  # first: what is put aside from now on is not listed
    for path in aside if target.exists() else []:
        with suppress(OSError):
            path.rename(temporary := _beside(target, "tmp"))  # half removed, it is never taken for whole
            _remove(temporary)
    for path in _left(target, "tmp"):
        with suppress(OSError):
            handle = _lock(path, wait=False)
            if handle is not None:
                try:
                    _remove(path)
                finally:
                    os.close(handle)


def _beside(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.name}.{uuid4().hex}.{kind}")


def _left(target: Path, kind: str) -> list[Path]:
    """What earlier writes to ``target`` left beside it."""
    named = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{32}}\.{kind}")
    with suppress(OSError):
        return [path for path in target.parent.iterdir() if named.fullmatch(path.name)]
    return []


def _lock(path: Path, *, wait: bool) -> int | None:
    """A handle that locks a file or a folder until it is closed; None where there are no locks.

    Raises:
        OSError: there is nothing, or another process holds it.
    """
    if fcntl is None:
        return None
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError:  # some network file systems
        os.close(handle)
        return None
    return handle


def _remove(path: Path) -> None:
    """Remove a file or a folder, as far as it can be."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk; a no-op where folders cannot be opened."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _swap_folder(temporary: Path, target: Path) -> None:
    """Put a finished folder in its place; what was there is at ``temporary`` then, or gone.

    Raises:
        OSError: the folder cannot be put there; what was there before still is.
    """
    while not (target.exists() and _exchange(temporary, target)):
        aside = _beside(target, "old")
        try:
            with suppress(FileNotFoundError):
                target.rename(aside)
            temporary.rename(target)
        except BaseException as error:
            recover_folder(target)
            if not (isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST)):
                raise
            continue  # another save came between, or a reader put the folder back
        sweep(target)
        return


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where that cannot be done.

    Raises:
        OSError: it failed.
    """
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform == "linux":
        here = -100  # AT_FDCWD
        call, arguments = "renameat2", (here, names[0], here, names[1], 2)
    elif sys.platform == "darwin":
        call, arguments = "renamex_np", (*names, 2)
    else:
        return False
    function = getattr(ctypes.CDLL(None, use_errno=True), call, None)
    if function is None:
        return False
    if function(*arguments) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))
