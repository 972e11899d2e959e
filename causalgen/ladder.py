"""``Ladder``: the three rungs of Pearl's ladder, asked of a fitted model.

sample(n)                          what does the model see?          p(x)
sample(n, do={...})                what if we set ...?               p(x | do(...))
counterfactual(evidence, do={...}) what if it had been otherwise?    p(x_do | evidence)
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Self

import torch
from torch import Tensor

from causalgen.arguments import whole_number
from causalgen.counterfactuals.abduction import Abduction
from causalgen.counterfactuals.engine import act, predict
from causalgen.counterfactuals.evidence import Evidence, encode_evidence, encode_partial, warn_far
from causalgen.counterfactuals.interventions import interventions
from causalgen.counterfactuals.missing_evidence.posterior import EvidencePosterior
from causalgen.counterfactuals.mutilated_model import MutilatedModel
from causalgen.counterfactuals.provenance import trace_provenance
from causalgen.counterfactuals.results import Counterfactual, Draws
from causalgen.model import Model
from graphs.errors import InterventionError, MechanismError, PartialEvidenceError

__all__ = ["Ladder", "chosen_seed"]


class Ladder(Model):
    """A model that answers what is, what would be if, and what would have been."""

    def sample(
        self,
        n: int,
        do: Mapping[str, Any] | None = None,
        *,
        targets: Iterable[str] | None = None,
        seed: int | None = None,
        clip: bool = False,
    ) -> Draws:
        """Draw rows from the model, or from the model under an intervention.

        Args:
            n: rows, at least 1.
            do: node -> value, as for ``counterfactual``.
            targets: nodes wanted; all where None.
            seed: the same seed gives the same rows; None draws one, which the result names.
            clip: move what ``do`` sets out of bounds onto the bound, instead of refusing it.
        """
        n = whole_number(n, "sample: n, the number of rows,", least=1)
        if do is not None and (do or not isinstance(do, Mapping)):
            return self.do(do, clip=clip).sample(n, targets=targets, seed=seed)
        seed, wanted = chosen_seed(seed), self._targets(targets)
        prediction = predict(self._world, {}, wanted, rows=n, seed=seed)
        provenance = trace_provenance(self._world, prediction, (), n, 1)
        return Draws(
            {node: self._variables[node] for node in wanted},
            {node: prediction.values[node] for node in wanted},
            rows=n,
            samples=None,
            provenance=provenance.only(wanted),
            seed=seed,
        )

    def do(self, do: Mapping[str, Any], *, clip: bool = False) -> Self:
        """The model after an intervention, as a new one that shares this one's mechanisms.

        Args:
            do: node -> value, as for ``counterfactual``.
            clip: move what is out of bounds onto the bound, instead of refusing it.

        Raises:
            CycleError: an expression or a policy reads a node that the intervened one causes.
            DomainError, InterventionError: as for ``counterfactual``.
        """
        world = self._world
        asked = interventions(do, world.graph, self._variables, world.mechanisms, clip=clip)
        return self._of(act(world, asked), self._variables, self.name)

    def abduct(
        self,
        evidence: Evidence,
        *,
        num_samples: int | None = None,
        seed: int | None = None,
        particles: int = 4096,
    ) -> Abduction:
        """Recover the noise behind evidence once, to ask about many worlds.

        Args:
            evidence: scalars or arrays of B rows by name, or a DataFrame. A node that is left out, or None or
                NaN in a row, is inferred from the others; see
                ``causalgen.counterfactuals.missing_evidence.posterior``.
            num_samples: S draws of whatever evidence does not determine; None for one draw.
            seed: of the draws.
            particles: a row, for missing values that have no exact posterior.

        Warns:
            ExtrapolationWarning: a category that fitting never saw, or a number further outside the range
                that it saw than that range is wide.

        Raises:
            PartialEvidenceError: a missing value cannot be inferred; the message says why.
            EvidenceError: evidence of probability zero.
            InterventionError: the model was intervened on by a function.
        """
        if num_samples is not None:
            num_samples = whole_number(num_samples, "num_samples, None for one draw,", least=1)
        particles, seed = whole_number(particles, "particles", least=1), chosen_seed(seed)
        values, missing, rows, index = encode_partial(evidence, self._variables, self.device)
        warn_far(values, missing, self._world.mechanisms)
        if self._world.natural:
            raise InterventionError(
                "This model was intervened on by a function of a natural value, which evidence does not "
                "show. Abduct in the model before the intervention."
            )
        # What was set before is how this model works: it is no intervention on this evidence.
        world = MutilatedModel(self.graph, self._world.mechanisms)
        completion = EvidencePosterior(
            world, values, missing, rows=rows, samples=num_samples or 1, seed=seed, particles=particles
        )
        return Abduction(
            world,
            self._variables,
            completion,
            rows=rows,
            samples=num_samples,
            seed=seed,
            index=index,
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
        clip: bool = False,
    ) -> Counterfactual:
        """What each row would have been under an intervention: abduction, action, prediction.

        Args:
            evidence: B rows or one, by name or as a DataFrame; what is missing is inferred, as in ``abduct``.
            do: node -> one value, B values, an expression such as "x + 2*a", ``Stochastic``, ``Policy``,
                ``Replace``, or a function of the node's natural value (``Shift``, ``Scale`` or any callable
                of one argument).
            targets: nodes wanted, all where None; only what they depend on is computed.
            num_samples: S draws, giving (S, B, *event); None for one draw, giving (B, *event).
            seed: of the draws.
            copy_unaffected: keep the factual value of rows that the intervention does not reach; with False
                everything is recomputed from noise.
            clip: move what ``do`` sets out of bounds onto the bound, instead of refusing it.

        Raises:
            PartialEvidenceError: a missing value cannot be inferred.
            DomainError: evidence or an intervention outside a variable's domain.
            InterventionError, UnknownNameError: an intervention that does not fit the model.
            CycleError: an expression or a policy reads a node that the intervened one causes.
            CannotAbductError: a mechanism cannot recover its noise.
        """
        abduction = self.abduct(evidence, num_samples=num_samples, seed=seed)
        return abduction.counterfactual(do, targets=targets, copy_unaffected=copy_unaffected, clip=clip)

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


def chosen_seed(seed: int | None) -> int:
    """The seed given, or a fresh one, which results name.

    Raises:
        EvidenceError: it is no whole number.
    """
    return secrets.randbits(31) if seed is None else whole_number(seed, "seed")
