"""Parents that a linear equation ties in all rows, so that no data tell their effects apart.

A weight in kilograms and in pounds, parts beside their sum, a country beside its regions, or more parents
than rows: any multiple of the equation may be added to a fitted function, and the rows are explained as well.
What the model then answers of one parent alone follows from the mechanism's form, which takes one such
function (of least norm, where it is linear); fits of other rows take the same one, and agree.

With columns X of unit deviation, centred, and the null vectors v of their correlations C = X'X / N, of
eigenvalue 0 to the six significant digits that data may have, a parent has a part where its X_j v_j is not 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from causalgen.data.table import Table
from graphs.variables import Image, Variable
from mechanisms.conditioning import Conditioning

__all__ = ["doubt_of_parents"]

_NULL = 1e-10
"""Eigenvalue that counts as 0: a residual of 1e-5 of the deviation."""

_MOST_COLUMNS = 2_000
"""Columns beyond which nothing is looked for: their correlations would take longer than the fit."""

_FIRST_ROWS = 10_000
"""Rows, more than columns, that are looked at first: what ties all of them ties these, where no column is
constant in these."""

_MISSED = 1e-3
"""Share of its terms that an equation may miss a middling row by. A few outliers, such as a code for what is
missing, make correlations of 1 of what is not tied."""

_CONFIRMING = 1_000
"""Rows whose bulk must satisfy an equation."""

_AT_ONCE = 2**22
"""Numbers of a block of rows."""

_NAMED = 6


def doubt_of_parents(parents: Mapping[str, Variable], table: Table) -> str:
    """What speaks against telling the effects of some parents apart, with the remedy; "" where nothing does.

    Args:
        parents: of a node; images have no part in it.
        table: has their columns, without gaps.
    """
    tied = _tied(parents, table)
    if not tied:
        return ""
    listed = ", ".join(tied[:_NAMED]) + (", ..." if len(tied) > _NAMED else "")
    return (
        f"in all {table.rows:,} rows a linear equation ties its parents {listed}, so these rows do not tell "
        "their effects apart, and what is answered of one of them alone is arbitrary. Leave out what follows "
        "from the others, or give rows in which it does not."
    )


def _tied(parents: Mapping[str, Variable], table: Table) -> list[str]:
    """As ``_tied_in`` of all rows; of many rows, some are looked at first."""
    tabular = {name: variable for name, variable in parents.items() if not isinstance(variable, Image)}
    layout = Conditioning(tabular)
    if len(tabular) < 2 or layout.width > _MOST_COLUMNS:
        return []
    if table.rows > _FIRST_ROWS:
        some = torch.arange(_FIRST_ROWS) * (table.rows - 1) // (_FIRST_ROWS - 1)
        first = {name: table.tensor(name, some) for name in tabular}
        layout.prepare(first)
        columns = layout(first, len(some))
        if bool((columns != columns[0]).any(0).all()) and not _tied_in(layout, first):
            return []
    return _tied_in(layout, {name: table.tensor(name) for name in tabular})


def _tied_in(layout: Conditioning, rows: Mapping[str, Tensor]) -> list[str]:
    """The parents with a part in some linear equation that holds in these rows."""
    layout.prepare(rows)
    count, width = len(next(iter(rows.values()))), layout.width
    mean, products = torch.zeros(width).double(), torch.zeros(width, width).double()
    for part in torch.arange(count).split(max(1, _AT_ONCE // width)):
        columns = layout({name: value[part] for name, value in rows.items()}, len(part))
        mean += columns.sum(0) / count
        products += columns.T @ columns / count
    covariance = products - torch.outer(mean, mean)
    deviation = covariance.diagonal().clamp(min=0).sqrt()
    # A constant column, such as that of a category that no row has, is in no equation.
    scale = torch.where(deviation > 1e-7, 1 / deviation, 0.0)
    correlations = covariance * torch.outer(scale, scale)
    values, vectors = torch.linalg.eigh(correlations)
    some = torch.arange(min(count, _CONFIRMING)) * count // min(count, _CONFIRMING)
    columns = layout({name: value[some] for name, value in rows.items()}, len(some))
    bulk = (columns - columns.median(0).values) * scale
    null = torch.stack([v for v in vectors[:, values < _NULL].T if _holds(bulk * v)] or [0 * values], 1)
    parts = {name: (null[place], correlations[place, place]) for name, place in layout.slices.items()}
    return [name for name, (part, own) in parts.items() if float((part * (own @ part)).sum()) > 1e-8]


def _holds(terms: Tensor) -> bool:
    """Whether an equation of terms (N, columns), about their medians, holds in most rows that tell."""
    total, size = terms.sum(1), terms.abs().amax(1)
    missed = (total - total.median()).abs()
    said = size > 0
    return not bool(said.any()) or bool((missed[said] <= _MISSED * size[said]).double().mean() > 0.5)
