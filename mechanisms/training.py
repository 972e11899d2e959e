"""How a mechanism is fitted: the settings of the one training loop, as an SCM file may state them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from graphs.declared import Declared

__all__ = ["LEAST_TRAINED_ROWS", "Stage", "Training", "filled"]

LEAST_TRAINED_ROWS = 10
"""Fewest rows for a table node that is trained by gradient steps: with less there is nothing to hold out."""


class Training(Declared):
    """Settings of the fitting loop for one node.

    Attributes:
        epochs: passes over the training rows.
        batch_size: rows a step.
        learning_rate: peak of the cosine schedule, which ends at 0.
        warmup: share of all steps over which the learning rate rises from 0.
        weight_decay: of AdamW.
        gradient_clip: largest norm of the gradient.
        ema: decay of the moving average of the weights, which are the weights kept; 0 keeps the last.
        precision: of the forward pass; "auto" takes bfloat16 autocast for images on GPUs,
            float32 (float64 for tables) elsewhere.
        patience: epochs without a better held-out loss after which training stops; the best weights are kept.
            "auto" is 15 (60 steps at least) for tables and None for images; None takes all epochs and
            keeps the last weights. Without held-out rows there is none.
        validation: share of rows held out, taken from all rows by the seed. Where they decide when to stop,
            at least a fifth of the rows or 100 of them, whichever is less; 0 holds none out.
    """

    epochs: int = Field(default=100, ge=1)
    batch_size: int = Field(default=256, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup: float = Field(default=0.02, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    gradient_clip: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.999, ge=0, lt=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    patience: Literal["auto"] | Annotated[int, Field(ge=1)] | None = "auto"
    validation: float = Field(default=0.05, ge=0, lt=1)


def filled(value: object, default: object) -> object:
    """Settings written in part, ``{epochs: 5}``, with the rest of a default; others as they are."""
    if isinstance(value, Mapping) and isinstance(default, Training):
        return {**default.model_dump(), **value}
    return value


@dataclass(frozen=True)
class Stage:
    """The training of a part of a mechanism, before the rest, for which the part then stays as it is.

    Attributes:
        name: of the part.
        part: of the mechanism; fixed afterwards.
        module: what is trained: the part, with what its training alone needs.
        settings: of the loop; None keeps the part as the model has it that the fit starts from.
        loss: (value, parents, generator=...) -> (N,).
        progress: told the share of the steps done, before each step.
        finish: sees all rows, or of images some thousands, at the end.
    """

    name: str
    part: nn.Module
    module: nn.Module
    settings: Training | None
    loss: Callable[..., Tensor]
    progress: Callable[[float], None]
    finish: Callable[[Tensor, Mapping[str, Tensor]], None]
