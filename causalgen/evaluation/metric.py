"""Metric plug-ins: the abstract class, the registry of ``causalgen.metrics`` entry points, what is measured.

``cg.evaluate`` computes every registered metric of every node. A metric of another package is a subclass of
``Metric`` with a ``kind``, named by an entry point of the group ``causalgen.metrics``; its entries appear in
the report beside the built-in ones: with ``do`` as a column of that intervention's table, else in a table of
further metrics.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from causalgen.data.table import Table
from causalgen.evaluation.questions import Answer, Columns, Question, attributes
from causalgen.evaluation.readings import Readings
from causalgen.metrics.controls import RealImages, real_images
from causalgen.metrics.scores import Score
from graphs.errors import DataError, DomainError, MechanismError
from graphs.variables import Categorical, Variable
from mechanisms.registry import Registry

if TYPE_CHECKING:
    from causalgen.scm import SCM

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
]

MECHANISM, MODEL, FLOOR = "mechanism", "whole model", "floor"
"""Subjects: the node's mechanism at given parents; all mechanisms together; what cannot be beaten."""

CONTROLS = ("do nothing", "random real", "nearest real", "model sample")


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
class NodeEvaluation:
    """One node of a model under evaluation: what a metric computes its figures from."""

    scm: SCM  # the model
    node: str  # the node's name
    columns: Columns  # the evaluated rows, every node of the model, (N, ...) each in the user's form
    table: Table  # all rows of the data
    numbers: NDArray[np.int64]  # of the evaluated rows, in the data that were given, (N,)
    seed: int  # of whatever a metric draws
    few: int  # rows for what takes many passes through the node's mechanism, at most N
    # Counterfactual images, one intervention each; none where the node is no image
    answers: list[Answer] = field(default_factory=list)
    pool: Pool | None = None  # real images to compare with; None where the node is no image
    readings: Readings = field(default_factory=Readings)  # who reads the causes from the image
    notes: list[str] = field(default_factory=list)  # what could not be measured, and why; filled as it goes
    # Told how many rows have made a pass through a mechanism, for the progress bar
    advance: Callable[[int], None] = lambda rows: None
    _real: dict[str, RealImages | None] = field(default_factory=dict)

    @property
    def variable(self) -> Variable:
        """Of the node."""
        return self.scm.variables[self.node]

    @property
    def causes(self) -> dict[str, Variable]:
        """The node's causes that are one number or one category."""
        return attributes({name: self.scm.variables[name] for name in self.scm.graph.parents(self.node)})

    @property
    def factual(self) -> NDArray[Any]:
        """The node's values in the evaluated rows."""
        return self.columns[self.node]

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


_BUILT_IN = {
    kind: f"causalgen.evaluation.{home}"
    for kind, home in {
        "effectiveness": "image_metrics:Effectiveness",
        "distance": "image_metrics:Distance",
        "reversibility": "image_metrics:Reversibility",
        "minimality": "image_metrics:Minimality",
        "latent_divergence": "image_metrics:LatentDivergence",
        "interpretability": "image_metrics:Interpretability",
        "feature_distance": "image_metrics:FeatureDistance",
        "consistency": "image_metrics:Consistency",
        "likeness": "likeness_metrics:Likeness",
        "diversity": "likeness_metrics:Diversity",
        "true_error": "image_metrics:TrueError",
        "composition": "node_metrics:Composition",
        "log_likelihood": "node_metrics:LogLikelihood",
    }.items()
}

METRICS: Registry[type[Metric]] = Registry("metric", "causalgen.metrics", Metric, _BUILT_IN)
"""Every metric by its kind: built-in, or from an entry point of the group ``causalgen.metrics``."""


def chosen_metrics(given: Iterable[str | Metric] | None) -> list[Metric]:
    """The metrics to compute: those given, by kind or as they are; all registered ones where None.

    Raises:
        UnknownNameError: no metric of that kind.
        MechanismError: a plug-in that is no metric, or claims the kind of another.
    """
    if given is None:
        given = [*_BUILT_IN, *(kind for kind in METRICS.kinds() if kind not in _BUILT_IN)]
    return [each if isinstance(each, Metric) else METRICS.get(each)() for each in given]
