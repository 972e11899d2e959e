"""A solver, a denoising network and a noise family from outside of causalgen.

``heun`` is the second-order Runge-Kutta method of Karras et al. (2022, Algorithm 1) in x_bar, both ways.
"""

from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import ClassVar, Literal, final

import pyro.distributions as dist
import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from causalgen import MechanismError
from graphs.expressions import Range
from mechanisms.diffusion import Backbone, Leaves, NoiseEstimate, Solver
from mechanisms.tables.noise_families import Family

__all__ = ["Conv", "Heun", "WEIBULL"]


@final
class Heun(Solver, frozen=True):
    """Two evaluations a step, the second at the level that is reached."""

    invertible: ClassVar[bool] = True
    needs_conditional: ClassVar[bool] = False

    kind: Literal["heun"] = "heun"

    def sample_noise(self, n: int, shape: tuple[int, ...], *, generator: Generator) -> Leaves:
        """x_T alone."""
        return {"x_T": torch.randn(n, *shape, generator=generator, device=generator.device)}

    def encode(self, image: Tensor, eps: NoiseEstimate) -> Leaves:
        """Up from sigma_0 to sigma_N."""
        return {"x_T": self.to_noise(_walk(image, self.levels(), eps))}

    def decode(self, noise: Leaves, eps: NoiseEstimate) -> Tensor:
        """Down from sigma_N to sigma_0."""
        return _walk(self.from_noise(noise["x_T"]), self.levels()[::-1], eps)


def _walk(x: Tensor, levels: list[float], eps: NoiseEstimate) -> Tensor:
    for start, stop in pairwise(levels):
        slope = eps(x, start)
        x = x + (stop - start) / 2 * (slope + eps(x + (stop - start) * slope, stop))
    return x


@final
class Conv(Backbone, frozen=True):
    """Three convolutions, scaled and shifted by the level and the context.

    Attributes:
        width: channels between them.
    """

    kind: Literal["conv"] = "conv"
    width: int = Field(default=16, ge=1)

    def check_size(self, height: int, width: int) -> None:
        """Refuse images smaller than a kernel."""
        if min(height, width) < 3:
            raise MechanismError(
                f"Backbone 'conv' needs images of 3x3 pixels at least, got {height}x{width}."
            )

    def build(self, image_channels: int, extra_channels: int, context: int) -> nn.Module:
        """The network."""
        return ConvNetwork(image_channels, extra_channels, context, self.width)


class ConvNetwork(nn.Module):
    """F(x, sigma, context)."""

    def __init__(self, image_channels: int, extra_channels: int, context: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(image_channels + extra_channels, width, 3, padding=1)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, image_channels, 3, padding=1)
        self.modulate = nn.Linear(1 + context, 2 * width)

    def forward(self, x: Tensor, sigma: Tensor, context: Tensor) -> Tensor:
        """(N, C + E, H, W), (N,) and (N, context) to (N, C, H, W)."""
        given = torch.cat([(sigma.log()[:, None] / 4).to(x.dtype), context], 1)
        scale, shift = self.modulate(given)[..., None, None].chunk(2, 1)
        h = nn.functional.silu(self.first(x)) * (1 + scale) + shift
        return self.last(nn.functional.silu(self.middle(h)))


def _weibull(n: int, generator: Generator, scale: float, concentration: float) -> Tensor:
    uniform = torch.rand(n, generator=generator, dtype=torch.float64, device=generator.device)
    return (scale * (-torch.log1p(-uniform)) ** (1 / concentration)).clamp(min=1e-300)


WEIBULL = Family(
    "weibull",
    {"scale": "positive", "concentration": "positive"},
    dist.Weibull,
    _weibull,
    lambda *_: Range(0, inf, nonzero=True),
    scale=lambda scale, _: scale,
)
