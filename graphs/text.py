r"""Text that people declare (names, units, labels), and what is shown to them.

A model's text ends up on terminals, in Markdown, HTML, SVG and CSV. What would act there instead of being
read is refused once, where it is declared: control characters (an escape sequence moves the cursor), line
separators (a line break ends a table's row or a code block), bidirectional overrides (they show another
order than is stored) and what no UTF-8 or XML file can hold. Markup is text: whoever writes it escapes it.

>>> check_text("µm", "unit")
'µm'
>>> check_text("\x1b[2J", "unit")
Traceback (most recent call last):
ValueError: the unit '\x1b[2J' holds the control character U+001B at place 1. Leave it out
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from importlib import import_module

from graphs.limits import TEXT

__all__ = ["Shown", "aligned", "check_text", "counted", "markdown", "printable", "shortened"]

_ACTING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_MARKDOWN = re.compile(r"([\\`*_\[\]<>&|~$])")


def check_text(text: str, what: str, longest: int = TEXT) -> str:
    """The text itself, where it is short and holds nothing but what can be read."""
    if len(text) > longest:
        raise ValueError(
            f"the {what} {shortened(text, 40)!r} has {len(text):,} characters, at most {longest} are allowed"
        )
    if found := _ACTING.search(text):
        raise ValueError(
            f"the {what} {text!r} holds the {_described(found[0])} U+{ord(found[0]):04X} at place "
            f"{found.start() + 1}. Leave it out"
        )
    return text


def _described(character: str) -> str:
    code = ord(character)
    if 0xD800 <= code <= 0xDFFF:
        return "lone surrogate"
    if code in (0xFFFE, 0xFFFF):
        return "noncharacter"
    return "control character"


def printable(text: str) -> str:
    r"""Text of others as a terminal may show it: what would act is spelt out; line breaks stay.

    >>> printable("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    return _ACTING.sub(lambda found: found[0] if found[0] == "\n" else repr(found[0])[1:-1], text)


def markdown(text: str) -> str:
    r"""Text as Markdown that shows it, whatever it holds; a line stays a line.

    >>> markdown("[x](y)")
    '\\[x\\](y)'
    """
    return _MARKDOWN.sub(r"\\\1", printable(text).replace("\n", " "))


def counted(number: int, what: str) -> str:
    """A number of things.

    >>> counted(1, "row"), counted(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{number:,} {what}{'s' * (number != 1)}"


def shortened(text: str, most: int, dots: str = "...") -> str:
    """The text, or its beginning and dots.

    >>> shortened("abcdefgh", 6)
    'abc...'
    """
    return text if len(text) <= most else text[: most - len(dots)] + dots


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """A table's rows as lines, two spaces in, their columns two spaces apart; those ``right`` end alike.

    >>> aligned([("x", "10", "a"), ("long", "9", "")], right=(1,))
    ['  x     10  a', '  long   9']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines: list[str] = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines


class Shown:
    """Shown in notebooks as ``causalgen.plotting.notebook`` says, which loads when a notebook first asks."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        """A piece of a page, every name escaped."""
        return str(import_module("causalgen.plotting.notebook").html(self))
