"""Drawn portraits: age -> grey hair; sex -> beard and hair; skin; smile; and all but age and sex the image.

    age ~ U[18, 80] years      sex ~ {female, male}      skin ~ U[0, 1]      smile ~ {no, yes}
    grey := sigmoid((age - 50) / 9 + 0.6 e),  e ~ N(0, 1)      share of grey in the hair
    beard: none of a woman; of a man none .4, moustache .3, full .3
    hair:  short, bob or long; of a woman .2, .35, .45, of a man .7, .15, .15
    image := portrait(grey, beard, hair, skin, smile; noise)

The noise, which an intervention leaves alone: eyes, eyebrows, clothes and their hue, the hair's cut above the
forehead and its colour before it turned grey, the hue of the background, and how the head is turned, scaled
and moved. All of it shows, whatever the causes are, so that a portrait tells its own noise: hair never turns
wholly grey, and its first colour is still to be seen.

The parts are those of *ToonHead* by Johan Melin (CC BY 4.0, figma.com/community/file/1589627891082866389), in
the version of the package ``dicebear-styles``; the mouth is drawn larger here, to be read on 64 x 64 pixels.
``dicebear-core`` puts them together and ``resvg-py`` draws them: the extra ``datasets`` brings all three.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from colorsys import hsv_to_rgb
from functools import cache
from importlib.resources import files
from io import BytesIO
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures

from causalgen.data.sources import Split, source_of
from causalgen.datasets.folders import read_folder
from graphs.errors import DataError, DomainError, ShapeError
from graphs.variables import Categorical, Continuous, Variable

__all__ = ["CAUSES", "FacesSource", "NOISE", "draw_faces", "face_images", "faces", "faces_truth", "grey_of"]

CAUSES: Mapping[str, Variable] = MappingProxyType(
    {
        "age": Continuous(lower=18, upper=80),
        "sex": Categorical(["female", "male"]),
        "grey": Continuous(lower=0, upper=1),
        "beard": Categorical(["none", "moustache", "full"]),
        "hair": Categorical(["short", "bob", "long"]),
        "skin": Continuous(lower=0, upper=1),
        "smile": Categorical(["no", "yes"]),
    }
)
"""The causes, parents before children."""

NOISE: Mapping[str, Variable] = MappingProxyType(
    {
        "eyes": Categorical(["wide", "humble", "wink"]),
        "eyebrows": Categorical(["angry", "neutral", "sad"]),
        "clothes": Categorical(["shirt", "dress", "turtleNeck"]),
        "clothes_hue": Continuous(lower=0, upper=1),
        "cut": Categorical(["sideComed", "spiky", "undercut", "bun"]),
        "tone": Categorical(["black", "brown", "blond"]),
        "background": Continuous(lower=0, upper=1),
        "turn": Continuous(lower=-6, upper=6, unit="degrees"),
        "size": Continuous(lower=1.08, upper=1.22),
        "across": Continuous(lower=-3, upper=3, unit="% of the width"),
        "down": Continuous(lower=-1, upper=4, unit="% of the height"),
    }
)
"""The image's noise, each independent of all else and drawn evenly; parts by their names in ToonHead."""

_KNOWN: Mapping[str, Variable] = {**CAUSES, **NOISE}

Columns = Mapping[str, Any]
Floats = NDArray[np.float64]

_PARENTS = ("grey", "beard", "hair", "skin", "smile")
_BEARDS = {"female": (1.0, 0.0, 0.0), "male": (0.4, 0.3, 0.3)}
_HAIRS = {"female": (0.2, 0.35, 0.45), "male": (0.7, 0.15, 0.15)}
_MIDDLE, _PACE, _SPREAD = 50.0, 9.0, 0.6

_BEARD_PARTS = {"moustache": "moustacheTwirl", "full": "fullBeard"}
_HAIR_PARTS = {"bob": "neckHigh", "long": "longStraight"}
_TONES = {"black": (31, 22, 19), "brown": (74, 42, 28), "blond": (232, 192, 74)}
_SILVER, _GREYEST = (230, 232, 238), 0.8
_SKINS = ((255, 224, 204), (215, 155, 111), (134, 78, 48))
"""Colours of skin 0, 1/2 and 1, with straight lines between them."""

_MOUTH, _MOUTH_CENTRE, _MOUTH_HALF = 1.5, (384.5, 517.0), (58.5, 26.0)
_SMALLEST = 16


