"""Writes the lists of ``scm_file.md`` from the JSON Schema of the SCM file: ``python docs/scm_file.py``."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mechanisms.schema import scm_schema

Schema = dict[str, Any]

PAGE = Path(__file__).with_suffix(".md")
MARK = "<!-- From here on: written by docs/scm_file.py. -->\n"
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def page(text: str) -> str:
    """The page, with what stands below the mark written anew."""
    return text.partition(MARK)[0] + MARK + "".join(f"\n{each}\n" for each in Reference(scm_schema()))


class Reference:
    """The sections of the page, top down: the file, then each thing that can stand in one before."""

    def __init__(self, schema: Schema) -> None:
        self.file = schema
        self.models = {f"#/$defs/{name}": model for name, model in schema["$defs"].items()}

    def __iter__(self) -> Iterator[str]:
        """Markdown, a section each."""
        waiting, told = [self.file], set[str]()
        for part in waiting:  # which grows
            if (title := self.title(part)) in told:
                continue
            told.add(title)
            kinds = part.get("discriminator", {}).get("mapping", {})
            if not kinds:
                model = self.models.get(part.get("$ref", ""), part)
                yield self.section(f"## {title}", model)
                waiting += self.parts(model)
                continue
            members = {kind: self.models[reference] for kind, reference in kinds.items()}
            tag = part["discriminator"]["propertyName"]
            usual = [
                f"; `{kind}` where it is left out"
                for kind, each in members.items()
                if tag not in each["required"]
            ]
            which = f"Its `{tag}` says which{''.join(usual)}."
            yield f"## {title}\n\n{which} {part.get('$comment', '')}".rstrip()
            for kind, model in members.items():
                yield self.section(f"### {title} `{kind}`", model)
                waiting += self.parts(model)

    def title(self, part: Schema) -> str:
        """Its heading."""
        title: str = self.models.get(part.get("$ref", ""), part)["title"]
        title = title.removesuffix(" kind")
        return title[0].upper() + title[1:]

    def section(self, heading: str, model: Schema) -> str:
        """What a model means, and a table of its options; columns in which nothing stands are left out."""
        rows = [("Option", "Values", "Default", "Meaning")]
        for name, option in model["properties"].items():
            if not ("const" in option and "default" in option) and option.get("type") != "null":
                usual = code(option["default"]) if "default" in option else ""
                usual = "required" if name in model.get("required", ()) else usual
                rows.append((code(name), self.values(option), usual, prose(option.get("description", ""))))
        shown = [column for column in zip(*rows, strict=True) if any(column[1:])]
        lines = [f"| {' | '.join(row)} |" for row in zip(*shown, strict=True)]
        rule = ["|" + "---|" * len(shown)] if lines else []
        text = [prose(model.get("description", "")), model.get("$comment", "")]
        blocks = [heading, *text, "\n".join([*lines[:1], *rule, *lines[1:]])]
        return "\n\n".join(block for block in blocks if block)

    def parts(self, model: Schema) -> Iterator[Schema]:
        """What a model's options hold that has a section of its own."""
        waiting = list(model["properties"].values())
        for schema in waiting:  # which grows
            if self.is_part(schema):
                yield schema
            else:
                waiting += schema.get("anyOf", [])
                waiting += [schema[key] for key in ("items", "additionalProperties") if schema.get(key)]

    def is_part(self, schema: Schema) -> bool:
        """Whether it has a section of its own."""
        return "$ref" in schema or ("title" in schema and ("oneOf" in schema or "properties" in schema))

    def values(self, schema: Schema) -> str:
        """What may be written for an option, in words."""
        name = f"`{schema['title']}` " if "title" in schema else ""
        match schema:
            case _ if self.is_part(schema):
                title = self.title(schema)
                return f"[{title[0].lower()}{title[1:]}](#{title.lower().replace(' ', '-')})"
            case {"anyOf": several}:  # what has items comes last, or another "or" would be one of theirs
                return " or ".join(
                    sorted(map(self.values, several), key=lambda text: "each " in text or "mapping" in text)
                )
            case {"enum": words}:
                return ", ".join(map(code, words))
            case {"const": word}:
                return code(word)
            case {"type": "null"}:
                return "`null`"
            case {"type": "boolean"}:
                return "`true` or `false`"
            case {"type": "string"}:
                return "text"
            case {"type": "integer" | "number" as kind}:
                word = "whole number" if kind == "integer" else "number"
                return f"{name}{word}{limits(schema)} {schema.get('$comment', '')}".strip()
            case {"prefixItems": each}:
                items = list(map(self.values, each))
                same = len(set(items)) == 1
                return f"list of {len(items)}, each {items[0]}" if same else f"list: {', '.join(items)}"
            case {"type": "array", "items": each}:
                return f"list{lengths(schema)}, each {self.values(each)}"
            case {"additionalProperties": dict() as each}:
                return f"a mapping from names to {self.values(each)}"
        return "anything"


def limits(schema: Schema) -> str:
    """The range of a number, as in " ≥ 0, < 1" or " 1 to 8"."""
    if {"minimum", "maximum"} <= schema.keys():
        return f" {schema['minimum']:,} to {schema['maximum']:,}"
    found = [f"{sign} {schema[key]:,}" for key, sign in LIMITS.items() if key in schema]
    found += [f"a multiple of {schema['multipleOf']}"] if "multipleOf" in schema else []
    return " " + ", ".join(found) if found else ""


def lengths(schema: Schema) -> str:
    """How many items, as in " (1 to 8)"."""
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    if most is None:
        return f" ({least} or more)" if least else ""
    return f" ({least} to {most:,})"


def code(value: object) -> str:
    """A value as an SCM file has it, in one line."""
    if isinstance(value, dict):
        text = "{" + ", ".join(f"{key}: {code(each)[1:-1]}" for key, each in value.items()) + "}"
    elif isinstance(value, list):
        text = "[" + ", ".join(code(each)[1:-1] for each in value) + "]"
    elif isinstance(value, str):
        text = value or '""'
    else:
        text = json.dumps(value)
    return f"`{text}`"


def prose(text: str) -> str:
    """A description as Markdown that a table's cell can hold; ``code`` stays code."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [re.sub(r"[*_<>~$\[\]]", r"\\\g<0>", part) for part in parts[::2]]
    return "".join(parts).replace("|", r"\|")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
