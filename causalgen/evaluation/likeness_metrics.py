"""Likeness of a counterfactual to its factual, and diversity of draws, each with the controls.

Doing nothing has all of the likeness and none of the diversity, a sample of the model the other way round. A
random real image of the wanted class is a sample of the data, and the nearest one shows what likeness can be
had by looking it up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from causalgen.evaluation.draws import DRAWS
from causalgen.evaluation.metric import MECHANISM, MODEL, Entry, Metric, NodeEvaluation
from causalgen.metrics.controls import class_rows
from causalgen.metrics.likeness import as_vectors, attribute_correlation, diversity, likeness, moves_of
from causalgen.metrics.scores import Score

if TYPE_CHECKING:
    from causalgen.evaluation.questions import Answer, Question

__all__ = ["Diversity", "Likeness"]

Floats = NDArray[np.floating[Any]]
Embed = Callable[[object], Floats]
Sets = dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Subject -> draws of each row, and draws of other rows, (S, N, C, H, W)."""


@final
class Likeness(Metric):
    """Does the counterfactual look like its factual in what should survive?"""

    kind: ClassVar[str] = "likeness"

    def measure(self, case: NodeEvaluation) -> Iterator[Entry]:
        """Of every subject: pixels, latent codes, and each number that is read and was not to change."""
        if not case.answers:
            return
        embeds: dict[str, Embed] = {"pixels": as_vectors}
        if (networks := case.readings.networks) is not None:
            embeds["latent"] = lambda images: networks.latents(images)[0].numpy()
        codes = {of: (embed(case.factual), embed(case.real[case.node])) for of, embed in embeds.items()}
        readers = case.readings.numbers(case.causes)
        factual = {name: read(case.factual) for name, read in readers.items()}
        for answer in case.answers:
            node, subjects = answer.question.node, case.subjects(answer)
            for of, embed in embeds.items():
                with case.noting(answer.question, f"likeness of {of}"):
                    near = self._nearness(case, answer.question, *codes[of])
                    for subject, images in subjects.items():
                        yield Entry("likeness", case.node, subject, near(embed(images)), node, of)
            for subject, images in subjects.items():
                shown = answer.caused if subject == MODEL else answer.question.shown
                for name, read in readers.items():
                    # What is no cause that the question changes.
                    if name not in shown or np.array_equal(shown[name], case.columns[name]):
                        with case.noting(answer.question, f"likeness of {name}"):
                            score = attribute_correlation(read(images), factual[name])
                            yield Entry("likeness", case.node, subject, score, node, name)

    def _nearness(
        self, case: NodeEvaluation, question: Question, factual: Floats, real: Floats
    ) -> Callable[[Floats], Score]:
        """Likeness of images given as vectors, within the category that matters to the question."""
        assert case.pool is not None
        name, category, pool = question.node, case.category(question), case.pool
        moves = moves_of(real, case.real[name], case.columns[name], question.values, case.causes[name])
        classes, real_classes = (
            np.zeros(len(each[name])) if category is None else each[category]
            for each in (case.columns, case.real)
        )
        return lambda images: likeness(
            images, factual, real, classes, real_classes, moves=moves, own=pool.own
        )


@final
class Diversity(Metric):
    """How much do draws of the counterfactual of one row differ?"""

    kind: ClassVar[str] = "diversity"

    def measure(self, case: NodeEvaluation) -> Iterator[Entry]:
        """Of the mechanism and the controls, on the first rows: pixels, and features of the evaluators."""
        for answer in case.answers:
            embeds: dict[str, Embed] = {"pixels": as_vectors}
            with case.noting(answer.question, "diversity of features"):
                if (networks := case.readings.networks) is not None:
                    embeds["features"] = networks.features
            for subject, (own, others) in self._sets(case, answer).items():
                for of, embed in embeds.items():
                    with case.noting(answer.question, f"diversity of {of}"):
                        score = diversity(_embedded(embed, own), _embedded(embed, others))
                        yield Entry("diversity", case.node, subject, score, answer.question.node, of)

    def _sets(self, case: NodeEvaluation, answer: Answer) -> Sets:
        """Draws of each row by subject; where the abduction gives a point they are equal."""
        drawn, few = answer.draws, case.few
        if drawn is None:
            return {MECHANISM: _equal(answer.mechanism[:few])}
        found: Sets = {
            MECHANISM: (drawn.own, drawn.others),
            "do nothing": _equal(case.factual[:few]),
            "model sample": (drawn.samples[:DRAWS], drawn.samples[DRAWS:]),
        }
        if real := case.controls(answer.question):
            pool = case.real[case.node]
            found["nearest real"] = _equal(pool[real.nearest[:few]])
            with case.noting(answer.question, "diversity of random real images"):
                random = pool[self._random(case, answer)]
                found["random real"] = (random[:DRAWS], random[DRAWS:])
        return found

    def _random(self, case: NodeEvaluation, answer: Answer) -> NDArray[np.int64]:
        """Rows of real images of the wanted class, (2 S, N), different ones in a column."""
        name, random = answer.question.node, np.random.default_rng(case.seed)
        variable = case.causes[name]
        wanted = variable.encode(answer.question.values[: case.few], where=name)
        values = variable.encode(case.real[name], where=name)
        found = np.zeros((2 * DRAWS, len(wanted)), np.int64)
        for rows, members in class_rows(wanted, values, variable, least=2 * DRAWS):
            for row in rows:
                found[:, row] = random.choice(members, 2 * DRAWS, replace=False)
        return found


def _equal(images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The one draw there is, twice, and that of the next row."""
    return np.stack([images, images]), np.roll(images, -1, axis=0)[None]


def _embedded(embed: Embed, draws: NDArray[np.float32]) -> Floats:
    """Vectors of draws, (S, N, F)."""
    return embed(draws.reshape(-1, *draws.shape[2:])).reshape(*draws.shape[:2], -1)
