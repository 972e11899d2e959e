"""Exact inference of blocks of few values, and of numbers affine and normal given these: a mixture.

With d the values of the discrete nodes, z the missing numbers, if any, and y the evidence,

    p(d | y) ~ p(d) * prod p(other children | d) * N(y; nu_d, S_d),    p(z | d, y) = N(z; m_d, C_d),

the conditional Gaussian model (Lauritzen 1992, "Propagation of probabilities, means and variances in mixed
graphical association models"). No discrete node may depend on a missing number. Every combination d is
enumerated; where there are numbers, each is a row of its own for ``missing_evidence.linear_gaussian``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from causalgen.counterfactuals.missing_evidence.blocks import (
    Block,
    Problem,
    draw_places,
    exact_densities,
    has_density,
    log_weights,
)
from causalgen.counterfactuals.missing_evidence.distributions import (
    CategoryPosterior,
    GaussianPosterior,
    MixturePosterior,
)
from causalgen.counterfactuals.missing_evidence.linear_gaussian import Gaussian, solve_gaussian
from causalgen.counterfactuals.mutilated_model import ready
from causalgen.counterfactuals.rows import broadcast_rows
from mechanisms.rows import repeat_rows

__all__ = ["Mixed", "draw_mixed", "joined", "mixture_of", "solve_mixed"]

_MOST_COMBINATIONS, _MOST_WITH_NUMBERS = 100_000, 256
_AT_ONCE = 2**22
"""Numbers of all covariances, or combinations without any, in one go."""


@dataclass(frozen=True)
class Mixed:
    """The joint posterior of some rows of a block, with K combinations of its discrete nodes."""

    supports: Mapping[str, Tensor]  # the values of each discrete node
    places: Mapping[str, Tensor]  # (K,) by discrete node: which of these it has in each combination
    weights: Tensor  # (K, n) probability of each combination
    gaussian: Gaussian | None  # of the numbers, with K * n rows, combination-major; None where there are none
    # (n,) most deviations that a number with normal noise is from its mean, in the likeliest combination
    surprise: Tensor

    def draw(self, uniform: Tensor, standard: Tensor) -> dict[str, Tensor]:
        """Uniforms (S, n) and standard normals (S, n, width) -> values by node, (S, n, *event)."""
        n = self.weights.shape[1]
        chosen = draw_places(self.weights.T, uniform)
        values = {node: self.supports[node][place[chosen]] for node, place in self.places.items()}
        if self.gaussian is None:
            return values
        rows = chosen * n + torch.arange(n, device=chosen.device)
        root = self.gaussian.root
        root = root[rows] if len(root) > 1 else root
        numbers = self.gaussian.mean[rows] + (root @ standard[..., None])[..., 0]
        for node, (part, shape) in self.gaussian.parts.items():
            values[node] = numbers[..., part].reshape(*chosen.shape, *shape)
        return values

    def marginal(self, node: str) -> CategoryPosterior | MixturePosterior:
        """Of one node, n rows."""
        combinations, n = self.weights.shape
        if node in self.places:
            support = self.supports[node]
            probabilities = self.weights.new_zeros(n, len(support))
            return CategoryPosterior(probabilities.index_add(1, self.places[node], self.weights.T), support)
        assert self.gaussian is not None
        found = self.gaussian.marginal(node)
        return MixturePosterior(
            self.weights,
            found.mean.reshape(combinations, n, *found.mean.shape[1:]),
            found.covariance.reshape(combinations, n, *found.covariance.shape[1:]),
        )


def solve_mixed(problem: Problem, samples: int = 1) -> list[tuple[slice, Mixed]] | None:
    """The posterior, some rows at a time; None where the block is not of this form, or has too many values.

    S draws to come take memory too.
    """
    world, missing = problem.world, problem.block.missing
    found = {node: ready(world, node).support() for node in missing}
    supports = {node: each.to(problem.rows.device) for node, each in found.items() if each is not None}
    numbers = [node for node in missing if node not in supports]
    if not exact_densities(world, problem.block.factors):
        return None
    most = _MOST_WITH_NUMBERS if numbers else _MOST_COMBINATIONS
    if not supports or prod(map(len, supports.values())) > most:
        return None
    reads_numbers = {
        node for node in problem.block.factors if set(problem.unknown_parents(node)) & set(numbers)
    }
    if reads_numbers & supports.keys():
        return None
    inner = Block(tuple(numbers), tuple(node for node in problem.block.children if node in reads_numbers))
    grid = torch.cartesian_prod(*[torch.arange(len(each)) for each in supports.values()])
    grid = grid.reshape(-1, len(supports)).to(problem.rows.device)
    places = {node: grid[:, k] for k, node in enumerate(supports)}
    width = sum(prod(world.mechanisms[node].variable.event_shape) for node in numbers)
    size = max(1, _AT_ONCE // (max(len(grid), samples) * max(1, width**2)))
    parts: list[tuple[slice, Mixed]] = []
    for start in range(0, len(problem.rows), size):
        rows = slice(start, min(start + size, len(problem.rows)))
        part = _solve(problem.part(rows), inner, supports, places)
        if part is None:
            return None
        parts.append((rows, part))
    return parts


def _solve(
    problem: Problem, inner: Block, supports: Mapping[str, Tensor], places: Mapping[str, Tensor]
) -> Mixed | None:
    n, combinations = len(problem.rows), len(next(iter(places.values())))
    chosen = {node: support[places[node]].repeat_interleave(n) for node, support in supports.items()}
    known = dict(problem.known) | chosen
    others = [node for node in problem.block.factors if node not in inner.factors]
    if not all(has_density(problem.world, node, known) for node in supports):
        return None
    if not inner.missing:
        logs = log_weights(problem, problem.block.factors, known, combinations)
        surprise = _surprise(problem, problem.block.children, known, combinations)
        return Mixed(supports, places, logs.softmax(0), None, _of_likeliest(surprise, logs))
    repeated = {node: repeat_rows(value, combinations) for node, value in problem.known.items()} | chosen
    rows = problem.rows.repeat(combinations)
    gaussian = solve_gaussian(Problem(problem.world, inner, repeated, rows, problem.seed))
    if gaussian is None:
        return None
    numbers = gaussian.log_evidence, gaussian.densities
    logs = log_weights(problem, others, known, combinations, known=numbers)
    alone = [node for node in problem.block.children if node not in inner.children]
    surprise = torch.maximum(_surprise(problem, alone, known, combinations), gaussian.surprise)
    return Mixed(supports, places, logs.softmax(0), gaussian, _of_likeliest(surprise, logs))


def _surprise(
    problem: Problem, children: Sequence[str], known: Mapping[str, Tensor], combinations: int
) -> Tensor:
    """(K * n,) most deviations that a child whose parents are all known is from its mean; 0 without any."""
    rows, total = len(problem.rows), len(problem.rows) * combinations
    most = torch.zeros(total, dtype=torch.float64, device=problem.rows.device)
    for node in children:
        parents = {
            name: broadcast_rows(known[name], total, rows) for name in problem.world.graph.parents(node)
        }
        form = ready(problem.world, node).linear_form((), parents, total)
        if form is not None:
            deviation = form.covariance.diagonal(dim1=1, dim2=2).sqrt()
            apart = broadcast_rows(known[node], total, rows).reshape(total, -1) - form.offset
            # What has no variance is an atom, whose contradiction is refused.
            most = torch.maximum(most, (apart.abs() / deviation).masked_fill(deviation == 0, 0.0).amax(1))
    return most


def _of_likeliest(surprise: Tensor, logs: Tensor) -> Tensor:
    """(n,) the surprise, (K * n,), in each row's combination of most weight, of logs (K, n)."""
    return surprise.reshape(logs.shape).gather(0, logs.argmax(0, keepdim=True))[0]


