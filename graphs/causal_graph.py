"""The causal graph: a directed acyclic graph whose parents keep their declared order.

A graph is immutable. Nodes are listed in lexicographic topological order (of the nodes whose parents
are all listed, the least name comes next), which does not depend on how the graph was written down.
Surgery, ``replace``, gives a new graph.

Node names are letters, digits, ``_`` and ``-``, since they become file names and names in
expressions; two names that differ only in case are refused, as they would be one file on some disks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Any, cast, final

import networkx as nx

from graphs.errors import CycleError, GraphError, UnknownNameError
from graphs.graph_text import GraphFormat, parse_graph, write_graph
from graphs.limits import NODE_NAME, NODES, PARENTS
from graphs.text import Shown, counted, shortened

__all__ = ["CausalGraph", "NAME", "Names", "find_problem"]

Names = str | Iterable[str]
"""One node name, or several."""

_SHOWN = 40
"""Nodes of a graph whose repr names all of them."""

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
"""A node's name."""


@final
class CausalGraph(Shown):
    """A directed acyclic graph over named nodes.

    >>> graph = CausalGraph({"x": ["y", "t"], "y": [], "t": []})
    >>> graph.nodes, graph.parents("x")
    (('t', 'y', 'x'), ('y', 't'))
    >>> CausalGraph({"a": ["b"], "b": ["a"]})
    Traceback (most recent call last):
    graphs.errors.CycleError: The causal graph has a cycle: a -> b -> a. Remove one of these edges.
    """

    __slots__ = ("_children", "_nodes", "_parents")

    def __init__(self, parents: Mapping[str, Sequence[str]]) -> None:
        """Build the graph from the parents of every node, in the order mechanisms shall see them.

        Raises:
            CycleError: the graph has a cycle; the message spells it out.
            UnknownNameError: a parent is not a node.
            GraphError: there is no node, a name is malformed, or a parent is listed twice.
        """
        problem = find_problem(parents)
        if problem is not None:
            raise problem[0]
        self._nodes = _topological_order(parents)
        self._parents = {node: tuple(parents[node]) for node in self._nodes}
        self._children = _children(self._parents)

    @classmethod
    def from_networkx(cls, graph: nx.DiGraph[Any]) -> CausalGraph:
        """The graph of a networkx ``DiGraph``; a node's parents are in the order their edges were added.

        Attributes of nodes and edges are ignored.

        Raises:
            GraphError: it is undirected or a multigraph, or as the constructor says.
        """
        if not hasattr(graph, "is_directed") or not graph.is_directed() or graph.is_multigraph():
            raise GraphError(
                "A causal graph is a networkx.DiGraph, as in networkx.DiGraph([('a', 'b')]) for a -> b; "
                f"got a {type(graph).__name__}."
            )
        return cls({node: list(graph.predecessors(node)) for node in graph})

    def to_networkx(self) -> nx.DiGraph[str]:
        """A fresh networkx ``DiGraph`` with the same nodes and edges, parents in order."""
        return _digraph(self._parents)

    @classmethod
    def from_text(cls, text: str, names: Mapping[str, str] | None = None) -> CausalGraph:
        """The graph that a text in DOT, dagitty's language or GML says; see ``graphs.graph_text``.

        >>> CausalGraph.from_text("dag { smoking -> tar -> cancer }").nodes
        ('smoking', 'tar', 'cancer')

        Args:
            text: of a file, at most 4,000,000 characters.
            names: name in the text -> name of the node, for those that are to be renamed.

        Raises:
            GraphError: the text is none of these, or says what a graph without hidden causes cannot say, such
                as ``a <-> b``; or as the constructor says.
            UnknownNameError: ``names`` renames a node that the text lacks.
        """
        said, names = parse_graph(text), names or {}
        for name in names:
            UnknownNameError.check("node", name, said, where="names")
        for node in said:
            if names.get(node, node) == node and not NAME.fullmatch(node):
                raise GraphError(
                    f"{_name_problem(node)} Rename it on the way in: from_text(text, names={{{node!r}: "
                    f"{_allowed_name(node)!r}}})."
                )
        renamed = [names.get(node, node) for node in said]
        if len(set(renamed)) < len(renamed):
            twice = next(node for node in renamed if renamed.count(node) > 1)
            raise GraphError(f"names: two nodes of the text would be {twice!r}. Rename one of them.")
        return cls(
            {names.get(node, node): [names.get(each, each) for each in its] for node, its in said.items()}
        )

    def to_text(self, form: GraphFormat) -> str:
        """The graph as ``"dot"``, ``"dagitty"`` or ``"gml"``; ``from_text`` reads it back equal.

        >>> print(CausalGraph({"a": [], "b": ["a"]}).to_text("dagitty"))
        dag {
          "a"
          "b"
          "a" -> "b"
        }

        Raises:
            GraphError: no such format.
        """
        return write_graph(self._parents, form)

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes, in lexicographic topological order."""
        return self._nodes

    @property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """All edges (parent, child), by child in topological order, then by declared parent."""
        return tuple((parent, node) for node, parents in self._parents.items() for parent in parents)

    @property
    def roots(self) -> tuple[str, ...]:
        """The nodes without parents, in topological order."""
        return tuple(node for node in self._nodes if not self._parents[node])

    def parents(self, node: str) -> tuple[str, ...]:
        """Parents of ``node`` in declared order.

        Raises:
            UnknownNameError: no such node.
        """
        return self._of(self._parents, node)

    def children(self, node: str) -> tuple[str, ...]:
        """Children of ``node`` in topological order.

        Raises:
            UnknownNameError: no such node.
        """
        return self._of(self._children, node)

    def ancestors(self, nodes: Names) -> frozenset[str]:
        """The nodes themselves and everything from which a directed path leads to one of them.

        Raises:
            UnknownNameError: no such node.
        """
        return self._reach(nodes, self._parents)

    def descendants(self, nodes: Names) -> frozenset[str]:
        """The nodes themselves and everything to which a directed path leads from one of them.

        Raises:
            UnknownNameError: no such node.
        """
        return self._reach(nodes, self._children)

    def replace(self, node: str, parents: Sequence[str]) -> CausalGraph:
        """Surgery: the graph in which the parents of ``node`` are these; a new node is added.

        Raises:
            CycleError: an edge would close a cycle.
            UnknownNameError: a parent is not a node.
            GraphError: a malformed new name, or a parent listed twice.
        """
        if self._parents.get(node) == tuple(parents):
            return self
        return CausalGraph({**self._parents, node: parents})

    def restrict(self, nodes: Names) -> CausalGraph:
        """The graph of these nodes only, which must include all their ancestors.

        Raises:
            UnknownNameError: no such node.
            GraphError: a parent of one of the nodes would be missing, or there are no nodes.
        """
        kept = self._several(nodes)
        for node in kept:
            for parent in self._parents[node]:
                if parent not in kept:
                    raise GraphError(
                        f"Restricting the graph to {', '.join(sorted(kept))} would cut {node!r} off "
                        f"its parent {parent!r}. Keep all ancestors: graph.restrict(graph.ancestors(nodes))."
                    )
        return CausalGraph({node: self._parents[node] for node in kept})

    def is_d_separated(self, x: Names, y: Names, given: Names = ()) -> bool:
        """Whether ``given`` blocks every path between ``x`` and ``y`` (Pearl 2009, definition 1.2.3).

        Raises:
            UnknownNameError: no such node.
            GraphError: the three sets share a node.
        """
        sets = [set(self._several(names)) for names in (x, y, given)]
        shared = (sets[0] & sets[1]) | (sets[0] & sets[2]) | (sets[1] & sets[2])
        if shared:
            names = ", ".join(sorted(shared))
            raise GraphError(
                f"d-separation is between disjoint sets of nodes; these are in two of them: {names}."
            )
        return bool(nx.is_d_separator(self.to_networkx(), *sets))

    def __contains__(self, node: object) -> bool:
        return node in self._parents

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[str]:
        """Nodes in topological order."""
        return iter(self._nodes)

    def __eq__(self, other: object) -> bool:
        return self._parents == other._parents if isinstance(other, CausalGraph) else NotImplemented

    def __hash__(self) -> int:
        return hash(frozenset(self._parents.items()))

    def __repr__(self) -> str:
        """As it could be typed; of a large graph counts and the first nodes."""
        if len(self) > _SHOWN:
            edges, first = counted(len(self.edges), "edge"), ", ".join(self._nodes[:8])
            return f"<CausalGraph of {len(self)} nodes and {edges}: {first}, ...>"
        parents = {node: list(its_parents) for node, its_parents in self._parents.items()}
        return f"CausalGraph({parents!r})"

    def _of(self, known: Mapping[str, tuple[str, ...]], node: str) -> tuple[str, ...]:
        try:  # a query asks this several times a node
            return known[node]
        except (KeyError, TypeError):
            raise UnknownNameError.of("node", node, self._parents) from None

    def _known(self, node: str) -> str:
        UnknownNameError.check("node", node, self._parents)
        return node

    def _several(self, nodes: Names) -> frozenset[str]:
        if isinstance(nodes, str) or not hasattr(nodes, "__iter__"):
            nodes = [cast(str, nodes)]
        return frozenset(map(self._known, nodes))

    def _reach(self, nodes: Names, step: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
        several = self._several(nodes)
        if len(several) == len(self._nodes):
            return several
        reached = set(several)
        todo = list(reached)
        while todo:
            for node in step[todo.pop()]:
                if node not in reached:
                    reached.add(node)
                    todo.append(node)
        return frozenset(reached)


def _children(parents: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    children: dict[str, list[str]] = {node: [] for node in parents}
    for node, its_parents in parents.items():
        for parent in its_parents:
            children[parent].append(node)
    return {node: tuple(its_children) for node, its_children in children.items()}


def _topological_order(parents: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The lexicographic topological order (Kahn 1962), without the nodes on or below a cycle.

    ``networkx.lexicographical_topological_sort`` agrees, but is several times slower, and surgery is on the
    path of every query.
    """
    children = _children(parents)
    waiting = {node: len(its_parents) for node, its_parents in parents.items()}
    ready = [node for node, count in waiting.items() if count == 0]
    heapify(ready)
    order: list[str] = []
    while ready:
        order.append(heappop(ready))
        for child in children[order[-1]]:
            waiting[child] -= 1
            if waiting[child] == 0:
                heappush(ready, child)
    return tuple(order)


