"""Whether the tensors of a state are numbers: NaN is none, infinity only where a mechanism says so."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

__all__ = ["first_non_finite"]


def first_non_finite(
    state: Mapping[str, Tensor], impossible: Collection[str] = (), unknown: Collection[str] = ()
) -> str | None:
    """The first tensor that holds a value which no fit gives, and how many it holds; None where all are good.

    >>> first_non_finite({"a.scale": torch.ones(3), "a.bias": torch.tensor([0.0, torch.nan])})
    "'a.bias' holds 1 NaN or infinite values among its 2"

    Args:
        state: tensors by name.
        impossible: names of log probabilities, -inf where something cannot happen.
        unknown: names of tensors that are NaN where something is not known.
    """
    for name, tensor in state.items():
        if not tensor.is_floating_point() or name in unknown:
            continue
        good = tensor.isfinite()
        if name in impossible:
            good |= tensor == -torch.inf
        if not bool(good.all()):
            bad = int((~good).sum())
            return f"{name!r} holds {bad:,} NaN or infinite values among its {tensor.numel():,}"
    return None
