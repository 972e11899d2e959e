"""``causalgen tune``: a strength of guidance chosen on validation rows, its curve, and the tuned model.

OUT/curve.png      CLD and effectiveness against strength
OUT/tuning.json    the same as numbers, with controls
OUT/scm.yaml       the SCM file with the choice
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from causalgen.cli.options import Device, GivenRows, Missing, Out, Preset, Rename, Seed, Threads
from causalgen.evaluation import STRENGTHS
from graphs.errors import CheckpointError

__all__ = ["tune"]

_SPAN = f"{min(STRENGTHS):g} to {max(STRENGTHS):g}"


def tune(
    model: Annotated[str, typer.Argument(help="A gallery name or a saved model's folder.")],
    out: Out,
    data: GivenRows = None,
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
    missing: Missing = "refuse",
    rename: Rename = None,
    preset: Preset = None,
    seed: Seed = 0,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Choose the strength of guidance on validation rows: effective first, then of least divergence (CLD)."""
    from causalgen.cli.common import console, load_model, rows_of, use_threads
    from causalgen.evaluation.tune import tune as tune_model
    from causalgen.evaluation.tuning import RESULT
    from causalgen.metrics.evaluators.storage import load_evaluators
    from causalgen.saving.result_folder import check_result_folder

    check_result_folder(out, RESULT)
    if save and not Path(model).is_dir():
        raise CheckpointError(
            f"--save writes the choice into the model's folder, and {model!r} is none. Leave --save out and "
            f"take the SCM file from {out}."
        )
    use_threads(threads)
    scm = load_model(model, device, preset)
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
    say = console().print
    say(str(tuning))
    say(str(out.resolve()))
    if save:
        card = Path(model) / "README.md"
        tuned.save_pretrained(model, card=card.read_text(encoding="utf-8") if card.is_file() else None)
        say(f"{Path(model).resolve()} now has {tuning.option} {tuning.best.strength:g}.")
