"""Additive noise model ``x := f(pa) + u`` of a continuous node: linear in closed form, or a network.

    abduct:    u = x - f(pa), exact
    log_prob:  log p_u(x - f(pa)), with normal noise

Linear: least squares on the training rows, under spline noise the likeliest line; a categorical parent shifts
x by a constant for each category.
Noise is normal, independent for each component with a fitted deviation; or of any law, by a spline flow
that no parent enters; or empirical: a training row's residual drawn at random. The last two take whole rows,
so that components keep their dependence.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import log, pi, prod
from typing import Any, Literal, final

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Transform

from graphs.errors import MechanismError, NotFittedError
from graphs.variables import Categorical, Continuous, Variable
from mechanisms.base import Abducted, LinearForm, Mechanism, Noise, Parents
from mechanisms.conditioning import rounding
from mechanisms.encoders import EncodingSpec
from mechanisms.options import Hidden
from mechanisms.seeds import normals
from mechanisms.tables.flow import ConditionalColumns, value_of
from mechanisms.tables.regression import LinearRegression, NetworkRegression
from mechanisms.training import LEAST_TRAINED_ROWS, Training

__all__ = ["Additive", "AdditiveMechanism"]


_LAW_HIDDEN = (32, 32)
"""Of spline noise: how one component's law depends on those before it."""


class Additive(EncodingSpec, frozen=True):
    """A continuous node with additive noise. Its values may leave the variable's bounds: a flow's do not.

    Attributes:
        function: "linear", fitted in closed form, or "network". A root is a constant plus noise.
        noise: "normal" with a fitted deviation for each component; "spline", of any law, by a flow fitted to
            the residuals; or "empirical": the residuals of the training rows (saved with the model; no
            density).
        hidden: widths of the network's hidden layers.
        encoder: of image parents, trained with the network; None for a small one by their size.
        training: of the network, and of spline noise.
    """

    kind: Literal["additive"] = "additive"
    training: Training | None = Training(epochs=100, batch_size=256, learning_rate=3e-3)
    function: Literal["linear", "network"] = "linear"
    noise: Literal["normal", "spline", "empirical"] = "normal"
    hidden: Hidden = (64, 64)

    def make(self, variable: Variable, parents: Mapping[str, Variable]) -> AdditiveMechanism:
        """The mechanism for one continuous variable and its parents.

        Raises:
            MechanismError: the variable is not continuous, a parent of a linear function is an image, or the
                encoder has no image to read, or one that it cannot.
        """
        if not isinstance(variable, Continuous):
            raise MechanismError(
                f"Mechanism 'additive' needs a continuous variable, got {variable.describe()}."
            )
        return AdditiveMechanism(self, variable, parents)


