"""Laws of causal graphs on random DAGs, and every way a graph can be wrong."""

import copy
import itertools
import pickle

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs.causal_graph import CausalGraph
from graphs.errors import CycleError, GraphError, UnknownNameError
from tests.graphs.strategies import dags

COLLIDER = CausalGraph({"x": [], "y": [], "z": ["x", "y"], "w": ["z"]})


@given(dags())
def test_nodes_are_in_topological_order_and_parents_in_declared_order(parents: dict[str, list[str]]) -> None:
    graph = CausalGraph(parents)
    position = {node: index for index, node in enumerate(graph)}
    assert set(graph) == set(parents) and len(graph) == len(parents)
    assert graph.nodes == tuple(nx.lexicographical_topological_sort(graph.to_networkx()))
    assert all(position[parent] < position[child] for parent, child in graph.edges)
    assert all(list(graph.parents(node)) == parents[node] for node in graph)
    assert all(
        (parent in graph.parents(child)) == (child in graph.children(parent))
        for parent, child in itertools.product(graph, graph)
    )


@given(dags(), st.randoms(use_true_random=False))
def test_order_does_not_depend_on_the_declaration(parents: dict[str, list[str]], random: object) -> None:
    names = list(parents)
    random.shuffle(names)
    shuffled = CausalGraph({name: parents[name] for name in names})
    assert shuffled.nodes == CausalGraph(parents).nodes
    assert shuffled == CausalGraph(parents) and hash(shuffled) == hash(CausalGraph(parents))


@given(dags())
def test_networkx_and_copies_round_trip(parents: dict[str, list[str]]) -> None:
    graph = CausalGraph(parents)
    assert CausalGraph.from_networkx(graph.to_networkx()) == graph
    assert eval(repr(graph)) == graph
    assert copy.deepcopy(graph) == graph and pickle.loads(pickle.dumps(graph)) == graph


@given(dags(), st.data())
def test_reachability_is_that_of_networkx(parents: dict[str, list[str]], data: st.DataObject) -> None:
    graph = CausalGraph(parents)
    chosen = data.draw(st.lists(st.sampled_from(graph.nodes), unique=True))
    oracle = graph.to_networkx()
    assert graph.ancestors(chosen) == set(chosen).union(*(nx.ancestors(oracle, node) for node in chosen))
    assert graph.descendants(chosen) == set(chosen).union(*(nx.descendants(oracle, node) for node in chosen))
    assert graph.ancestors(graph.ancestors(chosen)) == graph.ancestors(chosen)


@given(dags(), st.data())
def test_surgery_changes_one_node_only(parents: dict[str, list[str]], data: st.DataObject) -> None:
    graph = CausalGraph(parents)
    node = data.draw(st.sampled_from(graph.nodes))
    allowed = sorted(set(graph) - graph.descendants(node))
    new = data.draw(st.lists(st.sampled_from(allowed), unique=True)) if allowed else []
    cut = graph.replace(node, new)
    assert list(cut.parents(node)) == new
    assert all(cut.parents(other) == graph.parents(other) for other in graph if other != node)
    assert graph == CausalGraph(parents)
    assert cut.replace(node, graph.parents(node)) == graph


@given(dags(), st.data())
def test_surgery_refuses_exactly_the_descendants(parents: dict[str, list[str]], data: st.DataObject) -> None:
    graph = CausalGraph(parents)
    node = data.draw(st.sampled_from(graph.nodes))
    for parent in graph.descendants(node):
        with pytest.raises(CycleError, match=f"{parent} -> "):
            graph.replace(node, [parent])


@given(dags(), st.data())
def test_restriction_to_ancestors(parents: dict[str, list[str]], data: st.DataObject) -> None:
    graph = CausalGraph(parents)
    kept = graph.ancestors(data.draw(st.lists(st.sampled_from(graph.nodes), min_size=1)))
    small = graph.restrict(kept)
    assert set(small) == kept
    assert all(small.parents(node) == graph.parents(node) for node in small)
    assert small.nodes == tuple(node for node in graph if node in kept)


def test_surgery_can_add_a_node() -> None:
    assert COLLIDER.replace("v", ["w", "x"]).parents("v") == ("w", "x")


