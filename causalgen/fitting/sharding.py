"""FSDP2: a mechanism whose weights, gradients, moments and average are split over the processes that fit it.

Each process holds a share of every tensor. A block's weights are gathered when its forward or backward pass
comes to it and let go afterwards (PyTorch FSDP2, ``fully_shard``; Zhao et al. 2023), so that what a process
must hold falls with their number. Steps are those of data parallel training but for rounding.

What is split is a copy, since PyTorch offers no way back; the mechanism itself waits in main memory.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from causalgen.fitting.runtime import Runtime
from mechanisms.base import Mechanism

__all__ = ["all_like", "like", "split", "whole"]

LEAST = 1_000_000
"""Weights of a block that is gathered by itself; smaller ones are gathered with what holds them."""


@contextmanager
def split(mechanism: Mechanism, runtime: Runtime) -> Iterator[Mechanism]:
    """What is to be trained in place of a mechanism: itself, or its copy of which each process has a share.

    Where the context ends well the mechanism has the copy's weights, in every process.
    """
    if not runtime.splits:
        yield mechanism
        return
    device = runtime.device
    mechanism.to("cpu", memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    part = copy.deepcopy(mechanism)
    for tensor in (*part.parameters(), *part.buffers()):
        tensor.data.copy_(runtime.first(tensor.data))
    _shard(part, runtime)
    try:
        yield part
        mechanism.load_state_dict({key: whole(value) for key, value in part.state_dict().items()})
    finally:
        mechanism.to(device)


def _shard(part: Mechanism, runtime: Runtime) -> None:
    """Split a mechanism in place, the blocks of its networks each by itself, the innermost first."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(runtime.device.type, (runtime.processes,))
    lists = [each for each in part.modules() if isinstance(each, nn.ModuleList)]
    for block in (block for blocks in reversed(lists) for block in blocks):
        if sum(weight.numel() for weight in block.parameters()) >= LEAST:
            fully_shard(block, mesh=mesh)
    # Else it would keep what a held-out loss gathered, of other weights, for the next step.
    fully_shard(part, mesh=mesh, reshard_after_forward=True)
    register_fsdp_forward_method(part, "loss")
    part.to(runtime.device)  # what is not split


def whole(value: Tensor) -> Tensor:
    """A tensor of which each process has a share, gathered by all of them; others as they are."""
    gather: Any = getattr(value, "full_tensor", None)
    return value if gather is None else gather()


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
