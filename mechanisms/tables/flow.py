"""Normalizing flow ``x := T_pa(u)``, u standard normal, T invertible: numbers whose law may have any shape.

    T_pa = support . standardise . columns(pa)      (``support.py``; columns below)
    abduct:    u = T_pa^{-1}(x), exact
    log_prob:  log N(u; 0, 1) - log |det dT_pa/du|

Bounds of the variable are open: a value on one is refused. ``dequantize: step`` takes values on a grid
instead, bounds included: x is the rounding of T_pa(u), log_prob its exact log probability (a discretised
likelihood, as in Salimans et al. 2017, PixelCNN++, eq. 2), and abduct a draw of p(u | x, pa), a normal
truncated to x's cell. Whole numbers (an integer variable) are such a grid, of step 1.

The columns, u -> z over D of them, are autoregressive, affine or rational splines (Pyro):

    z_d = loc_d + scale_d * spline_d(u_d),   (loc, scale, spline)_d = network_d(context, z_1 .. z_{d-1})

Autoregressive in z: each column's network sees the columns before it. spline_d is Pyro's monotonic linear
rational spline (Dolatabadi et al. 2020) on [-bound, bound], the identity outside: the box lies on the side
of the standard normal u, so tails are normal whatever the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import expm1, log, prod
from typing import Any, ClassVar, Literal, final

import pyro.distributions as dist
import torch
from pydantic import Field
from pyro.distributions.conditional import ConditionalTransformModule
from pyro.distributions.transforms.spline import ConditionedSpline
from torch import Tensor, nn
from torch.distributions import Transform, constraints
from torch.distributions.transforms import AffineTransform, ComposeTransform, ReshapeTransform

from graphs.errors import EvidenceError, MechanismError
from graphs.variables import Continuous, Integer, Variable
from graphs.variables.numeric import bound_text
from mechanisms.base import Abducted, Mechanism, Noise, Parents
from mechanisms.conditioning import Conditioning, rounding
from mechanisms.encoders import EncodingSpec
from mechanisms.networks import DenseNetwork
from mechanisms.options import Hidden
from mechanisms.seeds import normals, uniforms
from mechanisms.tables.regression import least_squares
from mechanisms.tables.support import Grid, Support, cell_log_probability, middle, truncated_normal
from mechanisms.training import LEAST_TRAINED_ROWS, Training

__all__ = ["ConditionalColumns", "Flow", "FlowMechanism", "value_of"]

_LARGEST_LOG_SCALE = 12.0

_LEAST_UNIT, _LEAST_OF_CELL = 1e-8, 0.01
"""Of a column that its inputs determine: below such a part of its deviation rounding would show, and below
this part of a cell a value of a grid is no surer."""


class _Column(nn.Module):
    """One column's network: its outputs are the parameters of an affine map and, with bins, of a spline.

    What it learns is in deviations of the residuals that least squares leave, ``unit``: whatever the noise is
    beside what the inputs tell, steps are of its size.
    """

    unit: Tensor
    anchor: Tensor
    filled_in = ("anchor", "unit")  #: of its state, what weights from before there was a unit lack

    def __init__(self, inputs: int, hidden: Sequence[int], bins: int, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.sizes = [1, 1, bins, bins, bins - 1, bins] if bins else [1, 1]
        start = torch.zeros(sum(self.sizes), dtype=torch.float64)
        if bins:
            # Knots' slopes of 1, less Pyro's least slope of 0.001: training starts at the identity.
            start[2 + 2 * bins : 1 + 3 * bins] = log(expm1(1 - 1e-3))
        self.network = DenseNetwork(inputs, hidden, start)
        # A linear path to loc, which starts at least squares, the anchor, and moves from there by units.
        self.slope = nn.Parameter(torch.zeros(inputs, dtype=torch.float64))
        self.register_buffer("anchor", torch.zeros(inputs, dtype=torch.float64))
        self.register_buffer("unit", torch.ones((), dtype=torch.float64))

    @torch.no_grad()
    def prepare(self, inputs: Tensor, target: Tensor, least: float) -> None:
        """Start at the linear-normal fit of ``target`` (N,) on ``inputs``, in units of ``least`` or more."""
        centre, mean = inputs.mean(0), target.mean()
        self.slope.copy_(least_squares(inputs - centre, (target - mean)[:, None])[0][:, 0])
        self.anchor.copy_(self.slope)
        residual = target - mean - (inputs - centre) @ self.slope.to(inputs.dtype)
        self.unit.fill_(1.0)
        varying = int((inputs != inputs[:1]).any(0).sum())
        if len(inputs) > varying + 1:  # else least squares may leave no residuals to go by
            self.unit.copy_(residual.square().mean().sqrt().clamp(min=least))
        self.network.bias[0] = (mean - centre @ self.slope.to(inputs.dtype)) / self.unit
        self.network.bias[1] = 0.0

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor, ConditionedSpline | None]:
        """(N, inputs) -> loc (N, 1), log scale (N, 1), the spline of N rows."""
        loc, log_scale, *knots = self.network(context).split(self.sizes, dim=-1)
        slope = self.anchor + self.unit * (self.slope - self.anchor)
        loc = self.unit * loc + (context.to(slope.dtype) @ slope)[:, None]
        log_scale = self.unit.log() + _LARGEST_LOG_SCALE * torch.tanh(log_scale / _LARGEST_LOG_SCALE)
        if not knots:
            return loc, log_scale, None
        widths, heights, slopes, lambdas = (knot[:, None, :] for knot in knots)
        slopes = nn.functional.softplus(slopes)
        parameters = (widths.softmax(-1), heights.softmax(-1), slopes, lambdas.sigmoid())
        return loc, log_scale, ConditionedSpline(parameters, bound=self.bound, order="linear")

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Without a unit, weights are in deviations of the column itself.
        state_dict.setdefault(f"{prefix}anchor", torch.zeros_like(self.anchor))
        state_dict.setdefault(f"{prefix}unit", torch.ones_like(self.unit))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


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

    def prepare(self, context: Tensor, z: Tensor, least: float = _LEAST_UNIT) -> None:
        """Start columns at their linear-normal fits, with noise of at least ``least``: (N, width), (N, D)."""
        for index, column in enumerate(self.columns):
            assert isinstance(column, _Column)
            column.prepare(torch.cat([context, z[:, :index]], dim=-1), z[:, index], least)

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


class Flow(EncodingSpec, frozen=True):
    """A node of numbers by a conditional normalising flow.

    Attributes:
        transform: "spline", an affine map after a monotonic spline, or "affine", whose noise is normal.
        bins: of each spline.
        bound: the splines bend within so many deviations of the noise; beyond, tails are normal.
        hidden: widths of the hidden layers of each component's network; a scalar root has none.
        dequantize: step of the grid that the values lie on, in data units (1 for whole numbers); None
            for values without a grid. Scalars only; an integer node has a grid of step 1 by itself.
        encoder: of image parents, trained with the flow; None for a small one by their size.
        training: of the flow.
    """

    learned: ClassVar[tuple[str, ...]] = ("bound", "dequantize")
    kind: Literal["flow"] = "flow"
    training: Training | None = Training(epochs=100, batch_size=256, learning_rate=1e-2)
    transform: Literal["affine", "spline"] = "spline"
    bins: int = Field(default=8, ge=2, le=128)
    bound: float = Field(default=4.0, gt=0)
    hidden: Hidden = (32, 32)
    dequantize: float | None = Field(default=None, gt=0)

    def make(self, variable: Variable, parents: Mapping[str, Variable]) -> FlowMechanism:
        """The mechanism for one continuous or integer variable and its parents.

        Raises:
            MechanismError: the variable is neither, or not a scalar though dequantized, or the encoder has no
                image to read, or one that it cannot.
        """
        if not isinstance(variable, Continuous | Integer):
            raise MechanismError(
                f"Mechanism 'flow' needs a continuous or integer variable, got {variable.describe()}."
            )
        if isinstance(variable, Integer) and self.dequantize not in (None, 1):
            raise MechanismError(
                f"Option 'dequantize' of a flow is {self.dequantize:g}, but a variable that is "
                f"{variable.describe()} lies on the grid of whole numbers already. Remove the option."
            )
        if self.dequantize is not None and variable.event_shape != ():
            raise MechanismError(f"Option 'dequantize' of a flow needs a scalar, got {variable.describe()}.")
        return FlowMechanism(self, variable, parents)


@final
class FlowMechanism(Mechanism):
    """``x = T_pa(u)``. Noise: ``normal`` (N, *event), float64."""

    least_rows = LEAST_TRAINED_ROWS
    mean: Tensor
    std: Tensor
    spec: Flow

    def __init__(self, spec: Flow, variable: Continuous | Integer, parents: Mapping[str, Variable]) -> None:
        super().__init__(spec, variable, parents)
        self.shape, self.width = variable.event_shape, prod(variable.event_shape)
        step = 1.0 if isinstance(variable, Integer) else spec.dequantize
        self.grid = None if step is None else Grid.of(variable, step)
        self.abduction = "exact" if self.grid is None else "posterior"
        self.deterministic = self.grid is None
        lower, upper = self.grid.support if self.grid else (variable.lower, variable.upper)
        self.bounds = Support(lower, upper, self.width)
        self.conditioning = Conditioning(parents, encoders=spec.encoders(parents))
        bins = spec.bins if spec.transform == "spline" else 0
        self.columns = ConditionalColumns(self.width, self.conditioning.width, spec.hidden, bins, spec.bound)
        self.register_buffer("mean", torch.zeros(self.width, dtype=torch.float64))
        self.register_buffer("std", torch.ones(self.width, dtype=torch.float64))

    def atomic(self, value: Tensor, parents: Parents) -> Tensor | None:
        """Every row, where numbers lie on a grid; else the variable decides."""
        if self.spec.dequantize is None:
            return None
        return torch.ones(len(value), dtype=torch.bool, device=value.device)

    def distribution(self, parents: Parents, rows: int) -> dist.TransformedDistribution | None:
        """p(x | pa) as a Pyro distribution, batch shape (N,); None where values lie on a grid."""
        return self._unrounded(parents, rows) if self.grid is None else None

    def _unrounded(self, parents: Parents, rows: int) -> dist.TransformedDistribution:
        """The law of T_pa(u), batch shape (N,)."""
        base: Any = dist.Normal(self.mean.new_zeros(rows, self.width), 1.0, validate_args=False)
        transforms = self._transforms(parents, rows)
        return dist.TransformedDistribution(base.to_event(1), transforms, validate_args=False)

    def sample_noise(self, n: int, *, generator: torch.Generator) -> Noise:
        """Standard normals for ``n`` rows, on the generator's device."""
        return Noise(n, {"normal": normals((n, *self.shape), generator)})

    def generate(self, parents: Parents, noise: Noise) -> Tensor:
        """(N, *event) float64, strictly inside the bounds, or on the grid."""
        whole, drawn = ComposeTransform(self._transforms(parents, noise.n)), noise["normal"]
        value = value_of(whole(drawn.reshape(noise.n, self.width)))
        return self.bounds.inside(value) if self.grid is None else self.grid.round(value)

    def abduct(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Abducted:
        """The normal of each row; with a grid, one drawn given the row's cell."""
        self._check(value)
        if self.grid is None:
            return Abducted(Noise(len(value), {"normal": self._invert(value, parents, polish=True)}))
        uniform = uniforms((len(value),), generator)
        low, high = self._cell(value, parents, polish=True)
        # Off the very ends, which rounding could put into the next cell; where it does so still, the middle.
        drawn = truncated_normal(low, high, 1e-6 + (1 - 2e-6) * uniform)
        for safer in (truncated_normal(low, high, torch.full_like(uniform, 0.5)), middle(low, high)):
            wrong = self.generate(parents, Noise(len(value), {"normal": drawn})) != self.grid.round(value)
            if not bool(wrong.any()):
                break
            drawn = torch.where(wrong, safer, drawn)
        else:
            self._refuse_unreachable(value, parents, drawn)
        return Abducted(Noise(len(value), {"normal": drawn}))

    def prepare(self, value: Tensor, parents: Parents) -> None:
        """Standardise parents and values, the latter on the line.

        Raises:
            DomainError: a value is on a bound, or off the grid.
        """
        self._check(value)
        self.conditioning.prepare(parents)
        flat = self._flat(value)
        self.bounds.prepare(flat)
        to_line = ComposeTransform(self.bounds.transforms()).inv
        line = value_of(to_line(flat))
        least = rounding(line)
        if self.grid is not None:
            # No cell is so many deviations wide that its probability has no gradient.
            ends = map(self.bounds.inside, self.grid.cell(flat))
            low, high = (value_of(to_line(end)) for end in ends)
            least = (_LEAST_OF_CELL * (high - low).abs().amin(0)).maximum(least / 16)
        self.std.copy_(line.std(0, correction=0).maximum(least))
        self.mean.copy_(line.mean(0))
        z, context = (line - self.mean) / self.std, self.conditioning(parents, len(line), images=False)
        self.columns.prepare(context, z, _LEAST_UNIT if self.grid is None else float(least / self.std))
        common = int((line == line.mode(0).values).sum())
        if self.grid is not None and not self.conditioning.encoded and len(line) / 2 < common < len(line):
            self._start(value, parents)

    @torch.enable_grad()
    def _start(self, value: Tensor, parents: Parents) -> None:
        """Start at the likeliest line and deviation, of whole numbers most of which are one.

        By least squares what 1 % of the rows have is all but impossible, and held-out rows that lack it find
        nothing better than that start.
        """
        (column,) = self.columns.columns
        assert isinstance(column, _Column)
        free = [column.slope, column.network.bias]
        optimiser = torch.optim.LBFGS(free, max_iter=100, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimiser.zero_grad()
            penalty = (column.slope - column.anchor).square().sum()
            found = 0.5 * penalty / len(value) - self.log_prob(value, parents).mean()
            found.backward()
            free[1].grad[2:] = 0  # of the spline  # pyright: ignore[reportOptionalSubscript]
            return found

        optimiser.step(loss)
        self.zero_grad()

    def unfittable(self, value: Tensor, parents: Parents) -> tuple[Tensor, str] | None:
        """Rows on a bound, or off the grid."""
        flat = self._flat(value)
        if self.grid is None:
            return self.bounds.unfittable(flat)
        wrong = self.grid.off(flat).any(1)
        if not bool(wrong.any()):
            return None
        told = f"{int(wrong.sum()):,} of {len(wrong):,} rows are off the grid {bound_text(self.grid.start)}"
        return wrong, (
            f"{told} + k * {self.grid.step:g} that dequantize declares. Round them, or change dequantize."
        )

    def log_prob(self, value: Tensor, parents: Parents) -> Tensor:
        """(N,) log density of x, or log probability where x is on a grid.

        Raises:
            DomainError: a value is on a bound, or off the grid.
        """
        self._check(value)
        if self.grid is not None:
            return cell_log_probability(*self._cell(value, parents))
        return self._unrounded(parents, len(value)).log_prob(value)

    def _transforms(self, parents: Parents, rows: int, *, polish: bool = False) -> list[Transform]:
        """From u (N, width) to x (N, *event), in order; made afresh, since Pyro's transforms cache."""
        columns = self.columns.condition(self.conditioning(parents, rows), polish)
        standard = AffineTransform(self.mean, self.std)
        reshape = ReshapeTransform(torch.Size((self.width,)), torch.Size(self.shape))
        return [columns, standard, *self.bounds.transforms(), reshape]

    def _invert(self, value: Tensor, parents: Parents, *, polish: bool = False) -> Tensor:
        """x (N, *event) -> u (N, *event)."""
        whole = ComposeTransform(self._transforms(parents, len(value), polish=polish))
        return value_of(whole.inv(value)).reshape(len(value), *self.shape)

    def _refuse_unreachable(self, value: Tensor, parents: Parents, drawn: Tensor) -> None:
        """Refuse values that their noise does not give back."""
        assert self.grid is not None
        wrong = self.generate(parents, Noise(len(value), {"normal": drawn})) != self.grid.round(value)
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            raise EvidenceError(
                f"Row {row}: no noise that its numbers can hold makes the flow give {value[row].item()!r}, "
                "too far from what the flow was fitted on. Correct the evidence, or fit on rows like it."
            )

    def _cell(self, value: Tensor, parents: Parents, *, polish: bool = False) -> tuple[Tensor, Tensor]:
        """The ends of each row's cell in u, (N,) both; infinite at the bounds."""
        assert self.grid is not None
        low, high = self.grid.cell(self.grid.round(value))
        ends = [self._invert(self.bounds.inside(end), parents, polish=polish) for end in (low, high)]
        if self.bounds.lower is not None:
            ends[0] = torch.where(low <= self.bounds.lower, self._infinite(-1), ends[0])
        if self.bounds.upper is not None:
            ends[1] = torch.where(high >= self.bounds.upper, self._infinite(1), ends[1])
        return (ends[0], ends[1]) if self.bounds.increasing else (ends[1], ends[0])

    def _infinite(self, side: int) -> Tensor:
        """u at the lower (-1) or upper (1) bound."""
        return self.mean.new_tensor((side if self.bounds.increasing else -side) * torch.inf)

    def _check(self, value: Tensor) -> None:
        """Refuse values that no noise gives."""
        flat = self._flat(value)
        if self.grid is None:
            self.bounds.check(flat)
        else:
            self.grid.check(flat)

    def _flat(self, value: Tensor) -> Tensor:
        """(N, *event) -> (N, width)."""
        return value.reshape(len(value), self.width)
