"""``x := f(pa) + u``: a scalar with Laplace noise, f linear: outliers weigh little.

abduct:    u = x - f(pa), exact
log_prob:  -|x - f(pa)| / b - log(2 b)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, final

import torch
from torch import Tensor, nn

from causalgen import Continuous, MechanismError, mechanisms
from graphs import Variable

__all__ = ["LaplaceAdditive", "LaplaceAdditiveMechanism"]


class LaplaceAdditive(mechanisms.TrainedSpec, frozen=True):
    """The options, as an SCM file writes them.

    Attributes:
        slope: "free", or "zero" to ignore the parents.
        training: of the weights.
    """

    kind: Literal["laplace_additive"] = "laplace_additive"
    training: mechanisms.Training | None = mechanisms.Training(epochs=60, learning_rate=2e-2)
    slope: Literal["free", "zero"] = "free"

    def make(self, variable: Variable, parents: Mapping[str, Variable]) -> LaplaceAdditiveMechanism:
        """The mechanism for one continuous scalar and its parents.

        Raises:
            MechanismError: the variable is something else, or a parent is an image.
        """
        if not isinstance(variable, Continuous) or variable.event_shape:
            raise MechanismError(
                f"Mechanism 'laplace_additive' needs a continuous scalar, got {variable.describe()}."
            )
        return LaplaceAdditiveMechanism(self, variable, parents)


@final
class LaplaceAdditiveMechanism(mechanisms.Mechanism):
    """``x = f(pa) + u``. Noise: ``residual`` (N,), in data units."""

    abduction = "exact"
    deterministic = True
    centre: Tensor
    unit: Tensor

    def __init__(self, spec: LaplaceAdditive, variable: Continuous, parents: Mapping[str, Variable]) -> None:
        super().__init__(spec, variable, parents)
        self.conditioning = mechanisms.Conditioning(parents)
        self.weight = nn.Parameter(torch.zeros(self.conditioning.width, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.log_scale = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.weight.requires_grad_(spec.slope == "free")
        # Weights are in deviations of x, so that one learning rate suits any unit.
        self.register_buffer("centre", torch.zeros((), dtype=torch.float64))
        self.register_buffer("unit", torch.ones((), dtype=torch.float64))

    def sample_noise(self, n: int, *, generator: torch.Generator) -> mechanisms.Noise:
        """The difference of two exponentials is Laplace."""
        pair = torch.empty(2, n, dtype=torch.float64, device=generator.device)
        first, second = pair.exponential_(generator=generator)
        return mechanisms.Noise(n, {"residual": (first - second) * self._scale().detach()})

    def generate(self, parents: mechanisms.Parents, noise: mechanisms.Noise) -> Tensor:
        """(N,) float64."""
        return (self._median(parents, noise.n) + noise["residual"]).double()

    def abduct(
        self, value: Tensor, parents: mechanisms.Parents, *, generator: torch.Generator
    ) -> mechanisms.Abducted:
        """The residual of each row."""
        residual = value - self._median(parents, len(value))
        return mechanisms.Abducted(mechanisms.Noise(len(value), {"residual": residual}))

    def log_prob(self, value: Tensor, parents: mechanisms.Parents) -> Tensor:
        """(N,); the fitting loop minimises its negative."""
        scale = self._scale()
        return -(value - self._median(parents, len(value))).abs() / scale - (2 * scale).log()

    def prepare(self, value: Tensor, parents: mechanisms.Parents) -> None:
        """Standardise parents and x."""
        self.conditioning.prepare(parents)
        self.centre.copy_(value.median())
        self.unit.copy_((value - self.centre).abs().mean().clamp(min=1e-12))

    def _median(self, parents: mechanisms.Parents, rows: int) -> Tensor:
        context = self.conditioning(parents, rows)
        return self.centre + self.unit * (context @ self.weight + self.bias)

    def _scale(self) -> Tensor:
        return self.unit * self.log_scale.exp()
