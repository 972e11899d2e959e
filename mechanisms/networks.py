"""Dense networks (multi-layer perceptrons); of any network first weights, dtype, gradients, finite checks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from graphs.errors import MechanismError
from mechanisms.seeds import GlobalDraws

__all__ = [
    "DenseNetwork",
    "answering",
    "chosen_dtype",
    "first_non_finite",
    "gradients",
    "learning",
    "move",
    "perceptron",
    "reproducible_initialisation",
    "single_precision",
]


@contextmanager
def reproducible_initialisation(seed: int = 0) -> Iterator[None]:
    """Draw initial weights from ``seed``, and leave the global random state as it was.

    Two mechanisms with the same options start from the same weights, so that fitting depends on its own
    seed alone. Initial weights are drawn on the CPU.
    """
    with torch.inference_mode(False), GlobalDraws(seed):
        yield


@contextmanager
def _without_autocast() -> Iterator[None]:
    """In the precision of the tensors themselves, also where the caller is in ``torch.autocast``."""
    with ExitStack() as stack:
        for device in ("cpu", "cuda", "mps", "xpu"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def answering() -> Iterator[None]:
    """A context in which networks answer: without gradients, in full precision."""
    with torch.no_grad(), _without_autocast():
        yield


@contextmanager
def learning() -> Iterator[None]:
    """A context in which weights are trained, also in ``torch.inference_mode`` or ``torch.autocast``."""
    with torch.inference_mode(False), torch.enable_grad(), _without_autocast():
        yield


@contextmanager
def gradients(who: str) -> Iterator[None]:
    """A context of gradients for a part of an answer; ``who`` follows them, for the message."""
    if torch.is_inference_mode_enabled():
        raise MechanismError(
            f"{who} follows gradients, of which there are none in torch.inference_mode(): ask outside of it, "
            "or under torch.no_grad()."
        )
    with torch.enable_grad():
        yield


@contextmanager
def single_precision() -> Iterator[None]:
    """Make layers of random, constant or evenly spaced weights in float32, whatever the default dtype is.

    In this thread alone.
    """
    with _Single():
        yield


_DTYPES = {str(each).removeprefix("torch."): each for each in (torch.float32, torch.bfloat16, torch.float16)}


def move(modules: Sequence[nn.Module], device: object, networks: Sequence[nn.Module], dtype: object) -> None:
    """Move modules to a device, and give networks among them weights of a dtype; in place, all or none.

    None leaves where they are, or what they have.
    """
    chosen = chosen_dtype(networks, dtype)
    homes = [next(module.buffers()).device for module in modules]
    try:
        if not isinstance(device, str | torch.device | None):
            raise TypeError(f"got {device!r}")
        if torch.zeros(0).to(device).is_meta:
            raise TypeError("it keeps no numbers")
        for module in modules:
            module.to(device)
    except (RuntimeError, TypeError, AssertionError) as error:  # torch without CUDA asserts
        for module, home in zip(modules, homes, strict=True):
            module.to(home)
        raise MechanismError(
            f"Cannot move to the device {device!r}; expected one such as 'cpu' or 'cuda': {error}."
        ) from error
    for network in networks if chosen is not None else ():
        network.to(chosen)


def chosen_dtype(networks: Sequence[nn.Module], dtype: object) -> torch.dtype | None:
    """What networks are to compute in, of ``torch`` or by name; None where nothing was chosen."""
    if dtype is None:
        return None
    chosen = _DTYPES.get(str(dtype).removeprefix("torch."))
    if chosen is None:
        raise MechanismError(f"dtype must be one of {', '.join(_DTYPES)} (of torch), got {dtype!r}.")
    if not networks:
        raise MechanismError(
            "dtype is of the networks that denoise images, and this model has none. Leave it out: tables "
            "keep the precision that their answers need."
        )
    weights = (weight for each in networks for weight in each.parameters() if not weight.is_meta)
    most = max((float(each.detach().abs().max()) for each in weights if each.numel()), default=0.0)
    if most > torch.finfo(chosen).max:
        raise MechanismError(
            f"A weight of {most:.3g} is too large for {dtype}, which ends at {torch.finfo(chosen).max:.3g}. "
            "Take bfloat16, which reaches as far as float32."
        )
    return chosen


class _Single(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        if func in _MAKES and options.get("dtype") is None:
            options["dtype"] = torch.float32
        return func(*args, **options)


_MAKES = {torch.empty, torch.eye, torch.linspace, torch.ones, torch.rand, torch.randn, torch.zeros}


class DenseNetwork(nn.Module):
    """A multi-layer perceptron (SiLU) whose output starts at ``bias``, (outputs,), whatever its input.

    Without inputs (a root) it is the bias alone.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], bias: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias.to(torch.float64, copy=True))
        self.body: nn.Sequential | None = None
        if inputs == 0:
            return
        with reproducible_initialisation():
            layers: list[nn.Module] = []
            for before, after in pairwise([inputs, *hidden]):
                layers += [nn.Linear(before, after, dtype=torch.float64), nn.SiLU()]
            last = nn.Linear([inputs, *hidden][-1], len(bias), bias=False, dtype=torch.float64)
        nn.init.zeros_(last.weight)
        self.body = nn.Sequential(*layers, last)

    def forward(self, context: Tensor) -> Tensor:
        """(N, inputs) -> (N, outputs)."""
        if self.body is None:
            return self.bias.expand(len(context), -1)
        return self.body(context.to(self.bias.dtype)) + self.bias


def perceptron(first: int, hidden: int, last: int) -> nn.Sequential:
    """Two linear layers with SiLU between."""
    return nn.Sequential(nn.Linear(first, hidden), nn.SiLU(), nn.Linear(hidden, last))


def first_non_finite(
    state: Mapping[str, Tensor], impossible: Collection[str] = (), unknown: Collection[str] = ()
) -> str | None:
    """The first tensor that holds a value which no fit gives, and how many it holds; None where all are good.

    Those called ``impossible`` are log probabilities, -inf where something cannot happen; those ``unknown``
    are NaN where something is not known.

    >>> first_non_finite({"a.scale": torch.ones(3), "a.bias": torch.tensor([0.0, torch.nan])})
    "'a.bias' holds 1 NaN or infinite values among its 2"
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
