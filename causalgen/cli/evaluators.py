"""``causalgen evaluators``: a model's variables and training rows -> networks that score counterfactuals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from causalgen.cli.options import ModelName, Out, Rename, Seed, Threads, TrainingRows
from graphs.errors import SpecError, UnknownNameError

if TYPE_CHECKING:
    from causalgen.scm import SCM
    from graphs.variables import Variable

__all__ = ["evaluators"]


def evaluators(
    model: ModelName,
    data: TrainingRows,
    out: Out,
    test: Annotated[str | None, typer.Option(help="Rows to measure the evaluators on.")] = None,
    image: Annotated[str | None, typer.Option(help="The image node, where there are several.")] = None,
    label: Annotated[
        str | None, typer.Option(help="Its categorical parent, where there are several.")
    ] = None,
    about: Annotated[
        str | None, typer.Option(help="For the card: the data, where they come from, their licence.")
    ] = None,
    rename: Rename = None,
    seed: Seed = 0,
    threads: Threads = None,
) -> None:
    """Train the networks that score counterfactual images of a data set."""
    from causalgen.cli.common import card_source, column_names, console, load_model, recipe, use_threads
    from causalgen.data.reading import Renamed
    from causalgen.metrics.evaluators.storage import EVALUATORS, card_text, save_evaluators
    from causalgen.metrics.evaluators.training import train_evaluators

    use_threads(threads)
    scm = load_model(model)
    variables = _variables(scm, image)
    EVALUATORS.check_place(out)
    columns = column_names(rename, scm, data, test)
    rows, unseen = (None if source is None else Renamed(source, columns) for source in (data, test))
    trained = train_evaluators(rows, variables, test=unseen, name=out.name, label=label, seed=seed)
    options = {"data": card_source(data), "out": out.name, "seed": seed}
    options["test"] = None if test is None else card_source(test)
    command = recipe("evaluators", card_source(model), options, rename)
    save_evaluators(trained, out, card_text(trained, data=about, command=command))
    say = console().print
    say(repr(trained))
    figures = trained.metadata.get("figures")
    for what, value in figures.items() if isinstance(figures, dict) else ():
        say(f"{what}: {value:.4g}")
    say(str(out.resolve()))


def _variables(scm: SCM, image: str | None) -> dict[str, Variable]:
    """The image and its parents."""
    from causalgen.cli.common import image_variables

    images = image_variables(scm)
    if image is None and len(images) == 1:
        image = next(iter(images))
    if image is None:
        found = ", ".join(images) or "none"
        raise SpecError(f"Evaluators need one image variable; this model has {found}. Name one with --image.")
    UnknownNameError.check("image variable", image, images, where="--image")
    return {name: scm.variables[name] for name in (*scm.graph.parents(image), image)}
