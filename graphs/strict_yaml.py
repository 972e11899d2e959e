"""A strict reader for a small part of YAML 1.2, which knows where everything stands, and its writer.

Mappings with string keys, lists and scalars, typed by the YAML 1.2 core schema: ``1e-3`` is a number, ``no``
and ``12:30:00`` are strings. Refused: duplicate keys, anchors, aliases, merge keys, tags, more than one
document and numbers that begin with 0 and another digit, as ``010``; also what costs more than it says, by
``limits``. Nothing in a file can name code. Every error is a ``SpecError`` that starts with
"file:line:column".

Written data are in flow style where that fits in a line, else in block style. Law: ``load(dump(data))[0] ==
data`` for any data without NaN (within the limits), hence ``dump(load(dump(data))) == dump(data)``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import cast

import yaml
from yaml import events

from graphs.errors import SpecError
from graphs.limits import DEPTH, DIGITS, FILE_BYTES, KEY, VALUES
from graphs.text import check_text

__all__ = ["Data", "Locations", "Path", "dump", "flow", "load", "resolve", "size_of"]


Data = None | bool | int | float | str | list["Data"] | dict[str, "Data"]
"""What a file holds."""

Path = tuple[str | int, ...]
"""Keys and list positions from the top of a file to one of its values."""

# What YAML can hold as it is; anything else is an escape in a quoted string.
_UNREADABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_NULL = ("", "~", "null", "Null", "NULL")
_BOOLEAN = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_OTHER_THAN_TEXT = frozenset(["", *"~nNtTfF+-.0123456789"])
"""What a scalar begins with that may be no string: most are told by this."""
_INTEGER = re.compile(r"[-+]?[0-9]+")
_RADIX = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_PADDED = re.compile(r"[-+]?0[0-9]")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITY = re.compile(r"[-+]?\.(inf|Inf|INF)")
_NAN = re.compile(r"\.(nan|NaN|NAN)")


class Locations:
    """Where each value of a file stands: ``locations["nodes", "x", "parents", 0]`` is "scm.yaml:7:15".

    A path that the file does not have gets the place of its nearest existing ancestor.
    """

    def __init__(
        self,
        source: str,
        values: Mapping[Path, tuple[int, int]] | None = None,
        keys: Mapping[Path, tuple[int, int]] | None = None,
    ) -> None:
        """Keep the (line, column) of values and of the keys before them, both counted from 1."""
        self.source = source
        self._values = dict(values or {})
        self._keys = dict(keys or {})

    def __contains__(self, path: object) -> bool:
        return path in self._values

    def __getitem__(self, path: Path) -> str:
        """Place of the value at ``path``, or of its nearest existing ancestor."""
        while path and path not in self._values:
            path = path[:-1]
        return self._show(self._values.get(path, (1, 1)))

    def key(self, path: Path) -> str:
        """Place of the key that ``path`` ends with; of the value where it ends in a list position."""
        return self._show(self._keys[path]) if path in self._keys else self[path]

    def _show(self, place: tuple[int, int]) -> str:
        return f"{self.source}:{place[0]}:{place[1]}"


def load(text: str, source: str) -> tuple[Data, Locations]:
    r"""Read one document.

    >>> data, locations = load("steps: 16\nscale: 1e-3", "scm.yaml")
    >>> data, locations["scale",]
    ({'steps': 16, 'scale': 0.001}, 'scm.yaml:2:8')
    """
    if size_of(text) > FILE_BYTES:
        raise SpecError(f"{source}:1:1: the file is larger than {FILE_BYTES:,} bytes.")
    if bad := _UNREADABLE.search(text):
        what = f"not valid YAML: a control character, U+{ord(bad[0]):04X}."
        raise SpecError(_at(source, _place(text, bad.start()), what))
    reader = _Reader(text, source)
    try:
        data = reader.document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        place = min(place, _place(text, len(text)))  # of a line that the text lacks: its end
        what = error.problem or error.context
        if text.split("\n")[place[0] - 1][: place[1]].lstrip(" ") == "\t":
            what = "a tab, where lines are indented by spaces"
        raise SpecError(_at(source, place, f"not valid YAML: {what}.")) from error
    except yaml.YAMLError as error:
        raise SpecError(_at(source, (1, 1), f"not valid YAML: {error}.")) from error
    return data, Locations(source, reader.values, reader.keys)


def size_of(text: str) -> int:
    """Bytes of a text in UTF-8."""
    return len(text.encode("utf-8", "surrogatepass"))


def resolve(text: str) -> Data:
    """The value of a plain scalar under the YAML 1.2 core schema.

    >>> resolve("1e-3"), resolve("no"), resolve("0x1F"), resolve("~")
    (0.001, 'no', 31, None)
    """
    if text[:1] not in _OTHER_THAN_TEXT:
        return text
    if text in _NULL:
        return None
    if text in _BOOLEAN:
        return _BOOLEAN[text]
    if _INFINITY.fullmatch(text):
        return float("-inf" if text[0] == "-" else "inf")
    if _NAN.fullmatch(text):
        return float("nan")
    if not (_INTEGER.fullmatch(text) or _FLOAT.fullmatch(text) or _RADIX.fullmatch(text)):
        return text
    if len(text) > DIGITS:
        raise ValueError(f"a number of {len(text)} characters; at most {DIGITS} are read")
    if _RADIX.fullmatch(text):
        return int(text, 0)
    if _PADDED.match(text):
        plain = re.sub("^([-+]?)0+(?=[0-9])", r"\1", text)
        raise ValueError(
            f"{text} begins with 0: YAML reads it as a number, {plain}, older YAML as an octal one. "
            f'Quote it where it is a text, as labels are: "{text}"; or write {plain}'
        )
    if _INTEGER.fullmatch(text):
        return int(text)
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text} is too large")
    return number


class _Reader:
    """Builds the data from the events of PyYAML's parser, checking each as it comes."""

    def __init__(self, text: str, source: str) -> None:
        self.text = text
        self.source = source
        self.values: dict[Path, tuple[int, int]] = {}
        self.keys: dict[Path, tuple[int, int]] = {}
        self._count = 0

    def document(self) -> Data:
        self._events = cast(
            Iterator[events.Event],
            yaml.parse(self.text, yaml.CSafeLoader),  # pyright: ignore[reportUnknownMemberType]
        )
        next(self._events)  # the start of the stream
        event = next(self._events)
        if isinstance(event, events.StreamEndEvent):
            raise SpecError(f"{self.source}:1:1: the file is empty.")
        data = self._value(next(self._events), ())
        next(self._events)  # the end of the document
        event = next(self._events)
        if not isinstance(event, events.StreamEndEvent):
            raise self._error(event, "a second document starts here; a file holds one. Remove this '---'.")
        return data

    def _value(self, event: events.Event, path: Path) -> Data:
        self._check(event, path)
        self.values[path] = _mark(event)
        if isinstance(event, events.ScalarEvent):
            return self._scalar(event)
        return self._mapping(path) if isinstance(event, events.MappingStartEvent) else self._list(path)

    def _mapping(self, path: Path) -> dict[str, Data]:
        mapping: dict[str, Data] = {}
        while not isinstance(event := next(self._events), events.MappingEndEvent):
            key = self._key(event, path)
            here = (*path, key)
            if key in mapping:
                first = f"line {self.keys[here][0]}"
                raise self._error(
                    event, f"the key {key!r} is here twice, first on {first}. Remove one of them."
                )
            self.keys[here] = _mark(event)
            mapping[key] = self._value(next(self._events), here)
        return mapping

    def _list(self, path: Path) -> list[Data]:
        items: list[Data] = []
        while not isinstance(event := next(self._events), events.SequenceEndEvent):
            items.append(self._value(event, (*path, len(items))))
        return items

    def _key(self, event: events.Event, path: Path) -> str:
        self._check(event, path)
        if not isinstance(event, events.ScalarEvent):
            raise self._error(event, "a key must be a string, got a mapping or a list.")
        if event.value == "<<" and not event.style:
            raise self._error(event, "merge keys ('<<') are not allowed. Write the keys out.")
        point = " A decimal has a point." * event.value.isdecimal()  # as of {lower: 0,5}
        try:
            key = event.value if event.style else resolve(event.value)
            if not isinstance(key, str):
                raise ValueError(f'a key must be a string, got {key!r}. Quote it: "{event.value}"')
            return check_text(key, "key", KEY)
        except ValueError as error:
            raise self._error(event, f"{error}.{point}") from error

    def _scalar(self, event: events.ScalarEvent) -> Data:
        if event.style:  # quoted or a block scalar: always a string
            return event.value
        try:
            return resolve(event.value)
        except ValueError as error:
            raise self._error(event, f"{error}.") from error

    def _check(self, event: events.Event, path: Path) -> None:
        if isinstance(event, events.AliasEvent):
            raise self._error(event, f"aliases ('*{event.anchor}') are not allowed. Write the value out.")
        if isinstance(event, (events.ScalarEvent, events.CollectionStartEvent)):
            if event.anchor is not None:
                raise self._error(event, f"anchors ('&{event.anchor}') are not allowed. Remove it.")
            if event.tag is not None:
                raise self._error(event, f"tags ({event.tag!r}) are not allowed. Remove it.")
        self._count += 1
        if self._count > VALUES:
            raise self._error(event, f"the file has more than {VALUES:,} keys and values.")
        if len(path) >= DEPTH:
            raise self._error(event, f"nested more than {DEPTH} deep.")

    def _error(self, event: events.Event, message: str) -> SpecError:
        return SpecError(_at(self.source, _mark(event), message))


