"""Metric plug-ins: the abstract class, the registry of ``causalgen.metrics`` entry points, and the simplest.

``cg.evaluate`` computes every registered metric of every node. A metric of another package is a subclass of
``Metric`` with a ``kind``, named by an entry point of the group ``causalgen.metrics``; its entries appear in
the report beside the built-in ones: with ``do`` as a column of that intervention's table, else in a table of
further metrics. Those of any node are here: held-out log-likelihood, and composition, the drift over null
interventions.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray

from causalgen.evaluation.questions import Answer, Columns, EvaluatedNode, Question
from causalgen.evaluation.readings import Readings
from causalgen.metrics.axioms import composition
from causalgen.metrics.controls import RealImages, real_images
from causalgen.metrics.node_passes import brings_back
from causalgen.metrics.scores import Score, mean_score
from causalgen.scm import SCM
from graphs.errors import CannotAbductError, DataError, DomainError, MechanismError, numbered_rows
from graphs.variables import Categorical, Image, image_variables
from mechanisms.registry import Registry

__all__ = [
    "CONTROLS",
    "Entry",
    "FLOOR",
    "MECHANISM",
    "METRICS",
    "MODEL",
    "Metric",
    "NodeEvaluation",
    "Pool",
    "chosen_metrics",
    "composition_passes",
    "measure_composition",
    "measure_log_likelihood",
    "metric_of",
]

MECHANISM, MODEL, FLOOR = "mechanism", "whole model", "floor"
"""Subjects: the node's mechanism at given parents; all mechanisms together; what cannot be beaten."""

CONTROLS = ("do nothing", "random real", "nearest real", "model sample")

_CYCLES = range(1, 11)

_LIKELIHOOD_ROWS = 10_000

_NATS = "nats a row"


@dataclass(frozen=True)
class Entry:
    """One measured figure and what it is of; a report is a list of them."""

    metric: str  # such as "effectiveness"
    node: str  # whose values are scored
    subject: str  # who made them: the mechanism, the whole model, a control, or the floor
    score: Score  # the figure
    do: str = ""  # the attribute that was set; empty where none was
    of: str = ""  # what the figure is of: an attribute, or a number of cycles
    by: str = ""  # who read it: "predictor", "measured", or a setting of the node

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        names = ("metric", "node", "subject", "do", "of", "by")
        return {name: getattr(self, name) for name in names} | self.score.to_dict()


@dataclass(frozen=True)
class Pool:
    """Real images to compare with."""

    columns: Columns  # the image and its causes, M rows
    own: NDArray[np.int64]  # which row of the pool each evaluated row is, (N,)


@dataclass
class NodeEvaluation(EvaluatedNode):
    """One node of a model under evaluation: what a metric computes its figures from."""

    # Counterfactual images, one intervention each; none where the node is no image
    answers: list[Answer] = field(default_factory=list)
    pool: Pool | None = None  # real images to compare with; None where the node is no image
    readings: Readings = field(default_factory=Readings)  # who reads the causes from the image
    _real: dict[str, RealImages | None] = field(default_factory=dict)

    @property
    def real(self) -> Columns:
        """Real images and their causes, (M, ...) each."""
        assert self.pool is not None
        return self.pool.columns

    def codes(self, question: Question) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Codes of the category that was set: before and after, (N,) each."""
        name = question.node
        old, new = (
            self.causes[name].encode(each, where=name).astype(np.int64)
            for each in (self.columns[name], question.values)
        )
        return old, new

    def subjects(self, answer: Answer) -> dict[str, NDArray[Any]]:
        """The images to score, (N, C, H, W) in [0, 1] each: the model's, and those of the controls."""
        found: dict[str, NDArray[Any]] = {MECHANISM: answer.mechanism}
        if answer.model is not None:
            found[MODEL] = answer.model
        found[CONTROLS[0]] = self.factual
        if real := self.controls(answer.question):
            pool = self.real[self.node]
            found |= {"random real": pool[real.random], "nearest real": pool[real.nearest]}
        if answer.control is not None:
            found["model sample"] = answer.control
        return found

    def category(self, question: Question) -> str | None:
        """The category within which images are compared: the one that was set, else the first cause."""
        names = [name for name, each in self.causes.items() if isinstance(each, Categorical)]
        return question.node if question.node in names else next(iter(names), None)

    def controls(self, question: Question) -> RealImages | None:
        """Real images of the wanted class, or None where there are too few, having said so."""
        name = question.node
        if name not in self._real:
            assert self.pool is not None
            found = None
            with self.noting(question, "real images to compare with"):
                found = real_images(
                    self.factual, question.values, self.real[self.node], self.real[name],
                    self.causes[name], own=self.pool.own, seed=self.seed,
                )  # fmt: skip
            self._real[name] = found
        return self._real[name]

    @contextmanager
    def noting(self, question: Question, what: str) -> Iterator[None]:
        """Data, values or networks from which something cannot be computed become a note of the report."""
        try:
            yield
        except (DataError, DomainError, MechanismError) as error:
            self.note(f"do({question.node}): no {what}. {error}")

    def note(self, text: str) -> None:
        """Add to the notes, once."""
        if text not in self.notes:
            self.notes.append(text)


