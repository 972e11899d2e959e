"""Settings that are compared, all on the weights of one model.

Options are given in full, so that they mean the same whatever the model's own file says.
"""

from __future__ import annotations

from typing import Any

import causalgen as cg

from .answers import image_mechanism

__all__ = [
    "CONDITIONAL",
    "SOLVERS",
    "UNCONDITIONAL",
    "diff_scm",
    "fast",
    "guided",
    "solved",
    "without_residuals",
]

SOLVERS = ("anchored", "belm", "ddim")

_FREE = {"kind": "classifier_free", "against": "factual", "interval": None}
_DELTA = {"kind": "anticausal", "form": "delta", "denoiser": "conditional", "interval": None}
_RAW = {"kind": "anticausal", "form": "raw", "denoiser": "unconditional", "interval": None}

CONDITIONAL: dict[str, dict[str, Any]] = {
    **{f"classifier_free w={w:g}": {**_FREE, "weight": w} for w in (1.0, 2.0)},
    **{f"anticausal delta s={s:g}": {**_DELTA, "scale": s} for s in (1.0, 2.0)},
}
"""Guidance of the denoiser that sees the factual digit."""

UNCONDITIONAL: dict[str, dict[str, Any]] = {
    f"raw s={s:g}, unconditional": {**_RAW, "scale": s} for s in (0.7, 1.0, 2.0)
}
"""Guidance of Diff-SCM (Sanchez & Tsaftaris 2022): raw, on the unconditional denoiser."""


def guided(scm: cg.SCM, guidance: dict[str, Any]) -> cg.SCM:
    """The model with other guidance."""
    return scm.with_options("image", guidance=guidance)


def solved(scm: cg.SCM, kind: str, steps: int, guidance: dict[str, Any]) -> cg.SCM:
    """The model with another solver, on its own grid, and other guidance."""
    grid = image_mechanism(scm).spec.solver.grid.model_dump()
    # In one go: a solver and a guidance may each be refused beside the model's old other.
    return scm.with_options("image", solver={"kind": kind, "steps": steps, "grid": grid}, guidance=guidance)


def fast(scm: cg.SCM, steps: int) -> cg.SCM:
    """The model as it is, with fewer steps."""
    return scm.with_options("image", solver={**image_mechanism(scm).spec.solver.model_dump(), "steps": steps})


def without_residuals(scm: cg.SCM, steps: int | None = None) -> cg.SCM:
    """The model without step residuals, where its solver has any: its null is as good as the solver."""
    solver = image_mechanism(scm).spec.solver
    changed: dict[str, Any] = {"residuals": False} if solver.kind == "anchored" else {}
    return scm.with_options(
        "image", solver={**solver.model_dump(), "steps": steps or solver.steps, **changed}
    )


def diff_scm(scm: cg.SCM, guidance: dict[str, Any], steps: int = 75) -> cg.SCM:
    """Algorithm 3 of Diff-SCM: linear betas, 1000 levels respaced to 100, DDIM over the first 75 both ways.

    Other numbers of steps respace so that the steps end at about the same level.
    """
    respaced = round(1 + 99 * steps / 75)
    grid = {"kind": "ddpm", "levels": 1000, "respaced": respaced, "beta_first": 1e-4, "beta_last": 0.02}
    return scm.with_options("image", solver={"kind": "ddim", "steps": steps, "grid": grid}, guidance=guidance)
