"""Fit several mechanisms to one table, each on the rows that have its node and its parents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from causalgen.data.table import Table
from causalgen.fitting.fit import fit_mechanism
from causalgen.fitting.fit_report import FitReport, NodeReport
from graphs.errors import DataError
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
) -> FitReport:
    """Fit mechanisms by node, in place and in that order; see ``fit_mechanism``.

    Raises:
        DataError: a node has no row with all it needs; nothing has been fitted then.
    """
    families = {node: (node, *mechanism.parents) for node, mechanism in mechanisms.items()}
    dropped = {node: int(table.incomplete(family).sum()) for node, family in families.items()}
    for node, count in dropped.items():
        if count == table.rows:
            empty = [name for name in families[node] if table.incomplete([name]).all()]
            lacking = repr(empty[0]) if empty else f"all of {', '.join(families[node])}"
            raise DataError(
                f"Cannot fit node {node!r}: none of the {table.rows:,} rows has a value of {lacking}. "
                "Fill some of the gaps, or fit the others by nodes=[...]."
            )
    reports: dict[str, NodeReport] = {}
    for node, mechanism in mechanisms.items():
        report = fit_mechanism(
            node,
            mechanism,
            table.complete(families[node]),
            seed=seed,
            run_dir=run_dir,
            resume=resume,
            progress=progress,
        )
        reports[node] = replace(report, dropped=dropped[node])
    return FitReport(reports)
