"""Section ``agreement``: the same model fitted to the same rows gives the same answers everywhere.

Counterfactuals are compared value by value: with additive noise they are determined, so only rounding may
differ. Means under an intervention are compared in units of their Monte Carlo error.
"""

from __future__ import annotations

import numpy as np

from .tables_contenders import OURS, contenders
from .tables_context import Context, Result, target

__all__ = ["agreement"]

_NODES, _ROWS = 50, 10_000


def agreement(context: Context) -> Result:
    """Against whichever contenders there are."""
    folder = context.case(_NODES, _ROWS)
    rows: list[Result] = []
    targets: list[Result] = []
    with contenders((OURS, "numpy", "DoWhy-GCM", "ChiRho"), context.pythons, 1, folder) as found:
        answers = {}
        for name, process in found.items():
            file = context.folder / "answer.npy"
            process.ask("counterfactual", rows=_ROWS, save=str(file))
            answers[name] = np.load(file)
        draws = {
            name: found[name].ask("interventional", rows=_ROWS, means=True)
            for name in (OURS, "DoWhy-GCM")
            if name in found
        }
    for name in answers:
        if name == OURS:
            continue
        difference = float(np.abs(answers[name] - answers[OURS]).max())
        row: Result = {"peer": name, "largest |x_cf - x_cf|": difference}
        targets.append(target(f"counterfactual, {name}", difference, most=1e-8))
        if name in draws:
            row["largest difference of means / its standard error"] = largest = _largest_z(
                draws[OURS], draws[name]
            )
            # The largest of 50 normal deviates is above 4 once in 300 runs.
            targets.append(target(f"interventional means, {name}", largest, most=4.0))
        rows.append(row)
    result = {"nodes": _NODES, "rows": _ROWS, "peers": rows, "targets": targets}
    context.show(f"Agreement, {_NODES} nodes x {_ROWS:,} rows, values of about unit deviation", rows)
    context.show("Targets", targets)
    missing = context.missing("DoWhy-GCM", "ChiRho")
    for line in missing:
        context.console.print(line)
    return result | {"not measured": missing}


def _largest_z(ours: Result, theirs: Result) -> float:
    difference = np.subtract(ours["means"], theirs["means"])
    error = np.sqrt(np.add(ours["variances"], theirs["variances"]) / _ROWS)
    # The node that was set has no error.
    return float(np.abs(difference[error > 0] / error[error > 0]).max())
