"""The counterfactual images of an evaluation: each row abducted once, all questions answered from that noise.

    mechanism     the image's mechanism alone, all its causes set to what the image should show
    whole model   one cause set, the model itself makes the others (only where one of them depends on it)
    way back      the mechanism's image and its causes, abducted anew, to the factual causes
    samples       of the model under the same intervention, as many as there are rows: the law that
                  counterfactuals should have, averaged over factuals

A batch of rows holds its noise only until its questions are answered.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from causalgen.evaluation.questions import Columns, Question
from causalgen.fitting.progress import Progress
from causalgen.metrics.distances import distance
from causalgen.metrics.node_passes import NodePasses, batches
from graphs.errors import ExtrapolationWarning
from mechanisms.seeds import keyed_seed

if TYPE_CHECKING:
    from causalgen.counterfactuals.abduction import Abduction
    from causalgen.scm import SCM

__all__ = ["Answer", "answer_questions", "passes_of"]

Images = NDArray[np.float32]


@dataclass(frozen=True)
class Answer:
    """What one question was answered.

    Attributes:
        question: what was asked.
        mechanism: images (N, C, H, W) in [0, 1].
        back: distance of the way back to the factual, (N,), on 0..255.
        model: images by the whole model, or None where they are the mechanism's.
        caused: the values of the image's causes in the whole model's world.
        samples: the image and its causes, sampled with all causes set as for the mechanism's images.
        model_samples: sampled with the question's node set alone; None where it makes none apart.
        seconds: spent on the mechanism's images, abduction included.
    """

    question: Question
    mechanism: Images
    back: NDArray[np.float64]
    model: Images | None
    caused: Columns
    samples: Columns
    model_samples: Columns | None
    seconds: float


def passes_of(rows: int, asked: Sequence[Question]) -> int:
    """How many passes over rows answering takes, for the progress bar."""
    return rows * 4 * len(asked)


def answer_questions(
    scm: SCM,
    node: str,
    columns: Columns,
    asked: Sequence[Question],
    *,
    seed: int,
    progress: Progress,
) -> list[Answer]:
    """Answer every question about an image node.

    Args:
        scm: the model.
        node: the image.
        columns: evidence, every node of the model, N rows in the user's form.
        asked: questions about these rows.
        seed: of what abduction draws.
        progress: told of each pass.
    """
    passes = NodePasses(scm, node, seed=seed)
    parts: list[list[_Part]] = [[] for _ in asked]
    for block, rows in batches(len(columns[node])):
        evidence = {name: values[rows] for name, values in columns.items()}
        with warnings.catch_warnings():
            # New values are real ones; that some lie beyond what fitting saw is part of the test.
            warnings.simplefilter("ignore", ExtrapolationWarning)
            key = keyed_seed(seed, "evaluate", block)
            abduction = scm.abduct(evidence, seed=key)
            for place, question in enumerate(asked):
                parts[place].append(
                    _answer(scm, node, abduction, evidence, question, rows, passes, block, key)
                )
                progress.advance(4 * abduction.rows)
    return [_joined(question, each) for question, each in zip(asked, parts, strict=True)]


@dataclass(frozen=True)
class _Part:
    """The answer for a batch."""

    mechanism: Images
    back: NDArray[np.float64]
    model: Images | None
    caused: Columns
    samples: Columns
    model_samples: Columns | None
    seconds: float


def _answer(
    scm: SCM,
    node: str,
    abduction: Abduction,
    evidence: Columns,
    question: Question,
    rows: slice,
    passes: NodePasses,
    block: int,
    seed: int,
) -> _Part:
    shown = {name: values[rows] for name, values in question.shown.items()}
    # Causes that are no single value, such as images or vectors, stay what they are.
    causes = {name: shown.get(name, evidence[name]) for name in scm.graph.parents(node)}
    began = time.perf_counter()
    made = abduction.counterfactual(causes, targets=[node])[node]
    seconds = time.perf_counter() - began
    images = made.cpu().numpy()
    after, before = passes.read({node: images, **causes}), passes.read(evidence)
    home = passes.generate(before, passes.abduct(after[node], after, block=block))
    back = distance(passes.variable, passes.held(home), evidence[node])
    key = keyed_seed(seed, "samples", question.node)
    samples = _sampled(scm, node, causes, question, len(images), key)
    model, caused, model_samples = None, shown, None
    if any(name in scm.graph.descendants([question.node]) - {question.node} for name in causes):
        targets = [node, *question.shown]
        world = abduction.counterfactual({question.node: shown[question.node]}, targets=targets)
        model = world[node].cpu().numpy()
        caused = {name: _array(world[name]) for name in question.shown}
        alone = {question.node: shown[question.node]}
        model_samples = _sampled(scm, node, alone, question, len(images), key)
    return _Part(images, back, model, caused, samples, model_samples, seconds)


def _sampled(scm: SCM, node: str, do: Columns, question: Question, rows: int, seed: int) -> Columns:
    """The image and its causes, of rows sampled under an intervention."""
    targets = [node, *question.shown]
    draws = scm.sample(rows, do=do, targets=targets, seed=seed)
    return {name: _array(draws[name]) for name in targets}


def _joined(question: Question, parts: Sequence[_Part]) -> Answer:
    models = [part.model for part in parts if part.model is not None]
    apart = [part.model_samples for part in parts if part.model_samples is not None]
    return Answer(
        question,
        np.concatenate([part.mechanism for part in parts]),
        np.concatenate([part.back for part in parts]),
        np.concatenate(models) if models else None,
        _stacked([part.caused for part in parts]),
        _stacked([part.samples for part in parts]),
        _stacked(apart) if apart else None,
        sum(part.seconds for part in parts),
    )


def _stacked(parts: Sequence[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _array(values: Any) -> NDArray[Any]:
    return values.cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
