"""Importance sampling of any other block: particles of the missing nodes, weighted by observed children.

    z ~ product of p(z_k | pa_k),    log w(z) = sum over observed children of log p(x | pa)

Self-normalised importance sampling; P weighted particles become S equal ones by systematic resampling.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from causalgen.counterfactuals.missing_evidence.blocks import Problem
from causalgen.counterfactuals.missing_evidence.factors import log_weights
from causalgen.counterfactuals.missing_evidence.resampling import systematic, warn_of_few
from causalgen.counterfactuals.mutilated_model import ready
from causalgen.counterfactuals.row_blocks import generate_rows
from causalgen.counterfactuals.rows import broadcast_rows
from graphs.errors import PartialEvidenceError
from graphs.variables import Image
from mechanisms.base import Noise
from mechanisms.seeds import keyed_generator

__all__ = ["Cloud", "Resampled", "clouds", "resample"]

_AT_ONCE = 2**20
"""Particles times rows in one go."""


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
    """S draws a row, of equal weight, out of P particles, by ``uniform``, (n,)."""
    parts = [
        (cloud, systematic(cloud.weights, uniform[rows], samples))
        for rows, cloud in clouds(problem, particles)
    ]
    effective = torch.cat([cloud.effective for cloud, _ in parts])
    warn_of_few(
        effective,
        max(0.1 * particles, 50),
        f"Inferring {', '.join(map(repr, problem.block.missing))} by {particles} particles",
        "ask scm.abduct(..., particles=...) for more.",
    )
    order = _sample_major([chosen.shape[1] for _, chosen in parts], samples).to(uniform.device)
    flat = [(cloud, _places(chosen)) for cloud, chosen in parts]
    return Resampled(
        {
            node: torch.cat([cloud.values[node][chosen] for cloud, chosen in flat])[order]
            for node in problem.block.missing
        },
        {
            node: Noise.concat([cloud.noise[node].rows(chosen) for cloud, chosen in flat]).rows(order)
            for node in problem.block.missing
        },
        torch.cat([chosen for _, chosen in parts], 1),
        effective,
    )


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
        values[node] = generate_rows(mechanism, node, parents, noises[node])
    logs = log_weights(problem, problem.block.children, values, particles, estimated=True)
    return Cloud({node: values[node] for node in problem.block.missing}, noises, logs.softmax(0))
