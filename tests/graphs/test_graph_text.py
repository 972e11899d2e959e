"""Graphs as text: what is written is read back equal, by us and by Graphviz's and GML's other readers."""

import ast

import networkx as nx
import pydot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs.causal_graph import CausalGraph
from graphs.errors import CycleError, GraphError, UnknownNameError
from graphs.graph_text import parse_graph
from graphs.limits import FILE_BYTES, NODES
from tests.graphs.strategies import dags

FORMATS = ("dagitty", "dot", "gml")

# As other programs have them, but for backslashes, which each of them reads differently.
characters = st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="\\&")
odd_names = st.text(characters, min_size=1, max_size=12)
odd_names |= st.sampled_from(
    ['say "hi"', "a -> b", "[x]", "{", "node", "größe", "体重", "a;b", "//", "1", "-"]
)


@st.composite
def odd_dags(draw):
    names = draw(st.lists(odd_names, min_size=1, max_size=7, unique=True))
    pairs = [(one, other) for index, other in enumerate(names) for one in names[:index]]
    graph = nx.DiGraph()
    graph.add_nodes_from(draw(st.permutations(names)))
    graph.add_edges_from(draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else [])
    return graph


def parent_sets(parents):
    return {node: set(its) for node, its in parents.items()}


@settings(max_examples=30, deadline=None)
@given(dags())
@pytest.mark.parametrize("form", FORMATS)
def test_a_written_graph_is_read_back_equal(form, parents):
    graph = CausalGraph(parents)
    assert CausalGraph.from_text(graph.to_text(form)) == graph


@pytest.mark.filterwarnings("ignore:.*deprecated - use:DeprecationWarning")  # pydot, of pyparsing's old names
@settings(max_examples=15, deadline=None)
@given(dags())
def test_others_read_what_is_written(parents):
    graph = CausalGraph(parents)
    read = pydot.graph_from_dot_data(graph.to_text("dot"))[0]
    nodes = [node.get_name().strip('"') for node in read.get_nodes()]
    edges = [(each.get_source().strip('"'), each.get_destination().strip('"')) for each in read.get_edges()]
    assert (tuple(nodes), tuple(edges)) == (graph.nodes, graph.edges)
    theirs = nx.parse_gml(graph.to_text("gml"))
    assert nx.utils.graphs_equal(theirs, nx.relabel_nodes(graph.to_networkx(), str))


@settings(max_examples=30, deadline=None)
@given(odd_dags())
def test_what_others_write_is_read_with_any_names(graph):
    expected = {node: set(graph.predecessors(node)) for node in graph}
    assert parent_sets(parse_graph("\n".join(nx.generate_gml(graph)))) == expected
    dot = pydot.Dot(graph_type="digraph")
    quoted = {node: '"' + node.replace('"', '\\"') + '"' for node in graph}
    for node in graph:
        dot.add_node(pydot.Node(quoted[node], shape="box"))
    for one, other in graph.edges:
        dot.add_edge(pydot.Edge(quoted[one], quoted[other], color="red"))
    assert parent_sets(parse_graph(dot.to_string())) == expected


