"""The memory that declared networks may take, counted before it is taken.

The size of a network is the product of many options, of the variable's shape and of its parents'. So it is
not computed from these: whatever torch is asked to make while a mechanism is bound is summed, and refused
before it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil, prod
from typing import Any, cast

import torch
from torch.overrides import TorchFunctionMode

from graphs.errors import MechanismError

__all__ = ["Allowance"]

_SHAPED = frozenset([torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full])
_LIKE = frozenset([torch.empty_like, torch.zeros_like, torch.ones_like, torch.full_like, torch.rand_like])
_COUNTED: Mapping[Callable[..., Any], Callable[..., float]] = {
    torch.arange: lambda start, end=None, step=1: (start if end is None else end - start) / step,
    torch.linspace: lambda start, end, steps: steps,
    torch.logspace: lambda start, end, steps, base=10: steps,
    torch.eye: lambda n, m=None: n * (n if m is None else m),
}
_OTHER = frozenset(["dtype", "device", "layout", "requires_grad", "pin_memory", "out", "generator"])


class Allowance(TorchFunctionMode):
    """While it is entered, torch makes at most so many bytes of tensors; several times, all together.

    >>> with Allowance(1_000):
    ...     weights = torch.zeros(20, 20)
    Traceback (most recent call last):
    graphs.errors.MechanismError: its network asks for more than 0.001 MB of memory. ...
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.left = most, float(most)

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Count what makes a tensor, then let it."""
        options = dict(kwargs or {})
        self.left -= _bytes(func, args, options)
        if self.left < 0:
            raise MechanismError(
                f"its network asks for more than {self.most / 1e6:,.4g} MB of memory. Declare a smaller one, "
                "or allow more megabytes by the environment variable CAUSALGEN_MODEL_MB."
            )
        return func(*args, **options)


def _bytes(func: Any, args: Sequence[Any], options: Mapping[str, Any]) -> float:
    """What a call of torch takes, where it makes a tensor from sizes alone."""
    if str(options.get("device")) == "meta" or (func in _LIKE and args[0].is_meta):
        return 0.0
    if func in _LIKE:
        return float(args[0].numel() * args[0].element_size())
    if func in _SHAPED:
        size = options.get("size", args[0] if args and not isinstance(args[0], int) else args)
        count = float(prod(cast(Sequence[int], size)))
    elif func in _COUNTED:
        count = _COUNTED[func](*args, **{name: each for name, each in options.items() if name not in _OTHER})
    else:
        return 0.0
    kind = options.get("dtype") or torch.get_default_dtype()
    return ceil(max(count, 0.0)) * float(kind.itemsize)
