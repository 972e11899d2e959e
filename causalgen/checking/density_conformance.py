"""The laws of densities, for ``causalgen.testing``: ``log_prob`` beside draws, and what else tells p(x | pa).

``Rows`` is what all laws of a mechanism are about: some rows, and the noise both abducted from them and drawn
for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from math import log

import torch
from torch import Tensor

from causalgen.checking.statistics import distance_to_log_prob, is_discrete
from graphs.variables import Categorical, Image
from mechanisms.base import Mechanism, Noise

__all__ = ["Densities", "Rows", "SURPRISE", "apart", "close"]

_DRAWS, _IMAGE_DRAWS = 4000, 400
SURPRISE = 2.3
"""Largest distance of distribution functions, in units of 1 / sqrt(draws): about 1 in 20,000 by chance."""


class Rows:
    """One mechanism, some rows, and the noise both abducted from them and drawn for them."""

    def __init__(self, mechanism: Mechanism, values: Tensor, parents: dict[str, Tensor], seed: int) -> None:
        self.mechanism, self.values, self.parents, self.seed = mechanism, values, parents, seed
        self.rows = len(values)
        self.prior = mechanism.sample_noise(self.rows, generator=self.generator())
        double = mechanism.variable.dtype == "float64"
        scale = values.double().abs().max().item() if double else 1.0
        self.tolerance = (1e-9 if double else 1e-4) * max(scale, 1.0)

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
        """Generated values follow exp(log_prob), for the first row's parents."""
        variable = self.mechanism.variable
        if self.mechanism.log_prob(self.values, self.parents) is None:
            return
        count = _IMAGE_DRAWS if variable.type == "image" else _DRAWS
        parents = {name: value[:1].expand(count, *value.shape[1:]) for name, value in self.parents.items()}
        noise = self.mechanism.sample_noise(count, generator=self.generator(3))
        draws = self.mechanism.generate(parents, noise)

        def log_prob(values: Tensor) -> Tensor:
            first = {name: value[:1].expand(len(values), *value.shape[1:]) for name, value in parents.items()}
            result = self.mechanism.log_prob(values, first)
            assert result is not None
            return result

        if variable.event_shape:
            _densest(draws, log_prob)
            return
        distance = distance_to_log_prob(draws, log_prob, whole=variable.type == "integer")
        assert distance <= SURPRISE / _DRAWS**0.5, (
            f"generated values do not follow log_prob: distribution functions differ by {distance:.3f}"
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
        if log_prob is None:
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


def _densest(draws: Tensor, log_prob: Callable[[Tensor], Tensor]) -> None:
    """No other law is denser where a law's draws (N, *event) are, on average over them (Gibbs' inequality).

    Tried are the laws of the draws spread out and drawn together, T(x) = m + c (x - m), whose log density at
    T(x) is that at x less the log of the volume, D log c.
    """
    columns = draws.flatten(1)
    if any(is_discrete(column) for column in columns.unbind(1)[:: -(-columns.shape[1] // 16)]):
        return
    mean, logs = draws.mean(0), log_prob(draws)
    for factor in (0.8, 1.25):
        gain = log_prob(mean + factor * (draws - mean)) + columns.shape[1] * log(factor) - logs
        if bool(gain.isneginf().any()):  # beyond the support
            continue
        error = gain.std().item() / len(gain) ** 0.5
        assert gain.mean().item() <= 5 * error, (
            f"generated values do not follow log_prob: they are denser by {gain.mean():.3g} nats at "
            f"{factor:g} times their distance from the mean"
        )
