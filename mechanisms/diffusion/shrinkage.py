"""Shrinkage of small changes: a counterfactual image keeps the factual pixels that hardly changed.

A trained denoiser moves pixels that its parents do not: each a little, all over the image. What parents do
move is often a part of the image, and there a change is large. Changes are then an estimate of a sparse
signal under small errors, which a threshold improves. With a_i >= 0 the mean of |x_cf - x_F| over the
channels of pixel i, each row by itself, the change of a pixel is multiplied by firm shrinkage (Gao & Bruce
1997), which leaves large changes as they are and has no jump,

    w_i = clip(2 (1 - tau / a_i), 0, 1),        tau = min(3 * 1.4826 median_j a_j,  share * max_j a_j).

Of one channel 3 * 1.4826 median is three deviations of normal errors as long as most of the image stays
(Donoho & Johnstone 1994); of three channels, whose mean varies less, it is more, and a change of one of them
counts a third. Where most of the image changes, as in brightness, ``share`` of the largest change bounds what
can be lost. A change twice as large is shrunk to twice as much: small interventions are treated as large
ones are.

Counterfactuals are pulled to their factuals by this, so that they lack, on average over these, a little of
the law of samples under the same intervention. Abduction is as it was: noise is drawn from its posterior.
"""

import torch
from torch import Tensor

from mechanisms.rows import by_row

__all__ = ["shrunk"]

_THREE_DEVIATIONS = 3 * 1.4826
"""Of normal errors, in units of their median absolute deviation."""


def shrunk(image: Tensor, factual: Tensor, share: float) -> Tensor:
    """Images (N, C, H, W) with the pixels of ``factual`` where they hardly changed; see the module."""
    change = image - factual
    size = change.abs().mean(1, keepdim=True)
    each = size.flatten(1)
    # Sorted, as torch's median is not deterministic on a GPU.
    median = each.sort(1).values[:, (each.shape[1] - 1) // 2]
    limit = (_THREE_DEVIATIONS * median).minimum(share * each.amax(1))
    weight = 2 * (1 - by_row(limit, size) / size.clamp(min=torch.finfo(size.dtype).tiny))
    return factual + weight.clamp(0, 1) * change