def faces(folder: str | os.PathLike[str], split: Split = "train") -> dict[str, NDArray[Any]]:
    """The portraits' rows, as columns that ``scm.fit`` takes.

    Args:
        folder: as ``causalgen data faces`` writes it.
        split: "train" or "test".

    Returns:
        The causes and the noise by name, each (N,), numbers float64 and labels text, and ``image``
        (N, 3, S, S) uint8.

    Raises:
        DataError: a file is missing or damaged, or a picture is not as large as the first.
    """
    return read_folder("faces", folder, split, _KNOWN)


FacesSource = source_of("faces", faces, image="image")
"""``faces:DIR``."""


def draw_faces(rows: int, *, seed: int | Sequence[int]) -> dict[str, NDArray[Any]]:
    """Causes and noise from their laws, by name, each (rows,); labels as text."""
    random = np.random.default_rng(seed)
    drawn: dict[str, NDArray[Any]] = {}
    for name, variable in _KNOWN.items():
        if name == "grey":
            drawn[name] = grey_of(drawn["age"], random.standard_normal(rows))
        elif name in ("beard", "hair"):
            shares = np.array(list((_BEARDS if name == "beard" else _HAIRS).values()))
            code = _codes("sex", drawn["sex"])
            least = np.cumsum(shares, 1)[code, :-1]
            drawn[name] = _labels(name)[(random.random((rows, 1)) >= least).sum(1)]
        elif isinstance(variable, Categorical):
            drawn[name] = _labels(name)[random.integers(variable.size, size=rows)]
        else:
            drawn[name] = random.uniform(*_range(name), rows)
    return drawn


def grey_of(age: Floats | float, noise: Floats | float) -> Floats:
    """The true equation of ``grey``: age in years and standard normal noise, to (0, 1)."""
    lean = (np.asarray(age, np.float64) - _MIDDLE) / _PACE + _SPREAD * np.asarray(noise, np.float64)
    return 1 / (1 + np.exp(-lean))


def face_images(columns: Columns, *, size: int = 64) -> NDArray[np.uint8]:
    """The true equation of the image.

    Args:
        columns: (N,) each: ``grey``, ``beard``, ``hair``, ``skin``, ``smile`` and what ``NOISE`` names.
        size: S, pixels of a side.

    Returns:
        (N, 3, S, S) uint8.

    Raises:
        DataError: a column is missing, or the extra ``datasets`` is not installed.
        DomainError: an unknown label, a number out of its range, or fewer than 16 pixels.
        ShapeError: numbers of rows that disagree.
    """
    if size < _SMALLEST:
        raise DomainError(f"size: expected at least {_SMALLEST} pixels, got {size}.")
    names = (*_PARENTS, *NOISE)
    values = _checked(columns, names)
    rows = zip(*(values[name].tolist() for name in names), strict=True)
    draw = _artist()
    made = [draw(_options(dict(zip(names, row, strict=True))), size) for row in rows]
    return np.stack(made) if made else np.empty((0, 3, size, size), np.uint8)


def faces_truth(
    columns: Columns, size: int = 64, image: str = "image"
) -> Callable[[NDArray[np.int64], Columns], Columns]:
    """The portraits' true counterfactual worlds, for ``cg.evaluate``.

    An age that is set turns hair grey by its own equation, with the noise it had. Which beard and hair
    somebody would have had as another sex no record says: under do(sex), those that are not set as well are
    unknown, and so is the image.

    Args:
        columns: causes and noise of the rows, (N,) each, as ``draw_faces`` and ``faces`` give them.
        size: S, pixels of a side of the images.
        image: name of the image node.

    Returns:
        (row numbers, what is set) -> values, labels as text, and the image (n, 3, S, S) in [0, 1] where it is
        known.

    Raises:
        DataError: a column is missing.
        DomainError: an unknown label, or a number out of its range.
    """
    names = (*CAUSES, *NOISE)
    factual = _checked(columns, names)
    with np.errstate(divide="ignore"):
        lean = np.log(factual["grey"]) - np.log1p(-factual["grey"])
    noise = (lean - (factual["age"] - _MIDDLE) / _PACE) / _SPREAD

    def truth(asked: NDArray[np.int64], do: Columns) -> dict[str, NDArray[Any]]:
        world: dict[str, Any] = {name: values[asked] for name, values in factual.items()} | dict(do)
        if "age" in do and "grey" not in do:
            world["grey"] = grey_of(np.asarray(do["age"]), noise[asked])
        unknown = {"beard", "hair"} - set(do) if "sex" in do else set()
        answer: dict[str, Any] = {name: np.asarray(world[name]) for name in CAUSES if name not in unknown}
        if not unknown:
            answer[image] = face_images(world, size=size).astype(np.float32) / np.float32(255)
        return answer

    return truth


