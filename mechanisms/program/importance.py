"""Importance sampling of a program's noise, with as many draws as a row needs.

First K prior draws for every row, each weighted by how well it explains the row's value. Rows whose effective
sample size (Kong 1992) is below the target then get more:

    continuous noise   a normal law is fitted to the weighted draws, and draws from it are weighted in turn,
                       round after round (adaptive importance sampling, Bugallo et al. 2017). To fit it,
                       weights are tempered by a power in (0, 1] that leaves enough draws with a weight
                       (Koblents & Miguez 2015), so that it moves to the posterior step by step; a tenth of
                       the draws is from the prior, which bounds the weights (Hesterberg 1995)
    any other          four times as many prior draws, up to 2**17

The log mean weight estimates log p(x | pa) either way. A part of the posterior that no draw came near is
missed, and the effective sample size does not tell; so is a probability that comes from fewer than about one
draw in K.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from graphs.errors import MechanismError
from mechanisms.base import Abducted, Noise, Parents
from mechanisms.program.inference import Guide
from mechanisms.program.posterior import Latents, ProgramSolver, Weighed
from mechanisms.program.run import unvalidated
from mechanisms.seeds import global_draws_from, gumbels

__all__ = ["ImportanceSampler", "Reservoir"]

_MOST = 2**17
"""Most prior draws of a row."""
_TARGET = 100.0
_ROUNDS = 12
_TOGETHER = 2**20
"""Draws that are weighed in one call."""

_FIGURES = ("total", "squares", "best", "draws")

Prior = Callable[[int], Noise]


class Reservoir:
    """One draw of each of N rows, in proportion to its weight, of all that were offered; and what they weigh.

    ``leaves`` are (N, *event) by site; ``atomic`` (N,) whether only draws count whose weight is a
    probability; ``gated`` (N,) whether the last site did not matter in some draw.
    """

    def __init__(self, rows: int, generator: torch.Generator) -> None:
        self.generator = generator
        self.total, self.squares, self.best = torch.full(
            (3, rows), -torch.inf, dtype=torch.float64, device=generator.device
        )
        self.draws = torch.zeros_like(self.total)
        self.atomic, self.gated = torch.zeros((2, rows), dtype=torch.bool, device=generator.device)
        self.leaves: dict[str, Tensor] = {}

    @property
    def explained(self) -> Tensor:
        """(N,) whether any draw has a weight."""
        return self.total > -torch.inf

    @property
    def log_weight(self) -> Tensor:
        """(N,) log mean weight."""
        return self.total - self.draws.log()

    @property
    def effective(self) -> Tensor:
        """(N,) effective sample size of all draws, 0 where none has a weight."""
        return (2 * self.total - self.squares).exp().nan_to_num(0.0)

    def abducted(self) -> Abducted:
        """The draws with the log mean weight of all that were offered."""
        noise = Noise(len(self.total), self.leaves)
        return Abducted(noise, self.log_weight, {"effective_sample_size": self.effective})

    def offer(self, rows: Tensor, weighed: Weighed) -> None:
        """K draws for each of some rows, whose numbers are (n,)."""
        weights, atomic = weighed.dominated(len(rows))
        if weighed.atoms is not None:
            self.gated[rows] |= weighed.atoms.reshape(-1, len(rows)).any(0)
        weights = torch.where(self.atomic[rows] & ~atomic, -torch.inf, weights)
        self.forget_densities(rows[atomic & ~self.atomic[rows]])
        self.total[rows] = torch.logaddexp(self.total[rows], weights.logsumexp(0))
        self.squares[rows] = torch.logaddexp(self.squares[rows], (2 * weights).logsumexp(0))
        self.draws[rows] += len(weights)
        # The largest of log weight plus Gumbel is a draw, round after round.
        best, which = (weights + gumbels(tuple(weights.shape), self.generator)).max(0)
        better = (best > self.best[rows]) | (self.draws[rows] == len(weights))
        self.best[rows] = torch.where(better, best, self.best[rows])
        chosen = which * len(rows) + torch.arange(len(rows), device=rows.device)
        for name, leaf in weighed.leaves.items():
            self._store(name, leaf[chosen], rows, better)

    def forget_densities(self, rows: Tensor) -> None:
        """Let only probabilities count in some rows, which had none so far."""
        for figure in (self.total, self.squares, self.best):
            figure[rows] = -torch.inf
        self.atomic[rows] = True

    def take(self, rows: Tensor, other: Reservoir) -> None:
        """Another's draws for some rows, (n,), in place of these, where they are the more effective."""
        better = other.effective > self.effective[rows]
        for mine, its in ((getattr(self, name), getattr(other, name)) for name in _FIGURES):
            mine[rows[better]] = its[better]
        for name, leaf in other.leaves.items():
            self._store(name, leaf, rows, better)

    def _store(self, name: str, leaf: Tensor, rows: Tensor, which: Tensor) -> None:
        if name not in self.leaves:
            self.leaves[name] = leaf.new_zeros(len(self.total), *leaf.shape[1:])
        self.leaves[name][rows[which]] = leaf[which]


