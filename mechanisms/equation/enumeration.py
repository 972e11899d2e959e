"""Noises of few values, all combinations of them: which give a value, and how probable they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import torch
from torch import Tensor

from mechanisms.tables.noise_families import NoiseLaw

__all__ = ["Combinations", "find_combinations"]

_MOST = 4096


class Combinations:
    """Every combination of the values of some independent noises.

    Attributes:
        values: (K, noises) float64.
    """

    def __init__(self, laws: Mapping[str, NoiseLaw], values: Tensor) -> None:
        self.laws, self.values = dict(laws), values

    def __len__(self) -> int:
        return len(self.values)

    def log_probabilities(
        self, fits: Callable[[Mapping[str, Tensor]], Tensor], device: torch.device
    ) -> Tensor:
        """(N, K) log probability of each combination that fits, -inf of the others.

        Args:
            fits: noises by name, (K,) each, to whether they give the value, (N, K).
            device: of the noises.
        """
        noise = self.noise(self.values.to(device))
        logs = torch.stack([law.log_prob(noise[name]) for name, law in self.laws.items()])
        return torch.where(fits(noise), logs.sum(0), -torch.inf)

    def chosen(self, index: Tensor) -> dict[str, Tensor]:
        """The noises of the combinations of those numbers, (N,) each."""
        return self.noise(self.values.to(index.device)[index])

    def noise(self, rows: Tensor) -> dict[str, Tensor]:
        """(N, noises) -> noises by name, (N,) each."""
        return dict(zip(self.laws, rows.unbind(1), strict=True))


def find_combinations(laws: Mapping[str, NoiseLaw]) -> Combinations | None:
    """All combinations; None where there is no noise, or more than 4,096 of them."""
    supports = [law.finite_support for law in laws.values()]
    found = [support for support in supports if support is not None]
    if not found or len(found) < len(supports) or prod(map(len, found)) > _MOST:
        return None
    return Combinations(laws, torch.cartesian_prod(*found).reshape(-1, len(found)))
