"""``causalgen judges``: a model's variables and training rows -> networks that score counterfactuals."""

from __future__ import annotations

import shlex
from pathlib import Path

from causalgen.cli.common import card_source, console, image_variables, load_model, use_threads
from causalgen.metrics.evaluators.card import card_text
from causalgen.metrics.evaluators.storage import check_place, save_judges
from causalgen.metrics.evaluators.training import train_judges
from causalgen.scm import SCM
from graphs.errors import SpecError, UnknownNameError
from graphs.variables import Variable

__all__ = ["run_judges"]


def run_judges(
    model: str,
    data: str,
    out: Path,
    *,
    test: str | None,
    image: str | None,
    label: str | None,
    about: str | None,
    seed: int,
    threads: int | None,
) -> None:
    """Train judges of a model's image and of what it shows, its parents; save them; say how good they are."""
    use_threads(threads)
    variables = _variables(load_model(model), image)
    check_place(out.resolve())
    judges = train_judges(data, variables, test=test, name=out.name, label=label, seed=seed)
    command = ["causalgen", "judges", card_source(model), "--data", card_source(data)]
    command += ["--out", out.name, "--seed", str(seed)]
    command += [] if test is None else ["--test", card_source(test)]
    save_judges(judges, out, card_text(judges, data=about, command=shlex.join(command)))
    say = console().print
    say(repr(judges))
    figures = judges.told.get("figures")
    for what, value in figures.items() if isinstance(figures, dict) else ():
        say(f"{what}: {value:.4g}")
    say(str(out.resolve()))


def _variables(scm: SCM, image: str | None) -> dict[str, Variable]:
    """The image and its parents."""
    images = image_variables(scm)
    if image is None and len(images) == 1:
        image = next(iter(images))
    if image is None:
        found = ", ".join(images) or "none"
        raise SpecError(f"Judges need one image variable; this model has {found}. Name one with --image.")
    if image not in images:
        raise UnknownNameError.of("image variable", image, images, where="--image")
    return {name: scm.variables[name] for name in (*scm.graph.parents(image), image)}
