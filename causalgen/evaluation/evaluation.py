"""``scm.evaluate``: a fitted model held to rows, every metric with its controls.

Without ``full`` it is a matter of minutes: at most 200 rows, and composition of images on the first 32 of
them. With it every row is used, and composition of images on the first 1,000. Real images to compare with are
taken from all rows, at most 10,000.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from causalgen.data.table import Table
from causalgen.evaluation.entries import Entry
from causalgen.evaluation.evaluation_report import EvaluatedModel, EvaluationReport
from causalgen.evaluation.image_scores import ImageScores, Pool
from causalgen.evaluation.judging import Measures, find_judging
from causalgen.evaluation.pictures import drift_picture, grid_picture, image_pictures
from causalgen.evaluation.questions import Columns, Truth, attributes, questions
from causalgen.evaluation.table_scores import composition_entries, composition_passes, likelihood_entries
from causalgen.evaluation.worlds import Answer, answer_questions, passes_of
from causalgen.fitting.progress import Progress
from causalgen.metrics.distances import distance_unit
from graphs.errors import DataError, NotFittedError
from graphs.variables import Image, Variable
from mechanisms.seeds import keyed_generator

if TYPE_CHECKING:
    from causalgen.metrics.axioms import Judge
    from causalgen.metrics.evaluators.evaluators import Evaluators
    from causalgen.scm import SCM

__all__ = ["chosen_rows", "evaluate_model", "held_rows"]

_ROWS, _COMPOSED = 200, 32
_FULL_COMPOSED = 1000
_POOL = 10_000
_CHECKED = 20
"""Fewest rows that ``scm.check`` looks at."""


def evaluate_model(
    scm: SCM,
    table: Table,
    *,
    rows: int | None,
    full: bool,
    judges: Evaluators | Mapping[str, Judge] | None,
    measures: Measures | None,
    truth: Truth | None,
    seed: int,
    progress: bool,
) -> EvaluationReport:
    """What ``scm.evaluate`` does, on a checked table.

    Raises:
        DataError: fewer than 2 rows, or fewer rows than asked for.
        NotFittedError: a mechanism has not been fitted.
        DomainError: judges of other variables.
    """
    for node, mechanism in scm.mechanisms.items():
        if not mechanism.fitted:
            raise NotFittedError(
                f"Node {node!r} has not been fitted: nothing to evaluate. Call scm.fit(data)."
            )
    chosen = chosen_rows(table.rows, rows, full, seed)
    return _Evaluation(scm, table, chosen, full, judges, measures, truth, seed).run(progress)


def chosen_rows(available: int, rows: int | None, full: bool, seed: int) -> NDArray[np.int64]:
    """Sorted row numbers: the first of a seeded permutation."""
    if rows is not None and not 2 <= rows <= available:
        raise DataError(
            f"The data have {available:,} rows: an evaluation takes 2 to all of them, got {rows}."
        )
    if available < 2:
        raise DataError(f"An evaluation takes at least 2 rows, got {available}.")
    count = rows if rows is not None else available if full else min(available, _ROWS)
    return np.sort(_permutation(available, seed)[:count])


def _permutation(rows: int, seed: int) -> NDArray[np.int64]:
    return torch.randperm(rows, generator=keyed_generator(seed, "evaluate", "rows")).numpy()


class _Evaluation:
    """One run over chosen rows."""

    def __init__(
        self,
        scm: SCM,
        table: Table,
        chosen: NDArray[np.int64],
        full: bool,
        judges: Evaluators | Mapping[str, Judge] | None,
        measures: Measures | None,
        truth: Truth | None,
        seed: int,
    ) -> None:
        self.scm, self.table, self.chosen, self.truth, self.seed = scm, table, chosen, truth, seed
        self.columns = held_rows(table, scm.variables, chosen)
        self.images = {
            node: variable for node, variable in scm.variables.items() if isinstance(variable, Image)
        }
        self.causes = {
            node: attributes({name: scm.variables[name] for name in scm.graph.parents(node)})
            for node in self.images
        }
        self.judging = {
            node: find_judging(variable, self.causes[node], judges, measures)
            for node, variable in self.images.items()
        }
        self.composed = min(len(chosen), _FULL_COMPOSED if full else _COMPOSED)
        self.entries: list[Entry] = []
        self.notes: list[str] = []
        self.pictures: dict[str, bytes] = {}
        self.speed: dict[str, float] = {}

    def run(self, progress: bool) -> EvaluationReport:
        began = time.perf_counter()
        asked = {
            node: questions(node, self.causes[node], self.columns, self.chosen, self.truth, self.seed)
            for node in self.images
        }
        total = composition_passes(self.scm, len(self.chosen), self.composed)
        total += sum(passes_of(len(self.chosen), each) for each in asked.values())
        with Progress("evaluate", total, enabled=progress) as bar:
            for node, each in asked.items():
                bar.begin(f"counterfactuals of {node}")
                answers = answer_questions(self.scm, node, self.columns, each, seed=self.seed, progress=bar)
                bar.begin(f"scores of {node}")
                self._score(node, answers)
            self._compose(bar)
            bar.begin("fit")
            self.entries += likelihood_entries(self.scm, self.table)
            check = None
            if self.table.rows >= _CHECKED:
                check = self.scm.check(self.table, seed=self.seed).to_dict()
            else:
                self.notes.append(f"scm.check needs {_CHECKED} rows, the data have {self.table.rows}.")
        return EvaluationReport(
            EvaluatedModel.of(self.scm, self.causes, self.judging),
            rows=len(self.chosen),
            available=self.table.rows,
            composed=self.composed,
            seed=self.seed,
            truth=self.truth is not None,
            entries=tuple(self.entries),
            check=check,
            notes=tuple(self.notes),
            images_per_second=self.speed,
            seconds=time.perf_counter() - began,
            pictures=self.pictures,
        )

    def _compose(self, bar: Progress) -> None:
        found = list(
            composition_entries(
                self.scm, self.columns, self.composed, seed=self.seed, progress=bar, notes=self.notes
            )
        )
        self.entries += found
        for node, variable in self.images.items():
            if drift := [entry for entry in found if entry.node == node]:
                self.pictures[f"{node}-composition.png"] = drift_picture(drift, node, distance_unit(variable))

    def _score(self, node: str, answers: list[Answer]) -> None:
        judging, causes = self.judging[node], self.causes[node]
        if unjudged := judging.unjudged(causes):
            self.notes.append(
                f"{node}: nothing reads {', '.join(unjudged)} from the image, so whether do({unjudged[0]}) "
                "works was not measured. Give judges or measures."
            )
        scores = ImageScores(
            node, self.images[node], causes, self.columns, self._pool(node), judging, self.seed, self.notes
        )
        if judging.by:
            self.entries += scores.floor()
        for answer in answers:
            self.entries += scores.score(answer)
            self.pictures |= image_pictures(scores, answer)
        if seconds := sum(answer.seconds for answer in answers):
            self.speed[node] = len(self.chosen) * len(answers) / seconds
        if answers:
            self.pictures |= grid_picture(scores, answers)

    def _pool(self, node: str) -> Pool:
        most = max(_POOL, len(self.chosen))
        rows = np.union1d(self.chosen, _permutation(self.table.rows, self.seed)[:most])
        variables: dict[str, Variable] = {node: self.images[node], **self.causes[node]}
        return Pool(held_rows(self.table, variables, rows), np.searchsorted(rows, self.chosen))


def held_rows(table: Table, variables: Mapping[str, Variable], rows: NDArray[np.int64]) -> Columns:
    """Rows of a checked table in the user's form; images as floats in [0, 1]."""
    held: dict[str, NDArray[Any]] = {}
    for node, variable in variables.items():
        values = table[node][rows]
        held[node] = (
            values.astype(np.float32) / np.float32(255)
            if values.dtype == np.uint8
            else np.asarray(variable.decode(values))
        )
    return held
