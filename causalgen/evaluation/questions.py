"""Interventions on the causes of an image node, and the counterfactual images that answer them.

Each cause is set to another value, one cause at a time:

    a number     the value of another row: a seeded permutation in one cycle, so that none keeps its own
    a category   uniform over the others

So new values follow their real distribution, and pairs of causes may be ones that no row has. Causes that
were not set keep their factual value, or take the true counterfactual one where the data generator is known.
Each row is abducted once, and all its counterfactuals are predicted from that noise:

    mechanism     the image's mechanism alone, all its causes set to what the image should show
    whole model   one cause set, the model itself makes the others (only where one of them depends on it)
    way back      the mechanism's image and its causes, abducted anew, to the factual causes
    samples       of the model under the same intervention, as many as there are rows: the law that
                  counterfactuals should have, averaged over factuals
    control       the same once more, to compare with the samples and with the counterfactuals
    draws         of few rows several, where the abduction draws; see below

Where the abduction draws, one image has many counterfactuals under the same question. What their spread is
compared with, for row i, asked for the causes c_i:

    own       S draws of f(c_i, u), u ~ p(u | x_i, pa_i)
    others    S draws of f(c_i, u), u ~ p(u | x_j, pa_j), the next row j asked what row i is asked
    samples   2 S draws of f(c_i, u), u ~ p(u): the model's own, half of them for those of another row

So the causes are the same in all three, and what differs is which evidence there was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalgen.counterfactuals.abduction import Abduction
from causalgen.data.table import Table
from causalgen.fitting.parallel import Workers, in_parallel
from causalgen.metrics.image_rows import distance
from causalgen.metrics.node_passes import BATCH_ROWS, NodePasses, batches
from causalgen.scm import SCM
from graphs.errors import DataError, numbered_rows
from graphs.variables import Categorical, Variable
from graphs.variables.arrays import as_array
from mechanisms.extrapolation import extrapolation_expected
from mechanisms.seeds import keyed_seed

__all__ = [
    "Answer",
    "Columns",
    "DRAWS",
    "EvaluatedNode",
    "PASSES",
    "Question",
    "RowDraws",
    "Truth",
    "answer_questions",
    "draw_rows",
    "other_values",
    "passes_of",
    "questions",
]

DRAWS = 4
"""Draws of a row, S."""

PASSES = 5 * DRAWS
"""Of a row and question, for the progress bar: own, others and samples, and the abductions."""

Drawn = NDArray[np.float32]
"""(S, N, C, H, W), in [0, 1]."""

Images = NDArray[np.float32]

Columns = Mapping[str, NDArray[Any]]
"""Values by node in the user's form, N rows each."""

Truth = Callable[[NDArray[np.int64], Columns], Columns]
"""(row numbers of the data, what is set) -> the true counterfactual values of the nodes that it knows."""


@dataclass(frozen=True)
class RowDraws:
    """Draws of N rows under one question, (S or 2 S, N, C, H, W) each; see the module."""

    own: Drawn  # of the row itself
    others: Drawn  # of another row, asked the same
    samples: Drawn  # of the model under the same causes


def draw_rows(
    scm: SCM,
    node: str,
    evidence: Mapping[str, NDArray[Any]],
    asked: Sequence[Mapping[str, NDArray[Any]]],
    *,
    numbers: NDArray[np.int64],
    seed: int,
    workers: Workers,
    advance: Callable[[int], None],
) -> list[RowDraws]:
    """Draws of an image node, whose abduction draws, under several questions; a row is abducted once for all.

    ``evidence`` holds every node of the model, N >= 2 rows, ``asked`` for each question the values of all
    causes of the image. ``numbers`` are those of the rows, (N,), in the data that the user gave; ``advance``
    is told of passes of rows.
    """
    count = len(evidence[node])
    # Parts of nearly equal size: none is left with a single row, which would be its own other one.
    split = np.array_split(np.arange(count), ceil(count * DRAWS / BATCH_ROWS))

    def draw(part: int) -> list[RowDraws]:
        rows, key = split[part], keyed_seed(seed, "draws", part)
        held = {name: values[rows] for name, values in evidence.items()}
        found: list[RowDraws] = []
        with extrapolation_expected(), numbered_rows(numbers[rows]):
            abduction = scm.abduct(held, num_samples=DRAWS, seed=key)
            for place, question in enumerate(asked):
                causes = {name: values[rows] for name, values in question.items()}
                before = {name: np.roll(values, 1, axis=0) for name, values in causes.items()}
                own, others = (
                    abduction.counterfactual(each, targets=[node])[node].cpu().numpy()
                    for each in (causes, before)
                )
                tiled = {name: np.concatenate([values] * 2 * DRAWS) for name, values in causes.items()}
                n = 2 * DRAWS * len(rows)
                samples = scm.sample(n, do=tiled, targets=[node], seed=keyed_seed(key, place))
                drawn = samples[node].cpu().numpy().reshape(2 * DRAWS, *own.shape[1:])
                found.append(RowDraws(own, np.roll(others, -1, axis=1), drawn))
        return found

    def done(part: int) -> None:
        advance(PASSES * len(asked) * len(split[part]))

    def joined(parts: Sequence[RowDraws]) -> RowDraws:
        names = [each.name for each in fields(RowDraws)]
        return RowDraws(*(np.concatenate([getattr(part, name) for part in parts], 1) for name in names))

    drawn = in_parallel(draw, len(split), workers, done=done)
    return [joined(parts) for parts in zip(*drawn, strict=True)]


