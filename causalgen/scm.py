"""``SCM``: the face. Declare a model, fit it, and ask all three rungs of Pearl's ladder.

scm.sample(n)                          what does the model see?          p(x)
scm.sample(n, do={...})                what if we set ...?               p(x | do(...))
scm.counterfactual(evidence, do={...}) what if it had been otherwise?    p(x_do | evidence)
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any, final

import torch
from torch import Tensor

from causalgen.abduction import Abduction
from causalgen.engine import World, act, predict
from causalgen.evidence import Evidence, encode_evidence
from causalgen.interventions import interventions
from causalgen.model import Model
from causalgen.provenance import trace_provenance
from causalgen.results import Counterfactual, Draws
from graphs.errors import EvidenceError, InterventionError, MechanismError, PartialEvidenceError

__all__ = ["SCM"]


@final
class SCM(Model):
    """A structural causal model: a graph, a variable for each node, and a mechanism for each.

    >>> import networkx as nx
    >>> import causalgen as cg
    >>> scm = cg.SCM(
    ...     nx.DiGraph([("x", "y")]),
    ...     variables={"x": cg.Continuous(), "y": cg.Continuous()},
    ...     mechanisms={"x": cg.mechanisms.Additive(), "y": cg.mechanisms.Additive()},
    ... )
    >>> scm = scm.fit({"x": [0.0, 1.0, 2.0, 3.0], "y": [0.1, 1.9, 4.1, 5.9]}, seed=0)
    >>> scm.counterfactual({"x": 1.0, "y": 2.5}, do={"x": 2.0})["y"]
    tensor([4.4600], dtype=torch.float64)
    """

    def sample(
        self,
        n: int,
        do: Mapping[str, Any] | None = None,
        *,
        targets: Iterable[str] | None = None,
        seed: int | None = None,
    ) -> Draws:
        """Draw rows from the model, or from the model under an intervention.

        Args:
            n: rows, at least 1.
            do: node -> value, as for ``counterfactual``.
            targets: nodes wanted; all where None.
            seed: the same seed gives the same rows; None draws one, which the result names.
        """
        if n < 1:
            raise EvidenceError(f"sample draws at least 1 row, got n = {n}.")
        if do:
            return self.do(do).sample(n, targets=targets, seed=seed)
        seed, wanted = _seed(seed), self._targets(targets)
        prediction = predict(self._world, {}, wanted, rows=n, seed=seed)
        provenance = trace_provenance(self._world, prediction, (), n, 1)
        return Draws(
            {node: self._variables[node] for node in wanted},
            {node: prediction.values[node] for node in wanted},
            rows=n,
            samples=None,
            provenance={node: provenance[node] for node in wanted},
            seed=seed,
        )

    def do(self, do: Mapping[str, Any]) -> SCM:
        """The model after an intervention, as a new one that shares this one's mechanisms."""
        asked = interventions(do, self._world.graph, self._variables)
        return self._of(act(self._world, asked), self._variables, self.name)

    def abduct(
        self, evidence: Evidence, *, num_samples: int | None = None, seed: int | None = None
    ) -> Abduction:
        """Recover the noise behind evidence once, to ask about many worlds.

        Args:
            evidence: a value for every node: scalars or arrays of B rows by name, or a DataFrame.
            num_samples: S draws of whatever evidence does not determine; None for one draw.
            seed: of the draws.

        Raises:
            PartialEvidenceError: a node is missing.
            InterventionError: the model was intervened on by a function.
        """
        if num_samples is not None and num_samples < 1:
            raise EvidenceError(f"num_samples is at least 1, or None for one draw; got {num_samples}.")
        values, rows, index = encode_evidence(evidence, self._variables, self.device)
        missing = [node for node in self._variables if node not in values]
        if missing:
            raise PartialEvidenceError(
                f"Evidence lacks {', '.join(map(repr, missing))}. "
                f"A counterfactual needs the value of every node: {', '.join(self._variables)}."
            )
        if self._world.natural:
            raise InterventionError(
                "This model was intervened on by a function of a natural value, which evidence does not "
                "show. Abduct in the model before the intervention."
            )
        # What was set before is how this model works: it is no intervention on this evidence.
        world = World(self.graph, self._world.mechanisms)
        return Abduction(
            world, self._variables, values, rows=rows, samples=num_samples, seed=_seed(seed), index=index
        )

    def counterfactual(
        self,
        evidence: Evidence,
        do: Mapping[str, Any],
        *,
        targets: Iterable[str] | None = None,
        num_samples: int | None = None,
        seed: int | None = None,
        copy_unaffected: bool = True,
    ) -> Counterfactual:
        """What each row would have been under an intervention: abduction, action, prediction.

        Args:
            evidence: a value for every node, B rows or one, by name or as a DataFrame.
            do: node -> one value, B values, or a function of the node's natural value (``Shift``, ``Scale``
                or any callable of one argument).
            targets: nodes wanted, all where None; only what they depend on is computed.
            num_samples: S draws, giving (S, B, *event); None for one draw, giving (B, *event).
            seed: of the draws.
            copy_unaffected: keep the factual value of rows that the intervention does not reach; with False
                everything is recomputed from noise.

        Raises:
            PartialEvidenceError: evidence lacks a node.
            DomainError: evidence or an intervention outside a variable's domain.
            CannotAbductError: a mechanism cannot recover its noise.
        """
        abduction = self.abduct(evidence, num_samples=num_samples, seed=seed)
        return abduction.counterfactual(do, targets=targets, copy_unaffected=copy_unaffected)

    def log_prob(self, values: Evidence) -> Tensor:
        """Joint log density of rows, (B,).

        Raises:
            MechanismError: a mechanism has no tractable density; the message names it.
        """
        rows, _, _ = encode_evidence(values, self._variables, self.device)
        missing = [node for node in self._variables if node not in rows]
        if missing:
            raise PartialEvidenceError(
                f"log_prob needs the value of every node; missing: {', '.join(missing)}."
            )
        total: Tensor | None = None
        for node, mechanism in self._world.mechanisms.items():
            parents = {parent: rows[parent] for parent in self.graph.parents(node)}
            with torch.no_grad():
                term = mechanism.log_prob(rows[node], parents)
            if term is None:
                raise MechanismError(
                    f"Node {node!r}: mechanism {mechanism.spec.kind!r} has no tractable density."
                )
            total = term if total is None else total + term
        assert total is not None
        return total


def _seed(seed: int | None) -> int:
    return secrets.randbits(31) if seed is None else seed
