"""``causalgen tune``: a strength of guidance chosen on validation rows, its curve, and the tuned model.

OUT/curve.png      CLD and effectiveness against strength
OUT/tuning.json    the same as numbers, with controls
OUT/scm.yaml       the SCM file with the choice
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from causalgen.cli.common import (
    check_preset,
    choice_of_missing,
    column_names,
    console,
    load_model,
    rows_of,
    use_preset,
    use_threads,
)
from causalgen.evaluation.tune import tune
from causalgen.evaluation.tuning import RESULT
from causalgen.metrics.evaluators.storage import load_evaluators
from causalgen.saving.result_folder import check_result_folder
from graphs.errors import CheckpointError

__all__ = ["run_tune"]


def run_tune(
    model: str,
    data: str | None,
    evaluators: str,
    out: Path,
    *,
    node: str | None,
    strengths: Sequence[float] | None,
    rows: int | None,
    min_effectiveness: float,
    save: bool,
    missing: str,
    rename: Sequence[str],
    preset: str | None,
    seed: int,
    device: str | None,
    threads: int | None,
) -> None:
    """Sweep, choose, write."""
    check_result_folder(out, RESULT)
    check_preset(preset)
    drop = choice_of_missing(missing)
    if save and not Path(model).is_dir():
        raise CheckpointError(
            f"--save writes the choice into the model's folder, and {model!r} is none. Leave --save out and "
            f"take the SCM file from {out}."
        )
    use_threads(threads)
    scm = use_preset(load_model(model, device), preset)
    source = rows_of(model, data, column_names(rename, scm, data))
    found = load_evaluators(evaluators)
    given: dict[str, Any] = {"strengths": strengths} if strengths else {}
    tuning = tune(
        scm,
        source,
        found,
        node=node,
        rows=rows,
        min_effectiveness=min_effectiveness,
        seed=seed,
        missing=drop,
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
