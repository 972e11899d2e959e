"""The control of a node, made from its variable, and what it says; an empty one leaves the node out.

variable                 control      what it gives
categorical              choice       its code as text; "" where nothing is chosen
integer, continuous      number       text, a number; "" where it is empty
continuous of a shape    numbers      text, JSON as in [0.5, 2]; "" where it is empty
image                    picture      the path of a file, perhaps of one that carries pixels; None for none

Where nodes are set, text that is no number is an expression, as in ``thickness + 1``. Numbers are text since
a browser's field for numbers shows 0 where it is empty, and gives it.

A browser shows pixels of 8 bits. Of an image of more, as of a declared range, a control holds a PNG that is
seen, with the floats in [0, 1] that are meant as one of its texts, ``CARRIED``.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from math import isnan
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image as PILImage

from causalgen.cli.assignments import read_number
from causalgen.data.pictures import picture_column
from graphs.errors import EvidenceError
from graphs.variables import Categorical, Continuous, Image, Integer, Variable
from graphs.variables.numeric import bound_text

__all__ = ["CARRIED", "Control", "carried", "control_of", "held_picture", "read_controls", "shown"]

CARRIED = "causalgen-pixels"
"""The name of the text of a PNG that holds the pixels it stands for."""


@dataclass(frozen=True)
class Control:
    """How a node is typed."""

    kind: Literal["choice", "number", "numbers", "picture"]
    hint: str = ""
    choices: tuple[str, ...] = ()


def control_of(variable: Variable) -> Control:
    """The control that a variable is typed with."""
    if isinstance(variable, Categorical):
        labels = variable.labels or range(variable.size)
        return Control("choice", "in order" if variable.ordered else "", tuple(map(str, labels)))
    if isinstance(variable, Image):
        return Control("picture", variable.describe())
    return Control("numbers" if variable.event_shape else "number", _range(variable))


def read_controls(
    given: Mapping[str, Any], variables: Mapping[str, Variable], what: str, *, expressions: bool = False
) -> dict[str, Any]:
    """What the controls of a panel say, by node, those that are left empty left out.

    A control gives text, the path of a picture, or None for nothing. Where ``expressions`` may stand, text
    that is no number is one, and is left as text.
    """
    read: dict[str, Any] = {}
    for node, raw in given.items():
        raw = raw.strip() if isinstance(raw, str) else raw
        if raw is not None and raw != "":
            read[node] = _value(raw, variables[node], f"{what} {node!r}", expressions)
    return read


def carried(pixels: np.ndarray) -> str:
    """An array as text, to the last bit: its .npy file in base 64."""
    buffer = BytesIO()
    np.save(buffer, pixels, allow_pickle=False)
    return b64encode(buffer.getvalue()).decode()


def held_picture(path: str | Path, variable: Image, where: str) -> np.ndarray:
    """What a picture of a control stands for: the pixels that it carries, or its own."""
    try:
        with PILImage.open(path, formats=["PNG"]) as picture:
            text, seen = picture.info.get(CARRIED), np.atleast_3d(np.asarray(picture))
        array = None if text is None else np.load(BytesIO(b64decode(text)), allow_pickle=False)
        if array is not None and not np.array_equal(np.moveaxis(seen, -1, 0), np.round(255 * array)):
            array = None  # an editor has changed what is seen, and kept the text
    except Exception:  # another format, or a damaged file, of which reading it says more
        array = None
    if array is None:
        return picture_column([Path(path)], variable, column=where, folder=None)[0]
    return variable.pixels(array, where=where)[0]


def shown(value: Any, variable: Variable) -> Any:
    """What a control shows of one value in the user's form; an image as its pixels.

    A number is written so that it is read back to the last bit.
    """
    if value is None or (isinstance(value, float | np.floating) and isnan(value)):
        return None if isinstance(variable, Image) else ""
    if isinstance(variable, Categorical):
        return str(int(np.ravel(variable.encode(value, where="Row"))[0]))
    if isinstance(variable, Image):
        return np.asarray(value)
    return json.dumps(np.asarray(value).tolist()) if variable.event_shape else repr(np.asarray(value).item())


def _range(variable: Continuous | Integer) -> str:
    """Bounds and unit, in words."""
    low, high = variable.lower, variable.upper
    words = "" if high is None else f"at most {bound_text(high)}"
    if low is not None:
        words = f"at least {bound_text(low)}" if high is None else f"{bound_text(low)} to {bound_text(high)}"
    whole = "whole, " if isinstance(variable, Integer) else ""
    shape = f"{' x '.join(map(str, variable.event_shape))} numbers, " if variable.event_shape else ""
    return f"{whole}{shape}{words} {variable.unit}".strip(" ,") or "any number"


def _value(raw: Any, variable: Variable, where: str, expressions: bool) -> Any:
    if isinstance(variable, Image):
        return held_picture(raw, variable, where)
    if isinstance(variable, Categorical):
        code = int(raw) if isinstance(raw, str) and raw.isascii() and raw.isdigit() else -1
        if not 0 <= code < variable.size:
            raise EvidenceError(f"{where}: {raw!r} is the code of no category ({variable.describe()}).")
        return code if variable.labels is None else variable.labels[code]
    try:
        value = _numbers(raw) if variable.event_shape else read_number(raw)
    except (ValueError, RecursionError) as error:
        if expressions and not raw.startswith("["):
            return raw
        form = "numbers in brackets, as in [0.5, 2]" if variable.event_shape else "a number"
        raise EvidenceError(f"{where}: expected {form} ({variable.describe()}), got {raw!r}.") from error
    variable.encode(value, where=where)  # refused here, where the panel is known
    return value


def _numbers(raw: str) -> Any:
    """A list of JSON."""
    value = json.loads(raw, parse_constant=str)  # a number that JSON has not is text, which is refused
    if not isinstance(value, list):
        raise ValueError
    return value
