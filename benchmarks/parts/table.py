"""Table: solver x steps x guidance.

Abduction depends on solver, steps and base alone: it is timed once for each and its noise serves all guidance
of that base; an image's cost is abduction plus prediction. The null is without residuals, under the same
guidance (``raw`` guidance moves the image even then). ``belm`` takes no unconditional denoiser. The rows
"diff-scm" are DDIM on the paper's levels, respaced for fewer steps; at 75 steps they are the preset itself.
"""

from __future__ import annotations

from typing import Any

import causalgen as cg
from graphs.errors import MechanismError

from . import settings
from .answers import Cost, canonical, image_mechanism, invert, regenerate, to_pixels
from .context import Context, Result
from .figures import grey_levels, merits
from .rows import Rows

__all__ = ["table"]

Guidances = dict[str, dict[str, Any]]


def table(context: Context) -> Result:
    """Figures of every combination."""
    rows = context.rows("table")
    result: Result = {"rows": len(rows), "settings": []}
    ask_order: list[tuple[str, int, Guidances]] = [
        (kind, steps, guidances)
        for kind in settings.SOLVERS
        for steps in context.steps
        for guidances in (
            [settings.CONDITIONAL] if kind == "belm" else [settings.CONDITIONAL, settings.UNCONDITIONAL]
        )
    ]
    ask_order += [("diff-scm", steps, settings.UNCONDITIONAL) for steps in (*context.steps, 75)]
    _one_base(context, rows, "ddim", 2, settings.UNCONDITIONAL)  # warm up
    for kind, steps, guidances in ask_order:
        context.console.print(f"table: {kind}, {steps} steps, {len(guidances)} guidances")
        result["settings"] += _one_base(context, rows, kind, steps, guidances)
        context.keep(result)
    context.show(f"Solver x steps x guidance, {len(rows)} rows", result["settings"])
    return result


def _one_base(context: Context, rows: Rows, kind: str, steps: int, guidances: Guidances) -> list[Result]:
    """Every guidance of one base, from one abduction."""
    models = {name: _model(context.scm, kind, steps, guidance) for name, guidance in guidances.items()}
    values = canonical(context.scm, rows)
    first = image_mechanism(next(iter(models.values())))
    try:
        noise, up = invert(first, values, rows.digits)
    except MechanismError as error:  # belm drifts where steps are few
        reason = str(error).split(":")[0]
        return [{"solver": kind, "steps": steps, "guidance": name, "refused": reason} for name in models]
    found: list[Result] = []
    nothing: float | None = None
    for name, scm in models.items():
        again, down = regenerate(image_mechanism(scm), noise, rows.targets)
        # Guidance of the conditional denoiser vanishes at the factual: one null serves all.
        if nothing is None or guidances is settings.UNCONDITIONAL:
            bare = image_mechanism(settings.without_residuals(scm))
            same, _ = regenerate(bare, noise, rows.digits)
            nothing = grey_levels(to_pixels(same), rows.pixels)
        figures = merits(to_pixels(again).clip(0, 1), rows, context.judge, measured=False)
        cost: Cost = up + down
        setting = {"solver": kind, "steps": steps, "guidance": name}
        found.append(setting | figures | {"null L1": nothing} | cost.each(len(rows)))
    return found


def _model(scm: cg.SCM, kind: str, steps: int, guidance: dict[str, Any]) -> cg.SCM:
    if kind == "diff-scm":
        return settings.diff_scm(scm, guidance, steps)
    return settings.solved(scm, kind, steps, guidance)
