"""Where a node is fitted: which device, which processes, which precision.

Nodes that see images go through accelerate (GPUs, many processes that share each batch, data parallel or by
FSDP2). Table nodes are small float64 networks whose step costs less than accelerate's bookkeeping: they run
plainly on the CPU. Started by ``accelerate launch``, every process then fits them alone and the main one
writes the results.

FSDP2: a mechanism whose weights, gradients, moments and average are split over the processes that fit it.

Each process holds a share of every tensor. A block's weights are gathered when its forward or backward pass
comes to it and let go afterwards (PyTorch FSDP2, ``fully_shard``; Zhao et al. 2023), so that what a process
must hold falls with their number. Steps are those of data parallel training but for rounding.

What is split is a copy, since PyTorch offers no way back; the mechanism itself waits in main memory.
"""

from __future__ import annotations

import copy
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor, nn

from graphs.errors import MechanismError
from graphs.variables import Image, Variable
from mechanisms.base import Mechanism

__all__ = [
    "AcceleratedRuntime",
    "LocalRuntime",
    "Precision",
    "Runtime",
    "all_like",
    "autocast",
    "bfloat16_pays",
    "image_precision",
    "is_first",
    "leave_processes",
    "like",
    "peak_memory",
    "resolve_precision",
    "runtime_of",
    "split",
    "whole",
]

Precision = Literal["float32", "bfloat16"]
"""Of the forward passes in training."""

_SMALL_PIXELS = 32 * 32

_PAYS, _TRIALS = 1.1, 4
"""How many times as fast bfloat16 must be, in the best of so many trials."""

LEAST = 1_000_000
"""Weights of a block that is gathered by itself; smaller ones are gathered with what holds them."""


class LocalRuntime:
    """What the fitting loop asks of the machine, answered for one device of this process alone."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device: torch.device = torch.device(device)  # where the mechanism is fitted
        self.rank: int = 0  # number of this process among those that share the steps, from 0
        self.processes: int = 1  # how many processes share the steps
        self.is_main: bool = is_first()  # whether this process is the one that writes and shows
        self.splits: bool = False  # whether each process has a share of the weights alone; see ``split``

    def prepare(
        self, objective: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The objective and its optimizer, ready for this machine."""
        return objective, optimizer

    def together(self) -> AbstractContextManager[None]:
        """A context in which processes talk to one another, and say so where they no longer can."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Gradients of a scalar loss."""
        loss.backward()

    def mean(self, value: Tensor) -> Tensor:
        """The mean over processes of a number of each, ()."""
        return value

    def agreed(self, value: float) -> float:
        """The first process's number, so that all decide alike."""
        return value

    def first(self, values: Tensor) -> Tensor:
        """The first process's numbers, as many as each has."""
        return values

    def wait(self) -> None:
        """Return when every process has come here."""


Runtime = LocalRuntime
"""Either of the two: the accelerated one answers the same questions."""


def runtime_of(variable: Variable, parents: Mapping[str, Variable]) -> Runtime:
    """Where a node is fitted: accelerated where it sees images, else by each process alone."""
    if not any(isinstance(each, Image) for each in (variable, *parents.values())):
        return LocalRuntime()
    runtime = AcceleratedRuntime()
    if runtime.device.type == "mps" and not isinstance(variable, Image):
        return LocalRuntime()  # tables are float64, which Apple's GPUs lack
    return runtime


