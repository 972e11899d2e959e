"""The posterior of a program's noise given its value: the last site is solved for, others have a density.

    x affine in the last site v    v = (x - x(0)) / (x(1) - x(0)),  log weight  log p(v | e) - log |dx/dv|
    x does not depend on v         the noise as it is,              log weight  0 where it gives x, else -inf
    else                           likewise

e is the noise of the other sites. A discrete v has a probability, which no slope scales. Where some noise of
a row gives x whatever v is, x has a probability, beside which a density is nothing: only such noise counts.

For inference by gradients e is one real vector z a row, by the bijections of the sites' supports (torch's
biject_to): log p(z, x) = log p(e) + log |de/dz| + log weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import biject_to

from graphs.errors import CannotAbductError, DomainError, MechanismError
from graphs.variables import Variable
from mechanisms.base import Noise, Parents
from mechanisms.program.plan import Plan, on_line, refuse_mixing
from mechanisms.program.run import (
    ProgramRun,
    bad_parameter,
    canonical_value,
    placeholders,
    run_program,
    shown_parents,
    unvalidated,
    validated,
)
from mechanisms.rows import by_row, repeat_rows

__all__ = ["Latents", "ProgramPosterior", "ProgramSolver", "Weighed"]


Explain = Callable[[Mapping[str, Tensor]], tuple[dict[str, Tensor], Tensor, Tensor]]
"""Latent noise, (R * N, *event) by site -> noise of all sites, log w and log p(e), (R * N,) both."""


@dataclass(frozen=True)
class _Part:
    """One site's place in z."""

    columns: slice
    shape: tuple[int, ...]
    transform: Any


