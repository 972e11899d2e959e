"""Pyro and torch distributions draw from the global random state: lend them one, and put the old one back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator

__all__ = ["lent_random_state"]


@contextmanager
def lent_random_state(generator: Generator) -> Iterator[None]:
    """Within it, global draws follow from one draw of ``generator``, on its device and on the CPU."""
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    devices = [generator.device] if generator.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed(seed)
        yield
