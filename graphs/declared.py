"""Immutable options that name what is wrong with them: one ``SpecError``, from Python as from a file.

Additive: noize: unknown option. Did you mean 'noise'? Known: function, hidden, kind, noise, training.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from graphs.validation import declaration_error

__all__ = ["Declared", "python_only"]

_Init = TypeVar("_Init", bound=Callable[..., None])


def python_only(init: _Init) -> _Init:
    """A constructor for Python alone: inside other options, and from files, pydantic builds the model itself.

    There its errors must be pydantic's, which know their place.
    """
    marked: Any = init
    marked.__pydantic_base_init__ = True
    return init


class Declared(BaseModel):
    """Frozen, compared by value, closed to unknown options.

    Raises:
        SpecError: what is wrong with the options, a line for each finding.
        TypeError: options that are not given by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @python_only
    def __init__(self, /, *args: object, **options: object) -> None:
        """Check the options."""
        name = type(self).__name__
        if args:
            fields = ", ".join(field for field in type(self).model_fields if field not in ("kind", "type"))
            raise TypeError(f"{name} takes its options by name: {fields}. Got {args[0]!r} without one.")
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise declaration_error(error, name, type(self)) from error
