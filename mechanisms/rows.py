"""Many rows at once: their shapes, the user's form, and the distinct ones (each is computed once)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from graphs.errors import MechanismError
from graphs.variables import Variable

__all__ = [
    "by_row",
    "check_finite",
    "decoded_rows",
    "distinct_rows",
    "function_of_rows",
    "rank_among_equals",
    "repeat_rows",
    "where_rows",
    "within_spread",
]


def repeat_rows(value: Tensor, times: int) -> Tensor:
    """All rows ``times`` times over, sample-major: row r of sample s is row ``s * N + r``."""
    return value if times == 1 else value.repeat(times, *[1] * (value.ndim - 1))


def by_row(values: Tensor, like: Tensor) -> Tensor:
    """One number a row, (N,), so shaped that it goes with another tensor's rows (N, *event)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def where_rows(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Rows of ``yes`` (N, *event) where mask (N,), of ``no`` elsewhere, as the former's type."""
    return torch.where(by_row(mask, yes), yes, no.to(yes))


def decoded_rows(variable: Variable, values: Tensor) -> Any:
    """Canonical rows (N, *event) in the user's form, which whoever gets them may change."""
    decoded: Any = variable.decode(values)
    return decoded.clone() if decoded is values else decoded


def function_of_rows(function: Callable[..., Any], variables: Sequence[Variable], *columns: Tensor) -> Any:
    """What a user's function makes of columns of canonical rows, which it gets in the user's form."""
    shown = [decoded_rows(variable, column) for variable, column in zip(variables, columns, strict=True)]
    with _Doubles():
        return function(*shown)


class _Doubles(TorchFunctionMode):
    """Whole numbers become float64 where they meet floats, as by ``x > 0.5`` or ``x / 60``; in this thread.

    By itself torch takes float32 there, which skips whole numbers beyond 2**24.
    """

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        given = [*args, *options.values()]
        tensors = [each for each in given if isinstance(each, Tensor)]
        name = str(getattr(func, "__name__", ""))
        in_place = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
        # Vectors of floats are the user's own, in a precision of their choice, or a table to look up.
        whole = all(each.ndim == 0 or not each.is_floating_point() for each in tensors)
        if in_place or not whole or all(each.dtype != torch.int64 for each in tensors):
            return func(*args, **options)
        if not any(isinstance(each, float) or _is_float(each) for each in given):
            found = func(*args, **options)
            if not (isinstance(found, Tensor) and found.dtype == torch.float32):
                return found
        return func(*map(_double, args), **{key: _double(each) for key, each in options.items()})


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.dtype == torch.int64 else value


def distinct_rows(columns: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The first row of each distinct one, (U,), and for every row which of those it equals, (N,).

    Rows are equal where all columns are, at least one tensor (N, ...).
    """
    rows = torch.cat([column.reshape(len(column), -1).double() for column in columns], 1)
    _, inverse = torch.unique(rows, dim=0, return_inverse=True)
    numbers = torch.arange(len(rows), device=rows.device)
    first = numbers.new_full((int(inverse.max()) + 1,), len(rows)).scatter_reduce(0, inverse, numbers, "amin")
    return first, inverse


def rank_among_equals(inverse: Tensor) -> Tensor:
    """How many earlier rows equal each one, (N,); ``inverse`` is that of ``distinct_rows``."""
    order = inverse.argsort(stable=True)
    counts = inverse.bincount()
    starts = counts.cumsum(0) - counts
    numbers = torch.arange(len(inverse), device=inverse.device)
    return torch.empty_like(inverse).index_copy(0, order, numbers - starts[inverse[order]])


def within_spread(slack: Tensor, values: Tensor) -> Tensor:
    """A tolerance of numbers, but at most a part of their spread: of 1.7e9 +- 100 all are within 1e-7."""
    finite = values.double().nan_to_num(0.0, 0.0, 0.0)
    spread = 0.02 * (finite - finite.mean()).abs().mean()
    single = bool((finite.float() == finite).all())  # as a network gives them
    return slack.clamp(max=float(spread + (1e-6 if single else 1e-12) * finite.abs().max()))


def check_finite(made: Tensor, what: str, parents: Mapping[str, Tensor]) -> None:
    """Refuse to answer with NaN or infinite numbers."""
    if bool(made.isfinite().all()):
        return
    row = int((~made.flatten(1).isfinite().all(1)).nonzero()[0])
    numbers = {name: value[row] for name, value in parents.items() if value.ndim == 1}
    told = ", ".join(f"{name} = {value.item():g}" for name, value in numbers.items()) or "its parents"
    raise MechanismError(
        f"The {what} of row {row} is not finite under {told}: parents far from what fitting saw, or damaged "
        "weights."
    )
