"""Rows, and calls of one node's mechanism in blocks of them, with keyed draws and errors that name the node.

With B rows of evidence and S samples a tensor has B rows, or S * B, sample-major. Masks say which rows
something holds for: a tensor of either length, or True or False for all of them.

Noise is keyed by seed, purpose, node and block of rows: targets and the order of queries do not matter, and
what an intervention draws is independent of the node's own noise. Callers switch gradients off, once for all
nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from math import isfinite
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from graphs.errors import CausalgenError, DomainError, InterventionError, numbered_rows
from mechanisms.base import Abducted, Mechanism, Noise
from mechanisms.rows import repeat_rows
from mechanisms.seeds import keyed_generator

__all__ = [
    "Mask",
    "abduct_rows",
    "blame",
    "broadcast_rows",
    "by_sample",
    "common_rows",
    "differs",
    "either",
    "expand_value",
    "generate_rows",
    "prior_noise",
    "read_rows",
    "refuse_nonfinite",
    "watching",
]

Mask = Tensor | bool
"""Which rows: (n,) bool, or True or False for all."""

Tell = Callable[[str, int, int], None]
"""Told what is done, as in "values of image", of how many rows, and of how many in all."""

_TELL: ContextVar[Tell | None] = ContextVar("_TELL", default=None)

_BLOCK = 65_536
"""Rows whose noise comes from one generator, for mechanisms without a limit of their own."""


def broadcast_rows(value: Tensor, n: int, rows: int) -> Tensor:
    """A tensor of B rows as one of n = S * B rows."""
    return value if value.shape[0] == n else repeat_rows(value, n // rows)


def by_sample(values: Tensor, samples: int, rows: int) -> Tensor:
    """(B, *event), or sample-major (S * B, *event), as (S, B, *event)."""
    return broadcast_rows(values, samples * rows, rows).reshape(samples, rows, *values.shape[1:])


def common_rows(rows: int, counts: Mapping[str, int]) -> int:
    """How many rows a question has, by those of the evidence and of each intervention."""
    asked = max(counts.values(), default=1)
    if asked not in (1, rows) and rows != 1:
        node = next(node for node, count in counts.items() if count == asked)
        raise InterventionError(
            f"Intervention on {node!r} has {asked} rows, but the evidence has {rows}. "
            "Give one value, or one a row."
        )
    return max(asked, rows)


def expand_value(value: Tensor, rows: int) -> Tensor:
    """One row's value, or S draws of it, for each of ``rows`` values in ``do``."""
    return value.expand(rows, *value.shape[1:]) if len(value) == 1 else value.repeat_interleave(rows, 0)


def refuse_nonfinite(node: str, value: Tensor) -> None:
    """Refuse a computed value that is NaN or infinite; a sum, which is all that finite values cost, tells."""
    if not value.is_floating_point() or isfinite(value.sum().item()):
        return
    finite = torch.isfinite(value)
    if bool(finite.all()):  # only the sum overflows
        return
    row = int((~finite).nonzero()[0, 0])
    worst = value[row][~finite[row]].flatten()[0].item()
    count = int((~finite).reshape(len(finite), -1).any(1).sum())
    raise DomainError(
        f"Node {node!r}: its value in row {row} comes out as {worst} ({count:,} of {len(value):,} rows do), "
        "expected finite numbers. Check the values that it is computed from, and its mechanism."
    )


def differs(value: Tensor, before: Tensor) -> Mask:
    """Which rows differ, (n,); True or False where all or none do."""
    if value.shape[0] == 1:
        return not torch.equal(value, before)
    if value.is_cpu and before.is_cpu:  # numpy compares and counts several times faster than torch
        unequal = value.numpy() != before.numpy()
        unequal = unequal if unequal.ndim == 1 else unequal.reshape(len(unequal), -1).any(1)
        found = int(np.count_nonzero(unequal))
        return torch.from_numpy(unequal) if 0 < found < len(unequal) else found > 0
    different = (value != before).flatten(1).any(1) if value.ndim > 1 else value != before
    found = int(different.count_nonzero())
    return different if 0 < found < len(different) else found > 0


