"""``x := u``, u a training row drawn at random: a root without any assumption on its law.

    abduct:    u = x, exact
    P(x = k):  the share of training rows of category, or whole number, k; a continuous node has no density

A value of shape (k,) is drawn as a whole, so that its components keep their dependence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, final

import pyro.distributions as dist
import torch
from torch import Tensor

from graphs.errors import MechanismError, NotFittedError
from graphs.variables import Image, Variable
from mechanisms.base import Abducted, Mechanism, Noise, Parents
from mechanisms.options import TrainedSpec
from mechanisms.training import Training

__all__ = ["Empirical", "EmpiricalMechanism"]


class Empirical(TrainedSpec, frozen=True):
    """A root of numbers or categories that draws the training rows again. They are saved with the model.

    Attributes:
        training: which share of the rows to hold out, ``validation``; none by default, and nothing else of
            it is used.
    """

    kind: Literal["empirical"] = "empirical"
    training: Training | None = Training(validation=0.0)

    def make(self, variable: Variable, parents: Mapping[str, Variable]) -> EmpiricalMechanism:
        """The mechanism for one root.

        Raises:
            MechanismError: there are parents, or the variable is an image.
        """
        if parents:
            raise MechanismError(
                f"Mechanism 'empirical' is for nodes without parents; this one has {', '.join(parents)}. "
                "Use 'additive' with noise: empirical, 'flow' or 'categorical'."
            )
        if isinstance(variable, Image):
            raise MechanismError("Mechanism 'empirical' is for numbers and categories; use 'diffusion'.")
        return EmpiricalMechanism(self, variable, parents)


@final
class EmpiricalMechanism(Mechanism):
    """``x = u``. Noise: ``value`` (N, *event), the value itself, one of the training rows' ``values``."""

    abduction = "exact"
    deterministic = True
    has_loss = False
    values: Tensor

    def __init__(self, spec: Empirical, variable: Variable, parents: Mapping[str, Variable]) -> None:
        super().__init__(spec, variable, parents)
        self.dtype = getattr(torch, variable.dtype)
        self.resamples = variable.type == "integer"
        self.register_buffer("values", torch.zeros(0, *variable.event_shape, dtype=self.dtype))

    def sample_noise(self, n: int, *, generator: torch.Generator) -> Noise:
        """``n`` training rows, with replacement, on the generator's device."""
        if not len(self.values):
            raise NotFittedError("Mechanism 'empirical' draws training rows: fit it first.")
        rows = torch.randint(len(self.values), (n,), generator=generator, device=generator.device)
        return Noise(n, {"value": self.values.index_select(0, rows).to(self.dtype)})

    def generate(self, parents: Parents, noise: Noise) -> Tensor:
        """(N, *event): the noise."""
        return noise["value"].clone()

    def abduct(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Abducted:
        """The value, also where no training row has it."""
        return Abducted(Noise(len(value), {"value": value.clone()}))

    def solve(self, value: Tensor, parents: Parents) -> bool:
        """Keep the rows."""
        self.values = value.detach().clone()
        return True

    def loss(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Tensor:
        """(N,) zero: nothing is minimised."""
        return torch.zeros(len(value), dtype=torch.float64, device=value.device)

    def distribution(self, parents: Parents, rows: int) -> dist.Categorical | None:
        """P(x) of a categorical node as a Pyro distribution, batch shape (N,)."""
        if self.variable.type != "categorical":
            return None
        counts = torch.bincount(self.values, minlength=self.variable.size).double()
        return dist.Categorical(logits=(counts / counts.sum()).log().expand(rows, -1))

    def log_prob(self, value: Tensor, parents: Parents) -> Tensor | None:
        """(N,) log P(x) of a category or a whole number, -inf where no training row has it; else None."""
        if self.variable.type == "integer":
            ordered = self.values.sort().values
            counts = [torch.searchsorted(ordered, value.contiguous(), right=right) for right in (True, False)]
            return ((counts[0] - counts[1]).double() / len(ordered)).log()
        distribution = self.distribution(parents, len(value))
        return None if distribution is None else distribution.logits.gather(1, value[:, None])[:, 0]

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # As many rows as there were in training, which a fresh mechanism does not know.
        if (saved := state_dict.get(f"{prefix}values")) is not None:
            rows = len(saved) if saved.ndim else 0
            self.values = self.values.new_zeros(rows, *self.variable.event_shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
