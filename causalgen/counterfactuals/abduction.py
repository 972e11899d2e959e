"""Abduction: evidence with the exogenous noise behind it, to ask about any number of counterfactual worlds.

    abduct     the posterior of the noise given the evidence: here, when a question first needs it
    act        the intervention's surgery on the graph: ``mutilated_model.act``
    predict    every node of the mutilated model from that noise: ``engine.predict``

Evidence with missing values is completed by ``missing_evidence.posterior``; where every node was observed,
nothing of that is computed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from causalgen.arguments import check_targets, chosen_seed, whole_number
from causalgen.counterfactuals import nested
from causalgen.counterfactuals.engine import abduct, predict
from causalgen.counterfactuals.evidence import Evidence, encode_partial, refuse_contradiction, warn_far
from causalgen.counterfactuals.interventions import Intervention, interventions
from causalgen.counterfactuals.missing_evidence.distributions import Posterior
from causalgen.counterfactuals.missing_evidence.particles import resample_noise
from causalgen.counterfactuals.missing_evidence.posterior import EvidencePosterior
from causalgen.counterfactuals.mutilated_model import MutilatedModel, act
from causalgen.counterfactuals.own_readings import OwnReadings
from causalgen.counterfactuals.provenance import trace_provenance
from causalgen.counterfactuals.results import Contrast, Counterfactual
from causalgen.counterfactuals.rows import common_rows, expand_value
from graphs.errors import numbered_rows
from graphs.text import Shown, counted
from graphs.variables import Variable
from mechanisms.base import Abducted, Noise
from mechanisms.seeds import OwnLock, keyed_seed

if TYPE_CHECKING:
    pass

__all__ = ["Abduction"]


class Abduction(Shown):
    """Evidence and the noise behind it, from ``scm.abduct``.

    Noise is recovered when a question first needs it and kept for the next one; the answer does not depend on
    which question came first.
    """

    def __init__(
        self,
        world: MutilatedModel,
        variables: Mapping[str, Variable],
        evidence: Evidence,
        *,
        num_samples: int | None = None,
        seed: int | None = None,
        particles: int = 4096,
    ) -> None:
        """Read evidence; see ``SCM.abduct``."""
        if num_samples is not None:
            num_samples = whole_number(num_samples, "num_samples, None for one draw,", least=1)
        self._samples, self._particles = num_samples, whole_number(particles, "particles", least=1)
        self.seed, self._lock = chosen_seed(seed), OwnLock()
        found = encode_partial(evidence, variables, world.device)
        self._values, self._partial, self._rows, self._index, self._matched = found
        warn_far(self._values, self._partial, world.mechanisms)
        world.refuse_natural("evidence does", "Abduct in")
        # What was set before is how this model works: it is no intervention on this evidence.
        self._world = MutilatedModel(world.graph, world.mechanisms, before=world.before)
        self._variables = variables
        self._abducted: dict[str, Abducted] = {}
        self._lineages: dict[str, Tensor] = {}
        self._effective: dict[str, Tensor] = {}
        self._unchecked = {
            node: each for node, each in world.mechanisms.items() if each.restricts and each.fitted
        }

    @cached_property
    def _posterior(self) -> EvidencePosterior | None:
        """The posterior of missing values; None where every value was observed."""
        if not self._partial and all(node in self._values for node in self._world.graph.nodes):
            return None
        return self._completed

    @cached_property
    def _completed(self) -> EvidencePosterior:
        return EvidencePosterior(
            self._world,
            self._values,
            self._partial,
            rows=self._rows,
            samples=self._samples or 1,
            seed=self.seed,
            particles=self._particles,
        )

    @property
    def _missing(self) -> Mapping[str, Tensor]:
        """Which rows lack a value, (B,) bool, of nodes where some do."""
        return {} if self._posterior is None else self._posterior.missing

    def _evidence(self, nodes: Iterable[str]) -> dict[str, Tensor]:
        """Values of nodes, (B, *event) where all rows were observed, else drawn, (S * B, *event)."""
        if self._posterior is None:
            return {node: self._values[node] for node in nodes}
        return self._posterior.values(nodes)

    @property
    def rows(self) -> int:
        """B, the number of rows of evidence."""
        return self._rows

    @property
    def variables(self) -> Mapping[str, Variable]:
        """Variable of each node, in topological order."""
        return self._variables

    def gaps(self, node: str) -> Tensor:
        """(B,) bool: the rows in which the evidence lacks a node. Nothing is inferred yet."""
        if node not in self._values and node not in self._partial:
            return torch.ones(self._rows, dtype=torch.bool)
        return self._partial.get(node, torch.zeros(1, dtype=torch.bool)).cpu().expand(self._rows)

    @property
    def fidelity(self) -> Mapping[str, str]:
        """How each node's mechanism recovers noise: "exact", "posterior", "approximate" or "none"."""
        return {node: mechanism.abduction for node, mechanism in self._world.mechanisms.items()}

    def __repr__(self) -> str:
        """Counts, and what the evidence lacks; nothing is computed."""
        draws = "" if self._samples is None else f"{counted(self._samples, 'sample')} x "
        counts = {node: int(self.gaps(node).sum()) for node in self._variables}
        seen = ", ".join(node for node, count in counts.items() if count < self._rows)
        lack = ", ".join(f"{node} ({count} of {self._rows})" for node, count in counts.items() if count)
        missing = f"; not observed: {lack}" if lack else ""
        return f"Abduction({draws}{counted(self._rows, 'row')}, seed {self.seed}: {seen}{missing})"

    @property
    def noise(self) -> Mapping[str, Noise]:
        """A copy of every node's noise, B rows where evidence determines it, S * B where it was drawn."""
        self._refuse_contradictions()
        return {node: noise.clone() for node, noise in self._noise(self._variables).items()}

    def noise_of(self, node: str) -> Noise:
        """One node's noise; see ``noise``."""
        (known,) = check_targets([node], self._variables)
        self._refuse_contradictions()
        return self._noise([known])[known].clone()

    @property
    def weights(self) -> Tensor:
        """(S, B) of the samples, summing to 1 over S: all equal, since weighted draws are resampled."""
        return self._equal_weights(self._rows)

    @property
    def effective_sample_size(self) -> Tensor:
        """(B,) the least of all weighted draws: particles of missing values, and mechanisms' own draws.

        Infinite where nothing is weighted: inference is exact.
        """
        self._noise(
            node
            for node, mechanism in self._world.mechanisms.items()
            if not mechanism.deterministic and mechanism.abduction != "none"
        )
        drawn = [] if self._posterior is None else [self._posterior.effective_sample_size]
        exact = torch.full((self._rows,), torch.inf, dtype=torch.float64, device=self._world.device)
        return torch.stack([exact, *drawn, *self._effective.values()]).amin(0)

    def posterior(self, node: str) -> Posterior:
        """The distribution of a node given the evidence of each row.

        ``GaussianPosterior`` or ``CategoryPosterior`` where it is known exactly, else ``SamplePosterior``;
        see ``causalgen.counterfactuals.missing_evidence.distributions``.

        Raises:
            UnknownNameError: no such node.
            PartialEvidenceError: it cannot be inferred.
        """
        self._refuse_contradictions()
        (known,) = check_targets([node], self._variables)
        found, sources = self._completed.posterior(known), np.full(self._rows, "observed", dtype=object)
        for source, where in self._completed.sources(known).items():
            sources[where.expand(self._rows).numpy()] = source
        return replace(found, node=known, variable=self._variables[known], sources=sources, index=self._index)

    @torch.no_grad()
    def counterfactual(
        self,
        do: Mapping[str, Any],
        *,
        targets: Iterable[str] | None = None,
        copy_unaffected: bool = True,
        clip: bool = False,
        _least_rows: int = 1,
    ) -> Counterfactual:
        """What the evidence would have been under an intervention; see ``SCM.counterfactual``.

        One row of evidence may meet several values in ``do``: one world each, with the same noise.
        """
        wanted, asked = check_targets(targets, self._variables), self._read(do, clip)
        self._refuse_contradictions(asked)
        world = act(self._world, asked)
        rows = max(_least_rows, common_rows(self._rows, {node: each.rows for node, each in asked.items()}))
        nested.check_from_worlds(asked, rows)
        samples = self._samples or 1
        needed = self._needed(world, wanted, copy_unaffected)
        noise = self._noise(needed)
        used = {*wanted, *(world.origin(node) for node in world.graph.ancestors(wanted))}
        used = [node for node in self._variables if node in used]
        factual = self._evidence(used)
        if rows != self._rows:  # one row of evidence meets several values in do
            noise = {
                node: each.rows(torch.arange(each.n).repeat_interleave(rows)) for node, each in noise.items()
            }
            factual = {node: expand_value(value, rows) for node, value in factual.items()}
        with numbered_rows(range(rows)):
            prediction = predict(
                world,
                noise,
                wanted,
                rows=rows,
                samples=samples,
                factual=factual if copy_unaffected else None,
                # What an intervention draws is independent of rows that were sampled by the same seed.
                seed=keyed_seed(self.seed, "counterfactual"),
            )
        drawn = {}
        if self._posterior is not None:
            drawn = {node: self._posterior.sources(node) for node in used if node in self._missing}
        abducted = {node: self._world.mechanisms[node] for node in noise}
        provenance = trace_provenance(
            world, prediction, abducted, rows, samples, nested.origins_in_worlds(asked), drawn
        )
        index = self._index if rows == self._rows else None
        shape = (rows, self._samples, index)
        return Counterfactual(
            {node: self._variables[node] for node in wanted},
            {node: prediction.values[node] for node in wanted},
            rows=rows,
            samples=self._samples,
            provenance=provenance.only(wanted),
            seed=self.seed,
            index=index,
            _readings=OwnReadings.of_world(
                world, self._variables, wanted, prediction.values, factual, *shape
            ),
            _factual={node: factual[node] for node in wanted},
            _missing={node: drawn[node] for node in wanted if node in drawn},
            do={node: each.text for node, each in asked.items()},
            _noise=noise,
            weights=self._equal_weights(rows),
            lineages=tuple(self._used_lineages(needed, used, rows)),
        )

    def worlds(
        self,
        does: Mapping[str, Mapping[str, Any]],
        *,
        targets: Iterable[str] | None = None,
        only: Collection[str] | None = None,
        clip: bool = False,
    ) -> dict[str, Counterfactual]:
        """Several worlds by name, all with the same noise.

        Args:
            does: interventions by name. One world may take a value from another, as in
                ``{"m": WorldRef("x0")["m"]}``; see ``causalgen.counterfactuals.nested``.
            targets: nodes wanted, all where None.
            only: worlds to be compared, all where None; others are asked just for what they feed. Where one
                row of evidence meets several values in one of them, all have that many rows.
            clip: as for ``counterfactual``.

        Raises:
            InterventionError: worlds feed each other in a circle.
            UnknownNameError: a world that ``does`` does not name.
        """
        plain = {name: self._read(do, clip) for name, do in nested.own_values(does).items()}
        least_rows = 1 if only is None else nested.shared_rows(plain.values())

        def answer(name: str, fed: Mapping[str, Intervention], wanted: tuple[str, ...]) -> Counterfactual:
            return self.counterfactual({**plain[name], **fed}, targets=wanted, _least_rows=least_rows)

        wanted = check_targets(targets, self._variables)
        return nested.answer_worlds(does, wanted, self._variables, answer, only, clip=clip)

    def contrast(
        self,
        do: Mapping[str, Any],
        versus: Mapping[str, Any] | None = None,
        *,
        targets: Iterable[str] | None = None,
        worlds: Mapping[str, Mapping[str, Any]] | None = None,
        clip: bool = False,
    ) -> Contrast:
        """How two worlds differ, row by row and sample by sample.

        Args:
            do: intervention of the one world.
            versus: of the other; none where None, so that the evidence itself is the other.
            targets: nodes wanted, all where None.
            worlds: further interventions by name, for ``WorldRef(name)[node]`` in these.
            clip: as for ``counterfactual``.
        """
        does = nested.named_worlds(do, versus, worlds)
        found = self.worlds(does, targets=targets, only=("do", "versus"), clip=clip)
        return Contrast(found["do"], found["versus"])

    def _read(self, do: Mapping[str, Any], clip: bool) -> dict[str, Intervention]:
        world = self._world
        return interventions(
            do, world.graph, self._variables, world.mechanisms, clip=clip, index=self._matched
        )

    def _refuse_contradictions(self, but: Collection[str] = ()) -> None:
        """Refuse rows whose value no noise gives, whether or not a question needs that noise.

        A node that the question sets may have any value: it may have been set before, as in a counterfactual
        that is asked about again.
        """
        with self._lock:
            for node in [node for node in self._unchecked if node not in but]:
                values = self._observed([node, *self._world.graph.parents(node)])
                refuse_contradiction(node, self._unchecked[node], values, self._missing)
                del self._unchecked[node]

    def _observed(self, nodes: Iterable[str]) -> dict[str, Tensor]:
        """Values of nodes as they were observed, (B, *event); anything in rows that lack them."""
        return self._evidence(nodes) if self._posterior is None else self._posterior.observed(nodes)

    def _noise(self, nodes: Iterable[str]) -> dict[str, Noise]:
        """Noise of nodes, recovered from their values and their parents' where it was not before."""
        wanted = list(nodes)
        with self._lock, numbered_rows(range(self._rows)):
            fresh = [node for node in wanted if node not in self._abducted]
            if observed := [node for node in fresh if node not in self._missing]:
                read = {name for node in observed for name in (node, *self._world.graph.parents(node))}
                values, draws = self._evidence(read), self._samples or 1
                found = abduct(self._world, values, observed, samples=draws, seed=self.seed, rows=self._rows)
                self._abducted |= {node: self._equalised(node, each) for node, each in found.items()}
            for node in fresh:
                if node in self._missing:
                    self._abducted[node] = self._drawn(node)
        return {node: self._abducted[node].noise for node in wanted}

    def _equalised(self, node: str, found: Abducted) -> Abducted:
        """A node's weighted draws as draws of equal weight.

        Given all values the noises of the nodes are independent, so each node is resampled by itself. Where
        a parent was missing, its draw has met the node's likelihood already, and the weight, which is that
        likelihood once more, does not count again.
        """
        samples, rows = self._samples or 1, self._rows
        if found.log_weight is None or found.noise.n != samples * rows:
            return found
        counted = torch.zeros(rows, dtype=torch.bool, device=found.log_weight.device)
        for name in (node, *self._world.graph.parents(node)):
            if name in self._missing:
                counted = counted | self._missing[name]
        kind = self._world.mechanisms[node].spec.kind
        drawn = resample_noise(found, counted, samples, self.seed, node, kind)
        self._effective[node] = drawn.effective
        if drawn.lineage is not None:
            self._lineages[node] = drawn.lineage
        return drawn.abducted

    def _drawn(self, node: str) -> Abducted:
        """The noise by which a node's missing values were drawn; recovered in the other rows."""
        assert self._posterior is not None
        drawn = self._posterior.noise(node)
        if sum(len(index) for index, _ in drawn) == (self._samples or 1) * self._rows:
            order = torch.cat([index for index, _ in drawn]).argsort()
            return Abducted(Noise.concat([noise for _, noise in drawn]).rows(order))
        values, draws = self._evidence([node, *self._world.graph.parents(node)]), self._samples or 1
        found = abduct(self._world, values, [node], samples=draws, seed=self.seed, rows=self._rows)
        found = self._equalised(node, found[node])
        leaves = dict(found.noise)
        for index, noise in drawn:
            leaves = {name: leaf.index_copy(0, index, noise[name].to(leaf)) for name, leaf in leaves.items()}
        return Abducted(Noise(found.noise.n, leaves), None, found.diagnostics)

    def _equal_weights(self, rows: int) -> Tensor:
        samples = self._samples or 1
        return torch.full((1, 1), 1 / samples, dtype=torch.float64).expand(samples, rows)

    def _used_lineages(self, needed: Iterable[str], used: Iterable[str], rows: int) -> list[Tensor]:
        """Distinct lineages, (S, rows), of the noise and of the missing values that an answer used."""
        found = [self._lineages[node] for node in needed if node in self._lineages]
        drawn = []
        if self._posterior is not None:
            drawn = [self._posterior.lineage(node) for node in used if node in self._missing]
        distinct: list[Tensor] = []
        for lineage in [*found, *(each for each in drawn if each is not None)]:
            if not any(torch.equal(lineage, each) for each in distinct):
                distinct.append(lineage)
        samples = self._samples or 1
        return [each if each.shape[1] == rows else each.expand(samples, rows) for each in distinct]

    def _needed(self, world: MutilatedModel, wanted: Iterable[str], copy_unaffected: bool) -> list[str]:
        """Nodes whose noise the prediction will use."""
        computed = world.graph.ancestors(wanted)
        if copy_unaffected:
            # Whatever lies beyond the reach of the intervention is copied.
            computed = computed & world.affected()
        needed = {world.origin(node) for node in computed if world.keeps_noise(node)}
        return [node for node in self._variables if node in needed]
