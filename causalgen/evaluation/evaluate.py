"""``cg.evaluate``: held-out evaluation of a fitted model, every metric with its controls.

Without ``full`` it is a matter of minutes: at most 200 rows; composition of images, and several draws of one
image, on 32 of them. With it every row is used, and 1,000 for these. Rows are drawn at random, whatever their
order. Real images to compare with are taken from all rows, at most 10,000.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from causalgen.arguments import renamed, whole_number
from causalgen.counterfactuals.mutilated_model import refuse_unfitted
from causalgen.data.reading import read_data
from causalgen.data.table import Table
from causalgen.evaluation.metric import Metric, NodeEvaluation, Pool, chosen_metrics, composition_passes
from causalgen.evaluation.pictures import node_pictures
from causalgen.evaluation.questions import Columns, Truth, answer_questions, passes_of, questions
from causalgen.evaluation.readings import Measures, find_readings
from causalgen.evaluation.report import EvaluatedModel, EvaluationReport
from causalgen.fitting.parallel import Workers, check_workers
from causalgen.fitting.progress import Progress
from causalgen.metrics.axioms import Reader
from causalgen.metrics.evaluators.evaluators import Evaluators
from causalgen.metrics.evaluators.storage import load_evaluators
from causalgen.scm import SCM
from graphs.errors import DataError, DomainError
from graphs.variables import Image, Variable, image_variables
from mechanisms.seeds import keyed_generator

__all__ = ["chosen_rows", "evaluate", "held_rows", "prepare_image"]

_ROWS, _FEW = 200, 32
_FULL_FEW = 1000
_POOL = 10_000
_CHECKED = 20
"""Fewest rows that ``scm.check`` looks at."""


@renamed(judges="evaluators")
def evaluate(
    scm: SCM,
    data: Any,
    *,
    rows: int | None = None,
    full: bool = False,
    evaluators: Evaluators | Path | str | Mapping[str, Reader] | None = None,
    measures: Measures | None = None,
    truth: Truth | None = None,
    metrics: Iterable[str | Metric] | None = None,
    seed: int = 0,
    missing: Literal["refuse", "drop"] = "refuse",
    workers: Workers = 1,
    progress: bool = True,
) -> EvaluationReport:
    """Hold a fitted model to held-out rows: every metric, with its controls beside it.

    Args:
        scm: the model.
        data: as for ``scm.fit``; rows that it was not fitted on.
        rows: how many to evaluate; 200 where None, or all of them with ``full``.
        full: all rows, and composition of images on 1,000 of them: hours on a CPU, not minutes.
        evaluators: what reads causes from images: trained networks or their name or folder, or cause ->
            predictor (``metrics.effectiveness``) that guidance never saw. Of several image nodes those that
            they fit are read, and a note names the others.
        measures: what is measured on images without a network: attribute -> function such as
            ``metrics.thickness``, "strokes" for Morpho-MNIST's thickness, slant, size and intensity, or
            "pendulum" for the causes of ``datasets.pendulum``.
        truth: (row numbers of the data, what is set) -> values of nodes in the true counterfactual world,
            where the data generator is known.
        metrics: kinds of registered metrics, or ``Metric`` objects; all that are registered where None.
        seed: of rows, new values and draws; the same one gives the same report.
        missing: "refuse" rows that lack a value, or "drop" them, all, but in the check, whose tests leave out
            those that lack what they read; a note of the report counts them.
        workers: who share the counterfactuals of images, which take longest: a number of processes, or a
            pool; see ``causalgen.fitting.parallel``. The speed that the report tells is that of one worker.
        progress: show progress.

    Returns:
        The report: print it, or ``report.save(folder)`` a page.

    Raises:
        DataError: the data are wrong, or have fewer rows than asked for.
        NotFittedError: a mechanism has not been fitted.
        DomainError, ShapeError: an evaluator of another variable.
        UnknownNameError: no metric of that kind.
        InterventionError: the model was intervened on by a function.
    """
    began = time.perf_counter()
    seed = whole_number(seed, "evaluate: seed")
    rows = None if rows is None else whole_number(rows, "evaluate: rows", least=1)
    check_workers(workers)
    if isinstance(evaluators, Path | str):
        evaluators = load_evaluators(evaluators)
    scm._world.refuse_natural("data do", "Evaluate")
    computed = chosen_metrics(metrics)
    given = read_data(data, scm.variables, missing=missing, nodes=scm.variables)
    table = given.complete(list(scm.variables))
    refuse_unfitted(scm.mechanisms, "evaluate")
    chosen = chosen_rows(table.rows, rows, full, seed, dropped=given.rows - table.rows)
    columns = held_rows(table, scm.variables, chosen)
    # Any of them, not the first: data may lie in the order of their labels.
    few = _permutation(len(chosen), seed)[: _FULL_FEW if full else _FEW]
    numbers, notes = table.numbers[chosen], list[str]()
    if dropped := given.rows - table.rows:
        notes.append(f"{dropped:,} of the {given.rows:,} rows of the data lack a value and were left out.")
    cases = dict[str, NodeEvaluation]()
    refused = dict[str, DataError | DomainError]()
    for node, variable in scm.variables.items():
        case = cases[node] = NodeEvaluation(scm, node, columns, table, numbers, seed, few, notes)
        if not isinstance(variable, Image):
            continue
        own = _readers_of(scm, node, evaluators)
        # What does not fit may be for another image node.
        tries: list[tuple[Any, Measures | None]]
        tries = [(own, measures), (own, None), (None, measures), (None, None)]
        for each in tries:
            try:
                prepare_image(case, chosen, *each)
                break
            except (DataError, DomainError) as error:
                refused.setdefault(node, error)
    images = {node: case for node, case in cases.items() if case.pool is not None}
    if refused and len(refused) == len(images):
        raise next(iter(refused.values()))
    notes += [f"{node}: {error}" for node, error in refused.items()]
    asked = {node: questions(case, truth) for node, case in images.items()}
    total = composition_passes(scm, len(chosen), len(few))
    total += sum(passes_of(images[node], each) for node, each in asked.items())
    entries, pictures, speed = [], {}, {}
    with Progress("evaluate", total, enabled=progress) as bar:
        for node, case in cases.items():
            case.advance = bar.advance
            if each := asked.get(node):
                bar.begin(f"counterfactuals of {node}")
                case.answers = answer_questions(case, each, workers)
                seconds = sum(answer.seconds for answer in case.answers)
                speed[node] = len(chosen) * len(each) / seconds if seconds else float("inf")
            bar.begin(f"metrics of {node}")
            found = [entry for metric in computed for entry in metric.measure(case)]
            entries += found
            if node in images:
                pictures |= node_pictures(case, found)
                case.answers = []
        bar.begin("fit")
        check = None
        if table.rows >= _CHECKED:
            checked = scm.check(given, seed=seed, missing=missing)
            check = checked.to_dict()
            # Those of fit come first, and stand in the table of fits.
            misfits = sum(not fit.holds for fit in checked.fits.values())
            notes += [f"scm.check: {problem}" for problem in checked.problems[misfits:]]
        else:
            notes.append(f"scm.check needs {_CHECKED} rows, the data have {table.rows}.")
    return EvaluationReport(
        EvaluatedModel.of(scm, {node: (case.causes, case.readings) for node, case in images.items()}),
        rows=len(chosen),
        available=table.rows,
        composed=len(few),
        seed=seed,
        truth=truth is not None,
        entries=tuple(entries),
        check=check,
        notes=tuple(notes),
        images_per_second=speed,
        seconds=time.perf_counter() - began,
        pictures=pictures,
    )


def _readers_of(
    scm: SCM, node: str, given: Evaluators | Mapping[str, Reader] | None
) -> Evaluators | Mapping[str, Reader] | None:
    """What is to read an image node: of predictors by cause, not those of other image nodes' causes alone."""
    if not isinstance(given, Mapping):
        return given
    parents, images = scm.graph.parents, image_variables(scm.variables)
    others = {name for image in images for name in parents(image)} - {*parents(node)}
    return {name: reader for name, reader in given.items() if name not in others}


