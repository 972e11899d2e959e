"""One abduction, many worlds: evidence with the noise behind it, recovered as questions need it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from causalgen.engine import World, abduct, act, predict
from causalgen.interventions import interventions
from causalgen.provenance import trace_provenance
from causalgen.results import Counterfactual
from causalgen.targets import check_targets
from graphs.errors import InterventionError
from graphs.variables import Variable
from mechanisms.base import Abducted, Noise

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Abduction"]


class Abduction:
    """Evidence and the noise behind it, from ``scm.abduct``.

    Noise is recovered when a question first needs it and kept for the next one; the answer does not depend on
    which question came first.
    """

    def __init__(
        self,
        world: World,
        variables: Mapping[str, Variable],
        factual: Mapping[str, Tensor],
        *,
        rows: int,
        samples: int | None,
        seed: int,
        index: pd.Index | None,
    ) -> None:
        """Made by ``scm.abduct``; ``factual`` holds every node, (B, *event) in canonical encoding."""
        self._world, self._variables, self._factual = world, variables, factual
        self._rows, self._samples, self._index = rows, samples, index
        self._abducted: dict[str, Abducted] = {}
        self.seed = seed

    @property
    def noise(self) -> Mapping[str, Noise]:
        """The noise of every node, B rows where the evidence determines it, S * B where it was drawn."""
        return self._noise(self._variables)

    def counterfactual(
        self, do: Mapping[str, Any], *, targets: Iterable[str] | None = None, copy_unaffected: bool = True
    ) -> Counterfactual:
        """What the evidence would have been under an intervention; see ``SCM.counterfactual``.

        One row of evidence may meet several values in ``do``: one world each, with the same noise.
        """
        wanted = check_targets(targets, self._variables)
        asked = interventions(do, self._world.graph, self._variables)
        world = act(self._world, asked)
        rows = self._meet({node: each.rows for node, each in asked.items()})
        samples = self._samples or 1
        needed = self._needed(world, wanted, copy_unaffected)
        noise = {node: self._widen(each, rows) for node, each in self._noise(needed).items()}
        factual = {node: value.expand(rows, *value.shape[1:]) for node, value in self._factual.items()}
        prediction = predict(
            world,
            noise,
            wanted,
            rows=rows,
            samples=samples,
            factual=factual if copy_unaffected else None,
            seed=self.seed,
        )
        provenance = trace_provenance(world, prediction, noise.keys(), rows, samples)
        return Counterfactual(
            {node: self._variables[node] for node in wanted},
            {node: prediction.values[node] for node in wanted},
            rows=rows,
            samples=self._samples,
            provenance={node: provenance[node] for node in wanted},
            seed=self.seed,
            index=self._index if rows == self._rows else None,
            factual={node: factual[node] for node in wanted},
            do={node: each.text for node, each in asked.items()},
            noise=noise,
        )

    def worlds(
        self, does: Mapping[str, Mapping[str, Any]], *, targets: Iterable[str] | None = None
    ) -> dict[str, Counterfactual]:
        """Several worlds by name, all with the same noise."""
        return {name: self.counterfactual(do, targets=targets) for name, do in does.items()}

    def _noise(self, nodes: Iterable[str]) -> dict[str, Noise]:
        new = [node for node in nodes if node not in self._abducted]
        self._abducted |= abduct(self._world, self._factual, new, samples=self._samples or 1, seed=self.seed)
        return {node: self._abducted[node].noise for node in nodes}

    def _needed(self, world: World, wanted: Iterable[str], copy_unaffected: bool) -> list[str]:
        """Nodes whose noise the prediction will use."""
        computed = world.graph.ancestors(wanted)
        if copy_unaffected:
            # Whatever lies beyond the reach of the intervention is copied.
            computed = computed & world.affected()
        return [
            node for node in self._variables if node in {world.origin(n) for n in computed - world.touched}
        ]

    def _meet(self, counts: Mapping[str, int]) -> int:
        asked = max(counts.values(), default=1)
        if asked not in (1, self._rows) and self._rows != 1:
            node = next(node for node, count in counts.items() if count == asked)
            raise InterventionError(
                f"Intervention on {node!r} has {asked} rows, but the evidence has {self._rows}. "
                "Give one value, or one a row."
            )
        return max(asked, self._rows)

    def _widen(self, noise: Noise, rows: int) -> Noise:
        """One row's noise for each of ``rows`` values in ``do``."""
        if rows == self._rows:
            return noise
        draws = noise.n // self._rows
        return noise.rows(torch.arange(draws).repeat_interleave(rows))
