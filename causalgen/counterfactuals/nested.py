"""Nested counterfactuals, Y(x, M(x')): a node set to the value that a node takes in another world.

    does = {"x0": {"x": 0}, "nested": {"x": 1, "m": WorldRef("x0")["m"]}}

reads Y(x = 1, M(x = 0)): x is 1, and yet the mediator m is what it would have been at x = 0. All worlds share
their noise row by row and sample by sample, which is what gives the expression a meaning (Pearl 2001,
"Direct and indirect effects"). Worlds may feed each other in any order that closes no circle.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from copy import copy
from graphlib import CycleError as CircleError
from graphlib import TopologicalSorter
from typing import Any, TypeVar, final

import torch
from torch import Tensor

from causalgen.counterfactuals.interventions import Intervention, Origin, WorldRef, WorldValue
from causalgen.counterfactuals.results import Draws
from causalgen.data.frames import refuse_other_index
from graphs.errors import InterventionError, UnknownNameError, numbered_rows
from graphs.variables import Variable
from mechanisms.base import Noise, Parents
from mechanisms.intervened import Constant, Noiseless

__all__ = [
    "FromWorld",
    "answer_worlds",
    "check_from_worlds",
    "named_worlds",
    "origins_in_worlds",
    "own_values",
    "shared_rows",
]

Answer = TypeVar("Answer", bound=Draws)


@final
class FromWorld(Noiseless):
    """``x := rows`` of another world, (B or S * B, *event): a node without parents and without noise."""

    rows: Tensor

    def __init__(self, variable: Variable, rows: Tensor) -> None:
        super().__init__(Constant(), variable, {})
        self.register_buffer("rows", rows, persistent=False)

    def generate(self, parents: Parents, noise: Noise) -> Tensor:
        """The rows, all of them: they may differ by sample where an ordinary constant does not."""
        return self.rows


def answer_worlds(
    does: Mapping[str, Mapping[str, Any]],
    targets: Iterable[str],
    variables: Mapping[str, Variable],
    answer: Callable[[str, Mapping[str, Intervention], tuple[str, ...]], Answer],
    only: Collection[str] | None = None,
    *,
    clip: bool = False,
) -> dict[str, Answer]:
    """Answer several worlds by name, those that feed others first.

    ``answer`` takes the name of a world, its interventions that other worlds feed, and nodes. ``only`` names
    the worlds wanted, all where None; others are answered for what they feed alone. ``clip`` moves a value of
    another node that is out of bounds onto the bound.
    """
    wanted = tuple(targets)
    feeds = {name: _references(name, do) for name, do in _checked(does).items()}
    shown = [name for name in does if only is None or name in only]
    asked: dict[str, set[str]] = {name: set(wanted) if name in shown else set() for name in does}
    for name, references in feeds.items():
        for node, value in references.items():
            UnknownNameError.check("world", value.world, does, where=f"do of world {name!r}")
            for each in (node, value.node):
                UnknownNameError.check("node", each, variables, where=f"do of world {name!r}")
            asked[value.world].add(value.node)
    found: dict[str, Answer] = {}
    for name in _order(feeds):
        if not asked[name]:
            continue
        fed = {
            node: _feed(node, value, found[value.world], variables, clip)
            for node, value in feeds[name].items()
        }
        found[name] = answer(name, fed, tuple(node for node in variables if node in asked[name]))
    return {name: _only(found[name], wanted) for name in shown}


def own_values(does: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What each world sets without another world's help, by name."""
    feeds = {name: _references(name, do) for name, do in _checked(does).items()}
    every = {f"{node} in {name}": value for name, do in does.items() for node, value in do.items()}
    every = {what: value for what, value in every.items() if getattr(value, "size", None) != 1}  # of all rows
    refuse_other_index(every, "Intervention on", InterventionError)
    return {
        name: {node: value for node, value in do.items() if node not in feeds[name]}
        for name, do in does.items()
    }


def shared_rows(worlds: Iterable[Mapping[str, Intervention]]) -> int:
    """How many values the worlds have that have several, 1 where none has or they do not agree."""
    counts = {each.rows for asked in worlds for each in asked.values()} - {1}
    return counts.pop() if len(counts) == 1 else 1


