"""Several worlds of one population: n draws of all noise, and every world computed from the same ones.

This is abduction of n prior draws with nothing left to abduct: their noise is known, not recovered, so it
works for every mechanism. What no intervention reaches is computed once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from causalgen.arguments import check_targets, whole_number
from causalgen.counterfactuals import nested
from causalgen.counterfactuals.abduction import Abduction
from causalgen.counterfactuals.engine import predict
from causalgen.counterfactuals.evidence import Evidence
from causalgen.counterfactuals.interventions import Intervention, interventions
from causalgen.counterfactuals.mutilated_model import MutilatedModel, act
from causalgen.counterfactuals.provenance import trace_provenance
from causalgen.counterfactuals.results import Draws
from graphs.errors import InterventionError
from graphs.variables import Variable

__all__ = ["Population", "source_of_worlds"]


class Population:
    """n draws of a model's noise."""

    def __init__(
        self, world: MutilatedModel, variables: Mapping[str, Variable], rows: int, seed: int
    ) -> None:
        """Nothing is drawn until a world is asked for."""
        self._world, self._variables, self.rows, self.seed = world, variables, rows, seed
        self._shared: dict[str, Tensor] = {}

    def worlds(
        self,
        does: Mapping[str, Mapping[str, Any]],
        *,
        targets: Iterable[str] | None = None,
        only: Collection[str] | None = None,
        clip: bool = False,
    ) -> dict[str, Draws]:
        """Several worlds by name, as ``Abduction.worlds``; values in ``do`` are one or n."""
        world = self._world
        plain = {
            name: interventions(do, world.graph, self._variables, world.mechanisms, clip=clip)
            for name, do in nested.own_values(does).items()
        }

        def answer(name: str, fed: Mapping[str, Intervention], wanted: tuple[str, ...]) -> Draws:
            return self._answer({**plain[name], **fed}, wanted)

        wanted = check_targets(targets, self._variables)
        return nested.answer_worlds(does, wanted, self._variables, answer, only, clip=clip)

    def _answer(self, asked: Mapping[str, Intervention], wanted: tuple[str, ...]) -> Draws:
        for node, each in asked.items():
            if each.rows not in (1, self.rows):
                raise InterventionError(
                    f"Intervention on {node!r} has {each.rows} values, but the population {self.rows} draws. "
                    "Give one value, or ask about rows of evidence."
                )
        nested.check_from_worlds(asked, self.rows)
        world = act(self._world, asked)
        shared = self._unreached(world, asked, wanted)
        prediction = predict(world, {}, wanted, rows=self.rows, factual=shared, seed=self.seed)
        # What no intervention reaches was drawn as well, if only once.
        drawn = {node: {"prior": torch.ones(1, dtype=torch.bool)} for node in shared}
        provenance = trace_provenance(
            world, prediction, {}, self.rows, 1, nested.origins_in_worlds(asked), drawn
        )
        return Draws(
            {node: self._variables[node] for node in wanted},
            {node: prediction.values[node] for node in wanted},
            rows=self.rows,
            samples=None,
            provenance=provenance.only(wanted),
            seed=self.seed,
        )

    def _unreached(
        self, world: MutilatedModel, asked: Mapping[str, Intervention], wanted: tuple[str, ...]
    ) -> dict[str, Tensor]:
        """Values of what these interventions do not reach, by node."""
        if self._world.natural:
            # A split node has two values under one name.
            return {}
        needed = world.graph.ancestors(wanted) - world.natural.keys()
        nodes = needed - (world.graph.descendants(asked.keys()) if asked else frozenset())
        new = [node for node in nodes if node not in self._shared]
        if new:
            prediction = predict(self._world, {}, new, rows=self.rows, factual=self._shared, seed=self.seed)
            self._shared |= prediction.values
        return {node: self._shared[node] for node in nodes}


def source_of_worlds(
    world: MutilatedModel, variables: Mapping[str, Variable], evidence: Evidence | None, n: int, seed: int
) -> Abduction | Population:
    """What answers worlds with shared noise: a population, or evidence with max(2, n // B) draws a row."""
    n = whole_number(n, "An effect's number of draws, n,", least=2)
    if evidence is None:
        return Population(world, variables, n, seed)
    rows = Abduction(world, variables, evidence, num_samples=2, seed=seed).rows
    return Abduction(world, variables, evidence, num_samples=max(2, n // rows), seed=seed)
