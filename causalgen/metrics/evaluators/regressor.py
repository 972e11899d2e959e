"""A small convolutional regressor: continuous causes read from an image, in their own units.

Fitted in units of the training rows' standard deviation, by the Huber loss.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss

from causalgen.metrics.evaluators.layers import trunk
from graphs.variables import Image

__all__ = ["Regressor"]

_BEND = 0.1
"""Where the Huber loss goes from square to straight, in standard deviations."""


class Regressor(nn.Module):
    """A regressor on images in [0, 1].

    Args:
        image: the size of the images.
        width: channels.
        outputs: how many variables.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, image: Image, width: int, outputs: int) -> None:
        super().__init__()
        self.trunk = trunk(image, width)
        self.head = nn.Linear(2 * width, outputs)
        self.register_buffer("mean", torch.zeros(outputs))
        self.register_buffer("scale", torch.ones(outputs))

    def standardise(self, targets: Tensor) -> None:
        """Take the units from the training rows, (N, outputs); a constant column keeps the unit 1."""
        scale = targets.std(0)
        self.mean.copy_(targets.mean(0))
        self.scale.copy_(torch.where(scale > 0, scale, torch.ones_like(scale)))

    def forward(self, images: Tensor) -> Tensor:
        """Values in the variables' units, (B, outputs)."""
        return self.mean + self.scale * self.head(self.trunk(images))

    def loss(self, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Mean Huber loss against ``targets`` (B, outputs)."""
        wanted = (targets - self.mean) / self.scale
        return smooth_l1_loss(self.head(self.trunk(images)), wanted, beta=_BEND)