def named_worlds(
    do: Mapping[str, Any],
    versus: Mapping[str, Any] | None,
    worlds: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Mapping[str, Any]]:
    """The worlds of a comparison: "do", "versus", "factual" without intervention, and further ones."""
    if not isinstance(do, Mapping) or not do:
        raise InterventionError(f"do sets nothing: got {do!r}. Say which nodes to set, as in do={{'x': 1}}.")
    if versus is not None and not isinstance(versus, Mapping):
        raise InterventionError(
            f"versus maps nodes to values, as in versus={{'x': 0}}; got a {type(versus).__name__}."
        )
    if worlds is not None and not isinstance(worlds, Mapping):
        raise InterventionError(
            "worlds maps names to interventions, as in worlds={'treated': {'x': 1}}; "
            f"got a {type(worlds).__name__}."
        )
    found: dict[str, Mapping[str, Any]] = {"do": do, "versus": versus or {}, "factual": {}}
    for name, each in (worlds or {}).items():
        if name in found:
            raise InterventionError(f"A world is called {name!r} already. Give yours another name.")
        found[name] = each
    return found


def check_from_worlds(asked: Mapping[str, Intervention], rows: int) -> None:
    """Refuse a world that is fed by one of another number of rows."""
    for node, each in asked.items():
        if each.origin is not None and each.rows != rows:
            raise InterventionError(
                f"Intervention on {node!r}: {each.text} has {each.rows} rows, and the world it is to feed "
                f"has {rows}. Give both worlds the same number of values."
            )


def origins_in_worlds(asked: Mapping[str, Intervention]) -> dict[str, Origin]:
    """Where the nodes that other worlds feed come from there, by node."""
    return {node: each.origin for node, each in asked.items() if each.origin is not None}


def _checked(does: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    if not isinstance(does, Mapping):
        raise InterventionError(
            f"Worlds have names, as in {{'x0': {{'x': 0}}, 'x1': {{'x': 1}}}}; got a {type(does).__name__}."
        )
    for name, do in does.items():
        if not isinstance(do, Mapping):
            raise InterventionError(
                f"World {name!r} maps nodes to values, as in {{'x': 1}}; got a {type(do).__name__}."
            )
    return does


def _references(world: str, do: Mapping[str, Any]) -> dict[str, WorldValue]:
    for node, value in do.items():
        if isinstance(value, WorldRef):
            raise InterventionError(
                f"World {world!r} sets {node!r} to a whole world. Take a node of it: "
                f"WorldRef({value.name!r})[{node!r}]."
            )
    return {node: value for node, value in do.items() if isinstance(value, WorldValue)}


def _order(feeds: Mapping[str, Mapping[str, WorldValue]]) -> list[str]:
    before = {name: [value.world for value in references.values()] for name, references in feeds.items()}
    try:
        return list(TopologicalSorter(before).static_order())
    except CircleError as error:
        path = " -> ".join(error.args[1])
        raise InterventionError(
            f"Worlds feed each other in a circle: {path}. One of them must do without."
        ) from error


def _feed(
    node: str, value: WorldValue, source: Draws, variables: Mapping[str, Variable], clip: bool
) -> Intervention:
    rows, variable = source.canonical(value.node), variables[node]
    if variables[value.node] != variable:
        encode = variable.encode_clipped if clip else variable.encode
        with numbered_rows(range(source.rows)):
            checked = encode(variables[value.node].decode(rows), where=f"Intervention on {node!r}")
        rows = torch.as_tensor(checked, device=rows.device)
    origin = source.provenance.origin(value.node)
    return Intervention(FromWorld(variable, rows), repr(value), rows=source.rows, origin=origin)


def _only(result: Answer, nodes: tuple[str, ...]) -> Answer:
    """The result without the nodes that only other worlds asked for."""
    narrow = copy(result)
    narrow.variables = {node: each for node, each in result.variables.items() if node in nodes}
    narrow.provenance = result.provenance.only(nodes)
    return narrow
