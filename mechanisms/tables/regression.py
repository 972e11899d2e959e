"""Regression, the deterministic part f(pa) of an additive noise model x = f(pa) + u: linear or a network.

    add_to(start, parents, sign) = start + sign * f(parents)

Linear: f(pa) = bias + sum over parents of their columns times weights, in data units. Columns are never
stacked: each scalar parent is one in-place multiply-add over the rows, a categorical parent a lookup. It is
fitted by least squares, from moments where these are accurate:

    minimise |y - b - X w|^2:   C w = c  with C = cov(X), c = cov(X, y);   b = mean(y) - mean(X) w
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from graphs.errors import MechanismError
from graphs.variables import Categorical, Variable
from mechanisms.base import Parents
from mechanisms.conditioning import Conditioning, rounding
from mechanisms.encoders import Encoder
from mechanisms.networks import DenseNetwork

__all__ = ["LinearRegression", "NetworkRegression", "least_squares", "minimise", "solve_moments"]

_STEPS = 50
"""Most steps to the likeliest line, of which least squares are near."""


class LinearRegression(nn.Module):
    """Weights for each parent's columns, (columns, width), and a bias, (width,)."""

    closed_form = True
    bias: Tensor
    weight: Tensor

    def __init__(self, parents: Mapping[str, Variable], width: int) -> None:
        super().__init__()
        layout = Conditioning(parents)
        self.parents, self.slices = dict(parents), layout.slices
        self.register_buffer("bias", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("weight", torch.zeros(layout.width, width, dtype=torch.float64))
        self._read: tuple[Tensor, int, list[tuple[str, float, slice]]] | None = None

    def add_to(self, start: Tensor, parents: Parents, sign: int = 1) -> Tensor:
        """``start + sign * f(parents)``: (N, *event) -> (N, *event)."""
        try:
            return (self._add_scalar if start.ndim == 1 else self._add_vector)(start, parents, sign)
        except KeyError:
            missing = sorted(self.slices.keys() - parents.keys())
            raise MechanismError(
                f"The values of parents {missing} are missing; got {sorted(parents)}."
            ) from None

    def _add_vector(self, start: Tensor, parents: Parents, sign: int) -> Tensor:
        total = torch.add(start.reshape(len(start), -1), self.bias, alpha=sign)
        weight = self.weight.to(start.dtype)
        for name, columns in self.slices.items():
            value = parents[name]
            if isinstance(self.parents[name], Categorical):
                total = total.add_(weight[columns].index_select(0, value), alpha=sign)
            else:
                total = total.addmm_(value.reshape(len(value), -1), weight[columns], alpha=sign)
        return total.reshape(start.shape)

    def _add_scalar(self, start: Tensor, parents: Parents, sign: int) -> Tensor:
        # Not by attribute: with one row, torch's look-up of a buffer takes half as long as the arithmetic.
        bias, weight = self._buffers["bias"], self._buffers["weight"]
        assert bias is not None and weight is not None
        total = torch.add(start, bias, alpha=sign)
        for name, number, columns in self._terms(weight):
            value = parents[name]
            if value.ndim > 1:
                total.addmv_(value.reshape(len(value), -1), weight[columns, 0].to(total.dtype), alpha=sign)
            elif value.is_floating_point():
                # In place, by a number: 15 times faster at 100,000 rows than into fresh memory.
                total.add_(value, alpha=sign * number)
            else:
                total.add_(weight[columns, 0].to(total.dtype).index_select(0, value), alpha=sign)
        return total

    def _terms(self, weight: Tensor) -> list[tuple[str, float, slice]]:
        """Of each parent its name, its first weight as a plain number, and its columns."""
        known = self._read
        if known is None or known[0] is not weight or known[1] != weight._version:
            column: list[float] = weight[:, 0].tolist()
            terms = [(name, column[columns.start], columns) for name, columns in self.slices.items()]
            self._read = known = (weight, weight._version, terms)
        return known[2]

    def weights(self, names: Collection[str]) -> dict[str, Tensor]:
        """What some parents are multiplied by, (1, width, columns) by name."""
        return {name: self.weight[self.slices[name]].T[None] for name in names}

    def prepare(self, value: Tensor, parents: Parents) -> int:
        """Least squares on the rows ``value`` (N, width), of least norm where columns are dependent.

        One-hot columns always are (they sum to 1); a category never seen gets the mean effect of the others.

        Returns:
            The rank: how many coefficients the rows determined, the bias among them.
        """
        if self.parents and not any(isinstance(each, Categorical) for each in self.parents.values()):
            columns = [parents[name].reshape(len(value), -1) for name in self.slices]
            if (solved := solve_moments(columns, value)) is not None:
                self.weight.copy_(solved[0])
                self.bias.copy_(solved[1])
                return 1 + len(solved[0])
        conditioning = Conditioning(self.parents).to(value.device)
        conditioning.prepare(parents)
        columns = conditioning(parents, len(value)).to(value.dtype)
        centre, target = columns.mean(0), value.mean(0)
        solution, rank = least_squares(columns - centre, value - target)
        self.weight.copy_(solution / conditioning.std[:, None])
        self.bias.copy_(target - (centre + conditioning.mean / conditioning.std) @ solution)
        return 1 + rank

    def refine(self, value: Tensor, parents: Parents, log_prob: Callable[[Tensor], Tensor]) -> None:
        """Move to where the residuals of ``value`` are likeliest; values and residuals are (N, width).

        Args:
            value: what is regressed.
            parents: values by name.
            log_prob: residuals -> (N,).
        """
        conditioning = Conditioning(self.parents).to(value.device)
        conditioning.prepare(parents)
        columns = conditioning(parents, len(value)).to(value.dtype)
        centre, residual = columns.mean(0), self.add_to(value, parents, sign=-1).detach()
        move = residual.new_zeros(columns.shape[1], residual.shape[1])
        shift = torch.zeros_like(residual[0])

        def loss() -> Tensor:
            return -log_prob(residual - (columns - centre) @ move - shift).mean()

        before = minimise(loss, [move, shift], max_iter=_STEPS)
        with torch.no_grad():
            if float(loss()) <= before:
                self.weight.add_(move / conditioning.std[:, None])
                self.bias.add_(shift - (centre + conditioning.mean / conditioning.std) @ move)


class NetworkRegression(nn.Module):
    """A dense network of the standardised parents, in deviations of x; ``from_linear``: of its residual.

    Image parents enter by their encoders' features, and the linear part not at all.
    """

    closed_form = False
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        parents: Mapping[str, Variable],
        width: int,
        hidden: Sequence[int],
        *,
        from_linear: bool = False,
        encoders: Mapping[str, Encoder] | None = None,
    ) -> None:
        super().__init__()
        tabular = {name: parent for name, parent in parents.items() if name not in (encoders or {})}
        self.linear = LinearRegression(tabular, width) if from_linear else None
        self.conditioning = Conditioning(parents, encoders=encoders)
        self.network = DenseNetwork(self.conditioning.width, hidden, torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("std", torch.ones(width, dtype=torch.float64))

    def weights(self, names: Collection[str]) -> dict[str, Tensor]:
        """None: it is not linear in any parent."""
        return {}

    def prepare(self, value: Tensor, parents: Parents) -> int:
        """Take means and deviations from the training rows, ``value`` (N, width); 0, as nothing is solved."""
        self.conditioning.prepare(parents)
        least = rounding(value)  # of what is constant, or linear to the last digit
        if self.linear is not None:
            self.linear.prepare(value, parents)
            value = self.linear.add_to(value, parents, sign=-1)
        self.mean.copy_(value.mean(0))
        self.std.copy_(value.std(0, correction=0).maximum(least))
        return 0

    def add_to(self, start: Tensor, parents: Parents, sign: int = 1) -> Tensor:
        """``start + sign * f(parents)``: (N, *event) -> (N, *event)."""
        if self.linear is not None:
            start = self.linear.add_to(start, parents, sign)
        mean = self.network(self.conditioning(parents)) * self.std + self.mean
        return torch.add(start, mean.reshape(start.shape), alpha=sign)


@torch.enable_grad()
def minimise(loss: Callable[[], Tensor], free: Sequence[Tensor], **options: float) -> float:
    """Move leaf tensors, in place, to the least ``loss`` near them, by L-BFGS; the loss before.

    ``options`` are those of ``torch.optim.LBFGS``. No other tensor gets a gradient.
    """
    free = [each.requires_grad_() for each in free]
    optimiser = torch.optim.LBFGS(free, line_search_fn="strong_wolfe", **options)  # pyright: ignore[reportArgumentType]

    def with_gradient() -> Tensor:
        optimiser.zero_grad()
        found = loss()
        found.backward(inputs=free)
        return found

    return float(optimiser.step(with_gradient).detach())


def least_squares(columns: Tensor, value: Tensor) -> tuple[Tensor, int]:
    """Weights (p, width) of columns (N, p) for values (N, width), the shortest where columns depend; rank."""
    if not columns.shape[1]:
        return value.new_zeros(0, value.shape[1]), 0
    if not bool(columns.isfinite().all() and value.isfinite().all()):  # sums of codes such as 1.8e308
        return value.new_full((columns.shape[1], value.shape[1]), torch.nan), 0
    # On the CPU, whose driver 'gelsd' handles dependent columns, as one-hot ones are.
    solved = torch.linalg.lstsq(columns.cpu(), value.cpu(), driver="gelsd")
    return solved.solution.to(value), int(solved.rank)


_SMALLEST = 1e-4
"""Least eigenvalue of the correlations: the weights lose at most 4 of 16 digits."""


def solve_moments(columns: Sequence[Tensor], value: Tensor) -> tuple[Tensor, Tensor] | None:
    """Weights (p, width) and bias (width,) of least squares, or None where moments are too coarse.

    Of values (N, width) on regressors, each (N, any), p in all; N >= 1. Columns are centred before they are
    multiplied, so a year near 2000 keeps its digits, and the system is solved for columns of unit deviation.
    That squares their condition number (Bjorck, Numerical Methods for Least Squares Problems, 1996, section
    2.2), hence the limit: beyond it, as where columns depend on each other, the caller has to decompose the
    columns themselves.
    """
    width = value.shape[1]
    # A row for each column: the sums below run over contiguous memory.
    rows = torch.cat([each.T for each in (*columns, value)]).to(value)
    mean = rows.mean(1, keepdim=True)
    moments = rows.sub_(mean).matmul(rows.T).div_(rows.shape[1]).cpu()
    mean = mean[:, 0].cpu()
    p = len(mean) - width
    deviation = moments.diagonal()[:p].sqrt()
    # Rounding in the mean gives a constant column a tiny deviation.
    if not bool((deviation > 1e-12 * mean[:p].abs()).all()):
        return None
    scale = deviation[:, None]
    values, vectors = torch.linalg.eigh(moments[:p, :p] / (scale * deviation))
    if not bool(values[0] > _SMALLEST):
        return None
    weight = vectors @ (vectors.T @ (moments[:p, p:] / scale) / values[:, None]) / scale
    return weight.to(value), (mean[p:] - mean[:p] @ weight).to(value)
