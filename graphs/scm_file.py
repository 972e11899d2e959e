"""The SCM file: nodes with their variable, parents and mechanism options, in strict YAML.

    causalgen: 1
    name: scanner
    nodes:
      pose:
        variable: {type: continuous, lower: 0, unit: mm}
      scan:
        variable: {type: image, shape: [1, 28, 28]}
        parents: [pose]
        mechanism: {kind: diffusion}

Laws: ``parse_spec(write_spec(spec)) == spec``, and ``write_spec(parse_spec(text))`` is a fixed point.
A mechanism's options are kept as they are written; the floor that knows the mechanisms checks them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from graphs import strict_yaml
from graphs.causal_graph import CausalGraph, find_problem
from graphs.declared import spec_error
from graphs.errors import SpecError
from graphs.limits import FILE_BYTES, PARENTS, TEXT, VALUES
from graphs.strict_yaml import Data, Locations
from graphs.text import check_text, shortened
from graphs.variables import Variable

__all__ = ["NodeSpec", "SCMSpec", "parse_spec", "read_spec", "write_spec"]

FORMAT = 1
MAX_OPTION_DEPTH = 15


def _plain(value: object, depth: int = 0) -> Data:
    """Options as a file would hold them: tuples become lists, numbers lose their subclass."""
    if depth > MAX_OPTION_DEPTH:
        raise ValueError(f"options are nested more than {MAX_OPTION_DEPTH} deep")
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if math.isnan(value):
            raise ValueError("an option cannot be NaN")
        return float(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1) for item in cast(Sequence[object], value)]
    if isinstance(value, Mapping):
        items = cast(Mapping[object, object], value).items()
        for key, _ in items:
            if not isinstance(key, str):
                raise ValueError(f"the keys of options are strings, got {key!r}")
        return {cast(str, key): _plain(item, depth + 1) for key, item in items}
    raise ValueError(f"a file cannot hold {value!r} of type {type(value).__name__}")


def _options(value: object) -> object:
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(
            f"expected a mapping of options such as {{kind: flow}}, got {shortened(repr(value), 60)}"
        )
    return _plain(cast(object, value))


class NodeSpec(BaseModel):
    """One node of an SCM file.

    Attributes:
        variable: what its values are.
        parents: names of its parents, in the order its mechanism sees them.
        mechanism: its options as written, with their "kind"; None for the default of the variable's type.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variable: Variable
    parents: tuple[str, ...] = Field(default=(), json_schema_extra={"uniqueItems": True, "maxItems": PARENTS})
    mechanism: Annotated[dict[str, Any] | None, BeforeValidator(_options)] = None


