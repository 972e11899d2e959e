"""Which missing nodes must be inferred together, given what is observed.

A missing node that has an observed descendant hangs together with its missing parents and children, and with
the other missing parents of each observed child. Such a connected block is independent of all other blocks
given the observed nodes. A missing node without observed descendants is in no block: evidence says nothing of
it beyond its parents, and it is drawn from its mechanism.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import networkx as nx
import torch
from torch import Tensor

from causalgen.counterfactuals.mutilated_model import MutilatedModel
from graphs.causal_graph import CausalGraph

__all__ = ["Block", "Pattern", "Problem", "find_blocks", "find_patterns"]


@dataclass(frozen=True)
class Block:
    """Missing nodes that are inferred together, and their observed children, in topological order."""

    missing: tuple[str, ...]
    children: tuple[str, ...]

    @property
    def factors(self) -> tuple[str, ...]:
        """The nodes whose mechanisms bear on the block."""
        return (*self.missing, *self.children)


@dataclass(frozen=True)
class Problem:
    """A block with the evidence on it, for rows of one pattern."""

    world: MutilatedModel  # the factual world
    block: Block  # what to infer
    known: Mapping[str, Tensor]  # values of all observed nodes that the block's factors read, (n, *event)
    rows: Tensor  # (n,) their row numbers in the evidence, for messages and seeds
    seed: int  # of the draws

    def unknown_parents(self, node: str) -> tuple[str, ...]:
        """Those of a node's parents that the block infers."""
        return tuple(name for name in self.world.graph.parents(node) if name in self.block.missing)

    def known_parents(self, node: str) -> dict[str, Tensor]:
        """Values of a node's observed parents, (n, *event)."""
        parents = self.world.graph.parents(node)
        return {name: self.known[name] for name in parents if name in self.known}

    def part(self, rows: slice) -> Problem:
        """The same for some of the rows."""
        known = {name: value[rows] for name, value in self.known.items()}
        return Problem(self.world, self.block, known, self.rows[rows], self.seed)


@dataclass(frozen=True, eq=False)
class Pattern:
    """Numbers (n,) of rows of evidence that lack the same nodes, and the block of each that is in one."""

    rows: Tensor
    missing: frozenset[str]
    blocks: Mapping[str, Block]


def find_patterns(graph: CausalGraph, missing: Mapping[str, Tensor]) -> list[Pattern]:
    """The patterns of evidence that lacks rows (B,) bool; complete ones are in none."""
    if not missing:
        return []
    kinds, which = torch.stack(list(missing.values()), 1).unique(dim=0, return_inverse=True)
    found: list[Pattern] = []
    for number, kind in enumerate(kinds.tolist()):
        lacking = frozenset(name for name, lacks in zip(missing, kind, strict=True) if lacks)
        if lacking:
            blocks = {node: block for block in find_blocks(graph, lacking) for node in block.missing}
            found.append(Pattern((which == number).nonzero()[:, 0], lacking, blocks))
    return found


def find_blocks(graph: CausalGraph, missing: Collection[str], keep: Collection[str] = ()) -> list[Block]:
    """The blocks of missing nodes.

    Those in ``keep`` are in a block even without observed descendants, with their missing ancestors.
    """
    informed: set[str] = set()
    for node in reversed(graph.nodes):
        children = graph.children(node)
        if node in missing and (
            node in keep or any(child not in missing or child in informed for child in children)
        ):
            informed.add(node)
    together: nx.Graph[str] = nx.Graph()
    together.add_nodes_from(node for node in graph.nodes if node in informed)
    for node in graph.nodes:
        if node not in missing or node in informed:  # a missing node outside tells nothing of its parents
            nx.add_path(together, [name for name in (*graph.parents(node), node) if name in informed])
    place = {node: position for position, node in enumerate(together)}
    groups = [sorted(part, key=place.__getitem__) for part in nx.connected_components(together)]
    found: list[Block] = []
    for group in groups:
        observed = {child for node in group for child in graph.children(node)} - set(missing)
        found.append(Block(tuple(group), tuple(node for node in graph.nodes if node in observed)))
    return found
