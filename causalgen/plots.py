"""Pictures of results and of graphs, as matplotlib figures; pyplot and its global state stay out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from graphs.causal_graph import CausalGraph
from graphs.variables import Continuous, Image, Variable

if TYPE_CHECKING:
    from causalgen.results import Draws

__all__ = ["plot_draws", "plot_graph", "plot_image_rows"]

_INK, _ACCENT, _SOFT = "#1f2430", "#c8452f", "#9aa1ad"
_GAP = 0.12
"""Space between images, in image widths."""


def plot_image_rows(
    rows: Mapping[str, NDArray[np.floating[Any]]],
    marks: Mapping[str, Sequence[bool]] | None = None,
    title: str = "",
    size: float = 0.6,
) -> Figure:
    """Images in labelled rows; the first row stands apart, as what was observed.

    Args:
        rows: label -> images (N, C, H, W) in [0, 1], the same N for each.
        marks: label -> which images of the row are framed.
        title: above the picture.
        size: width of an image in inches.
    """
    count = max(map(len, rows.values()))
    aspect = np.divide(*next(iter(rows.values())).shape[-2:])
    step_x, step_y, first = 1 + _GAP, aspect + _GAP, 0.35
    height = len(rows) * step_y + first
    label_width = 0.3 + 0.08 * max(map(len, rows)) / size
    figure = Figure(
        figsize=(size * (count * step_x + label_width), size * (height + 0.2) + (0.35 if title else 0))
    )
    axes = figure.add_axes((0, 0, 1, 1 - (0.35 / figure.get_figheight() if title else 0)))
    for number, (label, images) in enumerate(rows.items()):
        y = number * step_y + (first if number else 0)
        observed = number == 0
        weight, colour = ("bold", _INK) if observed else ("normal", _INK)
        axes.text(
            -0.2, y + aspect / 2, label, ha="right", va="center", fontsize=9, weight=weight, color=colour
        )
        for column, image in enumerate(images):
            box = (column * step_x, column * step_x + 1, y + aspect, y)
            axes.imshow(_pixels(image), extent=box, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            if marks and marks.get(label, [False] * count)[column]:
                axes.add_patch(_frame(column * step_x, y, aspect))
    axes.plot([0, count * step_x - _GAP], [step_y + first / 2 - _GAP / 2] * 2, color=_SOFT, linewidth=0.8)
    axes.set_xlim(-label_width, count * step_x - _GAP / 3)
    axes.set_ylim(height, -0.2)
    axes.set_axis_off()
    if title:
        figure.text(0.02, 1 - 0.12 / figure.get_figheight(), title, fontsize=10, va="top", color=_INK)
    return figure


def plot_draws(draws: Draws, rows: int = 8) -> Figure:
    """A picture of at most ``rows`` rows: images where there are any, else values, before and after."""
    images = [node for node, variable in draws.variables.items() if isinstance(variable, Image)]
    factual: Mapping[str, Any] = getattr(draws, "factual", {})
    if images:
        return _plot_images(draws, images[-1], factual, rows)
    return _plot_values(draws, factual)


def plot_graph(graph: CausalGraph, variables: Mapping[str, Variable], title: str = "") -> Figure:
    """The causal graph, causes above effects, each node with what its values are."""
    drawn = graph.to_networkx()
    layers = [list(layer) for layer in nx.topological_generations(drawn)]
    position = {
        node: (column - (len(layer) - 1) / 2, -depth)
        for depth, layer in enumerate(layers)
        for column, node in enumerate(layer)
    }
    widest = max(map(len, layers))
    figure = Figure(figsize=(2.3 * widest + 0.4, 1.15 * len(layers) + 0.2 + (0.3 if title else 0)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-widest / 2 - 0.1, widest / 2 + 0.1)
    axes.set_ylim(-len(layers) + 0.5 - 0.1, 0.5 + (0.35 if title else 0.1))
    boxes: dict[str, Any] = {}
    for node, (x, y) in position.items():
        told = f"{node}\n{variables[node].describe()}" if node in variables else node
        edge = _ACCENT if isinstance(variables.get(node), Image) else _INK
        box = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": edge}
        text = axes.text(x, y, told, ha="center", va="center", fontsize=9, color=_INK, bbox=box)
        boxes[node] = text.get_bbox_patch()
    for cause, effect in drawn.edges:
        # An edge that skips a layer bends outwards, around the nodes in between.
        skips = position[cause][1] - position[effect][1] > 1
        bend = 0.0 if not skips else 0.45 if position[cause][0] < 0 else -0.45
        arrow = {
            "arrowstyle": "-|>",
            "color": _SOFT,
            "patchA": boxes[cause],
            "patchB": boxes[effect],
            "shrinkA": 2,
            "shrinkB": 2,
            "mutation_scale": 12,
            "connectionstyle": f"arc3,rad={bend}",
        }
        axes.annotate("", xy=position[effect], xytext=position[cause], arrowprops=arrow)
    axes.set_axis_off()
    if title:
        axes.text(0.02, 0.98, title, fontsize=11, color=_INK, va="top", transform=axes.transAxes)
    return figure


def _plot_images(draws: Draws, node: str, factual: Mapping[str, Any], rows: int) -> Figure:
    shown = min(rows, draws.rows)
    values = np.asarray(draws[node])
    samples = values[:, :shown] if draws.samples is not None else values[None, :shown]
    labelled: dict[str, NDArray[np.floating[Any]]] = {}
    if factual:
        labelled["factual"] = np.asarray(factual[node])[:shown]
    said = getattr(draws, "do", {})
    text = "do(" + ", ".join(f"{name} = {value}" for name, value in said.items()) + ")" if said else "sample"
    for number, each in enumerate(samples):
        labelled[text if len(samples) == 1 else f"{text} #{number + 1}"] = each
    return plot_image_rows(labelled)


def _plot_values(draws: Draws, factual: Mapping[str, Any]) -> Figure:
    nodes = [node for node, variable in draws.variables.items() if not variable.event_shape]
    figure = Figure(figsize=(2.6 * len(nodes), 2.4))
    for number, node in enumerate(nodes):
        axes = figure.add_subplot(1, len(nodes), number + 1)
        values = [np.asarray(draws[node]).ravel()]
        names = ["drawn"]
        if factual:
            values, names = [np.asarray(factual[node]).ravel(), *values], ["factual", "counterfactual"]
        if isinstance(draws.variables[node], Continuous):
            axes.hist(values, bins=20, label=names, color=[_SOFT, _ACCENT][-len(values) :], density=True)
        else:
            _bars(axes, values, names)
        axes.set_title(node, fontsize=10, color=_INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.set_yticks([])
    if factual:
        figure.axes[0].legend(fontsize=7, frameon=False)
    figure.tight_layout()
    return figure


def _bars(axes: Any, values: Sequence[NDArray[Any]], names: Sequence[str]) -> None:
    categories = sorted({str(value) for each in values for value in each})
    width = 0.8 / len(values)
    for number, (each, name) in enumerate(zip(values, names, strict=True)):
        share = [np.mean(each.astype(str) == category) for category in categories]
        colour = [_SOFT, _ACCENT][-len(values) :][number]
        axes.bar(np.arange(len(categories)) + number * width, share, width, label=name, color=colour)
    axes.set_xticks(np.arange(len(categories)) + width * (len(values) - 1) / 2, categories)


def _pixels(image: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    return image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)


def _frame(x: float, y: float, aspect: float) -> Any:
    from matplotlib.patches import Rectangle

    margin = _GAP / 3
    return Rectangle(
        (x - margin, y - margin),
        1 + 2 * margin,
        aspect + 2 * margin,
        fill=False,
        edgecolor=_ACCENT,
        linewidth=1.4,
    )
