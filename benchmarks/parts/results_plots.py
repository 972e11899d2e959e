"""The curves of the results page, from the saved results alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causalgen.plotting.plot_style import ACCENT, FAINT, INK, SOFT

from .results_tables import Scores

__all__ = ["divergence", "quality", "save"]

_DASHES = {"do nothing": ":", "random real": "--", "nearest real": "-."}
_NAMES = {"default": "causalgen, by w", "diff-scm preset": "preset diff-scm, by s"}


def divergence(tunings: Mapping[str, Any]) -> Figure:
    """CLD and effectiveness against the strength of guidance (CLD: Sanchez & Tsaftaris 2022)."""
    figure = Figure(figsize=(7.2, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, metric in ((left, "CLD"), (right, "effectiveness")):
        for (name, tuning), colour in zip(tunings.items(), (ACCENT, INK), strict=True):
            strengths = [point["strength"] for point in tuning["points"]]
            scores = [point[metric] for point in tuning["points"]]
            lows, highs = [each["low"] for each in scores], [each["high"] for each in scores]
            axes.fill_between(strengths, lows, highs, color=colour, alpha=0.12, linewidth=0)
            _line(axes, strengths, [each["value"] for each in scores], colour, _NAMES[name])
    _frame(left, "CLD, nats: lower is better", "strength of guidance")
    _frame(right, "effectiveness: higher is better", "strength of guidance")
    controls = tunings["default"]
    for control, found in controls["controls"].items():
        _level(left, control, found["CLD"]["value"], _DASHES[control])
    _level(left, "floor", controls["floor"]["value"], "-")
    right.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def quality(by_steps: Mapping[int, Scores]) -> Figure:
    """Errors against the number of steps, each as a share of what doing nothing has."""
    figure = Figure(figsize=(7.2, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = list(by_steps)
    for do, colour in (("thickness", ACCENT), ("intensity", INK)):
        far = [_share(scores, "true error", do, of="pixels") for scores in by_steps.values()]
        _line(left, steps, far, colour, f"do({do})")
        read = [_share(scores, "effectiveness", do, of=do, by="predictor") for scores in by_steps.values()]
        _line(right, steps, read, colour, f"{do} under do({do})")
    _frame(left, "distance to the true image, share of doing nothing", "steps")
    _frame(right, "error of the cause that is set, share of doing nothing", "steps")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(steps, [str(step) for step in steps])
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize=8)
    return figure


def save(figure: Figure, path: Path) -> None:
    """A PNG without a date, so that the same results draw the same file."""
    figure.savefig(path, dpi=144, metadata={"Software": None})


def _share(scores: Scores, metric: str, do: str, **named: str) -> float:
    made, nothing = (scores.value(metric, subject, do=do, **named) for subject in ("mechanism", "do nothing"))
    assert made is not None and nothing
    return made / nothing


def _line(axes: Axes, x: Sequence[float], y: Sequence[float], colour: str, label: str) -> None:
    axes.plot(x, y, "o-", color=colour, markersize=3.5, linewidth=1.3, label=label)


def _frame(axes: Axes, title: str, below: str) -> None:
    axes.set_title(title, fontsize=8.5, color=INK, loc="left")
    axes.set_xlabel(below, fontsize=8.5, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    axes.tick_params(labelsize=8, color=SOFT, labelcolor=INK)


def _level(axes: Axes, text: str, value: float, dashes: str) -> None:
    axes.axhline(value, color=SOFT, linewidth=0.9, linestyle=dashes)
    below = text == "random real"  # the two kinds of real images lie close together
    right = text == "do nothing"  # the curves begin there
    axes.annotate(
        text, (right, value), xycoords=("axes fraction", "data"), textcoords="offset points",
        xytext=(-2 if right else 3, -3 if below else 2), ha="right" if right else "left",
        va="top" if below else "bottom", fontsize=7, color=FAINT,
    )  # fmt: skip
