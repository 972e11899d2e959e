"""Plain arguments, checked before anything is computed: counts, seeds, shares, paths, names of nodes."""

from __future__ import annotations

import operator
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from graphs.errors import CausalgenError, CheckpointError, EvidenceError, UnknownNameError
from graphs.text import shortened
from graphs.variables import Variable

__all__ = ["as_path", "check_targets", "chosen_seed", "names_of", "renamed", "share", "whole_number"]


def whole_number(value: Any, what: str, least: int | None = None) -> int:
    """A whole number, of any integer type; ``what`` starts the message."""
    expected = "a whole number" if least is None else f"a whole number of at least {least}"
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or (least is not None and number < least):
        raise EvidenceError(f"{what} is {expected}, got {_shortened(value)}.")
    return number


def share(value: Any, what: str) -> float:
    """A number between 0 and 1, both excluded."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise EvidenceError(f"{what} is between 0 and 1, as 0.95 is; got {_shortened(value)}.")
    return float(value)


def as_path(value: Any, what: str, error: type[CausalgenError] = CheckpointError) -> Path:
    """A path.

    Raises:
        CausalgenError: of the type given, where it is no path of a file system.
    """
    if not isinstance(value, str | os.PathLike):
        raise error(f"{what} is a path, as in 'folder/name'; got {_shortened(value)}.")
    path = os.fspath(value)
    try:
        if not isinstance(path, str) or not path or b"\0" in os.fsencode(path):
            raise ValueError
    except ValueError as cause:  # half of a surrogate pair, too, is in no file's name
        raise error(f"{what} is a path, as in 'folder/name'; got {path!r}.") from cause
    if "\n" in path:
        lines = len(path.splitlines())
        raise error(
            f"{what} is a path, as in 'folder/name'; got {lines} lines of text. Write them to a file."
        )
    return Path(path)


def names_of(value: Any, what: str) -> tuple[str, ...]:
    """One name, or several."""
    names = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise EvidenceError(f"{what} names nodes, as in ['x', 'y']; got {_shortened(value)}.")
    return names


def check_targets(targets: Iterable[str] | None, variables: Mapping[str, Variable]) -> tuple[str, ...]:
    """The nodes asked for, in topological order; all where None."""
    if targets is None:
        return tuple(variables)
    asked = names_of(targets, "targets")
    for node in asked:
        UnknownNameError.check("node", node, variables, where="targets")
    return tuple(node for node in variables if node in asked)


def chosen_seed(seed: int | None) -> int:
    """The seed given, or a fresh one, which results name."""
    return secrets.randbits(31) if seed is None else whole_number(seed, "seed")


def _shortened(value: Any) -> str:
    return shortened(repr(value), 60)


P = ParamSpec("P")
R = TypeVar("R")


def renamed(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: keywords that were renamed are refused with their new name, ``old="new"``.

    >>> @renamed(colour="color")
    ... def paint(color=None): ...
    >>> paint(colour="red")
    Traceback (most recent call last):
        ...
    TypeError: paint: the keyword 'colour' is now 'color'.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            for old in names.keys() & kwargs.keys():
                raise TypeError(f"{function.__name__}: the keyword {old!r} is now {names[old]!r}.")
            return function(*args, **kwargs)

        return checked

    return decorate
