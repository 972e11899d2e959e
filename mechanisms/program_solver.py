"""What noise makes a program give a value: its last site solved for, and how probable that is.

    x affine in the last site v    v = (x - x(0)) / (x(1) - x(0)),  log weight  log p(v | e) - log |dx/dv|
    else                           the noise as it is,              log weight  0 where it gives x, else -inf

e is the noise of the other sites. A discrete v has a probability, which no slope scales.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from torch import Tensor

from graphs.variables import Variable
from mechanisms.base import Noise, Parents
from mechanisms.program_latents import Latents, ProgramPosterior
from mechanisms.program_plan import Plan
from mechanisms.program_run import ProgramRun, run_program
from mechanisms.program_values import canonical_value, placeholders, shown_parents

__all__ = ["ProgramSolver"]


class ProgramSolver:
    """One program, its plan, and its variables."""

    def __init__(
        self, program: Callable[..., Any], plan: Plan, variable: Variable, parents: Mapping[str, Variable]
    ) -> None:
        self.program, self.plan, self.variable, self.parents = program, plan, variable, parents

    def posterior(self, value: Tensor, parents: Parents, pilot: Noise) -> ProgramPosterior:
        """The posterior of N rows, with P * N prior draws of noise to start from."""
        rows, last = len(value), self.plan.last
        one = pilot.rows(slice(0, rows))
        with torch.no_grad():
            latents = Latents(self.run(parents, one))
            _, weights = self.weigh(value, parents, pilot)

        def explain(leaves: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
            n = len(next(iter(leaves.values())))
            # In the order of the sites; the last one's only stands in until it is solved for.
            noise = {name: leaves.get(name, one[name]) for name in one}
            return self.explain(value, parents, Noise(n, {**noise, last: _repeat(one[last], n // rows)}))

        return ProgramPosterior(latents, explain, latents.vector(pilot, rows), weights.reshape(-1, rows))

    def explain(
        self, value: Tensor, parents: Parents, noise: Noise
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Noise that gives x, its log weight, and the log density of all but the last site's, (R * N,)."""
        several = {name: _repeat(each, noise.n // len(value)) for name, each in parents.items()}
        run = self.run(several, noise, checked=True)
        leaves, weights = self.weigh(value, parents, noise, run)
        *latent, _ = run.sites.values()
        densities = [
            site.form.base.log_prob(site.noise).double().reshape(noise.n, -1).sum(1) for site in latent
        ]
        return leaves, weights, torch.stack(densities).sum(0)

    def weigh(
        self, value: Tensor, parents: Parents, noise: Noise, run: ProgramRun | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Noise that gives x, and its log weight, (K * N,), sample-major.

        Args:
            value: (N, *event).
            parents: of the same rows.
            noise: K * N rows of all sites; the last one's is solved for, or kept where only a match counts.
            run: with that noise, where there was one.
        """
        times = noise.n // len(value)
        value, parents = _repeat(value, times), {name: _repeat(each, times) for name, each in parents.items()}
        run = run or self.run(parents, noise)
        if self.plan.how == "match":
            fits = self._near(run, value)
            return dict(noise), torch.where(fits, 0.0, -torch.inf).double()
        name, site = run.last
        slope: Tensor | None = None
        solved = value
        if not self.plan.identity:
            at_zero, at_one = (
                self._value(parents, noise, torch.full_like(site.value, number, dtype=torch.float64))
                for number in (0.0, 1.0)
            )
            slope = at_one - at_zero
            solved = (value - at_zero) / slope
            solved = solved.round() if site.discrete else solved
        # Where there is no solution, the prior's value stands in: it has a density, and gets no weight.
        inside = solved.isfinite().reshape(noise.n, -1).all(1) & site.fn.support.check(solved)
        solved = torch.where(_column(inside, solved), solved, site.value.detach().double())
        density = site.fn.log_prob(solved).double()
        if slope is not None:
            inside = inside & self._near(self.run(parents, noise, {name: solved}), value)
            if not site.discrete:
                density = density - slope.abs().log().reshape(noise.n, -1).sum(1)
        leaves = {**noise, name: site.form.inverse(solved).to(noise[name].dtype)}
        return leaves, torch.where(inside, density, -torch.inf)

    def _value(self, parents: Parents, noise: Noise, last: Tensor) -> Tensor:
        """x as it is where the last site has another value."""
        run = self.run(parents, noise, {self.plan.last: last})
        return canonical_value(self.variable, run.returned, noise.n)

    def _near(self, run: ProgramRun, value: Tensor) -> Tensor:
        """Whether the run gave the value, (N,)."""
        got = canonical_value(self.variable, run.returned, len(value)).double()
        near = (got - value).abs() <= self.plan.tolerance * value.abs().clamp(min=1.0)
        return near.reshape(len(value), -1).all(1)

    def run(
        self,
        parents: Parents,
        noise: Noise,
        values: Mapping[str, Tensor] | None = None,
        *,
        checked: bool = False,
    ) -> ProgramRun:
        """A run with given noise.

        Args:
            parents: canonical values, (N, *event).
            noise: N rows.
            values: of sites that do not follow their noise; such a run is not checked.
            checked: whether noise like this has been seen to be independent of the parents.

        Raises:
            MechanismError: the law of some noise depends on the parents.
        """
        shown = shown_parents(self.parents, parents)
        run = run_program(self.program, shown, noise.n, noise=noise, values=values)
        bound = {name: site for name, site in run.sites.items() if not site.form.free}
        if bound and self.parents and values is None and not checked:
            elsewhere = placeholders(self.parents, noise.n, next(iter(noise.values())).device)
            with torch.no_grad(), pyro.validation_enabled(False):
                other = run_program(self.program, elsewhere, noise.n, noise=noise).sites
            for name, site in bound.items():
                self.plan.check_exogenous(name, site, other[name])
        return run


def _repeat(value: Tensor, times: int) -> Tensor:
    """All rows ``times`` times over, sample-major."""
    return value if times == 1 else value.repeat(times, *[1] * (value.ndim - 1))


def _column(mask: Tensor, like: Tensor) -> Tensor:
    """(N,) as (N, 1, ...)."""
    return mask.reshape(-1, *[1] * (like.ndim - 1))
