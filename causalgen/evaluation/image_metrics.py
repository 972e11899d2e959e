"""Metrics of counterfactual images: whether they are what was asked, real, consistent, alike and diverse.

Each scores the mechanism's images, those of the whole model, and the controls: doing nothing, a random and
the nearest real image of the wanted class. The formulas and their sources are in ``causalgen.metrics``.

Doing nothing has all of the likeness to the factual and none of the diversity, a sample of the model the
other way round. A random real image of the wanted class is a sample of the data, and the nearest one shows
what likeness can be had by looking it up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalgen.evaluation.metric import FLOOR, MECHANISM, MODEL, Entry, NodeEvaluation, metric_of
from causalgen.evaluation.questions import DRAWS, Answer, Columns, Question
from causalgen.metrics.axioms import effectiveness
from causalgen.metrics.controls import class_rows
from causalgen.metrics.evaluators.evaluators import Evaluators
from causalgen.metrics.feature_distance import attribute_distance, feature_distance, variance_ratio
from causalgen.metrics.fidelity import minimality, true_counterfactual_error
from causalgen.metrics.image_rows import distance
from causalgen.metrics.latent_divergence import class_distances, cld, cld_floor, im1, im2
from causalgen.metrics.likeness import as_vectors, attribute_correlation, diversity, likeness, moves_of
from causalgen.metrics.scores import POSITIVE, Score, mean_score

__all__ = [
    "measure_consistency",
    "measure_distance",
    "measure_diversity",
    "measure_effectiveness",
    "measure_feature_distance",
    "measure_interpretability",
    "measure_latent_divergence",
    "measure_likeness",
    "measure_minimality",
    "measure_reversibility",
    "measure_true_error",
]

_L1 = "L1 on 0..255"

Floats = NDArray[np.floating[Any]]

Embed = Callable[[object], Floats]

Sets = dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Subject -> draws of each row, and draws of other rows, (S, N, C, H, W)."""


@metric_of("effectiveness")
def measure_effectiveness(case: NodeEvaluation) -> Iterator[Entry]:
    """Do the attributes read from the counterfactual have their intervened values (Monteiro et al. 2023)?

    Of every subject; the floor is what is read from the factual images themselves.
    """
    if case.readings.by:
        yield from _read(case, case.factual, case.columns, FLOOR, "")
    for answer in case.answers:
        question = answer.question
        for subject, images in case.subjects(answer).items():
            # Without a known truth the whole model can only be held to the causes it made itself.
            shown = answer.caused if subject == MODEL and not question.known else question.shown
            yield from _read(case, images, shown, subject, question.node)


def _read(case: NodeEvaluation, images: object, shown: Columns, subject: str, do: str) -> Iterator[Entry]:
    for by, readers in case.readings.by.items():
        for name, score in effectiveness(images, shown, case.causes, readers).items():
            yield Entry("effectiveness", case.node, subject, score, do, name, by)


@metric_of("distance")
def measure_distance(case: NodeEvaluation) -> Iterator[Entry]:
    """Mean distance of a counterfactual to its factual, of every subject, L1 on 0..255."""
    for answer in case.answers:
        for subject, images in case.subjects(answer).items():
            apart = distance(case.variable, images, case.factual)
            score = mean_score(apart, _L1, better="neither", limits=POSITIVE)
            yield Entry("distance", case.node, subject, score, answer.question.node)


@metric_of("reversibility")
def measure_reversibility(case: NodeEvaluation) -> Iterator[Entry]:
    """Distance to the factual after the way there and back, of the mechanism (Monteiro et al. 2023)."""
    for answer in case.answers:
        score = mean_score(answer.back, _L1, limits=POSITIVE)
        yield Entry("reversibility", case.node, MECHANISM, score, answer.question.node)


@metric_of("minimality")
def measure_minimality(case: NodeEvaluation) -> Iterator[Entry]:
    """Did no more change than had to (Melistas et al. 2024)? Of every subject, and the floor."""
    for answer in case.answers:
        name, values = answer.question.node, answer.question.values
        with case.noting(answer.question, "minimality"):
            found = {
                subject: minimality(
                    case.factual, images, case.columns[name], values,
                    case.real[case.node], case.real[name], case.causes[name],
                )
                for subject, images in case.subjects(answer).items()
            }  # fmt: skip
            for subject, scores in found.items():
                yield Entry("minimality", case.node, subject, scores["counterfactual"], name)
            yield Entry("minimality", case.node, FLOOR, found[MECHANISM]["floor"], name)


