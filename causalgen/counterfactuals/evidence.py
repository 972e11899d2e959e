"""Reading evidence: what users give -> checked tensors, one a node, all with the same number of rows."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalgen.counterfactuals.rows import blame
from causalgen.data.arrow_tables import is_arrow
from causalgen.data.frames import arrow_columns, join_columns, refuse_other_index, vector_columns
from causalgen.data.pictures import picture_column
from graphs.errors import (
    EvidenceError,
    PartialEvidenceError,
    ShapeError,
    UnknownNameError,
    near_misses,
    numbered_rows,
    warn,
)
from graphs.variables import Image, Variable
from graphs.variables.gaps import encode_gaps, fill_gaps
from mechanisms.base import Mechanism
from mechanisms.extrapolation import warn_unseen

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Evidence",
    "encode_evidence",
    "encode_partial",
    "read_pictures",
    "refuse_contradiction",
    "warn_far",
]

Evidence = Mapping[str, Any]
"""Node -> scalar, array, tensor, Series, PIL image, path of a picture or list of them; also a DataFrame,
of pandas or of a library that shares Arrow columns, or a row of one as ``frame.iloc[0]`` gives it."""


def encode_evidence(
    evidence: Evidence, variables: Mapping[str, Variable], device: torch.device
) -> tuple[dict[str, Tensor], int, pd.Index | None]:
    """Canonical values of the nodes that the evidence names.

    A node with one row serves all rows.

    Returns:
        Values (B, *event) by node, B, and the index of a DataFrame.
    """
    values, missing, rows, index, _ = encode_partial(evidence, variables, device)
    for name in missing:
        row = int(missing[name].nonzero()[0])
        raise PartialEvidenceError(
            f"Evidence {name!r}: row {row} has no value, and this needs one in every row."
        )
    return values, rows, index


def encode_partial(
    evidence: Evidence, variables: Mapping[str, Variable], device: torch.device
) -> tuple[dict[str, Tensor], dict[str, Tensor], int, pd.Index | None, pd.Index | None]:
    """``encode_evidence`` for evidence with gaps: None, NaN or pandas' NA where a row has no value.

    An image's gap is None: a NaN pixel is an error, as is a vector with some numbers missing.

    Returns:
        Values (B, *event) by node, whatever in missing rows; which rows are missing, (B,) bool, of the nodes
        where some are; B; the index of a DataFrame; and what a Series in ``do`` is matched to: that index, or
        the one of the Series in a mapping.
    """
    columns, index, series = _columns(evidence, variables)
    encoded = {
        name: _encode(variables[name], value, where=f"Evidence {name!r}") for name, value in columns.items()
    }
    rows = max(len(value) for value, _ in encoded.values())
    if rows == 0:
        raise EvidenceError("Evidence has no rows.")
    for name, (value, _) in encoded.items():
        if len(value) not in (1, rows):
            counts = {each: len(other) for each, (other, _) in encoded.items()}
            raise ShapeError(f"Evidence {name!r} has {len(value)} rows where others have {rows}: {counts}.")
    # A copy: evidence stays what it was, whatever becomes of the arrays it came in.
    values = {name: torch.from_numpy(value.copy()).to(device) for name, (value, _) in encoded.items()}
    masks = {
        name: torch.as_tensor(gaps, device=device) for name, (_, gaps) in encoded.items() if gaps is not None
    }
    if index is not None and len(index) != rows:  # a row of a DataFrame, with lists in it
        index = None
    return (
        {name: value.expand(rows, *value.shape[1:]) for name, value in values.items()},
        {name: mask.expand(rows) for name, mask in masks.items()},
        rows,
        index,
        series.get(rows) if index is None else index,
    )


def warn_far(
    values: Mapping[str, Tensor], missing: Mapping[str, Tensor], mechanisms: Mapping[str, Mechanism]
) -> None:
    """Warn of evidence far from what fitting saw: unseen categories, and numbers a whole range outside it.

    Closer to the range, new rows of the same population are expected, and a warning would say nothing.
    """
    for node, value in values.items():
        mechanism = mechanisms[node]
        interval = mechanism.seen_interval
        if interval is not None and _within(value, *interval):
            continue
        if (seen := mechanism.seen_range) is not None:
            rows = ~missing[node] if node in missing else None
            warn_unseen(value, seen, mechanism.variable, where=f"Evidence {node!r}", rows=rows, margin=1.0)


@torch.no_grad()
def refuse_contradiction(
    node: str, mechanism: Mechanism, values: dict[str, Tensor], missing: Mapping[str, Tensor]
) -> None:
    """Refuse rows whose value no noise gives; those that lack it or a parent are left to inference."""
    gaps = [missing[name] for name in values if name in missing]
    rows = (~torch.stack(gaps).any(0)).nonzero()[:, 0] if gaps else None
    if rows is not None:
        values = {name: value[rows] for name, value in values.items()}
    if not len(values[node]):
        return
    with blame(node), numbered_rows(range(len(values[node])) if rows is None else rows.tolist()):
        mechanism.check(values.pop(node), values)


def _within(value: Tensor, low: float, high: float) -> bool:
    """Whether no number is further from an interval than that is wide; for most rows all there is to ask."""
    reach = high - low
    least, most = value.aminmax()
    return low - reach <= least.item() and most.item() <= high + reach


def _encode(variable: Variable, value: Any, *, where: str) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    if isinstance(variable, Image):
        value = read_pictures(value, variable, where=where)
    return encode_gaps(variable, value, where=where)


def read_pictures(value: Any, variable: Image, *, where: str, folder: Path | None = None) -> Any:
    """Images with the paths among them read, None where there is none; anything without a path as it is.

    ``value`` is a path or the bytes of a file, or a list, array or Series of these, PIL images and gaps.
    Paths are relative to ``folder`` and must lie in it; None where they are the caller's own.
    """
    single = isinstance(value, bytes | str | os.PathLike)
    # Of an array or a Series.
    objects = getattr(getattr(value, "dtype", None), "kind", "") in ("O", "U")
    if not (single or isinstance(value, list | tuple) or objects):
        return value
    items = [value] if single else list(value)
    if not any(isinstance(item, bytes | str | os.PathLike) for item in items):
        return value
    filled, gaps = fill_gaps(variable, items, where=where) or (items, None)
    pixels = picture_column(cast(list[object], filled), variable, column=where, folder=folder)
    return pixels if gaps is None else [None if gap else each for gap, each in zip(gaps, pixels, strict=True)]


def _columns(
    evidence: Evidence, variables: Mapping[str, Variable]
) -> tuple[dict[str, Any], pd.Index | None, Mapping[int, pd.Index]]:
    """Columns of nodes, the index of a frame, and the indexes of Series in a mapping, by their lengths.

    A Series that is a row of a DataFrame, and an answer to one, have its index.
    """
    if is_arrow(evidence):
        evidence = arrow_columns(evidence, variables, {node: node for node in variables}, some=True)
    if not hasattr(evidence, "items"):
        raise EvidenceError(
            "Evidence maps nodes to values, as in {'x': 1.0}, or is a DataFrame or a row of one; "
            f"got a {type(evidence).__name__}."
        )
    index: Any = getattr(evidence, "index", None)
    if not hasattr(index, "get_loc"):  # a column or a node may be called so
        index = None
    frame: Any = evidence if hasattr(getattr(evidence, "columns", None), "get_loc") else None
    row: Any = evidence if index is not None and frame is None and not isinstance(evidence, Mapping) else None
    given = dict(evidence.items())
    if not given:
        raise EvidenceError(f"Evidence is empty. Give a value for {', '.join(variables)}.")
    names = index if row is not None else getattr(frame, "columns", ())
    for name, count in Counter(names).items():
        if count > 1:
            raise EvidenceError(f"Evidence has {count} columns {name!r}. Rename all but one.")
    columns = {name: value for name, value in given.items() if name in variables}
    unused = [name for name in given if name not in variables]
    if unused:
        _join_parts(columns, given, unused, variables)
        _tell_unused(columns, unused, variables)
    for name in frame.index.names if frame is not None else ():
        if name in variables and name not in columns:  # as after groupby
            raise EvidenceError(
                f"Evidence has {name!r} as its index, and no column of that node. Give frame.reset_index(), "
                "or rename the index where it means something else."
            )
    if row is not None:
        import pandas as pd

        index = pd.Index([row.name])
    read = {name: given[name] for name in given if name not in unused}  # a vector's parts among them
    return columns, index, {} if frame is not None else refuse_other_index(read, "Evidence", EvidenceError)


def _join_parts(
    columns: dict[str, Any], given: Mapping[str, Any], unused: list[str], variables: Mapping[str, Variable]
) -> None:
    """Several numbers that come as columns ``name_0`` .., as tables have them, as one column."""
    for name, variable in variables.items():
        parts = [] if name in columns else vector_columns(name, variable, given, variables)
        if parts and all(part in unused for part in parts):
            columns[name] = join_columns(given, parts, variable, "Evidence")
            unused[:] = [each for each in unused if each not in parts]


def _tell_unused(columns: Mapping[str, Any], unused: list[str], variables: Mapping[str, Variable]) -> None:
    """Refuse names that look like nodes without a value; warn of the others."""
    absent = [name for name in variables if name not in columns]
    for name, near in near_misses(unused, absent):
        raise UnknownNameError(
            f"Unknown node {name!r} in evidence. Did you mean {near!r}, which has no value? Rename it, "
            f"or take it out. Known: {', '.join(sorted(variables))}."
        )
    if not columns and unused:
        raise UnknownNameError.of("node", unused[0], variables, where="evidence")
    if unused:
        warn(f"Evidence for {', '.join(map(repr, unused))} is not used: no such node in the model.")
