"""Where the values of a flow lie: open bounds, as a bijection from the line, or a grid (dequantisation).

    (-inf, inf)      x = z
    (lower, inf)     x = lower + scale * softplus(z)
    (-inf, upper)    x = upper - scale * softplus(z)
    (lower, upper)   x = lower + (upper - lower) * sigmoid(z)

The scale is the training rows' mean distance to the bound. The bounds themselves are not in the image.

    grid             x = start + step * round((y - start) / step),  y continuous

y is a monotone function of a standard normal u, so that x is a cell of u: its probability is a difference of
normal distribution functions, and u given x is a normal truncated to the cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

import pyro.distributions.transforms as transforms
import torch
from torch import Tensor, nn
from torch.distributions import Transform

from graphs.errors import DomainError
from graphs.variables import Continuous, Integer
from graphs.variables.numeric import bound_text
from mechanisms.extrapolation import told_apart

__all__ = ["Grid", "Support", "cell_log_probability", "middle", "truncated_normal"]


_ATOM = 0.01
"""Share of the rows on a bound above which it is a property of the variable and no accident of rounding."""

_ON_GRID = 1e-6
"""Steps by which rounding may part a value from the grid."""


class _Softplus(transforms.SoftplusTransform):
    """log(1 + exp(z)) to rounding; torch's own gives z above 20, which its inverse misses by 2e-9."""

    def _call(self, x: Tensor) -> Tensor:
        return torch.logaddexp(x, torch.zeros_like(x))


class Support(nn.Module):
    """The map from the line to (lower, upper), open bounds or None, and the refusal of values not inside.

    ``scale`` (width,) is what one unit of z is, far from the only bound.
    """

    scale: Tensor

    def __init__(self, lower: float | None, upper: float | None, width: int) -> None:
        super().__init__()
        self.lower, self.upper = lower, upper
        self.register_buffer("scale", torch.ones(width, dtype=torch.float64))

    def prepare(self, value: Tensor) -> None:
        """Take the scale from the training rows, (N, width), which lie inside."""
        if self.lower is not None and self.upper is None:
            self.scale.copy_((value - self.lower).mean(0))
        elif self.upper is not None and self.lower is None:
            self.scale.copy_((self.upper - value).mean(0))

    def transforms(self) -> list[Transform]:
        """From the line to the data, in order; elementwise over (N, width)."""
        if self.lower is not None and self.upper is not None:
            shift = transforms.AffineTransform(self.lower, self.upper - self.lower)
            return [transforms.SigmoidTransform(), shift]
        if self.lower is not None:
            return [_Softplus(), transforms.AffineTransform(self.lower, self.scale)]
        if self.upper is not None:
            return [_Softplus(), transforms.AffineTransform(self.upper, -self.scale)]
        return []

    @property
    def increasing(self) -> bool:
        """Whether x grows with z: not where the only bound is above."""
        return self.lower is not None or self.upper is None

    def inside(self, value: Tensor) -> Tensor:
        """``value`` moved off a bound that rounding put it on, to the nearest number inside."""
        if self.lower is not None:
            lower = value.new_tensor(self.lower)
            value = value.clamp(min=torch.nextafter(lower, lower.new_tensor(torch.inf)))
        if self.upper is not None:
            upper = value.new_tensor(self.upper)
            value = value.clamp(max=torch.nextafter(upper, upper.new_tensor(-torch.inf)))
        return value

    def outside(self, value: Tensor) -> Tensor:
        """Which values are on a bound or beyond, (N, width) bool."""
        outside = torch.zeros_like(value, dtype=torch.bool)
        if self.lower is not None:
            outside |= value <= self.lower
        if self.upper is not None:
            outside |= value >= self.upper
        return outside

    def unfittable(self, value: Tensor) -> tuple[Tensor, str] | None:
        """Rows on a bound, (N,) bool, and what to do about them; None where all, (N, width), are inside."""
        wrong = self.outside(value).any(1)
        return (wrong, self._advice(value, wrong)) if bool(wrong.any()) else None

    def _advice(self, value: Tensor, wrong: Tensor) -> str:
        count, rows = int(wrong.sum()), len(value)
        told = f"{count:,} of {rows:,} rows {'is' if count == 1 else 'are'} on a bound ({self._bounds()})"
        if count > max(1, _ATOM * rows):
            return (
                f"{told}: a share of them all, which a density cannot give. Where all values lie on a "
                "grid, set dequantize to its step (1 for whole numbers). Else use 'empirical' (a root) or "
                "'additive' (which may leave the bounds), or two nodes: whether a row is on the bound, and "
                "how far off it is."
            )
        return (
            f"{told}, but a flow gives values strictly inside. Widen the bounds to {self._wider(value)}, "
            "or, where all values lie on a grid, set dequantize to its step (1 for whole numbers)."
        )

    def _bounds(self) -> str:
        named = {"lower": self.lower, "upper": self.upper}
        return ", ".join(f"{name}: {bound_text(bound)}" for name, bound in named.items() if bound is not None)

    def _wider(self, value: Tensor) -> str:
        """Bounds half a gap further out, the gap being that between a bound and the nearest other value."""
        told = []
        for name, bound, side in (("lower", self.lower, -1), ("upper", self.upper, 1)):
            if bound is not None and bool((value == bound).any()):
                apart = (value - bound).abs()
                gap = float(apart[apart > 0].min()) if bool((apart > 0).any()) else 1.0
                told.append(f"{name}: {told_apart(bound + side * gap / 2, bound)[0]}")
        return ", ".join(told)

    def check(self, value: Tensor) -> None:
        """Refuse values that are not inside, (N, width)."""
        outside = self.outside(value)
        if bool(outside.any()):
            row, column = outside.nonzero()[0].tolist()
            raise DomainError(
                f"Row {row} is {value[row, column].item()}, but a flow gives values strictly inside its "
                f"bounds, {self.lower} and {self.upper}. Widen these, or set dequantize to the "
                "step of a grid that the values lie on (dequantize: 1 for whole numbers)."
            )


@dataclass(frozen=True)
class Grid:
    """A grid of values."""

    start: float  # a value on the grid: the lower bound, else the upper, else 0
    step: float  # distance of neighbours
    lower: float | None  # least value, or None
    upper: float | None  # largest value, or None

    @classmethod
    def of(cls, variable: Continuous | Integer, step: float) -> Grid:
        """The grid of a variable, up to its last value within the bounds."""
        lower, upper = variable.lower, variable.upper
        start = lower if lower is not None else upper
        if lower is not None and upper is not None:  # which may lie between two values
            upper = min(upper, lower + step * floor((upper - lower) / step + _ON_GRID))
        return cls(0.0 if start is None else start, step, lower, upper)

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
        """Which values are off the grid, by more than a millionth of a step, and than rounding."""
        rounding = 4 * torch.finfo(value.dtype).eps * value.abs()
        return (value - self.round(value)).abs() > rounding.clamp(min=_ON_GRID * self.step)

    def check(self, value: Tensor) -> None:
        """Refuse values, (N, width), that are not on the grid."""
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
