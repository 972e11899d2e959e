"""Counterfactuals mended: strengths row by row and corrections, as the predictor reads them; shrinkage.

**Automatic strength** (``weight: auto``): for each row the smallest one whose counterfactual the predictor
accepts. A row is accepted once q(v | x, .) of its changed categorical parents, all of them together, reaches
the target. Rows that no candidate satisfies keep the strongest. Continuous parents keep weight 1, which is
exact.

**Corrections**: numbers are asked for anew by what a counterfactual still lacks of their change.
At weight 1 an exact denoiser moves an image by the whole change from the factual value F_k of a parent to
v_k. A trained one falls short, most where v is a rare combination, and moves other parents along. What is
lacking can be read: with r_k(x) the mode of the anticausal predictor's q(pa_k | x, pa_<k),

    gap_k = v_k - [r_k(x_cf) - rho (r_k(x_F) - F_k)],        asked_k <- asked_k + omega gap_k,

a fixed-point iteration on the mechanism's own response, with relaxation omega (Young 1954): a response that
falls short as much the second time is met better by omega a little above 1.

The predictor errs, and of the factual image it is known by how much. Two images share that error the more,
the less is changed between them, so it is carried over by simple kriging with an exponential kernel,

    rho = exp(-d),    d = sum_k |v_k - F_k| / std_k,

a parent that is no number counting 1 if it differs. An image whose parents all stay is never touched, and a
small change is read as a difference, in which the error cancels. Each row keeps the image of
the least gap, so that a correction cannot make what is read worse.

**Shrinkage** of small changes: a counterfactual image keeps the factual pixels that hardly changed.
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

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from graphs.variables import Categorical, Continuous
from mechanisms.base import Parents
from mechanisms.diffusion.predictor import AnticausalPredictor
from mechanisms.rows import by_row, where_rows

__all__ = ["accepted", "closest", "corrected", "readings", "shrunk", "smallest_strengths"]

Gaps = Callable[[Tensor], Mapping[str, Tensor]]
"""Images (N, C, H, W) to what each number lacks, (N, *event) by name."""

_THREE_DEVIATIONS = 3 * 1.4826
"""Of normal errors, in units of their median absolute deviation."""

_HALF_A_GREY = 1 / 255
"""Half of a step of 8 bits, of pixels in [-1, 1]."""


def smallest_strengths(
    candidates: Sequence[float],
    decode: Callable[[float, Tensor], Tensor],
    accept: Callable[[Tensor, Tensor], Tensor],
    rows: int,
    device: torch.device,
) -> Tensor:
    """Images (N, C, H, W), each at the first candidate that its row accepts.

    ``decode`` takes a strength and row numbers (n,) to images (n, C, H, W), ``accept`` these and the numbers
    to (n,) bool.
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


@torch.no_grad()
def readings(
    predictor: AnticausalPredictor, images: Tensor, sigma: float, parents: Parents
) -> dict[str, Tensor]:
    """What the predictor reads of each continuous parent on clean images, (N, *event) by name.

    Images are (N, C, H, W) in [-1, 1], ``sigma`` the lowest level it was trained on; a later parent is read
    under ``parents``.
    """
    numbers = [name for name, variable in predictor.variables.items() if isinstance(variable, Continuous)]
    features = predictor.encode(images, sigma)
    return {name: predictor.most_likely(features, parents, name) for name in numbers}


def corrected(
    decode: Callable[[Parents], Tensor],
    predictor: AnticausalPredictor,
    sigma: float,
    factual: Parents,
    before: Parents,
    parents: Parents,
    times: int,
    relaxation: float = 1.0,
) -> Tensor:
    """Images (N, C, H, W) under ``parents``, corrected in the rows where some parent changes.

    ``decode`` takes parents to images. Each row started at ``factual``, whose images were read as ``before``;
    ``sigma`` is the lowest level that the predictor was trained on.
    """
    distance = _distance(factual, parents, predictor.scales())
    shared, moved = torch.exp(-distance), distance > 0

    def gaps(images: Tensor) -> dict[str, Tensor]:
        lacking = {}
        for name, value in readings(predictor, images, sigma, parents).items():
            error = by_row(shared, value) * (before[name] - factual[name])
            lacking[name] = torch.where(by_row(moved, value), parents[name] - (value - error), 0.0)
        return lacking

    return closest(decode, gaps, predictor.scales(), parents, times, relaxation)


def closest(
    decode: Callable[[Parents], Tensor],
    gaps: Gaps,
    scales: Mapping[str, Tensor],
    parents: Parents,
    times: int,
    relaxation: float = 1.0,
) -> Tensor:
    """The images (N, C, H, W) whose numbers come closest to what is asked.

    ``decode`` takes parents to images, each of at most so many ``times``; ``gaps`` says what images lack, in
    the parents' units, and ``scales`` the size that each gap is counted in.
    """
    asked, best = dict(parents), decode(parents)
    gap = gaps(best)
    least = _size(gap, scales)
    for _ in range(times):
        if not bool(least.any()):
            break
        asked |= {name: asked[name] + relaxation * lacking for name, lacking in gap.items()}
        images = decode(asked)
        gap = gaps(images)
        size = _size(gap, scales)
        better = size < least
        best = where_rows(better, images, best)
        least = torch.where(better, size, least)
    return best


def _distance(one: Parents, other: Parents, scales: Mapping[str, Tensor]) -> Tensor:
    """(N,) how far apart parents are: numbers in units of their scales, anything else 1 if it differs.

    An image that was made anew from its own noise differs by rounding, which is no change.
    """
    distances = []
    for name, value in one.items():
        if name in scales and value.is_floating_point():
            each = (value - other[name]).abs().reshape(len(value), -1) / scales[name]
            distances.append(each.sum(1))
        else:
            image = value.is_floating_point()
            differs = ~((value - other[name]).abs() <= _HALF_A_GREY) if image else value != other[name]
            distances.append(differs.reshape(len(value), -1).any(1).double())
    return torch.stack(distances).sum(0)


def _size(gap: Mapping[str, Tensor], scales: Mapping[str, Tensor]) -> Tensor:
    """(N,) the sum of absolute gaps in units of their scales."""
    sizes = [(lacking.abs().reshape(len(lacking), -1) / scales[name]).sum(1) for name, lacking in gap.items()]
    return torch.stack(sizes).sum(0)


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
