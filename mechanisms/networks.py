"""The small dense network of the table mechanisms, and initial weights that depend on nothing global."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["DenseNetwork", "reproducible_initialisation"]


@contextmanager
def reproducible_initialisation(seed: int = 0) -> Iterator[None]:
    """Draw initial weights from ``seed``, and leave the global random state as it was.

    Two mechanisms with the same options start from the same weights, so that fitting depends on its own
    seed alone. Initial weights are drawn on the CPU.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


class DenseNetwork(nn.Module):
    """A multi-layer perceptron (SiLU) whose output starts at ``bias``, whatever its input.

    Without inputs (a root) it is the bias alone.
    """

    def __init__(
        self, inputs: int, hidden: Sequence[int], bias: Tensor, dtype: torch.dtype = torch.float64
    ) -> None:
        """Lay out the layers.

        Args:
            inputs: width of the input; 0 for none.
            hidden: widths of the hidden layers.
            bias: (outputs,) the output before training.
            dtype: of the weights.
        """
        super().__init__()
        self.bias = nn.Parameter(bias.to(dtype, copy=True))
        self.body: nn.Sequential | None = None
        if inputs == 0:
            return
        with reproducible_initialisation():
            layers: list[nn.Module] = []
            for before, after in pairwise([inputs, *hidden]):
                layers += [nn.Linear(before, after, dtype=dtype), nn.SiLU()]
            last = nn.Linear([inputs, *hidden][-1], len(bias), bias=False, dtype=dtype)
        nn.init.zeros_(last.weight)
        self.body = nn.Sequential(*layers, last)

    def forward(self, context: Tensor) -> Tensor:
        """(N, inputs) -> (N, outputs)."""
        if self.body is None:
            return self.bias.expand(len(context), -1)
        return self.body(context.to(self.bias.dtype)) + self.bias
