"""A small convolutional autoencoder, AE(x) = sigmoid(decode(encode(x))), fitted by squared error.

The code is narrow on purpose: an autoencoder of one class then cannot draw the others, which is what IM1 and
IM2 measure.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from causalgen.metrics.evaluators.layers import decoder, encoder
from graphs.variables import Image

__all__ = ["Autoencoder"]


class Autoencoder(nn.Module):
    """An autoencoder of images in [0, 1].

    Args:
        image: the size of the images.
        width: channels.
        latent: numbers in the code.
    """

    def __init__(self, image: Image, width: int, latent: int) -> None:
        super().__init__()
        self.encoder = encoder(image, width, latent)
        self.decoder = decoder(image, width, latent)

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructions in [0, 1]; (B, C, H, W) to the same shape."""
        return torch.sigmoid(self.decoder(self.encoder(images)))

    def loss(self, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Mean over images of the squared error summed over pixels; ``targets`` is not needed."""
        return (self(images) - images).square().flatten(1).sum(1).mean()