@pytest.mark.parametrize(
    ("text", "edges"),
    [
        ("dag { x -> y <- z  {x z} -> w }", "x>y z>y x>w z>w"),
        ('dag { bb="0,0,1,1"\nx [exposure,pos="-0.1,2"]\ny [outcome]\nx -> m -> y }', "x>m m>y"),
        ("DAG g {a-b -> b\n}", "a-b>b"),
        (
            "digraph { rankdir=LR; node [shape=box]; a -> {b; c} -> d [color=red, dir=forward] }",
            "a>b a>c b>d c>d",
        ),
        ("// one\ndigraph x {\n# two\n subgraph s { a -> b } /* three */ s2 -> a }", "a>b s2>a"),
        ("strict digraph { a -> b; a -> b }", "a>b"),
        ("digraph { u [u=1]; u -> b [style=dashed, arrowhead=vee] }", "u>b"),
        (
            'graph [ directed 1 node [ id 7 label "b" ] node [ id 1 label "a" ] edge [ source 1 target 7 ] ]',
            "a>b",
        ),
        ('Creator "someone"\nVersion 1\ngraph\n[\n directed 1\n node [ id 0 label "a" ]\n]', ""),
    ],
)
def test_a_text_says_its_edges(text, edges):
    assert sorted(CausalGraph.from_text(text).edges) == sorted(
        tuple(each.split(">")) for each in edges.split()
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "dag { x -> y\n y <-> z }",
            r"line 2, column 4: 'y' <-> 'z' says that both have a hidden common cause",
        ),
        ("dag { x -- y }", "has no direction"),
        ("pdag { x -- y }", "line 1, column 1: expected 'digraph'.*Got 'pdag'"),
        ("graph { x -- y }", "expected 'digraph'"),
        ("dag { u [latent] u -> x }", "'u' is a latent node.*one child"),
        ('digraph { u [observed="no"]; u -> x }', "'u' is a latent node"),
        ('graph [ directed 1 node [ id 0 label "u" observed "no" ] ]', "'u' is a latent node"),
        ("dag { s [selected] }", "rows were selected by"),
        ("dag { x [e] h [u] h -> x }", "'h' is a latent node"),
        ('dag { h [l,pos="0,1"] }', "'h' is a latent node"),
        ("dag { x [s] }", "rows were selected by"),
        ("digraph { a -> b [style=invis] }", "style=invis draws no arrow"),
        ('digraph { a -> b [style="bold,invis"] }', "style=invis draws no arrow"),
        ('digraph { a -> b [style="bold, invis"] }', "style=invis draws no arrow"),
        ("digraph { edge [arrowhead=none] a -> b }", "arrowhead=none draws no arrow"),
        ("digraph { a -> b [dir=both] }", "dir=both draws another edge"),
        ("digraph { edge [dir=back]; a -> b }", "dir=back draws another edge"),
        ("digraph { a <- b }", "DOT writes a -> b"),
        ("digraph { a -> b; a -> b }", "'a' -> 'b' is there twice"),
        ("digraph { a:port -> b }", "ports of nodes"),
        ("digraph { a -> b, c }", r"column 17: no comma .*Write a -> {b c}"),
        ("dag { a -> b, a -> c }", "no comma stands between statements"),
        ("digraph { a-1 }", "in quotes.*Got 'a-1'"),
        ("digraph { a [label=<b>] }", "column 20.*Got '<'"),
        ("digraph { a -> b", "Got 'the end'"),
        ("digraph { a } b", "expected the end of the text"),
        ("digraph {" + "{" * 30, "20 deep"),
        ('digraph { "a', "expected a name"),
        ("digraph {}", "empty"),
        ("graph [ directed 0 node [ id 0 ] ]", "this GML is an undirected graph"),
        ("graph [ directed 1 multigraph 1 node [ id 0 ] ]", "this GML is a multigraph"),
        ('graph [ directed 1 node [ id 0 label "a" ] node [ id 1 label "a" ] ]', "GML: NetworkXError|'a'"),
        ("graph [ directed 1 edge [ source 0 target 1 ] ]", "Cannot read the graph as GML.*undefined"),
        ("graph [ directed 1 " + "x [" * 5000, "Cannot read the graph as GML: RecursionError"),
        ("hello", "expected 'digraph"),
        ("", "expected 'digraph"),
        (b"dag { a }", "string, got a bytes"),
        (" " * (FILE_BYTES + 1), "at most 4,000,000"),
        ("digraph {" + " ".join(f"a{k}" for k in range(NODES + 1)) + "}", "more than 5,000 nodes"),
        ("digraph { a [" + "b " * 900_000, "more than 900,000 names"),
        ("strict digraph {" + "{a b c d e f}->{u v w x y z};" * 500 + "}", None),
        (
            "dag {{"
            + " ".join(f"a{k}" for k in range(400))
            + "}->{"
            + " ".join(f"b{k}" for k in range(400))
            + "}}",
            "more than 150,000 edges",
        ),
        ("dag { x\x1b[2J }", r"Got '\\x1b'"),
    ],
    ids=lambda each: str(each)[:24],
)
def test_what_is_no_causal_graph_is_refused(text, told):
    if told is None:
        assert len(CausalGraph.from_text(text).edges) == 36
        return
    with pytest.raises(GraphError, match=told):
        CausalGraph.from_text(text)


@pytest.mark.parametrize("text", ["dag { a -> b -> c -> a }", "digraph { a -> b -> c -> a }"])
def test_a_cycle_is_named(text):
    with pytest.raises(CycleError, match="a -> b -> c -> a"):
        CausalGraph.from_text(text)


def test_nodes_are_renamed_on_the_way_in():
    text = 'dag { "body weight" -> "größe" }'
    with pytest.raises(GraphError, match=r"names=\{'body weight': 'body_weight'\}"):
        CausalGraph.from_text(text)
    graph = CausalGraph.from_text(text, names={"body weight": "weight", "größe": "size"})
    assert graph.edges == (("weight", "size"),)
    with pytest.raises(UnknownNameError, match="'body'"):
        CausalGraph.from_text(text, names={"body": "weight"})
    with pytest.raises(GraphError, match="two nodes of the text would be 'a'"):
        CausalGraph.from_text("dag { a -> b }", names={"b": "a"})


@pytest.mark.parametrize("name", ["5", "2nd", "-x", "größe", "+", "", "body weight"])
def test_the_name_that_is_proposed_is_one(name):
    """Node numbers of a GML without labels, for one, were to be renamed to themselves."""
    text = f'digraph {{ "{name}" -> b }}'
    with pytest.raises(GraphError, match="names=") as caught:
        CausalGraph.from_text(text)
    proposed = ast.literal_eval(str(caught.value).partition("names=")[2].removesuffix(")."))
    assert proposed.keys() == {name}
    assert CausalGraph.from_text(text, names=proposed).edges == ((proposed[name], "b"),)


def test_a_format_has_one_of_three_names():
    with pytest.raises(GraphError, match="'dagitty', 'dot', 'gml'; got 'DOT'"):
        CausalGraph({"a": []}).to_text("DOT")
    parents = {f"n{k}": [f"n{j}" for j in range(max(0, k - 40), k)] for k in range(4000)}
    with pytest.raises(GraphError, match="at most 150,000"):
        CausalGraph(parents).to_text("dot")
