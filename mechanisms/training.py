"""How a mechanism is fitted: the settings of the one training loop, as an SCM file may state them."""

from typing import Literal

from pydantic import Field

from graphs.declared import Declared

__all__ = ["Training"]


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
        validation: share of rows held out for the fit report, taken from all rows by the seed.
    """

    epochs: int = Field(default=100, ge=1)
    batch_size: int = Field(default=256, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup: float = Field(default=0.02, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    gradient_clip: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.999, ge=0, lt=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    validation: float = Field(default=0.05, ge=0, lt=1)
