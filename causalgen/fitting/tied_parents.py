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
"""Rows, more than columns, that are looked at first: what ties all of them ties these."""

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
        some = torch.linspace(0, table.rows - 1, _FIRST_ROWS).long()
        if not _tied_in(layout, {name: table.tensor(name, some) for name in tabular}):
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
    null = vectors[:, values < _NULL]
    parts = {name: (null[place], correlations[place, place]) for name, place in layout.slices.items()}
    return [name for name, (part, own) in parts.items() if float((part * (own @ part)).sum()) > 1e-8]
