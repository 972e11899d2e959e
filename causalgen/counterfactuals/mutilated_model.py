"""The mutilated model: a graph with its mechanisms after surgery by the do-operator (Pearl 2009)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch

from graphs.causal_graph import CausalGraph
from graphs.errors import NotFittedError
from graphs.variables import Variable
from mechanisms.base import Mechanism

__all__ = ["CausalModel", "MutilatedModel", "ready"]


@dataclass(frozen=True)
class MutilatedModel:
    """A graph with its mechanisms, perhaps after surgery.

    Attributes:
        graph: the causal graph.
        mechanisms: one a node.
        touched: nodes that were intervened on.
        natural: the natural half of a split node -> the node.
        kept: touched nodes whose new mechanism takes the noise of the old one.
    """

    graph: CausalGraph
    mechanisms: Mapping[str, Mechanism]
    touched: frozenset[str] = frozenset()
    natural: Mapping[str, str] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()

    @property
    def device(self) -> torch.device:
        """Where the mechanisms live."""
        return next(iter(self.mechanisms.values())).device

    def origin(self, node: str) -> str:
        """The node whose factual value and noise this one has: itself, or what it is the natural half of."""
        return self.natural.get(node, node)

    def keeps_noise(self, node: str) -> bool:
        """Whether the noise that evidence tells of is this node's; otherwise it was set anew."""
        return node not in self.touched or node in self.kept

    def affected(self) -> frozenset[str]:
        """The nodes whose value may differ from the factual."""
        return self.graph.descendants(self.touched)


class CausalModel(Protocol):
    """What queries read of an ``SCM``."""

    _world: MutilatedModel
    _variables: Mapping[str, Variable]


def ready(world: MutilatedModel, node: str) -> Mechanism:
    """A node's mechanism, which must be fitted."""
    mechanism = world.mechanisms[node]
    if not mechanism.fitted:
        raise NotFittedError(
            f"Node {node!r}: its mechanism ({mechanism.spec.kind}) has not been fitted. "
            "Call scm.fit(data) first."
        )
    return mechanism
