"""The pictures of an evaluation: images in rows, what was wanted against what is seen, drift by cycles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from causalgen.counterfactuals.export import figure_png
from causalgen.counterfactuals.summaries import value_text
from causalgen.evaluation.metric import Entry, NodeEvaluation
from causalgen.evaluation.questions import Answer, RowDraws
from causalgen.metrics.axioms import read_attribute
from causalgen.metrics.image_rows import distance_unit, image_rows
from causalgen.metrics.scores import Score, wilson_interval
from causalgen.plotting.plot_style import (
    ACCENT,
    FAINT,
    INK,
    SOFT,
    fitted,
    literal,
    named_ticks,
    text_width,
)
from causalgen.plotting.plots import caption, plot_image_rows
from graphs.variables import Categorical

__all__ = ["node_pictures", "plot_interval", "tidy_axes"]

_SHOWN, _DRAWN = 10, 6
_MOST_POINTS, _MOST_NAMES = 2000, 30
_ROOM = 3.4
"""Inches that names have side by side below an axis."""
_COLOURS = (ACCENT, "#2f6db3", "#5c8a3a", "#8a5fb0")


def node_pictures(case: NodeEvaluation, entries: Sequence[Entry]) -> dict[str, bytes]:
    """PNGs of an evaluated image node, by file name."""
    figures: dict[str, Figure] = {}
    if case.answers:
        figures[f"{case.node}.png"] = _grid(case)
    for answer in case.answers:
        name = answer.question.node
        for by, readers in case.readings.by.items():
            if name in readers:
                figures[f"{case.node}-do-{name}-{by}.png"] = _wanted_and_seen(case, answer, by)
        if answer.draws is not None:
            figures[f"{case.node}-do-{name}-draws.png"] = _draws(case, answer, answer.draws)
    if drift := [entry for entry in entries if entry.metric == "composition"]:
        figures[f"{case.node}-composition.png"] = _drift(drift, case)
    return {name: figure_png(figure) for name, figure in figures.items()}


@literal
def _grid(case: NodeEvaluation) -> Figure:
    """Factual images, the counterfactuals of each question, and beside them what they are compared with."""
    shown = case.few[:_SHOWN]
    rows: dict[str, NDArray[Any]] = {"factual": case.factual[shown]}
    captions: dict[str, Sequence[str]] = {
        "factual": [_values(case.columns, list(case.causes), row) for row in shown]
    }
    for answer in case.answers:
        name = answer.question.node
        texts = [_values({name: answer.question.values}, [name], row) for row in shown]
        rows[f"do({name})"], captions[f"do({name})"] = answer.mechanism[shown], texts
        if answer.model is not None:
            rows[f"do({name}), whole model"] = answer.model[shown]
        if answer.question.image is not None:
            rows[f"do({name}), truth"] = np.asarray(answer.question.image)[shown]
        if real := case.controls(answer.question):
            rows[f"do({name}), nearest real image"] = case.real[case.node][real.nearest[shown]]
    return plot_image_rows(rows, size=0.72, captions=captions)


@literal
def _draws(case: NodeEvaluation, answer: Answer, draws: RowDraws) -> Figure:
    """Rows are factuals, columns the factual and several draws of its counterfactual."""
    name = answer.question.node
    rows: dict[str, NDArray[Any]] = {}
    for place, row in enumerate(case.few[:_DRAWN]):
        before, after = (value_text(values[row]) for values in (case.columns[name], answer.question.values))
        label = f"row {case.numbers[row]}: {name} {before} \u2192 {after}"
        rows[label] = np.concatenate([case.factual[row][None], draws.own[:, place]])
    last = ["factual", *(f"draw {number + 1}" for number in range(len(draws.own)))]
    return plot_image_rows(
        rows, size=0.72, captions={list(rows)[-1]: last}, observed=0, title=f"do({name}): draws of a row"
    )


@literal
def _wanted_and_seen(case: NodeEvaluation, answer: Answer, by: str) -> Figure:
    """What was wanted against what is read from the image, for the cause that was set."""
    name = answer.question.node
    variable, reader = case.causes[name], case.readings.by[by][name]
    seen = {
        subject: read_attribute(image_rows(images), name, variable, reader)
        for subject, images in (("counterfactual", answer.mechanism), ("factual", case.factual))
    }
    goals = {
        "counterfactual": variable.encode(answer.question.values, where=name),
        "factual": variable.encode(case.columns[name], where=name),
    }
    label = "share seen as wanted" if isinstance(variable, Categorical) else f"seen ({by})"
    unit = getattr(variable, "unit", "")
    figure, axes = _axes(f"do({name})", by, f"{name} wanted{f', {unit}' if unit else ''}", label)
    if isinstance(variable, Categorical):
        _bars(axes, variable, seen["counterfactual"], goals["counterfactual"].astype(np.int64))
    else:
        _scatter(axes, seen, goals)
    return figure


@literal
def _drift(entries: Sequence[Entry], case: NodeEvaluation) -> Figure:
    """Distance to the factual over null interventions, with and without residuals."""
    unit = distance_unit(case.variable)
    figure, axes = _axes(
        f"composition of {case.node}", "", "null interventions", f"distance to the factual, {unit}"
    )
    kinds = list(dict.fromkeys(entry.by for entry in entries))
    for colour, kind in zip(_COLOURS, kinds, strict=False):
        found = {int(entry.of): entry.score for entry in entries if entry.by == kind}
        plot_interval(axes, found, colour, label=kind or "as it is")
    most = max(entry.score.value for entry in entries)
    axes.set_ylim(bottom=-0.03 * most)  # a line at 0 stands clear of the axis
    if len(kinds) > 1:
        axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    return figure


def _axes(title: str, note: str, across: str, along: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.4, 3.4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(across, color=INK, fontsize=9)
    axes.set_ylabel(along, color=INK, fontsize=9)
    tidy_axes(axes, title, note)
    return figure, axes


def plot_interval(axes: Axes, scores: Mapping[Any, Score], colour: str, label: str = "") -> None:
    """A curve of scores over their keys, with intervals as a band."""
    x = list(scores)
    low, high = [each.low for each in scores.values()], [each.high for each in scores.values()]
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    values = [each.value for each in scores.values()]
    axes.plot(x, values, "o-", color=colour, markersize=3.5, linewidth=1.3, label=label)


def tidy_axes(axes: Axes, title: str = "", note: str = "") -> None:
    """Left and lower spine only, small print, a title at the left and a note at the right."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    axes.tick_params(labelsize=8, color=SOFT, labelcolor=INK)
    axes.set_title(title, fontsize=9.5, weight="bold", color=INK, loc="left")
    axes.set_title(note, fontsize=8, color=FAINT, loc="right")


def _bars(axes: Axes, variable: Categorical, seen: NDArray[np.int64], goals: NDArray[np.int64]) -> None:
    labels = variable.labels or range(variable.size)
    asked = [code for code in range(variable.size) if (goals == code).any()]
    for place, code in enumerate(asked):
        right, count = int((seen[goals == code] == code).sum()), int((goals == code).sum())
        low, high = wilson_interval(right, count)
        axes.bar(place, right / count, color=SOFT, width=0.7)
        axes.plot([place, place], [low, high], color=INK, linewidth=1)
    places = range(0, len(asked), ceil(len(asked) / _MOST_NAMES) or 1)
    names = [fitted(str(labels[asked[place]]), 8, 1.2) for place in places]
    named_ticks(axes.xaxis, places, names)
    if sum(text_width(name, 8) + 0.06 for name in names) > _ROOM:
        axes.tick_params(axis="x", labelrotation=90)
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


def _values(columns: Mapping[str, Any], names: Sequence[str], row: int) -> str:
    return "\n".join(caption(name, value_text(columns[name][row])) for name in names)
