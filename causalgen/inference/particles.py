"""Any other block: joint particles from the missing nodes' mechanisms, weighted by the observed children.

    z ~ product of p(z_k | pa_k),    log w(z) = sum over observed children of log p(x | pa)

Self-normalised importance sampling. Draws are systematic: P weighted particles become S equal ones
(Kitagawa 1996).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from causalgen.inference.blocks import Problem
from causalgen.inference.factors import log_factor, refuse_impossible
from causalgen.node_calls import generate_rows
from causalgen.rows import level_rows
from causalgen.seeds import keyed_generator
from causalgen.world import ready
from graphs.errors import PartialEvidenceError
from graphs.variables import Image
from mechanisms.base import Noise

__all__ = ["Cloud", "Resampled", "clouds", "resample"]

_AT_ONCE = 2**20
"""Particles times rows in one go."""


@dataclass(frozen=True)
class Cloud:
    """Weighted particles for some rows.

    Attributes:
        values: of the missing nodes, (P * n, *event), particle-major.
        noise: behind them.
        weights: (P, n), summing to 1 over P.
    """

    values: Mapping[str, Tensor]
    noise: Mapping[str, Noise]
    weights: Tensor

    @property
    def effective(self) -> Tensor:
        """(n,) effective sample size."""
        return 1 / self.weights.square().sum(0)


@dataclass(frozen=True)
class Resampled:
    """Draws of a block, of equal weight.

    Attributes:
        values: by node, (S * n, *event).
        noise: behind them.
        effective: (n,) effective sample size of the particles they come from.
    """

    values: Mapping[str, Tensor]
    noise: Mapping[str, Noise]
    effective: Tensor


def clouds(problem: Problem, particles: int) -> Iterator[tuple[slice, Cloud]]:
    """Particles for the rows of a block, some rows at a time.

    Raises:
        PartialEvidenceError: an image with observed effects is missing, or a child has no density.
        EvidenceError: a row's evidence has probability zero, or close to it, under all particles.
    """
    for node in problem.block.missing:
        if isinstance(problem.world.mechanisms[node].variable, Image):
            raise PartialEvidenceError(
                f"Evidence lacks the image {node!r}, which causes observed nodes: an image cannot be "
                "inferred from its effects. Give it, or leave its descendants out of the evidence."
            )
    size = max(1, _AT_ONCE // particles)
    for start in range(0, len(problem.rows), size):
        rows = slice(start, min(start + size, len(problem.rows)))
        yield rows, _cloud(problem.part(rows), particles)


def resample(problem: Problem, particles: int, samples: int, uniform: Tensor) -> Resampled:
    """S draws a row, of equal weight, out of P particles.

    Args:
        problem: the block and its evidence.
        particles: P.
        samples: S.
        uniform: (n,), for the draws.
    """
    parts = [(cloud, _chosen(cloud, samples, uniform[rows])) for rows, cloud in clouds(problem, particles)]
    effective = torch.cat([cloud.effective for cloud, _ in parts])
    _warn_of_few(effective, particles, problem.block.missing)
    order = _sample_major([chosen.shape[1] for _, chosen in parts], samples).to(uniform.device)
    flat = [(cloud, chosen.flatten()) for cloud, chosen in parts]
    return Resampled(
        {
            node: torch.cat([cloud.values[node][chosen] for cloud, chosen in flat])[order]
            for node in problem.block.missing
        },
        {
            node: Noise.concat([cloud.noise[node].rows(chosen) for cloud, chosen in flat]).rows(order)
            for node in problem.block.missing
        },
        effective,
    )


def _chosen(cloud: Cloud, samples: int, uniform: Tensor) -> Tensor:
    """Systematic draws: (n,) uniforms -> which of the P * n particles, (S, n)."""
    n = cloud.weights.shape[1]
    steps = torch.arange(samples, dtype=torch.float64, device=uniform.device)
    edges = cloud.weights.T.cumsum(1).contiguous()
    points = (uniform[:, None] + steps) / samples * edges[:, -1:]
    chosen = torch.searchsorted(edges, points.contiguous(), right=True).clamp(max=len(cloud.weights) - 1)
    return (chosen * n + torch.arange(n, device=chosen.device)[:, None]).T


def _sample_major(counts: list[int], samples: int) -> Tensor:
    """Where each row of a sample-major whole is in parts that are sample-major each; rows of each part."""
    starts = torch.tensor([0, *counts]).cumsum(0)[:-1] * samples
    places = [
        start + torch.arange(samples)[:, None] * count + torch.arange(count)
        for start, count in zip(starts.tolist(), counts, strict=True)
    ]
    return torch.cat(places, 1).flatten()


def _warn_of_few(effective: Tensor, particles: int, missing: tuple[str, ...]) -> None:
    """Warn where the evidence leaves few particles: below a tenth of them, or below 50."""
    few = effective < max(0.1 * particles, 50)
    if bool(few.any()):
        warnings.warn(
            f"Inferring {', '.join(missing)}: in {int(few.sum())} of {len(few)} rows the effective sample "
            f"size is small, down to {effective.min().item():.0f} of {particles} particles. "
            "Answers for these rows are rough; ask scm.abduct(..., particles=...) for more.",
            UserWarning,
            stacklevel=2,
        )


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
        parents = {name: level_rows(values[name], particles * n, n) for name in world.graph.parents(node)}
        values[node] = generate_rows(mechanism, node, parents, noises[node])
    logs = torch.zeros(particles * n, dtype=torch.float64, device=problem.rows.device)
    for child in problem.block.children:
        logs = logs + log_factor(world, child, values, n, particles)
    logs = logs.reshape(particles, n)
    refuse_impossible(logs.amax(0), problem.rows, problem.block.missing)
    return Cloud({node: values[node] for node in problem.block.missing}, noises, logs.softmax(0))
