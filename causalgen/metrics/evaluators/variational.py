"""An unconditional variational autoencoder; its posterior q(z | x) = N(m(x), diag exp v(x)) is CLD's measure.

    loss = -E_q log p(x | z) + KL(q(z | x) || N(0, I)),    log p: Bernoulli log-likelihood, summed over pixels

(Kingma & Welling 2014; pixels in [0, 1] count as probabilities, as is usual for MNIST.)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from causalgen.metrics.evaluators.layers import decoder, encoder
from graphs.variables import Image

__all__ = ["VariationalAutoencoder"]


class VariationalAutoencoder(nn.Module):
    """A variational autoencoder of images in [0, 1].

    Args:
        image: the size of the images.
        width: channels.
        latent: dimensions of z.
    """

    def __init__(self, image: Image, width: int, latent: int) -> None:
        super().__init__()
        self.encoder = encoder(image, width, 2 * latent)
        self.decoder = decoder(image, width, latent)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x), each (B, latent)."""
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        return mean, log_variance

    def loss(self, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Mean over images of the negative evidence lower bound, in nats; ``targets`` is not needed."""
        mean, log_variance = self(images)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        logits = self.decoder(mean + (0.5 * log_variance).exp() * noise)
        reconstruction = binary_cross_entropy_with_logits(logits, images, reduction="none").flatten(1).sum(1)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        return (reconstruction + divergence).mean()