def prepare_image(
    case: NodeEvaluation,
    chosen: NDArray[np.int64],
    evaluators: Evaluators | Mapping[str, Reader] | None,
    measures: Measures | None,
) -> None:
    """Give the case of an image node what reads its causes, and real images; ``chosen`` are evaluated."""
    node, table, variable = case.node, case.table, case.variable
    assert isinstance(variable, Image)
    case.readings = find_readings(variable, case.causes, evaluators, measures)
    if unset := [name for name in case.scm.graph.parents(node) if name not in case.causes]:
        case.note(
            f"{node}: {', '.join(unset)} not set, so whether do({unset[0]}) works was not measured: an "
            "evaluation sets causes of one number or one category."
        )
    if unread := case.readings.unread(case.causes):
        case.note(
            f"{node}: nothing reads {', '.join(unread)} from the image, so whether do({unread[0]}) works was "
            "not measured. Give evaluators or measures."
        )
    rows = np.union1d(chosen, _permutation(table.rows, case.seed)[: max(_POOL, len(chosen))])
    variables: dict[str, Variable] = {node: variable, **case.causes}
    case.pool = Pool(held_rows(table, variables, rows), np.searchsorted(rows, chosen))


def chosen_rows(
    available: int, rows: int | None, full: bool, seed: int, *, dropped: int = 0
) -> NDArray[np.int64]:
    """Sorted row numbers: the first of a seeded permutation; ``dropped`` were left out before."""
    complete = f" without missing values, of {available + dropped:,}" if dropped else ""
    if rows is not None and not 2 <= rows <= available:
        raise DataError(
            f"The data have {available:,} rows{complete}: an evaluation takes 2 to all of them, got {rows}."
        )
    if available < 2:
        raise DataError(f"An evaluation takes at least 2 rows, got {available}{complete}.")
    count = rows if rows is not None else available if full else min(available, _ROWS)
    return np.sort(_permutation(available, seed)[:count])


def _permutation(rows: int, seed: int) -> NDArray[np.int64]:
    return torch.randperm(rows, generator=keyed_generator(seed, "evaluate", "rows")).numpy()


def held_rows(table: Table, variables: Mapping[str, Variable], rows: NDArray[np.int64]) -> Columns:
    """Rows of a checked table in the user's form; images as floats in [0, 1]."""
    held: dict[str, NDArray[Any]] = {}
    for node, variable in variables.items():
        values = table[node][rows]
        if values.dtype == np.uint8:
            held[node] = values.astype(np.float32) / np.float32(255)
        else:
            held[node] = np.asarray(variable.decode(values))
    return held
