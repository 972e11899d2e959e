"""Which rows a fit holds out: drawn by a seed, and all copies of a row on one side.

A held-out row that is trained on too tells nothing. Of rows that are there ten times, as to balance
categories, or were drawn with replacement (``effects.refits``), training would take in the noise, and
``auto`` would prefer what takes in most.

Rows that are equal in every column are copies where some column can be left out, and the others tell nearly
all different rows apart still. Of categories and rounded numbers, where rows are equal by chance, there are
rows that differ in any one column alone. Not all numbers may be whole. Images that follow from the other
columns, as drawn without noise, tell nothing of it: what these say counts.

So are rows that are equal in what a node's mechanism reads, as a clinic's size and budget in the rows of its
patients, where the others tell all of them apart: a rare outcome would nearly follow from the size.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalgen.data.table import Table
from mechanisms.seeds import keyed_generator

__all__ = ["distinct_rows", "folds", "split", "with_copies"]

_ODD = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
"""Of the generator SplitMix64 (Steele, Lea & Flood 2014), whose steps spread a number over all bits."""

_TOLD_APART = 0.9
"""Share of the different rows that the columns but one must tell apart."""


def with_copies(table: Table, nodes: Iterable[str] | None = None) -> Table:
    """The table, which says what rows are copies of one another: in all columns, or in those of some nodes.

    Where these do not tell, it stays as it is.
    """
    if nodes is None and table.copies is not None:
        return table
    read = dict(table) if nodes is None else {node: table[node] for node in nodes}
    images = [column for column in read.values() if column.ndim == 4]
    columns = {node: each.reshape(table.rows, -1).T for node, each in read.items() if each.ndim < 4}
    gaps = [table.gaps[node] for node in read if node in table.gaps]
    flat = [each for parts in columns.values() for each in parts]
    whole = all(bool((each == np.floor(each)).all()) for each in flat)
    if (whole and not images) or len(flat) + len(images) < 2:
        return table
    # The usual table, at the price of a sort: a column in which no two rows are equal.
    complete = (each for node, parts in columns.items() if node not in table.gaps for each in parts)
    if any(_different(each) == table.rows for each in complete):
        return table
    hashed = [*flat, *gaps, *map(_digests, images)]
    terms = [_hashed(column, place) for place, column in enumerate(hashed)]
    total, candidates = np.add.reduce(terms), terms[: len(flat)]
    different = _different(total)
    if images:
        drawn = terms[-len(images) :]
        rest = total - np.add.reduce(drawn)
        follow = _different(rest) == different
        if follow and whole:
            return table
        total, candidates = (rest, candidates) if follow else (total, candidates + drawn)
    least = different * (_TOLD_APART if nodes is None else 1)
    if different == table.rows or all(_different(total - term) < least for term in candidates):
        return table
    copies = np.unique(total, return_inverse=True)[1]
    return Table(table, table.gaps, table.numbers, copies, table.intervened)


def _different(numbers: NDArray[Any]) -> int:
    """How many different numbers there are, by sorting, which is faster than to number them."""
    ordered = np.sort(numbers)
    return 1 + int((ordered[1:] != ordered[:-1]).sum())


def _digests(images: NDArray[np.generic]) -> NDArray[np.float64]:
    """A number below 1 of each image (N, C, H, W), equal where its pixels are, by all odds there alone."""
    digests = (blake2b(image, digest_size=6).digest() for image in images)
    return np.array([int.from_bytes(each) for each in digests], np.float64) / 2**48


def _hashed(column: NDArray[np.generic], place: int) -> NDArray[np.uint64]:
    """A term of each row; sums over columns are equal where the columns are, and by all odds there alone."""
    first, *steps = map(np.uint64, _ODD)
    bits = (column.astype(np.float64) + 0.0).view(np.uint64)  # -0 is 0
    bits = bits + first * np.full_like(bits, place + 1)
    for shift, step in zip((30, 27), steps, strict=True):
        bits = (bits ^ (bits >> np.uint64(shift))) * step
    return bits ^ (bits >> np.uint64(31))


def distinct_rows(table: Table) -> int:
    """How many rows there are, copies not counted."""
    return table.rows if table.copies is None else len(np.unique(table.copies))


def split(table: Table, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Numbers of held-out and of training rows. Not keyed by the node: all of them hold out the same."""
    if table.copies is None:
        return _plain(table.rows, share, seed)
    order = _order(table.rows, seed)
    _, first, which, counts = np.unique(
        table.copies[order.numpy()], return_index=True, return_inverse=True, return_counts=True
    )
    held_out, left = np.zeros(len(counts), np.bool_), _wanted(table.rows, share)
    for group in first.argsort():  # at random, as the order is
        if not left:
            break
        if counts[group] <= left:
            held_out[group], left = True, left - counts[group]
    if not held_out.any():  # each has too many copies
        return _plain(table.rows, share, seed)
    chosen = torch.from_numpy(held_out[which])
    return order[chosen].sort().values, order[~chosen].sort().values


@lru_cache(maxsize=2)
def _plain(rows: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    order, held_out = _order(rows, seed), _wanted(rows, share)
    # The order of the training rows decides floating-point sums: sorted, they are read front to back.
    return order[:held_out].sort().values, order[held_out:].sort().values


def _order(rows: int, seed: int) -> Tensor:
    return torch.randperm(rows, generator=keyed_generator(seed, "fit", "held out"))


def _wanted(rows: int, share: float) -> int:
    return min(round(rows * share), rows - 1)


def folds(table: Table, rows: Tensor, count: int) -> list[Tensor]:
    """Some rows, whose numbers are (n,) in a random order, in so many parts; of copies there may be fewer."""
    if table.copies is None:
        return list(rows.tensor_split(count))
    _, first, which, counts = np.unique(
        table.copies[rows.numpy()], return_index=True, return_inverse=True, return_counts=True
    )
    order = first.argsort()
    before = np.empty_like(counts)
    before[order] = counts[order].cumsum() - counts[order]
    part = torch.from_numpy((before * count // len(rows))[which])
    return [rows[part == each] for each in range(count) if bool((part == each).any())]
