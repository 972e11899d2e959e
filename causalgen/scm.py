"""``SCM``: the face. Declare a model, fit it, ask all three rungs of Pearl's ladder, and hold it to data.

Declared, fitted, saved: ``causalgen.model``. The three rungs: ``causalgen.ladder``. Here: what is averaged
over rows or draws, and how good the model is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, final

from causalgen.arguments import names_of, share, whole_number
from causalgen.counterfactuals.abduction import Abduction
from causalgen.counterfactuals.evidence import Evidence
from causalgen.counterfactuals.mutilated_model import MutilatedModel
from causalgen.data.reading import read_data
from causalgen.effects.effect import Effect, Question, find_effect
from causalgen.effects.groups import Given
from causalgen.effects.mediation import NaturalEffects, find_natural_effects
from causalgen.effects.population import Population
from causalgen.effects.refits import Refits, include_fitting_error, refit_answers, refitted_columns
from causalgen.effects.statistic import Statistic
from causalgen.ladder import Ladder, chosen_seed
from graphs.errors import EvidenceError, InterventionError

if TYPE_CHECKING:
    from causalgen.checking.check_report import CheckReport
    from causalgen.effects.couplings import CouplingSensitivity
    from causalgen.evaluation.evaluation_report import EvaluationReport
    from causalgen.evaluation.judging import Measures
    from causalgen.evaluation.questions import Truth
    from causalgen.evaluation.tuning import Tuning
    from causalgen.metrics.axioms import Judge
    from causalgen.metrics.evaluators.judges import Judges
    from causalgen.pyro import PyroModel

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
        refits: int = 0,
        data: Any = None,
        workers: int = 1,
        progress: bool = True,
    ) -> Effect:
        """How much an intervention changes a target on average, against another.

        Both worlds share their noise, draw by draw. Errors and intervals are of finitely many draws and rows,
        and of the fit only with ``refits``: a bootstrap over the training rows.

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
                ``WorldRef("name")["m"]``.
            clip: as for ``counterfactual``.
            refits: how often to fit the model anew, to training rows drawn with replacement, so that errors
                and intervals include the error of the fit; 200 are usual. See ``causalgen.effects.refits``.
            data: the training rows, as for ``fit``; needed for ``refits``.
            workers: processes that share the refits.
            progress: show progress of the refits.

        Raises:
            UnknownNameError: no such node or world.
            EvidenceError: a category or an image without ``statistic``, a group that ``do`` changes, or
                ``refits`` that cannot be had.
            InterventionError: ``do`` sets nothing, or an intervention that does not fit the model.
        """
        question = Question(target, do, versus, given, worlds, statistic, confidence, clip)
        question.check(self.graph, self._variables)
        seed = chosen_seed(seed)

        def ask(world: MutilatedModel) -> tuple[Effect, ...]:
            model = self._of(world, self._variables, self.name)
            return (find_effect(question, model._sources(evidence, n, seed), self._variables),)

        (found,) = self._with_refits(ask, target, refits, data, seed, workers, progress)
        return found

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
        refits: int = 0,
        data: Any = None,
        workers: int = 1,
        progress: bool = True,
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
            refits: as for ``effect``, with ``data``, ``workers`` and ``progress``.
            data: the training rows.
            workers: processes that share the refits.
            progress: show progress of the refits.

        Raises:
            InterventionError: a mediator that is none.
            UnknownNameError, EvidenceError: as for ``effect``.
        """
        nodes = names_of(through, "through")
        total = Question(target, do, versus, None, None, statistic, confidence, clip)
        total.check(self.graph, self._variables)
        seed = chosen_seed(seed)

        def ask(world: MutilatedModel) -> tuple[Effect, ...]:
            source = self._of(world, self._variables, self.name)._sources(evidence, n, seed)
            return find_natural_effects(total, nodes, source, self.graph, self._variables)

        return NaturalEffects(nodes, *self._with_refits(ask, target, refits, data, seed, workers, progress))

    def _with_refits(
        self,
        ask: Callable[[MutilatedModel], tuple[Effect, ...]],
        target: str,
        count: int,
        data: Any,
        seed: int,
        workers: int,
        progress: bool,
    ) -> tuple[Effect, ...]:
        """The effects, with the error of the fit where refits are asked for."""
        if not count:
            return ask(self._world)
        if data is None:
            raise EvidenceError("refits draw from the training rows: give them, as data=....")
        columns = {node: self._variables[node] for node in refitted_columns(self._world)}
        if not columns:
            raise EvidenceError("refits: no mechanism of this model was fitted, so there is no such error.")
        plan = Refits(count, read_data(data, columns, gaps=True), seed, workers, progress)
        plan.check(self._world, target)
        found = ask(self._world)
        refitted = refit_answers(plan, self._world, ask)
        return tuple(
            include_fitting_error(effect, [each[place] for each in refitted])
            for place, effect in enumerate(found)
        )

    def coupling_sensitivity(
        self,
        evidence: Evidence,
        do: Mapping[str, Any],
        *,
        targets: Iterable[str] | None = None,
        num_samples: int = 1000,
        seed: int | None = None,
        clip: bool = False,
    ) -> CouplingSensitivity:
        """How a counterfactual depends on the coupling of its categories, which no data can tell.

        The same question is asked with ``coupling: gumbel`` and ``coupling: monotone`` in every categorical
        mechanism that is recomputed, with the same fitted law; see ``causalgen.effects.couplings``.

        Args:
            evidence: as for ``counterfactual``.
            do: intervention, as for ``counterfactual``.
            targets: nodes to report, all where None: the categories, and the tabular nodes downstream.
            num_samples: draws a row, at least 2.
            seed: of the draws.
            clip: as for ``counterfactual``.

        Returns:
            Both answers side by side, with sharp bounds over all couplings where evidence gives them.

        Raises:
            MechanismError: no categorical mechanism is recomputed, so that none bears on the answer.
            UnknownNameError, InterventionError: as for ``counterfactual``.
        """
        from causalgen.effects.couplings import find_coupling_sensitivity

        return find_coupling_sensitivity(self, evidence, do, targets, num_samples, seed, clip)

    def _sources(self, evidence: Evidence | None, n: int, seed: int) -> Abduction | Population:
        """What answers worlds with shared noise: a population, or the evidence with enough draws."""
        n = whole_number(n, "An effect's number of draws, n,", least=2)
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
        seed, level = whole_number(seed, "check: seed"), share(level, "check: level")
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
        measures: Measures | None = None,
        truth: Truth | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> EvaluationReport:
        """Hold the fitted model to held-out rows: every metric, with its controls beside it.

        Args:
            data: as for ``fit``; rows that it was not fitted on.
            rows: how many to evaluate; 200 where None, or all of them with ``full``.
            full: all rows, and composition of images on 1,000 of them: hours on a CPU, not minutes.
            judges: what reads causes from images: trained ``Judges``, or cause -> predictor
                (``metrics.effectiveness``) that guidance never saw.
            measures: what is measured on images without a network: attribute -> function such as
                ``metrics.thickness``, or "strokes" for Morpho-MNIST's thickness, slant, size and intensity.
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
        from causalgen.evaluation.evaluation import evaluate_model

        seed = whole_number(seed, "evaluate: seed")
        rows = None if rows is None else whole_number(rows, "evaluate: rows", least=1)
        table = read_data(data, self._variables)
        return evaluate_model(
            self,
            table,
            rows=rows,
            full=full,
            judges=judges,
            measures=measures,
            truth=truth,
            seed=seed,
            progress=progress,
        )

    def tune(
        self,
        data: Any,
        judges: Judges,
        *,
        node: str | None = None,
        strengths: Iterable[float] = (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6),
        rows: int = 200,
        min_effectiveness: float = 0.95,
        seed: int = 0,
        progress: bool = True,
    ) -> Tuning:
        """Choose the strength of a diffusion node's guidance: effective first, then of least CLD.

        Args:
            data: validation rows, as for ``fit``; neither training rows nor those to report on.
            judges: networks that score, trained on the same variables; see ``metrics.load_judges``.
            node: the image; needed where there are several.
            strengths: to try, from 0 (do nothing) to 100.
            rows: how many rows to try them on; the others are real images to compare with.
            min_effectiveness: share of rows that must show the new category; where no strength gets there,
                the most effective is chosen, with a warning.
            seed: of rows and new categories.
            progress: show progress.

        Returns:
            The scores of every strength: print it, plot it, and ``tuning.apply(scm)`` for the tuned model.

        Raises:
            MechanismError: no diffusion node, or several and none named.
            DomainError: judges of other variables, or strengths out of range.
            DataError: too few rows.
        """
        from causalgen.evaluation.tuning_sweep import tune_model

        seed, rows = whole_number(seed, "tune: seed"), whole_number(rows, "tune: rows", least=1)
        table = read_data(data, self._variables)
        return tune_model(
            self,
            table,
            judges,
            node=node,
            strengths=strengths,
            rows=rows,
            min_effectiveness=min_effectiveness,
            seed=seed,
            progress=progress,
        )

    def to_pyro(self) -> PyroModel:
        """The model as a Pyro program ``model(n=1)``, a site for each node; see ``causalgen.pyro``.

        ``pyro.condition``, ``poutine.do`` and ``Predictive`` work on it. Pyro draws from torch's global
        random state: run it under ``torch.random.fork_rng`` where that matters.

        Raises:
            NotFittedError: a mechanism has not been fitted.
        """
        from causalgen.pyro import PyroModel  # Pyro takes seconds to import

        return PyroModel(self._world)