@dataclass(frozen=True)
class Question:
    """One intervention, on N rows."""

    node: str  # what is set
    values: NDArray[Any]  # to what, (N,)
    shown: Columns  # what the image should show then: the value of each of its causes, (N,)
    known: bool = False  # whether ``shown`` are the true counterfactual values
    # The true counterfactual image, (N, C, H, W) in [0, 1], where it is known
    image: NDArray[Any] | None = None


@dataclass
class EvaluatedNode:
    """One node of a model under evaluation, and the rows that it is evaluated on."""

    scm: SCM  # the model
    node: str  # the node's name
    columns: Columns  # the evaluated rows, every node of the model, (N, ...) each in the user's form
    table: Table  # all rows of the data
    numbers: NDArray[np.int64]  # of the evaluated rows, in the data that were given, (N,)
    seed: int  # of whatever is drawn
    few: NDArray[np.int64]  # places among the N rows of those for what takes many passes, in any order
    notes: list[str] = field(default_factory=list)  # what could not be measured, and why; filled as it goes
    # Told how many rows have made a pass through a mechanism, for the progress bar
    advance: Callable[[int], None] = lambda rows: None

    @property
    def variable(self) -> Variable:
        """Of the node."""
        return self.scm.variables[self.node]

    @property
    def causes(self) -> dict[str, Variable]:
        """The node's causes that are one number or one category."""
        parents = {name: self.scm.variables[name] for name in self.scm.graph.parents(self.node)}
        return {name: variable for name, variable in parents.items() if not variable.event_shape}

    @property
    def factual(self) -> NDArray[Any]:
        """The node's values in the evaluated rows."""
        return self.columns[self.node]

    @property
    def draws(self) -> bool:
        """Whether one row has several counterfactuals under the same question."""
        return not self.scm.mechanisms[self.node].deterministic


@dataclass(frozen=True)
class Answer:
    """The counterfactuals of one intervention."""

    question: Question  # what was asked
    mechanism: Images  # images (N, C, H, W) in [0, 1]
    back: NDArray[np.float64]  # distance of the way back to the factual, (N,), on 0..255
    model: Images | None  # images by the whole model, or None where they are the mechanism's
    caused: Columns  # the values of the image's causes in the whole model's world
    samples: Columns  # the image and its causes, sampled with all causes set as for the mechanism's images
    # Sampled with the question's node set alone; None where it makes none apart
    model_samples: Columns | None
    # Images sampled as ``samples`` are, by other noise; None where there are no samples
    control: Images | None
    seconds: float  # spent on the mechanism's images, abduction included
    draws: RowDraws | None = None  # several of few rows; None where the abduction gives a point


def questions(case: EvaluatedNode, truth: Truth | None) -> list[Question]:
    """One question for each cause of an image node that has another value."""
    columns, causes = case.columns, case.causes
    asked: list[Question] = []
    for name, variable in causes.items():
        if isinstance(variable, Categorical) and variable.size < 2:
            continue
        values = other_values(variable, columns[name], keyed_seed(case.seed, "evaluate", case.node, name))
        known = dict(truth(case.numbers, {name: values})) if truth else {}
        shown = {each: np.asarray(known.get(each, columns[each])) for each in causes} | {name: values}
        asked.append(Question(name, values, shown, truth is not None, known.get(case.node)))
    return asked


