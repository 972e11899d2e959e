"""Graph surgery by the do-operator, and the mutilated model that it leaves (Pearl 2009, section 3.2).

An intervened node loses its parents and gets a constant. Where the intervention is a function of the node's
natural value, the node splits, and its natural half keeps parents and mechanism.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch

from causalgen.counterfactuals.interventions import Intervention, refuse_circle
from graphs.causal_graph import CausalGraph
from graphs.errors import InterventionError, NotFittedError
from graphs.variables import Image, Variable
from mechanisms.base import Mechanism
from mechanisms.networks import move

__all__ = ["CausalModel", "MutilatedModel", "act", "ready", "refuse_unfitted"]


@dataclass(frozen=True)
class MutilatedModel:
    """A graph with its mechanisms, perhaps after surgery."""

    graph: CausalGraph  # the causal graph
    mechanisms: Mapping[str, Mechanism]  # one a node
    touched: frozenset[str] = frozenset()  # nodes that were intervened on
    natural: Mapping[str, str] = field(default_factory=dict)  # the natural half of a split node -> the node
    kept: frozenset[str] = frozenset()  # touched nodes whose new mechanism takes the noise of the old one
    before: MutilatedModel | None = None  # the model as it was fitted; None where there was no surgery

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

    def with_fitted(self, mechanisms: Mapping[str, Mechanism]) -> MutilatedModel:
        """With mechanisms that were fitted to rows of this model, whose law is that of their images."""
        seen = any(isinstance(each.variable, Image) for each in mechanisms.values())
        return replace(
            self, mechanisms={**self.mechanisms, **mechanisms}, before=None if seen else self.before
        )

    def to(self, device: object = None, dtype: object = None) -> None:
        """See ``SCM.to``."""
        mechanisms = [each for world in (self, self.before) if world for each in world.mechanisms.values()]
        move(mechanisms, device, [network for each in mechanisms for network in each.large_networks], dtype)

    def affected(self) -> frozenset[str]:
        """The nodes whose value may differ from the factual."""
        return self.graph.descendants(self.touched)

    def refuse_natural(self, what: str, remedy: str) -> None:
        """Refuse what needs the values of all nodes where one is split: nobody has seen its natural half.

        ``what`` does not show it, as "data do"; ``remedy`` is what to do before, as "Check".
        """
        if self.natural:
            raise InterventionError(
                f"This model was intervened on by a function of a natural value, which {what} not show. "
                f"{remedy} the model before the intervention."
            )


class CausalModel(Protocol):
    """What queries read of an ``SCM``."""

    @property
    def _world(self) -> MutilatedModel: ...
    @property
    def _variables(self) -> Mapping[str, Variable]: ...

    fit_report: Any


def act(world: MutilatedModel, do: Mapping[str, Intervention]) -> MutilatedModel:
    """The world after surgery on every intervened node."""
    graph, mechanisms = world.graph, dict(world.mechanisms)
    natural = dict(world.natural)
    for node, intervention in do.items():
        if node in world.touched:
            raise InterventionError(f"Node {node!r} is intervened on already. Start from the model before.")
        if intervention.natural is None:
            graph = graph.replace(node, ())
        else:
            half = intervention.natural
            graph = graph.replace(half, graph.parents(node)).replace(node, (half,))
            mechanisms[half], natural[half] = mechanisms[node], node
        mechanisms[node] = intervention.mechanism
    # New edges come after all cuts: whether they close a cycle does not depend on the order in ``do``.
    for node, intervention in do.items():
        if intervention.parents != graph.parents(node):
            refuse_circle(node, intervention.parents, graph)
            graph = graph.replace(node, intervention.parents)
    kept = world.kept | {node for node, intervention in do.items() if intervention.keeps_noise}
    touched = world.touched | do.keys()
    return MutilatedModel(graph, mechanisms, touched, natural, kept, world.before or world)


def ready(world: MutilatedModel, node: str) -> Mechanism:
    """A node's mechanism, which must be fitted."""
    mechanism = world.mechanisms[node]
    if not mechanism.fitted:
        raise NotFittedError(
            f"Node {world.origin(node)!r}: its mechanism ({mechanism.spec.kind}) has not been fitted. "
            f"{mechanism.remedy}"
        )
    return mechanism


def refuse_unfitted(mechanisms: Mapping[str, Mechanism], what: str) -> None:
    """Refuse mechanisms of which one has not been fitted: there is nothing to ``what``."""
    for node, mechanism in mechanisms.items():
        if not mechanism.fitted:
            raise NotFittedError(f"Node {node!r} has not been fitted: nothing to {what}. {mechanism.remedy}")
