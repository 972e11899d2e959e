"""Which missing nodes must be inferred together, and how likely the observed make their proposed values.

A missing node that has an observed descendant hangs together with its missing parents and children, and with
the other missing parents of each observed child. Such a connected block is independent of all other blocks
given the observed nodes. A missing node without observed descendants is in no block: evidence says nothing of
it beyond its parents, and it is drawn from its mechanism.

Log weights: the likelihood of a node's value given its parents' proposed values, one term a node.

    a table    log p(x | pa)
    an image   log q(pa | x) - log p(pa)  =  log p(x | pa) - log p(x)

q is the image mechanism's anticausal predictor. p(pa) is the joint law of all parents that it was trained
under; the model's own mechanisms, fitted on the same rows, say what that is, as they were before any ``do``.
Where the parents have further ancestors, these are summed over if they have few values.

A number may have an atom, a value of positive probability, for some values of its parents and a density for
others. An atom outweighs any density: of proposals for one row, those with the fewest densities remain.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod

import networkx as nx
import torch
from torch import Tensor

from causalgen.counterfactuals.mutilated_model import MutilatedModel, ready
from causalgen.counterfactuals.rows import blame, broadcast_rows
from graphs.causal_graph import CausalGraph
from graphs.errors import EvidenceError, PartialEvidenceError, warn
from graphs.variables import Image
from mechanisms.extrapolation import extrapolation_is_expected
from mechanisms.seeds import keyed_generator

__all__ = [
    "Block",
    "Pattern",
    "Problem",
    "draw_places",
    "exact_densities",
    "find_blocks",
    "find_patterns",
    "has_density",
    "log_weights",
    "refuse_impossible",
    "tell_surprise",
]

_MOST_ANCESTORS = 4096

_SURPRISE = 1e3
"""Standard deviations that no noise explains, however heavy its tails."""

_REMEDY = "Give the missing parents, or leave the image out."


@dataclass(frozen=True)
class Block:
    """Missing nodes that are inferred together, and their observed children, in topological order."""

    missing: tuple[str, ...]
    children: tuple[str, ...]

    @property
    def factors(self) -> tuple[str, ...]:
        """The nodes whose mechanisms bear on the block."""
        return (*self.missing, *self.children)


@dataclass(frozen=True)
class Problem:
    """A block with the evidence on it, for rows of one pattern."""

    world: MutilatedModel  # the factual world
    block: Block  # what to infer
    known: Mapping[str, Tensor]  # values of all observed nodes that the block's factors read, (n, *event)
    rows: Tensor  # (n,) their row numbers in the evidence, for messages and seeds
    seed: int  # of the draws

    def unknown_parents(self, node: str) -> tuple[str, ...]:
        """Those of a node's parents that the block infers."""
        return tuple(name for name in self.world.graph.parents(node) if name in self.block.missing)

    def known_parents(self, node: str) -> dict[str, Tensor]:
        """Values of a node's observed parents, (n, *event)."""
        parents = self.world.graph.parents(node)
        return {name: self.known[name] for name in parents if name in self.known}

    def part(self, rows: slice) -> Problem:
        """The same for some of the rows."""
        known = {name: value[rows] for name, value in self.known.items()}
        return Problem(self.world, self.block, known, self.rows[rows], self.seed)


@dataclass(frozen=True, eq=False)
class Pattern:
    """Numbers (n,) of rows of evidence that lack the same nodes, and the block of each that is in one."""

    rows: Tensor
    missing: frozenset[str]
    blocks: Mapping[str, Block]


def find_patterns(graph: CausalGraph, missing: Mapping[str, Tensor]) -> list[Pattern]:
    """The patterns of evidence that lacks rows (B,) bool; complete ones are in none."""
    if not missing:
        return []
    kinds, which = torch.stack(list(missing.values()), 1).unique(dim=0, return_inverse=True)
    found: list[Pattern] = []
    for number, kind in enumerate(kinds.tolist()):
        lacking = frozenset(name for name, lacks in zip(missing, kind, strict=True) if lacks)
        if lacking:
            blocks = {node: block for block in find_blocks(graph, lacking) for node in block.missing}
            found.append(Pattern((which == number).nonzero()[:, 0], lacking, blocks))
    return found


def find_blocks(graph: CausalGraph, missing: Collection[str], keep: Collection[str] = ()) -> list[Block]:
    """The blocks of missing nodes.

    Those in ``keep`` are in a block even without observed descendants, with their missing ancestors.
    """
    informed: set[str] = set()
    for node in reversed(graph.nodes):
        children = graph.children(node)
        if node in missing and (
            node in keep or any(child not in missing or child in informed for child in children)
        ):
            informed.add(node)
    together: nx.Graph[str] = nx.Graph()
    together.add_nodes_from(node for node in graph.nodes if node in informed)
    for node in graph.nodes:
        if node not in missing or node in informed:  # a missing node outside tells nothing of its parents
            nx.add_path(together, [name for name in (*graph.parents(node), node) if name in informed])
    place = {node: position for position, node in enumerate(together)}
    groups = [sorted(part, key=place.__getitem__) for part in nx.connected_components(together)]
    found: list[Block] = []
    for group in groups:
        observed = {child for node in group for child in graph.children(node)} - set(missing)
        found.append(Block(tuple(group), tuple(node for node in graph.nodes if node in observed)))
    return found


