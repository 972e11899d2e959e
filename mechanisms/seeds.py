"""Seeds by name: one user seed gives an independent stream for every purpose.

    keyed_seed(seed, "fit", node, "order", epoch)

The stream depends on the keys alone, never on how many numbers others drew before it, so work may be
cut, resumed and reordered without changing an answer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import torch
from torch import Generator, Tensor

__all__ = ["fork_rng_from", "gumbels", "keyed_generator", "keyed_seed", "seed_layers"]


def keyed_seed(seed: int, *keys: str | int) -> int:
    """A 63-bit seed that depends on ``seed`` and the keys, the same on every machine."""
    text = "\x1f".join(f"{type(key).__name__}:{key}" for key in (seed, *keys))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def keyed_generator(seed: int, *keys: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator on ``device`` seeded by ``keyed_seed``."""
    return torch.Generator(device).manual_seed(keyed_seed(seed, *keys))


def seed_layers(seed: int, device: torch.device) -> None:
    """Seed the global state that layers such as dropout draw from; for use under ``fork_rng`` only."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


@contextmanager
def fork_rng_from(generator: Generator) -> Iterator[None]:
    """Fork torch's global random state and seed it by one draw of ``generator``, on its device and the CPU.

    Pyro and torch distributions draw from the global state; it is as before when the block ends.
    """
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    devices = [generator.device] if generator.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed(seed)
        yield


def gumbels(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Standard Gumbels, float64: the argmax of log weights plus Gumbels is a draw (Gumbel-max).

    They are -log of exponentials, which unlike a uniform's double log keeps both tails.
    """
    exponential = torch.empty(shape, dtype=torch.float64, device=generator.device)
    return -exponential.exponential_(generator=generator).clamp(min=torch.finfo(torch.float64).tiny).log()
