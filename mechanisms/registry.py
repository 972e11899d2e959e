"""Plug-in registry, of which each part (``SOLVERS``, ``GUIDANCE``, ``METRICS``, ...) has one beside its base.

``Registry`` serves mechanisms, solvers, level grids, guidance, backbones, encoders, noise families and
metrics. A kind is what a file writes after ``kind:``. Built-in kinds are a table; further ones come from the
entry points of the registry's group, such as ``causalgen.solvers``: the entry point's name is the kind, its
object the class. No class is imported before its kind is named, and a file can name a kind only, never an
import path. Whatever a plug-in does at its import, even ``sys.exit(0)``, ends in one error that names it.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from pkgutil import resolve_name
from threading import Timer
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar, cast

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError, PydanticKnownError, core_schema

from graphs.declared import known_options
from graphs.errors import MechanismError, SpecError, UnknownNameError, users_line
from graphs.variables import Categorical, Continuous, Image, Integer, Variable

if TYPE_CHECKING:
    from mechanisms.base import MechanismSpec

__all__ = [
    "GROUP",
    "MECHANISMS",
    "Registry",
    "default_mechanism",
    "dump_mechanism",
    "dump_options",
    "kinds",
    "mechanism_spec",
    "parse_mechanism",
    "told_options",
]

GROUP = "causalgen.mechanisms"
"""The entry-point group of plug-in mechanisms."""

_PATIENCE = 10.0
"""Seconds after which a plug-in that is still being imported is named: it may hang."""

Part = TypeVar("Part")


class Registry(Generic[Part]):
    """What there is of one kind of part, by name; in a pydantic model, also the annotation that parses one.

        built_in = {"ddim": "mechanisms.diffusion.solvers:DDIM"}
        SOLVERS = Registry("solver", "causalgen.solvers", Solver, built_in)

        class Options(Declared):
            solver: Annotated[Solver, SOLVERS]        # {"kind": "ddim", "steps": 8}, or an instance

    Registered are classes that derive from an abstract base, or, where the base is final, instances of it; so
    this one is a ``Registry[type[Solver]]``. Each says its kind itself: by the default of its field ``kind``
    where it is a pydantic model, else by an attribute ``kind``.

    Args:
        what: the part in words, for messages.
        group: the entry-point group of plug-ins.
        base: the class that every kind's class derives from, or "module:name" to import it when needed.
        built_in: each built-in kind, or "module:name" to import it when needed.
        default: the kind of a mapping that names none; None where it must.
    """

    def __init__(
        self,
        what: str,
        group: str,
        base: type | str,
        built_in: Mapping[str, str | Part],
        *,
        default: str | None = None,
    ) -> None:
        self.what, self.group, self.default = what, group, default
        self._base, self._built_in = base, dict(built_in)

    @property
    def base(self) -> type:
        """The class that every kind's class derives from, or that every kind is an instance of."""
        if isinstance(self._base, str):
            self._base = cast(type, resolve_name(self._base))
        return self._base

    @property
    def comment(self) -> str:
        """Where more comes from, for the JSON Schema of a field."""
        return f"More come from plug-ins, by entry points of the group `{self.group}`."

    def kinds(self) -> tuple[str, ...]:
        """Every kind that can be named, sorted: built-in and installed."""
        return tuple(sorted({*self._built_in, *(point.name for point in self._points())}))

    def get(self, kind: object) -> Part:
        """What a kind names.

        Raises:
            UnknownNameError: nobody provides the kind; the message lists those known and the nearest.
            MechanismError: a plug-in claims a built-in kind, two claim the same, or one is broken.
        """
        points = [point for point in self._points() if point.name == kind]
        if isinstance(kind, str) and kind in self._built_in:
            if points:
                raise MechanismError(
                    f"Plug-in {points[0].value!r} claims the built-in {self.what} {kind!r}. "
                    f"Uninstall {_package(points[0])}, or have its author choose another kind."
                )
            built_in = self._built_in[kind]
            return cast(Part, resolve_name(built_in) if isinstance(built_in, str) else built_in)
        if not points:
            raise UnknownNameError.of(self.what, kind, self.kinds())
        if len({point.value for point in points}) > 1:
            claims = ", ".join(sorted(f"{point.value} ({_package(point)})" for point in points))
            raise MechanismError(f"Several plug-ins claim the {self.what} {kind!r}: {claims}. Keep one.")
        return self._load(points[0])

    def provides(self, part: object) -> bool:
        """Whether the kind of this part names its class, or itself, here, so that a file can say it."""
        kind = getattr(part, "kind", None)
        return kind in self.kinds() and any(self.get(kind) is each for each in (part, type(part)))

    def why_unwritable(self, part: object) -> str | None:
        """Why no file can say this part: its class is not registered; None where it is."""
        if self.provides(part):
            return None
        return (
            f"its {self.what}, {type(part).__name__}, is not registered, so no file can say it. Register it "
            f"by an entry point of the group {self.group!r}."
        )

    def parse(self, options: object) -> Any:
        """The part that a mapping describes: its ``kind``, and that kind's options.

        Raises:
            pydantic.ValidationError: the kind or an option is unknown, or out of range.
        """
        field: Any = Annotated[self.base, self]
        return TypeAdapter(field).validate_python(options)

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """A field takes an instance or a mapping with its kind, and is dumped with all its options."""
        return core_schema.no_info_plain_validator_function(
            self._validate,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda part, info: part.model_dump(mode=info.mode, fallback=_name), info_arg=True
            ),
        )

    def __get_pydantic_json_schema__(
        self, _schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """In a JSON Schema a field takes the options of any kind that can be named."""
        models = {kind: cast(Any, self.get(kind)).__pydantic_core_schema__ for kind in self.kinds()}
        schema = handler(core_schema.tagged_union_schema(models, discriminator="kind"))
        if self.default:
            usual = handler.resolve_ref_schema({"$ref": schema["discriminator"]["mapping"][self.default]})
            usual["required"].remove("kind")
        return {"title": self.what, "$comment": self.comment, **schema}

    def _validate(self, value: object) -> Any:
        if isinstance(value, self.base):
            return value
        if not isinstance(value, Mapping):
            raise ValueError(
                f"expected a mapping of options such as {{kind: {self.kinds()[0]}}}, got {value!r}"
            )
        kind = value.get("kind", self.default)
        if kind is None and "kind" not in value:
            known = ", ".join(self.kinds())
            raise ValueError(f"missing the key 'kind', which tells what kind it is. Known: {known}")
        try:
            model = self.get(kind)
        except UnknownNameError:
            known = ", ".join(repr(each) for each in self.kinds())
            context = {"discriminator": "'kind'", "tag": str(kind), "expected_tags": known}
            raise PydanticKnownError("union_tag_invalid", context) from None
        except MechanismError as error:  # of a plug-in: pydantic adds its place
            raise ValueError(str(error).removesuffix(".")) from error
        assert isinstance(model, type) and issubclass(model, BaseModel)
        try:
            return model.model_validate({"kind": kind, **value})
        except ValidationError as error:
            raise _placed(error, (str(kind),) if "kind" in value else (), model) from error

    def _points(self) -> tuple[EntryPoint, ...]:
        return _installed(tuple(sys.path)).get(self.group, ())

    def _load(self, point: EntryPoint) -> Part:
        """Import what a plug-in provides and check that it is a part."""
        plug_in = f"Plug-in {point.value!r} of {self.what} {point.name!r}"
        try:
            with _told_if_slow(plug_in):
                loaded = point.load()
        except KeyboardInterrupt:  # the user's
            raise
        except BaseException as error:  # sys.exit(0) too: it would end the command line with success
            raise MechanismError(
                f"{plug_in} does not import: {_reason(error)}. Mend or uninstall {_package(point)}."
            ) from error
        if getattr(self.base, "__final__", False):
            if not isinstance(loaded, self.base):
                raise MechanismError(f"{plug_in} must be an instance of {self.base.__name__}.")
        elif not (isinstance(loaded, type) and issubclass(loaded, self.base)):
            raise MechanismError(f"{plug_in} must be a {self.base.__name__} subclass.")
        if inspect.isabstract(loaded):
            lacking = ", ".join(sorted(getattr(loaded, "__abstractmethods__")))  # noqa: B009
            raise MechanismError(f"{plug_in} is abstract: it lacks {lacking}.")
        if (kind := _kind_of(loaded)) != point.name:
            raise MechanismError(f"{plug_in} is registered as {point.name!r}, but its kind is {kind!r}.")
        return cast(Part, loaded)


def _kind_of(part: Any) -> Any:
    """The kind that a part says it is."""
    fields = part.model_fields if isinstance(part, type) and issubclass(part, BaseModel) else {}
    return fields["kind"].default if "kind" in fields else getattr(part, "kind", None)


def dump_options(part: BaseModel) -> dict[str, Any]:
    """The mapping that parses to these options: their kind, then what differs from its defaults."""
    dumped = _differences(part)
    try:
        if type(part).model_validate(dumped) == part:
            return dumped
    except ValidationError:  # a part from Python, of a kind that no file can say
        pass
    # Or a validator that depends on what was written: then say everything.
    return {"kind": _kind_of(type(part))} | told_options(part)


def told_options(part: BaseModel) -> dict[str, Any]:
    """All options as plain values, for records and reports; of what only Python can say, its name.

    No file is read from these.
    """
    return part.model_dump(mode="json", fallback=_name)


def _name(value: object) -> str:
    """Of a function, or of a value's class."""
    return getattr(value, "__qualname__", type(value).__qualname__)


@lru_cache(maxsize=1)
def _installed(path: tuple[str, ...]) -> Mapping[str, tuple[EntryPoint, ...]]:
    """The entry points of the packages on ``sys.path``, by group; reading them takes milliseconds."""
    try:
        points = entry_points()
    except Exception as error:  # a file of any package that cannot be parsed
        broken = ", ".join(each.name for each in distributions() if not _is_readable(each))
        raise MechanismError(
            f"The entry points of {broken or 'an installed package'} cannot be read: {_reason(error)}. "
            "Install that package again, or uninstall it."
        ) from error
    return {
        group: tuple(points.select(group=group)) for group in points.groups if group.startswith("causalgen.")
    }


def _is_readable(package: Distribution) -> bool:
    try:
        return len(package.entry_points) >= 0
    except Exception:  # whatever the parser stumbles over
        return False


def _package(point: EntryPoint) -> str:
    """The package that a plug-in comes from, as pip knows it."""
    return f"package {point.dist.name!r}" if point.dist is not None else "its package"


def _reason(error: BaseException) -> str:
    """What an error says, on one line."""
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({error.code!r})"
    return " ".join(str(error).split()).removesuffix(".") or type(error).__name__


@contextmanager
def _told_if_slow(plug_in: str) -> Iterator[None]:
    """Name a plug-in whose import takes long. Nothing stops it: it may be slow rather than hang."""
    told = (
        f"{plug_in} is still being imported after {_PATIENCE:g} s. If it hangs, interrupt and uninstall it."
    )
    timer = Timer(_PATIENCE, warnings.warn_explicit, [told, UserWarning], users_line())
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _placed(error: ValidationError, place: tuple[str, ...], model: type[BaseModel]) -> ValidationError:
    """The same findings with the part's kind in their places, and the known options beside an unknown one.

    The places alone do not lead to the part's class, where the nearest option would be looked up.
    """
    lines: list[InitErrorDetails] = []
    for detail in error.errors():
        context = {**detail.get("ctx", {}), "message": detail["msg"]}
        if detail["type"] == "extra_forbidden" and "known" not in context:
            context["known"] = known_options(detail["loc"], model)
        kind = PydanticCustomError(detail["type"], "{message}", context)  # type: ignore[arg-type]
        lines.append({"type": kind, "loc": (*place, *detail["loc"]), "input": detail["input"]})
    return ValidationError.from_exception_data(error.title, lines)


def _differences(model: BaseModel, reference: BaseModel | None = None) -> dict[str, Any]:
    """What a model says beyond ``reference`` (its class's defaults), always with its ``kind``."""
    dumped: dict[str, Any] = {"kind": getattr(model, "kind")} if hasattr(model, "kind") else {}  # noqa: B009
    everything = told_options(model)
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        default = (
            getattr(reference, name)
            if reference
            else field.get_default(call_default_factory=True, validated_data={})
        )
        if name == "kind" or value == default:
            continue
        if isinstance(value, BaseModel):
            # Options of the same class, written in part, keep the default's others only in `training`.
            keeps = name == "training" and type(value) is type(default)
            dumped[name] = _differences(value, default if keeps else None)
        else:
            dumped[name] = everything[name]
    return dumped


MECHANISMS: Registry[type[MechanismSpec]] = Registry(
    "mechanism kind",
    GROUP,
    "mechanisms.base:MechanismSpec",
    {
        "additive": "mechanisms.tables.additive:Additive",
        "auto": "mechanisms.tables.auto:Auto",
        "categorical": "mechanisms.tables.categorical:Categorical",
        "constant": "mechanisms.intervened:Constant",
        "counts": "mechanisms.tables.counts:Counts",
        "diffusion": "mechanisms.diffusion.mechanism:Diffusion",
        "empirical": "mechanisms.tables.empirical:Empirical",
        "equation": "mechanisms.equation.mechanism:Equation",
        "flow": "mechanisms.tables.flow:Flow",
        "program": "mechanisms.program.mechanism:Program",
    },
)
"""The mechanism kinds: what an SCM file may say of a node."""


def kinds() -> tuple[str, ...]:
    """Every mechanism kind that can be named, sorted: built-in and installed."""
    return MECHANISMS.kinds()


def mechanism_spec(kind: str) -> type[MechanismSpec]:
    """The spec class of a mechanism kind; see ``Registry.get`` for what is raised."""
    return MECHANISMS.get(kind)


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

    "categorical", "auto" (continuous, and integer with lower 0 and no upper), "flow" (other integers) or
    "diffusion" (image).

    Raises:
        MechanismError: not a variable.
    """
    defaults = {Categorical: "categorical", Continuous: "auto", Integer: "flow", Image: "diffusion"}
    if isinstance(variable, Integer) and variable.counts:
        defaults[Integer] = "auto"
    kind = next((kind for kind_of, kind in defaults.items() if isinstance(variable, kind_of)), None)
    if kind is None:
        raise MechanismError(f"A mechanism is of a variable, such as cg.Continuous(); got {variable!r}.")
    return mechanism_spec(kind)()  # type: ignore[call-arg]


def dump_mechanism(spec: MechanismSpec) -> dict[str, Any]:
    """The mapping that parses to ``spec``: its kind, then what differs from the kind's defaults.

    >>> dump_mechanism(parse_mechanism({"kind": "additive", "noise": "empirical"}))
    {'kind': 'additive', 'noise': 'empirical'}
    """
    return dump_options(spec)