def _mark(event: events.Event) -> tuple[int, int]:
    mark = event.start_mark
    return cast(int, mark.line) + 1, cast(int, mark.column) + 1


def _place(text: str, position: int) -> tuple[int, int]:
    before = text[:position]
    return before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1


def _at(source: str, place: tuple[int, int], message: str) -> str:
    return f"{source}:{place[0]}:{place[1]}: {message}"


WIDTH = 110

# Words that need no quotes anywhere, in flow style either; no ':' or '#', so no surprise is possible.
_PLAIN = re.compile(r"[A-Za-z_]([A-Za-z0-9_./ -]*[A-Za-z0-9_./-])?")


def dump(data: Mapping[str, Data], *, block: int = 0) -> str:
    """A mapping of at least one key as YAML text that ends in a newline.

    To the depth ``block`` mappings are in block style even where they would fit in a line.

    >>> print(dump({"name": "m", "nodes": {"x": {"variable": {"shape": [1, 28, 28]}}}}, block=3))
    name: m
    nodes:
      x:
        variable: {shape: [1, 28, 28]}
    <BLANKLINE>
    """
    return "\n".join(_mapping_lines(data, "", block)) + "\n"


def flow(data: Data) -> str:
    """One value on one line.

    >>> flow({"kind": "flow", "bins": [8, 1e-3], "note": "a: b", "off": False})
    '{kind: flow, bins: [8, 0.001], note: "a: b", off: false}'
    """
    if data is None:
        return "null"
    if isinstance(data, bool):
        return "true" if data else "false"
    if isinstance(data, int):
        return str(int(data))
    if isinstance(data, float):
        if math.isinf(data):
            return ".inf" if data > 0 else "-.inf"
        return ".nan" if math.isnan(data) else repr(float(data))
    if isinstance(data, str):
        return _string(data)
    if isinstance(data, list):
        return "[" + ", ".join(map(flow, data)) + "]"
    return "{" + ", ".join(f"{_string(key)}: {flow(value)}" for key, value in data.items()) + "}"


def _mapping_lines(data: Mapping[str, Data], indent: str, block: int) -> list[str]:
    entries = [_entry_lines(f"{indent}{_string(k)}:", v, indent + "  ", block - 1) for k, v in data.items()]
    return list(chain.from_iterable(entries))


def _entry_lines(start: str, value: Data, indent: str, block: int) -> list[str]:
    one_line = f"{start} {flow(value)}"
    fits = len(one_line) <= WIDTH
    if isinstance(value, dict) and value and (block > 0 or not fits):
        return [start, *_mapping_lines(value, indent, block)]
    if isinstance(value, list) and value and not fits:
        items = [_entry_lines(f"{indent}-", each, indent + "  ", 0) for each in value]
        return [start, *chain.from_iterable(items)]
    return [one_line]


def _string(text: str) -> str:
    if _PLAIN.fullmatch(text) and resolve(text) == text:
        return text
    if text.isprintable():
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return '"' + "".join(map(_escape, text)) + '"'


def _escape(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