@final
class AdditiveMechanism(Mechanism):
    """``x = f(pa) + u``. Noise: ``residual`` (N, *event), in data units."""

    abduction = "exact"
    deterministic = True
    scale: Tensor
    residuals: Tensor
    spec: Additive

    def __init__(self, spec: Additive, variable: Continuous, parents: Mapping[str, Variable]) -> None:
        super().__init__(spec, variable, parents)
        width = prod(variable.event_shape)
        linear, encoders = spec.function == "linear" or not parents, spec.encoders(parents)
        if linear and encoders:
            raise MechanismError(
                f"Parent {next(iter(encoders))!r} is an image, which a linear function cannot read. Give "
                "'additive' function: network."
            )
        spline = spec.noise == "spline"
        self.function = (
            LinearRegression(parents, width)
            if linear
            else NetworkRegression(parents, width, spec.hidden, from_linear=spline, encoders=encoders)
        )
        self.law = ConditionalColumns(width, 0, _LAW_HIDDEN, bins=8, bound=4.0) if spline else None
        self.least_rows = 2 if linear and not spline else LEAST_TRAINED_ROWS
        if linear:
            self.chunk_rows = None
        self.register_buffer("scale", torch.ones(width, dtype=torch.float64))
        # Beside a network exp(log_factor) times the deviation of x: learned with it, and then measured.
        learned = spec.noise == "normal" and not linear
        self.log_factor = nn.Parameter(torch.zeros(width, dtype=torch.float64)) if learned else None
        if spec.noise == "empirical":
            self.register_buffer("residuals", torch.zeros(0, width, dtype=torch.float64))
        self._training_rows: tuple[Tensor, Parents] | None = None

    def sample_noise(self, n: int, *, generator: torch.Generator) -> Noise:
        """Residuals of ``n`` rows, on the generator's device."""
        if self.spec.noise != "empirical":
            standard = normals((n, len(self.scale)), generator)
            if self.law is not None:
                with torch.no_grad():
                    standard = value_of(self._law(n)(standard))
            return Noise(n, {"residual": self._event(standard.mul(self._deviation().detach()))})
        if not len(self.residuals):
            raise NotFittedError("Empirical noise needs a fitted mechanism: it draws training residuals.")
        rows = torch.randint(len(self.residuals), (n,), generator=generator, device=generator.device)
        return Noise(n, {"residual": self._event(self.residuals.index_select(0, rows).double())})

    def generate(self, parents: Parents, noise: Noise) -> Tensor:
        """(N, *event) float64."""
        return self.function.add_to(noise["residual"], parents)

    def abduct(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Abducted:
        """The residual of each row."""
        return Abducted(Noise(len(value), {"residual": self.function.add_to(value, parents, sign=-1)}))

    def distribution(self, parents: Parents, rows: int) -> dist.TorchDistribution | None:
        """p(x | pa) as a Pyro distribution, batch shape (N,); None with noise that is not normal."""
        if self.spec.noise != "normal":
            return None
        shape = self.variable.event_shape
        mean = self.function.add_to(self.scale.new_zeros(rows, len(self.scale)), parents)
        normal: Any = dist.Normal(self._event(mean), self._deviation().reshape(shape))
        return normal.to_event(len(shape))

    def log_prob(self, value: Tensor, parents: Parents) -> Tensor | None:
        """(N,) log p(x | pa); None with empirical noise, which has no density."""
        if self.spec.noise == "empirical":
            return None
        return self._log_prob_of(self._flat(self.function.add_to(value, parents, sign=-1)))

    def _log_prob_of(self, residual: Tensor) -> Tensor:
        """(N,) log density of residuals (N, width)."""
        deviation = self._deviation()
        standard = residual / deviation
        if self.law is not None:
            law, z = self._law(len(residual)), standard
            standard = value_of(law.inv(z))
            return (
                standard.square().sum(-1).mul(-0.5)
                - law.log_abs_det_jacobian(standard, z)
                - (deviation.log() + 0.5 * log(2 * pi)).sum()
            )
        return standard.square().sum(-1).mul(-0.5) - (deviation.log() + 0.5 * log(2 * pi)).sum()

    @torch.no_grad()
    def linear_form(self, unknown: Collection[str], known: Parents, rows: int) -> LinearForm | None:
        """Affine in every parent that is no category, with normal noise; a network in none."""
        categories = any(isinstance(self.parents[name], Categorical) for name in unknown)
        if self.spec.noise != "normal" or categories:
            return None
        weights = self.function.weights(unknown)
        if unknown and not weights:
            return None
        start = self.scale.new_zeros(rows, len(self.scale))
        zeros = {name: start.new_zeros(rows, *self.parents[name].event_shape) for name in unknown}
        offset = self.function.add_to(start, {**known, **zeros})
        return LinearForm(weights, offset, torch.diag(self._deviation() ** 2)[None])

    @torch.no_grad()
    def prepare(self, value: Tensor, parents: Parents) -> None:
        """Standardise the network, start spline noise at least squares; keep the rows for empirical noise."""
        flat = self._flat(value)
        if self.law is not None:
            self.function.prepare(flat, parents)
            self._standardise(flat, self.function.add_to(flat, parents, sign=-1).detach())
            standard = self.function.add_to(flat, parents, sign=-1).detach() / self.scale
            self.law.prepare(flat.new_zeros(len(flat), 0), standard)
            return
        if not self.function.closed_form:
            self.function.prepare(flat, parents)
            self.scale.copy_(flat.std(0, correction=0).maximum(rounding(flat)))
            if self.spec.noise == "empirical":
                self._training_rows = (flat, dict(parents))

    def solve(self, value: Tensor, parents: Parents) -> bool:
        """Least squares; False for a network, or spline noise."""
        if not self.function.closed_form or self.law is not None:
            return False
        flat = self._flat(value)
        rank = self.function.prepare(flat, parents)
        residual = self._flat(self.function.add_to(value, parents, sign=-1))
        if self.spec.noise == "empirical":
            self.residuals = residual
            return True
        self._standardise(flat, residual, rank)
        return True

    def _standardise(self, flat: Tensor, residual: Tensor, rank: int = 0) -> None:
        """Take the noise's deviation from residuals, (N, width) as ``flat``.

        Residuals of least squares of a ``rank`` have N - rank degrees of freedom, by which the square is
        unbiased.
        """
        # x that its parents determine leaves rounding errors alone; the deviation stays positive.
        least = rounding(flat) + 1e-12 * flat.std(0, correction=0)
        freedom = max(len(flat) - rank, 1)
        self.scale.copy_(torch.maximum((residual.square().sum(0) / freedom).sqrt(), least))

    def finish(self, value: Tensor, parents: Parents) -> None:
        """Under spline noise, whose law is fitted, find the likeliest line of all rows, near least squares.

        Least squares take any noise for normal. Of two narrow peaks, or of a sharp edge, they leave a line
        that is several times as wrong as it need be.

        Of a network with normal noise take the deviation that the residuals have: the steps of a small table
        are too few and too small to learn one that is well below that of x.
        """
        if self.log_factor is not None:
            found = self._residuals(value, parents).square().mean(0).sqrt()
            self.log_factor.data.copy_((found.maximum(rounding(self._flat(value))) / self.scale).log())
        if self.law is not None and isinstance(self.function, LinearRegression):
            self.function.prepare(self._flat(value), parents)
            self.function.refine(self._flat(value), parents, self._log_prob_of)

    def _law(self, rows: int) -> Transform:
        """From standard normals to residuals in deviations, (N, width) both."""
        assert self.law is not None
        return self.law.condition(self.scale.new_zeros(rows, 0))

    def loss(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Tensor:
        """(N,) -log p(x | pa); with empirical noise, half the squared error in deviations of x.

        Under spline noise a network has the gradient of both: a law of any form would take in what f misses,
        of few rows most of it.
        """
        residual = self._flat(self.function.add_to(value, parents, sign=-1))
        squared = 0.5 * (residual / self.scale).square().sum(-1)
        if self.spec.noise == "empirical":
            return squared
        loss = -self._log_prob_of(residual)
        return loss if self.law is None or self.function.closed_form else loss + squared - squared.detach()

    @torch.no_grad()
    def mark_fitted(self) -> None:
        """Take the training rows' residuals, now that the function is fitted (empirical noise)."""
        if self._training_rows is not None:
            self.residuals = self._residuals(*self._training_rows)
            self._training_rows = None
        super().mark_fitted()

    @torch.no_grad()
    def _residuals(self, value: Tensor, parents: Parents) -> Tensor:
        """(N, width), computed so many rows at once that a network's layers stay small."""
        found: list[Tensor] = []
        for some in torch.arange(len(value), device=value.device).split(65_536):
            own = {name: rows[some] for name, rows in parents.items()}
            found.append(self._flat(self.function.add_to(value[some], own, sign=-1)))
        return torch.cat(found)

    def _deviation(self) -> Tensor:
        """(event,) standard deviation of normal noise, in data units."""
        return self.scale if self.log_factor is None else self.scale * self.log_factor.exp()

    def _flat(self, value: Tensor) -> Tensor:
        """(N, *event) -> (N, width)."""
        return value.reshape(len(value), len(self.scale))

    def _event(self, flat: Tensor) -> Tensor:
        """(N, width) -> (N, *event)."""
        return flat.reshape(len(flat), *self.variable.event_shape)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # As many residuals as there were training rows, which a fresh mechanism does not know.
        saved = state_dict.get(f"{prefix}residuals")
        if saved is not None and self.spec.noise == "empirical":
            rows = len(saved) if saved.ndim else 0
            self.residuals = self.residuals.new_zeros(rows, len(self.scale))
            if rows:
                self._training_rows = None  # fitted already
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
