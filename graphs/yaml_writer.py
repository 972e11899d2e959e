"""Data as YAML that ``strict_yaml`` reads back equal: flow style where it fits in a line, else block style.

Law: ``load(dump(data)) == data`` for any data without NaN (within the reader's limits), hence
``dump(load(dump(data))) == dump(data)``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from graphs.strict_yaml import Data, resolve

__all__ = ["dump", "flow"]

WIDTH = 110

# Words that need no quotes anywhere, in flow style either; no ':' or '#', so no surprise is possible.
_PLAIN = re.compile(r"[A-Za-z_]([A-Za-z0-9_./ -]*[A-Za-z0-9_./-])?")


def dump(data: Mapping[str, Data], *, block: int = 0) -> str:
    """A mapping as YAML text that ends in a newline.

    >>> print(dump({"name": "m", "nodes": {"x": {"variable": {"shape": [1, 28, 28]}}}}, block=3))
    name: m
    nodes:
      x:
        variable: {shape: [1, 28, 28]}
    <BLANKLINE>

    Args:
        data: what to write, at least one key.
        block: to this depth mappings are in block style even where they would fit in a line.
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
    lines: list[str] = []
    for key, value in data.items():
        lines += _entry_lines(f"{indent}{_string(key)}:", value, indent + "  ", block - 1)
    return lines


def _list_lines(data: Sequence[Data], indent: str) -> list[str]:
    lines: list[str] = []
    for value in data:
        lines += _entry_lines(f"{indent}-", value, indent + "  ", 0)
    return lines


def _entry_lines(start: str, value: Data, indent: str, block: int) -> list[str]:
    one_line = f"{start} {flow(value)}"
    fits = len(one_line) <= WIDTH
    if isinstance(value, dict) and value and (block > 0 or not fits):
        return [start, *_mapping_lines(value, indent, block)]
    if isinstance(value, list) and value and not fits:
        return [start, *_list_lines(value, indent)]
    return [one_line]


def _string(text: str) -> str:
    if _PLAIN.fullmatch(text) and resolve(text) == text:
        return text
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
