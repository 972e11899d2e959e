"""Locks for threads: one of what the process has one of, and one for each object that remembers answers."""

from __future__ import annotations

import os
import threading

__all__ = ["ALONE", "OwnLock"]

ALONE = threading.RLock()
"""Held while a state of the whole process is lent: torch's random state, or Pyro's handlers and checks.
A fork waits for it, so that no child starts with a state that was lent."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=ALONE.acquire, after_in_parent=ALONE.release, after_in_child=ALONE.release)


class OwnLock:
    """An object's lock, which its copies and pickles do not share: theirs is a new one."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[OwnLock], tuple[()]]:
        """Made anew."""
        return OwnLock, ()
