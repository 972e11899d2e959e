"""Warn where a value lies outside of what fitting saw: there a model only extrapolates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from graphs.errors import ExtrapolationWarning, warn
from graphs.text import counted
from graphs.variables import Categorical, Continuous, Integer, Variable
from graphs.variables.numeric import limits
from mechanisms.rows import by_row

__all__ = [
    "common_range",
    "extrapolation_expected",
    "extrapolation_is_expected",
    "has_bounds",
    "told_apart",
    "warn_out_of_bounds",
    "warn_unseen",
]

_SHOWN = 20

_EXPECTED: ContextVar[list[str] | None] = ContextVar("_EXPECTED", default=None)


@contextmanager
def extrapolation_expected() -> Iterator[list[str]]:
    """A context without ``warn_unseen``, in this thread: Python's warning filters are the whole process's.

    Yields what is met within that is a category which fitting never saw, as "Intervention on 'x': 'red'".
    """
    unseen: list[str] = []
    token = _EXPECTED.set(unseen)
    try:
        yield unseen
    finally:
        _EXPECTED.reset(token)


def extrapolation_is_expected() -> bool:
    """Whether nobody is to be told of extrapolation, as in ``extrapolation_expected``."""
    return _EXPECTED.get() is not None


def common_range(one: Tensor, other: Tensor) -> Tensor:
    """What lies in both of two ``Mechanism.seen_range``; of numbers the first where nothing does.

    >>> common_range(torch.tensor([0.0, 4.0]), torch.tensor([2.0, 9.0]))
    tensor([2., 4.])
    >>> common_range(torch.tensor([True, False]), torch.tensor([False, True]))
    tensor([False, False])
    """
    if one.dtype == torch.bool:
        return one & other
    both = torch.stack((one[0].maximum(other[0]), one[1].minimum(other[1])))
    return both if bool((both[0] <= both[1]).all()) else one


def warn_unseen(
    value: Tensor,
    seen: Tensor | None,
    variable: Variable,
    *,
    where: str,
    rows: Tensor | None = None,
    margin: float = 0.0,
) -> None:
    """Warn once, with the first row of (N, *event) canonical values that lies outside what fitting saw.

    ``seen`` is ``Mechanism.seen_range``. Of ``rows``, (N,) bool, those count; all where None. A number may
    lie beyond the range by ``margin`` of its widths.
    """
    expected = _EXPECTED.get()
    if seen is None or not (expected is None or isinstance(variable, Categorical)):
        return
    if isinstance(variable, Categorical):
        outside = ~seen[value]
    else:
        reach = margin * (seen[1] - seen[0])
        outside = (value < seen[0] - reach) | (value > seen[1] + reach)
    if rows is not None:
        outside &= by_row(rows, value)
    if not bool(outside.any()):
        return
    row, *event = outside.nonzero()[0].tolist()
    if expected is not None and isinstance(variable, Categorical):
        expected.append(f"{where}: {_labels(variable)[int(value[row])]}")
        return
    count = int(outside.reshape(len(outside), -1).any(1).sum())
    at = f" at {event}" if event else ""
    warn(
        f"{where}: row {row} is {_told(value[(row, *event)], seen, event, variable, at)} "
        f"({_are(count, len(value))}). What follows from it is extrapolation.",
        ExtrapolationWarning,
    )


def _are(count: int, rows: int) -> str:
    return f"{count:,} of {counted(rows, 'row')} {'is' if count == 1 else 'are'}"


def has_bounds(variable: Variable) -> bool:
    """Whether a number may leave its variable's bounds."""
    return isinstance(variable, Continuous | Integer) and (
        variable.lower is not None or variable.upper is not None
    )


def warn_out_of_bounds(node: str, variable: Variable, value: Tensor) -> None:
    """Warn where a computed number leaves the bounds of its variable, with the first such row."""
    if not isinstance(variable, Continuous | Integer):
        return
    low, high = limits(variable)
    least, most = (each.item() for each in value.aminmax())
    if low <= least and most <= high:
        return
    outside = ((value < low) | (value > high)).reshape(len(value), -1)
    row = int(outside.any(1).nonzero()[0])
    worst, *_ = told_apart(value[row].reshape(-1)[outside[row]][0].item(), low, high)
    warn(
        f"Node {node!r}: its value in row {row} comes out as {worst}, outside its bounds "
        f"({variable.describe()}; {_are(int(outside.any(1).sum()), len(value))}), and would be "
        "refused as evidence. Keep it inside, as by clip(...) in an equation or by mechanism 'flow', or "
        "widen the bounds."
    )


def _told(value: Tensor, seen: Tensor, event: list[int], variable: Variable, at: str) -> str:
    if isinstance(variable, Categorical):
        labels = _labels(variable)
        known = [label for label, occurred in zip(labels, seen.tolist(), strict=True) if occurred]
        saw = ", ".join(known[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
        if not known:  # each was fitted to rows of its own (``Mechanism.narrow_range``)
            return f"{labels[int(value)]}, which not all nodes were fitted with: they share no category"
        return f"{labels[int(value)]}, a category that fitting never saw; it saw {saw}"
    told, low, high = told_apart(value.item(), *(bound[tuple(event)].item() for bound in seen))
    return f"{told}{at}, outside [{low}, {high}], the range seen in fitting"


def _labels(variable: Categorical) -> list[str]:
    return [repr(label) for label in variable.labels or range(variable.size)]


def told_apart(*numbers: float) -> list[str]:
    """Numbers in as many digits as tell them apart, six at least; -0 is 0.

    >>> told_apart(1700000000, 1700001000)
    ['1.7e+09', '1.700001e+09']
    """
    texts: list[str] = []
    for digits in (6, 9, 12, 17):
        texts = [f"{number + 0.0:.{digits}g}" for number in numbers]
        if len(set(texts)) == len(set(numbers)):
            break
    return texts
