"""Stochastic intervention ``x := u``, u ~ a given law: a node drawn afresh for every row and sample.

Draws come from the given generator alone: directly for the families of ``mechanisms.tables.noise_families``;
for a Pyro or torch distribution, which knows no generator, by ``global_draws_from``.
"""

from __future__ import annotations

from math import prod
from typing import Literal, final

import torch
from torch import Generator, Tensor
from torch.distributions import Categorical as Categories
from torch.distributions import Distribution

from graphs.errors import InterventionError, ShapeError
from graphs.variables import Categorical, Variable
from mechanisms.base import Abducted, InterventionSpec, Mechanism, Noise, Parents
from mechanisms.extrapolation import warn_unseen
from mechanisms.seeds import global_draws_from
from mechanisms.tables.noise_families import NoiseLaw

__all__ = ["Drawn", "StochasticMechanism"]


class Drawn(InterventionSpec, frozen=True):
    """A law that only the running program knows."""

    kind: Literal["drawn"] = "drawn"


@final
class StochasticMechanism(Mechanism):
    """``x := u``. Noise: leaf "value", (N, *event) float64 in the user's form, categories as codes."""

    abduction = "exact"
    deterministic = True
    chunk_rows = None

    def __init__(
        self, node: str, variable: Variable, law: NoiseLaw | Distribution, *, clip: bool = False
    ) -> None:
        """Bind the law of one value to a node; ``clip`` moves what is out of bounds onto the bound.

        A family of one number fills a larger event with independent draws.

        Raises:
            ShapeError: the distribution's values have another shape than the variable's.
            InterventionError: it draws numbers, and the labels of the categories are other numbers.
        """
        super().__init__(Drawn(), variable, {})
        self.where, self.clip = f"Intervention on {node!r}: the drawn value", clip
        self.law = law if isinstance(law, NoiseLaw) else _of_one_value(law, variable, node)
        # Draws are numbers: codes, also where categories have labels.
        told = variable.misread if isinstance(variable, Categorical) else ""
        if told and not (isinstance(law, Categories) or getattr(law, "name", "") == "categorical"):
            raise InterventionError(
                f"Intervention on {node!r}: draws of {law} would be taken for codes, {told} Give each "
                "category its probability, in their order: {'categorical': [...]}."
            )
        self.form = Categorical(variable.size) if isinstance(variable, Categorical) else variable

    def sample_noise(self, n: int, *, generator: Generator) -> Noise:
        """``n`` draws."""
        if isinstance(self.law, NoiseLaw):
            event = self.variable.event_shape
            return Noise(n, {"value": self.law.sample(n * prod(event), generator).reshape(n, *event)})
        with global_draws_from(generator), torch.no_grad():
            drawn = self.law.sample(torch.Size((n,)))
        return Noise(n, {"value": drawn.to(generator.device, torch.float64)})

    def generate(self, parents: Parents, noise: Noise) -> Tensor:
        """The draws, checked against the variable's domain.

        Raises:
            DomainError: a draw lies outside.
        """
        drawn = noise["value"]
        encode = self.form.encode_clipped if self.clip else self.form.encode
        value = torch.as_tensor(encode(drawn, where=self.where), device=drawn.device)
        warn_unseen(value, self.seen_range, self.variable, where=self.where)
        return value

    def abduct(self, value: Tensor, parents: Parents, *, generator: Generator) -> Abducted:
        """The value is the draw."""
        return Abducted(Noise(len(value), {"value": torch.as_tensor(self.form.decode(value)).double()}))


def _of_one_value(distribution: Distribution, variable: Variable, node: str) -> Distribution:
    shape = tuple(distribution.batch_shape + distribution.event_shape)
    if shape != tuple(variable.event_shape):
        raise ShapeError(
            f"Intervention on {node!r}: the distribution draws values of shape {shape}, the variable's are "
            f"{tuple(variable.event_shape)}. Give the distribution of one value; every row gets its own draw."
        )
    return distribution
