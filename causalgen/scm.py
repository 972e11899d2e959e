"""``SCM``: the face. Declare a model, fit it, and ask all three rungs of Pearl's ladder.

scm.sample(n)                          what does the model see?          p(x)
scm.sample(n, do={...})                what if we set ...?               p(x | do(...))
scm.counterfactual(evidence, do={...}) what if it had been otherwise?    p(x_do | evidence)
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from causalgen.abduction import Abduction
from causalgen.data.reading import read_data
from causalgen.effects.effect import Effect, Question, find_effect
from causalgen.effects.groups import Given
from causalgen.effects.mediation import NaturalEffects, find_natural_effects
from causalgen.effects.population import Population
from causalgen.effects.statistic import Statistic
from causalgen.engine import act, predict
from causalgen.evidence import Evidence, encode_evidence, encode_partial
from causalgen.inference.posterior import Completion
from causalgen.interventions import interventions
from causalgen.model import Model
from causalgen.provenance import trace_provenance
from causalgen.results import Counterfactual, Draws
from causalgen.slabs import Slabs
from causalgen.world import World
from graphs.errors import EvidenceError, InterventionError, MechanismError, PartialEvidenceError

if TYPE_CHECKING:
    from causalgen.checking.check_report import CheckReport
    from causalgen.evaluating.evaluation_report import EvaluationReport
    from causalgen.evaluating.questions import Truth
    from causalgen.metrics.axioms import Judge
    from causalgen.metrics.judges.judges import Judges
    from causalgen.pyro_model import PyroModel
    from causalgen.tuning.tuning import Tuning

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
        if n < 1:
            raise EvidenceError(f"sample draws at least 1 row, got n = {n}.")
        if do:
            return self.do(do, clip=clip).sample(n, targets=targets, seed=seed)
        seed, wanted = _seed(seed), self._targets(targets)
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

    def do(self, do: Mapping[str, Any], *, clip: bool = False) -> SCM:
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
                NaN in a row, is inferred from the others; see ``causalgen.inference.posterior``.
            num_samples: S draws of whatever evidence does not determine; None for one draw.
            seed: of the draws.
            particles: a row, for missing values that have no exact posterior.

        Raises:
            PartialEvidenceError: a missing value cannot be inferred; the message says why.
            EvidenceError: evidence of probability zero.
            InterventionError: the model was intervened on by a function.
        """
        memory = Slabs()
        if num_samples is not None and num_samples < 1:
            raise EvidenceError(f"num_samples is at least 1, or None for one draw; got {num_samples}.")
        values, missing, rows, index = encode_partial(evidence, self._variables, self.device, memory)
        if self._world.natural:
            raise InterventionError(
                "This model was intervened on by a function of a natural value, which evidence does not "
                "show. Abduct in the model before the intervention."
            )
        # What was set before is how this model works: it is no intervention on this evidence.
        world = World(self.graph, self._world.mechanisms)
        seed = _seed(seed)
        completion = Completion(
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
            memory=memory,
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

    def effect(
        self,
        target: str,
        *,
        do: Mapping[str, Any],
        versus: Mapping[str, Any] | None = None,
        given: Given | None = None,
        evidence: Evidence | None = None,
        n: int = 10_000,
        statistic: Statistic | None = None,
        seed: int | None = None,
        confidence: float = 0.95,
        worlds: Mapping[str, Mapping[str, Any]] | None = None,
        clip: bool = False,
    ) -> Effect:
        """How much an intervention changes a target on average, against another.

        Both worlds share their noise, draw by draw. Errors and intervals are of finitely many draws and rows;
        they say nothing about how well the model was fitted.

        Args:
            target: the node.
            do: intervention, as for ``counterfactual``.
            versus: the one to compare with; none where None.
            given: nodes to group by, for conditional effects: a name, several, or a mapping from names to the
                edges that cut a continuous one, as in ``{"age": [18, 65]}``. A node that is set groups by its
                natural value.
            evidence: rows to ask about, for individual effects; the whole population where None.
            n: draws, at least 2: of the population, or of what evidence leaves open, shared by its B rows
                (max(2, n // B) each).
            statistic: values of N rows -> N numbers, whose mean is compared; needed for categories
                and images, as in ``lambda digit: digit == 3``.
            seed: of all draws; None draws one, which the result names.
            confidence: of the intervals.
            worlds: further interventions by name, whose values ``do`` and ``versus`` may take:
                ``World("name")["m"]``.
            clip: as for ``counterfactual``.

        Raises:
            UnknownNameError: no such node or world.
            EvidenceError: a category or an image without ``statistic``, or a group that ``do`` changes.
            InterventionError: ``do`` sets nothing, or an intervention that does not fit the model.
        """
        question = Question(target, do, versus, given, worlds, statistic, confidence, clip)
        question.check(self.graph, self._variables)
        return find_effect(question, self._sources(evidence, n, seed), self._variables)

    def natural_effects(
        self,
        target: str,
        *,
        do: Mapping[str, Any],
        versus: Mapping[str, Any] | None = None,
        through: str | Iterable[str],
        evidence: Evidence | None = None,
        n: int = 10_000,
        statistic: Statistic | None = None,
        seed: int | None = None,
        confidence: float = 0.95,
        clip: bool = False,
    ) -> NaturalEffects:
        """How much of an effect passes through mediators, and how much goes past them.

        Args:
            target: the node.
            do: intervention, as for ``effect``.
            versus: the one to compare with; none where None.
            through: the mediators, on paths from what is set to the target.
            evidence: rows to ask about; the whole population where None.
            n: draws, as for ``effect``.
            statistic: as for ``effect``.
            seed: of all draws.
            confidence: of the intervals.
            clip: as for ``counterfactual``.

        Raises:
            InterventionError: a mediator that is none.
            UnknownNameError, EvidenceError: as for ``effect``.
        """
        nodes = (through,) if isinstance(through, str) else tuple(through)
        total = Question(target, do, versus, None, None, statistic, confidence, clip)
        total.check(self.graph, self._variables)
        source = self._sources(evidence, n, seed)
        return find_natural_effects(total, nodes, source, self.graph, self._variables)

    def _sources(self, evidence: Evidence | None, n: int, seed: int | None) -> Abduction | Population:
        """What answers worlds with shared noise: a population, or the evidence with enough draws."""
        if n < 2:
            raise EvidenceError(f"An effect takes at least 2 draws, got n = {n}.")
        seed = _seed(seed)
        if evidence is None:
            return Population(self._world, self._variables, n, seed)
        rows = self.abduct(evidence, num_samples=2, seed=seed).rows
        return self.abduct(evidence, num_samples=max(2, n // rows), seed=seed)

    def check(self, data: Any, *, seed: int = 0, level: float = 0.01) -> CheckReport:
        """Whether the model agrees with rows: how its mechanisms fit, and which independences hold.

        Args:
            data: as for ``fit``; at most 1,000 rows are looked at. Take those it was fitted on, or new ones
                if it was fitted on several times as many: tests take the error of a fit for dependence.
            seed: of the rows, draws and permutations; the same one gives the same report.
            level: false discovery rate of all tests of independence together, between 0 and 1.

        Returns:
            The report: print it, or ask ``report.ok``.

        Raises:
            DataError: the data are wrong, or have fewer than 20 rows.
            NotFittedError: a mechanism has not been fitted.
            InterventionError: the model was intervened on by a function.
        """
        from causalgen.checking.checks import check_model

        if self._world.natural:
            raise InterventionError(
                "This model was intervened on by a function of a natural value, which data do not show. "
                "Check the model before the intervention."
            )
        return check_model(
            self._world, self._variables, read_data(data, self._variables), seed=seed, level=level
        )

    def evaluate(
        self,
        data: Any,
        *,
        rows: int | None = None,
        full: bool = False,
        judges: Judges | Mapping[str, Judge] | None = None,
        truth: Truth | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> EvaluationReport:
        """Hold the fitted model to held-out rows: every metric, with its controls beside it.

        Args:
            data: as for ``fit``; rows that it was not fitted on.
            rows: how many to evaluate; 200 where None, or all of them with ``full``.
            full: all rows, and composition of images on 1,000 of them: hours on a CPU, not minutes.
            judges: what reads causes from images, beside direct measurement: trained ``Judges``, or cause ->
                predictor (``metrics.effectiveness``) that guidance never saw.
            truth: (row numbers of the data, what is set) -> values of nodes in the true counterfactual world,
                where the data generator is known.
            seed: of rows, new values and draws; the same one gives the same report.
            progress: show progress.

        Returns:
            The report: print it, or ``report.save(folder)`` a page.

        Raises:
            DataError: the data are wrong, or have fewer rows than asked for.
            NotFittedError: a mechanism has not been fitted.
            DomainError, ShapeError: a judge of another variable.
        """
        from causalgen.evaluating.evaluation import evaluate_model

        table = read_data(data, self._variables)
        return evaluate_model(
            self, table, rows=rows, full=full, judges=judges, truth=truth, seed=seed, progress=progress
        )

    def tune(
        self,
        data: Any,
        judges: Judges,
        *,
        node: str | None = None,
        strengths: Iterable[float] = (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 4),
        rows: int = 200,
        seed: int = 0,
        progress: bool = True,
    ) -> Tuning:
        """Choose the strength of a diffusion node's guidance: the least latent divergence (CLD) wins.

        Args:
            data: validation rows, as for ``fit``; neither training rows nor those to report on.
            judges: networks that score, trained on the same variables; see ``metrics.load_judges``.
            node: the image; needed where there are several.
            strengths: to try, from 0 (do nothing) to 100.
            rows: how many rows to try them on; the others are real images to compare with.
            seed: of rows and new categories.
            progress: show progress.

        Returns:
            The scores of every strength: print it, plot it, and ``tuning.apply(scm)`` for the tuned model.

        Raises:
            MechanismError: no diffusion node, or several and none named.
            DomainError: judges of other variables, or strengths out of range.
            DataError: too few rows.
        """
        from causalgen.tuning.sweep import tune_model

        table = read_data(data, self._variables)
        return tune_model(
            self, table, judges, node=node, strengths=strengths, rows=rows, seed=seed, progress=progress
        )

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

    def to_pyro(self) -> PyroModel:
        """The model as a Pyro program ``model(n=1)``, a site for each node; see ``causalgen.pyro_model``.

        ``pyro.condition``, ``poutine.do`` and ``Predictive`` work on it. Pyro draws from torch's global
        random state: run it under ``torch.random.fork_rng`` where that matters.

        Raises:
            NotFittedError: a mechanism has not been fitted.
        """
        from causalgen.pyro_model import PyroModel  # Pyro takes seconds to import

        return PyroModel(self._world)


def _seed(seed: int | None) -> int:
    return secrets.randbits(31) if seed is None else seed