def draw_mixed(parts: Sequence[tuple[slice, Mixed]], uniform: Tensor, standard: Tensor) -> dict[str, Tensor]:
    """The draws of all parts, (S * n, *event) by node; see ``Mixed.draw``."""
    drawn = [part.draw(uniform[:, rows], standard[:, rows]) for rows, part in parts]
    return {node: torch.cat([each[node] for each in drawn], 1).flatten(0, 1) for node in drawn[0]}


def joined(parts: Sequence[CategoryPosterior | MixturePosterior]) -> CategoryPosterior | MixturePosterior:
    """The same node's distribution in all parts, one after the other."""
    first = parts[0]
    if isinstance(first, CategoryPosterior):
        columns = [each.probabilities for each in parts if isinstance(each, CategoryPosterior)]
        return CategoryPosterior(torch.cat(columns), first.values)
    mixtures = [each for each in parts if isinstance(each, MixturePosterior)]
    return MixturePosterior(
        torch.cat([each.weights for each in mixtures], 1),
        torch.cat([each.means for each in mixtures], 1),
        torch.cat([each.covariances for each in mixtures], 1),
    )


def mixture_of(
    observed: Tensor, parts: Sequence[tuple[Tensor, GaussianPosterior | MixturePosterior]]
) -> MixturePosterior:
    """One mixture of all rows, by parts; rows in no part have their value in ``observed``, (B, *event)."""
    mixtures = [(rows, _as_mixture(each)) for rows, each in parts]
    most, width = max((len(each.weights) for _, each in mixtures), default=1), observed[0].numel()
    weights = observed.new_zeros(most, len(observed))
    weights[0] = 1.0
    means = repeat_rows(observed[None], most).clone()
    covariances = observed.new_zeros(most, len(observed), width, width)
    for rows, each in mixtures:
        size = len(each.weights)
        weights[0, rows] = 0.0
        weights[:size, rows], means[:size, rows] = each.weights, each.means
        covariances[:size, rows] = each.covariances
    return MixturePosterior(weights, means, covariances)


def _as_mixture(found: GaussianPosterior | MixturePosterior) -> MixturePosterior:
    if isinstance(found, MixturePosterior):
        return found
    alone = found.mean.new_ones(1, len(found.mean))
    return MixturePosterior(alone, found.mean[None], found.covariance[None])
