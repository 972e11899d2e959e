"""What is asked of one node's mechanism: in blocks of rows, with keyed draws, and errors that name the node.

Noise is keyed by seed, step, node and block of rows: targets and the order of queries do not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from causalgen.seeds import keyed_generator
from causalgen.slabs import Slabs
from graphs.errors import CausalgenError
from mechanisms.base import Abducted, Mechanism, Noise

__all__ = ["abduct_rows", "blame", "generate_rows", "prior_noise"]

_NOTHING = nullcontext()
_BLOCK = 16384
"""Rows whose noise comes from one generator, for mechanisms without a limit of their own."""


def abduct_rows(
    mechanism: Mechanism,
    node: str,
    value: Tensor,
    parents: Mapping[str, Tensor],
    seed: int,
    memory: Slabs | None = None,
) -> Abducted:
    """A node's noise by its values, (N, *event), and its parents', in blocks of rows."""
    size, draws = mechanism.chunk_rows or _BLOCK, not mechanism.deterministic
    with blame(node), _frozen():
        parts = [
            mechanism.abduct(
                value if part is None else value[part],
                _rows_of(parents, part),
                generator=_generator(mechanism, seed, "abduct", node, block, needed=draws),
            )
            for block, part in enumerate(_parts(value.shape[0], size))
        ]
    return _join(parts, memory or Slabs())


def generate_rows(
    mechanism: Mechanism,
    node: str,
    parents: Mapping[str, Tensor],
    noise: Noise,
    memory: Slabs | None = None,
) -> Tensor:
    """Values (N, *event) by a node's mechanism, in chunks of the rows it takes at once."""
    with blame(node), _frozen():
        values = [
            mechanism.generate(_rows_of(parents, part), noise if part is None else noise.rows(part))
            for part in _parts(noise.n, mechanism.chunk_rows or noise.n)
        ]
    return (memory or Slabs()).join(values)


def prior_noise(mechanism: Mechanism, node: str, n: int, seed: int, memory: Slabs | None = None) -> Noise:
    """n rows of a node's noise, keyed by seed, node and block of rows."""
    size = mechanism.chunk_rows or _BLOCK
    parts = [
        mechanism.sample_noise(
            min(size, n - start), generator=_generator(mechanism, seed, "prior", node, start // size)
        )
        for start in range(0, n, size)
    ]
    return _join_noise(parts, memory or Slabs())


def _parts(n: int, size: int) -> list[slice] | list[None]:
    """Blocks of n rows, one after the other; [None] where a single one takes them all."""
    return [None] if n <= size else [slice(start, start + size) for start in range(0, n, size)]


def _rows_of(parents: Mapping[str, Tensor], part: slice | None) -> Mapping[str, Tensor]:
    return parents if part is None else {name: value[part] for name, value in parents.items()}


def _generator(
    mechanism: Mechanism, seed: int, step: str, node: str, block: int, needed: bool = True
) -> torch.Generator:
    device = mechanism.device
    # A keyed one takes a fifth of the time of a node of one row.
    return keyed_generator(seed, step, node, block, device=device) if needed else torch.Generator(device)


def _join(parts: Sequence[Abducted], memory: Slabs) -> Abducted:
    if len(parts) == 1:
        return parts[0]
    weights = [part.log_weight for part in parts if part.log_weight is not None]
    return Abducted(
        _join_noise([part.noise for part in parts], memory),
        torch.cat(weights) if weights else None,
        {name: torch.cat([part.diagnostics[name] for part in parts]) for name in parts[0].diagnostics},
    )


def _join_noise(parts: Sequence[Noise], memory: Slabs) -> Noise:
    if len(parts) == 1:
        return parts[0]
    leaves = {name: memory.join([part[name] for part in parts]) for name in parts[0]}
    return Noise(sum(part.n for part in parts), leaves)


def _frozen() -> AbstractContextManager[object]:
    """No gradients; entering where there are none already costs a tenth of a node of one row."""
    return torch.no_grad() if torch.is_grad_enabled() else _NOTHING


class blame:
    """Say which node an error comes from, where a mechanism cannot know its own name."""

    def __init__(self, node: str) -> None:
        self.node = node

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, CausalgenError) and f"{self.node!r}" not in str(error):
            raise type(error)(f"Node {self.node!r}: {error}") from error
