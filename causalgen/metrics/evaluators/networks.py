"""Convolutional networks that score counterfactual images: classifier, autoencoder, VAE and regressor.

    encoder   (B, C, H, W) -> (B, outputs)    two strided convolutions and a linear layer
    decoder   (B, latent) -> (B, C, H, W)     the same in reverse; logits of the pixels
    trunk     (B, C, H, W) -> (B, 2 * width)  four convolutions on pixels folded 2 x 2, then averaged

Pixels lie in [0, 1]; H and W are multiples of 4. None of these networks ever guides a counterfactual: a
score by the network that made the image would prove nothing.
"""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    affine_grid,
    binary_cross_entropy_with_logits,
    cross_entropy,
    grid_sample,
    smooth_l1_loss,
)

from graphs.errors import ShapeError
from graphs.variables import Image

__all__ = ["Autoencoder", "Classifier", "Regressor", "VariationalAutoencoder", "check_size", "random_affine"]

_SMOOTHING = 0.05
"""Label smoothing of the classifier."""

_BEND = 0.1
"""Where the Huber loss goes from square to straight, in standard deviations."""

_ANGLE, _SHEAR, _STRETCH, _SHIFT = 10 * pi / 180, 0.15, 0.1, 0.1
"""Largest turn in radians, shear, stretch, and shift as a share of the image's half width."""


def check_size(image: Image) -> None:
    """Refuse images that cannot be halved twice."""
    if image.height % 4 or image.width % 4:
        raise ShapeError(
            f"Evaluators halve the image twice: expected a height and a width that are multiples of 4, got "
            f"{image.height} x {image.width}. Pad the images."
        )


def _encoder(image: Image, width: int, outputs: int) -> nn.Sequential:
    """(B, C, H, W) -> (B, outputs)."""
    return nn.Sequential(
        nn.Conv2d(image.channels, width, 4, stride=2, padding=1),
        nn.SiLU(),
        nn.Conv2d(width, width, 4, stride=2, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(width * (image.height // 4) * (image.width // 4), outputs),
    )


def _decoder(image: Image, width: int, latent: int) -> nn.Sequential:
    """(B, latent) -> (B, C, H, W), unbounded."""
    small = (width, image.height // 4, image.width // 4)
    return nn.Sequential(
        nn.Linear(latent, small[0] * small[1] * small[2]),
        nn.SiLU(),
        nn.Unflatten(1, small),
        nn.ConvTranspose2d(width, width, 4, stride=2, padding=1),
        nn.SiLU(),
        nn.ConvTranspose2d(width, image.channels, 4, stride=2, padding=1),
    )


def _trunk(image: Image, width: int) -> nn.Sequential:
    """(B, C, H, W) -> (B, 2 * width)."""
    return nn.Sequential(
        nn.PixelUnshuffle(2),
        *_block(4 * image.channels, width),
        *_block(width, width),
        nn.MaxPool2d(2),
        *_block(width, 2 * width),
        *_block(2 * width, 2 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def _block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


class Classifier(nn.Module):
    """A convolutional classifier p(class | x), whose last hidden layer also serves as features."""

    def __init__(self, image: Image, width: int, classes: int) -> None:
        super().__init__()
        self.trunk = _trunk(image, width)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (B, classes)."""
        return self.head(self.trunk(images))

    def loss(self, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Mean cross-entropy with the codes ``targets`` (B,), labels smoothed by 0.05."""
        return cross_entropy(self(images), targets, label_smoothing=_SMOOTHING)


class Autoencoder(nn.Module):
    """A convolutional autoencoder, AE(x) = sigmoid(decode(encode(x))), fitted by squared error: IM1, IM2.

    The code is narrow on purpose: an autoencoder of one class then cannot draw the others, which is what IM1
    and IM2 measure.
    """

    def __init__(self, image: Image, width: int, latent: int) -> None:
        super().__init__()
        self.encoder = _encoder(image, width, latent)
        self.decoder = _decoder(image, width, latent)

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructions in [0, 1]; (B, C, H, W) to the same shape."""
        return torch.sigmoid(self.decoder(self.encoder(images)))

    def loss(self, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Mean over images of the squared error summed over pixels; ``targets`` is not needed."""
        return (self(images) - images).square().flatten(1).sum(1).mean()


class VariationalAutoencoder(nn.Module):
    """A variational autoencoder; its posterior q(z | x) = N(m(x), diag exp v(x)) measures CLD's distances.

        loss = -E_q log p(x | z) + KL(q(z | x) || N(0, I)),    log p: Bernoulli, summed over pixels

    (Kingma & Welling 2014; pixels in [0, 1] count as probabilities, as is usual for MNIST.)
    """

    def __init__(self, image: Image, width: int, latent: int) -> None:
        super().__init__()
        self.encoder = _encoder(image, width, 2 * latent)
        self.decoder = _decoder(image, width, latent)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x), each (B, latent)."""
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        return mean, log_variance

    def loss(self, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Mean over images of the negative evidence lower bound, in nats; ``targets`` is not needed."""
        mean, log_variance = self(images)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=torch.float32)
        logits = self.decoder(mean + (0.5 * log_variance).exp() * noise)
        reconstruction = binary_cross_entropy_with_logits(logits, images, reduction="none").flatten(1).sum(1)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        return (reconstruction + divergence).mean()


class Regressor(nn.Module):
    """A convolutional regressor: continuous causes read from an image, in their own units.

    Fitted in units of the training rows' standard deviation, by the Huber loss.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, image: Image, width: int, outputs: int) -> None:
        super().__init__()
        self.trunk = _trunk(image, width)
        self.head = nn.Linear(2 * width, outputs)
        # In float64: in float32 the times 1.7e9 +- 100 are 16 of them.
        self.register_buffer("mean", torch.zeros(outputs, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(outputs, dtype=torch.float64))

    def standardise(self, targets: Tensor) -> None:
        """Take the units from the training rows, (N, outputs); a constant column keeps the unit 1."""
        scale = targets.std(0)
        self.mean.copy_(targets.mean(0))
        self.scale.copy_(torch.where(scale > 0, scale, torch.ones_like(scale)))

    def forward(self, images: Tensor) -> Tensor:
        """Values in the variables' units, (B, outputs) float64."""
        return self.mean + self.scale * self.head(self.trunk(images))

    def loss(self, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Mean Huber loss against ``targets`` (B, outputs)."""
        wanted = ((targets - self.mean) / self.scale).float()
        return smooth_l1_loss(self.head(self.trunk(images)), wanted, beta=_BEND)


def random_affine(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W) turned, sheared, stretched and shifted at random; empty space is black."""
    uniform = (
        2 * torch.rand(len(images), 6, generator=generator, device=images.device, dtype=torch.float32) - 1
    )
    angle, shear = _ANGLE * uniform[:, 0], _SHEAR * uniform[:, 1]
    across, down = 1 + _STRETCH * uniform[:, 2], 1 + _STRETCH * uniform[:, 3]
    shift = _SHIFT * uniform[:, 4:]
    top = torch.stack([across * angle.cos(), shear - angle.sin(), shift[:, 0]], 1)
    bottom = torch.stack([angle.sin(), down * angle.cos(), shift[:, 1]], 1)
    grid = affine_grid(torch.stack([top, bottom], 1), list(images.shape), align_corners=False)
    return grid_sample(images, grid, align_corners=False)
