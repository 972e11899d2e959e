"""What is asked of an image node: each of its causes set to another value, one cause at a time.

    a number     the value of another row: a seeded permutation in one cycle, so that none keeps its own
    a category   uniform over the others

So new values follow their real distribution, and pairs of causes may be ones that no row has. What the
image should show then is known for all its causes: those that were not set keep their factual value, or take
the true counterfactual one where the data generator is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphs.errors import DataError
from graphs.variables import Categorical, Image, Variable
from mechanisms.seeds import keyed_seed

__all__ = ["Columns", "Question", "Truth", "attributes", "other_values", "questions"]

Columns = Mapping[str, NDArray[Any]]
"""Values by node in the user's form, N rows each."""

Truth = Callable[[NDArray[np.int64], Columns], Columns]
"""(row numbers of the data, what is set) -> the true counterfactual values of the nodes that it knows."""


@dataclass(frozen=True)
class Question:
    """One intervention, on N rows.

    Attributes:
        node: what is set.
        values: to what, (N,).
        shown: what the image should show then: the value of each of its causes, (N,).
        known: whether ``shown`` are the true counterfactual values.
        image: the true counterfactual image, (N, C, H, W) in [0, 1], where it is known.
    """

    node: str
    values: NDArray[Any]
    shown: Columns
    known: bool = False
    image: NDArray[Any] | None = None


def attributes(parents: Mapping[str, Variable]) -> dict[str, Variable]:
    """The causes of an image that are one number or one category."""
    return {
        name: variable
        for name, variable in parents.items()
        if not isinstance(variable, Image) and not variable.event_shape
    }


def questions(
    node: str,
    causes: Mapping[str, Variable],
    columns: Columns,
    rows: NDArray[np.int64],
    truth: Truth | None,
    seed: int,
) -> list[Question]:
    """One question for each cause that has another value.

    Args:
        node: the image.
        causes: its causes of one value.
        columns: their values in the rows, and those of the image.
        rows: which rows of the data these are.
        truth: the true counterfactual world, where it is known.
        seed: of the new values.

    Raises:
        DataError: a single row has no other to take a value from.
    """
    asked: list[Question] = []
    for name, variable in causes.items():
        if isinstance(variable, Categorical) and variable.size < 2:
            continue
        values = other_values(variable, columns[name], keyed_seed(seed, "evaluate", node, name))
        known = dict(truth(rows, {name: values})) if truth else {}
        shown = {each: np.asarray(known.get(each, columns[each])) for each in causes} | {name: values}
        asked.append(Question(name, values, shown, truth is not None, known.get(node)))
    return asked


def other_values(variable: Variable, values: NDArray[Any], seed: int) -> NDArray[Any]:
    """Another value for each row, (N,) in the user's form; see the head of this module.

    >>> from graphs.variables import Continuous
    >>> other_values(Continuous(), np.array([1.0, 2.0]), seed=0).tolist()
    [2.0, 1.0]

    Raises:
        DataError: a single row of numbers.
    """
    random = np.random.default_rng(seed)
    if isinstance(variable, Categorical):
        codes = variable.encode(values, where="Values")
        return np.asarray(
            variable.decode((codes + random.integers(1, variable.size, len(codes))) % variable.size)
        )
    if len(values) < 2:
        raise DataError("New values come from other rows: expected at least 2 rows, got 1.")
    order = random.permutation(len(values))
    other = np.empty_like(values)
    other[order] = values[np.roll(order, 1)]
    return other
