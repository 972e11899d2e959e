"""The laws of densities, for ``causalgen.testing``: ``log_prob`` beside draws, and what else tells p(x | pa).

``Rows`` is what all laws of a mechanism are about: some rows, and the noise both abducted from them and drawn
for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from math import inf, lgamma, log, pi

import torch
from torch import Tensor

from causalgen.checking.statistics import distance_to_log_prob, is_discrete
from graphs.variables import Categorical, Continuous, Image, Variable
from mechanisms.base import Mechanism, Noise

__all__ = ["Densities", "Rows", "SURPRISE", "apart", "close"]

_DRAWS, _IMAGE_DRAWS = 4000, 400
_MOST_NUMBERS, _CENTRES = 16, 500
SURPRISE = 2.3
"""Largest distance of distribution functions, in units of 1 / sqrt(draws): about 1 in 20,000 by chance."""


class Rows:
    """One mechanism, some rows, and the noise both abducted from them and drawn for them."""

    def __init__(self, mechanism: Mechanism, values: Tensor, parents: dict[str, Tensor], seed: int) -> None:
        self.mechanism, self.values, self.parents, self.seed = mechanism, values, parents, seed
        self.rows = len(values)
        self.prior = mechanism.sample_noise(self.rows, generator=self.generator())
        double = mechanism.variable.dtype == "float64"
        self.scale = max(1.0, values.double().abs().max().item() if double else 1.0)
        self.tolerance = (1e-9 if double else 1e-4) * self.scale

    def generator(self, offset: int = 0) -> torch.Generator:
        """A fresh generator where the values are."""
        return torch.Generator(self.values.device).manual_seed(self.seed + offset)

    def abduct(self, offset: int = 0) -> Noise:
        """The noise of the given rows."""
        return self.mechanism.abduct(self.values, self.parents, generator=self.generator(offset)).noise

    @cached_property
    def abducted(self) -> Noise:
        """The same, once, and without gradients."""
        with torch.no_grad():
            return self.abduct()

    @torch.no_grad()
    def generate(self, noise: Noise) -> Tensor:
        """Values of the given parents."""
        return self.mechanism.generate(self.parents, noise)

    def spread(self) -> tuple[dict[str, Tensor], Noise]:
        """Prior noise for many rows, and the given parents over and over."""
        draws = _IMAGE_DRAWS if self.mechanism.variable.type == "image" else _DRAWS
        index = torch.arange(draws, device=self.values.device) % self.rows
        parents = {name: value[index] for name, value in self.parents.items()}
        return parents, self.mechanism.sample_noise(draws, generator=self.generator(1))


class Densities(Rows):
    """The laws of densities."""

    @torch.no_grad()
    def density(self) -> None:
        """Generated values follow exp(log_prob), for the parents of the first, a middle and the last row."""
        if self.mechanism.log_prob(self.values, self.parents) is not None:
            images = any(variable.type == "image" for variable in self.mechanism.parents.values())
            one = not self.parents or self.mechanism.estimated or images  # where each row takes long
            for row in sorted({0} if one else {0, self.rows // 2, self.rows - 1}):
                self.density_of(row)

    def density_of(self, row: int) -> None:
        """The law for one row's parents."""
        variable = self.mechanism.variable
        count = _IMAGE_DRAWS if variable.type == "image" else _DRAWS

        def parents(rows: int) -> dict[str, Tensor]:
            return {name: value[[row]].expand(rows, *value.shape[1:]) for name, value in self.parents.items()}

        def log_prob(values: Tensor) -> Tensor:
            result = self.mechanism.log_prob(values, parents(len(values)))
            assert result is not None
            return result

        noise = self.mechanism.sample_noise(count, generator=self.generator(3))
        draws = self.mechanism.generate(parents(count), noise)
        atoms = self.mechanism.atomic(draws, parents(count))
        atoms = torch.zeros(count, dtype=torch.bool, device=draws.device) if atoms is None else atoms
        if variable.event_shape:
            numbers = draws[~atoms]
            if len(numbers) > 1 and not _any_discrete(numbers):
                asked = _within(variable, draws, log_prob)
                _densest(numbers, asked)
                if isinstance(variable, Continuous) and len(numbers) == count:
                    _signs(numbers, asked, self.generator(4))
            return
        where = f"of the parents of row {row}, " if self.parents else ""
        if isinstance(variable, Continuous):
            _, place, counts = draws.unique(return_inverse=True, return_counts=True)
            assert not bool((counts[place] > _DRAWS // 100)[~atoms].any()), (
                f"{where}generated values repeat: let atomic tell the rows whose log_prob is of a probability"
            )
        elif isinstance(variable, Categorical):
            total = log_prob(torch.arange(variable.size, device=draws.device)).exp().sum().item()
            assert abs(total - 1) < 1e-4, f"{where}exp(log_prob) adds up to {total:.5g}, not to 1"
        distance = distance_to_log_prob(draws, log_prob, whole=variable.type == "integer", atoms=atoms)
        assert distance <= SURPRISE / _DRAWS**0.5, (
            f"{where}generated values do not follow log_prob: distribution functions differ by {distance:.3f}"
        )

    def change_of_variables(self) -> None:
        """log p(x | pa) + log |dx/du| is log p(u), whatever the parents."""
        leaves = list(self.prior.items())
        whole = self.mechanism.variable.type == "integer"  # whose log_prob is a probability
        if len(leaves) != 1 or self.mechanism.abduction != "exact" or not self.parents or whole:
            return
        name, leaf = leaves[0]
        if leaf[0].numel() != self.values[0].numel() or not self.values.is_floating_point():
            return
        if is_discrete(self.spread()[1][name]):
            return  # log_prob is then a probability, which no slope scales
        # The same noise in every row: what is left of the density must be the same too.
        u = leaf[:1].expand_as(leaf).clone().requires_grad_()
        x = self.mechanism.generate(self.parents, Noise(self.rows, {name: u}))
        log_prob = self.mechanism.log_prob(x.detach(), self.parents)
        atoms = self.mechanism.atomic(x.detach(), self.parents)
        if log_prob is None or not x.requires_grad or (atoms is not None and bool(atoms.any())):
            return
        columns = x.reshape(self.rows, -1).unbind(1)
        gradients = [torch.autograd.grad(column.sum(), u, retain_graph=True)[0] for column in columns]
        jacobian = torch.stack([gradient.reshape(self.rows, -1) for gradient in gradients], 1)
        base = log_prob.detach() + torch.linalg.slogdet(jacobian).logabsdet
        close(base, base[:1].expand_as(base), 1e-6 * max(1.0, base.abs().max().item()), "log_prob is off")

    @torch.no_grad()
    def other_forms(self) -> None:
        """p(x | pa) as a normal law, as Pyro's, or by what is read of the parents, is one and the same."""
        log_prob = self.mechanism.log_prob(self.values, self.parents)
        told = None if log_prob is None else self.mechanism.distribution(self.parents, self.rows)
        if told is not None and log_prob is not None:
            found = told.log_prob(self.values)
            assert found.shape == (self.rows,), (
                f"distribution: its log_prob is {tuple(found.shape)}, not (N,)"
            )
            close_logs(found, log_prob, "distribution: log_prob")
        parents = self.mechanism.parents.items()
        numbers = [name for name, parent in parents if not isinstance(parent, Categorical | Image)]
        for unknown in ([], numbers) if log_prob is not None else ():
            assert log_prob is not None
            self.normal_form(unknown, log_prob)
        other = {name: value.roll(1, 0) for name, value in self.parents.items()}
        read = [self.mechanism.log_prob_of_parents(self.values, each) for each in (self.parents, other)]
        if read[0] is None or read[1] is None:
            return
        both = {name: torch.cat([value, other[name]]) for name, value in self.parents.items()}
        found = self.mechanism.log_prob_of_parents(self.values, both)
        assert found is not None and found.shape == (2 * self.rows,), "log_prob_of_parents must be (R * N,)"
        close_logs(found, torch.cat([read[0], read[1]]), "log_prob_of_parents, by proposal", 1e-4)

    def normal_form(self, unknown: Sequence[str], log_prob: Tensor) -> None:
        """The linear form in some parents, where there is one, has the density of ``log_prob``."""
        known = {name: value for name, value in self.parents.items() if name not in unknown}
        form = self.mechanism.linear_form(unknown, known, self.rows)
        if form is None:
            return
        assert form.weights.keys() == {*unknown}, f"linear_form has weights of {sorted(form.weights)}"
        mean = form.offset
        for name, weight in form.weights.items():
            mean = mean + (weight @ self.parents[name].double().reshape(self.rows, -1, 1))[..., 0]
        covariance = form.covariance.expand(self.rows, -1, -1)
        sure, noisy = ~covariance.flatten(1).any(1), torch.linalg.cholesky_ex(covariance).info == 0
        made, values = (each.reshape(self.rows, -1) for each in (self.generate(self.prior), self.values))
        close(mean[sure], made[sure], self.tolerance, "linear_form, of a row without noise")
        law = torch.distributions.MultivariateNormal(mean[noisy], covariance[noisy], validate_args=False)
        close_logs(law.log_prob(values[noisy]), log_prob[noisy], "linear_form: log_prob")


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference."""
    return (one.double() - other.double()).abs().max().item() if one.numel() else 0.0


def close(got: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Assert that two tensors agree."""
    difference = apart(got, expected)
    assert difference <= tolerance, f"{what}: differs by {difference:.3g}, at most {tolerance:.3g} expected"


def close_logs(got: Tensor, expected: Tensor, what: str, tolerance: float = 1e-6) -> None:
    """Log probabilities, of which -inf is one."""
    got, expected = (each.double().clamp(min=-1e30) for each in (got, expected))
    size = expected.abs().max().item() if expected.numel() else 1.0
    close(got, expected, tolerance * max(1.0, size), what)


def _any_discrete(draws: Tensor) -> bool:
    """Whether some number of (N, *event) draws, of at most 16 that are spread over all, repeats."""
    columns = draws.flatten(1)
    return any(is_discrete(column) for column in columns.unbind(1)[:: -(-columns.shape[1] // 16)])


def _within(
    variable: Variable, draws: Tensor, log_prob: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    """log_prob, asked of values within the variable's bounds alone, or those of draws that leave them."""
    if not isinstance(variable, Continuous):
        return log_prob
    low, high = draws.min().item(), draws.max().item()
    lower = -inf if variable.lower is None else min(variable.lower, low)
    upper = inf if variable.upper is None else max(variable.upper, high)

    def asked(values: Tensor) -> Tensor:
        inside = ((values >= lower) & (values <= upper)).flatten(1).all(1)
        found = values.new_full((len(values),), -inf)
        try:
            found[inside] = log_prob(values[inside]).to(found).nan_to_num(nan=-inf)  # nan: beyond its support
        except ValueError as error:
            raise AssertionError(
                f"log_prob refuses values of the variable, where -inf is due: {error}"
            ) from error
        return found

    return asked


def _densest(draws: Tensor, log_prob: Callable[[Tensor], Tensor]) -> None:
    """No other law is denser where a law's draws (N, *event) are, on average over them (Gibbs' inequality).

    Tried are the laws of the draws spread out and drawn together, T(x) = m + c (x - m), whose log density at
    T(x) is that at x less the log of the volume, D log c.
    """
    width, mean, logs = draws[0].numel(), draws.mean(0), log_prob(draws)
    for factor in (0.8, 1.25):
        gain = log_prob(mean + factor * (draws - mean)) + width * log(factor) - logs
        if bool(gain.isneginf().any()):  # beyond the support
            continue
        error = gain.std().item() / len(gain) ** 0.5
        assert gain.mean().item() <= 5 * error, (
            f"generated values do not follow log_prob: they are denser by {gain.mean():.3g} nats at "
            f"{factor:g} times their distance from the mean"
        )


def _signs(draws: Tensor, log_prob: Callable[[Tensor], Tensor], generator: torch.Generator) -> None:
    """exp(log_prob) adds up to 1 over several numbers, and draws (N, *event) share its orthants' masses.

    By importance sampling: proposals lie about draws, each by a multivariate Cauchy law as wide as draws are
    apart there, so that no weight is large. Compared are the means of 1, of the signs of numbers less their
    medians, and of the products of two.
    """
    columns = draws.flatten(1)
    low, middle, high = columns.quantile(torch.tensor([0.25, 0.5, 0.75]).to(columns), dim=0)
    z, width = (columns - middle) / (high - low), columns.shape[1]
    if width > _MOST_NUMBERS or not bool(z.isfinite().all()):
        return
    centres = z[:_CENTRES]
    spread = torch.cdist(centres, centres).kthvalue(10).values / width**0.5
    steps = torch.randn(len(z), width + 1, generator=generator, dtype=z.dtype, device=z.device)
    centre = torch.arange(len(z), device=z.device) % len(centres)
    points = centres[centre] + spread[centre, None] * steps[:, 1:] / steps[:, :1]
    far = (torch.cdist(points, centres) / spread).square()
    power = (width + 1) / 2
    logs = torch.logsumexp(-power * far.log1p() - width * spread.log(), 1)
    logs += lgamma(power) - power * log(pi) - log(len(centres))
    asked = log_prob((middle + (high - low) * points).reshape(draws.shape))
    weights = (asked + (high - low).log().sum() - logs).exp()
    if not weights.sum().square() > 200 * weights.square().sum():  # too few proposals tell
        return
    pair = torch.triu_indices(width, width, 1, device=z.device)
    means = []
    for values, weight in ((points, weights), (z, torch.ones_like(weights))):
        sign = values.sign()
        each = torch.cat([torch.ones_like(sign[:, :1]), sign, sign[:, pair[0]] * sign[:, pair[1]]], 1)
        each = each * weight[:, None]
        means.append((each.mean(0), each.var(0) / len(each)))
    (mean, variance), (expected, other) = means
    miss = (mean - expected).abs() - 5 * (variance + other).sqrt()
    assert miss[0] <= 0.01, f"exp(log_prob) adds up to {mean[0]:.3f}, not to 1"
    assert bool((miss <= 0.01).all()), (
        "generated values do not follow log_prob: it gives one side of a median, or a quadrant of two, by "
        f"{(mean - expected)[1:].abs().max() / 2:.3f} more or less than its share of them"
    )
