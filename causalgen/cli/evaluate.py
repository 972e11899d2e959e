"""``causalgen evaluate``: a model and held-out rows -> a report folder with a page.

OUT/index.html    the page; needs no network
OUT/pictures/     its pictures, apart
OUT/report.json   every figure, what was asked and what was evaluated
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from causalgen.cli.options import (
    Device,
    GivenRows,
    Missing,
    ModelName,
    Out,
    Preset,
    Rename,
    Seed,
    SharedBy,
    SharedWorkers,
    Threads,
)
from graphs.errors import DataError

if TYPE_CHECKING:
    from causalgen.evaluation.questions import Truth

__all__ = ["evaluate", "read_morphomnist_truth"]


def evaluate(
    model: ModelName,
    data: GivenRows = None,
    out: Out = Path("evaluation"),
    rows: Annotated[int | None, typer.Option(min=2, help="How many rows; 200 by default.")] = None,
    full: Annotated[bool, typer.Option("--full", help="All rows: hours, not minutes.")] = False,
    evaluators: Annotated[
        str | None,
        typer.Option(
            "--evaluators", "--judges", help="Networks that read images: a data set's name, or a folder."
        ),
    ] = None,
    measures: Annotated[
        Literal["strokes", "pendulum"] | None,
        typer.Option(help="What to measure on images; strokes are those of drawn characters."),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="MNIST's folder: true counterfactuals of --data morphomnist:DIR.")
    ] = None,
    missing: Missing = "refuse",
    workers: SharedWorkers = None,
    engine: SharedBy = "processes",
    rename: Rename = None,
    preset: Preset = None,
    seed: Seed = 0,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Hold a model to held-out rows: every metric with its controls, as a page."""
    from causalgen.cli.common import console, image_variables, load_model, rows_of, use_threads
    from causalgen.cli.ray_engine import require_ray, shared_workers
    from causalgen.evaluation.evaluate import evaluate as evaluate_model
    from causalgen.evaluation.report import REPORT
    from causalgen.metrics.evaluators.storage import load_evaluators
    from causalgen.saving.result_folder import check_result_folder

    check_result_folder(out, REPORT)
    require_ray(engine)
    use_threads(threads)
    scm = load_model(model, device, preset)
    source = rows_of(model, scm, data, rename)
    found = None if evaluators is None else load_evaluators(evaluators)
    known = None
    if truth is not None:
        images = list(image_variables(scm))
        if len(images) != 1:
            raise DataError(f"--truth needs a model with one image node, this one has {len(images)}.")
        known = read_morphomnist_truth(data or "", truth, images[0])
    with shared_workers(engine, workers, threads=threads) as shared:
        report = evaluate_model(
            scm,
            source,
            rows=rows,
            full=full,
            evaluators=found,
            measures=measures,
            truth=known,
            seed=seed,
            missing=missing,
            workers=shared,
        )
    say = console().print
    say(str(report))
    say(str(report.save(out).resolve()))


def read_morphomnist_truth(data: str, mnist_folder: Path | str, image: str) -> Truth:
    """``morphomnist_truth`` of a set named as ``morphomnist:DIR`` or ``morphomnist:DIR:test``."""
    from causalgen.data.sources import split_source
    from causalgen.datasets import mnist, morphomnist, morphomnist_truth

    if not data.startswith("morphomnist:"):
        raise DataError(
            f"True counterfactuals are known of morphomnist:DIR, got --data {data}. Leave --truth out."
        )
    folder, split = split_source(data)
    return morphomnist_truth(morphomnist(folder, split), mnist(mnist_folder, split)["image"], image)
