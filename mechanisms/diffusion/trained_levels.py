"""The noise levels that a pretrained network knows, as levels sigma, and the grid that walks over them.

A network of diffusers' is told a number of its schedule, not sigma. With a_t = alpha_bar of training level t

    DDPM, DDIM      sigma_t = sqrt((1 - a_t) / a_t),    t = 0 .. T-1    the network is told t
    flow matching   sigma_t = s / (1 - s),  s = t / T,  t = 1 .. T-1    the network is told t

where x_t = (1 - s) x_0 + s eps in flow matching; its last level, s = 1, is pure noise and no sigma. Between
two levels the number is interpolated in log sigma, as in k-diffusion (Crowson 2022); at a level it is exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, final

import torch
from pydantic import Field, model_validator
from torch import Tensor

from graphs.declared import Declared
from graphs.errors import CheckpointError
from mechanisms.diffusion.denoiser import Prediction
from mechanisms.diffusion.schedule import Grid, ordered, sigma_of

__all__ = ["Spacing", "TrainedGrid", "TrainedLevels", "scheduler_options"]

Betas = Literal["linear", "scaled_linear", "squaredcos_cap_v2", "flow"]
Spacing = Literal["leading", "linspace", "log"]

_DISCRETE = ("DDIMScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler", "PNDMScheduler")
_FLOW = "FlowMatchEulerDiscreteScheduler"
_PREDICTIONS: Mapping[str, Prediction] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}

_OTHER_LEVELS = ("trained_betas", "rescale_betas_zero_snr", "use_flow_sigmas", "invert_sigmas")
"""Options of schedulers whose levels are others than those above, or are told by other numbers."""

_EXACT = 1e-3
"""Of a step between two levels: nearer than this is at the level, which float32 cannot tell from it."""


class TrainedLevels(Declared):
    """The schedule that a network was trained on.

    Attributes:
        count: T, its levels.
        betas: how its betas rise, as diffusers names it; ``flow`` for flow matching, which has none.
        beta_first: of the first level.
        beta_last: of the last one.
    """

    count: int = Field(default=1000, ge=2, le=100_000)
    betas: Betas = "linear"
    beta_first: float = Field(default=1e-4, gt=0, lt=1)
    beta_last: float = Field(default=0.02, gt=0, lt=1)

    @model_validator(mode="after")
    def _levels_rise(self) -> TrainedLevels:
        sigmas = self.sigmas()
        if not (bool(sigmas.isfinite().all()) and bool((sigmas.diff() > 0).all())):
            raise ValueError(
                f"these betas give levels that do not rise or are infinite: sigma to {sigmas[-1]:g}"
            )
        return self

    def sigmas(self) -> Tensor:
        """Every level, ascending, float64."""
        return self._table()[0]

    def times(self, sigma: Tensor) -> Tensor:
        """What the network is told of levels sigma, (N,) float32; beyond the ends, those of the ends."""
        _, logs, first = self._table()
        logs = logs.to(sigma.device)
        asked = sigma.double().log().clamp(logs[0], logs[-1])
        above = torch.searchsorted(logs, asked).clamp(1, len(logs) - 1)
        low, high = logs[above - 1], logs[above]
        between = (above - 1) + (asked - low) / (high - low)
        nearest = between.round()
        return (first + torch.where((between - nearest).abs() < _EXACT, nearest, between)).float()

    def _table(self) -> tuple[Tensor, Tensor, int]:
        return _table(self.count, self.betas, self.beta_first, self.beta_last)


@lru_cache(maxsize=16)
def _table(count: int, betas: Betas, first: float, last: float) -> tuple[Tensor, Tensor, int]:
    """The levels, their logarithms, and the first one's number."""
    if betas == "flow":
        share = torch.arange(1, count, dtype=torch.float64) / count
        sigma = share / (1 - share)
        return sigma, sigma.log(), 1
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler  # pretrained networks alone need it

    scheduler = DDPMScheduler(count, first, last, betas)
    sigma = sigma_of(torch.cumprod(1 - scheduler.betas.double(), 0))
    return sigma, sigma.log(), 0


@final
class TrainedGrid(Grid, frozen=True):
    """Levels of the schedule that a pretrained network was trained on: it is told no number it never saw.

    Attributes:
        trained: the schedule.
        spacing: how the levels lie in it: ``log``, evenly in log sigma; ``leading`` and ``linspace``, evenly
            in their number, as diffusers' schedulers choose theirs for N + 1 steps.
        sigma_min: the lowest level with ``log``, or the schedule's next one.
        sigma_max: the highest.
    """

    kind: Literal["trained"] = "trained"
    trained: TrainedLevels = TrainedLevels()
    spacing: Spacing = "log"
    sigma_min: float = Field(default=0.02, gt=0)
    sigma_max: float = Field(default=80.0, gt=0)

    _ordered = model_validator(mode="after")(ordered)

    def sigmas(self, steps: int) -> Tensor:
        """The steps + 1 levels, ascending, float64."""
        known = self.trained.sigmas()
        count, most = steps + 1, len(known)
        if count > most:
            raise ValueError(f"{steps} steps need {count} levels, but the schedule has {most}")
        if self.spacing == "leading":
            return known[torch.arange(count) * (most // count)]
        if self.spacing == "linspace":
            return known[torch.linspace(0, most - 1, count, dtype=torch.float64).round().long()]
        ends = math.log(max(self.sigma_min, known[0])), math.log(min(self.sigma_max, known[-1]))
        asked = torch.linspace(*ends, count, dtype=torch.float64)
        nearest = (known.log()[:, None] - asked).abs().argmin(0)
        # Low levels of a schedule lie apart: those that fall on one move up to the next.
        low = torch.arange(count)
        distinct = (nearest - low).cummax(0).values + low
        if distinct[-1] >= most:
            raise ValueError(
                f"{steps} steps evenly in log sigma need more levels than the schedule has at its upper end: "
                "take fewer, or spacing: leading"
            )
        return known[distinct]


def scheduler_options(config: Mapping[str, Any], where: object) -> tuple[TrainedLevels, Prediction]:
    """What a scheduler's config says of its network: the schedule, and what it predicts.

    How a scheduler would walk (its steps, spacing, shift, clipping) is for the solver's options to say.
    """
    name = config.get("_class_name")
    count = config.get("num_train_timesteps", 1000)
    known = (*_DISCRETE, _FLOW)
    if name not in known:
        raise CheckpointError(
            f"{where}: the scheduler {name!r} is not known here; expected one of {', '.join(known)}."
        )
    for option in _OTHER_LEVELS:
        if config.get(option):
            raise CheckpointError(f"{where}: a schedule with {option} cannot be told to a mechanism.")
    if name == _FLOW:
        return _levels(where, count=count, betas="flow"), "velocity"
    told = config.get("prediction_type", "epsilon")
    if told not in _PREDICTIONS:
        raise CheckpointError(
            f"{where}: the prediction type {told!r} is not known; expected one of {', '.join(_PREDICTIONS)}."
        )
    levels = _levels(
        where,
        count=count,
        betas=config.get("beta_schedule", "linear"),
        beta_first=config.get("beta_start", 1e-4),
        beta_last=config.get("beta_end", 0.02),
    )
    return levels, _PREDICTIONS[told]


def _levels(where: object, **options: Any) -> TrainedLevels:
    try:
        return TrainedLevels(**options)
    except ValueError as error:
        raise CheckpointError(f"{where} is no schedule that is known here: {error}") from error
