"""``SCM``: the face. Declare a model, fit it, ask all three rungs of Pearl's ladder, and hold it to data.

Declared, fitted, saved: ``causalgen.model``. The three rungs: ``causalgen.ladder``. Here: what is averaged
over rows or draws, and how good the model is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, final

from causalgen.abduction import Abduction
from causalgen.data.reading import read_data
from causalgen.effects.effect import Effect, Question, find_effect
from causalgen.effects.groups import Given
from causalgen.effects.mediation import NaturalEffects, find_natural_effects
from causalgen.effects.population import Population
from causalgen.effects.statistic import Statistic
from causalgen.evidence import Evidence
from causalgen.ladder import Ladder, chosen_seed
from graphs.errors import EvidenceError, InterventionError

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
class SCM(Ladder):
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
        seed = chosen_seed(seed)
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
            level: false discovery rate of all tests together, between 0 and 1: the share of checks, at most,
                that report a problem with a true model.

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
        report = check_model(
            self._world, self._variables, read_data(data, self._variables), seed=seed, level=level
        )
        return report if self.fit_report is None else replace(report, advice=tuple(self.fit_report.advice))

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
        strengths: Iterable[float] = (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6),
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

    def to_pyro(self) -> PyroModel:
        """The model as a Pyro program ``model(n=1)``, a site for each node; see ``causalgen.pyro_model``.

        ``pyro.condition``, ``poutine.do`` and ``Predictive`` work on it. Pyro draws from torch's global
        random state: run it under ``torch.random.fork_rng`` where that matters.

        Raises:
            NotFittedError: a mechanism has not been fitted.
        """
        from causalgen.pyro_model import PyroModel  # Pyro takes seconds to import

        return PyroModel(self._world)
