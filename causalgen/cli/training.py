"""``causalgen fit``, ``distil`` and ``evaluators``: what is made of training rows and saved with a card."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from causalgen.cli import options as opt
from graphs.errors import CheckpointError, SpecError, UnknownNameError
from graphs.text import counted

if TYPE_CHECKING:
    from causalgen.fitting.fit_report import FitReport
    from causalgen.scm import SCM
    from graphs.variables import Variable

__all__ = ["check_place", "distil", "evaluators", "fit", "kept_run"]

_CODE = "code: "
"""Begins the names of figures of a style code, which should be no better than chance."""


def fit(
    file: Annotated[Path, typer.Argument(help="An SCM file.")],
    data: opt.TrainingRows,
    out: opt.Out,
    node: Annotated[
        list[str] | None,
        typer.Option(help="Fit only this node now; may be repeated. A later --resume fits the rest."),
    ] = None,
    seed: opt.Seed = 0,
    run_dir: opt.RunDir = None,
    resume: opt.Resume = False,
    missing: Annotated[
        Literal["refuse", "drop"],
        typer.Option(help="Refuse rows that lack a value, or drop them for the nodes that need it."),
    ] = "refuse",
    start: Annotated[
        str | None, typer.Option(help="A model, by its name or folder, from whose weights training starts.")
    ] = None,
    rename: opt.Rename = None,
    intervened: opt.Intervened = None,
    dtype: Annotated[
        Literal["float16", "bfloat16"] | None,
        typer.Option(help="Save the weights that denoise images in 16 bits, which take half the space."),
    ] = None,
    threads: opt.Threads = None,
) -> None:
    """Fit a model to data and save it."""
    from causalgen.cli.assignments import parse_intervened
    from causalgen.cli.common import card_source, column_names, recipe, say, tell_unused, use_threads
    from causalgen.data.frames import present_columns
    from causalgen.data.reading import Rows
    from causalgen.fitting.runtime import is_first
    from causalgen.scm import SCM
    from mechanisms.networks import chosen_dtype

    use_threads(threads)
    scm = SCM.from_yaml(file)
    if dtype is not None:
        # Refused now, not after the training.
        chosen_dtype([each for node in scm.mechanisms.values() for each in node.large_networks], dtype)
    check_place(out)
    columns, marks = column_names(rename, scm, data), parse_intervened(intervened, scm.variables)
    if Path(data).is_file():
        named = {columns.get(name, name): variable for name, variable in scm.variables.items()}
        unused = present_columns(Path(data), named, named)[1]
        tell_unused(Path(data), [column for column in unused if column not in marks.values()])
    with kept_run(run_dir, out) as run:
        scm.fit(
            Rows(data, columns, marks),
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
    say(scm.fit_report, *_recovery(scm.fit_report))
    left = [name for name, mechanism in scm.mechanisms.items() if not mechanism.fitted]
    if left:
        say(f"Not fitted yet: {', '.join(left)}. --resume without --node does the rest.", run.resolve())
        return
    source, dropped = card_source(data), missing if missing != "refuse" else None
    begun = card_source(start) if start else None
    options = {"data": source, "out": out.name, "seed": seed, "missing": dropped, "start": begun}
    command = recipe("fit", file.name, options | {"dtype": dtype, "intervened": intervened}, rename)
    if dtype is not None:
        scm.to(dtype=dtype)
    scm.save_pretrained(out, card=_fit_card(scm, scm.fit_report, source, command))
    say(out.resolve())


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
    from causalgen.saving.pretrained import MODEL

    MODEL.check_place(out)
    parent = next(each for each in out.resolve().parents if each.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise CheckpointError(
            f"Cannot save the model in {out}: {parent} is not a folder that can be written."
        )


def _recovery(report: FitReport) -> Iterator[str]:
    """How well each cause is recovered from what it causes, on held-out rows."""
    for node, each in report.items():
        for name, value in each.figures.items():
            cause, _, measure = name.rpartition(" ")
            chance = each.figures.get(f"{cause} chance")
            if chance is None or measure not in ("accuracy", "error"):
                continue
            told = f"{cause} recovered from {node}"
            if cause.startswith(_CODE):
                told = f"{cause.removeprefix(_CODE)} told by the code of {node}"
            rows = counted(each.held_out, "held-out row")
            yield f"{told}: {measure} {value:.4g}, by chance {chance:.4g} ({rows})"


def _fit_card(scm: SCM, report: FitReport, data: str, command: str) -> str:
    """The model's README: what it is, how it was made, how well it does."""
    import torch

    from graphs.text import markdown

    about = f"`{data}`. Say here what the data are, where they come from, and their licence."
    made_with = f"torch {torch.__version__} on {platform.machine()}; the settings are in `scm.yaml`."
    lines = [f"# {markdown(scm.name or 'An SCM')}", "", "```", scm.describe(), "```", ""]
    lines += ["## Data", "", about, "", "## Recipe", "", f"    {command}", "", made_with, ""]
    lines += ["## Figures", "", "Held-out rows, unless said otherwise.", ""]
    lines += [f"- {markdown(line)}" for line in [*str(report).splitlines(), *_recovery(report)]]
    return "\n".join([*lines, ""])


