"""One abduction, many worlds: evidence with the noise behind it, recovered as questions need it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from causalgen.arguments import check_targets
from causalgen.counterfactuals.contrasts import Contrast
from causalgen.counterfactuals.engine import abduct, act, predict
from causalgen.counterfactuals.interventions import Intervention, interventions
from causalgen.counterfactuals.missing_evidence.distributions import Posterior
from causalgen.counterfactuals.missing_evidence.posterior import EvidencePosterior
from causalgen.counterfactuals.missing_evidence.resampling import (
    pooled_effective_sample_size,
    systematic,
    warn_of_few,
)
from causalgen.counterfactuals.mutilated_model import MutilatedModel
from causalgen.counterfactuals.nested import (
    answer_worlds,
    check_from_worlds,
    named_worlds,
    own_values,
    provenance_from_worlds,
    shared_rows,
)
from causalgen.counterfactuals.provenance import trace_provenance
from causalgen.counterfactuals.results import Counterfactual
from causalgen.counterfactuals.row_blocks import blame
from graphs.errors import EvidenceError, InterventionError
from graphs.variables import Variable
from mechanisms.base import Abducted, Mechanism, Noise
from mechanisms.seeds import keyed_generator

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Abduction"]

_FEW = 50
"""Effective sample size below which a mechanism's own weighted draws are rough."""


