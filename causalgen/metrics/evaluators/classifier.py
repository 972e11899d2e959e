"""A small convolutional classifier of images, p(class | x), whose last hidden layer also serves as features.

It never guides a counterfactual: what is judged by the network that made it proves nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from causalgen.metrics.evaluators.layers import trunk
from graphs.variables import Image

__all__ = ["Classifier"]

_SMOOTHING = 0.05


class Classifier(nn.Module):
    """A classifier of images in [0, 1].

    Args:
        image: the size of the images.
        width: channels; there are twice as many features.
        classes: how many.
    """

    def __init__(self, image: Image, width: int, classes: int) -> None:
        super().__init__()
        self.trunk = trunk(image, width)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (B, classes)."""
        return self.head(self.trunk(images))

    def loss(self, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Mean cross-entropy with the codes ``targets`` (B,), labels smoothed by 0.05."""
        return cross_entropy(self(images), targets, label_smoothing=_SMOOTHING)
