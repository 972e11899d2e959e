"""Importance sampling of any other block: particles of the missing nodes, weighted by observed children.

    z ~ product of p(z_k | pa_k),    log w(z) = sum over observed children of log p(x | pa)

Self-normalised importance sampling, and resampling to draws of equal weight:

    systematic resampling    P weighted draws become S equal ones with one uniform (Kitagawa 1996)
    effective sample size    (sum w)^2 / sum w^2, the equal draws that would say as much (Kong 1992)

Copies of one weighted draw are no independent draws. Their number, 0 to P - 1, is their *lineage*; standard
errors take draws of one lineage as one cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from causalgen.counterfactuals.missing_evidence.blocks import Problem, draw_places, log_weights
from causalgen.counterfactuals.mutilated_model import ready
from causalgen.counterfactuals.rows import broadcast_rows, generate_rows
from graphs.errors import PartialEvidenceError, numbered_rows, warn
from graphs.variables import Image
from mechanisms.base import Abducted, Noise
from mechanisms.seeds import keyed_generator

__all__ = [
    "Cloud",
    "Resampled",
    "ResampledNoise",
    "clouds",
    "pooled_effective_sample_size",
    "resample",
    "resample_noise",
    "systematic",
    "warn_of_few",
    "warn_of_few_particles",
]

_FEW = 50
"""Effective sample size below which a mechanism's own weighted draws are rough."""

_MANY = 400
"""Effective sample size of particles that is enough, however many there are: a mean's error is a twentieth of
the deviation."""

_AT_ONCE, _NUMBERS_AT_ONCE = 2**20, 2**26
"""Particles times rows in one go, and these times the numbers of the largest value, such as a picture."""


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
    places = _places(chosen)
    figures = {name: each[places] for name, each in found.diagnostics.items()}
    return ResampledNoise(Abducted(found.noise.rows(places), None, figures), effective, chosen)


def systematic(weights: Tensor, uniform: Tensor, samples: int) -> Tensor:
    """Numbers of the weighted draws that S equal ones are, (S, n), by one ``uniform``, (n,), in [0, 1).

    Weights are (P, n), at least 0, not all 0 in a column.
    """
    steps = torch.arange(samples, dtype=torch.float64, device=uniform.device)
    return draw_places(weights.T.double(), (uniform + steps[:, None]) / samples)


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
            f"{what}: in {int(few.sum()):,} of {len(few):,} rows the effective sample size is small, down to "
            f"{effective.min().item():.3g}. Answers for these rows are rough; {remedy}"
        )


def warn_of_few_particles(effective: Tensor, particles: int, problem: Problem) -> None:
    """The same of the particles of a block."""
    warn_of_few(
        effective,
        min(max(0.1 * particles, _FEW), _MANY),
        f"Inferring {', '.join(map(repr, problem.block.missing))} by {particles} particles",
        "ask scm.abduct(..., particles=...) for more.",
    )


@dataclass(frozen=True)
class Cloud:
    """Weighted particles for some rows."""

    values: Mapping[str, Tensor]  # of the missing nodes, (P * n, *event), particle-major
    noise: Mapping[str, Noise]  # behind them
    weights: Tensor  # (P, n), summing to 1 over P

    @property
    def effective(self) -> Tensor:
        """(n,) effective sample size."""
        return 1 / self.weights.square().sum(0)


@dataclass(frozen=True)
class Resampled:
    """Draws of a block, of equal weight."""

    values: Mapping[str, Tensor]  # by node, (S * n, *event)
    noise: Mapping[str, Noise]  # behind them
    lineage: Tensor  # (S, n) number of the particle that each draw is
    effective: Tensor  # (n,) effective sample size of the particles they come from


def clouds(problem: Problem, particles: int) -> Iterator[tuple[slice, Cloud]]:
    """Particles for the rows of a block, some rows at a time."""
    for node in problem.block.missing:
        if isinstance(problem.world.mechanisms[node].variable, Image):
            raise PartialEvidenceError(
                f"Evidence lacks the image {node!r}, which causes observed nodes: an image cannot be "
                "inferred from its effects. Give it, or leave its descendants out of the evidence."
            )
    width = max((value[0].numel() for value in problem.known.values()), default=1)
    size = max(1, min(_AT_ONCE, _NUMBERS_AT_ONCE // width) // particles)
    for start in range(0, len(problem.rows), size):
        rows = slice(start, min(start + size, len(problem.rows)))
        yield rows, _cloud(problem.part(rows), particles)


def resample(problem: Problem, particles: int, samples: int, uniform: Tensor) -> Resampled:
    """S draws a row, of equal weight, out of P particles, by ``uniform``, (n,)."""
    parts = [
        (cloud, systematic(cloud.weights, uniform[rows], samples))
        for rows, cloud in clouds(problem, particles)
    ]
    effective = torch.cat([cloud.effective for cloud, _ in parts])
    warn_of_few_particles(effective, particles, problem)
    order = _sample_major([chosen.shape[1] for _, chosen in parts], samples).to(uniform.device)
    flat = [(cloud, _places(chosen)) for cloud, chosen in parts]
    values: dict[str, Tensor] = {}
    noise: dict[str, Noise] = {}
    for node in problem.block.missing:
        values[node] = torch.cat([cloud.values[node][chosen] for cloud, chosen in flat])[order]
        noise[node] = Noise.concat([cloud.noise[node].rows(chosen) for cloud, chosen in flat]).rows(order)
    return Resampled(values, noise, torch.cat([chosen for _, chosen in parts], 1), effective)


def _places(chosen: Tensor) -> Tensor:
    """Numbers of particles, (S, n) -> where they are among all P * n, (S * n,)."""
    n = chosen.shape[1]
    return (chosen * n + torch.arange(n, device=chosen.device)).flatten()


def _sample_major(counts: list[int], samples: int) -> Tensor:
    """Where each row of a sample-major whole is in parts that are sample-major each; rows of each part."""
    starts = torch.tensor([0, *counts]).cumsum(0)[:-1] * samples
    places = [
        start + torch.arange(samples)[:, None] * count + torch.arange(count)
        for start, count in zip(starts.tolist(), counts, strict=True)
    ]
    return torch.cat(places, 1).flatten()


@torch.no_grad()
def _cloud(problem: Problem, particles: int) -> Cloud:
    world, n = problem.world, len(problem.rows)
    values, noises = dict(problem.known), {}
    for node in problem.block.missing:
        mechanism = ready(world, node)
        generator = keyed_generator(
            problem.seed, "particles", node, int(problem.rows[0]), device=problem.rows.device
        )
        noises[node] = mechanism.sample_noise(particles * n, generator=generator)
        parents = {name: broadcast_rows(values[name], particles * n, n) for name in world.graph.parents(node)}
        with numbered_rows(problem.rows):
            values[node] = generate_rows(mechanism, node, parents, noises[node])
    logs = log_weights(problem, problem.block.children, values, particles, estimated=True)
    return Cloud({node: values[node] for node in problem.block.missing}, noises, logs.softmax(0))
