"""Fit several mechanisms to one table, each on the rows that have its node and its parents.

Rows in which an experiment set a node tell nothing of its mechanism, and as much as others of its children's.

Parents that a linear equation ties in all rows are doubted, as no data tell their effects apart: a weight in
kilograms and in pounds, parts beside their sum, a country beside its regions, or more parents than rows: any
multiple of the equation may be added to a fitted function, and the rows are explained as well. What the model
then answers of one parent alone follows from the mechanism's form, which takes one such function (of least
norm, where it is linear); fits of other rows take the same one, and agree.

With columns X of unit deviation, centred, and the null vectors v of their correlations C = X'X / N, of
eigenvalue 0 to the six significant digits that data may have, a parent has a part where its X_j v_j is not 0.

A number in fewer than twice as many rows, copies not counted, as its parents have coefficients is doubted
too. A linear function with k coefficients, fitted to N rows, takes in k / N of the noise's variance, and all
of it where N = k. So is a table whose smoothing takes more than a fifth of what its parents' categories do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalgen.data.table import Table
from causalgen.fitting.choosing import choose_mechanism
from causalgen.fitting.fit import fit_mechanism
from causalgen.fitting.fit_report import FitReport, NodeReport
from causalgen.fitting.holding_out import distinct_rows, with_copies
from graphs.causal_graph import CausalGraph
from graphs.errors import DataError, MechanismError
from graphs.variables import Categorical, Continuous, Image, Integer, Variable, table_variables
from mechanisms.base import Mechanism
from mechanisms.conditioning import Conditioning
from mechanisms.tables.categorical import CategoricalMechanism

__all__ = ["fit_table"]

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

_DILUTED = 0.2
"""Share of an effect that smoothing may take of a table unsaid: a combination of parents has four rows."""

_ROWS_EACH = 2
"""Rows a coefficient, of which a fit takes in half of the noise's variance."""


