"""The transform of ``flow``, u -> z over D columns: autoregressive, affine or rational spline (Pyro).

    z_d = loc_d + scale_d * spline_d(u_d),   (loc, scale, spline)_d = network_d(context, z_1 .. z_{d-1})

Autoregressive in z: each column's network sees the columns before it. spline_d is Pyro's monotonic linear
rational spline (Dolatabadi et al. 2020) on [-bound, bound], the identity outside: the box lies on the side
of the standard normal u, so tails are normal whatever the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import expm1, log

import torch
from pyro.distributions.conditional import ConditionalTransformModule
from pyro.distributions.transforms.spline import ConditionedSpline
from torch import Tensor, nn
from torch.distributions import Transform, constraints

from mechanisms.networks import DenseNetwork
from mechanisms.tables.regression import least_squares

__all__ = ["ConditionalColumns", "value_of"]

_LARGEST_LOG_SCALE = 12.0


class _Column(nn.Module):
    """One column's network: its outputs are the parameters of an affine map and, with bins, of a spline."""

    def __init__(self, inputs: int, hidden: Sequence[int], bins: int, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.sizes = [1, 1, bins, bins, bins - 1, bins] if bins else [1, 1]
        start = torch.zeros(sum(self.sizes), dtype=torch.float64)
        if bins:
            # Knots' slopes of 1, less Pyro's least slope of 0.001: training starts at the identity.
            start[2 + 2 * bins : 1 + 3 * bins] = log(expm1(1 - 1e-3))
        self.network = DenseNetwork(inputs, hidden, start)
        # A linear path to loc, for least squares to start from.
        self.slope = nn.Parameter(torch.zeros(inputs, dtype=torch.float64))

    @torch.no_grad()
    def prepare(self, inputs: Tensor, target: Tensor) -> None:
        """Start at the linear-normal fit of ``target`` (N,) on ``inputs`` (N, inputs)."""
        centre, mean = inputs.mean(0), target.mean()
        self.slope.copy_(least_squares(inputs - centre, (target - mean)[:, None])[:, 0])
        residual = target - mean - (inputs - centre) @ self.slope.to(inputs.dtype)
        scale = residual.square().mean().sqrt().clamp(min=1e-5)
        self.network.bias[0] = mean - centre @ self.slope.to(inputs.dtype)
        self.network.bias[1] = _LARGEST_LOG_SCALE * torch.atanh(scale.log() / _LARGEST_LOG_SCALE)

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor, ConditionedSpline | None]:
        """(N, inputs) -> loc (N, 1), log scale (N, 1), the spline of N rows."""
        loc, log_scale, *knots = self.network(context).split(self.sizes, dim=-1)
        loc = loc + (context.to(self.slope.dtype) @ self.slope)[:, None]
        log_scale = _LARGEST_LOG_SCALE * torch.tanh(log_scale / _LARGEST_LOG_SCALE)
        if not knots:
            return loc, log_scale, None
        widths, heights, slopes, lambdas = (knot[:, None, :] for knot in knots)
        parameters = (
            widths.softmax(-1),
            heights.softmax(-1),
            nn.functional.softplus(slopes),
            lambdas.sigmoid(),
        )
        return loc, log_scale, ConditionedSpline(parameters, bound=self.bound, order="linear")


class ConditionalColumns(ConditionalTransformModule):
    """The flow of so many columns, D, to be conditioned on a context of (N, width), 0 for a root.

    Each column's network has ``hidden`` layers; splines have ``bins``, 0 for affine maps alone, in a box of
    side 2 ``bound``.
    """

    def __init__(self, columns: int, width: int, hidden: Sequence[int], bins: int, bound: float) -> None:
        super().__init__()
        self.columns = nn.ModuleList(
            _Column(width + column, hidden, bins, bound) for column in range(columns)
        )

    def prepare(self, context: Tensor, z: Tensor) -> None:
        """Start every column at its linear-normal fit to training rows, (N, width) and (N, D)."""
        for index, column in enumerate(self.columns):
            assert isinstance(column, _Column)
            column.prepare(torch.cat([context, z[:, :index]], dim=-1), z[:, index])

    def condition(self, context: Tensor, polish: bool = False) -> Transform:
        """The transform u -> z of N rows, (N, D) both, its inverse as accurate as itself with ``polish``."""
        return _ConditionedColumns(list(self.columns), context, polish)


def value_of(value: Tensor | None) -> Tensor:
    """A transform's result, whose declared type admits None."""
    assert value is not None
    return value


class _ConditionedColumns(Transform):
    """The flow of N rows. It remembers the log determinant of its last call, for ``log_prob``."""

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, columns: Sequence[nn.Module], context: Tensor, polish: bool) -> None:
        super().__init__()
        self.columns, self.context, self.polish = columns, context, polish
        self._last: tuple[Tensor, Tensor] | None = None

    def _call(self, x: Tensor) -> Tensor:
        done: list[Tensor] = []
        log_det = x.new_zeros(len(x))
        for column, module in enumerate(self.columns):
            loc, log_scale, spline = module(torch.cat([self.context, *done], dim=-1))
            u = x[:, column : column + 1]
            v = u if spline is None else spline(u)
            done.append(loc + log_scale.exp() * v)
            log_det = log_det + _log_det(u, v, log_scale, spline)
        z = torch.cat(done, dim=-1)
        self._last = z, log_det
        return z

    def _inverse(self, y: Tensor) -> Tensor:
        done: list[Tensor] = []
        log_det = y.new_zeros(len(y))
        for column, module in enumerate(self.columns):
            loc, log_scale, spline = module(torch.cat([self.context, y[:, :column]], dim=-1))
            v = (y[:, column : column + 1] - loc) * (-log_scale).exp()
            u = v if spline is None else spline.inv(v)
            if spline is not None and self.polish:
                u = _polished(u, v, spline)
            done.append(u)
            log_det = log_det + _log_det(u, v, log_scale, spline)
        self._last = y, log_det
        return torch.cat(done, dim=-1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) log |det dz/du|."""
        if self._last is None or self._last[0] is not y:
            self._inverse(y)
        assert self._last is not None
        return self._last[1]


def _polished(u: Tensor, v: Tensor, spline: ConditionedSpline) -> Tensor:
    """u nearer to spline(u) == v: Pyro's inverse of a steep spline cancels, to 1e-6 and worse."""
    for _ in range(2):
        value, log_slope = spline.spline_op(u)
        u = u + (v - value) * (-log_slope).exp()
    return u


def _log_det(u: Tensor, v: Tensor, log_scale: Tensor, spline: ConditionedSpline | None) -> Tensor:
    """(N,) log |dz/du| of one column."""
    if spline is None:
        return log_scale[:, 0]
    bend = spline.log_abs_det_jacobian(u, v)
    assert bend is not None  # cached by the spline's last call
    return (log_scale + bend)[:, 0]
