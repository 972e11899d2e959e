"""Parents as the context of a network: one-hot categories and standardised numbers, in declared order.

    categorical parent, K categories   -> K columns, one-hot
    integer parent                     -> 1 column, as a continuous scalar
    continuous parent, shape (d...)    -> prod(d) columns, (value - mean) / std over the training rows

Columns follow the parents' declared order. Image parents do not become columns: a mechanism that takes
them concatenates channels itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor, nn

from graphs.errors import DomainError, MechanismError
from graphs.variables import Categorical, Continuous, Integer, Variable

__all__ = ["Conditioning", "standardisation"]

_FARTHEST = 1e6
"""Standard deviations from the mean beyond which a value of a parent of a float32 network is refused."""


def standardisation(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column, the deviation 1 where a column is constant.

    Args:
        rows: (N, width), N >= 1.

    Returns:
        Two tensors (width,) of the dtype of ``rows``.
    """
    mean, std = rows.mean(0), rows.std(0, correction=0)
    # Rounding in the mean gives a constant column a tiny deviation, which would blow up noise.
    constant = std <= 1e-12 * mean.abs()
    return mean, torch.where(constant, torch.ones_like(std), std)


class Conditioning(nn.Module):
    """Parents by name -> context, (N, width).

    Attributes:
        variables: the parents' variables, in declared order.
        width: number of context columns; 0 for a root.
        slices: the columns of each parent, by name.
        mean: (width,) subtracted from each column; 0 for one-hot columns.
        std: (width,) that each column is divided by; 1 for one-hot columns.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, parents: Mapping[str, Variable], dtype: torch.dtype = torch.float64) -> None:
        """Lay the columns out.

        Args:
            parents: the parents' variables, in declared order; none of them an image.
            dtype: of the context; ``Module.to`` changes it with the buffers.

        Raises:
            MechanismError: a parent is an image.
        """
        super().__init__()
        self.variables = dict(parents)
        self.slices: dict[str, slice] = {}
        start = 0
        for name, variable in self.variables.items():
            stop = start + _columns(name, variable)
            self.slices[name] = slice(start, stop)
            start = stop
        self.width = start
        self.register_buffer("mean", torch.zeros(start, dtype=dtype))
        self.register_buffer("std", torch.ones(start, dtype=dtype))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the context."""
        return self.mean.dtype

    def prepare(self, parents: Mapping[str, Tensor]) -> None:
        """Take mean and std of the columns of numbers from all training rows."""
        for name, variable in self.variables.items():
            if isinstance(variable, Continuous | Integer):
                mean, std = standardisation(self._columns_of(name, parents).double())
                self.mean[self.slices[name]] = mean.to(self.mean)
                self.std[self.slices[name]] = std.to(self.std)

    def forward(self, parents: Mapping[str, Tensor], rows: int | None = None) -> Tensor:
        """The context of N rows.

        Args:
            parents: value of each parent, (N, *event) in canonical encoding; further names are ignored.
            rows: N, which only a root cannot tell from its parents.

        Returns:
            (N, width) in ``dtype``; differentiable in the continuous parents.

        Raises:
            MechanismError: a parent is missing or has the wrong shape.
            DomainError: a value that float32 networks cannot take.
        """
        if not self.variables:
            return self.mean.new_zeros(rows or 0, 0)
        columns = [self._columns_of(name, parents) for name in self.variables]
        # Standardised in the wider of the two dtypes: a float64 year near 2000 keeps its digits.
        context = columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)
        context = (context - self.mean) / self.std
        # Training rows are near by construction, and asking would make each step wait for the device.
        if self.dtype == torch.float32 and not torch.is_grad_enabled():
            self._refuse_far(context, parents)
        return context.to(self.dtype)

    def _refuse_far(self, context: Tensor, parents: Mapping[str, Tensor]) -> None:
        """Refuse values at which a float32 network is left with NaN or noise."""
        if not context.numel() or bool(context.abs().amax() <= _FARTHEST):
            return
        far = ~(context.abs() <= _FARTHEST)
        row, column = far.nonzero()[0].tolist()
        name = next(name for name, part in self.slices.items() if part.start <= column < part.stop)
        value = parents[name][row].reshape(-1)[column - self.slices[name].start].item()
        raise DomainError(
            f"Parent {name!r}: row {row} is {value:g}, which is {context[row, column].abs().item():.1g} "
            f"standard deviations from the mean in fitting; expected at most {_FARTHEST:.0e}. Check its unit."
        )

    def _columns_of(self, name: str, parents: Mapping[str, Tensor]) -> Tensor:
        """One parent's columns before standardising, (N, columns)."""
        if name not in parents:
            raise MechanismError(f"The value of parent {name!r} is missing; got {sorted(parents)}.")
        variable, value = self.variables[name], parents[name]
        if tuple(value.shape[1:]) != tuple(variable.event_shape) or value.ndim == 0:
            expected = ", ".join(["N", *map(str, variable.event_shape)])
            raise MechanismError(f"Parent {name!r} must have shape ({expected}), got {tuple(value.shape)}.")
        if isinstance(variable, Categorical):
            return nn.functional.one_hot(value.long(), variable.size).to(self.dtype)
        return value.reshape(len(value), self.slices[name].stop - self.slices[name].start)


def _columns(name: str, variable: Variable) -> int:
    """How many context columns a parent takes."""
    if isinstance(variable, Categorical):
        return variable.size
    if isinstance(variable, Continuous | Integer):
        return prod(variable.event_shape)
    raise MechanismError(
        f"Parent {name!r} is an image, which this mechanism cannot take as a context vector. "
        "Only an image node may have an image parent (kind 'diffusion')."
    )
