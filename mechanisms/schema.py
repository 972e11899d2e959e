"""JSON Schema of the SCM file, from the pydantic models that read one: what an editor completes and checks.

Every variable, mechanism and part that can be named is in it, plug-ins too, with its options, their types,
ranges and defaults. Each option's description is its entry in the ``Attributes:`` of its class.

What is refused on form (a misspelt option, a wrong type, a number out of range) violates the schema. What
several options decide together (``lower < upper``, a cycle in the graph) is left to the reader of files.
"""

from __future__ import annotations

import inspect
import re
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, Field
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema, to_jsonable_python

from graphs.causal_graph import NAME
from graphs.limits import NODE_NAME, NODES
from graphs.scm_file import NodeSpec, SCMSpec
from mechanisms.base import MechanismSpec
from mechanisms.registry import MECHANISMS, dump_options

__all__ = ["scm_schema"]

_ENTRY = re.compile(r"^    (\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)
"""Of a docstring's ``Attributes:``."""

_NODES: dict[str, Any] = {
    "propertyNames": {"pattern": f"^{NAME.pattern}$", "maxLength": NODE_NAME},
    "minProperties": 1,
    "maxProperties": NODES,
}


class _Node(NodeSpec, title="Node"):
    mechanism: Annotated[MechanismSpec, MECHANISMS] | None = None  # pyright: ignore[reportIncompatibleVariableOverride]


class _File(SCMSpec, title="SCM file"):
    nodes: dict[str, _Node] = Field(json_schema_extra=_NODES)  # pyright: ignore[reportIncompatibleVariableOverride]


def scm_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of an SCM file, installed plug-ins included.

    >>> scm_schema()["$defs"]["LogGrid"]["properties"]["sigma_min"]["exclusiveMinimum"]
    0
    """
    schema = _File.model_json_schema(schema_generator=_Described)
    return {"$schema": _Described.schema_dialect, **schema}


class _Described(GenerateJsonSchema):
    """Descriptions from docstrings, and defaults as a file writes them."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """A model: what its class and its options mean."""
        found, model = super().model_schema(schema), schema["cls"]
        text, entries = _documented(model)
        options = found.get("properties", {})
        for name, field in model.model_fields.items():
            options[name] |= {"description": entries[name]} if name in entries else {}
            if not field.is_required() and "const" not in options[name]:
                default = field.get_default(call_default_factory=True, validated_data={})
                options[name]["default"] = _written(default)
        return {**found, "description": text}

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        """Several models, told apart by a key that each of them must have."""
        found = super().tagged_union_schema(schema)
        for member in found["oneOf"]:
            model = self.resolve_ref_schema(member)
            model["required"] = sorted({found["discriminator"]["propertyName"], *model.get("required", ())})
        return found

    def field_title_should_be_set(self, schema: Any) -> bool:
        """An option's name says it already."""
        return False


@lru_cache
def _documented(model: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """What the docstring of a class says, and of its options by name, those of its bases included."""
    docs = [
        inspect.cleandoc(each.__doc__) for each in model.__mro__ if each.__doc__ and each is not BaseModel
    ]
    entries: dict[str, str] = {}
    for doc in reversed(docs):
        section = doc.partition("\nAttributes:\n")[2].partition("\n\n")[0]
        entries |= {name: _prose(text) for name, text in _ENTRY.findall(section)}
    return _prose(re.split(r"\n(?=>>>|\w+:\n)", docs[0])[0]), entries


def _prose(text: str) -> str:
    """Text without the line breaks of the source; ``code`` as Markdown writes it."""
    paragraphs = (" ".join(each.split()) for each in text.strip().split("\n\n"))
    return "\n\n".join(paragraphs).replace("``", "`")


def _written(value: object) -> Any:
    return dump_options(value) if isinstance(value, BaseModel) else to_jsonable_python(value)
