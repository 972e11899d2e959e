"""Every metric of the counterfactual images of one node, with its controls beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from causalgen.evaluation.entries import CONTROLS, FLOOR, MECHANISM, MODEL, Entry
from causalgen.evaluation.judging import Judging
from causalgen.evaluation.questions import Columns, Question
from causalgen.evaluation.worlds import Answer
from causalgen.metrics.axioms import Judge, effectiveness
from causalgen.metrics.consistency import attribute_distance, variance_ratio
from causalgen.metrics.controls import RealImages, real_images
from causalgen.metrics.distances import distance
from causalgen.metrics.feature_distance import feature_distance
from causalgen.metrics.fidelity import minimality, true_counterfactual_error
from causalgen.metrics.interpretability import im1, im2
from causalgen.metrics.latent_divergence import class_distances, cld, cld_floor
from causalgen.metrics.scores import Score, mean_score
from graphs.errors import DataError, DomainError, MechanismError
from graphs.variables import Categorical, Image, Variable

if TYPE_CHECKING:
    from causalgen.metrics.evaluators.evaluators import Evaluators

__all__ = ["ImageScores", "Pool"]


@dataclass(frozen=True)
class Pool:
    """Real images to compare with.

    Attributes:
        columns: the image and its causes, M rows.
        own: which row of the pool each evaluated row is, (N,).
    """

    columns: Columns
    own: NDArray[np.int64]


@dataclass
class ImageScores:
    """Scores the answers about one image node.

    Attributes:
        node: the image.
        variable: of the image.
        causes: its causes of one value.
        columns: the factual rows.
        pool: real images.
        judging: who reads images.
        seed: of random controls.
        notes: what could not be measured, and why; filled as it goes.
    """

    node: str
    variable: Image
    causes: Mapping[str, Variable]
    columns: Columns
    pool: Pool
    judging: Judging
    seed: int
    notes: list[str] = field(default_factory=list)
    _real: dict[str, RealImages | None] = field(default_factory=dict)

    @property
    def factual(self) -> NDArray[Any]:
        """The factual images."""
        return self.columns[self.node]

    def floor(self) -> Iterator[Entry]:
        """What the judges find in the factual images themselves."""
        yield from self._effectiveness(self.factual, self.columns, FLOOR, "")

    def score(self, answer: Answer) -> Iterator[Entry]:
        """All metrics of one question."""
        question = answer.question
        subjects = self._subjects(answer)
        for subject, images in subjects.items():
            # Without a known truth the whole model can only be held to the causes it made itself.
            shown = answer.caused if subject == MODEL and not question.known else question.shown
            yield from self._effectiveness(images, shown, subject, question.node)
            apart = distance(self.variable, images, self.factual)
            yield self._entry(
                "distance", subject, mean_score(apart, "L1 on 0..255", better="neither"), question
            )
        yield self._entry("reversibility", MECHANISM, mean_score(answer.back, "L1 on 0..255"), question)
        yield from self._minimality(question, subjects)
        yield from self._networks(question, subjects)
        yield from self._consistency(answer, subjects)
        if question.image is not None:
            yield from self._true_error(question, subjects)

    def controls(self, question: Question) -> RealImages | None:
        """Real images of the wanted class, or None where there are too few, having said so."""
        name = question.node
        if name not in self._real:
            pool = self.pool.columns[self.node], self.pool.columns[name]
            try:
                self._real[name] = real_images(
                    self.factual, question.values, *pool, self.causes[name], own=self.pool.own, seed=self.seed
                )
            except DataError as error:
                self._real[name] = None
                self._note(f"do({name}): no real images to compare with. {error}")
        return self._real[name]

    def _subjects(self, answer: Answer) -> dict[str, NDArray[Any]]:
        subjects: dict[str, NDArray[Any]] = {MECHANISM: answer.mechanism}
        if answer.model is not None:
            subjects[MODEL] = answer.model
        subjects[CONTROLS[0]] = self.factual
        if real := self.controls(answer.question):
            pool = self.pool.columns[self.node]
            subjects |= {"random real": pool[real.random], "nearest real": pool[real.nearest]}
        return subjects

    def _effectiveness(self, images: object, shown: Columns, subject: str, do: str) -> Iterator[Entry]:
        for by, judges in self.judging.by.items():
            for name, score in effectiveness(images, shown, self.causes, judges).items():
                yield Entry("effectiveness", self.node, subject, score, do, name, by)

    def _minimality(self, question: Question, subjects: Mapping[str, NDArray[Any]]) -> Iterator[Entry]:
        name = question.node
        for subject, images in subjects.items():
            try:
                found = minimality(
                    self.factual,
                    images,
                    self.columns[name],
                    question.values,
                    self.pool.columns[self.node],
                    self.pool.columns[name],
                    self.causes[name],
                )
            except DataError as error:
                self._note(f"do({name}): no minimality. {error}")
                return
            yield self._entry("minimality", subject, found["counterfactual"], question)
            if subject == MECHANISM:
                yield self._entry("minimality", FLOOR, found["floor"], question)

    def _networks(self, question: Question, subjects: Mapping[str, NDArray[Any]]) -> Iterator[Entry]:
        """FD of any cause; CLD, IM1 and IM2 of the category that the judges know."""
        judges, label = self.judging.networks, self.judging.label
        if judges is None or label is None:
            return
        parts = {"FD": self._feature_distances}
        if question.node == label:
            parts |= {"IM1 and IM2": self._interpretability, "CLD": self._latent_divergence}
        for name, part in parts.items():
            try:
                yield from list(part(question, subjects, judges))
            except (DataError, DomainError, MechanismError) as error:
                self._note(f"do({question.node}): no {name}. {error}")

    def _feature_distances(
        self, question: Question, subjects: Mapping[str, NDArray[Any]], judges: Evaluators
    ) -> Iterator[Entry]:
        unit = f"of features of {judges.features.name}, {judges.features.sha256[:8]}"
        for subject, images in subjects.items():
            found = feature_distance(images, self.factual, judges.features)
            score = Score(float(found), math.nan, math.nan, len(images), unit)
            yield self._entry("FD", subject, score, question)

    def _interpretability(
        self, question: Question, subjects: Mapping[str, NDArray[Any]], judges: Evaluators
    ) -> Iterator[Entry]:
        old, new = self._codes(question)
        before, after = judges.class_autoencoder(old), judges.class_autoencoder(new)
        for subject, images in subjects.items():
            yield self._entry("IM1", subject, im1(images, before, after), question)
            yield self._entry("IM2", subject, im2(images, after, judges.autoencoder), question)

    def _latent_divergence(
        self, question: Question, subjects: Mapping[str, NDArray[Any]], judges: Evaluators
    ) -> Iterator[Entry]:
        pool = self.pool.columns
        real = self.causes[question.node].encode(pool[question.node], where=question.node)
        found = class_distances(judges.latents, self.factual, *self._codes(question), pool[self.node], real)
        for subject, images in subjects.items():
            yield self._entry("CLD", subject, cld(images, found), question)
        yield self._entry("CLD", FLOOR, cld_floor(found), question)

    def _codes(self, question: Question) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Codes of the category before and after."""
        name = question.node
        old, new = (
            self.causes[name].encode(each, where=name).astype(np.int64)
            for each in (self.columns[name], question.values)
        )
        return old, new

    def _consistency(self, answer: Answer, subjects: Mapping[str, NDArray[Any]]) -> Iterator[Entry]:
        """Each set of images against samples of the model under the same intervention."""
        question = answer.question
        for subject, images in subjects.items():
            shown, samples = question.shown, answer.samples
            if subject == MODEL and answer.model_samples is not None:
                shown, samples = answer.caused, answer.model_samples
            for of, score in self._compared(question, images, shown, samples):
                try:
                    yield self._entry("consistency", subject, score(), question, of)
                except (DataError, DomainError, MechanismError) as error:
                    self._note(f"do({question.node}): no consistency of {of}. {error}")

    def _compared(
        self, question: Question, images: NDArray[Any], shown: Columns, samples: Columns
    ) -> Iterator[tuple[str, Callable[[], Score]]]:
        """What is compared of images and samples, each a score to be computed."""
        real, judges = samples[self.node], self.judging.networks
        categories = [name for name, each in self.causes.items() if isinstance(each, Categorical)]
        name = question.node if question.node in categories else next(iter(categories), None)
        one, other = (
            np.zeros(len(each[self.node])) if name is None else each[name]
            for each in ({self.node: images, **shown}, samples)
        )
        yield "pixel variance", lambda: variance_ratio(images, one, real, other)
        if judges is not None:

            def features() -> Score:
                found = feature_distance(images, real, judges.features)
                return Score(found.value, math.nan, math.nan, len(images), "FD")

            yield "features", features
        for name, read in self._numbers().items():
            yield name, lambda read=read: attribute_distance(read(images), read(real))

    def _numbers(self) -> dict[str, Judge]:
        """What reads a number from images; measured rather than predicted, where both are there."""
        predicted = {
            name: judge
            for name, judge in self.judging.by.get("predictor", {}).items()
            if not isinstance(self.causes[name], Categorical)
        }
        return predicted | dict(self.judging.attributes)

    def _true_error(self, question: Question, subjects: Mapping[str, NDArray[Any]]) -> Iterator[Entry]:
        measures = self.judging.measures
        for subject in (name for name in (MECHANISM, MODEL) if name in subjects):
            found = true_counterfactual_error(subjects[subject], question.image, self.factual, measures)
            for quantity, scores in found.items():
                yield self._entry("true error", subject, scores["counterfactual"], question, quantity)
                if subject == MECHANISM:
                    yield self._entry("true error", "do nothing", scores["do nothing"], question, quantity)

    def _entry(self, metric: str, subject: str, score: Score, question: Question, of: str = "") -> Entry:
        return Entry(metric, self.node, subject, score, question.node, of)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