class Latents:
    """The layout of z, D = ``width`` numbers."""

    def __init__(self, run: ProgramRun) -> None:
        """Lay out the latent sites of a run of N rows."""
        self.parts: dict[str, _Part] = {}
        self.width = 0
        *latent, _ = run.sites.items()
        for name, site in latent:
            if site.discrete:
                raise MechanismError(
                    f"Site {name!r} of the program is discrete, and neither 'svi' nor 'nuts' can infer it: "
                    "both follow gradients. Use inference: {kind: importance}."
                )
            try:
                transform: Any = biject_to(site.form.base.support)
            except NotImplementedError as error:
                raise MechanismError(
                    f"Site {name!r} of the program has values that are no smooth image of real numbers "
                    f"({error}). Use inference: {{kind: importance}}."
                ) from error
            shape = tuple(transform.inv(site.noise).shape[1:])
            self.parts[name] = _Part(slice(self.width, self.width + prod(shape)), shape, transform)
            self.width += prod(shape)

    def vector(self, noise: Mapping[str, Tensor], rows: int) -> Tensor:
        """Noise (R * N, *event) by site -> z, (R, N, D)."""
        columns = []
        for name, part in self.parts.items():
            leaf = noise[name].reshape(-1, rows, *noise[name].shape[1:])
            columns.append(part.transform.inv(leaf).reshape(len(leaf), rows, -1))
        return torch.cat(columns, -1)

    def noise(self, z: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """z (R, N, D) -> noise (R * N, *event) by site, and log |de/dz|, (R, N)."""
        leaves: dict[str, Tensor] = {}
        log_det = z.new_zeros(z.shape[:2])
        for name, part in self.parts.items():
            line = z[..., part.columns].reshape(*z.shape[:2], *part.shape)
            leaf = part.transform(line)
            bend = part.transform.log_abs_det_jacobian(line, leaf)
            log_det = log_det + bend.reshape(*z.shape[:2], -1).sum(-1)
            leaves[name] = leaf.reshape(-1, *leaf.shape[2:])
        return leaves, log_det


@dataclass(frozen=True)
class ProgramPosterior:
    """p(z | x) of N rows, up to a constant."""

    latents: Latents  # the layout of z
    explain: Explain  # the program's answer to noise
    pilot: Tensor  # (P, N, D) prior draws of z
    pilot_weights: Tensor  # (P, N) their log importance weights
    atomic: Tensor  # (N,) whether these weights are probabilities, beside which the density of z is nothing

    @property
    def rows(self) -> int:
        """N."""
        return self.pilot.shape[1]

    def log_joint(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """log p(z, x) and log p(z), (R, N) both, of z (R, N, D); -inf where z cannot give x."""
        return self.explained_joint(z)[1:]

    def explained_joint(self, z: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """``explained`` and ``log_joint`` at once."""
        leaves, log_det = self.latents.noise(z)
        noise, weight, prior = self.explain(leaves)
        prior = prior.reshape(log_det.shape) + log_det
        return noise, prior + weight.reshape(log_det.shape), prior

    def moments(self) -> tuple[Tensor, Tensor, Tensor]:
        """A first guess at the mean and deviation of z, and its prior deviation, (N, D) each.

        From the weighted pilot draws; where these are few, the deviation is a tenth of the prior one.
        """
        weights, prior = self.pilot_weights.softmax(0)[..., None], self.pilot.std(0)
        mean = (weights * self.pilot).sum(0)
        deviation = (weights * (self.pilot - mean).square()).sum(0).sqrt()
        return mean, torch.maximum(deviation, 0.1 * prior), prior

    def explained(self, z: Tensor) -> dict[str, Tensor]:
        """Noise of all sites that gives x, (R * N, *event) by site, of z (R, N, D)."""
        return self.explain(self.latents.noise(z)[0])[0]


class Weighed(NamedTuple):
    """Noise that gives x, for K draws of N rows, sample-major."""

    leaves: dict[str, Tensor]  # (K * N, *event) by site
    log_weight: Tensor  # (K * N,); -inf where the noise cannot give x
    atoms: Tensor | None = None  # (K * N,) whether it is a probability, of a real number; None: all are alike

    def dominated(self, rows: int) -> tuple[Tensor, Tensor]:
        """(K, N) log weights, of atoms alone in rows that have one; and (N,) whether they have."""
        weights = self.log_weight.reshape(-1, rows)
        if self.atoms is None:
            return weights, torch.zeros(rows, dtype=torch.bool, device=weights.device)
        atoms = self.atoms.reshape(-1, rows)
        atomic = (atoms & (weights > -torch.inf)).any(0)
        return torch.where(atomic & ~atoms, -torch.inf, weights), atomic


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
            weighed = self.weigh(value, parents, pilot)
        weights, atomic = weighed.dominated(rows)

        def explain(leaves: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
            n = len(next(iter(leaves.values())))
            # In the order of the sites; the last one's only stands in until it is solved for.
            noise = {name: leaves.get(name, one[name]) for name in one}
            return self.explain(value, parents, Noise(n, {**noise, last: repeat_rows(one[last], n // rows)}))

        return ProgramPosterior(latents, explain, latents.vector(pilot, rows), weights, atomic)

    def explain(
        self, value: Tensor, parents: Parents, noise: Noise
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Noise that gives x, its log weight, and the log density of all but the last site's, (R * N,)."""
        several = {name: repeat_rows(each, noise.n // len(value)) for name, each in parents.items()}
        run = self.run(several, noise, checked=True)
        leaves, weights, _ = self.weigh(value, parents, noise, run)
        *latent, _ = run.sites.values()
        densities = [
            site.form.base.log_prob(site.noise).double().reshape(noise.n, -1).sum(1) for site in latent
        ]
        return leaves, weights, torch.stack(densities).sum(0)

    def weigh(self, value: Tensor, parents: Parents, noise: Noise, run: ProgramRun | None = None) -> Weighed:
        """Noise that gives x (N, *event), and its log weight.

        Of K * N rows of all sites' noise the last one's is solved for, or kept where only a match counts.
        Where there was a run with that noise, its rows have been checked before.
        """
        rows, times, seen = len(value), noise.n // max(1, len(value)), run is not None
        value = repeat_rows(value, times)
        parents = {name: repeat_rows(each, times) for name, each in parents.items()}
        run = run or self.run(parents, noise)
        if self.plan.how == "match":
            got = canonical_value(self.variable, run.returned, noise.n).double()
            sizes = torch.ones_like(got)
            if self.variable.type == "continuous":  # in parts of the largest value that the row's draws gave
                sizes = repeat_rows(got.abs().reshape(times, rows, *got.shape[1:]).amax(0), times)
            return Weighed(dict(noise), torch.where(self._near(got, value, sizes), 0.0, -torch.inf).double())
        name, site = run.last
        drawn = site.value.detach().double()
        if run.returned is site.value and self.variable.type != "image":  # whose pixels it sees in [0, 1]
            good = site.fn.support.check(value)
            solved = torch.where(by_row(good, value), value, drawn)
            density = site.fn.log_prob(solved).double()
            leaves = {**noise, name: site.form.inverse(solved).to(noise[name].dtype)}
            return Weighed(leaves, torch.where(good, density, -torch.inf))
        zero, one = (self._value(parents, noise, torch.full_like(drawn, number)) for number in (0.0, 1.0))
        slope = one - zero
        free = self._free(slope, rows)
        solved = (value - zero) / slope
        solved = solved.round() if site.discrete else solved
        # Where there is no solution, the prior's value stands in: it has a density, and gets no weight.
        good = solved.isfinite().reshape(noise.n, -1).all(1) & site.fn.support.check(solved)
        solved = torch.where(by_row(good, solved), solved, drawn)
        if not seen:
            self._check_line(run, parents, noise, (zero, slope, solved.detach()), rows)
        density = site.fn.log_prob(solved).double()
        if not site.discrete:
            density = density - slope.abs().log().reshape(noise.n, -1).sum(1)
        given = self._value(parents, noise, solved)
        good = (good | free) & self._near(given, value, zero.abs() + (slope * solved).abs())
        kept = torch.where(by_row(free, drawn), noise[name], site.form.inverse(solved).to(noise[name].dtype))
        weights = torch.where(good, torch.where(free, 0.0, density), -torch.inf)
        atoms = free if self.variable.type == "continuous" and bool(free.any()) else None
        return Weighed({**noise, name: kept}, weights, atoms)

    def _free(self, slope: Tensor, rows: int) -> Tensor:
        """(K * N,) where the value does not depend on the last site."""
        flat = (slope == 0).reshape(len(slope), -1)
        free = flat.all(1)
        # Several numbers, of which some depend on it, are not taken apart.
        self._refuse(~flat.any(1) | free, rows, Plan.hidden(self.plan.last))
        if self.plan.determined:
            self._refuse(~free, rows, Plan.unseen(self.plan.last))
        return free

    @torch.no_grad()
    def _check_line(
        self, run: ProgramRun, parents: Parents, noise: Noise, line: tuple[Tensor, Tensor, Tensor], rows: int
    ) -> None:
        """Refuse a row, of N, whose value is not affine in the last site.

        At its prior draws, and, for the first of these, far to both sides of draw and solution: the ``line``
        is the value at 0, the slope and the solution, (K * N, *event).
        """
        name, site = run.last
        drawn, (zero, slope, solved) = site.value.double(), line
        got = canonical_value(self.variable, run.returned, noise.n).double()
        good = on_line(got, zero, slope, drawn, self.variable)
        self._refuse(good, rows, Plan.hidden(name))
        parents = {parent: each[:rows] for parent, each in parents.items()}
        drawn, zero, slope, solved = (each[:rows] for each in (drawn, zero, slope, solved))
        away = 3 * torch.stack([drawn.abs(), solved.abs(), (drawn - solved).abs()]).amax(0)
        for point in (solved - away, solved + away):
            point = point.round() if site.discrete else point
            other = self.run(parents, noise.rows(slice(0, rows)), {name: point})
            got = canonical_value(self.variable, other.returned, rows).double()
            good = on_line(got, zero, slope, point, self.variable) | ~other.last[1].fn.support.check(point)
            self._refuse(good, rows, Plan.hidden(name))

    @staticmethod
    def _refuse(good: Tensor, rows: int, why: str) -> None:
        """Refuse the first of N rows that is not good, (K * N,)."""
        if not bool(good.all()):
            raise CannotAbductError(f"Row {int((~good).nonzero()[0]) % rows}: {why}")

    def _value(self, parents: Parents, noise: Noise, last: Tensor) -> Tensor:
        """x as it is where the last site has another value, float64."""
        run = self.run(parents, noise, {self.plan.last: last})
        return canonical_value(self.variable, run.returned, noise.n).double()

    def _near(self, got: Tensor, value: Tensor, sizes: Tensor) -> Tensor:
        """(N,) whether a computed value is the given one, up to rounding in parts of its terms' sizes."""
        near = (got - value).abs() <= self.plan.tolerance * torch.maximum(sizes, value.abs())
        return near.reshape(len(value), -1).all(1)

    def _first_failing(
        self, shown: Mapping[str, Tensor], noise: Noise, values: Mapping[str, Tensor] | None
    ) -> int:
        """The first row at which the program fails, where it fails at some, by halving."""
        low, high = 0, noise.n
        while high - low > 1:
            middle = (low + high) // 2
            part = slice(low, middle)
            some, forced = (
                {name: each[part] for name, each in rows.items()} for rows in (shown, values or {})
            )
            try:
                with validated():
                    run_program(self.program, some, middle - low, noise=noise.rows(part), values=forced)
            except ValueError:
                high = middle
            else:
                low = middle
        return low

    def run(
        self,
        parents: Parents,
        noise: Noise,
        values: Mapping[str, Tensor] | None = None,
        *,
        checked: bool = False,
    ) -> ProgramRun:
        """A run with given noise at canonical values (N, *event) of the parents.

        ``values`` are those of sites that do not follow their noise; such a run is not checked. ``checked``
        says whether noise like this has been seen to be independent of the parents.
        """
        shown = shown_parents(self.parents, parents)
        try:
            with validated():
                run = run_program(self.program, shown, noise.n, noise=noise, values=values)
        except ValueError as error:
            told = str(error)
            if "Expected parameter" not in told:
                raise
            row = self._first_failing(shown, noise, values)
            raise DomainError(
                bad_parameter(told, {name: each[row] for name, each in shown.items()})
            ) from error
        if not self.plan.apart and noise.n > 1 and values is None and not checked:
            with torch.no_grad(), unvalidated():
                refuse_mixing(self.program, self.variable, shown, run, noise.n)
        bound = {name: site for name, site in run.sites.items() if not site.form.free}
        if bound and self.parents and values is None and not checked:
            elsewhere = placeholders(self.parents, noise.n, next(iter(noise.values())).device)
            with torch.no_grad(), unvalidated():
                other = run_program(self.program, elsewhere, noise.n, noise=noise).sites
            for name, site in bound.items():
                self.plan.check_exogenous(name, site, other[name])
        return run
