"""How well one mechanism fits rows, against what their marginal alone would say.

    with a density   mean log p(x | pa), against a kernel estimate of p(x), or the frequencies of categories;
                     each row's baseline is estimated from the other rows
    otherwise        energy distance 2 E|V - W| - E|V - V'| - E|W - W'| of real rows V = (x, pa) and generated
                     ones W = (f(pa, u), pa), against normal x of the same mean and deviation, whatever pa
                     (Szekely, Rizzo 2013)

A mechanism fails where it is significantly worse than the baseline: p is that of a normal test of the mean
difference of log-likelihoods, or of random exchanges of real and generated rows. One whose abduction is
approximate samples p(x | pa) approximately too and claims no exact law: it fails only where its rows are
further from the real ones than the mean of the real ones is; the marginal is reported all the same. Rows that
are drawn again have no density that other rows could be held to, and are compared likewise.
Generated rows have prior noise, for which guidance does nothing. Counterfactual images of a guidance weight
above 1 are sharper than p(x | pa): taken for data, they fail.

Rows are compared as columns of numbers: a category by its one-hot columns, a picture by the means of a 4 x 4
grid of patches and its root mean square, for what a mechanism fails to explain of it is rarely one pixel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from causalgen.checking.statistics import tail_bound
from graphs.variables import Categorical, Integer, Variable
from mechanisms.base import Mechanism, Noise

__all__ = ["Goodness", "by_density", "by_distance", "noise_columns", "value_columns"]

_FLIPS = 4999
"""Most random exchanges of real and generated rows."""

_ENOUGH = 20
"""Exchanges that reach the distance found after which p is known well enough (Besag, Clifford 1991)."""

_BATCH, _PATCHES = 100, 4


@dataclass(frozen=True)
class Goodness:
    """How well a node's mechanism fits."""

    # "log-likelihood" (mean a row, in nats: higher is better), "energy distance" (lower is better), or "none"
    # where nothing was measured
    measure: Literal["log-likelihood", "energy distance", "none"]
    mechanism: float | None = None  # the figure of the mechanism
    baseline: float | None = None  # that of the marginal, whose rows do not look at the parents
    # Of the difference: its standard error, or the median energy distance by chance alone
    error: float | None = None
    p_value: float = 1.0  # of falling so far short of the baseline by chance
    # Whether the mechanism is not significantly worse than the baseline, among all tests of a check
    holds: bool = True
    note: str = ""  # what went wrong, or why nothing was measured

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; a mechanism's figure of -inf is None, which the note explains."""
        return asdict(self) | ({"mechanism": None} if self.mechanism == -math.inf else {})


def by_density(log_prob: Tensor, values: Tensor, variable: Variable) -> Goodness:
    """Goodness of fit by log p(x | pa), (N,), of rows x, (N, *event)."""
    impossible = int((log_prob == -math.inf).sum())
    if impossible:
        share = f"{impossible:,} of {len(log_prob):,} rows"
        return Goodness("log-likelihood", -math.inf, p_value=0.0, note=f"{share} have probability zero")
    log_prob = log_prob.detach().cpu().double()
    if bool((values == values[:1]).all()):
        return Goodness("log-likelihood", float(log_prob.mean()), note="its values never vary: no baseline")
    if isinstance(variable, Categorical):
        baseline = _frequencies(values, variable)
    else:
        baseline = _whole_kernels(values) if isinstance(variable, Integer) else _kernels(values)
    gain = log_prob - baseline
    error = float(gain.std() / math.sqrt(len(gain)))
    mean = float(gain.mean())
    p_value = 0.5 * math.erfc(-mean / error / math.sqrt(2)) if error else float(mean > -1e-9)
    note = "the marginal alone explains it better"
    return Goodness(
        "log-likelihood", float(log_prob.mean()), float(baseline.mean()), error, p_value, note=note
    )


def by_distance(
    mechanism: Mechanism, values: Tensor, parents: Mapping[str, Tensor], *, generator: torch.Generator
) -> Goodness:
    """Goodness of fit of a mechanism without a density, by rows that it generates for the same parents.

    Values are (N, *event), their parents the same rows.
    """
    noise = mechanism.sample_noise(len(values), generator=generator)
    drawn = mechanism.variable.within(mechanism.generate(parents, noise))
    random = torch.Generator().manual_seed(generator.initial_seed())
    real, fake = (value_columns(each, mechanism.variable) for each in (values, drawn))
    unit = _spread(real)
    real, fake = real / unit, fake / unit
    columns = [value_columns(parents[name], variable) for name, variable in mechanism.parents.items()]
    given = [each / _spread(each) for each in columns]
    marginal = real.mean(0) + real.std(0) * torch.randn(real.shape, generator=random, dtype=real.dtype)
    paired = _Pairs(torch.cat([real, *given], 1), torch.cat([fake, *given], 1))
    baseline = _Pairs(torch.cat([real, *given], 1), torch.cat([marginal, *given], 1)).distance
    least, what = baseline, "normal ones are"
    if mechanism.abduction == "approximate":
        mean = real.mean(0).expand_as(real)
        least = _Pairs(torch.cat([real, *given], 1), torch.cat([mean, *given], 1)).distance
        what = "their mean is"
    p_value, chance = paired.exchanged(random)
    if paired.distance <= least:
        p_value = 1.0
    note = f"generated values are further from the real ones than {what}"
    return Goodness("energy distance", paired.distance, baseline, chance, p_value, note=note)


