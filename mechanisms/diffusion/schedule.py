"""Noise schedules: grids of levels, log-SNR, Karras (EDM) and respaced DDPM, and their base class ``Grid``.

With a = alpha_bar, ``x_t = sqrt(a) x_0 + sqrt(1 - a) eps``. Every level is named by its noise-to-signal ratio

    sigma = sqrt((1 - a) / a),    x_bar = x_t / sqrt(a) = x_0 + sigma eps,    d x_bar / d sigma = eps,

so that a DDIM step is an Euler step in sigma, whichever schedule the level came from (Song et al. 2020,
eq. 14; Karras et al. 2022). The VP-SDE ``dx = -b/2 x dt + sqrt(b) dw`` is the discrete schedule's limit:
``a(t) = exp(-int_0^t b)`` (Song et al. 2021, eq. 29).

A grid is sigma_0 < ... < sigma_N. A clean image enters at sigma_0 > 0: no network is ever called at 0.
"""

import math
from abc import ABC, abstractmethod
from typing import Annotated, Any, Literal, TypeVar, final

import torch
from pydantic import Field, model_validator
from torch import Tensor

from graphs.declared import Declared
from mechanisms.registry import Registry

__all__ = [
    "AnyGrid",
    "DDPMGrid",
    "GRIDS",
    "Grid",
    "KarrasGrid",
    "LogGrid",
    "alpha_bar_of",
    "linear_alpha_bars",
    "ordered",
    "sigma_of",
]


def sigma_of(alpha_bar: Tensor) -> Tensor:
    """Noise-to-signal ratio of a level, from alpha_bar in (0, 1]."""
    return ((1 - alpha_bar) / alpha_bar).sqrt()


def alpha_bar_of(sigma: Tensor) -> Tensor:
    """Signal variance alpha_bar in (0, 1] of a level, from sigma >= 0."""
    return 1 / (1 + sigma**2)


def linear_alpha_bars(levels: int, first: float, last: float) -> Tensor:
    """alpha_bar of each of ``levels`` steps with betas rising linearly (Ho et al. 2020): (levels,)."""
    return torch.cumprod(1 - torch.linspace(first, last, levels, dtype=torch.float64), 0)


class Grid(Declared, ABC, frozen=True):  # pyright: ignore[reportGeneralTypeIssues]
    """The options of a grid of levels; plug-ins come from entry points of the group ``causalgen.grids``."""

    kind: str

    @abstractmethod
    def sigmas(self, steps: int) -> Tensor:
        """The steps + 1 levels sigma_0 < ... < sigma_N, sigma_0 > 0: (steps + 1,) float64.

        Raises:
            ValueError: the grid has no such number of levels.
        """


GRIDS: Registry[type[Grid]] = Registry(
    "level grid",
    "causalgen.grids",
    Grid,
    {
        "ddpm": "mechanisms.diffusion.schedule:DDPMGrid",
        "karras": "mechanisms.diffusion.schedule:KarrasGrid",
        "log": "mechanisms.diffusion.schedule:LogGrid",
        "trained": "mechanisms.diffusion.trained_levels:TrainedGrid",
    },
)
AnyGrid = Annotated[Grid, GRIDS]
"""A field that holds any grid, told by its ``kind``."""


_Range = TypeVar("_Range", bound=Any)


def ordered(grid: _Range) -> _Range:
    """Refuse a grid whose ``sigma_min`` is not below its ``sigma_max``, by a ValueError."""
    if grid.sigma_min >= grid.sigma_max:
        raise ValueError(f"sigma_min ({grid.sigma_min:g}) must be below sigma_max ({grid.sigma_max:g})")
    return grid


@final
class LogGrid(Grid, frozen=True):
    """Levels evenly spaced in log sigma, hence in log-SNR: the ratio of neighbours is constant.

    Attributes:
        sigma_min: the lowest level, sigma_0, at which a clean image enters.
        sigma_max: the highest, sigma_N.
    """

    kind: Literal["log"] = "log"
    sigma_min: float = Field(default=0.02, gt=0)
    sigma_max: float = Field(default=20.0, gt=0)

    _ordered = model_validator(mode="after")(ordered)

    def sigmas(self, steps: int) -> Tensor:
        """The steps + 1 levels, ascending, float64."""
        ends = math.log(self.sigma_min), math.log(self.sigma_max)
        return torch.linspace(*ends, steps + 1, dtype=torch.float64).exp()


@final
class KarrasGrid(Grid, frozen=True):
    """Levels evenly spaced in sigma ** (1/rho) (Karras et al. 2022, eq. 5).

    Attributes:
        sigma_min: the lowest level, sigma_0, at which a clean image enters.
        sigma_max: the highest, sigma_N.
        rho: how much denser the low levels are.
    """

    kind: Literal["karras"] = "karras"
    sigma_min: float = Field(default=0.02, gt=0)
    sigma_max: float = Field(default=80.0, gt=0)
    rho: float = Field(default=7.0, ge=1)

    _ordered = model_validator(mode="after")(ordered)

    def sigmas(self, steps: int) -> Tensor:
        """The steps + 1 levels, ascending, float64."""
        ends = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return torch.linspace(*ends, steps + 1, dtype=torch.float64) ** self.rho


@final
class DDPMGrid(Grid, frozen=True):
    """The first levels of a respaced DDPM schedule with linear betas.

    The ``levels`` of the training schedule are respaced to ``respaced`` evenly chosen ones. With N steps
    the grid is the first N + 1 of them. Diff-SCM (Sanchez & Tsaftaris 2022) respaces 1000 to 100 and
    walks the first 75.

    Attributes:
        levels: of the training schedule.
        respaced: how many of them are kept, more than the solver's steps.
        beta_first: of the first level; the betas rise linearly.
        beta_last: of the last.
    """

    kind: Literal["ddpm"] = "ddpm"
    levels: int = Field(default=1000, ge=2)
    respaced: int = Field(default=100, ge=2)
    beta_first: float = Field(default=1e-4, gt=0, lt=1)
    beta_last: float = Field(default=0.02, gt=0, lt=1)

    @model_validator(mode="after")
    def _respacing(self) -> "DDPMGrid":
        if self.respaced > self.levels:
            raise ValueError(f"respaced ({self.respaced}) cannot exceed levels ({self.levels})")
        return self

    def sigmas(self, steps: int) -> Tensor:
        """The first steps + 1 respaced levels, ascending, float64."""
        if steps + 1 > self.respaced:
            raise ValueError(
                f"{steps} steps need {steps + 1} levels, but the schedule is respaced to {self.respaced}"
            )
        alpha_bars = linear_alpha_bars(self.levels, self.beta_first, self.beta_last)
        chosen = torch.linspace(0, self.levels - 1, self.respaced, dtype=torch.float64).round().long()
        return sigma_of(alpha_bars[chosen[: steps + 1]])
