"""Evidence as users give it -> checked tensors, one a node, all with the same number of rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from graphs.errors import EvidenceError, ShapeError, UnknownNameError
from graphs.variables import Variable

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Evidence", "encode_evidence"]

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
    """
    columns = dict(evidence.items()) if hasattr(evidence, "items") else None
    if columns is None:
        raise EvidenceError(
            "Evidence maps nodes to values, as in {'x': 1.0}, or is a DataFrame; "
            f"got a {type(evidence).__name__}."
        )
    if not columns:
        raise EvidenceError(f"Evidence is empty. Give a value for {', '.join(variables)}.")
    for name in columns:
        if name not in variables:
            raise UnknownNameError.of("node", name, variables, where="evidence")
    values = {
        name: torch.as_tensor(variables[name].encode(value, where=f"Evidence {name!r}"), device=device)
        for name, value in columns.items()
    }
    rows = max(map(len, values.values()))
    if rows == 0:
        raise EvidenceError("Evidence has no rows.")
    for name, value in values.items():
        if len(value) not in (1, rows):
            counts = {each: len(other) for each, other in values.items()}
            raise ShapeError(f"Evidence {name!r} has {len(value)} rows where others have {rows}: {counts}.")
    index = getattr(evidence, "index", None)
    return {name: value.expand(rows, *value.shape[1:]) for name, value in values.items()}, rows, index
