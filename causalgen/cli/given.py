"""Evidence as a user has it: a picture, a JSON, a table or one row of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from causalgen.cli.common import json_object, own_table, tell_unused
from causalgen.counterfactuals.evidence import read_pictures
from causalgen.data.frames import present_columns, table_header, vector_columns
from causalgen.data.pictures import ENDINGS, picture_column
from causalgen.data.reading import Table, read_data
from causalgen.scm import SCM
from graphs.errors import DataError, EvidenceError
from graphs.variables import image_variables

__all__ = ["as_given", "named_evidence", "named_rows", "numbered", "read_evidence", "with_own_rows"]


class _Numbered(dict[str, Any]):
    """Evidence by node, with an index, which its answers keep."""

    index: pd.RangeIndex


def with_own_rows(source: str | None, model: str) -> str | None:
    """``samples`` and ``samples:ROWS`` as the table that comes with a model; anything else as it is."""
    path, rows = _file_and_rows(source or "")
    if path != "samples":
        return source
    if (file := own_table(model)) is None:
        raise DataError(f"The model {model} has no rows of its own: give --evidence a file.")
    return f"{file}:{rows}" if rows else str(file)


def named_evidence(source: str | None) -> Path | None:
    """The table or JSON that ``--evidence`` names, whose values have names; None where it is neither."""
    file = Path(_file_and_rows(source)[0]) if source is not None else Path()
    return None if source is None or file.suffix.lower() in ENDINGS else file


def _file_and_rows(source: str) -> tuple[str, str]:
    """``table.csv:3`` or ``table.csv:3-7`` as its path and its rows; "" where it names none."""
    path, _, rows = source.rpartition(":")
    return (path, rows) if re.fullmatch(r"[0-9]+(-[0-9]+)?", rows) else (source, "")


def named_rows(source: str | None) -> range:
    """The numbers of the rows that ``--evidence`` names of its table; none where it names none."""
    first, dash, last = _file_and_rows(source or "")[1].partition("-")
    return range(int(first), int(last if dash else first) + 1) if first else range(0)


def numbered(known: dict[str, Any], rows: range) -> dict[str, Any]:
    """Evidence of rows that are named, whose answers call them by these numbers; of others as it is."""
    if not rows:
        return known
    evidence = _Numbered(known)
    evidence.index = pd.RangeIndex(rows.start, rows.stop, name="row")
    return evidence


def _chosen(rows: str, table: Table, path: str) -> slice:
    """The rows of a table that ``3`` or ``3-7`` names; all where nothing does."""
    if not rows:
        return slice(None)
    first, _, last = rows.partition("-")
    start, stop = int(first), int(last or first) + 1
    if not start < stop <= table.rows:
        raise DataError(f"{path} has rows 0..{table.rows - 1}, got row{'s' * bool(last)} {rows}.")
    return slice(start, stop)


def read_evidence(
    source: str | None, scm: SCM, typed: Collection[str], columns: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Evidence by node.

    The source is the path of a picture (of the only image node), of a JSON object (images as paths relative
    to it), or of a table, perhaps with rows as in ``table.csv:3`` and ``table.csv:3-7``; None for none. Empty
    cells, nulls and columns that a table does not have are left to be inferred; nodes ``typed`` otherwise
    need no column. ``columns`` names columns, or a JSON's values, by node, where they differ; a table may
    lack some.
    """
    if source is None:
        return {}
    path, rows = _file_and_rows(source)
    file = Path(path)
    if not file.is_file():
        if file.exists():  # a folder or a pipe: a table is read more than once
            raise DataError(f"Evidence {path} is no plain file: give the path of a table, JSON or picture.")
        raise DataError(f"There is no evidence file {path}.")
    if rows and file.suffix.lower() in (".json", *ENDINGS):
        raise DataError(
            f"{path} is no table, of which rows could be named: leave :{rows} out, or give these rows alone."
        )
    if file.suffix.lower() == ".json":
        return _read_json(file, scm, columns or {})
    if file.suffix.lower() in ENDINGS:
        return _read_picture(file, scm)
    header = table_header(file)
    own = {
        node: name
        for node, name in (columns or {}).items()
        if name in header or set(vector_columns(name, scm.variables[node], header, ())) & set(header)
    }
    named = {own.get(node, node): node for node in scm.variables}
    wanted = {name: scm.variables[node] for name, node in named.items() if node not in typed}
    present, unused = present_columns(file, wanted, {name: scm.variables[named[name]] for name in named})
    tell_unused(file, unused)
    variables = {named[name]: variable for name, variable in present.items()}
    own = {node: name for node, name in own.items() if node in variables}
    table = read_data(file, variables, own, gaps=True, partial=False)
    chosen = _chosen(rows, table, path)
    return {node: as_given(table, node, chosen, scm) for node in table}


def _read_picture(file: Path, scm: SCM) -> dict[str, Any]:
    images = image_variables(scm.variables)
    if len(images) != 1:
        raise EvidenceError(f"{file} is a picture, but the model has {len(images)} image nodes. Use a JSON.")
    ((node, variable),) = images.items()
    return {node: picture_column([str(file)], variable, column=f"Evidence {node!r}", folder=None)}


def _read_json(file: Path, scm: SCM, columns: Mapping[str, str]) -> dict[str, Any]:
    given, nodes = json_object(file), dict[str, str]()
    for node, name in columns.items():
        parts = vector_columns(name, scm.variables[node], given, ())
        nodes |= {name: node} | {part: f"{node}[{index}]" for index, part in enumerate(parts)}
    values = {nodes.get(name, name): value for name, value in given.items()}
    for node, variable in image_variables(scm.variables).items():
        if node in values:
            where = f"Evidence {node!r} of {file.name}"
            values[node] = read_pictures(values[node], variable, where=where, folder=file.parent)
    return values


def as_given(table: Table, node: str, rows: slice, scm: SCM) -> Any:
    """Rows of a checked table in the form that evidence takes, None where a row lacks a value."""
    values, gaps = table[node][rows], table.incomplete([node])[rows]
    given = values if values.dtype == np.uint8 else np.asarray(scm.variables[node].decode(values))
    if not gaps.any():
        return given
    return [None if gap else value for gap, value in zip(gaps, given, strict=True)]
