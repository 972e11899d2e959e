"""``causalgen evaluators``: a model's variables and training rows -> networks that score counterfactuals."""

from __future__ import annotations

import shlex
from pathlib import Path

from causalgen.cli.common import card_source, console, image_variables, load_model, use_threads
from causalgen.metrics.evaluators.storage import EVALUATORS, card_text, save_evaluators
from causalgen.metrics.evaluators.training import train_evaluators
from causalgen.scm import SCM
from graphs.errors import SpecError, UnknownNameError
from graphs.variables import Variable

__all__ = ["run_evaluators"]


def run_evaluators(
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
    """Train evaluators of a model's image and of its parents; save them; say how good they are."""
    use_threads(threads)
    variables = _variables(load_model(model), image)
    EVALUATORS.check_place(out)
    evaluators = train_evaluators(data, variables, test=test, name=out.name, label=label, seed=seed)
    command = ["causalgen", "evaluators", card_source(model), "--data", card_source(data)]
    command += ["--out", out.name, "--seed", str(seed)]
    command += [] if test is None else ["--test", card_source(test)]
    save_evaluators(evaluators, out, card_text(evaluators, data=about, command=shlex.join(command)))
    say = console().print
    say(repr(evaluators))
    figures = evaluators.metadata.get("figures")
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
        raise SpecError(f"Evaluators need one image variable; this model has {found}. Name one with --image.")
    if image not in images:
        raise UnknownNameError.of("image variable", image, images, where="--image")
    return {name: scm.variables[name] for name in (*scm.graph.parents(image), image)}
