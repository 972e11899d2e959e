"""The picture of a causal graph: layers, causes above effects, edges routed around the nodes they pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from causalgen.plotting.layers import Layout, lay_out
from causalgen.plotting.plot_style import ACCENT, FAINT, INK, SOFT, literal, text_width
from graphs.causal_graph import CausalGraph
from graphs.errors import GraphError
from graphs.text import shortened
from graphs.variables import Image, Variable

__all__ = ["plot_graph"]

MOST_NODES = 200
"""More cannot be read."""

_HEIGHT, _STEP, _GAP, _PASSAGE, _MARGIN = 0.5, 1.02, 0.3, 0.05, 0.2
"""Inches: of a node, from layer to layer, between nodes, for an edge that passes a layer, around it all."""


@literal
def plot_graph(graph: CausalGraph, variables: Mapping[str, Variable], title: str = "") -> Figure:
    """The causal graph, of at most 200 nodes, each with what its values are; image nodes are coloured.

    Nodes without a variable show their name only.
    """
    if len(graph) > MOST_NODES:
        raise GraphError(f"A picture of {len(graph):,} nodes cannot be read; at most {MOST_NODES} are drawn.")
    told = {
        node: shortened(variables[node].describe(), 34, "…") if node in variables else ""
        for node in graph.nodes
    }
    widths = {
        node: 0.3 + max(text_width(node, 9.5, bold=True), text_width(said, 8)) for node, said in told.items()
    }
    layout = lay_out(graph, widths, _GAP, _PASSAGE)
    axes = _canvas(layout, widths, title)
    for edge in graph.edges:
        axes.add_patch(_arrow(*edge, layout, widths))
    for node, (x, layer) in layout.nodes.items():
        _draw_node(axes, x, -layer * _STEP, node, told[node], widths[node], variables.get(node))
    figure = axes.figure
    assert isinstance(figure, Figure)
    return figure


def _canvas(layout: Layout, widths: Mapping[str, float], title: str) -> Axes:
    """Axes in inches, so that text and boxes agree."""
    reach = max(abs(x) + widths[node] / 2 for node, (x, _) in layout.nodes.items())
    reach = max(reach, *(abs(x) + _PASSAGE for route in layout.routes.values() for x, _ in route), 0.0)
    width = max(2 * (reach + _MARGIN), 2 * _MARGIN + text_width(title, 11))
    depth = max(layer for _, layer in layout.nodes.values()) * _STEP
    head = 0.32 if title else 0.0
    height = depth + _HEIGHT + 2 * _MARGIN + head
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-width / 2, width / 2)
    axes.set_ylim(-depth - _HEIGHT / 2 - _MARGIN, _HEIGHT / 2 + _MARGIN + head)
    axes.set_axis_off()
    if title:
        axes.text(_MARGIN - width / 2, _HEIGHT / 2 + _MARGIN + head / 2, title, fontsize=11, color=INK)
    return axes


def _draw_node(
    axes: Axes, x: float, y: float, name: str, told: str, width: float, variable: Variable | None
) -> None:
    edge, face = (ACCENT, "#fdf3f0") if isinstance(variable, Image) else (INK, "white")
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - _HEIGHT / 2),
            width,
            _HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.09",
            facecolor=face,
            edgecolor=edge,
            linewidth=1.0,
            zorder=2,
        )
    )
    lift = 0.09 if told else 0.0
    axes.text(x, y + lift, name, ha="center", va="center", fontsize=9.5, weight="bold", color=INK, zorder=3)
    axes.text(x, y - 0.12, told, ha="center", va="center", fontsize=8, color=FAINT, zorder=3)


def _arrow(cause: str, effect: str, layout: Layout, widths: Mapping[str, float]) -> FancyArrowPatch:
    """A smooth arrow from the lower side of the cause to the upper side of the effect, by its waypoints."""
    route = layout.routes[cause, effect]
    start = _port(
        cause, route[1][0], [r[1][0] for (a, _), r in layout.routes.items() if a == cause], layout, widths
    )
    end = _port(
        effect, route[-2][0], [r[-2][0] for (_, b), r in layout.routes.items() if b == effect], layout, widths
    )
    stops = [(start, -route[0][1] * _STEP - _HEIGHT / 2)]
    for x, layer in route[1:-1]:
        # Straight down past the nodes of the layer.
        stops += [(x, -layer * _STEP + _HEIGHT / 2), (x, -layer * _STEP - _HEIGHT / 2)]
    stops.append((end, -route[-1][1] * _STEP + _HEIGHT / 2 + 0.02))
    points, codes = [stops[0]], [Path.MOVETO]
    for upper, lower in pairwise(stops):
        bend = (upper[1] - lower[1]) * 0.5
        points += [(upper[0], upper[1] - bend), (lower[0], lower[1] + bend), lower]
        codes += [Path.CURVE4] * 3
    return FancyArrowPatch(
        path=Path(np.array(points), codes),
        arrowstyle="-|>",
        mutation_scale=9,
        color=SOFT,
        linewidth=1.1,
        zorder=1,
    )


def _port(
    node: str, toward: float, others: Sequence[float], layout: Layout, widths: Mapping[str, float]
) -> float:
    """Where along a node's side an edge is attached: the edges share the middle half, in their order."""
    if len(others) == 1:
        return layout.nodes[node][0]
    place = sorted(others).index(toward) / (len(others) - 1) - 0.5
    return layout.nodes[node][0] + place * min(0.5 * widths[node], 0.22 * (len(others) - 1))
