"""``causalgen check``, ``evaluate`` and ``tune``: a model held to rows.

check      whether it agrees with them; see ``scm.check``
evaluate   a report folder: index.html, which needs no network, its pictures apart, and report.json, every
           figure, what was asked and what was evaluated
tune       a strength of guidance chosen on validation rows: curve.png, CLD and effectiveness against
           strength, tuning.json, the same as numbers, with controls, and scm.yaml with the choice
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from causalgen.cli import options as opt
from causalgen.evaluation import STRENGTHS
from graphs.errors import CheckpointError, DataError, SpecError

if TYPE_CHECKING:
    from causalgen.evaluation.questions import Truth

__all__ = ["FOUND", "check", "evaluate", "read_morphomnist_truth", "tune"]

FOUND = 3
"""Exit code where something speaks against the model."""

_SPAN = f"{min(STRENGTHS):g} to {max(STRENGTHS):g}"


def check(
    model: opt.ModelName,
    data: opt.GivenRows = None,
    out: Annotated[Path | None, typer.Option(help="Write the report to this JSON too.")] = None,
    level: Annotated[
        float, typer.Option(help="Of checks of a true model, at most this share reports a problem.")
    ] = 0.01,
    missing: opt.Missing = "refuse",
    rename: opt.Rename = None,
    intervened: opt.Intervened = None,
    seed: opt.Seed = 0,
    device: opt.Device = None,
    threads: opt.Threads = None,
) -> None:
    """Test whether a model agrees with rows: its fit and its independences. Exit code 3 where it does not."""
    from causalgen.cli.common import load_model, rows_of, say, write_file

    scm = load_model(model, device, threads=threads)
    rows = rows_of(model, scm, data, rename, intervened)
    report = scm.check(rows, seed=seed, level=level, missing=missing)
    say(report)
    if out is not None:
        write_file(out, json.dumps(report.to_dict(), indent=2, allow_nan=False).encode())
        say(out.resolve())
    if not report.ok:
        sys.exit(FOUND)


def evaluate(
    model: opt.ModelName,
    data: opt.GivenRows = None,
    out: opt.Out = Path("evaluation"),
    rows: Annotated[
        int | None, typer.Option(min=2, help="How many rows to evaluate; 200 by default.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Evaluate all rows: hours, not minutes.")] = False,
    evaluators: Annotated[
        str | None,
        typer.Option(
            "--evaluators", "--judges", help="Networks that read images: a data set's name, or a folder."
        ),
    ] = None,
    measures: Annotated[
        Literal["strokes", "pendulum"] | None,
        typer.Option(
            help="What to measure on images without a network: strokes of characters, or the pendulum."
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(help="MNIST's folder, for the true counterfactuals of --data morphomnist:DIR."),
    ] = None,
    missing: opt.Missing = "refuse",
    workers: opt.SharedWorkers = None,
    engine: opt.SharedBy = "processes",
    rename: opt.Rename = None,
    preset: opt.Preset = None,
    seed: opt.Seed = 0,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    threads: opt.Threads = None,
) -> None:
    """Evaluate a model on held-out rows: every metric beside its controls, as a page."""
    from causalgen.cli.common import load_model, rows_of, say
    from causalgen.cli.ray_engine import require_ray, shared_workers
    from causalgen.evaluation.evaluate import evaluate as evaluate_model
    from causalgen.evaluation.report import REPORT
    from causalgen.metrics.evaluators.storage import load_evaluators
    from causalgen.saving.manifest import check_result_folder
    from graphs.variables import image_variables

    check_result_folder(out, REPORT)
    require_ray(engine)
    scm = load_model(model, device, preset, dtype=dtype, threads=threads)
    source = rows_of(model, scm, data, rename)
    found = None if evaluators is None else load_evaluators(evaluators)
    known = None
    if truth is not None:
        images = list(image_variables(scm.variables))
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
    say(report)  # of a long run, whether or not it can be saved
    say(report.save(out).resolve())


def read_morphomnist_truth(data: str, mnist_folder: Path | str, image: str) -> Truth:
    """``morphomnist_truth`` of a set named as ``morphomnist:DIR`` or ``morphomnist:DIR:test``."""
    from causalgen.data.sources import split_source
    from causalgen.datasets import mnist, morphomnist, morphomnist_truth

    if not data.startswith("morphomnist:"):
        raise DataError(
            f"True counterfactuals are known of --data morphomnist:DIR, got {data or 'no --data'}. Leave "
            "--truth out."
        )
    folder, split = split_source(data)
    return morphomnist_truth(morphomnist(folder, split), mnist(mnist_folder, split)["image"], image)


def tune(
    model: opt.SavedModel,
    out: opt.Out,
    data: opt.GivenRows = None,
    evaluators: Annotated[
        str,
        typer.Option("--evaluators", "--judges", help="Networks that score: a data set's name, or a folder."),
    ] = "mnist",
    node: Annotated[str | None, typer.Option(help="The image node, where there are several.")] = None,
    strength: Annotated[
        list[float] | None, typer.Option(help=f"A strength to try; repeat for each. {_SPAN} by default.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=2, help="How many rows to try them on; 100 by default.")
    ] = None,
    min_effectiveness: Annotated[
        float, typer.Option(min=0, max=1, help="Share of rows that must show what was asked for.")
    ] = 0.95,
    save: Annotated[bool, typer.Option("--save", help="Write the choice into the model's folder.")] = False,
    missing: opt.Missing = "refuse",
    rename: opt.Rename = None,
    preset: opt.Preset = None,
    seed: opt.Seed = 0,
    device: opt.Device = None,
    threads: opt.Threads = None,
) -> None:
    """Choose the strength of guidance on validation rows: of those that are effective, that of least CLD."""
    from causalgen.cli.common import load_model, rows_of, say
    from causalgen.evaluation.tune import tune as tune_model
    from causalgen.evaluation.tuning import RESULT
    from causalgen.metrics.evaluators.storage import load_evaluators
    from causalgen.saving.manifest import check_result_folder

    check_result_folder(out, RESULT)
    if save and not Path(model).is_dir():
        raise CheckpointError(
            f"--save writes the choice into the model's folder, and {model!r} is none. Leave --save out and "
            f"take the SCM file from {out}."
        )
    if save and preset is not None:
        raise SpecError(
            f"--save would write all of --preset {preset} into the model's folder, not the strength alone, "
            f"which is chosen for that preset. Leave one of them out; the SCM file in {out} has both."
        )
    scm = load_model(model, device, preset, threads=threads)
    source = rows_of(model, scm, data, rename)
    found = load_evaluators(evaluators)
    given: dict[str, Any] = {"strengths": strength} if strength else {}
    tuning = tune_model(
        scm,
        source,
        found,
        node=node,
        rows=rows,
        min_effectiveness=min_effectiveness,
        seed=seed,
        missing=missing,
        **given,
    )
    tuned = tuning.apply(scm)
    tuning.save(out, scm=tuned)
    say(tuning, out.resolve())
    if save:
        card = Path(model) / "README.md"
        tuned.save_pretrained(model, card=card.read_text(encoding="utf-8") if card.is_file() else None)
        say(f"{Path(model).resolve()} now has {tuning.option} {tuning.best.strength:g}.")
