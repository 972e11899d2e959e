"""The three pieces that every judge is built of: halve twice to a code, double twice back, and a small trunk.

    encoder   (B, C, H, W) -> (B, outputs)    two strided convolutions and a linear layer
    decoder   (B, latent) -> (B, C, H, W)     the same in reverse; logits of the pixels
    trunk     (B, C, H, W) -> (B, 2 * width)  four convolutions on pixels folded 2 x 2, then averaged

Pixels lie in [0, 1]; H and W are multiples of 4.
"""

from __future__ import annotations

from torch import nn

from graphs.errors import ShapeError
from graphs.variables import Image

__all__ = ["check_size", "decoder", "encoder", "trunk"]


def check_size(image: Image) -> None:
    """Refuse images that cannot be halved twice.

    Raises:
        ShapeError: the height or the width is no multiple of 4.
    """
    if image.height % 4 or image.width % 4:
        raise ShapeError(
            f"Judges halve the image twice: expected a height and a width that are multiples of 4, got "
            f"{image.height} x {image.width}. Pad the images."
        )


def encoder(image: Image, width: int, outputs: int) -> nn.Sequential:
    """(B, C, H, W) -> (B, outputs)."""
    return nn.Sequential(
        nn.Conv2d(image.channels, width, 4, stride=2, padding=1),
        nn.SiLU(),
        nn.Conv2d(width, width, 4, stride=2, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(width * (image.height // 4) * (image.width // 4), outputs),
    )


def decoder(image: Image, width: int, latent: int) -> nn.Sequential:
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


def trunk(image: Image, width: int) -> nn.Sequential:
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