class SCMSpec(BaseModel):
    """An SCM file.

    Attributes:
        causalgen: version of the format, 1.
        name: of the model.
        nodes: all nodes by name, in the order they are written.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    causalgen: Literal[1]
    name: str | None = Field(default=None, json_schema_extra={"maxLength": TEXT})
    nodes: dict[str, NodeSpec]

    @field_validator("causalgen", mode="before")
    @classmethod
    def _refuse_true(cls, value: object) -> object:
        if isinstance(value, bool):  # for Python, True is 1
            raise ValueError(f"must be {FORMAT}, got {value}")
        return value

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str | None) -> str | None:
        return None if name is None else check_text(name, "name")

    @model_validator(mode="after")
    def _check_graph(self) -> SCMSpec:
        problem = find_problem(self._parents)
        if problem is not None:
            error, node, index = problem
            path = ("nodes",) if node is None else ("nodes", node)
            path = path if index is None else (*path, "parents", index)
            # The message goes in as a value, since braces in it would be taken for a template.
            raise PydanticCustomError("graph", "{message}", {"message": str(error), "path": path})
        return self

    @property
    def _parents(self) -> dict[str, tuple[str, ...]]:
        return {name: node.parents for name, node in self.nodes.items()}

    @cached_property
    def graph(self) -> CausalGraph:
        """The causal graph of the nodes."""
        return CausalGraph(self._parents)


def read_spec(path: str | Path) -> tuple[SCMSpec, Locations]:
    """Read an SCM file, and where everything stands in it.

    Raises:
        SpecError: the file cannot be read or does not say a valid model; "file:line:column: message", a line
            for each finding.
    """
    source = str(path)
    try:
        with Path(path).open("rb") as file:
            content = file.read(FILE_BYTES + 1)
    except OSError as error:
        raise SpecError(f"{source}: cannot read the file: {error.strerror or error}.") from error
    if len(content) > FILE_BYTES:
        raise SpecError(f"{source}:1:1: the file is larger than {FILE_BYTES:,} bytes.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
        raise SpecError(f"{source}:{line}:{column}: not UTF-8 text. Save the file as UTF-8.") from error
    return parse_spec(text, source)


def parse_spec(text: str, source: str = "<text>") -> tuple[SCMSpec, Locations]:
    """Read the text of an SCM file, and where everything stands in it.

    >>> spec, locations = parse_spec("{causalgen: 1, nodes: {x: {variable: {type: continuous}}}}")
    >>> spec.graph, locations["nodes", "x"]
    (CausalGraph({'x': []}), '<text>:1:27')

    Raises:
        SpecError: it does not say a valid model; "source:line:column: message", a line for each finding.
    """
    data, locations = strict_yaml.load(text, source)
    if not isinstance(data, dict):
        raise SpecError(
            f"{locations[()]}: expected a mapping that starts with 'causalgen: {FORMAT}', "
            f"got {shortened(repr(data), 60)}."
        )
    version = data.get("causalgen")
    if type(version) is int and version > FORMAT:
        raise SpecError(
            f"{locations['causalgen',]}: the file is of format {version}, "
            f"but this version reads format {FORMAT}. Install a newer causalgen."
        )
    try:
        return SCMSpec.model_validate(data), locations
    except ValidationError as error:
        raise spec_error(error, locations, model=SCMSpec) from error


def write_spec(spec: SCMSpec) -> str:
    """The text of the SCM file that says ``spec``; defaults are left out.

    >>> spec, _ = parse_spec("{nodes: {x: {variable: {type: continuous, lower: 0}}}, causalgen: 1}")
    >>> print(write_spec(spec))
    causalgen: 1
    nodes:
      x:
        variable: {type: continuous, lower: 0}
    <BLANKLINE>

    Raises:
        SpecError: the file would be larger than any that is read.
    """
    data: dict[str, Data] = {"causalgen": spec.causalgen}
    if spec.name is not None:
        data["name"] = spec.name
    data["nodes"] = {name: _node_data(node) for name, node in spec.nodes.items()}
    text, values = strict_yaml.dump(data, block=3), _count(data)
    if strict_yaml.size_of(text) > FILE_BYTES or values > VALUES:
        raise SpecError(
            f"The model takes an SCM file of {strict_yaml.size_of(text):,} bytes with {values:,} keys and "
            f"values; at most {FILE_BYTES:,} and {VALUES:,} are read. Declare fewer nodes or shorter labels."
        )
    return text


def _count(data: Data) -> int:
    """Keys and values, as the reader counts them."""
    if isinstance(data, dict):
        return 1 + sum(1 + _count(value) for value in data.values())
    return 1 + sum(map(_count, data)) if isinstance(data, list) else 1


def _node_data(node: NodeSpec) -> dict[str, Data]:
    variable = node.variable.model_dump(mode="json", exclude_defaults=True)
    data: dict[str, Data] = {
        "variable": {"type": node.variable.type, **{key: _whole(value) for key, value in variable.items()}}
    }
    if node.parents:
        data["parents"] = list(node.parents)
    if node.mechanism is not None:
        data["mechanism"] = node.mechanism
    return data


def _whole(value: Data) -> Data:
    """A whole bound without its ".0", as people write it."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value
