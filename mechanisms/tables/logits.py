"""Logits that are linear in the parents: logistic regression, and proportional odds where there is an order.

    linear     log P(k | pa) = b_k + c w_k + const     c one-hot categories and standardised numbers
    ordinal    P(x <= k | pa) = logistic(b_k - c w)    b rising (McCullagh 1980)

Both maximise the log-likelihood less s (|w|^2 + |theta - theta_0|^2) / 2, s the smoothing, which keeps finite
what rows leave open, as where they separate categories. theta are the b_k, of ordinal logits the first of
them and the logarithms of their rises; theta_0 has the overall frequencies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mechanisms.tables.regression import minimise

__all__ = ["Line", "LinearLogits", "OrdinalLogits", "REGRESSIONS"]

_STEPS = 500


class Line(nn.Module):
    """(N, inputs) -> logits (N, K), linear; what a network of few rows would learn late, and stop before."""

    filled_in = ("slope",)  #: of its state, what weights from before there was a line lack

    def __init__(self, inputs: int, categories: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(inputs, categories, dtype=torch.float64))

    def forward(self, context: Tensor) -> Tensor:
        """Logits without intercepts."""
        return context.to(self.slope.dtype) @ self.slope

    def prepare(self, context: Tensor, value: Tensor, start: Tensor, smoothing: float = 1.0) -> Tensor:
        """Fit logistic regression to context (N, inputs) and codes (N,); the intercepts, (K,).

        These start at ``start``, the logarithms of the overall frequencies.
        """
        columns = context.detach().to(self.slope.dtype)

        def loss(slope: Tensor, bias: Tensor) -> Tensor:
            return nn.functional.cross_entropy(columns @ slope + bias, value)

        slope, bias = _fitted(loss, torch.zeros_like(self.slope), start, smoothing, len(value))
        self.slope.data.copy_(slope)
        return bias

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        state_dict.setdefault(f"{prefix}slope", torch.zeros_like(self.slope))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class LinearLogits(nn.Module):
    """(N, inputs) -> log probabilities (N, K) of logistic regression."""

    intercept: Tensor

    def __init__(self, inputs: int, categories: int) -> None:
        super().__init__()
        self.line = Line(inputs, categories)
        self.register_buffer("intercept", torch.zeros(categories, dtype=torch.float64))

    def forward(self, context: Tensor) -> Tensor:
        """Normalised."""
        return (self.line(context) + self.intercept).log_softmax(-1)

    def prepare(self, context: Tensor, value: Tensor, start: Tensor, smoothing: float) -> None:
        """As ``Line.prepare``."""
        self.intercept.copy_(self.line.prepare(context, value, start, smoothing))


class OrdinalLogits(nn.Module):
    """(N, inputs) -> log probabilities (N, K) of proportional odds."""

    def __init__(self, inputs: int, categories: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(inputs, dtype=torch.float64))
        #: the first b, and the logarithms of the rises to the next ones, (K - 1,)
        self.rises = nn.Parameter(torch.zeros(categories - 1, dtype=torch.float64))

    def forward(self, context: Tensor) -> Tensor:
        """Normalised."""
        return _log_p(context.to(self.slope.dtype) @ self.slope, self.rises)

    def prepare(self, context: Tensor, value: Tensor, start: Tensor, smoothing: float) -> None:
        """As ``Line.prepare``."""
        columns, code = context.detach().to(self.slope.dtype), value[:, None]
        edges = start.exp().cumsum(0)[:-1].logit()
        rises = torch.cat([edges[:1], edges.diff().log()])

        def loss(slope: Tensor, rises: Tensor) -> Tensor:
            return -_log_p(columns @ slope, rises).gather(1, code).mean()

        found = _fitted(loss, torch.zeros_like(self.slope), rises, smoothing, len(value))
        for parameter, fitted in zip((self.slope, self.rises), found, strict=True):
            parameter.data.copy_(fitted)


REGRESSIONS = {"linear": LinearLogits, "ordinal": OrdinalLogits}
"""By name, as an option says it."""


def _log_p(score: Tensor, rises: Tensor) -> Tensor:
    """(N,) scores c w and the b_k, as rises -> log probabilities (N, K)."""
    edges = torch.cat([rises[:1], rises[1:].exp()]).cumsum(0) - score[:, None]
    below, above = nn.functional.logsigmoid(edges), nn.functional.logsigmoid(-edges)
    # logistic(b) - logistic(a) = logistic(b) logistic(-a) (1 - exp(a - b)), without cancellation.
    between = below[:, 1:] + above[:, :-1] + (-torch.expm1(-rises[1:].exp())).log()
    return torch.cat([below[:, :1], between, above[:, -1:]], 1)


def _fitted(
    loss: Callable[[Tensor, Tensor], Tensor], slope: Tensor, start: Tensor, smoothing: float, rows: int
) -> Sequence[Tensor]:
    """Slopes and theta at the least mean loss and penalty, from these slopes of 0 and this theta_0."""
    theta = start.clone()

    def whole() -> Tensor:
        size = slope.square().sum() + (theta - start).square().sum()
        return loss(slope, theta) + 0.5 * smoothing * size / rows

    # The change is of the log-likelihood 1e-5.
    tolerances = {"tolerance_grad": 1e-3 / rows, "tolerance_change": min(1e-9, 1e-5 / rows)}
    minimise(whole, [slope, theta], max_iter=_STEPS, **tolerances)
    return slope.detach(), theta.detach()