class AcceleratedRuntime(LocalRuntime):
    """Whatever accelerate finds: the best device, and the processes that its launcher started.

    Raises:
        MechanismError: accelerate is set to something that would change the fit, or that it cannot do.
    """

    def __init__(self) -> None:
        from accelerate import Accelerator  # slow to import, and only images need it

        # Without mixed_precision: accelerate's state is one a process and refuses a second value.
        # Of several processes where there is no GPU accelerate has to be told.
        devices = getattr(torch, "accelerator", torch.cuda)  # torch 2.6
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        self._accelerator = Accelerator(cpu=several and not devices.is_available())
        _refuse_settings(self._accelerator)
        super().__init__(self._accelerator.device)
        self.splits = _asked_to_split(self._accelerator)
        self.rank = self._accelerator.process_index
        self.processes = self._accelerator.num_processes
        # Started by another launcher, accelerate may think that it is alone; two must not write.
        self.is_main = self._accelerator.is_main_process and self.is_main

    def prepare(
        self, objective: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The objective on its device, wrapped where there are several processes; split, it is already."""
        if self.splits or self.processes == 1:
            return objective, optimizer
        with _together(self.processes):
            prepared: Any = self._accelerator.prepare(objective, optimizer)
        return prepared[0], prepared[1]

    def together(self) -> AbstractContextManager[None]:
        """A context in which processes talk to one another, and say so where they no longer can."""
        return _together(self.processes)

    def backward(self, loss: Tensor) -> None:
        """Gradients of a scalar loss, averaged over processes."""
        with _together(self.processes):
            self._accelerator.backward(loss)

    def mean(self, value: Tensor) -> Tensor:
        """The mean over processes of a number of each, ()."""
        if self.processes == 1:
            return value
        from accelerate.utils import reduce

        with _together(self.processes):
            shared: Any = reduce(value, reduction="mean")
        return shared

    def agreed(self, value: float) -> float:
        """The first process's number, so that all decide alike."""
        return value if self.processes == 1 else float(self.first(torch.tensor(value, dtype=torch.float64)))

    def first(self, values: Tensor) -> Tensor:
        """The first process's numbers, as many as each has."""
        if self.processes == 1:
            return values
        from accelerate.utils import broadcast

        with _together(self.processes):
            shared: Any = broadcast(values.to(self.device))
        return shared.to(values.device)

    def wait(self) -> None:
        """Return when every process has come here."""
        with _together(self.processes):
            self._accelerator.wait_for_everyone()


def is_first() -> bool:
    """Whether this is the first of the processes that a launcher started, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def leave_processes() -> None:
    """Part from the other processes of a launcher, whose threads can abort one that ends before them."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def _together(processes: int) -> Iterator[None]:
    """Say what it means when the others can no longer be reached; gloo raises plain RuntimeErrors."""
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, torch.distributed.DistError) or "/gloo/" in str(error)):
            raise
        raise MechanismError(
            f"Another of the {processes} processes that share this fit failed, or was stopped: see what it "
            "said. With a run folder, go on with resume=True (--resume)."
        ) from error


def _refuse_settings(accelerator: Any) -> None:
    """What accelerate was told, by its command, its configuration file or variables, and must not do."""
    kind = accelerator.distributed_type.name
    if kind not in ("NO", "FSDP") and not kind.startswith("MULTI_"):
        raise MechanismError(
            f"Fitting is data parallel, or by FSDP2, but accelerate is set to {kind}. Launch without it, as "
            "in: accelerate launch --multi_gpu ..., or with --use_fsdp --fsdp_version 2"
        )
    if _asked_to_split(accelerator) and os.environ.get("FSDP_VERSION", "1") != "2":
        raise MechanismError(
            "accelerate is set to FSDP of version 1. Launch with --fsdp_version 2, which splits each weight."
        )
    if _asked_to_split(accelerator) and not hasattr(import_module("torch.distributed.fsdp"), "fully_shard"):
        raise MechanismError(
            f"FSDP of version 2 needs torch 2.6 or later, this is {torch.__version__}. Launch with "
            "--multi_gpu, which keeps all weights in every process, or install another torch."
        )
    if accelerator.mixed_precision != "no":
        raise MechanismError(
            f"accelerate is set to mixed_precision {accelerator.mixed_precision!r}, but a node's own "
            "settings decide its precision. Launch with --mixed_precision no; a node may say "
            "training.precision: bfloat16."
        )
    if accelerator.gradient_accumulation_steps != 1:
        raise MechanismError(
            "accelerate is set to accumulate gradients over "
            f"{accelerator.gradient_accumulation_steps} steps, but every batch is a step here. Launch with "
            "--gradient_accumulation_steps 1; training.batch_size is of all processes together."
        )


def _asked_to_split(accelerator: Any) -> bool:
    """Whether accelerate is set to FSDP, which it itself leaves out where there is no GPU."""
    asked = accelerator.distributed_type.name == "FSDP" or os.environ.get("ACCELERATE_USE_FSDP") == "true"
    return asked and accelerator.num_processes > 1


