"""The controls of nodes in gradio: one for each, made from its variable, with what it holds.

What a control gives, and how it is read, is ``controls``.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr
import numpy as np
from gradio.components import Component
from PIL import Image as PILImage

from causalgen.cli.app.controls import CARRIED, carried, control_of, held_picture
from graphs.errors import CausalgenError
from graphs.text import printable
from graphs.variables import Image, Variable

__all__ = ["QUIET", "as_picture", "node_inputs", "told"]

QUIET: Any = {"api_visibility": "private", "show_progress": "hidden"}
"""Of events that only change what is shown."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


def node_inputs(
    variables: Mapping[str, Variable], empty: str, panel: str, values: Mapping[str, Any] | None = None
) -> dict[str, Component]:
    """A control for each node, two in a line."""
    found: dict[str, Component] = {}
    with gr.Row(elem_classes="cg-controls"):
        for node, variable in variables.items():
            value = (values or {}).get(node)
            found[node] = _control(node, variable, empty, f"{panel}-{node}", value)
    return found


def _control(node: str, variable: Variable, empty: str, name: str, value: Any) -> Component:
    control = control_of(variable)
    if control.kind == "choice":
        choices = [(empty, ""), *((label, str(code)) for code, label in enumerate(control.choices))]
        hint = control.hint or None
        # Three buttons: a box that is ticked or not could not say that a truth value was not observed.
        kind = gr.Radio if len(control.choices) == 2 else gr.Dropdown
        return kind(choices, value=value or "", label=node, info=hint, elem_id=name, min_width=130)
    if control.kind in ("number", "numbers"):
        example = ", as in [0.5, 2]" if control.kind == "numbers" else ""
        return gr.Textbox(
            value or "",
            label=node,
            info=control.hint + example,
            placeholder=empty,
            max_lines=1,
            elem_id=name,
            min_width=130,
        )
    assert isinstance(variable, Image)
    return _upload(node, variable, empty, name, value)


def _upload(node: str, variable: Image, empty: str, name: str, value: Any) -> gr.Image:
    """A picture that can be uploaded and left out again."""
    with gr.Column(min_width=130, elem_classes="cg-upload"):
        picture = gr.Image(
            value,
            label=f"{node}: {empty}" if value is None else node,
            type="filepath",
            image_mode=None,
            format="png",
            interactive=False,
            height=170,
            buttons=[],
            elem_id=name,
            elem_classes="cg-fine" if variable.width >= 128 else "cg-pixels",
        )
        with gr.Row():
            button = gr.UploadButton(f"Upload {node}", size="sm", min_width=80, elem_id=f"{name}-upload")
            empty_button = gr.Button("Leave out", size="sm", min_width=80, elem_id=f"{name}-empty")

    @told
    def read(path: str) -> PILImage.Image:
        return as_picture(held_picture(path, variable, f"Upload {Path(path).name!r}"))

    button.upload(read, button, picture, api_visibility="private", show_progress="minimal")
    empty_button.click(lambda: None, None, picture, **QUIET)
    return picture


def as_picture(pixels: Any) -> PILImage.Image:
    """(C, H, W), uint8 or floats in [0, 1], as a picture of 8 bits; of floats it carries the exact ones."""
    array = np.asarray(pixels)
    exact = array if array.dtype == np.uint8 else np.round(255 * array).astype(np.uint8)
    picture = PILImage.fromarray(exact[0] if len(exact) == 1 else np.moveaxis(exact, 0, -1))
    if exact is not array:
        picture.info[CARRIED] = carried(array)  # text, which gradio writes into the file
    return picture


def told(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """An error of ours as a message on the page, to the letter; anything else is gradio's."""

    @wraps(function)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except CausalgenError as error:
            text = html.escape(printable(str(error)))
            raise gr.Error(text, title="Not answered", duration=None, print_exception=False) from error

    return called
