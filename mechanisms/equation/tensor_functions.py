"""The functions of the expression language on torch tensors, in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphs.expressions import Functions

__all__ = ["TORCH"]


def _array(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


def _clip(x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(x, lower), upper)


def _sign(x: Tensor) -> Tensor:
    return torch.where(x.isnan(), x, torch.sign(x))  # torch's sign of nan is 0


TORCH = Functions(
    array=_array,
    calls={
        "abs": torch.abs,
        "atanh": torch.atanh,
        "ceil": torch.ceil,
        "clip": _clip,
        "cos": torch.cos,
        "exp": torch.exp,
        "floor": torch.floor,
        "log": torch.log,
        "logit": torch.logit,
        "maximum": torch.maximum,
        "minimum": torch.minimum,
        "round": torch.round,
        "sigmoid": torch.sigmoid,
        "sign": _sign,
        "sin": torch.sin,
        "sqrt": torch.sqrt,
        "tanh": torch.tanh,
        "where": torch.where,
    },
)
"""For ``Expression.evaluate``; gradients flow, and the result is on the device of the values."""