def _digraph(parents: Mapping[str, Sequence[str]]) -> nx.DiGraph[str]:
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(parents)
    for node, its_parents in parents.items():
        graph.add_edges_from((parent, node) for parent in its_parents)
    return graph


def find_problem(
    parents: Mapping[str, Sequence[str]],
) -> tuple[GraphError | UnknownNameError, str | None, int | None] | None:
    """What keeps ``parents`` from being a causal graph, or None where nothing does.

    Returns:
        The error, the node it is about, and the number of the parent it is about, where there are such.
    """
    if not hasattr(parents, "items"):
        error = GraphError(
            "CausalGraph takes the parents of each node, as in {'x': [], 'y': ['x']}; got a "
            f"{type(parents).__name__}. Use CausalGraph.from_networkx for a networkx.DiGraph."
        )
        return error, None, None
    if not parents:
        return GraphError("The causal graph is empty. Declare at least one node."), None, None
    if len(parents) > NODES:
        error = GraphError(f"The causal graph has {len(parents):,} nodes, at most {NODES:,} are allowed.")
        return error, None, None
    folded: dict[str, str] = {}
    for node in parents:
        error = _name_problem(node)
        if error is None and folded.setdefault(node.lower(), node) != node:
            error = GraphError(
                f"Nodes {folded[node.lower()]!r} and {node!r} differ only in case. Rename one of them."
            )
        if error is not None:
            return error, node, None
    for node, its_parents in parents.items():
        problem = _parents_problem(node, its_parents, parents)
        if problem is not None:
            return problem[0], node, problem[1]
    return _cycle_problem(parents)