def has_density(world: MutilatedModel, node: str, values: Mapping[str, Tensor]) -> bool:
    """Whether ``log_prob`` tells p(x | pa) for a node; judged at the first proposal."""
    parents = {name: values[name][:1] for name in world.graph.parents(node)}
    with blame(node), torch.no_grad():
        return ready(world, node).log_prob(values[node][:1], parents) is not None


def exact_densities(world: MutilatedModel, nodes: Iterable[str]) -> bool:
    """Whether no node's density is an estimate, whose error a sum over few proposals would keep."""
    return not any(ready(world, node).estimated for node in nodes)


def _log_factor(
    world: MutilatedModel,
    node: str,
    values: Mapping[str, Tensor],
    rows: int,
    proposals: int,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor | int]:
    """log p(x | pa) of a node, (R * n,), up to a term that is the same for all proposals of a row.

    With 1 where it is a density and 0 where a probability, (R * n,), or 0 where all are of one kind. It may
    be an estimate that differs by row where there is a generator, else it is ``log_prob``.
    """
    mechanism, n = ready(world, node), rows * proposals
    parents = {name: broadcast_rows(values[name], n, rows) for name in world.graph.parents(node)}
    with blame(node), torch.no_grad():
        # A picture that is read is not copied for each proposal: of some hundred rows that is gigabytes.
        if not isinstance(mechanism.variable, Image) or has_density(world, node, values):
            value = broadcast_rows(values[node], n, rows)
            if generator is not None:
                likelihood = mechanism.likelihood(value, parents, generator=generator)
            else:
                density = mechanism.log_prob(value, parents)
                likelihood = None if density is None else (density, mechanism.atomic(value, parents))
            if likelihood is not None:
                logs, atomic = likelihood
                return logs, 0 if atomic is None else (~atomic).long()
        found = mechanism.log_prob_of_parents(values[node], parents) if len(values[node]) == rows else None
    if found is None:
        raise PartialEvidenceError(_no_density(world, node))
    _refuse_other_law(world, node, [name for name in parents if len(values[name]) < n])
    prior = _log_law_of_parents(world.before or world, node, parents)
    return torch.where(prior > -torch.inf, found - prior, -torch.inf), 0


def _refuse_other_law(world: MutilatedModel, image: str, told: Collection[str]) -> None:
    """Refuse an image whose predictor learned of missing parents by another law than the model's.

    In some rows an experiment set a parent, or an ancestor of one. What that changed is the same for all
    proposals where the parent and its own parents are ``told``, among those of the image.
    """
    mechanism = world.mechanisms[image]
    if mechanism.experiments is None:
        return
    for name, other in zip(mechanism.parents, mechanism.experiments[1:].tolist(), strict=True):
        if other and not {name, *world.graph.parents(name)} <= {*told}:
            raise PartialEvidenceError(
                f"Image {image!r} informs its missing parents by a predictor of the rows it was fitted to. "
                f"In some of them an experiment set {name!r} or what causes it, so that parents have another "
                f"law there than by themselves. {_REMEDY}"
            )


def log_weights(
    problem: Problem,
    nodes: Iterable[str],
    values: Mapping[str, Tensor],
    proposals: int,
    *,
    known: tuple[Tensor, Tensor] | None = None,
    estimated: bool = False,
) -> Tensor:
    """(R, n) log weights of R proposals for the missing nodes of each row, -inf where one is outweighed.

    The likelihoods of ``nodes`` are multiplied. Their values and their parents' are (n, *event) where
    observed, else (R * n, *event). ``known`` has (R * n,) logs of further likelihoods, and of how many
    densities they are. Where they may be ``estimated``, it is by draws of each row's own.
    """
    n, device = len(problem.rows), problem.rows.device
    logs, densities = known or (torch.zeros(proposals * n, dtype=torch.float64, device=device), 0)
    seed, first = problem.seed, int(problem.rows[0])
    for node in nodes:
        generator = keyed_generator(seed, "likelihood", node, first, device=device) if estimated else None
        found, kind = _log_factor(problem.world, node, values, n, proposals, generator)
        logs, densities = logs + found, densities + kind
    logs = logs.reshape(proposals, n)
    if isinstance(densities, Tensor):  # proposals of several kinds: those with the fewest densities remain
        densities = densities.reshape(proposals, n)
        least = densities.masked_fill(logs == -torch.inf, torch.iinfo(torch.int64).max).amin(0)
        logs = logs.masked_fill(densities > least, -torch.inf)
    draws = proposals if estimated else None
    refuse_impossible(logs.amax(0), problem.rows, problem.block.missing, draws)
    _refuse_infinite(logs, problem)
    return logs


