"""Layered layout of a DAG, causes above effects (Sugiyama, Tagawa & Toda 1981).

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

from graphs.causal_graph import CausalGraph

__all__ = ["Layout", "lay_out"]

_SWEEPS = 8

Point = str | tuple[str, str, int]
"""A node, or the waypoint of an edge in a layer."""


@dataclass(frozen=True)
class Layout:
    """Where everything is; the picture is centred at x = 0, layers count downwards from 0."""

    nodes: Mapping[str, tuple[float, int]]  # x and layer
    # Those of the points that an edge passes, with its ends
    routes: Mapping[tuple[str, str], Sequence[tuple[float, int]]]


def lay_out(graph: CausalGraph, widths: Mapping[str, float], gap: float, waypoint: float) -> Layout:
    """Place every node and route every edge; widths and gaps are in any one unit."""
    depth = {
        node: layer
        for layer, nodes in enumerate(nx.topological_generations(graph.to_networkx()))
        for node in nodes
    }
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


Neighbours = Mapping[Point, Sequence[Point]]


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
