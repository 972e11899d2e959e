"""Fit several mechanisms to one table, each on the rows that have its node and its parents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from causalgen.data.table import Table
from causalgen.fitting.choosing import choose_mechanism
from causalgen.fitting.fit import fit_mechanism
from causalgen.fitting.fit_report import FitReport, NodeReport
from causalgen.fitting.tied_parents import doubt_of_parents
from graphs.errors import DataError, MechanismError
from graphs.variables import Image
from mechanisms.base import Mechanism

__all__ = ["fit_table"]


def fit_table(
    mechanisms: Mapping[str, Mechanism],
    table: Table,
    *,
    seed: int,
    run_dir: Path | str | None,
    resume: bool,
    progress: bool,
    start: Mapping[str, Mechanism] | None = None,
    tied: bool = True,
) -> tuple[FitReport, dict[str, Mechanism]]:
    """Fit mechanisms by node, in place and in that order; see ``fit_mechanism``.

    ``start`` has mechanisms of another model by node, whose weights trained ones start from; with ``tied``
    the report doubts parents that an equation ties.

    Returns:
        The report, and the mechanisms of nodes whose mechanism was chosen among candidates.
    """
    families = {node: (node, *mechanism.parents) for node, mechanism in mechanisms.items()}
    dropped = {node: int(table.incomplete(family).sum()) for node, family in families.items()}
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
        rows = table.complete(families[node])
        options: Any = {"seed": seed, "run_dir": run_dir, "resume": resume, "progress": progress}
        if mechanism.spec.candidates(mechanism.parents):
            report, chosen[node] = choose_mechanism(node, mechanism, rows, **options)
        else:
            report = fit_mechanism(node, mechanism, rows, start=(start or {}).get(node), **options)
        learned = mechanism.parents if mechanism.spec.training is not None else {}
        reports[node] = replace(
            report,
            dropped=dropped[node],
            doubt=(doubt_of_parents(learned, rows) if tied else "") or report.doubt,
        )
    return FitReport(reports), chosen


def _refuse_unfittable(node: str, mechanism: Mechanism, table: Table) -> None:
    """Refuse a node that nothing fits, or whose rows will not do, before any node has been trained."""
    spec, family = mechanism.spec, (node, *mechanism.parents)
    told = mechanism.fitted or mechanism.remedy != type(mechanism).remedy  # which says how it gets weights
    if spec.training is None and not told:
        raise MechanismError(
            f"Cannot fit node {node!r}: its `training` is null, which keeps the weights that a mechanism "
            "has, and it has none but random ones. Leave `training` out."
        )
    incomplete = table.incomplete(family)
    rows = table.rows - int(incomplete.sum())
    if not rows:
        empty = [name for name in family if table.incomplete([name]).all()]
        lacking = repr(empty[0]) if empty else f"all of {', '.join(family)}"
        raise DataError(
            f"Cannot fit node {node!r}: none of the {table.rows:,} rows has a value of {lacking}. "
            "Fill some of the gaps, or fit the others by nodes=[...]."
        )
    if rows < mechanism.least_rows:
        raise DataError(
            f"Cannot fit node {node!r}: mechanism {mechanism.spec.kind!r} needs at least "
            f"{mechanism.least_rows} rows, got {rows:,}. "
            "Give more rows, or a mechanism with less to learn ('additive', 'equation')."
        )
    if any(isinstance(each, Image) for each in (mechanism.variable, *mechanism.parents.values())):
        return  # floats of all pictures take much memory, and no bounds can be left
    complete = table.complete(family)
    found = mechanism.unfittable(complete.tensor(node), {name: complete.tensor(name) for name in family[1:]})
    if found is not None:
        wrong, reason = found
        first = int(wrong.nonzero()[0])
        row = int((~incomplete).nonzero()[0][first])
        value = complete.tensor(node)[first].tolist()
        raise DataError(f"Cannot fit node {node!r}, row {row} of which is {value}: {reason}")
