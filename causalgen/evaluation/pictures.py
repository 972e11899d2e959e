"""The pictures of an evaluation: images in rows, what was wanted against what is seen, drift by cycles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from causalgen.counterfactuals.export import figure_png
from causalgen.metrics.axioms import read_attribute
from causalgen.metrics.distances import image_tensor
from causalgen.metrics.scores import wilson_interval
from causalgen.plotting.plot_style import ACCENT, FAINT, INK, SOFT
from causalgen.plotting.plots import plot_image_rows
from graphs.variables import Categorical

if TYPE_CHECKING:
    from causalgen.evaluation.entries import Entry
    from causalgen.evaluation.image_scores import ImageScores
    from causalgen.evaluation.worlds import Answer

__all__ = ["drift_picture", "grid_picture", "image_pictures"]

_SHOWN = 10
_MOST_POINTS = 2000
_COLOURS = (ACCENT, "#2f6db3", "#5c8a3a", "#8a5fb0")


def grid_picture(scores: ImageScores, answers: Sequence[Answer]) -> dict[str, bytes]:
    """Factual images, the counterfactuals of each question, and beside them what they are compared with."""
    shown = min(_SHOWN, len(scores.factual))
    rows: dict[str, NDArray[Any]] = {"factual": scores.factual[:shown]}
    captions: dict[str, Sequence[str]] = {
        "factual": [_values(scores.columns, list(scores.causes), row) for row in range(shown)]
    }
    for answer in answers:
        name = answer.question.node
        told = [_values({name: answer.question.values}, [name], row) for row in range(shown)]
        rows[f"do({name})"], captions[f"do({name})"] = answer.mechanism[:shown], told
        if answer.model is not None:
            rows[f"do({name}), whole model"] = answer.model[:shown]
        if answer.question.image is not None:
            rows[f"do({name}), truth"] = np.asarray(answer.question.image)[:shown]
        if real := scores.controls(answer.question):
            pool = scores.pool.columns[scores.node]
            rows[f"do({name}), nearest real image"] = pool[real.nearest[:shown]]
    figure = plot_image_rows(rows, size=0.72, captions=captions)
    return {f"{scores.node}.png": figure_png(figure)}


def image_pictures(scores: ImageScores, answer: Answer) -> dict[str, bytes]:
    """What was wanted against what is seen, for the cause that was set, by each judge."""
    name = answer.question.node
    variable, pictures = scores.causes[name], {}
    for by, judges in scores.judging.by.items():
        if name not in judges:
            continue
        seen = {
            subject: read_attribute(image_tensor(images), name, variable, judges[name])
            for subject, images in (("counterfactual", answer.mechanism), ("factual", scores.factual))
        }
        goals = {
            "counterfactual": variable.encode(answer.question.values, where=name),
            "factual": variable.encode(scores.columns[name], where=name),
        }
        figure = Figure(figsize=(4.4, 3.4), layout="constrained")
        axes = figure.add_subplot()
        if isinstance(variable, Categorical):
            _bars(axes, variable, seen["counterfactual"], goals["counterfactual"].astype(np.int64))
            axes.set_ylabel("share seen as wanted", color=INK, fontsize=9)
        else:
            _scatter(axes, seen, goals)
            axes.set_ylabel(f"seen ({by})", color=INK, fontsize=9)
        axes.set_xlabel(f"{name} wanted{_unit(variable)}", color=INK, fontsize=9)
        _tidy(axes, f"do({name})", by)
        pictures[f"{scores.node}-do-{name}-{by}.png"] = figure_png(figure)
    return pictures


def drift_picture(entries: Sequence[Entry], node: str, unit: str) -> bytes:
    """Distance to the factual over null interventions, with and without residuals."""
    figure = Figure(figsize=(4.4, 3.4), layout="constrained")
    axes = figure.add_subplot()
    kinds = list(dict.fromkeys(entry.by for entry in entries))
    for colour, kind in zip(_COLOURS, kinds, strict=False):
        of_kind = [entry for entry in entries if entry.by == kind]
        cycles = [int(entry.of) for entry in of_kind]
        scores = [entry.score for entry in of_kind]
        axes.fill_between(
            cycles, [each.low for each in scores], [each.high for each in scores],
            color=colour, alpha=0.15, linewidth=0,
        )  # fmt: skip
        axes.plot(
            cycles, [each.value for each in scores], "o-",
            color=colour, markersize=3.5, linewidth=1.3, label=kind or "as it is",
        )  # fmt: skip
    most = max(entry.score.value for entry in entries)
    axes.set_ylim(bottom=-0.03 * most)  # a line at 0 stands clear of the axis
    axes.set_xlabel("null interventions", color=INK, fontsize=9)
    axes.set_ylabel(f"distance to the factual, {unit}", color=INK, fontsize=9)
    if len(kinds) > 1:
        axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    _tidy(axes, f"composition of {node}", "")
    return figure_png(figure)


def _bars(axes: Axes, variable: Categorical, seen: NDArray[np.int64], goals: NDArray[np.int64]) -> None:
    labels = variable.labels or range(variable.size)
    asked = [code for code in range(variable.size) if (goals == code).any()]
    for place, code in enumerate(asked):
        right, count = int((seen[goals == code] == code).sum()), int((goals == code).sum())
        low, high = wilson_interval(right, count)
        axes.bar(place, right / count, color=SOFT, width=0.7)
        axes.plot([place, place], [low, high], color=INK, linewidth=1)
    axes.set_xticks(range(len(asked)), [str(labels[code])[:8] for code in asked])
    axes.set_ylim(0, 1.02)


def _scatter(axes: Axes, seen: Mapping[str, NDArray[Any]], goals: Mapping[str, NDArray[Any]]) -> None:
    every = slice(None, None, max(1, len(goals["factual"]) // _MOST_POINTS))
    both = np.concatenate([goals["counterfactual"], goals["factual"]])
    low, high = float(both.min()), float(both.max())
    axes.plot([low, high], [low, high], color=SOFT, linewidth=0.9, zorder=1)
    for subject, colour in (("factual", FAINT), ("counterfactual", ACCENT)):
        axes.plot(
            goals[subject][every], seen[subject][every], "o",
            color=colour, markersize=2.6, alpha=0.55, markeredgewidth=0, label=subject,
        )  # fmt: skip
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, markerscale=2)


def _tidy(axes: Axes, title: str, note: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    axes.tick_params(labelsize=8, color=SOFT, labelcolor=INK)
    axes.set_title(title, fontsize=9.5, weight="bold", color=INK, loc="left")
    axes.set_title(note, fontsize=8, color=FAINT, loc="right")


def _values(columns: Mapping[str, Any], names: Sequence[str], row: int) -> str:
    told = []
    for name in names:
        value = np.asarray(columns[name])[row]
        number = isinstance(value, np.floating | float)
        places = max(0, 2 - len(f"{abs(value):.0f}") + 1) if number else 0
        told.append(f"{name} {value:.{places}f}" if number else f"{name} {value}")
    return "\n".join(text[:16] for text in told)


def _unit(variable: Any) -> str:
    return f", {variable.unit}" if getattr(variable, "unit", "") else ""
