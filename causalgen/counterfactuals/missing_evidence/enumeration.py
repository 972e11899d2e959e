"""Exact inference by enumeration: every combination of a block's few values, with its probability."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from causalgen.counterfactuals.missing_evidence.blocks import Problem
from causalgen.counterfactuals.missing_evidence.factors import (
    draw_places,
    exact_densities,
    has_density,
    log_weights,
)
from causalgen.counterfactuals.mutilated_model import ready

__all__ = ["Discrete", "solve_discrete"]

_MOST_COMBINATIONS = 100_000
_AT_ONCE = 2**20
"""Combinations times rows in one go."""


@dataclass(frozen=True)
class Discrete:
    """The posterior of a block."""

    draws: Mapping[str, Tensor]  # by node, (S * n,)
    probabilities: Mapping[str, Tensor]  # of each node's values by themselves, (n, K)
    supports: Mapping[str, Tensor]  # these values, (K,)


def solve_discrete(problem: Problem, uniform: Tensor) -> Discrete | None:
    """The posterior, or None where a density is missing or estimated, or there are too many combinations.

    Raises:
        EvidenceError: a row's evidence has probability zero.
        PartialEvidenceError: an observed child has no density.
    """
    missing, device = problem.block.missing, problem.rows.device
    supports = [ready(problem.world, node).support() for node in missing]
    found = [support.to(device) for support in supports if support is not None]
    if not exact_densities(problem.world, problem.block.factors):
        return None
    if len(found) < len(supports) or prod(map(len, found)) > _MOST_COMBINATIONS:
        return None
    supports = dict(zip(missing, found, strict=True))
    # Places in the supports, since categories and whole numbers differ in dtype.
    places = [torch.arange(len(support), device=device) for support in found]
    grid = torch.cartesian_prod(*places).reshape(-1, len(missing))
    first = {node: support[:1] for node, support in supports.items()} | dict(problem.known)
    if not all(has_density(problem.world, node, first) for node in missing):
        return None
    size = max(1, _AT_ONCE // len(grid))
    parts = [slice(start, start + size) for start in range(0, len(problem.rows), size)]
    columns = {node: supports[node][grid[:, k]] for k, node in enumerate(missing)}
    solved = [_solve(problem.part(rows), columns, uniform[:, rows]) for rows in parts]
    draws = torch.cat([draws for draws, _ in solved], 1)
    return Discrete(
        {node: columns[node][draws].flatten() for node in missing},
        {
            node: torch.cat([_marginal(weights, grid[:, k], len(found[k])) for _, weights in solved])
            for k, node in enumerate(missing)
        },
        supports,
    )


def _solve(problem: Problem, columns: Mapping[str, Tensor], uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of the drawn combinations, (S, n); and the probability of each, (n, C)."""
    n, combinations = len(problem.rows), len(next(iter(columns.values())))
    values = dict(problem.known) | {node: column.repeat_interleave(n) for node, column in columns.items()}
    logs = log_weights(problem, problem.block.factors, values, combinations).T
    probabilities = (logs - logs.logsumexp(1, keepdim=True)).exp()
    return draw_places(probabilities, uniform), probabilities


def _marginal(probabilities: Tensor, places: Tensor, size: int) -> Tensor:
    """(n, C) -> (n, K)."""
    return probabilities.new_zeros(len(probabilities), size).index_add(1, places, probabilities)