@metric_of("feature_distance")
def measure_feature_distance(case: NodeEvaluation) -> Iterator[Entry]:
    """FD: Frechet distance to the factual images in the evaluators' features (Heusel et al. 2017).

    Of every subject, where the evaluators know a category of the image.
    """
    if (networks := case.readings.networks) is None:
        return
    for answer in case.answers:
        with case.noting(answer.question, "FD"):
            features = networks.features
            unit = f"of features of {features.name}, {features.sha256[:8]}"
            found = {
                subject: feature_distance(images, case.factual, features)
                for subject, images in case.subjects(answer).items()
            }
            for subject, each in found.items():
                score = Score(each.value, math.nan, math.nan, each.rows[0], unit)
                yield Entry("FD", case.node, subject, score, answer.question.node)


@metric_of("interpretability")
def measure_interpretability(case: NodeEvaluation) -> Iterator[Entry]:
    """IM1 and IM2: does the image look like its new class to autoencoders (Van Looveren & Klaise 2021)?

    Of every subject, where the category that the evaluators know was set.
    """
    for answer, networks in _of_label(case):
        with case.noting(answer.question, "IM1 and IM2"):
            old, new = case.codes(answer.question)
            before, after = networks.class_autoencoder(old), networks.class_autoencoder(new)
            found = {
                subject: (im1(images, before, after), im2(images, after, networks.autoencoder))
                for subject, images in case.subjects(answer).items()
            }
            for subject, scores in found.items():
                for name, score in zip(("IM1", "IM2"), scores, strict=True):
                    yield Entry(name, case.node, subject, score, answer.question.node)


@metric_of("latent_divergence")
def measure_latent_divergence(case: NodeEvaluation) -> Iterator[Entry]:
    """CLD: counterfactual latent divergence (Sanchez & Tsaftaris 2022).

    Of every subject, and the floor, where the category that the evaluators know was set.
    """
    for answer, networks in _of_label(case):
        name = answer.question.node
        with case.noting(answer.question, "CLD"):
            real = case.causes[name].encode(case.real[name], where=name)
            codes = case.codes(answer.question)
            found = class_distances(
                networks.latents, case.factual, *codes, case.real[case.node], real
            )  # fmt: skip
            scores = {subject: cld(images, found) for subject, images in case.subjects(answer).items()}
            for subject, score in scores.items():
                yield Entry("CLD", case.node, subject, score, name)
            yield Entry("CLD", case.node, FLOOR, cld_floor(found), name)


@metric_of("consistency")
def measure_consistency(case: NodeEvaluation) -> Iterator[Entry]:
    """Interventional consistency: counterfactuals, as a set, against samples of the same intervention.

    Of every subject: pixel variance, features, and each number that is read from the image.
    """
    for answer in case.answers:
        for subject, images in case.subjects(answer).items():
            shown, samples = answer.question.shown, answer.samples
            if subject == MODEL and answer.model_samples is not None:
                shown, samples = answer.caused, answer.model_samples
            for of in ("pixel variance", "features", *case.readings.numbers(case.causes)):
                with case.noting(answer.question, f"consistency of {of}"):
                    score = _score(case, answer, of, images, shown, samples)
                    if score is not None:
                        node = answer.question.node
                        yield Entry("consistency", case.node, subject, score, node, of)


def _score(
    case: NodeEvaluation,
    answer: Answer,
    of: str,
    images: np.ndarray,
    shown: Columns,
    samples: Columns,
) -> Score | None:
    real, networks = samples[case.node], case.readings.networks
    if of == "features":
        if networks is None:
            return None
        found = feature_distance(images, real, networks.features)
        return Score(found.value, math.nan, math.nan, len(images), "FD")
    if of != "pixel variance":
        read = case.readings.numbers(case.causes)[of]
        return attribute_distance(read(images), read(real))
    if (name := case.category(answer.question)) is None:
        return variance_ratio(images, np.zeros(len(images)), real, np.zeros(len(real)))
    return variance_ratio(images, shown[name], real, samples[name])


@metric_of("true_error")
def measure_true_error(case: NodeEvaluation) -> Iterator[Entry]:
    """Distance to the true counterfactual image, where the generator of the data is known.

    Of the mechanism, the whole model, and doing nothing: in pixels and in measured attributes.
    """
    for answer in case.answers:
        question, subjects = answer.question, case.subjects(answer)
        if question.image is None:
            continue
        for subject in (name for name in (MECHANISM, MODEL) if name in subjects):
            found = true_counterfactual_error(
                subjects[subject], question.image, case.factual, case.readings.measures
            )
            for of, scores in found.items():
                yield Entry("true error", case.node, subject, scores["counterfactual"], question.node, of)
                if subject == MECHANISM:
                    nothing = scores["do nothing"]
                    yield Entry("true error", case.node, "do nothing", nothing, question.node, of)