class Abduction:
    """Evidence and the noise behind it, from ``scm.abduct``.

    Noise is recovered when a question first needs it and kept for the next one; the answer does not depend on
    which question came first.
    """

    def __init__(
        self,
        world: MutilatedModel,
        variables: Mapping[str, Variable],
        evidence: EvidencePosterior,
        *,
        rows: int,
        samples: int | None,
        seed: int,
        index: pd.Index | None,
    ) -> None:
        """Made by ``scm.abduct``."""
        self._world, self._variables, self._evidence = world, variables, evidence
        self._rows, self._samples, self._index = rows, samples, index
        self._abducted: dict[str, Abducted] = {}
        self._lineages: dict[str, Tensor] = {}
        self._effective: dict[str, Tensor] = {}
        self._unchecked = {
            node: each for node, each in world.mechanisms.items() if each.restricts and each.fitted
        }
        self.seed = seed

    @property
    def rows(self) -> int:
        """B, the number of rows of evidence."""
        return self._rows

    @property
    def noise(self) -> Mapping[str, Noise]:
        """The noise of every node, B rows where the evidence determines it, S * B where it was drawn."""
        self._refuse_contradictions()
        return self._noise(self._variables)

    def noise_of(self, node: str) -> Noise:
        """One node's noise; see ``noise``."""
        (known,) = check_targets([node], self._variables)
        return self._noise([known])[known]

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
        return torch.stack([self._evidence.effective_sample_size, *self._effective.values()]).amin(0)

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
        return self._evidence.posterior(known)

    def counterfactual(
        self,
        do: Mapping[str, Any],
        *,
        targets: Iterable[str] | None = None,
        copy_unaffected: bool = True,
        clip: bool = False,
    ) -> Counterfactual:
        """What the evidence would have been under an intervention; see ``SCM.counterfactual``.

        One row of evidence may meet several values in ``do``: one world each, with the same noise.
        """
        wanted = check_targets(targets, self._variables)
        return self._answer(self._read(do, clip), wanted, copy_unaffected)

    def _read(self, do: Mapping[str, Any], clip: bool) -> dict[str, Intervention]:
        world = self._world
        return interventions(do, world.graph, self._variables, world.mechanisms, clip=clip, index=self._index)

    def _answer(
        self,
        asked: Mapping[str, Intervention],
        wanted: tuple[str, ...],
        copy_unaffected: bool,
        least_rows: int = 1,
    ) -> Counterfactual:
        self._refuse_contradictions(asked)
        world = act(self._world, asked)
        rows = max(least_rows, self._broadcast_rows({node: each.rows for node, each in asked.items()}))
        check_from_worlds(asked, rows)
        samples = self._samples or 1
        needed = self._needed(world, wanted, copy_unaffected)
        noise = {node: self._expand_noise(each, rows) for node, each in self._noise(needed).items()}
        used = {*wanted, *(world.origin(node) for node in world.graph.ancestors(wanted))}
        used = [node for node in self._variables if node in used]
        factual = {
            node: self._expand_value(value, rows) for node, value in self._evidence.values(used).items()
        }
        prediction = predict(
            world,
            noise,
            wanted,
            rows=rows,
            samples=samples,
            factual=factual if copy_unaffected else None,
            seed=self.seed,
        )
        drawn = {node: self._evidence.sources(node) for node in used if node in self._evidence.missing}
        provenance = trace_provenance(
            world, prediction, noise.keys(), rows, samples, provenance_from_worlds(asked), drawn
        )
        return Counterfactual(
            {node: self._variables[node] for node in wanted},
            {node: prediction.values[node] for node in wanted},
            rows=rows,
            samples=self._samples,
            provenance=provenance.only(wanted),
            seed=self.seed,
            index=self._index if rows == self._rows else None,
            factual={node: factual[node] for node in wanted},
            missing={node: drawn[node] for node in wanted if node in drawn},
            do={node: each.text for node, each in asked.items()},
            noise=noise,
            weights=self._equal_weights(rows),
            lineages=self._used_lineages(needed, used, rows),
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
        plain = {name: self._read(do, clip) for name, do in own_values(does).items()}
        least_rows = 1 if only is None else shared_rows(plain.values())

        def answer(name: str, fed: Mapping[str, Intervention], wanted: tuple[str, ...]) -> Counterfactual:
            return self._answer({**plain[name], **fed}, wanted, True, least_rows)

        wanted = check_targets(targets, self._variables)
        return answer_worlds(does, wanted, self._variables, answer, only)

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
        does = named_worlds(do, versus, worlds)
        found = self.worlds(does, targets=targets, only=("do", "versus"), clip=clip)
        return Contrast(found["do"], found["versus"])

    @torch.no_grad()
    def _refuse_contradictions(self, but: Collection[str] = ()) -> None:
        """Refuse rows whose value no noise gives, whether or not a question needs that noise.

        Rows that lack the node or a parent are left to inference. A node that the question sets may have any
        value: it may have been set before, as in a counterfactual that is asked about again.
        """
        missing = self._evidence.missing
        for node in [node for node in self._unchecked if node not in but]:
            mechanism = self._unchecked.pop(node)
            family = (node, *self._world.graph.parents(node))
            gaps = [missing[name] for name in family if name in missing]
            values = self._evidence.observed(family)
            if not gaps:
                with blame(node):
                    mechanism.check(values.pop(node), values)
                continue
            rows = (~torch.stack(gaps).any(0)).nonzero()[:, 0]
            some = {name: value[rows] for name, value in values.items()}
            if len(rows):
                with blame(node):
                    _check_some(mechanism, some.pop(node), some, rows)

    def _noise(self, nodes: Iterable[str]) -> dict[str, Noise]:
        wanted = list(nodes)
        fresh = [node for node in wanted if node not in self._abducted]
        self._abducted |= self._recover([node for node in fresh if node not in self._evidence.missing])
        for node in fresh:
            if node in self._evidence.missing:
                self._abducted[node] = self._drawn(node)
        return {node: self._abducted[node].noise for node in wanted}

    def _recover(self, nodes: Collection[str]) -> dict[str, Abducted]:
        """Nodes' noise from their values and their parents'."""
        read = {name for node in nodes for name in (node, *self._world.graph.parents(node))}
        found = abduct(
            self._world,
            self._evidence.values(read),
            nodes,
            samples=self._samples or 1,
            seed=self.seed,
            rows=self._rows,
        )
        return {node: self._equalised(node, each) for node, each in found.items()}

    def _equalised(self, node: str, found: Abducted) -> Abducted:
        """A node's weighted draws as draws of equal weight.

        Given all values the noises of the nodes are independent, so each node is resampled by itself. Where
        a parent was missing, its draw has met the node's likelihood already, and the weight, which is that
        likelihood once more, does not count again.
        """
        samples, rows = self._samples or 1, self._rows
        if found.log_weight is None or len(found.log_weight) != samples * rows:
            return found
        log_weights = found.log_weight.double().view(samples, rows)
        counted = torch.zeros(rows, dtype=torch.bool, device=log_weights.device)
        for name in (node, *self._world.graph.parents(node)):
            if (missing := self._evidence.missing.get(name)) is not None:
                counted = counted | missing
        log_weights = log_weights.masked_fill(counted, 0.0)
        within = found.diagnostics.get("effective_sample_size")
        effective = pooled_effective_sample_size(
            log_weights, None if within is None else within.view(samples, rows)
        )
        self._effective[node] = effective
        kind = self._world.mechanisms[node].spec.kind
        warn_of_few(
            effective,
            _FEW,
            f"Abduction of {node!r} ({kind})",
            "give the mechanism more particles, or another inference, such as svi.",
        )
        if samples == 1:
            return Abducted(found.noise, None, found.diagnostics)
        generator = keyed_generator(self.seed, "resample", node, device=log_weights.device)
        uniform = torch.rand(rows, generator=generator, dtype=torch.float64, device=log_weights.device)
        chosen = systematic(log_weights.softmax(0), uniform, samples)
        own = torch.arange(samples, device=chosen.device)[:, None]
        chosen = torch.where(counted, own, chosen)
        self._lineages[node] = chosen
        places = (chosen * rows + torch.arange(rows, device=chosen.device)).flatten()
        figures = {name: each[places] for name, each in found.diagnostics.items()}
        return Abducted(found.noise.rows(places), None, figures)

    def _drawn(self, node: str) -> Abducted:
        """The noise by which a node's missing values were drawn; recovered in the other rows."""
        drawn = self._evidence.noise(node)
        if sum(len(index) for index, _ in drawn) == (self._samples or 1) * self._rows:
            order = torch.cat([index for index, _ in drawn]).argsort()
            return Abducted(Noise.concat([noise for _, noise in drawn]).rows(order))
        found = self._recover([node])[node]
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
        drawn = [self._evidence.lineage(node) for node in used if node in self._evidence.missing]
        distinct: list[Tensor] = []
        for lineage in [*found, *(each for each in drawn if each is not None)]:
            if not any(torch.equal(lineage, each) for each in distinct):
                distinct.append(lineage)
        samples = self._samples or 1
        return [each if each.shape[1] == rows else each.expand(samples, rows) for each in distinct]

    def _expand_value(self, value: Tensor, rows: int) -> Tensor:
        """One row's value, or S draws of it, for each of ``rows`` values in ``do``."""
        if rows == self._rows:
            return value
        return value.expand(rows, *value.shape[1:]) if len(value) == 1 else value.repeat_interleave(rows, 0)

    def _needed(self, world: MutilatedModel, wanted: Iterable[str], copy_unaffected: bool) -> list[str]:
        """Nodes whose noise the prediction will use."""
        computed = world.graph.ancestors(wanted)
        if copy_unaffected:
            # Whatever lies beyond the reach of the intervention is copied.
            computed = computed & world.affected()
        needed = {world.origin(node) for node in computed if world.keeps_noise(node)}
        return [node for node in self._variables if node in needed]

    def _broadcast_rows(self, counts: Mapping[str, int]) -> int:
        asked = max(counts.values(), default=1)
        if asked not in (1, self._rows) and self._rows != 1:
            node = next(node for node, count in counts.items() if count == asked)
            raise InterventionError(
                f"Intervention on {node!r} has {asked} rows, but the evidence has {self._rows}. "
                "Give one value, or one a row."
            )
        return max(asked, self._rows)

    def _expand_noise(self, noise: Noise, rows: int) -> Noise:
        """One row's noise for each of ``rows`` values in ``do``."""
        if rows == self._rows:
            return noise
        draws = noise.n // self._rows
        return noise.rows(torch.arange(draws).repeat_interleave(rows))


def _check_some(mechanism: Mechanism, value: Tensor, parents: dict[str, Tensor], rows: Tensor) -> None:
    """``mechanism.check`` for some rows, which an error numbers as the evidence does."""
    try:
        mechanism.check(value, parents)
    except EvidenceError as error:
        told = re.sub(r"^Row (\d+)", lambda found: f"Row {int(rows[int(found[1])])}", str(error))
        raise EvidenceError(told) from error
