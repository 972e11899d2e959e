"""What the commands share: models by name, values as typed, files written whole."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from causalgen.atomic import write_atomic
from causalgen.presets import preset_options
from causalgen.scm import SCM
from graphs.errors import CheckpointError, InterventionError, SpecError, UnknownNameError
from graphs.variables import Categorical, Continuous, Image, Variable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["image_variables", "load_model", "parse_assignments", "save_figure", "use_preset", "use_threads"]


def load_model(name: str) -> SCM:
    """A model from an SCM file (not fitted), a folder, or the gallery."""
    return SCM.from_yaml(name) if name.endswith((".yaml", ".yml")) else SCM.from_pretrained(name)


def use_threads(threads: int | None) -> None:
    """Let torch use so many CPU threads."""
    if threads is not None:
        torch.set_num_threads(threads)


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


def parse_assignments(text: str, variables: Mapping[str, Variable], what: str) -> dict[str, Any]:
    """``a=1,b=dog`` as values of these nodes.

    Raises:
        InterventionError: not of that form, or a value that is no number where one is needed.
        UnknownNameError: no such node.
    """
    values: dict[str, Any] = {}
    for part in text.split(","):
        node, equals, value = (each.strip() for each in part.partition("="))
        if not equals or not value:
            raise InterventionError(f"{what} {part!r}: expected node=value, as in digit=3.")
        if node not in variables:
            raise UnknownNameError.of("node", node, variables, where=f"{what} {text!r}")
        values[node] = _value(value, variables[node], f"{what} {part!r}")
    return values


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, all or nothing.

    Raises:
        CheckpointError: the path cannot be written.
    """
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150, facecolor="white")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, buffer.getvalue())
    except OSError as error:
        raise CheckpointError(f"Cannot write {path}: {error.strerror or error}.") from error


def _value(text: str, variable: Variable, where: str) -> Any:
    if isinstance(variable, Image):
        raise InterventionError(f"{where}: an image cannot be typed; give it as a file with --evidence.")
    if isinstance(variable, Categorical) and variable.labels is not None and text in variable.labels:
        return text
    try:
        return float(text) if isinstance(variable, Continuous) else int(text)
    except ValueError as error:
        raise InterventionError(
            f"{where}: {text!r} is no value of a variable that is {variable.describe()}."
        ) from error