def _doubt_of_parents(parents: Mapping[str, Variable], table: Table) -> str:
    """What speaks against telling the effects of some parents apart, with the remedy; "" where nothing does.

    Images have no part in it; the table has the columns of the others, without gaps.
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


def _doubt_of_rows(mechanism: Mechanism, table: Table, *, trained: bool) -> str:
    """What speaks against the noise of a number that was fitted to few rows, with the remedy; else "".

    ``trained`` says that it was by gradient steps, which may stop before all noise is taken in.
    """
    layout, different = Conditioning(table_variables(mechanism.parents)), distinct_rows(table)
    if not isinstance(mechanism.variable, Continuous | Integer) or layout.width > _MOST_COLUMNS:
        return ""
    if not layout.width or different >= _ROWS_EACH * (layout.width + 1):
        return ""
    rows = {name: table.tensor(name) for name in layout.slices}
    layout.prepare(rows)
    columns = layout(rows, table.rows)
    # Categories' columns add up to 1, and those that no row has are constant.
    count = 1 + int(torch.linalg.matrix_rank(columns - columns.mean(0), rtol=_NULL**0.5))
    if different >= _ROWS_EACH * count:
        return ""
    told = f"{different:,} rows" if different == table.rows else f"{different:,} rows, without copies,"
    if trained:
        found = (
            f"{told} are few for {count:,} coefficients, which a linear function of its parents "
            "would have, so that what was learned of them may be noise."
        )
    elif different > count:
        found = (
            f"{told} are few for {count:,} coefficients of a linear function of its parents, which take in "
            f"{count / different:.0%} of the noise's variance, so that answers look surer than they are."
        )
    else:  # as many coefficients as rows show; with more rows all parents have theirs
        one_hot = sum(isinstance(mechanism.parents[name], Categorical) for name in layout.slices)
        count = max(count, 1 + layout.width - one_hot)
        found = (
            f"a linear function of its parents goes through all {told} and leaves no noise, so that "
            "answers look sure whatever is true."
        )
    return f"{found} Give at least {_ROWS_EACH * count:,} rows, or fewer parents."


def _doubt_of_table(mechanism: Mechanism, table: Table) -> str:
    """What speaks against frequencies that were counted in few rows each, with the remedy; else ""."""
    if not isinstance(mechanism, CategoricalMechanism):
        return ""
    taken = mechanism.diluted({name: table.tensor(name) for name in mechanism.parents})
    if taken <= _DILUTED:
        return ""
    return (
        f"{table.rows:,} rows are few for the combinations of its parents' categories, so that the table's "
        f"smoothing takes {taken:.0%} of their effects, as a mean over the rows. Give more rows or fewer "
        "parents, or logits: linear."
    )


def _tied(parents: Mapping[str, Variable], table: Table) -> list[str]:
    """As ``_tied_in`` of all rows; of many rows, some are looked at first."""
    tabular = table_variables(parents)
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


def fit_table(
    mechanisms: Mapping[str, Mechanism],
    table: Table,
    *,
    graph: CausalGraph,
    seed: int,
    run_dir: Path | str | None,
    resume: bool,
    progress: bool,
    start: Mapping[str, Mechanism] | None = None,
    doubted: bool = True,
) -> tuple[FitReport, dict[str, Mechanism]]:
    """Fit mechanisms by node, in place and in that order; see ``fit_mechanism``.

    The graph has these nodes and their ancestors. ``start`` has mechanisms of another model by node, whose
    weights trained ones start from; with ``doubted`` the report says what speaks against the rows. Beside the
    report: the mechanisms of nodes whose mechanism was chosen among candidates.
    """
    table = with_copies(table)
    families = {node: (node, *mechanism.parents) for node, mechanism in mechanisms.items()}
    dropped = {node: int(table.incomplete(family).sum()) for node, family in families.items()}
    kept = {node: table.rows_to_fit(node, mechanism.parents) for node, mechanism in mechanisms.items()}
    for node, mechanism in mechanisms.items():
        _refuse_unfittable(node, mechanism, table)
        if start is not None and not (node in start and start[node].fitted):
            raise MechanismError(
                f"Node {node!r} cannot start from the weights of the other model: there it is "
                f"{'not fitted' if node in start else 'missing'}. Give a fitted model of the same nodes."
            )
    reports: dict[str, NodeReport] = {}
    chosen: dict[str, Mechanism] = {}
    for node, mechanism in mechanisms.items():
        rows = table if kept[node].all() else table.part(families[node], kept[node])
        rows = with_copies(rows, families[node])
        left_out = {"dropped": dropped[node], "intervened": table.rows - dropped[node] - rows.rows}
        options: Any = {"seed": seed, "run_dir": run_dir, "resume": resume, "progress": progress}
        if mechanism.spec.candidates(mechanism.variable, mechanism.parents):
            report, chosen[node] = choose_mechanism(node, mechanism, rows, **options)
        else:
            report = fit_mechanism(node, mechanism, rows, start=(start or {}).get(node), **options)
        if mechanism.spec.training is not None:
            chosen.get(node, mechanism).experiments = _experiments(node, mechanism, graph, table, kept[node])
        doubts = [report.doubt]
        if doubted and mechanism.spec.training is not None:
            few = _doubt_of_rows(mechanism, rows, trained=report.steps > 0)
            sparse = _doubt_of_table(mechanism, rows)
            doubts = [_doubt_of_parents(mechanism.parents, rows), few, sparse, *doubts]
        reports[node] = replace(report, **left_out, doubt=" Also, ".join(filter(None, doubts)))
    _record_ranges({**mechanisms, **chosen}, table, kept)
    return FitReport(reports), chosen


def _experiments(
    node: str, mechanism: Mechanism, graph: CausalGraph, table: Table, kept: NDArray[np.bool_]
) -> Tensor | None:
    """``Mechanism.experiments`` of a fit to the rows kept.

    A parent has another law than by itself where an experiment set it, or an ancestor of it.
    """
    if not table.intervened:
        return None
    told = [node in table.intervened and bool(table.intervened[node].any())]
    for parent in mechanism.parents:
        causes = table.intervened.keys() & graph.ancestors([parent])
        told.append(any(bool((table.intervened[name] & kept).any()) for name in causes))
    return torch.tensor(told, device=mechanism.device) if any(told) else None


def _record_ranges(
    fitted: Mapping[str, Mechanism], table: Table, kept: Mapping[str, NDArray[np.bool_]]
) -> None:
    """Remember where the values lie that children were fitted to: beyond them an answer extrapolates.

    Those that an experiment set are among them, and those of rows that a child's fit left out are not.
    """

    def values(name: str, rows: NDArray[np.bool_]) -> Tensor:
        return table.tensor(name, torch.from_numpy(rows.nonzero()[0]), device=fitted[name].device)

    recorded = [name for name, each in fitted.items() if not isinstance(each.variable, Image)]
    for name in (name for name in recorded if name in table.intervened):
        fitted[name].record_range(values(name, ~table.incomplete([name])))
    for node, mechanism in fitted.items():
        if mechanism.spec.training is not None and not kept[node].all():
            for name in (name for name in recorded if name in mechanism.parents):
                fitted[name].narrow_range(values(name, kept[node]))


def _refuse_unfittable(node: str, mechanism: Mechanism, table: Table) -> None:
    """Refuse a node that nothing fits, or whose rows will not do, before any node has been trained."""
    spec, family = mechanism.spec, (node, *mechanism.parents)
    told = mechanism.fitted or mechanism.remedy != type(mechanism).remedy  # which says how it gets weights
    if spec.training is None and not told:
        raise MechanismError(
            f"Cannot fit node {node!r}: its `training` is null, which keeps the weights that a mechanism "
            "has, and it has none but random ones. Leave `training` out."
        )
    kept = table.rows_to_fit(node, mechanism.parents)
    rows = int(kept.sum())
    if not rows and not table.incomplete(family).all():
        raise DataError(
            f"Cannot fit node {node!r}: in all of the {table.rows:,} rows that have its values an experiment "
            "set it, so that none tells of its mechanism. Give rows in which it came about by itself, or fit "
            "the others by nodes=[...]."
        )
    if not rows:
        empty = [name for name in family if table.incomplete([name]).all()]
        lacking = repr(empty[0]) if empty else f"all of {', '.join(family)}"
        raise DataError(
            f"Cannot fit node {node!r}: none of the {table.rows:,} rows has a value of {lacking}. "
            "Fill some of the gaps, or fit the others by nodes=[...]."
        )
    if rows < mechanism.least_rows:
        less = "'additive', 'equation'" if mechanism.least_rows > 2 else "'equation'"
        raise DataError(
            f"Cannot fit node {node!r}: mechanism {mechanism.spec.kind!r} needs at least "
            f"{mechanism.least_rows} rows, got {rows:,}. "
            f"Give more rows, or a mechanism with less to learn ({less})."
        )
    if any(isinstance(each, Image) for each in (mechanism.variable, *mechanism.parents.values())):
        return  # floats of all pictures take much memory, and no bounds can be left
    complete = table if kept.all() else table.part(family, kept)
    found = mechanism.unfittable(complete.tensor(node), {name: complete.tensor(name) for name in family[1:]})
    if found is not None:
        wrong, reason = found
        first = int(wrong.nonzero()[0])
        row = int(kept.nonzero()[0][first])
        value = complete.tensor(node)[first].tolist()
        raise DataError(f"Cannot fit node {node!r}, row {row} of which is {value}: {reason}")
