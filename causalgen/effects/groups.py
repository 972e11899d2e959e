"""What an effect averages, the number or numbers of each row, and over whom: groups by the values of nodes.

A node that an intervention reaches has a value in each world, so "the rows in which it is a" means different
rows in each: grouping by it is refused. A node that is itself set groups by its natural value, before the
intervention: the effect on the treated.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphs.causal_graph import CausalGraph
from graphs.errors import DomainError, EvidenceError, UnknownNameError
from graphs.variables import Categorical, Continuous, Image, Integer, Variable
from mechanisms.extrapolation import told_apart
from mechanisms.rows import function_of_rows

__all__ = [
    "Given",
    "Statistic",
    "check_statistic",
    "group_edges",
    "group_labels",
    "measure",
    "refuse_reached",
]

Statistic = Callable[[Any], Any]
"""Values of N rows in the user's form, a tensor (N, *event) or an array of labels -> N numbers or booleans,
or an array (N, *shape) of them."""

Given = str | Iterable[str] | Mapping[str, Sequence[float] | None]
"""One node, several, or nodes with the edges that cut a continuous one into intervals."""

_MOST_VALUES = 50


def check_statistic(target: str, variable: Variable, statistic: Statistic | None) -> None:
    """Refuse a target that has no mean of its own, unless a statistic says what to average."""
    if statistic is not None and not callable(statistic):
        raise EvidenceError(f"statistic is a function of the target's values, got {statistic!r}.")
    if statistic is None and isinstance(variable, Categorical):
        label = repr((variable.labels or (0,))[0])
        raise EvidenceError(
            f"Target {target!r} has categories ({variable.describe()}), which have no mean. Say what to "
            f"average: statistic=lambda {_word(target)}: {_word(target)} == {label} gives a difference of "
            "probabilities."
        )
    if statistic is None and isinstance(variable, Image):
        raise EvidenceError(
            f"Target {target!r} is an image. Say what to average of it, a number a row: "
            f"statistic=lambda {_word(target)}: {_word(target)}.mean((1, 2, 3)) compares brightness."
        )


def measure(
    target: str, variable: Variable, values: Tensor, statistic: Statistic | None
) -> tuple[NDArray[np.float64], bool]:
    """The statistic of N rows, (N, *shape), and whether it is a boolean, whose mean is a probability."""
    if statistic is None:
        assert isinstance(variable, Continuous | Integer)
        return values.double().cpu().numpy(), False
    found = function_of_rows(statistic, [variable], values)
    try:
        array, boolean = _numbers(found)
    except (TypeError, ValueError) as error:
        raise DomainError(
            f"statistic of {target!r} gives numbers or booleans, got a {type(found).__name__}."
        ) from error
    if array.shape[:1] != (len(values),):
        raise DomainError(
            f"statistic of {target!r} gives one number a row: for {len(values)} rows expected shape "
            f"({len(values)},) or ({len(values)}, ...), got {array.shape}. It sees all rows at once."
        )
    if not np.isfinite(array).all():
        bad = int(np.argwhere(~np.isfinite(array))[0][0])
        raise DomainError(f"statistic of {target!r} is {array[bad]} in row {bad}, expected finite numbers.")
    if isinstance(variable, Categorical) and not array.any():
        _refuse_false(target, variable, values, statistic)
    _refuse_mixing(target, variable, values, statistic, array)
    return array, boolean


def _numbers(found: Any) -> tuple[NDArray[np.float64], bool]:
    told = np.asarray(found.detach().cpu() if isinstance(found, Tensor) else found)
    if told.dtype.kind == "c":
        raise TypeError
    return told.astype(np.float64), told.dtype == np.bool_


def _refuse_mixing(
    target: str, variable: Variable, values: Tensor, statistic: Statistic, array: NDArray[np.float64]
) -> None:
    """Refuse a statistic that is not of each row by itself, as with a mean: each world has its own."""
    image, few = isinstance(variable, Image), len(values) <= 8
    # Of numbers in parts of their spread: of 1.7e9 +- 100 all are within 2 %.
    size = float(np.median(np.abs(array - (0.0 if image else np.median(array)))))
    least = 1e-12 * float(np.abs(array).max())
    parts = [slice(row, row + 1) for row in range(len(values))] if few else [slice(8), slice(64)]
    for part in parts:
        beside = array[part]
        try:
            alone, _ = _numbers(function_of_rows(statistic, [variable], values[part]))
        except Exception:  # it may take as many rows as there are
            return
        if few and alone.shape != beside.shape:  # likewise: one row goes with many
            return
        # Networks round in another way beside other rows, and one row may lie that close to a limit.
        wrong = np.ones(len(beside), np.bool_)
        if alone.shape == beside.shape:
            near = np.isclose(alone, beside, 0.02 if image else 1e-9, 0.02 * size + least)
            wrong = ~near.reshape(len(beside), -1).all(1)
        if wrong.sum() > (not few):
            raise DomainError(
                f"statistic of {target!r} gives a row another number beside other rows: it must follow from "
                "the row alone, without random numbers, and without a mean, median or rank of all, which "
                "differ between the worlds. Compute these before, as in lambda y: y > 3.2."
            )


def _refuse_false(target: str, variable: Categorical, values: Tensor, statistic: Statistic) -> None:
    """Refuse a statistic that is 0 whatever the category, as where it compares with none of them."""
    for code in range(variable.size):
        try:
            found = function_of_rows(statistic, [variable], torch.full_like(values, code))
        except Exception:  # it may know the categories that occur alone
            return
        if bool(np.asarray(found).any()):
            return
    raise DomainError(
        f"statistic of {target!r} is 0 or False of every category ({variable.describe()}). Compare with one "
        "of them, as it is written there."
    )


def _word(node: str) -> str:
    return node.replace("-", "_")


def group_edges(given: Given, variables: Mapping[str, Variable]) -> dict[str, NDArray[np.float64] | None]:
    """Nodes to group by, each with its edges or None."""
    if not isinstance(given, Iterable):
        raise EvidenceError(f"given names nodes to group by, as in given='x'; got {given!r}.")
    named = [given] if isinstance(given, str) else given
    asked: Mapping[str, Any] = named if isinstance(named, Mapping) else dict.fromkeys(named)
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
        texts = told_apart(*edges.tolist())
        between = [f"[{low}, {high})" for low, high in pairwise(texts)]
        labels = [f"< {texts[0]}", *between, f">= {texts[-1]}"]
        return np.searchsorted(edges, values, side="right"), labels
    distinct, codes = np.unique(values, return_inverse=True)
    if len(distinct) > _MOST_VALUES:
        raise DomainError(
            f"given: {node!r} has {len(distinct):,} distinct values. Cut them into intervals, as in "
            f"given={{{node!r}: [{told_apart(float(np.median(values)), values.min(), values.max())[0]}]}}."
        )
    return codes.reshape(values.shape), np.asarray(variable.decode(distinct)).tolist()