def _of_label(case: NodeEvaluation) -> Iterator[tuple[Answer, Evaluators]]:
    """The answers in which the category was set that trained evaluators know, and these evaluators."""
    networks, label = case.readings.networks, case.readings.label
    if networks is not None and label is not None:
        for answer in case.answers:
            if answer.question.node == label:
                yield answer, networks


@metric_of("likeness")
def measure_likeness(case: NodeEvaluation) -> Iterator[Entry]:
    """Does the counterfactual look like its factual in what should survive?

    Of every subject: pixels, latent codes, and each number that is read and was not to change.
    """
    if not case.answers:
        return
    embeds: dict[str, Embed] = {"pixels": as_vectors}
    if (networks := case.readings.networks) is not None:
        embeds["latent"] = lambda images: networks.latents(images)[0].numpy()
    codes = {of: (embed(case.factual), embed(case.real[case.node])) for of, embed in embeds.items()}
    readers = case.readings.numbers(case.causes)
    factual = cache(lambda name: readers[name](case.factual))
    for answer in case.answers:
        node, subjects = answer.question.node, case.subjects(answer)
        for of, embed in embeds.items():
            with case.noting(answer.question, f"likeness of {of}"):
                near = _nearness(case, answer.question, *codes[of])
                for subject, images in subjects.items():
                    yield Entry("likeness", case.node, subject, near(embed(images)), node, of)
        for subject, images in subjects.items():
            shown = answer.caused if subject == MODEL else answer.question.shown
            for name, read in readers.items():
                # What is no cause that the question changes.
                if name not in shown or np.array_equal(shown[name], case.columns[name]):
                    with case.noting(answer.question, f"likeness of {name}"):
                        score = attribute_correlation(read(images), factual(name))
                        yield Entry("likeness", case.node, subject, score, node, name)


def _nearness(
    case: NodeEvaluation, question: Question, factual: Floats, real: Floats
) -> Callable[[Floats], Score]:
    """Likeness of images given as vectors, within the category that matters to the question."""
    assert case.pool is not None
    name, category, pool = question.node, case.category(question), case.pool
    moves = moves_of(real, case.real[name], case.columns[name], question.values, case.causes[name])
    classes, real_classes = (
        np.zeros(len(each[name])) if category is None else each[category]
        for each in (case.columns, case.real)
    )
    return lambda images: likeness(images, factual, real, classes, real_classes, moves=moves, own=pool.own)


@metric_of("diversity")
def measure_diversity(case: NodeEvaluation) -> Iterator[Entry]:
    """How much do draws of the counterfactual of one row differ?

    Of the mechanism and the controls, on few rows: pixels, and features of the evaluators.
    """
    for answer in case.answers:
        embeds: dict[str, Embed] = {"pixels": as_vectors}
        with case.noting(answer.question, "diversity of features"):
            if (networks := case.readings.networks) is not None:
                embeds["features"] = networks.features
        for subject, (own, others) in _sets(case, answer).items():
            for of, embed in embeds.items():
                with case.noting(answer.question, f"diversity of {of}"):
                    score = diversity(_embedded(embed, own), _embedded(embed, others))
                    yield Entry("diversity", case.node, subject, score, answer.question.node, of)


def _sets(case: NodeEvaluation, answer: Answer) -> Sets:
    """Draws of each row by subject; where the abduction gives a point they are equal."""
    drawn, few = answer.draws, case.few
    if drawn is None:
        return {MECHANISM: _equal(answer.mechanism[few])}
    found: Sets = {
        MECHANISM: (drawn.own, drawn.others),
        "do nothing": _equal(case.factual[few]),
        "model sample": (drawn.samples[:DRAWS], drawn.samples[DRAWS:]),
    }
    if real := case.controls(answer.question):
        pool = case.real[case.node]
        found["nearest real"] = _equal(pool[real.nearest[few]])
        with case.noting(answer.question, "diversity of random real images"):
            random = pool[_random(case, answer)]
            found["random real"] = (random[:DRAWS], random[DRAWS:])
    return found


def _random(case: NodeEvaluation, answer: Answer) -> NDArray[np.int64]:
    """Rows of real images of the wanted class, (2 S, N), different ones in a column."""
    name, random = answer.question.node, np.random.default_rng(case.seed)
    variable = case.causes[name]
    wanted = variable.encode(answer.question.values[case.few], where=name)
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
