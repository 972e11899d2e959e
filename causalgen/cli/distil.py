"""``causalgen distil``: a fitted model and data -> the same model, whose image node takes a few jumps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from causalgen.cli.options import ModelName, Out, Rename, Resume, RunDir, Seed, Threads, TrainingRows

__all__ = ["distil"]


def distil(
    model: ModelName,
    data: TrainingRows,
    out: Out,
    node: Annotated[str | None, typer.Option(help="The image node, where there are several.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, max=16, help="Jumps each way; 2 by default.")] = None,
    rows: Annotated[int | None, typer.Option(min=2, help="Training rows, at most; 12000 by default.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over them; 14 by default.")] = None,
    seed: Seed = 0,
    run_dir: RunDir = None,
    resume: Resume = False,
    rename: Rename = None,
    threads: Threads = None,
) -> None:
    """Distil the flow of an image node to a few jumps up and down: the solver jumps of a new model."""
    from causalgen.cli.common import card_source, column_names, console, load_model, recipe, use_threads
    from causalgen.cli.fit import check_place, kept_run
    from causalgen.data.reading import Renamed
    from causalgen.fitting.distilling import distil as distilled
    from causalgen.saving.pretrained import model_folder
    from graphs.text import markdown

    use_threads(threads)
    scm = load_model(model)
    check_place(out)
    given = {"steps": steps, "rows": rows}
    source = Renamed(data, column_names(rename, scm, data))
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if epochs is not None:
        options["training"] = {"epochs": epochs}
    with kept_run(run_dir, out) as run:
        made = distilled(scm, source, node=node, options=options, seed=seed, run_dir=run, resume=resume)
    say = console().print
    say(str(made.fit_report))
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
    card += ["", "## The model it was made from", "", *_card(model_folder(model))]
    made.save_pretrained(out, card="\n".join([*card, ""]))
    say(str(out.resolve()))


def _card(folder: Path) -> list[str]:
    """The lines of a model's own card, its headings two levels down."""
    card = folder / "README.md"
    if not card.is_file():
        return ["It has no card."]
    lines = card.read_text(encoding="utf-8").splitlines()
    return [f"##{line}" if line.startswith("#") else line for line in lines]