@cache
def _labels(name: str) -> NDArray[Any]:
    variable = _KNOWN[name]
    assert isinstance(variable, Categorical) and variable.labels is not None
    return np.array(variable.labels)


@cache
def _range(name: str) -> tuple[float, float]:
    variable = _KNOWN[name]
    assert isinstance(variable, Continuous) and variable.lower is not None and variable.upper is not None
    return float(variable.lower), float(variable.upper)


def _codes(name: str, values: object) -> NDArray[np.int64]:
    return np.asarray(_KNOWN[name].encode(np.asarray(values), where=name), np.int64)


def _checked(columns: Columns, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Each column as (N,) text or floats within its range."""
    checked: dict[str, NDArray[Any]] = {}
    for name in names:
        if name not in columns:
            raise DataError(f"Expected a column {name!r}: a portrait is drawn from its causes and its noise.")
        if isinstance(_KNOWN[name], Categorical):
            checked[name] = _labels(name)[_codes(name, columns[name])]
            continue
        values = np.atleast_1d(np.asarray(columns[name], np.float64))
        low, high = _range(name)
        fits = (values >= low) & (values <= high)  # nan is neither
        if not fits.all():
            row = int(fits.argmin())
            raise DomainError(f"{name}, row {row}: expected {low:g} to {high:g}, got {values[row]:g}.")
        checked[name] = values
    if len({each.shape for each in checked.values()}) > 1 or next(iter(checked.values())).ndim != 1:
        shapes = ", ".join(f"{name} {each.shape}" for name, each in checked.items())
        raise ShapeError(f"Expected as many rows of each, got shapes {shapes}.")
    return checked


def _options(face: Mapping[str, Any]) -> dict[str, Any]:
    """A portrait in dicebear's words; every choice is made here, none by its own random numbers."""
    low, between = divmod(min(2 * face["skin"], 2 - 1e-9), 1)
    return {
        "beardProbability": 100 * (face["beard"] != "none"),
        "beardVariant": _BEARD_PARTS.get(face["beard"], "fullBeard"),
        "rearHairProbability": 100 * (face["hair"] != "short"),
        "rearHairVariant": _HAIR_PARTS.get(face["hair"], "longStraight"),
        "hairProbability": 100,
        "hairVariant": face["cut"],
        "mouthVariant": "laugh" if face["smile"] == "yes" else "sad",
        "eyesVariant": face["eyes"],
        "eyebrowsVariant": face["eyebrows"],
        "clothesVariant": face["clothes"],
        "skinColor": _mixed(_SKINS[int(low)], _SKINS[int(low) + 1], between),
        "hairColor": _mixed(_TONES[face["tone"]], _SILVER, _GREYEST * face["grey"]),
        "clothesColor": _hex(255 * part for part in hsv_to_rgb(face["clothes_hue"], 0.75, 0.6)),
        "backgroundColor": _hex(255 * part for part in hsv_to_rgb(face["background"], 0.25, 0.97)),
        "rotate": face["turn"],
        "scale": face["size"],
        "translateX": face["across"],
        "translateY": face["down"],
    }


def _mixed(begin: Sequence[float], end: Sequence[float], share: float) -> str:
    return _hex((1 - share) * a + share * b for a, b in zip(begin, end, strict=True))


def _hex(colour: Iterable[float]) -> str:
    return "#" + "".join(f"{round(part):02x}" for part in colour)


@cache
def _artist() -> Callable[[dict[str, Any], int], NDArray[np.uint8]]:
    """What draws a portrait's options, (3, S, S)."""
    try:
        from dicebear import Avatar, Style
        from resvg_py import svg_to_bytes

        definition = json.loads((files("dicebear_styles") / "toon-head.json").read_text(encoding="utf-8"))
    except ImportError as error:
        raise DataError(
            f"Drawing portraits needs {error.name}: in the checkout, pip install '.[datasets]'. Reading them "
            "does not."
        ) from error
    (mouth,) = (each for each in definition["canvas"]["elements"] if each["name"] == "mouth")
    x, y = (middle - _MOUTH * half for middle, half in zip(_MOUTH_CENTRE, _MOUTH_HALF, strict=True))
    mouth["attributes"]["transform"] = f"translate({x} {y}) scale({_MOUTH})"
    style = Style(definition)

    def draw(options: dict[str, Any], size: int) -> NDArray[np.uint8]:
        svg = Avatar(style, options).to_string()
        drawn = svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)
        with Pictures.open(BytesIO(drawn), formats=["PNG"]) as picture:
            return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)

    return draw
