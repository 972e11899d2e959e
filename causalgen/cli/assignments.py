"""What is typed with an equals sign: ``node=value[,node=value]`` with ``--do`` and ``--set``.

digit=3,place=[0.5,2]      numbers, vectors; an array of several dimensions as [[1,2],[3,4]]
mask=masks/1.png           images, by their files
breed=pug                  labels, as they stand: they may hold commas and equals signs
thickness=thickness + 1    with --do, expressions of other nodes, and of the node's own natural value

``--rename`` and ``--intervened`` say ``COLUMN=node``, the other way round: after the last equals sign stands
what is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from causalgen.data.csv_table import TRUTH
from causalgen.data.frames import vector_columns
from causalgen.data.pictures import ENDINGS
from graphs.errors import DataError, DomainError, InterventionError, UnknownNameError, did_you_mean
from graphs.variables import Categorical, Image, Variable

__all__ = ["parse_assignments", "parse_intervened", "parse_renames", "read_number"]


def parse_assignments(
    texts: Iterable[str], variables: Mapping[str, Variable], what: str, *, expressions: bool = False
) -> dict[str, Any]:
    """Values of nodes, from texts ``node=value``, or several of these by commas, behind the option ``what``.

    Where ``expressions`` may stand, text that is no value is one, and is left as text.
    """
    values: dict[str, Any] = {}
    for node, value, where in (each for text in texts for each in _pieces(text, variables, what)):
        if node in values:
            raise InterventionError(f"{where}: {node!r} has a value already.")
        values[node] = _value(value, variables[node], where, expressions)
    return values


def parse_renames(
    texts: Iterable[str], variables: Mapping[str, Variable], headers: Sequence[Sequence[str]]
) -> dict[str, str]:
    """Names of columns by node, where they differ, from texts ``COLUMN=node``.

    A column must be in one of the ``headers`` of the tables that are read; none are known of data that are no
    tables.
    """
    known = list(dict.fromkeys(name for header in headers for name in header))
    found: dict[str, str] = {}
    for node, column, where in _columns(texts, variables, "--rename", "Body height=height", known):
        if node in found:
            raise DataError(f"{where}: node {node!r} has the column {found[node]!r} already.")
        if column in found.values():
            other = next(each for each in found if found[each] == column)
            raise DataError(f"{where}: column {column!r} is node {other!r} already.")
        found[node] = column
    for node, column in found.items():
        where = f"--rename '{column}={node}'"
        if column in variables and column not in found:
            raise DataError(
                f"{where}: column {column!r} has the name of another node. Say which column that one is: "
                f"--rename COLUMN={column}."
            )
        parts = vector_columns(column, variables[node], known, ())
        if headers and column not in known and not (parts and set(parts) <= set(known)):
            raise UnknownNameError.of("column", column, known, where=where)
        if node not in found.values() and any(node in each and column in each for each in headers):
            raise DataError(f"{where}: there is a column {node!r} too. Take it out of the table.")
    return found


def parse_intervened(texts: Iterable[str] | None, variables: Mapping[str, Variable]) -> dict[str, str]:
    """Columns that say in which rows an experiment set a node, by node, from texts ``COLUMN=node``."""
    found: dict[str, str] = {}
    for node, column, where in _columns(texts or (), variables, "--intervened", "randomised=dose"):
        if node in found:
            raise DataError(f"{where}: node {node!r} has the column {found[node]!r} already.")
        found[node] = column
    return found


def _columns(
    texts: Iterable[str],
    variables: Mapping[str, Variable],
    option: str,
    example: str,
    known: Sequence[str] = (),
) -> Iterator[tuple[str, str, str]]:
    """Node, column and place of each text."""
    for text in texts:
        column, equals, node = text.rpartition("=")
        node = node.strip()
        column = column if column in known else column.strip()  # a name may end in a space
        where = f"{option} {text!r}"
        if not equals or not node or not column:
            raise DataError(f"{where}: expected COLUMN=node, as in {example!r}.")
        UnknownNameError.check("node", node, variables, where=where)
        yield node, column, where


def _pieces(text: str, variables: Mapping[str, Variable], what: str) -> Iterator[tuple[str, str, str]]:
    """Node, value and place of each piece."""
    rest: str | None = text
    while rest is not None:
        node, equals, after = (each.strip() for each in rest.partition("="))
        where = f"{what} {text!r}"
        if not equals or not node or not after:
            point = " A decimal has a point." * rest.strip().isdecimal()
            raise InterventionError(
                f"{where}: expected node=value, as in digit=3; got {rest.strip()!r}.{point}"
            )
        UnknownNameError.check("node", node, variables, where=where)
        value, rest = _first_value(after, variables[node])
        yield node, value, where


def _first_value(text: str, variable: Variable) -> tuple[str, str | None]:
    """The value that a text starts with, and what follows its comma; None where nothing does."""
    for label in sorted(_labels(variable), key=len, reverse=True):
        after = text[len(label) :].lstrip()
        if text.startswith(label) and after[:1] in ("", ","):
            return label, after[1:] if after else None
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth <= 0:
            return text[:place].strip(), text[place + 1 :]
    return text, None


def _labels(variable: Variable) -> list[str]:
    labels = variable.labels if isinstance(variable, Categorical) else None
    return [label for label in labels or () if isinstance(label, str)]


def _value(text: str, variable: Variable, where: str, expressions: bool) -> Any:
    try:
        if isinstance(variable, Image):
            if text.lower().endswith(ENDINGS):
                return Path(text)
            raise ValueError
        if isinstance(variable, Categorical) and variable.labels is not None:
            return _label(text, variable, where)
        if variable.event_shape and text.startswith("["):
            return _numbers(text)
        if isinstance(variable, Categorical) and variable.size == 2 and text in TRUTH:
            return TRUTH[text]
        return read_number(text)
    except ValueError as error:
        if expressions and not text.startswith("["):
            return text
        if isinstance(variable, Image):
            raise InterventionError(
                f"{where}: an image is typed as the path of its file, one of {', '.join(ENDINGS)}; "
                f"got {text!r}."
            ) from error
        hint = did_you_mean(text, _labels(variable))
        raise InterventionError(
            f"{where}: {text!r} is no value of a variable that is {variable.describe()}.{hint}"
        ) from error


def _numbers(text: str) -> Any:
    """Numbers in brackets, of an array in brackets within these, row by row.

    Raises:
        ValueError: no numbers, or brackets that do not match.
    """
    if not text.startswith("["):
        return read_number(text)
    if not text.endswith("]"):
        raise ValueError
    parts, depth, start = list[Any](), 0, 1
    for place, letter in enumerate(text):
        depth += (letter == "[") - (letter == "]")
        if depth < 1 and place < len(text) - 1:
            raise ValueError
        if (letter == "," and depth == 1) or place == len(text) - 1:
            parts.append(_numbers(text[start:place].strip()))
            start = place + 1
    return parts


def _label(text: str, variable: Categorical, where: str) -> str | int | float:
    """A text that is a label; one that is none may still be the number that is, as in a table.

    Raises:
        ValueError: neither.
    """
    try:
        variable.encode(text, where=where)
        return text
    except DomainError:
        if not any(isinstance(label, int) for label in variable.labels or ()):
            raise
    number = read_number(text)
    variable.encode(number, where=where)
    return number


def read_number(text: str) -> int | float:
    """A number as a table would have it; whole ones of any length stay whole."""
    if "_" in text or not text.isascii():  # numbers to Python, but not in a file
        raise ValueError
    try:
        return int(text)
    except ValueError:
        return float(text)
