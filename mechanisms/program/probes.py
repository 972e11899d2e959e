"""Parents that a program is tried on before it is used: many values, and their combinations.

Every combination of categories and of whole numbers of few values, where there are no more than 256, or 256
of them; numbers at 0, of both signs, small and large, within their bounds and at them; images dark, grey,
bright and random. The same ones each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from math import prod

import torch
from torch import Tensor

from graphs.variables import Categorical, Continuous, Image, Integer, Variable

__all__ = ["probe_parents"]

_COMBINATIONS = 256
_ROWS = 512
_NUMBERS = 2**17
"""Most numbers in all rows of one parent: fewer rows of large images."""

# Beyond 20 the exponential functions of programs begin to vanish beside their other terms.
_SIZES = (1e-3, 0.1, 0.5, 1.0, 2.5, 7.0, 20.0)


def probe_parents(variables: Mapping[str, Variable]) -> tuple[int, dict[str, Tensor]]:
    """R, and values of the parents in the form a program gets them, (R, *event) by name."""
    generator = torch.Generator().manual_seed(0)
    few = {name: values for name, each in variables.items() if (values := _few(each))}
    combinations = _combinations(list(few.values()), generator)
    largest = max((prod(each.event_shape) for each in variables.values()), default=1)
    rows = max(8, min(max(len(combinations), _ROWS), _NUMBERS // max(1, largest)))
    which = torch.arange(rows) % len(combinations)
    result: dict[str, Tensor] = {}
    for name, variable in variables.items():
        if name in few:
            column = combinations[which, list(few).index(name)]
            shape = (rows, *variable.event_shape)
            result[name] = column.reshape(-1, *[1] * len(variable.event_shape)).expand(shape).clone()
        elif isinstance(variable, Image):
            result[name] = _images((rows, *variable.event_shape), generator)
        else:
            points = torch.tensor(_points(variable), dtype=torch.float64)
            shape = (rows, *variable.event_shape)
            result[name] = points[torch.randint(len(points), shape, generator=generator)]
        result[name] = result[name].to(getattr(torch, variable.dtype))
    return rows, result


def _few(variable: Variable) -> list[float]:
    """Every value, where there are few."""
    if isinstance(variable, Categorical):
        return [float(code) for code in range(variable.size)]
    values = variable.values if isinstance(variable, Integer) else None
    return [] if values is None or len(values) > _COMBINATIONS else [float(value) for value in values]


def _combinations(values: list[list[float]], generator: torch.Generator) -> Tensor:
    """(C, parents) every combination, or some."""
    if prod(map(len, values)) <= _COMBINATIONS:
        every = list(product(*values))  # one, of nothing, where there are no such parents
        return torch.tensor(every, dtype=torch.float64).reshape(len(every), len(values))
    columns = [
        torch.tensor(each)[torch.randint(len(each), (_COMBINATIONS,), generator=generator)] for each in values
    ]
    return torch.stack(columns, 1).double()


def _points(variable: Variable) -> list[float]:
    """Numbers within the bounds, far apart."""
    assert isinstance(variable, Continuous | Integer)
    low, high = variable.lower, variable.upper
    if low is not None and high is not None:
        points = [low + (high - low) * share for share in (0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1)]
    elif low is not None or high is not None:
        end, sign = (low, 1) if low is not None else (high, -1)
        assert end is not None
        points = [float(end), *(end + sign * size for size in _SIZES)]
    else:
        points = [0.0, *_SIZES, *(-size for size in _SIZES)]
    return [float(round(point)) for point in points] if isinstance(variable, Integer) else points


def _images(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """In [0, 1]."""
    images = torch.rand(shape, generator=generator)
    for row, level in enumerate((0.0, 0.5, 1.0)):
        images[row] = level
    return images
