"""What the commands share: models by name, values as typed, pictures written whole, what is printed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from causalgen.presets import preset_options
from causalgen.saving.atomic import write_atomic
from causalgen.saving.export import figure_png
from causalgen.scm import SCM
from graphs.errors import CheckpointError, InterventionError, SpecError, UnknownNameError
from graphs.variables import Categorical, Continuous, Image, Variable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "check_preset",
    "console",
    "image_variables",
    "load_model",
    "parse_assignments",
    "save_figure",
    "use_preset",
    "use_threads",
]


def console(*, stderr: bool = False) -> Console:
    """Where commands print: long lines stay whole, and brackets in names are only brackets."""
    return Console(stderr=stderr, soft_wrap=True, highlight=False, markup=False)


def load_model(name: str) -> SCM:
    """A model from an SCM file (not fitted), a folder, or the gallery."""
    return SCM.from_yaml(name) if name.endswith((".yaml", ".yml")) else SCM.from_pretrained(name)


def use_threads(threads: int | None) -> None:
    """Let torch use so many CPU threads."""
    if threads is not None:
        torch.set_num_threads(threads)


def check_preset(preset: str | None) -> None:
    """Refuse a preset that nobody declared, before anything is loaded."""
    if preset is not None:
        preset_options(preset)


def use_preset(scm: SCM, preset: str | None) -> SCM:
    """The model with a published method's settings on every diffusion node."""
    if preset is None:
        return scm
    options = preset_options(preset)
    nodes = [node for node, mechanism in scm.mechanisms.items() if mechanism.spec.kind == "diffusion"]
    if not nodes:
        raise SpecError(f"Preset {preset!r} is for diffusion nodes, and this model has none.")
    for node in nodes:
        scm = scm.with_options(node, **options)
    return scm


def image_variables(scm: SCM) -> dict[str, Image]:
    """The nodes whose values are images, in topological order."""
    return {node: variable for node, variable in scm.variables.items() if isinstance(variable, Image)}


def parse_assignments(texts: Iterable[str], variables: Mapping[str, Variable], what: str) -> dict[str, Any]:
    """``a=1,b=dog,c=[0.5,2]``, perhaps in several pieces, as values of these nodes.

    Raises:
        InterventionError: not of that form, a node twice, or a value that is no number where one is needed.
        UnknownNameError: no such node.
    """
    values: dict[str, Any] = {}
    for part in (part for text in texts for part in re.split(r",(?![^\[]*\])", text)):
        node, equals, value = (each.strip() for each in part.partition("="))
        if not equals or not value:
            raise InterventionError(f"{what} {part!r}: expected node=value, as in digit=3.")
        if node not in variables:
            raise UnknownNameError.of("node", node, variables, where=f"{what} {part!r}")
        if node in values:
            raise InterventionError(f"{what} {part!r}: {node!r} has a value already.")
        values[node] = _value(value, variables[node], f"{what} {part!r}")
    return values


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, all or nothing.

    Raises:
        CheckpointError: the path cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, figure_png(figure))
    except OSError as error:
        raise CheckpointError(f"Cannot write {path}: {error.strerror or error}.") from error


def _value(text: str, variable: Variable, where: str) -> Any:
    if isinstance(variable, Image):
        raise InterventionError(f"{where}: an image cannot be typed; give it as a file with --evidence.")
    if isinstance(variable, Categorical) and variable.labels is not None and text in variable.labels:
        return text
    number = float if isinstance(variable, Continuous) else int
    try:
        if variable.event_shape:
            return [number(each) for each in text.removeprefix("[").removesuffix("]").split(",")]
        return number(text)
    except ValueError as error:
        raise InterventionError(
            f"{where}: {text!r} is no value of a variable that is {variable.describe()}."
        ) from error
