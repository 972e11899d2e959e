"""Pearl's three steps for any graph and any mechanisms (Pearl 2009, theorem 7.1.7), as pure functions.

    abduct    each needed node's noise from its value and its parents' values
    act       surgery: an intervened node loses its parents and gets a constant; where the intervention is a
              function of the node's natural value, the node splits and its natural half keeps the mechanism
    predict   each needed node from its parents and its noise, in topological order

Copying: a row of a node is the factual one, bit for bit, exactly when the node is not intervened on and all
its parents in that row are bit-equal to the factual. So no-ops are no-ops, whatever mechanisms round to.

Rows: with B rows of evidence and S samples a tensor has B rows where no sample differs, else S * B,
sample-major. Noise is keyed by seed, step, node and block of rows: chunks, targets and the order of queries
do not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from causalgen.interventions import Intervention
from causalgen.rows import Mask, differs, either, level_rows
from causalgen.seeds import keyed_generator
from graphs.causal_graph import CausalGraph
from graphs.errors import CausalgenError, InterventionError, NotFittedError
from mechanisms.base import Abducted, Mechanism, Noise

__all__ = [
    "Prediction",
    "World",
    "abduct",
    "act",
    "blame",
    "generate_rows",
    "predict",
    "prior_noise",
    "ready",
]

_BLOCK = 16384
"""Rows whose noise comes from one generator, for mechanisms without a limit of their own."""


@dataclass(frozen=True)
class World:
    """A graph with its mechanisms, perhaps after surgery.

    Attributes:
        graph: the causal graph.
        mechanisms: one a node.
        touched: nodes that were intervened on.
        natural: the natural half of a split node -> the node.
        kept: touched nodes whose new mechanism takes the noise of the old one.
    """

    graph: CausalGraph
    mechanisms: Mapping[str, Mechanism]
    touched: frozenset[str] = frozenset()
    natural: Mapping[str, str] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()

    def origin(self, node: str) -> str:
        """The node whose factual value and noise this one has: itself, or what it is the natural half of."""
        return self.natural.get(node, node)

    def keeps_noise(self, node: str) -> bool:
        """Whether the noise that evidence tells of is this node's; otherwise it was set anew."""
        return node not in self.touched or node in self.kept

    def affected(self) -> frozenset[str]:
        """The nodes whose value may differ from the factual."""
        return self.graph.descendants(self.touched)


@dataclass(frozen=True)
class Prediction:
    """What ``predict`` found.

    Attributes:
        values: by node, (B or S * B, *event) in canonical encoding.
        recomputed: by node, which rows were not copied: (rows,) bool, or True or False for all of them.
    """

    values: Mapping[str, Tensor]
    recomputed: Mapping[str, Mask]


def abduct(
    world: World,
    evidence: Mapping[str, Tensor],
    nodes: Iterable[str],
    *,
    samples: int,
    seed: int,
    rows: int | None = None,
) -> dict[str, Abducted]:
    """Noise of each node given its value and its parents'.

    A deterministic abduction is computed once a row, one that draws is drawn ``samples`` times a row.

    Args:
        world: the factual world.
        evidence: value of each of the nodes and their parents, (B, *event) in canonical encoding, or
            (S * B, *event) where samples differ.
        nodes: the nodes asked for.
        samples: S.
        seed: of the draws.
        rows: B; None where all evidence has B rows.

    Raises:
        NotFittedError: a mechanism has not been fitted.
        CannotAbductError: a mechanism cannot recover its noise.
    """
    found: dict[str, Abducted] = {}
    for node in nodes:
        mechanism = ready(world, node)
        value, parents = evidence[node], {parent: evidence[parent] for parent in world.graph.parents(node)}
        count = rows or len(value)
        differ = max(map(len, (value, *parents.values()))) > count
        if differ or (samples > 1 and not mechanism.deterministic):
            value = level_rows(value, samples * count, count)
            parents = {name: level_rows(each, samples * count, count) for name, each in parents.items()}
        with blame(node), torch.no_grad():
            found[node] = _join(
                mechanism.abduct(
                    value[rows],
                    {name: parent[rows] for name, parent in parents.items()},
                    generator=_generator(mechanism, seed, "abduct", node, block),
                )
                for block, rows in _blocks(mechanism, len(value))
            )
    return found


def act(world: World, do: Mapping[str, Intervention]) -> World:
    """The world after surgery on every intervened node.

    Raises:
        CycleError: a function reads a node that the intervened one causes.
        InterventionError: a node is intervened on twice.
    """
    graph, mechanisms = world.graph, dict(world.mechanisms)
    natural = dict(world.natural)
    for node, intervention in do.items():
        if node in world.touched:
            raise InterventionError(f"Node {node!r} is intervened on already. Start from the model before.")
        if intervention.natural is None:
            graph = graph.replace(node, ())
        else:
            half = intervention.natural
            graph = graph.replace(half, graph.parents(node)).replace(node, (half,))
            mechanisms[half], natural[half] = mechanisms[node], node
        mechanisms[node] = intervention.mechanism
    # New edges come after all cuts: whether they close a cycle does not depend on the order in ``do``.
    for node, intervention in do.items():
        if intervention.parents != graph.parents(node):
            with blame(node):
                graph = graph.replace(node, intervention.parents)
    kept = world.kept | {node for node, intervention in do.items() if intervention.keeps_noise}
    return World(graph, mechanisms, world.touched | do.keys(), natural, kept)


