"""Values on a grid, start + k * step, as the rounding of a continuous variable (``dequantize``).

    x = start + step * round((y - start) / step),  y continuous

y is a monotone function of a standard normal u, so that x is a cell of u: its probability is a difference of
normal distribution functions, and u given x is a normal truncated to the cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphs.errors import DomainError
from graphs.variables import Continuous, Integer

__all__ = ["Grid", "cell_log_probability", "middle", "truncated_normal"]


@dataclass(frozen=True)
class Grid:
    """A grid of values.

    Attributes:
        start: a value on the grid: the lower bound, else the upper, else 0.
        step: distance of neighbours.
        lower: least value, or None.
        upper: largest value, or None.
    """

    start: float
    step: float
    lower: float | None
    upper: float | None

    @classmethod
    def of(cls, variable: Continuous | Integer, step: float) -> Grid:
        """The grid of a variable."""
        start = variable.lower if variable.lower is not None else variable.upper
        return cls(0.0 if start is None else start, step, variable.lower, variable.upper)

    @property
    def support(self) -> tuple[float | None, float | None]:
        """The bounds of y: half a step beyond those of x."""
        half = self.step / 2
        return (
            None if self.lower is None else self.lower - half,
            None if self.upper is None else self.upper + half,
        )

    def round(self, value: Tensor) -> Tensor:
        """The grid value of each cell."""
        nearest = self.start + self.step * torch.round((value - self.start) / self.step)
        return nearest.clamp(self.lower, self.upper) if (self.lower, self.upper) != (None, None) else nearest

    def cell(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The ends of each value's cell."""
        return value - self.step / 2, value + self.step / 2

    def off(self, value: Tensor) -> Tensor:
        """Which values are off the grid, by more than a millionth of a step."""
        return (value - self.round(value)).abs() > 1e-6 * self.step

    def check(self, value: Tensor) -> None:
        """Refuse values, (N, width), that are not on the grid.

        Raises:
            DomainError: a value is off the grid by more than a millionth of a step.
        """
        off = self.off(value).nonzero()
        if len(off):
            row, column = off[0].tolist()
            raise DomainError(
                f"Row {row} is {value[row, column].item()}, which is not on the grid {self.start} + "
                f"k * {self.step} that dequantize declares. Round the values, or change dequantize."
            )


def cell_log_probability(low: Tensor, high: Tensor) -> Tensor:
    """log(Phi(high) - Phi(low)) of a standard normal, accurate in both tails; low < high."""
    low, high = _lower_tail(low, high)
    # Twice `where`, so that no gradient of the branch not taken is infinite.
    open_ended = low.isinf()
    log_low = torch.special.log_ndtr(torch.where(open_ended, torch.zeros_like(low), low))
    log_high = torch.special.log_ndtr(high)
    ratio = torch.where(open_ended, -1.0, log_low - log_high)
    return log_high + torch.where(open_ended, 0.0, torch.log(-torch.expm1(ratio)))


def truncated_normal(low: Tensor, high: Tensor, uniform: Tensor) -> Tensor:
    """Standard normals given low < u < high, by the inverse distribution function of ``uniform``."""
    left, right = _lower_tail(low, high)
    below, above = torch.special.ndtr(left), torch.special.ndtr(right)
    drawn = torch.special.ndtri(below + (above - below) * uniform)
    drawn = torch.where(left == low, drawn, -drawn)
    # Beyond 37 deviations the distribution function is 0: the middle of the cell will do.
    usable = drawn.isfinite() & (drawn >= low) & (drawn <= high)
    return torch.where(usable, drawn, middle(low, high))


def middle(low: Tensor, high: Tensor) -> Tensor:
    """A number well inside each cell, low < high."""
    inward = [1e-3 * (1 + end.abs()) for end in (low, high)]
    open_ended = torch.where(low.isinf(), high - inward[1], low + inward[0])
    return torch.where(low.isinf() | high.isinf(), open_ended, (low + high) / 2)


def _lower_tail(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The interval, mirrored where it lies above 0, so that no digits cancel against 1."""
    flip = low + high > 0
    return torch.where(flip, -high, low), torch.where(flip, -low, high)
