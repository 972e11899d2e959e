"""Exact linear-Gaussian inference: a block that is affine with normal noise has a normal posterior.

With z the missing values and e their noises, z = mu + T e, and the observed children y = nu + G e + noise:

    mean = mu + T D G' S^-1 (y - nu)        D = cov(e),  R = cov(noise of the children)
    cov  = T D T' - T D G' S^-1 G D T'      S = G D G' + R

All matrices have a leading dimension of 1, or of n where slopes depend on observed parents. A child whose
variance is 0 in a row has an atom there: it either agrees with its mean or has probability zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from causalgen.counterfactuals.missing_evidence.blocks import Problem
from causalgen.counterfactuals.missing_evidence.distributions import GaussianPosterior
from causalgen.counterfactuals.mutilated_model import ready
from graphs.errors import PartialEvidenceError
from mechanisms.base import LinearForm

__all__ = ["Gaussian", "matrix_root", "solve_gaussian"]

_ATOM = 1e-6
"""How far a number without variance may be from its mean, in parts of its size."""


@dataclass(frozen=True)
class Gaussian:
    """The joint posterior of a block."""

    # Each missing node's place in the vector, and its event shape
    parts: Mapping[str, tuple[slice, tuple[int, ...]]]
    mean: Tensor  # (n, width)
    covariance: Tensor  # (1 or n, width, width)
    log_evidence: Tensor  # (n,) log density of the observed children; -inf where their atoms contradict
    densities: Tensor  # (n,) how many of their numbers it is a density of; the others are atoms
    surprise: Tensor  # (n,) most deviations that one is from its mean given those before it; 0 without any

    def draw(self, standard: Tensor) -> dict[str, Tensor]:
        """Standard normals (S, n, width) -> values by node, (S * n, *event)."""
        values = self.mean + _apply(matrix_root(self.covariance), standard)
        return {
            node: values[..., part].reshape(-1, *shape).contiguous()
            for node, (part, shape) in self.parts.items()
        }

    def marginal(self, node: str) -> GaussianPosterior:
        """Of one node, n rows."""
        part, shape = self.parts[node]
        covariance = self.covariance[:, part, part].expand(len(self.mean), -1, -1)
        return GaussianPosterior(self.mean[:, part].reshape(-1, *shape), covariance)


def solve_gaussian(problem: Problem) -> Gaussian | None:
    """The posterior, or None where a mechanism of the block is not linear with normal noise.

    Raises:
        PartialEvidenceError: observed children depend on each other linearly, without any noise.
    """
    n, forms = len(problem.rows), {}
    for node in problem.block.factors:
        form = ready(problem.world, node).linear_form(
            problem.unknown_parents(node), problem.known_parents(node), n
        )
        if form is None:
            return None
        forms[node] = form
    parts = _parts(problem)
    width = sum(part.stop - part.start for part, _ in parts.values())
    means: dict[str, Tensor] = {}
    effects: dict[str, Tensor] = {}
    for node in problem.block.factors:
        means[node], effects[node] = _propagate(forms[node], means, effects, width)
        if node in parts:
            part = parts[node][0]
            effects[node] = effects[node].clone()
            effects[node][:, :, part] += torch.eye(part.stop - part.start).to(effects[node])
    missing, children = problem.block.missing, problem.block.children
    densities = torch.zeros(n, dtype=torch.int64, device=problem.rows.device)
    mean, effect = _stack(means, missing, 1), _stack(effects, missing, 1)
    noise = _blocks([forms[node].covariance for node in missing])
    covariance = effect @ noise @ effect.mT
    log_evidence = surprise = mean.new_zeros(n)
    if children:
        gain_of = _stack(effects, children, 1)
        cross = effect @ noise @ gain_of.mT
        total = gain_of @ noise @ gain_of.mT + _blocks([forms[node].covariance for node in children])
        observed = torch.cat([problem.known[node].reshape(n, -1) for node in children], 1)
        expected = _stack(means, children, 1)
        near = _ATOM * torch.maximum(observed.abs(), expected.abs())
        residual = observed - expected
        gain, log_evidence, densities, surprise = _divide(cross, total, residual, near, children)
        mean = mean + _apply(gain, residual)
        covariance = covariance - gain @ cross.mT
        covariance = (covariance + covariance.mT) / 2
    told = (each.expand(n) for each in (log_evidence, densities, surprise))
    return Gaussian(parts, mean.expand(n, -1), covariance, *told)


def _parts(problem: Problem) -> dict[str, tuple[slice, tuple[int, ...]]]:
    parts, start = {}, 0
    for node in problem.block.missing:
        shape = tuple(problem.world.mechanisms[node].variable.event_shape)
        parts[node] = (slice(start, start + prod(shape)), shape)
        start += prod(shape)
    return parts


def _propagate(
    form: LinearForm, means: Mapping[str, Tensor], effects: Mapping[str, Tensor], width: int
) -> tuple[Tensor, Tensor]:
    """A node's mean (n, d), and what the block's noises add to it through its parents, (1 or n, d, width)."""
    mean = form.offset
    effect = mean.new_zeros(1, mean.shape[1], width)
    for name, weight in form.weights.items():
        mean = mean + _apply(weight, means[name])
        effect = effect + weight @ effects[name]
    return mean, effect


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    """(1 or n, a, b) times (..., n, b) -> (..., n, a)."""
    return vector @ matrix[0].T if len(matrix) == 1 else (matrix @ vector[..., None])[..., 0]


def _stack(values: Mapping[str, Tensor], names: tuple[str, ...], dim: int) -> Tensor:
    n = max(len(values[name]) for name in names)
    return torch.cat([values[name].expand(n, *values[name].shape[1:]) for name in names], dim)


def _blocks(matrices: list[Tensor]) -> Tensor:
    """Block-diagonal, (1 or n, width, width)."""
    n, width = max(map(len, matrices)), sum(matrix.shape[1] for matrix in matrices)
    joint, start = matrices[0].new_zeros(n, width, width), 0
    for matrix in matrices:
        stop = start + matrix.shape[1]
        joint[:, start:stop, start:stop] = matrix
        start = stop
    return joint


def _divide(
    cross: Tensor, total: Tensor, residual: Tensor, near: Tensor, children: tuple[str, ...]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """cross @ total^-1, log N(residual; 0, total), of how many numbers that is a density, and the surprise.

    By Cholesky in units of each child's deviation. A child without variance is an atom: it says nothing, and
    its residual must be 0, up to ``near``, (n, width).
    """
    scale = total.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    atoms = scale == 0
    scale = torch.where(atoms, 1.0, scale)
    unit = total / (scale[:, :, None] * scale[:, None, :]) + torch.diag_embed(atoms.to(total))
    factor, failed = torch.linalg.cholesky_ex(unit)
    if bool((failed != 0).any()) or not bool(factor.isfinite().all()):
        raise PartialEvidenceError(
            f"Evidence on {', '.join(map(repr, children))} is linearly dependent given the model, without "
            "any noise in between, so that missing values do not follow from it by conditioning. "
            "Give one of these nodes a noise, or leave it out of the evidence."
        )
    contradicted = (atoms & (residual.abs() > near)).any(1)
    residual = residual.masked_fill(atoms, 0.0)
    solved = torch.cholesky_solve((cross / scale[:, None, :]).mT, factor).mT
    white = torch.linalg.solve_triangular(factor, (residual / scale)[..., None], upper=False)[..., 0]
    volume = (factor.diagonal(dim1=1, dim2=2) * scale).log().sum(1)
    densities = (~atoms).sum(1)
    density = -0.5 * white.square().sum(1) - volume - 0.5 * densities * math.log(2 * math.pi)
    density = density.masked_fill(contradicted, -torch.inf)
    return solved / scale[:, None, :], density, densities, white.abs().amax(1)


def matrix_root(covariance: Tensor) -> Tensor:
    """A with A A' = covariance, which may be singular."""
    scale = covariance.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    safe = torch.where(scale > 0, scale, 1.0)
    values, vectors = torch.linalg.eigh(covariance / (safe[:, :, None] * safe[:, None, :]))
    return scale[:, :, None] * vectors * values.clamp(min=0).sqrt()[:, None, :]
