"""Immutable options (pydantic) that name what is wrong with them, from Python or with a file's place.

Additive: noize: unknown option. Did you mean 'noise'? Known: function, hidden, kind, noise, training.
scm.yaml:9:18: nodes.x.mechanism.steps: must be greater than or equal to 1, got 0.
scm.yaml:9:30: nodes.x.mechanism.stpes: unknown key. Did you mean 'steps'? Known: kind, steps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from inspect import isabstract
from typing import Any, Literal, TypeVar, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from graphs.errors import SpecError, did_you_mean
from graphs.limits import FINDINGS
from graphs.strict_yaml import Locations, Path
from graphs.text import shortened

__all__ = ["Declared", "declaration_error", "known_options", "python_only", "spec_error"]


_LONGEST = 2_000
"""Characters of one finding."""

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

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse, by a TypeError, a class that has no value for a class variable that its base only names."""
        super().__pydantic_init_subclass__(**kwargs)
        unsaid = sorted(name for name in cls.__class_vars__ if not hasattr(cls, name))
        if unsaid and not isabstract(cls):
            raise TypeError(f"{cls.__name__} does not say {', '.join(unsaid)}: set each in the class.")

    @python_only
    def __init__(self, /, *args: object, **options: object) -> None:
        name = type(self).__name__
        if args:
            fields = ", ".join(field for field in type(self).model_fields if field not in ("kind", "type"))
            raise TypeError(f"{name} takes its options by name: {fields}. Got {args[0]!r} without one.")
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise declaration_error(error, name, type(self)) from error


def spec_error(
    error: ValidationError, locations: Locations, prefix: Path = (), *, model: type[BaseModel] | None = None
) -> SpecError:
    """All findings of a pydantic error as one ``SpecError``, with their places in the file.

    ``prefix`` is the path of the validated data in it, as ("nodes", "x", "mechanism"). With the ``model``
    that the data were validated against, an unknown key is told its nearest match.
    """
    details = error.errors(include_url=False)
    lines = [_finding(detail, locations, prefix, model) for detail in details[:FINDINGS]]
    if len(details) > FINDINGS:
        lines.append(f"{lines[-1].partition(': ')[0]}: and {len(details) - FINDINGS:,} more findings.")
    return SpecError("\n".join(lines))


def declaration_error(error: ValidationError, name: str, model: type[BaseModel]) -> SpecError:
    """All findings about options given in Python as one ``SpecError``."""
    lines: list[str] = []
    for detail in error.errors():
        place = f"{name}: {'.'.join(map(str, detail['loc']))}" if detail["loc"] else name
        if detail["type"] == "extra_forbidden":
            lines.append(f"{place}: unknown option." + _nearest(detail, model))
        else:
            lines.append(f"{place}: {_message(detail)}")
    return SpecError("\n".join(lines))


def _finding(detail: ErrorDetails, locations: Locations, prefix: Path, model: type[BaseModel] | None) -> str:
    context = cast(Mapping[str, object], detail.get("ctx", {}))
    at = cast(Path, context.get("path", ()))  # a validator may say where below its own place
    if detail["type"] == "union_tag_invalid":
        at = (str(context["discriminator"]).strip("'"),)
    unknown = detail["type"] == "extra_forbidden"
    absent = detail["type"] == "missing"
    path = _existing((*prefix, *detail["loc"], *at), locations, keep_last=unknown or absent)
    place = locations.key(path) if unknown or detail["type"] == "graph" else locations[path]
    name = ".".join(map(str, path))
    message = "unknown key." + _nearest(detail, model) if unknown else shortened(_message(detail), _LONGEST)
    return f"{place}: {name}: {message}" if name else f"{place}: {message}"


def _existing(path: Path, locations: Locations, *, keep_last: bool) -> Path:
    """``path`` without the names of union members, which pydantic puts in and the file does not have."""
    found: Path = ()
    for index, step in enumerate(path):
        if (*found, step) in locations or (keep_last and index == len(path) - 1):
            found = (*found, step)
    return found


def _message(detail: ErrorDetails) -> str:
    if detail["type"] == "missing":
        what = "item" if isinstance(detail["loc"][-1], int) else "key"
        return f"missing; this {what} is required."
    if detail["type"] == "graph":  # complete sentences already
        return detail["msg"]
    if detail["type"] == "value_error":
        return detail["msg"].removeprefix("Value error, ") + "."
    if detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return _tag_message(cast(Mapping[str, str], detail.get("ctx", {})))
    text = re.sub(r"^\w+ should ", "must ", detail["msg"]).partition(" or instance of ")[0]
    text = text.partition(" after validation, not ")[0]
    for pythonic, plain in (("tuple", "list"), ("dictionary", "mapping")):
        text = text.replace(pythonic, plain)
    given = shortened(repr(detail["input"]), 60)
    example = f", as [{given}]" if text.endswith("list") and isinstance(detail["input"], str) else ""
    return f"{text}{example}, got {given}."


def _tag_message(context: Mapping[str, str]) -> str:
    key = context["discriminator"].strip("'")
    if "tag" not in context:
        return f"missing the key {key!r}, which tells what kind it is."
    known = sorted(tag.strip(" '") for tag in context["expected_tags"].split(","))
    return f"unknown {key} {shortened(context['tag'], 60)!r}." + _nearest_of(context["tag"], known)


def _nearest_of(name: str, known: list[str]) -> str:
    return f"{did_you_mean(name, known)} Known: {', '.join(known)}."


def known_options(loc: Path, model: type[BaseModel]) -> list[str]:
    """The options that could stand at a place within what ``model`` describes, sorted."""
    return sorted({name for owner in _owners(loc[:-1], model) for name in owner.model_fields})


def _nearest(detail: ErrorDetails, model: type[BaseModel] | None) -> str:
    context = cast(Mapping[str, list[str]], detail.get("ctx", {}))
    known = context.get("known") or (known_options(detail["loc"], model) if model else [])
    return _nearest_of(str(detail["loc"][-1]), known) if known else ""


def _owners(path: Path, model: object) -> list[type[BaseModel]]:
    """The models that the data at ``path`` may be of, when the data at () is of ``model``."""
    types = _members(model)
    for step in path:
        named = [kind for kind in types if _is_called(kind, step)]
        types = named or [inner for kind in types for inner in _inside(kind, step)]
    return [kind for kind in types if isinstance(kind, type) and issubclass(kind, BaseModel)]


def _members(annotation: object) -> list[Any]:
    """The models and containers of a union, through Annotated and Optional."""
    if isinstance(annotation, type) and not get_args(annotation):
        return [annotation]
    if get_origin(annotation) in (dict, list, tuple, Mapping):
        return [annotation]
    return [member for argument in get_args(annotation) for member in _members(argument)]


def _is_called(kind: Any, step: str | int) -> bool:
    """Whether ``step`` of a pydantic path is the name of a union member rather than a key."""
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return False
    tags = [
        argument
        for field in kind.model_fields.values()
        if get_origin(field.annotation) is Literal
        for argument in get_args(field.annotation)
    ]
    return step not in kind.model_fields and (step in tags or step == kind.__name__)


def _inside(kind: Any, step: str | int) -> list[Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(step))
        return _members(field.annotation) if field else []
    arguments = [argument for argument in get_args(kind) if argument is not ...]
    return _members(arguments[-1]) if arguments else []