def test_restriction_that_cuts_a_parent_off_is_refused() -> None:
    with pytest.raises(GraphError, match="cut 'z' off its parent 'y'"):
        COLLIDER.restrict(["x", "z"])


def test_d_separation_of_a_collider() -> None:
    assert COLLIDER.is_d_separated("x", "y")
    assert not COLLIDER.is_d_separated("x", "y", given="z")
    assert not COLLIDER.is_d_separated("x", "y", given=["w"])
    assert COLLIDER.is_d_separated(["x", "y"], "w", given="z")
    with pytest.raises(GraphError, match="x"):
        COLLIDER.is_d_separated("x", ["x", "y"])


@given(dags(), st.data())
def test_parents_screen_off_nondescendants(parents: dict[str, list[str]], data: st.DataObject) -> None:
    graph = CausalGraph(parents)
    node = data.draw(st.sampled_from(graph.nodes))
    others = set(graph) - graph.descendants(node) - set(graph.parents(node))
    assert not others or graph.is_d_separated(node, others, given=graph.parents(node))


def test_roots_and_edges() -> None:
    assert COLLIDER.roots == ("x", "y")
    assert COLLIDER.edges == (("x", "z"), ("y", "z"), ("z", "w"))
    assert "z" in COLLIDER and "q" not in COLLIDER


def test_parent_order_matters_for_equality() -> None:
    assert COLLIDER != COLLIDER.replace("z", ["y", "x"])
    assert COLLIDER != {"x": []}


@pytest.mark.parametrize(
    ("parents", "cycle"),
    [
        ({"a": ["c"], "b": ["a"], "c": ["b"]}, "a -> b -> c -> a"),
        ({"c": ["b"], "b": ["a"], "a": ["c"]}, "a -> b -> c -> a"),
        ({"a": ["a"]}, "a -> a"),
        ({"r": [], "a": ["r", "b"], "b": ["a"]}, "a -> b -> a"),
    ],
)
def test_a_cycle_is_spelled_out(parents: dict[str, list[str]], cycle: str) -> None:
    with pytest.raises(CycleError, match=f"cycle: {cycle}\\."):
        CausalGraph(parents)


def test_unknown_names_come_with_the_nearest_match() -> None:
    with pytest.raises(UnknownNameError, match=r"parent 'digt' in node 'image'.*'digit'"):
        CausalGraph({"digit": [], "image": ["digt"]})
    for ask in (
        COLLIDER.parents,
        COLLIDER.children,
        COLLIDER.ancestors,
        COLLIDER.descendants,
        COLLIDER.restrict,
    ):
        with pytest.raises(UnknownNameError, match="node 'zz'"):
            ask("zz")


@pytest.mark.parametrize("name", ["", "1a", "-a", "a b", "a/b", "..", "a.b", "é", "a\n", "a" * 101, 3, None])
def test_bad_node_names(name: object) -> None:
    with pytest.raises(GraphError, match=r"[Nn]ode name"):
        CausalGraph({name: []})


@pytest.mark.parametrize(
    ("parents", "message"),
    [
        ({}, "empty"),
        ({"a": [], "A": []}, "only in case"),
        ({"a": [], "b": ["a", "a"]}, "parent 'a' twice"),
        ({"a": [], "b": "a"}, "list of names"),
        ({"a": [], "b": None}, "list of names"),
    ],
)
def test_bad_declarations(parents: dict[str, object], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        CausalGraph(parents)


@pytest.mark.parametrize("kind", [nx.Graph, nx.MultiDiGraph, nx.MultiGraph])
def test_other_networkx_graphs_are_refused(kind: type[nx.Graph]) -> None:
    with pytest.raises(GraphError, match=f"got a {kind.__name__}"):
        CausalGraph.from_networkx(kind([("a", "b")]))


def test_from_networkx_keeps_the_order_of_edges_and_refuses_other_names() -> None:
    assert CausalGraph.from_networkx(nx.DiGraph([("y", "x"), ("a", "x")])).parents("x") == ("y", "a")
    with pytest.raises(GraphError, match="strings, got 1"):
        CausalGraph.from_networkx(nx.DiGraph([(1, 2)]))


def test_a_deep_graph_needs_no_recursion() -> None:
    parents = {f"n{i}": [f"n{i - 1}"] if i else [] for i in range(3000)}
    assert len(CausalGraph(parents).ancestors("n2999")) == 3000
