"""Automatic strength: for each row the smallest one whose counterfactual the predictor accepts.

A row is accepted once q(v | x, .) of its changed categorical parents, all of them together, reaches the
target. Rows that no candidate satisfies keep the strongest. Continuous parents keep weight 1, which is exact.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from graphs.variables import Categorical
from mechanisms.base import Parents
from mechanisms.diffusion.predictor import AnticausalPredictor

__all__ = ["accepted", "smallest_strengths"]


def smallest_strengths(
    candidates: Sequence[float],
    decode: Callable[[float, Tensor], Tensor],
    accept: Callable[[Tensor, Tensor], Tensor],
    rows: int,
    device: torch.device,
) -> Tensor:
    """Images (N, C, H, W), each at the first candidate that its row accepts.

    Args:
        candidates: strengths, in the order to try.
        decode: strength and row numbers (n,) to images (n, C, H, W).
        accept: images (n, C, H, W) and row numbers (n,) to (n,) bool.
        rows: N, at least 1.
        device: of the row numbers.
    """
    left = torch.arange(rows, device=device)
    images: Tensor | None = None
    for strength in candidates:
        found = decode(strength, left)
        images = found if images is None else images.index_copy(0, left, found)
        left = left[~accept(found, left)]
        if not len(left):
            break
    assert images is not None
    return images


@torch.no_grad()
def accepted(
    predictor: AnticausalPredictor,
    images: Tensor,
    sigma: float,
    factual: Parents,
    parents: Parents,
    target: float,
) -> Tensor:
    """(N,) whether the predictor sees the changed categorical parents with probability ``target`` or more.

    True as well where none of them changed. The images are taken as clean, at the lowest level ``sigma``.
    """
    logs = predictor.log_probs(predictor.encode(images, sigma), parents)
    total = images.new_zeros(len(images))
    changed = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    for name, variable in predictor.variables.items():
        if isinstance(variable, Categorical):
            moved = factual[name] != parents[name]
            total = total + torch.where(moved, logs[name], 0.0)
            changed |= moved
    return ~changed | (total.exp() >= target)
