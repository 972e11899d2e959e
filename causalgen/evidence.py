"""Evidence as users give it -> checked tensors, one a node, all with the same number of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphs.errors import EvidenceError, PartialEvidenceError, ShapeError, UnknownNameError
from graphs.gaps import encode_gaps
from graphs.variables import Continuous, Variable
from mechanisms.slabs import copy_column

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Evidence", "encode_evidence", "encode_partial"]

Evidence = Mapping[str, Any]
"""Node -> scalar, array, tensor, Series, PIL image or list of them; a DataFrame is one as well."""

_SHORT = 4096
"""Rows of columns that are read together."""


def encode_evidence(
    evidence: Evidence, variables: Mapping[str, Variable], device: torch.device
) -> tuple[dict[str, Tensor], int, pd.Index | None]:
    """Canonical values of the nodes that the evidence names.

    A node with one row serves all rows.

    Returns:
        Values (B, *event) by node, B, and the index of a DataFrame.

    Raises:
        UnknownNameError: a name that is no node.
        EvidenceError: not a mapping, empty, or numbers of rows that disagree.
        DomainError: a value outside its variable's domain.
        PartialEvidenceError: a row has no value.
    """
    values, missing, rows, index = encode_partial(evidence, variables, device)
    for name in missing:
        row = int(missing[name].nonzero()[0])
        raise PartialEvidenceError(
            f"Evidence {name!r}: row {row} has no value, and this needs one in every row."
        )
    return values, rows, index


def encode_partial(
    evidence: Evidence,
    variables: Mapping[str, Variable],
    device: torch.device,
) -> tuple[dict[str, Tensor], dict[str, Tensor], int, pd.Index | None]:
    """``encode_evidence`` for evidence with gaps: None, NaN or pandas' NA where a row has no value.

    An image's gap is None: a NaN pixel is an error, as is a vector with some numbers missing.

    Returns:
        Values (B, *event) by node, whatever in missing rows; which rows are missing, (B,) bool, of the nodes
        where some are; B; and the index of a DataFrame.
    """
    columns = _columns(evidence, variables)
    if (block := _plain_numbers(columns, variables)) is not None:
        values = dict(zip(columns, torch.from_numpy(block).to(device).unbind(), strict=True))
        return values, {}, block.shape[1], getattr(evidence, "index", None)
    encoded = {
        name: encode_gaps(variables[name], value, where=f"Evidence {name!r}")
        for name, value in columns.items()
    }
    rows = max(len(value) for value, _ in encoded.values())
    if rows == 0:
        raise EvidenceError("Evidence has no rows.")
    for name, (value, _) in encoded.items():
        if len(value) not in (1, rows):
            counts = {each: len(other) for each, (other, _) in encoded.items()}
            raise ShapeError(f"Evidence {name!r} has {len(value)} rows where others have {rows}: {counts}.")
    # A copy: evidence stays what it was, whatever becomes of the arrays it came in.
    values = {name: copy_column(value).to(device) for name, (value, _) in encoded.items()}
    masks = {
        name: torch.as_tensor(gaps, device=device) for name, (_, gaps) in encoded.items() if gaps is not None
    }
    index = getattr(evidence, "index", None)
    return (
        {name: _spread(value, rows) for name, value in values.items()},
        {name: mask.expand(rows) for name, mask in masks.items()},
        rows,
        index,
    )


def _plain_numbers(
    columns: Mapping[str, Any], variables: Mapping[str, Variable]
) -> NDArray[np.float64] | None:
    """A copy (nodes, B) of columns that are all float64, valid and short; None where any is not.

    Column by column, reading them would take a question of one row a fifth of its time.
    """
    first = next(iter(columns.values()))
    if not isinstance(first, np.ndarray) or first.ndim != 1 or not 0 < len(first) <= _SHORT:
        return None
    described: list[Any] = [variables[name] for name in columns]
    for variable, column in zip(described, columns.values(), strict=True):
        if type(variable) is not Continuous or variable.shape or type(column) is not np.ndarray:
            return None
        if column.dtype != np.float64 or column.shape != first.shape:
            return None
    block = np.stack(list(columns.values()))
    low = np.array([-np.inf if each.lower is None else each.lower for each in described])
    high = np.array([np.inf if each.upper is None else each.upper for each in described])
    valid = np.isfinite(block) & (block >= low[:, None]) & (block <= high[:, None])
    return block if valid.all() else None


def _spread(value: Tensor, rows: int) -> Tensor:
    return value if value.shape[0] == rows else value.expand(rows, *value.shape[1:])


def _columns(evidence: Evidence, variables: Mapping[str, Variable]) -> dict[str, Any]:
    columns = dict(evidence.items()) if hasattr(evidence, "items") else None
    if columns is None:
        raise EvidenceError(
            "Evidence maps nodes to values, as in {'x': 1.0}, or is a DataFrame; "
            f"got a {type(evidence).__name__}."
        )
    if not columns:
        raise EvidenceError(f"Evidence is empty. Give a value for {', '.join(variables)}.")
    for name, count in Counter(getattr(evidence, "columns", ())).items():
        if count > 1:
            raise EvidenceError(f"Evidence has {count} columns {name!r}. Rename all but one.")
    for name in columns:
        if name not in variables:
            raise UnknownNameError.of("node", name, variables, where="evidence")
    return columns