def other_values(variable: Variable, values: NDArray[Any], seed: int) -> NDArray[Any]:
    """Another value for each row, (N,) in the user's form; see the head of the module.

    >>> from graphs.variables import Continuous
    >>> other_values(Continuous(), np.array([1.0, 2.0]), seed=0).tolist()
    [2.0, 1.0]
    """
    random = np.random.default_rng(seed)
    if isinstance(variable, Categorical):
        codes = variable.encode(values, where="Values")
        return np.asarray(
            variable.decode((codes + random.integers(1, variable.size, len(codes))) % variable.size)
        )
    if len(values) < 2:
        raise DataError("New values come from other rows: expected at least 2 rows, got 1.")
    order = random.permutation(len(values))
    other = np.empty_like(values)
    other[order] = values[np.roll(order, 1)]
    return other


def passes_of(case: EvaluatedNode, asked: Sequence[Question]) -> int:
    """How many passes over rows answering takes, for the progress bar."""
    return (len(case.factual) * 4 + (len(case.few) * PASSES if case.draws else 0)) * len(asked)


def answer_questions(case: EvaluatedNode, asked: Sequence[Question], workers: Workers) -> list[Answer]:
    """Answer every question about an image node; a batch of rows holds its noise only until that is done.

    Of the few rows several draws are made.
    """
    passes = NodePasses(case.scm, case.node, seed=case.seed)
    blocks = [rows for _, rows in batches(len(case.factual))]

    def answer(block: int) -> list[Answer]:
        rows, key = blocks[block], keyed_seed(case.seed, "evaluate", block)
        evidence = {name: values[rows] for name, values in case.columns.items()}
        # New values are real ones; that some lie beyond what fitting saw is part of the test.
        with extrapolation_expected(), numbered_rows(case.numbers[rows]):
            abduction = case.scm.abduct(evidence, seed=key)
            return [_answer(case, passes, abduction, evidence, each, rows, block, key) for each in asked]

    def done(block: int) -> None:
        case.advance(4 * len(asked) * len(case.factual[blocks[block]]))

    parts = in_parallel(answer, len(blocks), workers, done=done)
    answers = [_joined(each) for each in zip(*parts, strict=True)]
    if not case.draws:
        return answers
    few = case.few
    evidence = {name: values[few] for name, values in case.columns.items()}
    causes = [_causes(case, evidence, question, few) for question in asked]
    drawn = draw_rows(
        case.scm, case.node, evidence, causes,
        numbers=case.numbers[few], seed=case.seed, workers=workers, advance=case.advance,
    )  # fmt: skip
    return [replace(answer, draws=each) for answer, each in zip(answers, drawn, strict=True)]


def _causes(
    case: EvaluatedNode, evidence: Columns, question: Question, rows: slice | NDArray[np.int64]
) -> Columns:
    """All causes of the image under a question; those that are no single value stay what they are."""
    return {
        name: question.shown[name][rows] if name in question.shown else evidence[name]
        for name in case.scm.graph.parents(case.node)
    }


def _answer(
    case: EvaluatedNode,
    passes: NodePasses,
    abduction: Abduction,
    evidence: Columns,
    question: Question,
    rows: slice,
    block: int,
    seed: int,
) -> Answer:
    """The answer for a batch."""
    scm, node = case.scm, case.node
    shown = {name: values[rows] for name, values in question.shown.items()}
    causes = _causes(case, evidence, question, rows)
    began = time.perf_counter()
    made = abduction.counterfactual(causes, targets=[node])[node]
    seconds = time.perf_counter() - began
    images = made.cpu().numpy()
    after, before = passes.read({node: images, **causes}), passes.read(evidence)
    home = passes.generate(before, passes.abduct(after[node], after, block=block))
    back = distance(passes.variable, passes.held(home), evidence[node])
    targets = [node, *question.shown]

    def sampled(do: Columns, use: str = "samples") -> Columns:
        key = keyed_seed(seed, use, question.node)
        draws = scm.sample(len(images), do=do, targets=targets, seed=key)
        return {name: as_array(draws[name], where="Values") for name in targets}

    samples, model, caused, model_samples = sampled(causes), None, shown, None
    control = sampled(causes, "control")[node]
    if any(name in scm.graph.descendants([question.node]) - {question.node} for name in causes):
        alone = {question.node: shown[question.node]}
        world = abduction.counterfactual(alone, targets=targets)
        model = world[node].cpu().numpy()
        caused = {name: as_array(world[name], where="Values") for name in question.shown}
        model_samples = sampled(alone)
    return Answer(question, images, back, model, caused, samples, model_samples, control, seconds)


def _joined(parts: Sequence[Answer]) -> Answer:
    """The answers of all batches as one."""
    first, *rest = fields(Answer)
    joined = {each.name: _stacked([getattr(part, each.name) for part in parts]) for each in rest}
    return Answer(**{first.name: parts[0].question, **joined})


def _stacked(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], dict):
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return None if parts[0] is None else sum(parts)
