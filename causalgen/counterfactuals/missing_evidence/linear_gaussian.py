"""Exact linear-Gaussian inference: a block that is affine with normal noise has a normal posterior.

With z the missing values and e their noises, z = mu + T e, and the observed children y = nu + G e + noise:

    mean = mu + K (y - nu)                  D = cov(e),  R = cov(noise of the children)
    cov  = (A - K B) (A - K B)'             A = [T D^1/2, 0],  B = [G D^1/2, R^1/2],  K = A B' (B B')^-1

by the QR decomposition of B', so that a child's noise may be as small beside the spread of the missing values
as float64 can tell: B B' would square that ratio, and T D T' less what is known would cancel.

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

__all__ = ["Gaussian", "solve_gaussian"]

_ATOM = 1e-6
"""How far a number without variance may be from its mean, in parts of its size."""

_ROUNDING = 8 * torch.finfo(torch.float64).eps
"""What a sum of terms that cancel may be by rounding alone, in parts of these."""

_DEPENDENT = 1e-11
"""Deviation of a child given those before it, in parts of its own, that counts as none."""


@dataclass(frozen=True)
class Gaussian:
    """The joint posterior of a block."""

    # Each missing node's place in the vector, and its event shape
    parts: Mapping[str, tuple[slice, tuple[int, ...]]]
    mean: Tensor  # (n, width)
    root: Tensor  # (1 or n, width, width): the covariance is root root'
    log_evidence: Tensor  # (n,) log density of the observed children; -inf where their atoms contradict
    densities: Tensor  # (n,) how many of their numbers it is a density of; the others are atoms
    surprise: Tensor  # (n,) most deviations that one is from its mean given those before it; 0 without any

    @property
    def covariance(self) -> Tensor:
        """(1 or n, width, width)."""
        return self.root @ self.root.mT

    def draw(self, standard: Tensor) -> dict[str, Tensor]:
        """Standard normals (S, n, width) -> values by node, (S * n, *event)."""
        values = self.mean + _apply(self.root, standard)
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
    noise = _blocks([_root(forms[node].covariance) for node in missing])
    mean, root = _stack(means, missing, 1), _stack(effects, missing, 1) @ noise
    log_evidence = surprise = mean.new_zeros(n)
    if children:
        own = _blocks([_root(forms[node].covariance) for node in children])
        told = _beside(_stack(effects, children, 1) @ noise, own)
        root = _beside(root, root.new_zeros(1, root.shape[1], own.shape[2]))
        observed = torch.cat([problem.known[node].reshape(n, -1) for node in children], 1)
        expected = _stack(means, children, 1)
        near = _ATOM * torch.maximum(observed.abs(), expected.abs())
        residual = observed - expected
        gain, log_evidence, densities, surprise = _divide(root, told, residual, near, children)
        mean = mean + _apply(gain, residual)
        root = _without_rounding(root - gain @ told, root.abs() + gain.abs() @ told.abs())
    figures = (each.expand(n) for each in (log_evidence, densities, surprise))
    return Gaussian(parts, mean.expand(n, -1), torch.linalg.qr(root.mT, mode="r").R.mT, *figures)


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
    effect = size = mean.new_zeros(1, mean.shape[1], width)
    for name, weight in form.weights.items():
        mean = mean + _apply(weight, means[name])
        effect = effect + weight @ effects[name]
        size = size + weight.abs() @ effects[name].abs()
    return mean, _without_rounding(effect, size)


def _without_rounding(total: Tensor, size: Tensor) -> Tensor:
    """A sum, 0 where terms of this size cancel: what rounding leaves is no effect, and no noise."""
    return torch.where(total.abs() <= _ROUNDING * size, 0.0, total)


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


def _beside(left: Tensor, right: Tensor) -> Tensor:
    """(1 or n, a, b) and (1 or n, a, c) -> (1 or n, a, b + c)."""
    n = max(len(left), len(right))
    return torch.cat([left.expand(n, -1, -1), right.expand(n, -1, -1)], 2)


def _divide(
    root: Tensor, told: Tensor, residual: Tensor, near: Tensor, children: tuple[str, ...]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """K of A, ``root``, and B, ``told``; log N(residual; 0, B B'), of how many numbers, and the surprise.

    In units of each child's deviation. A child without variance is an atom: it says nothing, and its residual
    must be 0, up to ``near``, (n, width).
    """
    scale = told.norm(dim=2)
    atoms = scale == 0
    scale = torch.where(atoms, 1.0, scale)
    orthogonal, upper = torch.linalg.qr(_beside(told / scale[..., None], torch.diag_embed(atoms.to(told))).mT)
    size = upper.diagonal(dim1=1, dim2=2).abs()
    if not bool((size > _DEPENDENT).all()):
        raise PartialEvidenceError(
            f"Evidence on {', '.join(map(repr, children))} is linearly dependent given the model, without "
            "any noise in between, so that missing values do not follow from it by conditioning. "
            "Give one of these nodes a noise, or leave it out of the evidence."
        )
    contradicted = (atoms & (residual.abs() > near)).any(1)
    residual = residual.masked_fill(atoms, 0.0)
    projected = root @ orthogonal[:, : root.shape[2]]
    gain = torch.linalg.solve_triangular(upper.mT, projected, upper=False, left=False)
    white = torch.linalg.solve_triangular(upper.mT, (residual / scale)[..., None], upper=False)[..., 0]
    densities = (~atoms).sum(1)
    density = (
        -0.5 * white.square().sum(1) - (size * scale).log().sum(1) - 0.5 * densities * math.log(2 * math.pi)
    )
    density = density.masked_fill(contradicted, -torch.inf)
    return gain / scale[:, None, :], density, densities, white.abs().amax(1)


def _root(covariance: Tensor) -> Tensor:
    """A with A A' = covariance, which may be singular."""
    if covariance.shape[-1] == 1:
        return covariance.clamp(min=0).sqrt()
    scale = covariance.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    safe = torch.where(scale > 0, scale, 1.0)
    values, vectors = torch.linalg.eigh(covariance / (safe[:, :, None] * safe[:, None, :]))
    return scale[:, :, None] * vectors * values.clamp(min=0).sqrt()[:, None, :]
