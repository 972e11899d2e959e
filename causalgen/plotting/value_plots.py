"""Plots of tabular counterfactuals and samples: a panel for each number that a row has.

A few rows are drawn one by one, from the factual value to the counterfactual one; many as distributions.
Values that were inferred in the place of missing ones are drawn apart from what was observed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from causalgen.plotting.plot_style import (
    ACCENT,
    FAINT,
    INFERRED,
    INK,
    SOFT,
    fitted,
    literal,
    named_ticks,
    text_width,
)
from graphs.variables import Categorical, Integer, Variable
from graphs.variables.arrays import as_array

if TYPE_CHECKING:
    from causalgen.counterfactuals.results import Draws

__all__ = ["plot_values"]

_MOST_PANELS, _PANELS_A_LINE, _MOST_WHOLE = 24, 4, 40

_ROOM = 1.8
"""Inches that a panel has for a line of text."""

_LEGEND = ("factual", "inferred", "counterfactual")


@dataclass(frozen=True)
class _Panel:
    """One number of each row: values (S, B) after and (B,) before, as categories' codes or as they are.

    ``before`` is NaN in rows that were not observed, ``inferred``, (S, B), in those that were.
    """

    name: str
    note: str
    labels: Sequence[str] | None
    whole: bool
    after: NDArray[np.floating[Any]]
    before: NDArray[np.floating[Any]] | None
    inferred: NDArray[np.floating[Any]] | None


@literal
def plot_values(draws: Draws, rows: int = 8) -> Figure:
    """Values of the nodes that are no images; row by row where there are at most ``rows``.

    Of a counterfactual the factual values are shown too, and what was inferred.
    """
    panels = _panels(draws)
    left_out = len(panels) - _MOST_PANELS
    panels = panels[:_MOST_PANELS]
    single = draws.rows <= rows and panels[0].before is not None
    columns = min(_PANELS_A_LINE, len(panels))
    lines = ceil(len(panels) / columns)
    tall = (0.75 + 0.22 * draws.rows if single else 1.9) + max(map(_upright, panels))
    figure = Figure(
        figsize=(2.2 * columns + 0.5, tall * lines + 0.3),
        layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.06),
    )
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _dumbbells(axes, panel) if single else _distributions(axes, panel)
        _tidy(axes, panel)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    if single:
        names = [str(name) for name in (range(draws.rows) if draws.index is None else draws.index)]
        for line in grid:
            named_ticks(line[0].yaxis, range(draws.rows), [fitted(name, 8, 0.8) for name in names])
            line[0].tick_params(axis="y", labelsize=8)
    if panels[0].before is not None:
        found = [axes.get_legend_handles_labels() for axes in grid.flat]
        entries = {label: mark for marks, told in found for mark, label in zip(marks, told, strict=True)}
        told = [label for label in _LEGEND if label in entries]
        figure.legend(
            [entries[label] for label in told],
            told,
            loc="outside upper right",
            ncols=len(told),
            fontsize=8,
            frameon=False,
            labelcolor=INK,
        )
    if left_out > 0:
        figure.text(0.01, 0.01, f"and {left_out} more", fontsize=8, color=FAINT)
    return figure


def _panels(draws: Draws) -> list[_Panel]:
    factual: Mapping[str, Any] = getattr(draws, "factual", {})
    inferred: Mapping[str, Any] = getattr(draws, "inferred", {})
    do: Mapping[str, str] = getattr(draws, "do", {})
    panels: list[_Panel] = []
    for node, variable in draws.variables.items():
        size, samples = prod(variable.event_shape), draws.samples or 1
        after = _numbers(draws[node], variable).reshape(samples, draws.rows, size)
        before = _numbers(factual[node], variable).reshape(draws.rows, size) if factual else None
        guessed = None
        if node in inferred and before is not None:
            guessed = _numbers(inferred[node], variable).reshape(samples, draws.rows, size)
            guessed = np.where(np.isnan(before), guessed, np.nan)
        labels = [str(label) for label in _labels(variable)] if isinstance(variable, Categorical) else None
        note = f"do = {do[node]}" if node in do else getattr(variable, "unit", "")
        for part in range(size):
            name = f"{node}[{part}]" if variable.event_shape else node
            earlier = None if before is None else before[:, part]
            drawn = None if guessed is None else guessed[..., part]
            whole = isinstance(variable, Integer)
            panels.append(_Panel(name, note, labels, whole, after[..., part], earlier, drawn))
    return panels


def _labels(variable: Categorical) -> Sequence[str | int]:
    return range(variable.size) if variable.labels is None else variable.labels


def _numbers(values: Any, variable: Variable) -> NDArray[np.floating[Any]]:
    array = as_array(values, where="Values")
    if not isinstance(variable, Categorical):
        return array.astype(float)
    codes: dict[Any, float] = {label: code for code, label in enumerate(_labels(variable))}
    codes[None] = np.nan
    if array.dtype.kind == "f":  # codes with gaps
        return array
    return np.array([codes[value] for value in array.ravel().tolist()], dtype=float).reshape(array.shape)


def _dumbbells(axes: Axes, panel: _Panel) -> None:
    """A line for each row, from what was observed or inferred to what would have been; draws as a cloud."""
    assert panel.before is not None
    places = np.arange(len(panel.before))
    if len(panel.after) == 1 or panel.labels is None:
        middle = np.median(panel.after, axis=0)
        axes.hlines(places, panel.before, middle, color=SOFT, linewidth=1.2, zorder=1)
        if panel.inferred is not None:
            start = np.median(panel.inferred, axis=0)
            axes.hlines(places, start, middle, color=SOFT, linewidth=1.2, linestyle=":", zorder=1)
    axes.plot(
        panel.before,
        places,
        "o",
        markersize=5.5,
        markerfacecolor="white",
        color=FAINT,
        label="factual",
        zorder=3,
    )
    if panel.inferred is not None:
        _cloud(axes, panel.inferred, "D", INFERRED, "inferred")
    _cloud(axes, panel.after, "o", ACCENT, "counterfactual")
    axes.set_ylim(len(places) - 0.4, -0.6)
    named_ticks(axes.yaxis, range(len(places)), [""] * len(places))
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", color="#eceef1", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)


def _cloud(axes: Axes, values: NDArray[np.floating[Any]], marker: str, colour: str, label: str) -> None:
    """Draws (S, B), each row's above each other; one larger mark where a row's draws are all equal."""
    rows = np.arange(values.shape[1])
    equal = np.isclose(values.max(0), values.min(0), rtol=1e-9, atol=0)  # not so where there is none, NaN
    look: dict[str, Any] = {"color": colour, "markeredgewidth": 0}
    if equal.any():
        axes.plot(values[0, equal], rows[equal], marker, markersize=4.5, label=label, zorder=4, **look)
    drawn = values[:, ~equal & ~np.isnan(values[0])]
    if drawn.size:
        spread = np.linspace(-0.25, 0.25, len(drawn))[:, None]
        heights = np.broadcast_to(rows[~equal & ~np.isnan(values[0])] + spread, drawn.shape)
        axes.plot(
            drawn.ravel(), heights.ravel(), marker, markersize=2.5, alpha=0.5, zorder=2,
            label=None if equal.any() else label, **look,
        )  # fmt: skip


def _distributions(axes: Axes, panel: _Panel) -> None:
    """Factual values as an area, inferred and counterfactual (or drawn) ones as outlines over it."""
    after = panel.after.ravel()
    before = None if panel.before is None else panel.before[~np.isnan(panel.before)]
    guessed = after[:0] if panel.inferred is None else panel.inferred[~np.isnan(panel.inferred)]
    both = after if before is None else np.concatenate([before, guessed, after])
    if panel.labels is None:
        low, high = float(both.min()), float(both.max())
        bins = np.linspace(low, high, 25) if high > low else np.array([low - 0.5, low + 0.5])
        if panel.whole:  # equally many numbers a bar: else some would stand out for having one more
            wide = ceil((high - low + 1) / _MOST_WHOLE)
            bins = low - 0.5 + wide * np.arange(ceil((high - low + 1) / wide) + 1)
    else:
        bins = np.arange(len(panel.labels) + 1) - 0.5
    filled = 1.0 if panel.labels is None else 0.88
    look: dict[str, Any] = {"bins": bins, "range": (bins[0], bins[-1])}
    if before is None:
        axes.hist(after, weights=_shares(after), color=SOFT, rwidth=filled, **look)
    else:
        if len(before):
            axes.hist(
                before, weights=_shares(before), color="#d5d9df", rwidth=filled, label="factual", **look
            )
        lines = {"inferred": (guessed, INFERRED, ":"), "counterfactual": (after, ACCENT, "-")}
        for label, (values, colour, style) in lines.items():
            if len(values):
                axes.hist(
                    values, weights=_shares(values), histtype="step", color=colour, linestyle=style,
                    linewidth=1.4, label=label, **look,
                )  # fmt: skip
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def _shares(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    return np.full(len(values), 1 / len(values))


def _tidy(axes: Axes, panel: _Panel) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(SOFT)
    axes.tick_params(axis="x", labelsize=8, color=SOFT, labelcolor=INK)
    name = fitted(panel.name, 9.5, _ROOM, bold=True)
    axes.set_title(name, fontsize=9.5, weight="bold", color=INK, loc="left")
    if text_width(name, 9.5, bold=True) + text_width(panel.note, 8) <= _ROOM - 0.12:
        axes.set_title(panel.note, fontsize=8, color=FAINT, loc="right")
    else:  # there is no room beside the name
        axes.set_xlabel(fitted(panel.note, 8, _ROOM), fontsize=8, color=FAINT, loc="right")
    if panel.labels is not None:
        places, shown = _shown_labels(panel.labels)
        named_ticks(axes.xaxis, places, shown)
        if _upright(panel):
            axes.tick_params(axis="x", labelrotation=90)
        axes.set_xlim(-0.6, len(panel.labels) - 0.4)
    else:
        axes.margins(x=0.08)
        axes.locator_params(axis="x", nbins=4, integer=panel.whole)


def _shown_labels(labels: Sequence[str]) -> tuple[range, list[str]]:
    """At most ten categories, and what is written below them."""
    places = range(0, len(labels), ceil(len(labels) / 10))
    return places, [fitted(labels[place], 8, 0.75 * _ROOM) for place in places]


def _upright(panel: _Panel) -> float:
    """Height of labels that have no room side by side and stand upright, in inches; 0 where they have."""
    if panel.labels is None:
        return 0.0
    _, shown = _shown_labels(panel.labels)
    widest = max(text_width(label, 8) for label in shown)
    return widest if widest + 0.06 > _ROOM / len(shown) else 0.0
