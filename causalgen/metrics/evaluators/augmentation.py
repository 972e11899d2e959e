"""Images moved about a little, so that a small classifier sees more than its training rows."""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

__all__ = ["moved"]

_ANGLE, _SHEAR, _STRETCH, _SHIFT = 10 * pi / 180, 0.15, 0.1, 0.1
"""Largest turn in radians, shear, stretch, and shift as a share of the image's half width."""


def moved(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turned, sheared, stretched and shifted, each at random and independently; empty space is black.

    Args:
        images: (B, C, H, W).
        generator: draws the movements, on the images' device.

    Returns:
        (B, C, H, W).
    """
    uniform = 2 * torch.rand(len(images), 6, generator=generator, device=images.device) - 1
    angle, shear = _ANGLE * uniform[:, 0], _SHEAR * uniform[:, 1]
    across, down = 1 + _STRETCH * uniform[:, 2], 1 + _STRETCH * uniform[:, 3]
    shift = _SHIFT * uniform[:, 4:]
    top = torch.stack([across * angle.cos(), shear - angle.sin(), shift[:, 0]], 1)
    bottom = torch.stack([angle.sin(), down * angle.cos(), shift[:, 1]], 1)
    grid = affine_grid(torch.stack([top, bottom], 1), list(images.shape), align_corners=False)
    return grid_sample(images, grid, align_corners=False)
