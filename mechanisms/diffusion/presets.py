"""What an image node is fitted by where its file leaves it out: the network and the training, by image size.

Large images fold larger blocks of pixels into channels, so that their cost grows less than their pixels.
What was chosen is part of the bound mechanism's spec, and so of every file that is written from it: a saved
model stays what it is when this table changes. The first line of it never does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphs.errors import MechanismError
from graphs.variables import Image, Variable
from mechanisms.diffusion.backbones import Backbone, UNet
from mechanisms.training import ImageTraining, least_steps

__all__ = ["Preset", "preset", "settled"]


@dataclass(frozen=True)
class Preset:
    """What is chosen for images of up to some size."""

    pixels: int | None  # largest height times width that it is for; None for any
    backbone: UNet  # the denoising network
    batch_size: int  # rows a step. Few of large images: an interrupt waits for the end of a backward pass.


_SMALL = Preset(32 * 32, UNet(), 64)

_PRESETS = (
    _SMALL,
    Preset(64 * 64, UNet(channels=(48, 96, 128), unshuffle=4, detail=16), 64),
    Preset(128 * 128, UNet(channels=(48, 96, 128), unshuffle=4, detail=16), 32),
    Preset(None, UNet(channels=(64, 128, 128), unshuffle=8, detail=16), 16),
)

_EPOCHS = 6


def preset(image: Image) -> Preset:
    """The preset for images of a size.

    >>> preset(Image(3, 64, 64)).backbone.unshuffle, preset(Image(1, 28, 28)).backbone == UNet()
    (4, True)
    """
    area = image.height * image.width
    return next(each for each in _PRESETS if each.pixels is None or area <= each.pixels)


def settled(
    backbone: Backbone | None,
    training: ImageTraining | None,
    image: Image | None,
    parents: Mapping[str, Variable],
) -> dict[str, Any]:
    """Both options of ``diffusion`` with nothing left to choose, by name.

    A length in epochs is taken as it is. Where none is given, larger images are trained for a number of steps
    at least, however few they are. ``image`` is None for the options of a saved model, whatever its size:
    those written before there were presets leave out what was the same for all sizes.
    """
    placed = [name for name, parent in parents.items() if isinstance(parent, Image)]
    if training is not None and training.flip and placed:
        raise MechanismError(
            f"training: flip mirrors images, but the parent {placed[0]!r} is an image, which says where "
            "things are. Leave flip out, or mirror both in the data."
        )
    chosen = _SMALL if image is None else preset(image)
    if training is not None:
        floor = 0 if image is None or chosen is _SMALL or training.epochs != "auto" else least_steps(image)
        usual = {"epochs": _EPOCHS, "batch_size": chosen.batch_size, "steps": floor}
        left = {name: value for name, value in usual.items() if getattr(training, name) == "auto"}
        training = training.model_copy(update=left)
    return {"backbone": backbone or chosen.backbone, "training": training}
