"""The engine of counterfactuals: abduction and prediction for any graph (Pearl 2009, theorem 7.1.7).

    abduct    each needed node's noise from its value and its parents' values
    act       surgery, in ``mutilated_model``: an intervened node loses its parents and gets a constant
    predict   each needed node from its parents and its noise, in topological order

Copying: a row of a node is the factual one, bit for bit, exactly when the node is not intervened on and all
its parents in that row are bit-equal to the factual. So no-ops are no-ops, whatever mechanisms round to.

Rows: with B rows of evidence and S samples a tensor has B rows where no sample differs, else S * B,
sample-major.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from causalgen.counterfactuals.mutilated_model import MutilatedModel, ready
from causalgen.counterfactuals.rows import (
    Mask,
    abduct_rows,
    blame,
    broadcast_rows,
    differs,
    either,
    generate_rows,
    prior_noise,
    refuse_nonfinite,
)
from graphs.errors import MechanismError, numbered_rows
from mechanisms.base import Abducted, Noise
from mechanisms.extrapolation import has_bounds, warn_out_of_bounds

__all__ = ["Prediction", "abduct", "log_prob", "predict"]


@dataclass(frozen=True)
class Prediction:
    """What ``predict`` found."""

    values: Mapping[str, Tensor]  # by node, (B or S * B, *event) in canonical encoding
    # By node, which rows were not copied: (rows,) bool, or True or False for all of them
    recomputed: Mapping[str, Mask]


@torch.no_grad()
def abduct(
    world: MutilatedModel,
    evidence: Mapping[str, Tensor],
    nodes: Iterable[str],
    *,
    samples: int,
    seed: int,
    rows: int | None = None,
) -> dict[str, Abducted]:
    """Noise of each node given its value and its parents', which ``evidence`` holds.

    A deterministic abduction is computed once a row, one that draws is drawn ``samples`` times a row.
    Evidence has B rows, (B, *event) in canonical encoding, or (S * B, *event) where samples differ; ``rows``
    is B, None where none do.
    """
    found: dict[str, Abducted] = {}
    for node in nodes:
        mechanism = ready(world, node)
        value, parents = evidence[node], {parent: evidence[parent] for parent in world.graph.parents(node)}
        count = rows or value.shape[0]
        # Samples differ, or will.
        if samples > 1 and (
            not mechanism.deterministic or any(each.shape[0] > count for each in (value, *parents.values()))
        ):
            value = broadcast_rows(value, samples * count, count)
            parents = {name: broadcast_rows(each, samples * count, count) for name, each in parents.items()}
        found[node] = abduct_rows(mechanism, node, value, parents, seed)
    return found


@torch.no_grad()
def predict(
    world: MutilatedModel,
    noise: Mapping[str, Noise],
    targets: Iterable[str],
    *,
    rows: int,
    samples: int = 1,
    factual: Mapping[str, Tensor] | None = None,
    seed: int,
) -> Prediction:
    """Every target and what it depends on, in a world after surgery.

    ``noise`` has B or S * B rows by node (a natural half goes by its node's name); nodes without any draw
    from their prior, by ``seed``. Unaffected rows are copied from ``factual``; None copies nothing.
    """
    values: dict[str, Tensor] = {}
    recomputed: dict[str, Mask] = {}
    changed: dict[str, Mask] = {}
    computed: dict[str, Tensor] = {}
    graph, touched, known = world.graph, world.touched, factual or {}
    needed = graph.ancestors(targets)
    for node in graph.nodes:
        if node not in needed:
            continue
        names, origin = graph.parents(node), world.origin(node)
        before = known.get(origin)
        stale = True if node in touched or before is None else either([changed[name] for name in names])
        recomputed[node] = stale
        if stale is False:
            assert before is not None
            values[node], changed[node] = before, False
            continue
        parents = {name: values[name] for name in names}
        own = world.keeps_noise(node)
        drawn = noise.get(origin) if own else None
        if drawn is None:
            purpose = "prior" if own else "intervention"
            drawn = prior_noise(ready(world, node), origin, rows * samples, seed, purpose)
        if not drawn.leaves:  # no noise: samples do not differ by it
            drawn = Noise(rows)
        value, recomputed[node] = _generate(world, node, parents, drawn, stale, before, rows)
        values[node] = computed[node] = value
        # Nobody asks about a node without children.
        if not needed.isdisjoint(graph.children(node)):
            changed[node] = True
            if before is not None:
                n = max(len(value), len(before))
                changed[node] = differs(broadcast_rows(value, n, rows), broadcast_rows(before, n, rows))
    _check(world, computed)
    return Prediction(values, recomputed)


@torch.no_grad()
def log_prob(world: MutilatedModel, values: Mapping[str, Tensor]) -> Tensor:
    """Joint log density of rows, (B,): the sum over nodes of log p(x | pa)."""
    terms: list[Tensor] = []
    for node in world.mechanisms:
        mechanism = ready(world, node)
        parents = {parent: values[parent] for parent in world.graph.parents(node)}
        with blame(node):
            term = mechanism.log_prob(values[node], parents)
        if term is None:
            raise MechanismError(
                f"Node {node!r}: mechanism {mechanism.spec.kind!r} has no tractable density."
            )
        terms.append(term)
    return torch.stack(terms).sum(0)


def _check(world: MutilatedModel, computed: Mapping[str, Tensor]) -> None:
    """Refuse computed values that are not finite, and tell of those that leave their bounds."""
    for node, value in computed.items():
        refuse_nonfinite(world.origin(node), value)
    for node, value in computed.items():
        variable = world.mechanisms[node].variable
        if has_bounds(variable):  # what was set is within them, but for what ``Replace`` makes
            warn_out_of_bounds(world.origin(node), variable, value)


def _generate(
    world: MutilatedModel,
    node: str,
    parents: dict[str, Tensor],
    noise: Noise,
    stale: Mask,
    before: Tensor | None,
    rows: int,
) -> tuple[Tensor, Mask]:
    """The node's value, computed for its stale rows only and copied for the others; and which were stale."""
    mechanism, named = ready(world, node), world.origin(node)
    n = noise.n
    for value in parents.values():
        n = max(n, value.shape[0])
    if not isinstance(stale, bool) and before is not None:
        n = max(n, len(stale), len(before))
    if n > rows:
        parents = {name: broadcast_rows(value, n, rows) for name, value in parents.items()}
    if noise.n != n:
        noise = noise.repeat(n // noise.n)
    if isinstance(stale, bool):
        return generate_rows(mechanism, named, parents, noise), stale
    assert before is not None
    stale, before = broadcast_rows(stale, n, rows), broadcast_rows(before, n, rows)
    index = stale.nonzero()[:, 0]
    with numbered_rows(index % rows):
        fresh = generate_rows(
            mechanism, named, {name: value[index] for name, value in parents.items()}, noise.rows(index)
        )
    return before.index_copy(0, index, fresh.to(before)), stale
