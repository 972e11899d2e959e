"""Evidence as users give it -> checked tensors, one a node, all with the same number of rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from causalgen.slabs import Slabs
from graphs.errors import EvidenceError, PartialEvidenceError, ShapeError, UnknownNameError
from graphs.gaps import encode_gaps
from graphs.variables import Variable

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Evidence", "encode_evidence", "encode_partial"]

Evidence = Mapping[str, Any]
"""Node -> scalar, array, tensor, Series, PIL image or list of them; a DataFrame is one as well."""


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
    memory: Slabs | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor], int, pd.Index | None]:
    """``encode_evidence`` for evidence with gaps: None, NaN or pandas' NA where a row has no value.

    An image's gap is None: a NaN pixel is an error, as is a vector with some numbers missing.

    Returns:
        Values (B, *event) by node, whatever in missing rows; which rows are missing, (B,) bool, of the nodes
        where some are; B; and the index of a DataFrame.
    """
    columns = _columns(evidence, variables)
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
    memory = memory or Slabs()
    values = {name: memory.copy(value).to(device) for name, (value, _) in encoded.items()}
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
    names = list(getattr(evidence, "columns", columns))
    for name in columns:
        if names.count(name) > 1:
            raise EvidenceError(f"Evidence has {names.count(name)} columns {name!r}. Rename all but one.")
        if name not in variables:
            raise UnknownNameError.of("node", name, variables, where="evidence")
    return columns
