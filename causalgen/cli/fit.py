"""``causalgen fit``: an SCM file and data -> a saved model with its card."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from causalgen.cli.options import Out, Rename, Resume, RunDir, Seed, Threads, TrainingRows
from graphs.errors import CheckpointError

if TYPE_CHECKING:
    from causalgen.fitting.fit_report import FitReport, NodeReport
    from causalgen.scm import SCM

__all__ = ["check_place", "fit", "kept_run"]

_CODE = "code: "
"""Begins the names of figures of a style code, which should be no better than chance."""


def fit(
    file: Annotated[Path, typer.Argument(help="An SCM file.")],
    data: TrainingRows,
    out: Out,
    node: Annotated[
        list[str] | None,
        typer.Option(help="Fit only this node now; may be repeated. --resume does the rest."),
    ] = None,
    seed: Seed = 0,
    run_dir: RunDir = None,
    resume: Resume = False,
    missing: Annotated[
        Literal["refuse", "drop"],
        typer.Option(help="Rows that lack a value: refuse, or drop for the nodes that need it."),
    ] = "refuse",
    start: Annotated[
        str | None, typer.Option(help="A model whose weights trained nodes start from: a name or a folder.")
    ] = None,
    rename: Rename = None,
    threads: Threads = None,
) -> None:
    """Fit a model to data and save it."""
    from causalgen.cli.common import card_source, column_names, console, recipe, tell_unused, use_threads
    from causalgen.data.frames import present_columns
    from causalgen.data.reading import Renamed
    from causalgen.fitting.runtime import is_first
    from causalgen.scm import SCM

    use_threads(threads)
    scm = SCM.from_yaml(file)
    check_place(out)
    columns = column_names(rename, scm, data)
    if Path(data).is_file():
        named = {columns.get(name, name): variable for name, variable in scm.variables.items()}
        tell_unused(Path(data), present_columns(Path(data), named, named)[1])
    with kept_run(run_dir, out) as run:
        scm.fit(
            Renamed(data, columns),
            nodes=node or None,
            seed=seed,
            run_dir=run,
            resume=resume,
            missing=missing,
            start=start,
        )
    assert scm.fit_report is not None
    if not is_first():
        return  # the first of several processes tells and saves
    say = console().print
    say(str(scm.fit_report))
    for line in _recovery(scm.fit_report):
        say(line)
    left = [name for name, mechanism in scm.mechanisms.items() if not mechanism.fitted]
    if left:
        say(f"Not fitted yet: {', '.join(left)}. --resume without --node does the rest.")
        say(str(run.resolve()))
        return
    source, dropped = card_source(data), missing if missing != "refuse" else None
    options = {"data": source, "out": out.name, "seed": seed, "missing": dropped, "start": start or None}
    command = recipe("fit", file.name, options, rename)
    scm.save_pretrained(out, card=_card(scm, scm.fit_report, source, command))
    say(str(out.resolve()))


@contextmanager
def kept_run(run_dir: Path | None, out: Path) -> Iterator[Path]:
    """The run folder, OUT.run by default; an interrupt says that it is kept. Afterwards processes part."""
    from causalgen.fitting.runtime import leave_processes

    run = run_dir if run_dir is not None else out.with_name(out.name + ".run")
    try:
        yield run
        leave_processes()
    except KeyboardInterrupt as interrupt:
        if (run / "run.json").exists():
            interrupt.args = (f"The run is kept in {run}: go on with --resume.",)
        raise


def check_place(out: Path) -> None:
    """Refuse before the training what saving would refuse after it."""
    from causalgen.saving.checkpoint import MODEL

    MODEL.check_place(out)
    parent = next(each for each in out.resolve().parents if each.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise CheckpointError(
            f"Cannot save the model in {out}: {parent} is not a folder that can be written."
        )


def _recovery(report: FitReport) -> Iterator[str]:
    """How well each cause is recovered from what it causes, on held-out rows."""
    for node, each in report.items():
        for cause, measure, value, chance in _predictors(each):
            if cause.startswith(_CODE):
                told = f"{cause.removeprefix(_CODE)} told by the code of {node}"
                yield f"{told}: {measure} {value:.4g}, by chance {chance:.4g}"
                continue
            yield f"{cause} recovered from {node}: {measure} {value:.4g}, by chance {chance:.4g}"
            if value <= chance if measure == "accuracy" else value >= chance:
                yield (
                    f"warning: {cause} cannot be recovered from {node} better than by chance, "
                    "so guidance by the predictor says nothing about it"
                )


def _predictors(report: NodeReport) -> Iterator[tuple[str, str, float, float]]:
    """Cause, measure, value and chance of what predicts causes, among a node's figures."""
    for name, value in report.figures.items():
        cause, _, measure = name.rpartition(" ")
        if measure in ("accuracy", "error") and f"{cause} chance" in report.figures:
            yield cause, measure, value, report.figures[f"{cause} chance"]


def _card(scm: SCM, report: FitReport, data: str, command: str) -> str:
    """The model's README: what it is, how it was made, how well it does."""
    import torch

    from graphs.text import markdown

    lines = [f"# {markdown(scm.name or 'An SCM')}", "", "```", scm.describe(), "```", ""]
    lines += [
        "## Data",
        "",
        f"`{data}`. Say here what the data are, where they come from, and their licence.",
        "",
    ]
    lines += [
        "## Recipe",
        "",
        f"    {command}",
        "",
        f"torch {torch.__version__} on {platform.machine()}; the settings are in `scm.yaml`.",
        "",
    ]
    lines += ["## Figures", "", "Held-out rows, unless said otherwise.", ""]
    lines += [f"- {markdown(line)}" for line in [*str(report).splitlines(), *_recovery(report)]]
    return "\n".join([*lines, ""])
