"""Values as a Pyro program sees them: categories as codes, numbers in data units, images in [0, 1].

A program's whole numbers are float64, and so are those it returns, or of any other dtype.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graphs.errors import DomainError, ShapeError
from graphs.variables import Categorical, Continuous, Image, Integer, Variable
from graphs.variables.integer import LARGEST

__all__ = ["canonical_value", "placeholders", "shown_parents"]


def shown_parents(variables: Mapping[str, Variable], parents: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Canonical values of the parents in the program's form, as copies."""
    return {
        name: (parents[name] + 1) / 2 if isinstance(variable, Image) else parents[name].clone()
        for name, variable in variables.items()
    }


def placeholders(variables: Mapping[str, Variable], rows: int, device: torch.device) -> dict[str, Tensor]:
    """Some values of the parents, in the program's form: what the noise is drawn with."""
    return {
        name: torch.full(
            (rows, *variable.event_shape),
            _placeholder(variable),
            dtype=getattr(torch, variable.dtype),
            device=device,
        )
        for name, variable in variables.items()
    }


def _placeholder(variable: Variable) -> float:
    if isinstance(variable, Categorical):
        return variable.size - 1
    if isinstance(variable, Image):
        return 0.5
    low, high = variable.lower, variable.upper
    if low is not None and high is not None:
        return (low + high) // 2 if isinstance(variable, Integer) else (low + high) / 2
    # 1 rather than 0: it has a logarithm and a reciprocal.
    return low + 1 if low is not None else high - 1 if high is not None else 1.0


def canonical_value(variable: Variable, returned: Any, rows: int, *, check: bool = False) -> Tensor:
    """What a program returned, (N, *event) in canonical encoding.

    Args:
        variable: the node's.
        returned: by the program.
        rows: N.
        check: refuse what is outside the domain; otherwise codes are left as numbers.

    Raises:
        ShapeError: no tensor of the variable's shape.
        DomainError: a value outside the domain; the message names the row.
    """
    shape = (rows, *variable.event_shape)
    if not isinstance(returned, Tensor) or tuple(returned.shape) not in (shape, shape[1:]):
        got = tuple(returned.shape) if isinstance(returned, Tensor) else type(returned).__name__
        raise ShapeError(f"The program must return a tensor of shape {shape}, one value a row; got {got}.")
    value = returned.expand(shape)
    if check:
        _check(variable, value)
    if isinstance(variable, Image):
        return (value * 2 - 1).float()
    if isinstance(variable, Categorical) and check:
        return value.round().long()
    if isinstance(variable, Integer) and check:
        return value.double().round()
    return value.double()


def _check(variable: Variable, value: Tensor) -> None:
    good, wanted = value.isfinite(), "a finite number"
    if isinstance(variable, Categorical):
        codes = value.round()
        good = good & (codes >= 0) & (codes < variable.size) & ((value - codes).abs() <= 1e-6)
        wanted = f"a code, 0..{variable.size - 1}"
    else:
        numbers = isinstance(variable, Continuous | Integer)
        bounds = (variable.lower, variable.upper) if numbers else (-1e-6, 1 + 1e-6)
        for bound, sign in zip(bounds, (1, -1), strict=True):
            if bound is not None:
                good = good & (sign * value >= sign * bound)
                wanted = f"within {bounds[0]} and {bounds[1]}"
        if isinstance(variable, Integer):
            good = good & ((value - value.round()).abs() <= 1e-6) & (value.abs() <= LARGEST)
            wanted = f"a whole number ({variable.describe()})"
    row_good = good.reshape(len(value), -1).all(1)
    if not bool(row_good.all()):
        row = int((~row_good).nonzero()[0])
        bad = value[row].reshape(-1)[~good[row].reshape(-1)][0].item()
        raise DomainError(f"Row {row}: the program gives {bad!r}, expected {wanted}.")