def _frequencies(values: Tensor, variable: Categorical) -> Tensor:
    """(N,) log frequency of each row's category among the other rows, half a row added to each category."""
    values = values.cpu()
    others = torch.bincount(values, minlength=variable.size)[values].double() - 1
    return ((others + 0.5) / (len(values) - 1 + 0.5 * variable.size)).log()


def _whole_kernels(values: Tensor) -> Tensor:
    """(N,) log probability of each row's whole number, by two-sided geometric kernels on the other rows.

    tanh(1 / 2h) * exp(-|k| / h) sums to 1 over whole k. Half a row is spread evenly over the range, so that
    an outlier does not decide.
    """
    flat = values.detach().cpu().double()
    n = len(flat)
    width = 0.5 * float(flat.std()) * n**-0.2
    kernels = (-(flat[:, None] - flat[None, :]).abs() / width).exp() * math.tanh(0.5 / width)
    others = kernels.fill_diagonal_(0.0).sum(1)
    return ((others + 0.5 / (float(flat.max() - flat.min()) + 1)) / (n - 0.5)).log()


def _kernels(values: Tensor) -> Tensor:
    """(N,) log density of each row by kernels on the other rows, of Silverman's width.

    Student's with 3 degrees of freedom and unit variance: with normal ones a single outlier would decide.
    """
    flat = values.detach().cpu().double().reshape(len(values), -1)
    flat = flat[:, (flat != flat[:1]).any(0)]
    flat = flat - flat.mean(0)  # cdist takes differences of squares, which far from 0 lose all digits
    n, width = flat.shape
    quartiles = flat.quantile(torch.tensor([0.25, 0.75], dtype=flat.dtype), 0).diff(dim=0)[0] / 1.349
    spread = torch.where(quartiles > 0, torch.minimum(quartiles, flat.std(0)), flat.std(0))
    bandwidth = spread * (4 / (width + 2) / n) ** (1 / (width + 4))
    scaled = flat / bandwidth
    apart = torch.cdist(scaled, scaled).square().fill_diagonal_(math.inf)
    power = 0.5 * (width + 3)
    constant = math.lgamma(power) - math.lgamma(1.5) - 0.5 * width * math.log(math.pi) - bandwidth.log().sum()
    return (-power * apart.log1p()).logsumexp(1) + constant - math.log(n - 1)


def _spread(columns: Tensor) -> float:
    """One deviation for all columns of a node: a picture's rim, which varies little, counts little."""
    return float(columns.var(0).mean().sqrt()) or 1.0


class _Pairs:
    """Real rows and generated ones of the same parents, (N, columns) both, and their energy distance."""

    def __init__(self, real: Tensor, fake: Tensor) -> None:
        self.rows = len(real)
        pooled = torch.cat([real, fake])
        pooled = pooled - pooled.mean(0)  # see ``_kernels``
        self._distances = torch.cdist(pooled, pooled)
        self.distance = float(self._energies(torch.ones(self.rows, 1).double()))

    def exchanged(self, random: torch.Generator) -> tuple[float, float]:
        """P of the distance when rows are exchanged within pairs, and the median of such distances.

        Where no exchange reaches it, by ``tail_bound``: what is lost or won by signs is a quadratic form.
        """
        found = torch.zeros(0).double()
        while len(found) < _FLIPS and int((found >= self.distance).sum()) < _ENOUGH:
            signs = torch.randint(0, 2, (self.rows, _BATCH), generator=random).double() * 2 - 1
            found = torch.cat([found, self._energies(signs)])
        reached = int((found >= self.distance).sum())
        p_value = (reached + 1) / (len(found) + 1)
        if not reached:
            one, other = self._distances.chunk(2)
            apart = one.chunk(2, 1)[1] + other.chunk(2, 1)[0] - one.chunk(2, 1)[0] - other.chunk(2, 1)[1]
            p_value = min(p_value, tail_bound(torch.linalg.eigvalsh(apart) / self.rows**2, self.distance))
        return p_value, float(found.median())

    def _energies(self, signs: Tensor) -> Tensor:
        """(K,) distances with the pairs exchanged where signs, (N, K), are -1."""
        signs = torch.cat([signs, -signs])
        return -(signs * (self._distances @ signs)).sum(0) / self.rows**2


def value_columns(values: Tensor, variable: Variable) -> Tensor:
    """Columns of canonical values (N, *event), float64 on the CPU."""
    if isinstance(variable, Categorical):
        return torch.nn.functional.one_hot(values.cpu(), variable.size).double()
    return _flat(values)


def noise_columns(noise: Noise, prior: Noise) -> Tensor:
    """Columns of the leaves that vary in prior draws of the same mechanism.

    The others are what abduction remembers of the row, such as the factual parents, and no exogenous noise.
    """
    varying = [name for name, leaf in prior.items() if bool((leaf != leaf[:1]).any())]
    columns = [_flat(noise[name]) for name in varying]
    return torch.cat(columns, 1) if columns else torch.zeros(noise.n, 0, dtype=torch.float64)


def _flat(values: Tensor) -> Tensor:
    values = values.detach().cpu().double()
    if values.ndim != 4:
        return values.reshape(len(values), -1)
    patches = torch.nn.functional.adaptive_avg_pool2d(values, _PATCHES).flatten(1)
    return torch.cat([patches, values.square().mean((1, 2, 3)).sqrt()[:, None]], 1)
