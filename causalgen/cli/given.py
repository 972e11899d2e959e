"""Evidence as a user has it: a picture, a JSON, a table or one row of it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from causalgen.cli.common import image_variables, tell_unused
from causalgen.counterfactuals.evidence import read_pictures
from causalgen.data.frames import present_columns, table_header, vector_columns
from causalgen.data.pictures import ENDINGS, picture_column
from causalgen.data.reading import Table, read_data
from causalgen.scm import SCM
from graphs.errors import DataError, EvidenceError

__all__ = ["as_given", "evidence_table", "read_evidence"]


def evidence_table(source: str | None) -> Path | None:
    """The table that ``--evidence`` names; None where it is none, or no table."""
    file = Path(_file_and_row(source)[0]) if source is not None else Path()
    return None if source is None or file.suffix.lower() in (".json", *ENDINGS) else file


def _file_and_row(source: str) -> tuple[str, str]:
    """``table.csv:3`` as its path and its row; "" where it names none."""
    path, _, row = source.rpartition(":")
    return (path, row) if row.isdigit() else (source, "")


def read_evidence(
    source: str | None, scm: SCM, typed: Collection[str], columns: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Evidence by node.

    Args:
        source: path of a picture (of the only image node), of a JSON object (images as paths relative to
            it), or of a table, perhaps with a row as in ``table.csv:3``; None for none. Empty cells, nulls
            and columns that a table does not have are left to be inferred.
        scm: the model.
        typed: nodes whose value is given otherwise: a table needs no column for them.
        columns: names of columns by node, where they differ from the node's; a table may lack some.

    Raises:
        DataError: no such file, or not what it should be; of a table, no column of any node.
        EvidenceError: a picture, where the model has not just one image node.
    """
    if source is None:
        return {}
    path, row = _file_and_row(source)
    file = Path(path)
    if not file.is_file():
        raise DataError(f"There is no evidence file {path}.")
    if file.suffix.lower() == ".json":
        return _read_json(file, scm)
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
    if row and int(row) >= table.rows:
        raise DataError(f"{path} has rows 0..{table.rows - 1}, got row {row}.")
    rows = slice(int(row), int(row) + 1) if row else slice(None)
    return {node: as_given(table, node, rows, scm) for node in table}


def _read_picture(file: Path, scm: SCM) -> dict[str, Any]:
    images = image_variables(scm)
    if len(images) != 1:
        raise EvidenceError(f"{file} is a picture, but the model has {len(images)} image nodes. Use a JSON.")
    ((node, variable),) = images.items()
    return {node: picture_column([str(file)], variable, column=f"Evidence {node!r}", folder=None)}


def _read_json(file: Path, scm: SCM) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} is no JSON: {error}.") from error
    if not isinstance(values, dict):
        raise DataError(f"{file} must hold an object of nodes and values, got {type(values).__name__}.")
    for node, variable in image_variables(scm).items():
        if node in values:
            where = f"Evidence {node!r} of {file.name}"
            values[node] = read_pictures(values[node], variable, where=where, folder=file.parent)
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; a name that is there twice is refused, not overwritten."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return values


def as_given(table: Table, node: str, rows: slice, scm: SCM) -> Any:
    """Rows of a checked table in the form that evidence takes, None where a row lacks a value."""
    values, gaps = table[node][rows], table.incomplete([node])[rows]
    given = values if values.dtype == np.uint8 else np.asarray(scm.variables[node].decode(values))
    if not gaps.any():
        return given
    return [None if gap else value for gap, value in zip(gaps, given, strict=True)]
