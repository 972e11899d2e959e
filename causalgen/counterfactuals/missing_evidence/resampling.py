"""Systematic resampling of weighted draws to draws of equal weight, and the effective sample size.

    systematic resampling    P weighted draws become S equal ones with one uniform (Kitagawa 1996)
    effective sample size    (sum w)^2 / sum w^2, the equal draws that would say as much (Kong 1992)

Copies of one weighted draw are no independent draws. Their number, 0 to P - 1, is their *lineage*; standard
errors take draws of one lineage as one cluster.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphs.errors import warn
from mechanisms.base import Abducted
from mechanisms.seeds import keyed_generator

__all__ = ["ResampledNoise", "pooled_effective_sample_size", "resample_noise", "systematic", "warn_of_few"]

_FEW = 50
"""Effective sample size below which a mechanism's own weighted draws are rough."""


@dataclass(frozen=True)
class ResampledNoise:
    """Draws of a node's noise, of equal weight."""

    abducted: Abducted  # the draws, without weights
    effective: Tensor  # (B,) effective sample size of the weighted draws
    lineage: Tensor | None  # (S, B) which weighted draw each one is; None of single draws


def resample_noise(
    found: Abducted, counted: Tensor, samples: int, seed: int, node: str, kind: str
) -> ResampledNoise:
    """A node's S * B weighted draws, sample-major, resampled row by row; warns where few of them matter.

    In rows ``counted``, (B,) bool, all weights are equal, since they have been used already.
    """
    assert found.log_weight is not None
    log_weights = found.log_weight.double().view(samples, -1).masked_fill(counted, 0.0)
    rows = log_weights.shape[1]
    within = found.diagnostics.get("effective_sample_size")
    effective = pooled_effective_sample_size(
        log_weights, None if within is None else within.view(samples, rows)
    )
    warn_of_few(
        effective,
        _FEW,
        f"Abduction of {node!r} ({kind})",
        "give the mechanism more particles, or another inference, such as svi.",
    )
    if samples == 1:
        return ResampledNoise(Abducted(found.noise, None, found.diagnostics), effective, None)
    generator = keyed_generator(seed, "resample", node, device=log_weights.device)
    uniform = torch.rand(rows, generator=generator, dtype=torch.float64, device=log_weights.device)
    chosen = systematic(log_weights.softmax(0), uniform, samples)
    own = torch.arange(samples, device=chosen.device)[:, None]
    chosen = torch.where(counted, own, chosen)
    places = (chosen * rows + torch.arange(rows, device=chosen.device)).flatten()
    figures = {name: each[places] for name, each in found.diagnostics.items()}
    return ResampledNoise(Abducted(found.noise.rows(places), None, figures), effective, chosen)


def systematic(weights: Tensor, uniform: Tensor, samples: int) -> Tensor:
    """Numbers of the weighted draws that S equal ones are, (S, n), by one ``uniform``, (n,), in [0, 1).

    Weights are (P, n), at least 0, not all 0 in a column.
    """
    steps = torch.arange(samples, dtype=torch.float64, device=uniform.device)
    edges = weights.T.double().cumsum(1).contiguous()
    points = (uniform[:, None] + steps) / samples * edges[:, -1:]
    return torch.searchsorted(edges, points.contiguous(), right=True).clamp(max=len(weights) - 1).T


def pooled_effective_sample_size(log_weights: Tensor, effective: Tensor | None) -> Tensor:
    """(n,) of S draws, each chosen out of a population of weighted draws of its own.

    Of each population (S, n) its log mean weight, and its effective sample size, 1 where None.
    """
    total = (log_weights.double() - log_weights.double().amax(0)).exp()
    within = torch.ones_like(total) if effective is None else effective.double()
    return total.sum(0).square() / (total.square() / within).sum(0)


def warn_of_few(effective: Tensor, least: float, what: str, remedy: str) -> None:
    """Warn where an effective sample size, (n,) of rows, is below ``least``; ``remedy`` ends the sentence."""
    few = effective < least
    if bool(few.any()):
        warn(
            f"{what}: in {int(few.sum())} of {len(few)} rows the effective sample size is small, down to "
            f"{effective.min().item():.3g}. Answers for these rows are rough; {remedy}"
        )
