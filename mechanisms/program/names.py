"""Programs by name: entry points of the group ``causalgen.programs``, so that a file can name one.

The name is what ``{kind: program, program: NAME}`` says, the object a function of the parents. A program is
imported only when its name is used; a file can name it, never an import path.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from graphs.errors import MechanismError, UnknownNameError

__all__ = ["GROUP", "load_program", "program_name"]

GROUP = "causalgen.programs"
"""The entry-point group of programs."""


def program_name(program: Callable[..., Any]) -> str | None:
    """The name that a function is registered under; None where it is not. Imports nothing."""
    place = f"{getattr(program, '__module__', None)}:{getattr(program, '__qualname__', None)}"
    return next((point.name for point in entry_points(group=GROUP) if point.value == place), None)


def load_program(name: str) -> Callable[..., Any]:
    """The function of a name.

    Raises:
        UnknownNameError: nobody registered it.
        MechanismError: several did, or it does not import, or it cannot be called.
    """
    points = tuple(entry_points(group=GROUP, name=name))
    if not points:
        known = {point.name for point in entry_points(group=GROUP)}
        raise UnknownNameError.of("program", name, known, where=f"entry points {GROUP!r}")
    if len({point.value for point in points}) > 1:
        claims = ", ".join(sorted(point.value for point in points))
        raise MechanismError(f"Several packages register the program {name!r}: {claims}. Keep one.")
    try:
        loaded = points[0].load()
    except Exception as error:
        raise MechanismError(f"Program {name!r} ({points[0].value}) does not import: {error}") from error
    if not callable(loaded):
        raise MechanismError(f"Program {name!r} ({points[0].value}) must be a function of the parents.")
    return loaded
