"""What all variables share: immutable pydantic models that can also be built by position."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from math import prod
from typing import Annotated, Any, TypeVar, cast

from pydantic import AfterValidator, BeforeValidator, Field

from graphs.declared import Declared, python_only
from graphs.limits import NUMBERS, TEXT
from graphs.text import check_text

__all__ = [
    "Bound",
    "Size",
    "Unit",
    "Values",
    "VariableBase",
    "by_name",
    "by_position",
    "check_numbers",
    "refuse_bool_and_text",
]

Values = TypeVar("Values")
"""A numpy array or a torch tensor."""


def refuse_bool_and_text(value: object) -> object:
    """What is no number in a file, to be called before pydantic reads it as one."""
    # pydantic would read true as 1 and "3" as 3; a file that says so is mistaken.
    if isinstance(value, (bool, str)):
        raise ValueError(f"expected a number, got {value!r}")
    return value


Size = Annotated[int, Field(ge=1), BeforeValidator(refuse_bool_and_text)]
"""A whole number of at least 1."""

Bound = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(refuse_bool_and_text)]
"""A finite number."""


Unit = Annotated[
    str, AfterValidator(lambda text: check_text(text, "unit")), Field(json_schema_extra={"maxLength": TEXT})
]
"""Of measurement, for people."""


def check_numbers(shape: tuple[int, ...]) -> None:
    """Refuse a shape of more numbers than one value may hold, by a ValueError."""
    if prod(shape) > NUMBERS:
        told = " x ".join(map(str, shape))
        raise ValueError(f"{told} are {prod(shape):,} numbers, at most {NUMBERS:,} are allowed in a value")


class VariableBase(Declared):
    """What every variable is, by its ``event_shape``, the shape of one value, and its canonical ``dtype``."""

    def within(self, values: Values) -> Values:
        """Canonical values that a mechanism made, as an image can show them; others as they are."""
        return values


def by_name(
    what: str, names: tuple[str, ...], args: tuple[object, ...], data: dict[str, object]
) -> dict[str, Any]:
    """Positional arguments joined to the named ones.

    Raises:
        TypeError: too many of them, or one given twice.
    """
    if len(args) > len(names):
        raise TypeError(f"{what} takes at most {len(names)} positional arguments ({', '.join(names)}).")
    for name in names[: len(args)]:
        if name in data:
            raise TypeError(f"{what} got two values for {name!r}.")
    return {**dict(zip(names, args, strict=False)), **data}


_Init = TypeVar("_Init", bound=Callable[..., None])


def by_position(init: _Init) -> _Init:
    """A constructor for Python, of which the signature is all there is to write.

    It raises TypeError for too many positional arguments, or one given twice; pydantic has the rest to say.
    """
    parameters = signature(init).parameters.items()
    names = tuple(name for name, each in parameters if each.kind is Parameter.POSITIONAL_OR_KEYWORD)

    @python_only
    @wraps(init)
    def declare(self: VariableBase, /, *args: object, **data: object) -> None:
        Declared.__init__(self, **by_name(type(self).__name__, names, args, data))

    return cast(_Init, declare)