def predict(
    world: World,
    noise: Mapping[str, Noise],
    targets: Iterable[str],
    *,
    rows: int,
    samples: int = 1,
    factual: Mapping[str, Tensor] | None = None,
    seed: int,
) -> Prediction:
    """Every target and what it depends on.

    Args:
        world: after surgery.
        noise: by node (a natural half goes by its node's name), B or S * B rows; nodes without any draw from
            their prior.
        targets: nodes asked for; only their ancestors are computed.
        rows: B.
        samples: S.
        factual: values to copy unaffected rows from; None copies nothing.
        seed: of the prior draws.
    """
    values: dict[str, Tensor] = {}
    recomputed: dict[str, Mask] = {}
    changed: dict[str, Mask] = {}
    needed = world.graph.ancestors(targets)
    for node in world.graph.nodes:
        if node not in needed:
            continue
        names = world.graph.parents(node)
        before = None if factual is None else factual.get(world.origin(node))
        stale = True if node in world.touched or before is None else either(changed[name] for name in names)
        recomputed[node] = stale
        if stale is False:
            assert before is not None
            values[node], changed[node] = before, False
            continue
        parents = {name: values[name] for name in names}
        drawn = noise.get(world.origin(node)) if world.keeps_noise(node) else None
        if drawn is None:
            drawn = prior_noise(ready(world, node), world.origin(node), rows * samples, seed)
        if not drawn.leaves:  # no noise: samples do not differ by it
            drawn = Noise(rows)
        value, recomputed[node] = _generate(world, node, parents, drawn, stale, before, rows)
        values[node] = value
        changed[node] = True if before is None else _differs(value, before, rows)
    return Prediction(values, recomputed)


def _differs(value: Tensor, before: Tensor, rows: int) -> Mask:
    n = max(len(value), len(before))
    return differs(level_rows(value, n, rows), level_rows(before, n, rows))


def _generate(
    world: World,
    node: str,
    parents: dict[str, Tensor],
    noise: Noise,
    stale: Mask,
    before: Tensor | None,
    rows: int,
) -> tuple[Tensor, Mask]:
    """The node's value, computed for its stale rows only and copied for the others; and which were stale."""
    n = max([noise.n, *map(len, parents.values())])
    if not isinstance(stale, bool) and before is not None:
        n = max(n, len(stale), len(before))
    parents = {name: level_rows(value, n, rows) for name, value in parents.items()}
    if noise.n != n:
        noise = noise.repeat(n // noise.n)
    mechanism = ready(world, node)
    if isinstance(stale, bool):
        return generate_rows(mechanism, node, parents, noise), stale
    assert before is not None
    stale, before = level_rows(stale, n, rows), level_rows(before, n, rows)
    index = stale.nonzero()[:, 0]
    fresh = generate_rows(
        mechanism, node, {name: value[index] for name, value in parents.items()}, noise.rows(index)
    )
    return before.index_copy(0, index, fresh.to(before)), stale


def generate_rows(mechanism: Mechanism, node: str, parents: Mapping[str, Tensor], noise: Noise) -> Tensor:
    """Values (N, *event) by a node's mechanism, in chunks that fit its memory."""
    limit = mechanism.chunk_rows or noise.n
    with blame(node), torch.no_grad():
        if noise.n <= limit:
            return mechanism.generate(parents, noise)
        chunks = [slice(start, min(start + limit, noise.n)) for start in range(0, noise.n, limit)]
        return torch.cat(
            [
                mechanism.generate({name: value[rows] for name, value in parents.items()}, noise.rows(rows))
                for rows in chunks
            ]
        )


def prior_noise(mechanism: Mechanism, node: str, n: int, seed: int) -> Noise:
    """n rows of a node's noise, keyed by seed, node and block of rows."""
    return Noise.concat(
        [
            mechanism.sample_noise(
                len(range(*rows.indices(n))), generator=_generator(mechanism, seed, "prior", node, block)
            )
            for block, rows in _blocks(mechanism, n)
        ]
    )


def _blocks(mechanism: Mechanism, n: int) -> Iterator[tuple[int, slice]]:
    size = mechanism.chunk_rows or _BLOCK
    return ((start // size, slice(start, min(start + size, n))) for start in range(0, n, size))


def _generator(mechanism: Mechanism, seed: int, step: str, node: str, block: int) -> torch.Generator:
    return keyed_generator(seed, step, node, block, device=mechanism.get_buffer("fitted_flag").device)


def _join(parts: Iterable[Abducted]) -> Abducted:
    several = list(parts)
    weights = [part.log_weight for part in several if part.log_weight is not None]
    return Abducted(
        Noise.concat([part.noise for part in several]),
        torch.cat(weights) if weights else None,
        {name: torch.cat([part.diagnostics[name] for part in several]) for name in several[0].diagnostics},
    )


def ready(world: World, node: str) -> Mechanism:
    """A node's mechanism, which must be fitted."""
    mechanism = world.mechanisms[node]
    if not mechanism.fitted:
        raise NotFittedError(
            f"Node {node!r}: its mechanism ({mechanism.spec.kind}) has not been fitted. "
            "Call scm.fit(data) first."
        )
    return mechanism


class blame:
    """Say which node an error comes from, where a mechanism cannot know its own name."""

    def __init__(self, node: str) -> None:
        self.node = node

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, CausalgenError) and f"{self.node!r}" not in str(error):
            raise type(error)(f"Node {self.node!r}: {error}") from error
