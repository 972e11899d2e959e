"""A bounded variable as a smooth image of the real line, componentwise: the last transform of a flow.

    (-inf, inf)      x = z
    (lower, inf)     x = lower + scale * softplus(z)
    (-inf, upper)    x = upper - scale * softplus(z)
    (lower, upper)   x = lower + (upper - lower) * sigmoid(z)

The scale is the training rows' mean distance to the bound. The bounds themselves are not in the image.
"""

from __future__ import annotations

import pyro.distributions.transforms as transforms
import torch
from torch import Tensor, nn
from torch.distributions import Transform

from graphs.errors import DomainError

__all__ = ["Support"]


_ATOM = 0.01
"""Share of the rows on a bound above which it is a property of the variable and no accident of rounding."""


class _Softplus(transforms.SoftplusTransform):
    """log(1 + exp(z)) to rounding; torch's own gives z above 20, which its inverse misses by 2e-9."""

    def _call(self, x: Tensor) -> Tensor:
        return torch.logaddexp(x, torch.zeros_like(x))


class Support(nn.Module):
    """The map from the line to (lower, upper), and the refusal of values that are not inside.

    Attributes:
        lower: open bound below, or None.
        upper: open bound above, or None.
        scale: (width,) what one unit of z is, far from the only bound.
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
        return ", ".join(f"{name}: {bound:g}" for name, bound in named.items() if bound is not None)

    def _wider(self, value: Tensor) -> str:
        """Bounds half a gap further out, the gap being that between a bound and the nearest other value."""
        told = []
        for name, bound, side in (("lower", self.lower, -1), ("upper", self.upper, 1)):
            if bound is not None and bool((value == bound).any()):
                apart = (value - bound).abs()
                gap = float(apart[apart > 0].min()) if bool((apart > 0).any()) else 1.0
                told.append(f"{name}: {bound + side * gap / 2:.3g}")
        return ", ".join(told)

    def check(self, value: Tensor) -> None:
        """Refuse values that are not inside, (N, width).

        Raises:
            DomainError: a value is on a bound or beyond.
        """
        outside = self.outside(value)
        if bool(outside.any()):
            row, column = outside.nonzero()[0].tolist()
            raise DomainError(
                f"Row {row} is {value[row, column].item()}, but a flow gives values strictly inside its "
                f"bounds, {self.lower} and {self.upper}. Widen these, or set dequantize to the "
                "step of a grid that the values lie on (dequantize: 1 for whole numbers)."
            )