def either(masks: Iterable[Mask]) -> Mask:
    """Rows in which any mask holds."""
    found: Mask = False
    for mask in masks:
        if mask is True or found is True:
            return True
        if mask is not False:
            assert isinstance(mask, Tensor)
            if isinstance(found, Tensor):
                n = max(len(found), len(mask))
                mask = repeat_rows(found, n // len(found)) | repeat_rows(mask, n // len(mask))
            found = mask
    return found


def abduct_rows(
    mechanism: Mechanism, node: str, value: Tensor, parents: Mapping[str, Tensor], seed: int
) -> Abducted:
    """A node's noise by its values, (N, *event), and its parents', in blocks of rows."""
    n = value.shape[0]
    size = mechanism.chunk_rows or (n if mechanism.deterministic else _BLOCK)

    def abduct(block: int, part: slice) -> Abducted:
        some = {name: each[part] for name, each in parents.items()}
        with numbered_rows(range(part.start, part.stop)):
            return mechanism.abduct(value[part], some, generator=_generator(mechanism, seed, node, block))

    with blame(node):
        if n <= size:
            return mechanism.abduct(value, parents, generator=_generator(mechanism, seed, node, 0))
        parts = _watched(_parts(n, size), f"abduction of {node}", n)
        return _join(n, (abduct(block, part) for block, part in enumerate(parts)))


def generate_rows(mechanism: Mechanism, node: str, parents: Mapping[str, Tensor], noise: Noise) -> Tensor:
    """Values (N, *event) by a node's mechanism, in chunks of the rows it takes at once.

    Pixels are between black and white, as they are shown: what an image causes is of the image that is seen.
    """
    n, size = noise.n, mechanism.chunk_rows

    def generate(part: slice) -> Tensor:
        with numbered_rows(range(part.start, part.stop)):
            return mechanism.generate({name: each[part] for name, each in parents.items()}, noise.rows(part))

    with blame(node):
        if size is None or n <= size:
            value = mechanism.generate(parents, noise)
        else:
            parts = _watched(_parts(n, size), f"values of {node}", n)
            value = _join_columns(n, ({"": generate(part)} for part in parts))[""]
    shown = mechanism.variable.within(value)
    # Infinite ones are refused later.
    return value if shown is value else torch.where(value.isinf(), value, shown)


def read_rows(mechanism: Mechanism, node: str, value: Tensor) -> dict[str, Tensor]:
    """What a node's mechanism reads of its parents in values (N, *event), in chunks of the rows it takes."""
    n, size = value.shape[0], mechanism.chunk_rows or value.shape[0]
    with blame(node):
        return _join_columns(n, (mechanism.read(value[part]) for part in _parts(n, size)))


def prior_noise(
    mechanism: Mechanism,
    node: str,
    n: int,
    seed: int,
    purpose: Literal["prior", "intervention", "missing"] = "prior",
) -> Noise:
    """n rows of a node's noise, keyed by seed, purpose, node and block of rows.

    "prior" is for the node's own noise in samples, "intervention" for what takes its place, "missing" for the
    node's own where evidence lacks it: all are independent. Rows that were sampled by a seed are evidence for
    questions of the same seed, and no draw may repeat what they lack.
    """
    size = mechanism.chunk_rows or _BLOCK

    def drawn(start: int) -> Noise:
        generator = keyed_generator(seed, purpose, node, start // size, device=mechanism.device)
        return mechanism.sample_noise(min(size, n - start), generator=generator)

    parts = map(drawn, range(0, n, size))
    return next(parts) if n <= size else Noise(n, _join_columns(n, parts))


@contextmanager
def watching(tell: Tell) -> Iterator[None]:
    """A context in which work in several blocks is told of as it goes on, in this thread."""
    token = _TELL.set(tell)
    try:
        yield
    finally:
        _TELL.reset(token)


def _watched(parts: Iterable[slice], what: str, n: int) -> Iterator[slice]:
    """The blocks, each told of when the next one is asked for."""
    tell, done = _TELL.get(), 0
    for part in parts:
        if tell:
            tell(what, done, n)
        yield part
        done = part.stop
    if tell:
        tell(what, n, n)


def _parts(n: int, size: int) -> list[slice]:
    """Blocks of n rows, one after the other."""
    return [slice(start, start + size) for start in range(0, n, size)]


def _generator(mechanism: Mechanism, seed: int, node: str, block: int) -> torch.Generator:
    """Of an abduction; where nothing is drawn any will do, and a keyed one costs much time."""
    if mechanism.deterministic:
        return _idle(mechanism.device)
    return keyed_generator(seed, "abduct", node, block, device=mechanism.device)


@cache
def _idle(device: torch.device) -> torch.Generator:
    """One from which nobody draws."""
    return torch.Generator(device)


def _join(n: int, parts: Iterator[Abducted]) -> Abducted:
    weights: list[Tensor] = []
    diagnostics: dict[str, list[Tensor]] = {}

    def noise() -> Iterator[Noise]:
        for part in parts:
            if part.log_weight is not None:
                weights.append(part.log_weight)
            for name, figures in part.diagnostics.items():
                diagnostics.setdefault(name, []).append(figures)
            yield part.noise

    leaves = _join_columns(n, noise())
    figures = {name: torch.cat(each) for name, each in diagnostics.items()}
    return Abducted(Noise(n, leaves), torch.cat(weights) if weights else None, figures)


def _join_columns(n: int, parts: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The n rows of each name, from parts that hold some of them, one after the other.

    A part is copied as soon as it is there, while it is in the processor's cache; its memory the next one
    takes.
    """
    columns: dict[str, Tensor] = {}
    start = 0
    for part in parts:
        end = start
        for name, rows in part.items():
            if not start:
                columns[name] = rows.new_empty(n, *rows.shape[1:])
            end = start + len(rows)
            columns[name][start:end] = rows
        start = end
    return columns


class blame:
    """Say which node an error comes from, where a mechanism cannot know its own name."""

    def __init__(self, node: str) -> None:
        self.node = node

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, CausalgenError) and f"{self.node!r}" not in str(error):
            raise type(error)(f"Node {self.node!r}: {error}") from error