def draw_places(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Which of C values are drawn, (S, n), by their probabilities (n, C) and uniform numbers (S, n)."""
    edges = probabilities.cumsum(1).contiguous()
    # Below the last edge, which rounding may leave under 1: what is impossible is never drawn.
    points = (uniform.T * edges[:, -1:]).contiguous()
    return torch.searchsorted(edges, points, right=True).clamp(max=edges.shape[1] - 1).T


def refuse_impossible(
    total: Tensor, numbers: Tensor, missing: tuple[str, ...], draws: int | None = None
) -> None:
    """Refuse rows, numbered so, whose log probability, (n,), no value of the missing nodes explains.

    None of so many ``draws`` of them does, or none at all where None.
    """
    bad = ~(total > -torch.inf)
    if bool(bad.any()):
        row, names = int(numbers[bad][0]), ", ".join(map(repr, missing))
        why = f"the evidence has probability zero whatever {names} may be. Correct the row"
        if draws is not None:
            why = (
                f"none of {draws:,} draws of {names} explains the evidence: it has probability zero, or "
                "nearly so, or single numbers alone explain it, as under noise of few values. "
                f"Give {names}, correct the row"
            )
        raise EvidenceError(
            f"Row {row}: {why}, or leave out what contradicts; where categories met that never did in "
            "fitting, fit their node with smoothing > 0."
        )


def _refuse_infinite(logs: Tensor, problem: Problem) -> None:
    """Refuse rows in which a proposal's log weight, (R, n), is infinite: it hides those of the others.

    So it is of ``a * u**3`` at 0, whatever a may be: of two infinite densities none is known to be larger.
    """
    infinite = (logs == torch.inf).any(0)
    if bool(infinite.any()):
        row, block = int(problem.rows[infinite][0]), problem.block
        seen, missing = (", ".join(map(repr, names)) for names in (block.children, block.missing))
        raise EvidenceError(
            f"Row {row}: what was observed of {seen} has an infinite density, as a * u**3 has at 0, which "
            f"hides how likely each value of {missing} is. Give {missing}, or leave the node out of this row."
        )


def tell_surprise(surprise: Tensor, problem: Problem) -> None:
    """Warn of a row whose evidence the model as good as excludes, as where noise was fitted as rounding.

    ``surprise``, (n,), is in standard deviations.
    """
    row, block = int(surprise.argmax()), problem.block
    if float(surprise[row]) > _SURPRISE and not extrapolation_is_expected():
        seen, missing = (", ".join(map(repr, names)) for names in (block.children, block.missing))
        warn(
            f"Row {int(problem.rows[row])}: what was observed of {seen} is {float(surprise[row]):.1e} "
            f"standard deviations from what the model expects; the value of {missing} is inferred as if it "
            "could be. Correct the row, or fit on rows that vary as it does."
        )


def _log_law_of_parents(world: MutilatedModel, image: str, parents: Mapping[str, Tensor]) -> Tensor:
    """(N,) log p(pa), jointly, of all parents of an image node."""
    ancestors = world.graph.ancestors(parents.keys())
    hidden = [node for node in world.graph.nodes if node in ancestors and node not in parents]
    supports = [ready(world, node).support() for node in hidden]
    counts = [0 if support is None else len(support) for support in supports]
    if hidden and not 0 < prod(counts) <= _MOST_ANCESTORS:
        raise PartialEvidenceError(
            f"Image {image!r} informs its missing parents by their joint law in the model, which takes "
            f"summing over {', '.join(map(repr, hidden))}: too many values. {_REMEDY}"
        )
    first = next(iter(parents.values()))
    terms: list[Tensor] = []
    for combination in product(*[support.unbind() for support in supports if support is not None]):
        values = dict(parents)
        for node, value in zip(hidden, combination, strict=True):
            values[node] = value.to(first.device).expand(len(first))
        logs = [_log_prob(world, node, values, image) for node in (*hidden, *parents)]
        terms.append(torch.stack(logs).sum(0))
    return torch.stack(terms).logsumexp(0)


def _log_prob(world: MutilatedModel, node: str, values: Mapping[str, Tensor], image: str) -> Tensor:
    mechanism = ready(world, node)
    with blame(node), torch.no_grad():
        found = mechanism.log_prob(values[node], {name: values[name] for name in world.graph.parents(node)})
    if found is None:
        kind = mechanism.spec.kind
        raise PartialEvidenceError(
            f"Image {image!r} informs its missing parents by their joint law in the model, "
            f"but the mechanism of {node!r} ({kind}) has no density. {_REMEDY}"
        )
    return found


def _no_density(world: MutilatedModel, node: str) -> str:
    mechanism = ready(world, node)
    generator = torch.Generator(mechanism.device).manual_seed(0)
    if not mechanism.sample_noise(1, generator=generator).leaves:
        why = "is a deterministic function of its parents, which almost no proposal for them would meet"
    else:
        why = f"has a mechanism ({mechanism.spec.kind}) without a density to weigh proposals for them by"
    return (
        f"Node {node!r} is observed and some of its parents are not, but it {why}. "
        f"Give its parents {', '.join(world.graph.parents(node))}, or leave {node!r} out of the evidence."
    )
