"""``causalgen evaluate``: a model and held-out rows -> a report folder with a page.

OUT/index.html    the page; needs no network
OUT/pictures/     its pictures, apart
OUT/report.json   every figure, what was asked and what was evaluated
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from causalgen.cli.common import (
    check_preset,
    choice_of_missing,
    column_names,
    console,
    image_variables,
    load_model,
    rows_of,
    use_preset,
    use_threads,
)
from causalgen.cli.ray_engine import check_shared, shared_workers
from causalgen.data.sources import split_source
from causalgen.datasets import mnist, morphomnist, morphomnist_truth
from causalgen.evaluation.evaluate import evaluate
from causalgen.evaluation.report import REPORT
from causalgen.saving.result_folder import check_result_folder
from graphs.errors import DataError

if TYPE_CHECKING:
    from causalgen.evaluation.questions import Truth
    from causalgen.evaluation.readings import Measures

__all__ = ["read_morphomnist_truth", "run_evaluate"]


def run_evaluate(
    model: str,
    data: str | None,
    out: Path,
    *,
    rows: int | None,
    full: bool,
    evaluators: str | None,
    measures: str | None,
    truth: Path | None,
    missing: str,
    shared: tuple[str, int | None],
    rename: Sequence[str],
    preset: str | None,
    seed: int,
    device: str | None,
    threads: int | None,
) -> None:
    """Evaluate, print the figures, write the folder, and say where the page is."""
    check_result_folder(out, REPORT)
    check_shared(*shared)
    check_preset(preset)
    drop = choice_of_missing(missing)
    use_threads(threads)
    scm = use_preset(load_model(model, device), preset)
    source = rows_of(model, data, column_names(rename, scm, data))
    found = None
    if evaluators is not None:
        from causalgen.metrics.evaluators.storage import load_evaluators

        found = load_evaluators(evaluators)
    known = None
    if truth is not None:
        images = list(image_variables(scm))
        if len(images) != 1:
            raise DataError(f"--truth needs a model with one image node, this one has {len(images)}.")
        known = read_morphomnist_truth(data or "", truth, images[0])
    with shared_workers(*shared, threads=threads) as workers:
        report = evaluate(
            scm,
            source,
            rows=rows,
            full=full,
            evaluators=found,
            measures=cast("Measures | None", measures),  # what it may be is said by the evaluation
            truth=known,
            seed=seed,
            missing=drop,
            workers=workers,
        )
    say = console().print
    say(str(report))
    say(str(report.save(out).resolve()))


def read_morphomnist_truth(data: str, mnist_folder: Path | str, image: str) -> Truth:
    """``morphomnist_truth`` of a set named as ``morphomnist:DIR`` or ``morphomnist:DIR:test``.

    Raises:
        DataError: the data are another set, or MNIST's files are not there.
    """
    if not data.startswith("morphomnist:"):
        raise DataError(
            f"True counterfactuals are known of morphomnist:DIR, got --data {data}. Leave --truth out."
        )
    folder, split = split_source(data)
    return morphomnist_truth(morphomnist(folder, split), mnist(mnist_folder, split)["image"], image)
