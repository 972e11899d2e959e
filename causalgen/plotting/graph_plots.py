"""The picture of a causal graph: layers, causes above effects, edges routed around the nodes they pass.

Layered layout of a DAG (Sugiyama, Tagawa & Toda 1981):

1. layer      a node is one below its lowest cause
2. stepping   an edge that skips layers gets a waypoint in each of them, which keeps room for it
3. order      each layer is sorted by the mean place of its neighbours, down and up, several times
4. place      within that order each point comes as near to the mean of its neighbours as the others let it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from causalgen.plotting.plot_style import ACCENT, FAINT, INK, SOFT, literal, text_width
from graphs.causal_graph import CausalGraph
from graphs.errors import GraphError
from graphs.text import shortened
from graphs.variables import Image, Variable

__all__ = ["Layout", "lay_out", "plot_graph"]

_SWEEPS = 8

Point = str | tuple[str, str, int]
"""A node, or the waypoint of an edge in a layer."""

Neighbours = Mapping[Point, Sequence[Point]]

MOST_NODES = 200
"""More cannot be read."""

_HEIGHT, _STEP, _GAP, _PASSAGE, _MARGIN = 0.5, 1.02, 0.3, 0.05, 0.2
"""Inches: of a node, from layer to layer, between nodes, for an edge that passes a layer, around it all."""


@dataclass(frozen=True)
class Layout:
    """Where everything is; the picture is centred at x = 0, layers count downwards from 0."""

    nodes: Mapping[str, tuple[float, int]]  # x and layer
    # Those of the points that an edge passes, with its ends
    routes: Mapping[tuple[str, str], Sequence[tuple[float, int]]]


def lay_out(graph: CausalGraph, widths: Mapping[str, float], gap: float, waypoint: float) -> Layout:
    """Place every node and route every edge; widths and gaps are in any one unit."""
    generations = enumerate(nx.topological_generations(graph.to_networkx()))
    depth = {node: layer for layer, nodes in generations for node in nodes}
    layers: list[list[Point]] = [[] for _ in range(max(depth.values()) + 1)]
    above: dict[Point, list[Point]] = {}
    below: dict[Point, list[Point]] = {}
    chains: dict[tuple[str, str], list[Point]] = {}
    for node in graph.nodes:
        layers[depth[node]].append(node)
    for cause, effect in graph.edges:
        passed = range(depth[cause] + 1, depth[effect])
        for layer in passed:
            layers[layer].append((cause, effect, layer))
        chain = chains[cause, effect] = [cause, *((cause, effect, layer) for layer in passed), effect]
        for upper, lower in pairwise(chain):
            below.setdefault(upper, []).append(lower)
            above.setdefault(lower, []).append(upper)
    width = {
        point: widths[point] if isinstance(point, str) else waypoint for each in layers for point in each
    }
    _order(layers, above, below)
    x = _place(layers, above, below, lambda left, right: (width[left] + width[right]) / 2 + gap)
    ends = [(x[p] - width[p] / 2, x[p] + width[p] / 2) for p in x]
    middle = (min(left for left, _ in ends) + max(right for _, right in ends)) / 2
    where = {point: (x[point] - middle, layer) for layer, each in enumerate(layers) for point in each}
    return Layout(
        {node: where[node] for node in graph.nodes},
        {edge: [where[point] for point in chain] for edge, chain in chains.items()},
    )


def _order(layers: list[list[Point]], above: Neighbours, below: Neighbours) -> None:
    """Sort the layers, in place, for few crossings; keep the best order seen."""
    best, fewest = [list(each) for each in layers], _crossings(layers, below)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        near = above if down else below
        for each in layers if down else reversed(layers):
            rank = {point: place for layer in layers for place, point in enumerate(layer)}
            means = {
                p: sum(rank[n] for n in near[p]) / len(near[p]) if near.get(p) else rank[p] for p in each
            }
            each.sort(key=means.__getitem__)
        if (count := _crossings(layers, below)) < fewest:
            best, fewest = [list(each) for each in layers], count
    layers[:] = best


def _crossings(layers: Sequence[Sequence[Point]], below: Neighbours) -> int:
    total = 0
    for upper, lower in pairwise(layers):
        rank = {point: place for place, point in enumerate(lower)}
        ends = [rank[end] for start in upper for end in sorted(below.get(start, ()), key=rank.__getitem__)]
        total += sum(a > b for place, a in enumerate(ends) for b in ends[place + 1 :])
    return total


def _place(
    layers: Sequence[Sequence[Point]],
    above: Neighbours,
    below: Neighbours,
    apart: Callable[[Point, Point], float],
) -> dict[Point, float]:
    x: dict[Point, float] = {}
    for each in layers:
        x |= _spread(each, [0.0] * len(each), apart)
    for sweep in range(2 * _SWEEPS):
        for each in layers if sweep % 2 == 0 else reversed(layers):
            near = {point: [*above.get(point, ()), *below.get(point, ())] for point in each}
            wanted = [sum(x[n] for n in near[p]) / len(near[p]) if near[p] else x[p] for p in each]
            x |= _spread(each, wanted, apart)
    return x


def _spread(
    points: Sequence[Point], wanted: Sequence[float], apart: Callable[[Point, Point], float]
) -> dict[Point, float]:
    """The x nearest to what is wanted, in least squares, that keep the order and the distances.

    With the distances subtracted it is isotonic regression, which pooling adjacent violators solves.
    """
    offsets = [0.0]
    for left, right in pairwise(points):
        offsets.append(offsets[-1] + apart(left, right))
    pools: list[tuple[float, int]] = []
    for want, offset in zip(wanted, offsets, strict=True):
        mean, count = want - offset, 1
        while pools and pools[-1][0] >= mean:
            before, size = pools.pop()
            mean, count = (before * size + mean * count) / (size + count), size + count
        pools.append((mean, count))
    means = [mean for mean, count in pools for _ in range(count)]
    return {point: mean + offset for point, mean, offset in zip(points, means, offsets, strict=True)}


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
    starts = [each[1][0] for (one, _), each in layout.routes.items() if one == cause]
    ends = [each[-2][0] for (_, one), each in layout.routes.items() if one == effect]
    start = _port(cause, route[1][0], starts, layout, widths)
    end = _port(effect, route[-2][0], ends, layout, widths)
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