class ImportanceSampler:
    """The noise of rows of one program, by K particles; of ``prior`` rows prior noise."""

    def __init__(
        self, solver: ProgramSolver, prior: Prior, particles: int, generator: torch.Generator
    ) -> None:
        self.solver, self.prior, self.particles, self.generator = solver, prior, particles, generator

    @torch.no_grad()
    def run(self, value: Tensor, parents: Parents, *, target: float = _TARGET) -> Reservoir:
        """Draws for N rows, until their effective sample size reaches the target, or half of K if less.

        Where a row stays without a draw that explains it, others may not have been tried as often.
        """
        rows = torch.arange(len(value), device=value.device)
        found = Reservoir(len(value), self.generator)
        target = min(target, self.particles / 2)
        self._draw(found, rows, value, parents, self.particles)
        missed = rows[~found.explained]
        # One row that nothing explains decides, before many are tried.
        for some in (missed[:1], missed[1:]):
            self._draw_until(found, some, value, parents, 0.0)
            if not bool(found.explained[some].all()):
                return found
        short = rows[found.effective < target]
        if len(short) and self._has_gradients(value, parents):
            for part in _parts(short[~found.gated[short]], self._proposals):
                some = {name: parents[name][part] for name in self.solver.parents}
                adapted = self._adapted(value[part], some, target)
                found.take(part, adapted)
                found.forget_densities(part[adapted.atomic])
            short = short[found.gated[short] | found.atomic[short]]
        self._draw_until(found, short, value, parents, target)
        return found

    @property
    def _proposals(self) -> int:
        """Draws of each row in a round of fitting."""
        return max(self.particles, 512)

    def _draw(self, found: Reservoir, rows: Tensor, value: Tensor, parents: Parents, draws: int) -> None:
        """Some prior draws for each of some rows."""
        for part in _parts(rows, draws):
            some = {name: parents[name][part] for name in self.solver.parents}
            found.offer(part, self.solver.weigh(value[part], some, self.prior(draws * len(part))))

    def _draw_until(
        self, found: Reservoir, rows: Tensor, value: Tensor, parents: Parents, target: float
    ) -> None:
        """Prior draws for some rows, four times as many in each round, until they are effective enough."""
        draws = self.particles
        while len(rows) and draws < _MOST:
            more = min(3 * draws, _MOST - draws)
            self._draw(found, rows, value, parents, more)
            draws += more
            rows = rows[(found.effective[rows] < target) | ~found.explained[rows]]

    def _has_gradients(self, value: Tensor, parents: Parents) -> bool:
        """Whether all latent noise is continuous, on supports that a normal law can be carried to."""
        if self.solver.plan.how == "match":
            return False
        one = {name: parents[name][:1] for name in self.solver.parents}
        try:
            Latents(self.solver.run(one, self.prior(1)))
        except MechanismError:
            return False
        return True

    def _adapted(self, value: Tensor, parents: Parents, target: float) -> Reservoir:
        """Draws from normal laws fitted to those before, for n rows."""
        best = Reservoir(len(value), self.generator)
        rows = torch.arange(len(value), device=value.device)
        from_prior = self._proposals // 10
        fitted = self._proposals - from_prior
        posterior = self.solver.posterior(value, parents, self.prior(self._proposals * len(value)))
        z, weights = posterior.pilot, posterior.pilot_weights
        for _ in range(_ROUNDS):
            # Rows with a probability, or without any weight, are left to prior draws.
            best.atomic[rows[posterior.atomic]] = True
            weights = torch.where(posterior.atomic | ~z.isfinite().all(-1), -torch.inf, weights)
            alive = (weights > -torch.inf).any(0)
            rows, z, weights = rows[alive], z[:, alive], weights[:, alive]
            if not len(rows):
                break
            some = {name: each[rows] for name, each in parents.items()}
            posterior = self.solver.posterior(value[rows], some, self.prior(from_prior * len(rows)))
            guide = _fitted(z, weights, posterior.pilot.std(0))
            with global_draws_from(self.generator), unvalidated():
                z = guide.propose(fitted, posterior.pilot)
            leaves, joint, log_prior = posterior.explained_joint(z)
            weights = joint - guide.log_mixture(z, log_prior, fitted)
            weights = torch.where(weights.isnan(), -torch.inf, weights)
            found = Reservoir(len(rows), self.generator)
            found.offer(torch.arange(len(rows), device=rows.device), Weighed(leaves, weights.flatten()))
            best.take(rows, found)
            done = (found.effective >= target) & ~posterior.atomic
            weights = torch.where(done, -torch.inf, weights)
        return best


def _parts(rows: Tensor, draws: int) -> Iterator[Tensor]:
    """Some rows at a time, so few that their draws can be weighed together."""
    return (part for part in rows.split(max(1, _TOGETHER // draws)) if len(part))


def _fitted(z: Tensor, weights: Tensor, unit: Tensor) -> Guide:
    """Normal laws with the mean and 1.2 times the covariance of draws (P, n, D) under tempered weights.

    The weights are logs, (P, n), some finite in every row; ``unit`` are deviations of the prior, (n, D).
    """
    draws, _, width = z.shape
    z = torch.where(weights[..., None] > -torch.inf, z, 0.0)
    wanted = min(draws / 4, max(50.0, 10.0 * (width + 1)))
    low, high = torch.full_like(weights[0], -40.0), torch.zeros_like(weights[0])  # logs of the power
    for _ in range(25):
        middle = (low + high) / 2
        enough = 1 / (middle.exp() * weights).softmax(0).square().sum(0) >= wanted
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    tempered = (low.exp() * weights).softmax(0)[..., None]
    mean = (tempered * z).sum(0)
    centred = z - mean
    covariance = 1.2 * torch.einsum("pnd,pne->nde", tempered * centred, centred)
    # Where few draws have a weight at all, they do not tell a spread.
    few = ((weights > -torch.inf).sum(0) < wanted).to(z.dtype)[:, None]
    floor = unit.square() * (1e-10 + 0.1 * few)
    return Guide(mean, torch.linalg.cholesky(covariance + torch.diag_embed(floor)))
