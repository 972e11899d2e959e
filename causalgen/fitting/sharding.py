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
