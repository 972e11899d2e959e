"""How a mechanism is fitted: the settings of the one training loop, as an SCM file may state them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from torch import Tensor, nn

from graphs.declared import Declared
from graphs.variables import Image, Variable

__all__ = [
    "ImageTraining",
    "LEAST_TRAINED_ROWS",
    "OwnLoss",
    "Stage",
    "Training",
    "filled",
    "fills",
    "holds_none_out",
    "least_steps",
]

LEAST_TRAINED_ROWS = 10
"""Fewest rows for a table node that is trained by gradient steps: with less there is nothing to hold out."""


class Training(Declared):
    """Settings of the fitting loop for one node.

    Attributes:
        epochs: passes over the training rows.
        steps: optimizer steps that are taken at least: of few rows, epochs are added until there are so many.
        batch_size: rows a step.
        learning_rate: peak of the cosine schedule, which ends at 0.
        warmup: share of all steps over which the learning rate rises from 0.
        weight_decay: of AdamW.
        gradient_clip: largest norm of the gradient, of a part with a loss of its own by itself.
        ema: decay of the moving average of the weights, which are the weights kept; 0 keeps the last.
        precision: of the forward pass; "auto" takes bfloat16 autocast for images on GPUs, and for nodes of
            more than 32 x 32 pixels on CPUs that multiply it faster, as is measured once a process; float32
            (float64 for tables) elsewhere. A resumed run keeps what it began with.
        patience: epochs without a better held-out loss after which training stops; the best weights are kept.
            "auto" is 15 (60 steps at least) for tables and None for images; None takes all epochs and
            keeps the last weights. Without held-out rows there is none.
        validation: share of rows held out, taken from all rows by the seed. Where they decide when to stop,
            at least a fifth of the rows or 100 of them, whichever is less; 0 holds none out.
    """

    epochs: int = Field(default=100, ge=1)
    steps: int = Field(default=0, ge=0)
    batch_size: int = Field(default=256, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup: float = Field(default=0.02, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    gradient_clip: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.999, ge=0, lt=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    patience: Literal["auto"] | Annotated[int, Field(ge=1)] | None = "auto"
    validation: float = Field(default=0.05, ge=0, lt=1)


class ImageTraining(Training):
    """Settings of the fitting loop for an image node: its length and its batches may follow the image's size.

    Attributes:
        epochs: passes over the training rows; "auto" is 6.
        steps: optimizer steps that are taken at least: of few rows, epochs are added until there are so many.
            "auto" depends on the image's size where ``epochs`` is "auto" too, and is 0 elsewhere.
        batch_size: rows a step; "auto" depends on the image's size.
        flip: whether half of the images, drawn anew each time, are mirrored left to right in training. That
            says that an image and its mirror image are equally likely under the same parents; image parents,
            which say where things are, rule it out.
    """

    model_config = ConfigDict(title="Image training")

    epochs: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"  # pyright: ignore[reportIncompatibleVariableOverride]
    steps: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"  # pyright: ignore[reportIncompatibleVariableOverride]
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"  # pyright: ignore[reportIncompatibleVariableOverride]
    flip: bool = False


# Height times width up to which a denoiser learns in so many steps what its images have in common.
_LEAST_STEPS = ((16 * 16, 500), (32 * 32, 3_000), (64 * 64, 6_000))
_MOST_LEAST_STEPS = 8_000


def least_steps(variable: Variable) -> int:
    """Optimizer steps below which samples of an image's network are noise, by its size; 0 of other variables.

    >>> least_steps(Image(3, 64, 64))
    6000
    """
    if not isinstance(variable, Image):
        return 0
    area = variable.height * variable.width
    return next((steps for most, steps in _LEAST_STEPS if area <= most), _MOST_LEAST_STEPS)


def fills(default: Training) -> BeforeValidator:
    """Of a field ``training`` that may be written in part: see ``filled``."""
    return BeforeValidator(lambda value: filled(value, default))


def holds_none_out(what: str) -> AfterValidator:
    """Of settings of a stage before a node's own fit, on the same rows and to the last step.

    It raises ValueError where they say what only the node's own can; a saved model spells out the defaults.
    """

    def check(value: Training | None) -> Training | None:
        plain = Training()
        for name in ("validation", "patience") if value is not None else ():
            if getattr(value, name) != getattr(plain, name):
                raise ValueError(
                    f"{name} has no effect on {what}, which is fitted to the rows of the node's own fit, to "
                    f"the last step. Leave it out; the node's own is training.{name}"
                )
        return value

    return AfterValidator(check)


def filled(value: object, default: object) -> object:
    """Settings written in part, ``{epochs: 5}``, with the rest of a default; others as they are."""
    if isinstance(value, Mapping) and isinstance(default, Training):
        return {**default.model_dump(), **value}
    if type(value) is Training and isinstance(default, ImageTraining):
        return value.model_dump()
    return value


class OwnLoss(nn.Module):
    """A part of a mechanism whose loss is a term of its own, by its own parameters alone.

    Its gradient is clipped apart from the rest: else the larger of two that have nothing to do with one
    another would say, step by step, how far the other goes.
    """


@dataclass(frozen=True)
class Stage:
    """The training of a part of a mechanism, before the rest, for which the part then stays as it is."""

    name: str  # of the part
    part: nn.Module  # of the mechanism; fixed afterwards
    module: nn.Module  # what is trained: the part, with what its training alone needs
    settings: Training | None  # of the loop; None keeps the part as the model has it that the fit starts from
    loss: Callable[..., Tensor]  # (value, parents, generator=...) -> (N,)
    progress: Callable[[float], None]  # told the share of the steps done, before each step
    # Sees all rows, or of images some thousands, at the end
    finish: Callable[[Tensor, Mapping[str, Tensor]], None]