class Metric(ABC):
    """A metric, registered under its ``kind``; the built-in ones are final subclasses."""

    kind: ClassVar[str]

    @abstractmethod
    def measure(self, case: NodeEvaluation) -> Iterable[Entry]:
        """Its figures of one node; none where it is no metric of such a node."""


def metric_of(kind: str) -> Callable[[Callable[[NodeEvaluation], Iterable[Entry]]], type[Metric]]:
    """A decorator that makes a metric of a function, which gives its figures of one node."""

    def made(measure: Callable[[NodeEvaluation], Iterable[Entry]]) -> type[Metric]:
        members = {"kind": kind, "__doc__": measure.__doc__, "__module__": measure.__module__}
        return final(type(kind, (Metric,), {**members, "measure": lambda self, case: measure(case)}))

    return made


_OF_IMAGES = (
    "effectiveness", "distance", "reversibility", "minimality", "latent_divergence", "interpretability",
    "feature_distance", "consistency", "likeness", "diversity", "true_error",
)  # fmt: skip
_BUILT_IN = {kind: f"causalgen.evaluation.image_metrics:measure_{kind}" for kind in _OF_IMAGES} | {
    kind: f"causalgen.evaluation.metric:measure_{kind}" for kind in ("composition", "log_likelihood")
}

METRICS: Registry[type[Metric]] = Registry("metric", "causalgen.metrics", Metric, _BUILT_IN)
"""Every metric by its kind: built-in, or from an entry point of the group ``causalgen.metrics``."""


def chosen_metrics(given: Iterable[str | Metric] | None) -> list[Metric]:
    """The metrics to compute: those given, by kind or as they are; all registered ones where None."""
    if given is None:
        given = [*_BUILT_IN, *(kind for kind in METRICS.kinds() if kind not in _BUILT_IN)]
    return [each if isinstance(each, Metric) else METRICS.get(each)() for each in given]


@metric_of("log_likelihood")
def measure_log_likelihood(case: NodeEvaluation) -> Iterator[Entry]:
    """Mean log p(x | pa) of at most 10,000 rows, in nats, where it has a density; -inf where one has none."""
    scm, node, table = case.scm, case.node, case.table
    # Evenly, as rows may lie in the order of their labels.
    some = min(table.rows, _LIKELIHOOD_ROWS)
    index = torch.linspace(0, table.rows - 1, some, dtype=torch.float64).long()
    numbers = table.numbers[index.numpy()]
    value, *given = (
        table.tensor(name, index, device=scm.device) for name in (node, *scm.graph.parents(node))
    )
    with torch.no_grad(), numbered_rows(numbers):
        parents = dict(zip(scm.graph.parents(node), given, strict=True))
        found = scm.mechanisms[node].log_prob(value, parents)
    if found is None:
        return
    rows = found.double().cpu().numpy()
    impossible, unknown = np.isneginf(rows), np.isnan(rows) | np.isposinf(rows)
    score = mean_score(np.where(impossible | unknown, np.nan, rows), _NATS, better="higher")
    if count := int(impossible.sum()):
        score = replace(score, left_out=int(unknown.sum()))
        case.note(
            f"{node}: {count:,} of {len(rows):,} rows have probability 0, the first of them row "
            f"{numbers[impossible.argmax()]}, so that the mean log-likelihood is -inf; that of the "
            f"others is {score}."
        )
        score = replace(score, value=-math.inf, low=math.nan, high=math.nan, rows=score.rows + count)
    yield Entry("log-likelihood", node, MECHANISM, score)


@metric_of("composition")
def measure_composition(case: NodeEvaluation) -> Iterator[Entry]:
    """Distance to the factual after 1 to 10 null interventions (Monteiro et al. 2023); of images on few rows.

    A node whose noise carries step residuals is measured without them too.
    """
    scm, node = case.scm, case.node
    rows = case.few if isinstance(case.variable, Image) else np.arange(len(case.factual))
    evidence = {name: case.columns[name][rows] for name in (node, *scm.graph.parents(node))}
    advance = case.advance if node in _counted(scm) else None
    for by, residuals in _variants(scm, node):
        try:
            with numbered_rows(case.numbers[rows]):
                found = composition(
                    scm, evidence, node, _CYCLES, residuals=residuals, seed=case.seed, advance=advance
                )
        except CannotAbductError as error:
            case.note(f"{node}: no composition. {error}")
            break
        for cycles, score in found.items():
            yield Entry("composition", node, MECHANISM, score, of=str(cycles), by=by)


def composition_passes(scm: SCM, rows: int, few: int) -> int:
    """How many passes over rows composition is counted as, for the progress bar."""
    passes = 0
    for node in _counted(scm):
        image = isinstance(scm.variables[node], Image)
        passes += max(_CYCLES) * len(_variants(scm, node)) * (few if image else rows)
    return passes


def _counted(scm: SCM) -> list[str]:
    """The nodes that progress counts: images, beside which tables take no time; tables where no image is."""
    images = list(image_variables(scm.variables))
    return images or list(scm.variables)


def _variants(scm: SCM, node: str) -> Sequence[tuple[str, bool | None]]:
    if what := brings_back(scm, node):
        return (f"with {what}", None), (f"without {what}", False)
    return (("", None),)