def distil(
    model: opt.SavedModel,
    data: opt.TrainingRows,
    out: opt.Out,
    node: Annotated[str | None, typer.Option(help="The image node, where there are several.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, max=16, help="Jumps each way; 2 by default.")] = None,
    rows: Annotated[int | None, typer.Option(min=2, help="Training rows, at most; 12000 by default.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over them; 14 by default.")] = None,
    seed: opt.Seed = 0,
    run_dir: opt.RunDir = None,
    resume: opt.Resume = False,
    rename: opt.Rename = None,
    threads: opt.Threads = None,
) -> None:
    """Teach the denoiser of an image node to answer in a few evaluations: a new model, of solver jumps."""
    from causalgen.cli.common import card_source, column_names, load_model, recipe, say
    from causalgen.data.reading import Rows
    from causalgen.fitting.distilling import distil as distilled
    from causalgen.fitting.runtime import is_first
    from causalgen.saving.pretrained import model_folder
    from graphs.text import markdown

    scm = load_model(model, threads=threads)
    check_place(out)
    given = {"steps": steps, "rows": rows}
    source = Rows(data, column_names(rename, scm, data))
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if epochs is not None:
        options["training"] = {"epochs": epochs}
    with kept_run(run_dir, out) as run:
        made = distilled(scm, source, node=node, options=options, seed=seed, run_dir=run, resume=resume)
    if not is_first():
        return
    say(made.fit_report)
    asked = {
        "data": card_source(data),
        "out": out.name,
        "node": node,
        **given,
        "epochs": epochs,
        "seed": seed,
    }
    command = recipe("distil", card_source(model), asked, rename)
    card = [f"# {markdown(made.name or 'An SCM')}, distilled", "", "## Recipe", "", f"    {command}", ""]
    card += [f"- {markdown(line)}" for line in str(made.fit_report).splitlines()]
    card += ["", "## The model it was made from", "", *_lowered_card(model_folder(model))]
    made.save_pretrained(out, card="\n".join([*card, ""]))
    say(out.resolve())


def _lowered_card(folder: Path) -> list[str]:
    """The lines of a model's own card, its headings two levels down."""
    card = folder / "README.md"
    if not card.is_file():
        return ["It has no card."]
    lines = card.read_text(encoding="utf-8").splitlines()
    return [f"##{line}" if line.startswith("#") else line for line in lines]


def evaluators(
    model: opt.ModelName,
    data: opt.TrainingRows,
    out: opt.Out,
    test: Annotated[str | None, typer.Option(help="Rows to measure the evaluators on.")] = None,
    image: Annotated[str | None, typer.Option(help="The image node, where there are several.")] = None,
    label: Annotated[
        str | None, typer.Option(help="Its categorical parent, where there are several.")
    ] = None,
    about: Annotated[
        str | None, typer.Option(help="For the card: the data, where they come from, their licence.")
    ] = None,
    rename: opt.Rename = None,
    seed: opt.Seed = 0,
    threads: opt.Threads = None,
) -> None:
    """Train the networks that score counterfactual images of a data set."""
    from causalgen.cli.common import card_source, column_names, load_model, recipe, say
    from causalgen.data.reading import Rows
    from causalgen.metrics.evaluators.storage import EVALUATORS, card_text, save_evaluators
    from causalgen.metrics.evaluators.training import train_evaluators

    scm = load_model(model, threads=threads)
    variables = _image_and_causes(scm, image)
    EVALUATORS.check_place(out)
    columns = column_names(rename, scm, data, test)
    rows, unseen = (None if source is None else Rows(source, columns) for source in (data, test))
    trained = train_evaluators(
        rows, variables, test=unseen, name=out.name, image=image, label=label, seed=seed
    )
    options = {"data": card_source(data), "out": out.name, "image": image, "label": label, "seed": seed}
    options["test"] = None if test is None else card_source(test)
    command = recipe("evaluators", card_source(model), options, rename)
    save_evaluators(trained, out, card_text(trained, data=about, command=command))
    figures = trained.metadata.get("figures")
    told = figures.items() if isinstance(figures, dict) else ()
    say(repr(trained), *(f"{what}: {value:.4g}" for what, value in told), out.resolve())


def _image_and_causes(scm: SCM, image: str | None) -> dict[str, Variable]:
    """The image and its parents."""
    from graphs.variables import image_variables

    images = image_variables(scm.variables)
    if image is None and len(images) == 1:
        image = next(iter(images))
    if image is None:
        found = ", ".join(images) or "none"
        raise SpecError(f"Evaluators need one image variable; this model has {found}. Name one with --image.")
    UnknownNameError.check("image variable", image, images, where="--image")
    return {name: scm.variables[name] for name in (*scm.graph.parents(image), image)}
