"""Pictures of tables: a panel for each number that a row has.

A few rows are drawn one by one, from the factual value to the counterfactual one; many as distributions.
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

from causalgen.drawing.plot_style import ACCENT, FAINT, INK, SOFT
from graphs.arrays import as_array
from graphs.variables import Categorical, Integer, Variable

if TYPE_CHECKING:
    from causalgen.results import Draws

__all__ = ["plot_values"]

_MOST_PANELS, _PANELS_A_LINE, _MOST_WHOLE = 24, 4, 40


@dataclass(frozen=True)
class _Panel:
    """One number of each row: values (S, B) after and (B,) before, as categories' codes or as they are."""

    name: str
    note: str
    labels: Sequence[str] | None
    whole: bool
    after: NDArray[np.floating[Any]]
    before: NDArray[np.floating[Any]] | None


def plot_values(draws: Draws, rows: int = 8) -> Figure:
    """Values of the nodes that are no images; row by row where there are at most ``rows``.

    Args:
        draws: a result; of a counterfactual the factual values are shown too.
        rows: the most rows that are drawn one by one.
    """
    panels = _panels(draws)
    left_out = len(panels) - _MOST_PANELS
    panels = panels[:_MOST_PANELS]
    single = draws.rows <= rows and panels[0].before is not None
    columns = min(_PANELS_A_LINE, len(panels))
    lines = ceil(len(panels) / columns)
    tall = 0.75 + 0.22 * draws.rows if single else 1.9
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
        names = (
            [str(name) for name in draws.index] if draws.index is not None else map(str, range(draws.rows))
        )
        for line in grid:
            line[0].set_yticks(range(draws.rows), [name[:12] for name in names], fontsize=8)
    if panels[0].before is not None:
        handles, told = grid[0, 0].get_legend_handles_labels()
        figure.legend(
            handles[:2],
            told[:2],
            loc="outside upper right",
            ncols=2,
            fontsize=8,
            frameon=False,
            labelcolor=INK,
        )
    if left_out > 0:
        figure.text(0.01, 0.01, f"and {left_out} more", fontsize=8, color=FAINT)
    return figure


def _panels(draws: Draws) -> list[_Panel]:
    factual: Mapping[str, Any] = getattr(draws, "factual", {})
    do: Mapping[str, str] = getattr(draws, "do", {})
    panels: list[_Panel] = []
    for node, variable in draws.variables.items():
        size = prod(variable.event_shape)
        after = _numbers(draws[node], variable).reshape(draws.samples or 1, draws.rows, size)
        before = _numbers(factual[node], variable).reshape(draws.rows, size) if factual else None
        labels = [str(label) for label in _labels(variable)] if isinstance(variable, Categorical) else None
        note = f"do = {do[node]}" if node in do else getattr(variable, "unit", "")
        for part in range(size):
            name = f"{node}[{part}]" if variable.event_shape else node
            earlier = None if before is None else before[:, part]
            whole = isinstance(variable, Integer)
            panels.append(_Panel(name, note, labels, whole, after[..., part], earlier))
    return panels


def _labels(variable: Categorical) -> Sequence[str | int]:
    return range(variable.size) if variable.labels is None else variable.labels


def _numbers(values: Any, variable: Variable) -> NDArray[np.floating[Any]]:
    array = as_array(values, where="Values")
    if not isinstance(variable, Categorical):
        return array.astype(float)
    codes = {label: code for code, label in enumerate(_labels(variable))}
    return np.array([codes[value] for value in array.ravel().tolist()], dtype=float).reshape(array.shape)


def _dumbbells(axes: Axes, panel: _Panel) -> None:
    """A line for each row, from what was observed to what would have been; samples as a cloud."""
    assert panel.before is not None
    places = np.arange(len(panel.before))
    middle = np.median(panel.after, axis=0) if panel.labels is None else panel.after[0]
    if len(panel.after) == 1 or panel.labels is None:
        axes.hlines(places, panel.before, middle, color=SOFT, linewidth=1.2, zorder=1)
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
    spread = np.linspace(-0.25, 0.25, len(panel.after)) if len(panel.after) > 1 else np.zeros(1)
    heights = np.broadcast_to(places + spread[:, None], panel.after.shape)
    alpha, size = (1.0, 4.5) if len(panel.after) == 1 else (0.5, 2.5)
    axes.plot(
        panel.after.ravel(), heights.ravel(), "o", markersize=size, color=ACCENT, alpha=alpha,
        markeredgewidth=0, label="counterfactual", zorder=2 if len(panel.after) > 1 else 4,
    )  # fmt: skip
    axes.set_ylim(len(places) - 0.4, -0.6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_yticks(places, [""] * len(places))
    axes.grid(axis="y", color="#eceef1", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)


def _distributions(axes: Axes, panel: _Panel) -> None:
    """Factual values as an area, counterfactual (or drawn) ones as an outline over it."""
    after = panel.after.ravel()
    both = after if panel.before is None else np.concatenate([panel.before, after])
    if panel.labels is None:
        low, high = float(both.min()), float(both.max())
        bins = np.linspace(low, high, 25) if high > low else np.array([low - 0.5, low + 0.5])
        if panel.whole and high - low <= _MOST_WHOLE:  # a bar a number
            bins = np.arange(low, high + 2) - 0.5
    else:
        bins = np.arange(len(panel.labels) + 1) - 0.5
    filled = 1.0 if panel.labels is None else 0.88
    look: dict[str, Any] = {"bins": bins, "range": (bins[0], bins[-1])}
    if panel.before is None:
        axes.hist(after, weights=np.full(len(after), 1 / len(after)), color=SOFT, rwidth=filled, **look)
    else:
        axes.hist(
            panel.before, weights=np.full(len(panel.before), 1 / len(panel.before)),
            color="#d5d9df", rwidth=filled, label="factual", **look,
        )  # fmt: skip
        axes.hist(
            after, weights=np.full(len(after), 1 / len(after)), histtype="step", color=ACCENT,
            linewidth=1.4, label="counterfactual", **look,
        )  # fmt: skip
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def _tidy(axes: Axes, panel: _Panel) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(SOFT)
    axes.tick_params(axis="x", labelsize=8, color=SOFT, labelcolor=INK)
    axes.set_title(panel.name, fontsize=9.5, weight="bold", color=INK, loc="left")
    axes.set_title(panel.note, fontsize=8, color=FAINT, loc="right")
    if panel.labels is not None:
        every = ceil(len(panel.labels) / 10)
        places = range(0, len(panel.labels), every)
        axes.set_xticks(list(places), [panel.labels[place][:10] for place in places])
        axes.set_xlim(-0.6, len(panel.labels) - 0.4)
    else:
        axes.margins(x=0.08)
        axes.locator_params(axis="x", nbins=5, integer=panel.whole)