def peak_memory(device: torch.device) -> int | None:
    """Most bytes that this process has held so far, on its GPU or else in memory; None where not known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def image_precision(
    precision: Precision | Literal["auto"], variable: Variable, device: torch.device
) -> Precision | Literal["auto"]:
    """What "auto" means for a node on a CPU: bfloat16 for larger images, where the CPU multiplies it faster.

    Of images of up to 32 x 32 it stays float32 on any CPU: bfloat16 must be asked for.
    """
    if precision != "auto" or device.type != "cpu" or not isinstance(variable, Image):
        return precision
    small = variable.height * variable.width <= _SMALL_PIXELS
    return "bfloat16" if not small and bfloat16_pays() else "float32"


@cache
def bfloat16_pays() -> bool:
    """Whether this CPU multiplies bfloat16 natively, and a convolution with its gradients is faster for it.

    Measured once a process, in a tenth of a second of its own time, which does not depend on what else runs;
    the random state is left alone.
    """
    native = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # of torch.cpu, not in every version
    if not any(getattr(torch.cpu, name, bool)() for name in native):
        return False
    weight = torch.full((64, 64, 3, 3), 0.01, requires_grad=True)
    images = torch.ones(8, 64, 16, 16).to(memory_format=torch.channels_last)
    seconds: dict[Precision, float] = {"float32": math.inf, "bfloat16": math.inf}
    for _ in range(_TRIALS):
        for precision in seconds:
            began = time.process_time()
            with autocast(precision, images.device), torch.enable_grad():
                loss = nn.functional.conv2d(images, weight, padding=1).float().sum()
            torch.autograd.grad(loss, weight)
            seconds[precision] = min(seconds[precision], time.process_time() - began)
    return seconds["bfloat16"] * _PAYS < seconds["float32"]


def resolve_precision(
    precision: Precision | Literal["auto"], device: torch.device, *, images: bool
) -> Precision:
    """What "auto" means where no node's variable says more: bfloat16 for images on GPUs that multiply it."""
    if precision != "auto":
        return precision
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if images and native else "float32"


@contextmanager
def autocast(precision: Precision, device: torch.device) -> Iterator[None]:
    """The context of a forward pass; float32 changes nothing, so that float64 tables stay so."""
    if precision == "float32":
        yield
        return
    try:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            yield
    finally:
        # Within another such context, of the caller, torch keeps the weights that it cast: the next step
        # would be of the same ones again.
        torch.clear_autocast_cache()


@contextmanager
def split(mechanism: Mechanism, runtime: Runtime) -> Iterator[Mechanism]:
    """What is to be trained in place of a mechanism: itself, or its copy of which each process has a share.

    Where the context ends well the mechanism has the copy's weights, the same in every process.
    """
    if not runtime.splits:
        yield mechanism
        return
    mechanism.to("cpu", memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    with runtime.together():
        part = copy.deepcopy(mechanism)
        for tensor in (*part.parameters(), *part.buffers()):
            tensor.data.copy_(runtime.first(tensor.data))
        _shard(part, runtime)
        yield part
        trained = part.state_dict()
        for key, value in mechanism.state_dict().items():
            value.copy_(runtime.first(whole(trained[key])))
    mechanism.to(runtime.device)


def _shard(part: Mechanism, runtime: Runtime) -> None:
    """Split a mechanism in place: the blocks of trained networks each by itself, and the rest."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(runtime.device.type, (runtime.processes,))
    for block in _blocks(part):
        weights = list(block.parameters())
        # A frozen network may be called as often as a process has rows, and gathering takes all of them.
        if sum(each.numel() for each in weights) >= LEAST and any(each.requires_grad for each in weights):
            fully_shard(block, mesh=mesh)
    # Else it would keep what a held-out loss gathered, of other weights, for the next step.
    fully_shard(part, mesh=mesh, reshard_after_forward=True)
    register_fsdp_forward_method(part, "loss")
    part.to(runtime.device)  # what is not split


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """What the outermost lists of a network hold."""
    for child in module.children():  # None, which diffusers' lists may hold, is no child
        if isinstance(module, nn.ModuleList) and not isinstance(child, nn.ModuleList):
            yield child
        else:
            yield from _blocks(child)


def whole(value: Tensor, *, kept: bool = True) -> Tensor:
    """A tensor of which each process has a share, gathered by all of them; others as they are.

    ``kept`` says whether this process needs it; one at a time is then in its main memory.
    """
    gather: Any = getattr(value, "full_tensor", None)
    if gather is None:
        return value
    gathered: Tensor = gather()
    return gathered.cpu() if kept else gathered.new_empty(0)


def like(value: Tensor, weight: Tensor) -> Tensor:
    """This process's share of a whole tensor, split as a weight is; all of it where the weight is whole."""
    if not hasattr(weight, "full_tensor") or value.shape != weight.shape:
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(weight, DTensor)
    return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements)


def all_like(tensors: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``like`` of each by its name."""
    return {key: like(value, weights[key]) if key in weights else value for key, value in tensors.items()}
