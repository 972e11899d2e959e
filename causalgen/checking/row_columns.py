"""Values and noise of a node as columns of numbers, (N, columns) float64 on the CPU, for tests on rows.

A category becomes its one-hot columns; a picture the means of a 4 x 4 grid of patches and its root mean
square: what a mechanism fails to explain of a picture is rarely one pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphs.variables import Categorical, Variable
from mechanisms.base import Noise

__all__ = ["noise_columns", "value_columns"]

_PATCHES = 4


def value_columns(values: Tensor, variable: Variable) -> Tensor:
    """Columns of canonical values, (N, *event)."""
    if isinstance(variable, Categorical):
        return torch.nn.functional.one_hot(values.cpu(), variable.size).double()
    return _flat(values)


def noise_columns(noise: Noise, prior: Noise) -> Tensor:
    """Columns of the leaves that vary in prior draws of the same mechanism.

    The others are what abduction remembers of the row, such as the factual parents, and no exogenous noise.
    """
    varying = [name for name, leaf in prior.items() if bool((leaf != leaf[:1]).any())]
    columns = [_flat(noise[name]) for name in varying]
    return torch.cat(columns, 1) if columns else torch.zeros(noise.n, 0, dtype=torch.float64)


def _flat(values: Tensor) -> Tensor:
    values = values.detach().cpu().double()
    if values.ndim != 4:
        return values.reshape(len(values), -1)
    patches = torch.nn.functional.adaptive_avg_pool2d(values, _PATCHES).flatten(1)
    return torch.cat([patches, values.square().mean((1, 2, 3)).sqrt()[:, None]], 1)
