"""Groups of rows by the values of nodes, for conditional effects.

A node that an intervention reaches has a value in each world, so "the rows in which it is a" means different
rows in each: grouping by it is refused. A node that is itself set groups by its natural value, before the
intervention: the effect on the treated.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphs.causal_graph import CausalGraph
from graphs.errors import DomainError, EvidenceError, UnknownNameError
from graphs.variables import Categorical, Variable

__all__ = ["Given", "group_edges", "group_labels", "refuse_reached"]

Given = str | Iterable[str] | Mapping[str, Sequence[float] | None]
"""One node, several, or nodes with the edges that cut a continuous one into intervals."""

_MOST_VALUES = 50


def group_edges(given: Given, variables: Mapping[str, Variable]) -> dict[str, NDArray[np.float64] | None]:
    """Nodes to group by, each with its edges or None."""
    if not isinstance(given, Iterable):
        raise EvidenceError(f"given names nodes to group by, as in given='x'; got {given!r}.")
    asked: Mapping[str, Sequence[float] | None]
    asked = (
        given if isinstance(given, Mapping) else dict.fromkeys([given] if isinstance(given, str) else given)
    )
    found: dict[str, NDArray[np.float64] | None] = {}
    for node, edges in asked.items():
        UnknownNameError.check("node", node, variables, where="given")
        variable = variables[node]
        if variable.event_shape:
            raise EvidenceError(
                f"given: {node!r} ({variable.describe()}) has no single value to group by. "
                "Group by a category or a number."
            )
        found[node] = None if edges is None else _checked_edges(node, variable, edges)
    return found


def _checked_edges(node: str, variable: Variable, edges: Sequence[float]) -> NDArray[np.float64]:
    if isinstance(variable, Categorical):
        raise EvidenceError(f"given: {node!r} has categories, which need no edges. Say given={node!r}.")
    try:
        array = np.asarray(edges, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise EvidenceError(f"given: edges of {node!r} are numbers, got {edges!r}.") from error
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all() or (np.diff(array) <= 0).any():
        raise EvidenceError(
            f"given: edges of {node!r} are finite and increasing, as in {{{node!r}: [0, 10]}}; got {edges!r}."
        )
    return array


def refuse_reached(nodes: Collection[str], touched: Collection[str], graph: CausalGraph) -> None:
    """Refuse groups that the intervention changes."""
    for node in nodes:
        for source in sorted(touched):
            if node != source and node in graph.descendants(source):
                raise EvidenceError(
                    f"given: {node!r} descends from {source!r}, which is set: it takes another value in each "
                    "world, so that the groups would not hold the same rows. Group by nodes that no "
                    "intervention reaches."
                )


def group_labels(
    node: str, variable: Variable, values: NDArray[Any], edges: NDArray[np.float64] | None
) -> tuple[NDArray[np.int64], list[Any]]:
    """Number of the group of each value, and the labels of the groups in order.

    Group k of a node of numbers is [edge k-1, edge k).
    """
    if isinstance(variable, Categorical):
        labels: Sequence[Any] = variable.labels or range(variable.size)
        return values.astype(np.int64), list(labels)
    if edges is not None:
        between = [f"[{low:g}, {high:g})" for low, high in pairwise(edges)]
        return np.searchsorted(edges, values, side="right"), [
            f"< {edges[0]:g}",
            *between,
            f">= {edges[-1]:g}",
        ]
    distinct, codes = np.unique(values, return_inverse=True)
    if len(distinct) > _MOST_VALUES:
        raise DomainError(
            f"given: {node!r} has {len(distinct):,} distinct values. Cut them into intervals, as in "
            f"given={{{node!r}: [{np.median(values):.3g}]}}."
        )
    return codes.reshape(values.shape), np.asarray(variable.decode(distinct)).tolist()
