"""The curve of a tuning: CLD above, effectiveness below, against the strength of guidance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causalgen.plotting.plot_style import ACCENT, FAINT, INK, SOFT

if TYPE_CHECKING:
    from causalgen.evaluation.tuning import Tuning

__all__ = ["plot_tuning"]

_DASHES = {"do nothing": ":", "random real": "--", "nearest real": "-."}


def plot_tuning(tuning: Tuning) -> Figure:
    """CLD (lower is better) and effectiveness (higher is), with 95 % intervals and controls."""
    figure = Figure(figsize=(5.4, 5.4), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _curve(top, tuning, "CLD")
    top.axhline(tuning.floor.value, color=SOFT, linewidth=0.9)
    _label(top, "floor", tuning.floor.value)
    _curve(bottom, tuning, "effectiveness")
    bottom.set_ylim(0, 1.03)
    bottom.axhline(tuning.min_effectiveness, color=SOFT, linewidth=0.9)
    name = {"weight": "weight w", "scale": "scale s"}[tuning.option]
    bottom.set_xlabel(f"guidance {name} of {tuning.label}", color=INK, fontsize=9)
    top.set_ylabel("CLD, nats", color=INK, fontsize=9)
    bottom.set_ylabel("effectiveness", color=INK, fontsize=9)
    top.set_title(f"do({tuning.label})", fontsize=9.5, weight="bold", color=INK, loc="left")
    top.set_title(f"{tuning.rows} rows", fontsize=8, color=FAINT, loc="right")
    return figure


def _curve(axes: Axes, tuning: Tuning, metric: str) -> None:
    strengths = [point.strength for point in tuning.points]
    scores = [point.scores[metric] for point in tuning.points]
    low, high = [each.low for each in scores], [each.high for each in scores]
    axes.fill_between(strengths, low, high, color=ACCENT, alpha=0.15, linewidth=0)
    axes.plot(strengths, [each.value for each in scores], "o-", color=ACCENT, markersize=3.5, linewidth=1.3)
    for control, found in tuning.controls.items():
        value = found[metric].value
        axes.axhline(value, color=SOFT, linewidth=0.9, linestyle=_DASHES[control])
        _label(axes, control, value)
    best = tuning.best
    axes.plot([best.strength], [best.scores[metric].value], "o", color=INK, markersize=6, fillstyle="none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    axes.tick_params(labelsize=8, color=SOFT, labelcolor=INK)


def _label(axes: Axes, text: str, value: float) -> None:
    axes.annotate(
        text, (1, value), xycoords=("axes fraction", "data"), xytext=(4, 0),
        textcoords="offset points", va="center", fontsize=7.5, color=FAINT, annotation_clip=False,
    )  # fmt: skip
