"""Bootstrap over training rows (Efron 1979), for the fitting error of effects: resample, refit, ask again.

For r = 1..R the training rows are drawn with replacement, every trained mechanism that the answer may depend
on is fitted to them anew, and the same question is asked with the same seed, so that refits differ by their
rows alone:

    standard error   sqrt(var_r m_r + s^2),   s the Monte Carlo error of the answer itself
    interval         percentiles of m_r, widened about their median by Student's quantile of N - 1 degrees
                     over the normal one, where N is the number of training rows of the refitted node that
                     has fewest; either half is the root of its square and that of the answer's own interval
                     (Zou & Donner 2008), which may be of few rows; of probabilities, within -1 and 1

The least and the greatest of R refits hold the truth in (R - 1) / (R + 1) of the cases, 0.90 of 20: where
that is too few, Student's law of R - 1 degrees takes the percentiles' place, with the median's own error.

Rows of one cluster (a family, a clinic) tell less than as many rows of different ones. Where ``clusters``
says which belong together, clusters are drawn with replacement, whole, and N is how many there are (Cameron,
Gelbach & Miller 2008, pairs bootstrap).

Of a category that few rows have, some resamplings have none: what their fits answer of it follows from the
other categories, and a warning says so. What no row tells stays outside: a wrong graph, hidden confounding, a
mechanism of the wrong form. Image nodes keep their weights; where the target depends on one, the question is
refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import pi
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalgen.arguments import whole_number
from causalgen.counterfactuals.abduction import Abduction
from causalgen.counterfactuals.evidence import Evidence
from causalgen.counterfactuals.interventions import WorldValue, interventions
from causalgen.counterfactuals.mutilated_model import MutilatedModel
from causalgen.counterfactuals.nested import named_worlds, own_values
from causalgen.data.reading import read_clusters, read_data
from causalgen.data.table import Table
from causalgen.effects.effect import Effect, Question
from causalgen.effects.estimates import Estimate, student_ratio
from causalgen.effects.groups import group_edges
from causalgen.fitting.fit_table import fit_table
from causalgen.fitting.parallel import Workers, check_workers, in_parallel
from causalgen.fitting.progress import Progress
from graphs.errors import EvidenceError, numbered_rows, untold, warn
from graphs.variables import Image
from mechanisms.base import Mechanism
from mechanisms.extrapolation import extrapolation_expected
from mechanisms.networks import learning
from mechanisms.seeds import keyed_seed

__all__ = ["Refits", "effects_with_refits", "include_fitting_error", "refit_answers"]

Ask = Callable[[MutilatedModel, bool], Sequence[Effect]]
"""The effects that a question gets from a world, with their intervals or without."""


@dataclass(frozen=True)
class Refits:
    """How often, at least 2, and to what a model is fitted anew: a node to rows with it and its parents.

    ``clusters`` are the numbers of those that rows are in, (N,); None where each row is drawn by itself.
    """

    count: int
    table: Table
    nodes: Sequence[str]
    seed: int
    clusters: NDArray[np.int64] | None = None
    workers: Workers = 1
    progress: bool = True

    def check(self, world: MutilatedModel, target: str) -> None:
        """Refuse what cannot be refitted."""
        whole_number(self.count, "refits", least=2)
        check_workers(self.workers)
        if world.touched:
            raise EvidenceError("refits: the model was intervened on. Ask the model before, with do=....")
        for node in world.graph.ancestors([target]):
            mechanism = world.mechanisms[node]
            if isinstance(mechanism.variable, Image) and mechanism.spec.training is not None:
                raise EvidenceError(
                    f"refits: {target!r} depends on the image {node!r}, whose training takes too long to be "
                    "repeated. Ask without refits."
                )
        if self.clusters is not None and (found := len(self.members)) < 2:
            raise EvidenceError(f"refits: expected at least 2 clusters to draw from, got {found}.")

    def units(self, chosen: NDArray[np.bool_]) -> int:
        """How many units, which are drawn independently, some rows (N,) are of: rows or clusters."""
        return int(chosen.sum()) if self.clusters is None else len(np.unique(self.clusters[chosen]))

    def drawn(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """Numbers of rows, drawn with replacement by themselves or by whole clusters."""
        if self.clusters is None:
            return generator.integers(0, self.table.rows, self.table.rows)
        count = len(self.members)
        return np.concatenate([self.members[each] for each in generator.integers(0, count, count)])

    @cached_property
    def members(self) -> list[NDArray[np.int64]]:
        """The rows of each cluster."""
        assert self.clusters is not None
        order = np.argsort(self.clusters, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(self.clusters[order])) + 1)


def effects_with_refits(
    ask: Ask,
    world: MutilatedModel,
    question: Question,
    evidence: Evidence | None,
    *,
    count: int,
    data: Any,
    clusters: Any,
    seed: int,
    workers: Workers,
    progress: bool,
) -> Sequence[Effect]:
    """The effects that a question gets, with the error of the fit where ``count`` refits are asked for."""
    if not count:
        if clusters is not None:
            raise EvidenceError("clusters are what refits draw: say how many, as in refits=200.")
        found = ask(world, True)
        fitted = {node for node, each in world.mechanisms.items() if each.spec.training is not None}
        if 0 < len(fitted) < len(world.mechanisms):
            with untold():
                fitted &= _reached_nodes(question, world, evidence)
        return [replace(effect, fitted=bool(fitted)) for effect in found]
    if data is None:
        raise EvidenceError("refits draw from the training rows: give them, as data=....")
    reached = _reached_nodes(question, world, evidence)
    nodes = [
        node
        for node, mechanism in world.mechanisms.items()
        if node in reached
        and mechanism.spec.training is not None
        and not isinstance(mechanism.variable, Image)
    ]
    if not nodes:
        raise EvidenceError(
            f"refits: nothing that {question.target!r} depends on here was fitted, so there is no such "
            "error. Ask without refits."
        )
    read = {name for node in nodes for name in (node, *world.graph.parents(node))}
    columns = {node: world.mechanisms[node].variable for node in world.graph.nodes if node in read}
    with numbered_rows(None):  # these are no rows of the evidence
        table = read_data(data, columns, gaps=True, nodes=world.graph.nodes, experiments=True)
        numbers = None if clusters is None else read_clusters(data, clusters, table.rows)
    refits = Refits(count, table, nodes, seed, numbers, workers, progress)
    refits.check(world, question.target)
    found = ask(world, True)
    refitted = refit_answers(refits, world, ask)
    fewest = min(refits.units(table.rows_to_fit(node, world.graph.parents(node))) for node in nodes)
    told = None if numbers is None else len(refits.members)
    return [
        replace(include_fitting_error(effect, [each[place] for each in refitted], fewest), clusters=told)
        for place, effect in enumerate(found)
    ]


def refit_answers(refits: Refits, world: MutilatedModel, ask: Ask) -> list[Sequence[Effect]]:
    """The answers of R refitted worlds, in order; the same whatever the number of workers."""

    def answer(number: int) -> tuple[Sequence[Effect], list[str]]:
        # The question itself warns, of the range of all rows, not of some, and of few particles.
        with untold(), extrapolation_expected() as unseen:
            return ask(_refitted(refits, world, number), False), unseen  # their values alone matter

    with Progress("refits", refits.count, unit="refit", enabled=refits.progress) as bar:
        found = in_parallel(answer, refits.count, refits.workers, done=lambda number: bar.advance(1))
    lacking = [unseen[0] for _, unseen in found if unseen]
    if 0 < len(lacking) < refits.count:  # where all lack it, so does the fit, of which the question warns
        warn(
            f"refits: {len(lacking):,} of {refits.count:,} drew no row of a category that is asked about "
            f"({lacking[0]}), so few have it, and answer by the others. The interval says too little of the "
            "error of the fit. Give more rows of it, or merge it with another category."
        )
    return [effects for effects, _ in found]


def include_fitting_error(effect: Effect, refitted: Sequence[Effect], rows: int) -> Effect:
    """The effect, its errors and intervals by its refits, to so many training rows."""
    student = student_ratio(rows - 1, effect.confidence)
    groups: dict[Any, Estimate] = {}
    for label, each in effect.groups.items():
        found = [one.groups[label] for one in refitted if label in one.groups]
        groups[label] = _widened(each, found, effect.confidence, student)
    overall = _widened(effect.overall, [one.overall for one in refitted], effect.confidence, student)
    return replace(effect, overall=overall, groups=groups, refits=len(refitted))


@learning()
def _refitted(refits: Refits, world: MutilatedModel, number: int) -> MutilatedModel:
    generator = np.random.default_rng(keyed_seed(refits.seed, "refit", number))
    rows = refits.drawn(generator)
    table = Table(
        {node: column[rows] for node, column in refits.table.items()},
        {node: gaps[rows] for node, gaps in refits.table.gaps.items()},
        copies=rows,  # or a row that is held out might be trained on too
        intervened={node: each[rows] for node, each in refits.table.intervened.items()},
    )
    fresh: dict[str, Mechanism] = {}
    for node in refits.nodes:
        old = world.mechanisms[node]
        fresh[node] = old.spec.bind(old.variable, old.parents).to(old.device)
    alone: Any = {"run_dir": None, "resume": False, "progress": False, "doubted": False}
    fit_table(fresh, table, graph=world.graph, seed=refits.seed, **alone)
    return replace(
        world, mechanisms={**world.mechanisms, **{node: each.eval() for node, each in fresh.items()}}
    )


def _reached_nodes(question: Question, world: MutilatedModel, evidence: Evidence | None) -> frozenset[str]:
    """The nodes whose mechanisms the answer may depend on: what is asked about, set or read, and its causes.

    Missing values among them are inferred from all evidence, whose causes count then too.
    """
    variables = {node: world.mechanisms[node].variable for node in world.graph.nodes}
    does = named_worlds(question.do, question.versus, question.worlds)
    asked = {question.target, *group_edges(question.given or (), variables)}
    for do in does.values():
        asked |= {*do, *(value.node for value in do.values() if isinstance(value, WorldValue))}
    for do in own_values(does).values():
        found = interventions(do, world.graph, variables, world.mechanisms, clip=question.clip)
        asked |= {name for each in found.values() for name in each.parents if name in variables}
    reached = world.graph.ancestors(asked)
    if evidence is None:
        return reached
    gaps = Abduction(world, variables, evidence, seed=0).gaps
    if not any(bool(gaps(node).any()) for node in reached):
        return reached
    return world.graph.ancestors({*asked, *(node for node in variables if not bool(gaps(node).all()))})


def _widened(estimate: Estimate, refitted: Sequence[Estimate], confidence: float, student: float) -> Estimate:
    if len(refitted) < 2:  # a group that hardly any resampling has
        nothing = np.full_like(np.asarray(estimate.value, dtype=np.float64), np.nan)[()]
        return replace(estimate, standard_error=nothing, low=nothing, high=nothing)
    values = np.stack([np.asarray(each.value) for each in refitted])
    differs = values.min(0) < values.max(0)  # rounding leaves equal values a variance
    spread = np.where(differs, values.var(0, ddof=1), 0.0)
    own = np.nan_to_num(np.asarray(estimate.standard_error) ** 2)
    tail = (1 - confidence) / 2
    # Order statistic k of R has the level k / (R + 1): one refit further out than numpy's default.
    low, middle, high = np.quantile(values, [tail, 0.5, 1 - tail], axis=0, method="weibull")
    if tail * (len(values) + 1) < 1:  # the percentiles lie beyond the least and the greatest
        quantile = NormalDist().inv_cdf(1 - tail) * student_ratio(len(values) - 1, confidence)
        half = quantile * np.sqrt(spread * (1 + pi / (2 * len(values))))
        low, high = middle - half, middle + half
    error = np.sqrt(spread + own)
    below, above = (np.nan_to_num(abs(estimate.value - each)) for each in (estimate.low, estimate.high))
    low = middle - np.hypot((middle - low) * student, below)
    high = middle + np.hypot((high - middle) * student, above)
    if estimate.bounded:
        low, high = np.clip(low, -1, 1), np.clip(high, -1, 1)
    # Where no refit differs there is the error of the draws alone.
    low, high = np.where(differs, low, estimate.low), np.where(differs, high, estimate.high)
    plain = [each.item() if each.ndim == 0 else each for each in map(np.asarray, (error, low, high))]
    agree = np.asarray(estimate.all_agree) & ~differs
    agree = agree if agree.ndim else agree.item()
    return replace(estimate, standard_error=plain[0], low=plain[1], high=plain[2], all_agree=agree)