def _allowed_name(node: str) -> str:
    """A name that a node may have, much like one that it may not."""
    name = re.sub("[^A-Za-z0-9_-]+", "_", node)[:20]
    return name if NAME.fullmatch(name) else f"node_{name}".rstrip("_")


def _name_problem(node: object) -> GraphError | None:
    if not isinstance(node, str):
        return GraphError(f"Node names are strings, got {node!r} of type {type(node).__name__}.")
    if not NAME.fullmatch(node):
        return GraphError(
            f"Bad node name {shortened(node, 60)!r}: letters (a-z, A-Z), digits, '_' and '-' are allowed, "
            "and the first is a letter or '_'."
        )
    if len(node) > NODE_NAME:
        return GraphError(
            f"Node name {node[:20]!r}... has {len(node)} characters, at most {NODE_NAME} are allowed."
        )
    return None


def _parents_problem(
    node: str, its_parents: object, known: Mapping[str, object]
) -> tuple[GraphError | UnknownNameError, int | None] | None:
    if isinstance(its_parents, str) or not isinstance(its_parents, Sequence):
        return GraphError(f"Parents of node {node!r} are a list of names, got {its_parents!r}."), None
    listed = cast(Sequence[object], its_parents)
    if len(listed) > PARENTS:
        told = f"Node {node!r} has {len(listed):,} parents, at most {PARENTS:,} are allowed."
        return GraphError(told), None
    seen: set[object] = set()
    for index, parent in enumerate(listed):
        if parent not in known:
            return UnknownNameError.of("parent", parent, known, where=f"node {node!r}"), index
        if parent in seen:
            return GraphError(f"Node {node!r} lists its parent {parent!r} twice. Remove one."), index
        seen.add(parent)
    return None


def _cycle_problem(parents: Mapping[str, Sequence[str]]) -> tuple[CycleError, str, int] | None:
    if len(_topological_order(parents)) == len(parents):
        return None
    # Sorted, so that the cycle named does not depend on the order of declaration.
    graph = _digraph({node: sorted(parents[node]) for node in sorted(parents)})
    edges = cast(list[tuple[str, str]], nx.find_cycle(graph))  # pyright: ignore[reportUnknownMemberType]
    cycle = [parent for parent, _ in edges]
    path = " -> ".join([*cycle, cycle[0]])
    error = CycleError(f"The causal graph has a cycle: {path}. Remove one of these edges.")
    return error, cycle[0], list(parents[cycle[0]]).index(cycle[-1])
