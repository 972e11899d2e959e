"""Mechanism kinds by name: what an SCM file may say after ``kind:``.

Built-in kinds are a table; further ones come from entry points of the group ``causalgen.mechanisms``, whose
name is the kind and whose object is a ``MechanismSpec`` subclass. Nothing is imported before its kind is
named, and a file can name a kind only, never an import path.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from graphs.errors import MechanismError, SpecError, UnknownNameError
from graphs.variables import Categorical, Continuous, Image, Integer, Variable

if TYPE_CHECKING:
    from mechanisms.base import MechanismSpec

__all__ = ["GROUP", "default_mechanism", "dump_mechanism", "kinds", "mechanism_spec", "parse_mechanism"]

GROUP = "causalgen.mechanisms"
"""The entry-point group of plug-in mechanisms."""

_BUILT_IN = {
    "additive": "mechanisms.tables.additive:Additive",
    "auto": "mechanisms.tables.auto:Auto",
    "categorical": "mechanisms.tables.categorical:Categorical",
    "constant": "mechanisms.constant:Constant",
    "diffusion": "mechanisms.diffusion.mechanism:Diffusion",
    "empirical": "mechanisms.tables.empirical:Empirical",
    "equation": "mechanisms.equation.mechanism:Equation",
    "flow": "mechanisms.tables.flow:Flow",
    "program": "mechanisms.program.mechanism:Program",
}


def kinds() -> tuple[str, ...]:
    """Every kind that can be named, sorted: built-in and installed."""
    return tuple(sorted({*_BUILT_IN, *(point.name for point in entry_points(group=GROUP))}))


def mechanism_spec(kind: str) -> type[MechanismSpec]:
    """The spec class of a kind.

    Raises:
        UnknownNameError: nobody provides the kind; the message lists those known and the nearest.
        MechanismError: a plug-in claims a built-in kind, two claim the same, or one is broken.
    """
    if not isinstance(kind, str):  # a file may say anything
        raise UnknownNameError.of("mechanism kind", kind, kinds())
    points = tuple(entry_points(group=GROUP, name=kind))
    if kind in _BUILT_IN:
        if points:
            raise MechanismError(
                f"Plug-in {points[0].value!r} claims the built-in mechanism kind {kind!r}. "
                "Uninstall it, or have its author choose another kind."
            )
        module, name = _BUILT_IN[kind].split(":")
        return getattr(import_module(module), name)
    if not points:
        raise UnknownNameError.of("mechanism kind", kind, kinds())
    if len({point.value for point in points}) > 1:
        claims = ", ".join(sorted(point.value for point in points))
        raise MechanismError(f"Several plug-ins claim the mechanism kind {kind!r}: {claims}. Keep one.")
    return _load(points[0])


def parse_mechanism(options: Mapping[str, Any]) -> MechanismSpec:
    """The spec that a mapping describes: its ``kind``, and that kind's options.

    >>> parse_mechanism({"kind": "additive", "noise": "empirical"}).noise
    'empirical'

    Raises:
        SpecError: there is no kind.
        UnknownNameError: the kind is unknown.
        pydantic.ValidationError: an option is unknown or out of range.
    """
    if not isinstance(options, Mapping):
        raise SpecError(f"A mechanism is a mapping of options such as {{'kind': 'flow'}}, got {options!r}.")
    if "kind" not in options:
        raise SpecError(f"A mechanism needs a kind, one of: {', '.join(kinds())}. Got {dict(options)!r}.")
    return mechanism_spec(options["kind"]).model_validate(dict(options))


def default_mechanism(variable: Variable) -> MechanismSpec:
    """The mechanism of a node that names none, by its variable.

    "categorical", "auto" (continuous), "flow" (integer) or "diffusion" (image).

    Raises:
        MechanismError: not a variable.
    """
    defaults = {Categorical: "categorical", Continuous: "auto", Integer: "flow", Image: "diffusion"}
    kind = next((kind for kind_of, kind in defaults.items() if isinstance(variable, kind_of)), None)
    if kind is None:
        raise MechanismError(f"A mechanism is of a variable, such as cg.Continuous(); got {variable!r}.")
    return mechanism_spec(kind)()  # type: ignore[call-arg]


def dump_mechanism(spec: MechanismSpec) -> dict[str, Any]:
    """The mapping that parses to ``spec``: its kind, then what differs from the kind's defaults.

    >>> dump_mechanism(parse_mechanism({"kind": "additive", "noise": "empirical"}))
    {'kind': 'additive', 'noise': 'empirical'}
    """
    dumped = _differences(spec)
    if type(spec).model_validate(dumped) != spec:
        # A validator that depends on what was written: then say everything.
        return {"kind": spec.kind, **spec.model_dump(mode="json", exclude={"kind"})}
    return dumped


def _load(point: EntryPoint) -> type[MechanismSpec]:
    """Import a plug-in's spec class and check that it is one."""
    from mechanisms.base import MechanismSpec

    try:
        loaded = point.load()
    except Exception as error:
        raise MechanismError(f"Mechanism plug-in {point.value!r} does not import: {error}") from error
    if not (isinstance(loaded, type) and issubclass(loaded, MechanismSpec)):
        raise MechanismError(f"Mechanism plug-in {point.value!r} must be a MechanismSpec subclass.")
    default = loaded.model_fields["kind"].default
    if default != point.name:
        raise MechanismError(
            f"Mechanism plug-in {point.value!r} is registered as {point.name!r}, but its kind is {default!r}."
        )
    return loaded


def _differences(model: BaseModel, reference: BaseModel | None = None) -> dict[str, Any]:
    """What a model says beyond ``reference`` (its class's defaults), always with its ``kind``."""
    dumped: dict[str, Any] = {"kind": getattr(model, "kind")} if hasattr(model, "kind") else {}  # noqa: B009
    everything = model.model_dump(mode="json")
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        default = getattr(reference, name) if reference else field.get_default(call_default_factory=True)
        if name == "kind" or value == default:
            continue
        if isinstance(value, BaseModel):
            # Options of the same class, written in part, keep the default's others only in `training`.
            keeps = name == "training" and type(value) is type(default)
            dumped[name] = _differences(value, default if keeps else None)
        else:
            dumped[name] = everything[name]
    return dumped
