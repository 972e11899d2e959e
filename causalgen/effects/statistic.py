"""The number, or numbers, of each row whose mean an effect compares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphs.errors import DomainError, EvidenceError
from graphs.variables import Categorical, Continuous, Image, Integer, Variable

__all__ = ["Statistic", "check_statistic", "measure"]

Statistic = Callable[[Any], Any]
"""Values of N rows in the user's form, a tensor (N, *event) or an array of labels -> N numbers or booleans,
or an array (N, *shape) of them."""


def check_statistic(target: str, variable: Variable, statistic: Statistic | None) -> None:
    """Refuse a target that has no mean of its own, unless a statistic says what to average."""
    if statistic is not None and not callable(statistic):
        raise EvidenceError(f"statistic is a function of the target's values, got {statistic!r}.")
    if statistic is None and isinstance(variable, Categorical):
        label = repr((variable.labels or (0,))[0])
        raise EvidenceError(
            f"Target {target!r} has categories ({variable.describe()}), which have no mean. Say what to "
            f"average: statistic=lambda {_word(target)}: {_word(target)} == {label} gives a difference of "
            "probabilities."
        )
    if statistic is None and isinstance(variable, Image):
        raise EvidenceError(
            f"Target {target!r} is an image. Say what to average of it, a number a row: "
            f"statistic=lambda {_word(target)}: {_word(target)}.mean((1, 2, 3)) compares brightness."
        )


def measure(
    target: str, variable: Variable, values: Tensor, statistic: Statistic | None
) -> tuple[NDArray[np.float64], bool]:
    """The statistic of N rows, (N, *shape), and whether it is a boolean, whose mean is a probability.

    Raises:
        DomainError: the statistic gives another number of rows, or what is no number; or is false of every
            category.
    """
    seen: Any = variable.decode(values)
    if statistic is None:
        assert isinstance(variable, Continuous | Integer)
        return seen.double().cpu().numpy(), False
    found = statistic(_copied(seen))
    try:
        told = found.detach().cpu() if isinstance(found, Tensor) else found
        array, boolean = np.asarray(told, dtype=np.float64), np.asarray(told).dtype == np.bool_
    except (TypeError, ValueError) as error:
        raise DomainError(
            f"statistic of {target!r} gives numbers or booleans, got a {type(found).__name__}."
        ) from error
    if array.shape[:1] != (len(values),):
        raise DomainError(
            f"statistic of {target!r} gives one number a row: for {len(values)} rows expected shape "
            f"({len(values)},) or ({len(values)}, ...), got {array.shape}. It sees all rows at once."
        )
    if not np.isfinite(array).all():
        bad = int(np.argwhere(~np.isfinite(array))[0][0])
        raise DomainError(f"statistic of {target!r} is {array[bad]} in row {bad}, expected finite numbers.")
    if isinstance(variable, Categorical) and not array.any():
        _refuse_false(target, variable, values, statistic)
    return array, boolean


def _refuse_false(target: str, variable: Categorical, values: Tensor, statistic: Statistic) -> None:
    """Refuse a statistic that is 0 whatever the category, as where it compares with none of them."""
    for code in range(variable.size):
        try:
            found = statistic(_copied(variable.decode(torch.full_like(values, code))))
        except Exception:  # it may know the categories that occur alone
            return
        if bool(np.asarray(found).any()):
            return
    raise DomainError(
        f"statistic of {target!r} is 0 or False of every category ({variable.describe()}). Compare with one "
        "of them, as it is written there."
    )


def _copied(seen: Any) -> Any:
    """What a statistic that works in place may change."""
    return seen.clone() if isinstance(seen, Tensor) else np.array(seen)


def _word(node: str) -> str:
    return node.replace("-", "_")
