r"""Causal graphs as text that other programs read and write: DOT (Graphviz), dagitty and GML.

    digraph { "a"; "b" [shape=box]; "a" -> "b"; {"a" "b"} -> "c" }        DOT
    dag { a [exposure]  a -> b  c <- {a b} }                              dagitty (Textor et al. 2016)
    graph [ directed 1 node [ id 0 label "a" ] ... edge [ source 0 target 1 ] ]      GML

The first word says which it is. Drawing, positions and the roles exposure, outcome and adjusted are of the
analysis and not of the model, and are not read. What a graph without hidden causes cannot say is refused:
edges ``<->`` and ``--``, latent nodes, nodes that rows were selected by. Parents are in the order of their
edges, and what is written is read back equal. Sizes are bounded by ``limits``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple, NoReturn, cast, get_args

import networkx as nx

from graphs.errors import GraphError
from graphs.limits import DEPTH, FILE_BYTES, NODES, VALUES
from graphs.text import printable, shortened

__all__ = ["GraphFormat", "parse_graph", "write_graph"]

GraphFormat = Literal["dagitty", "dot", "gml"]
"""The formats, by name."""

_TOKENS = 6 * VALUES
"""Names and marks of a text: an edge is four of them with its end, a node four with an attribute."""

_SHOWN = 40
"""Characters of a text that a message shows."""

_HEAD = re.compile(
    r"(?:\s|//[^\n]*|/\*.*?\*/|\#[^\n]*)*+(?P<word>strict|digraph|dag|mag|pdag|pag|graph(?!\s*\[))\b",
    re.DOTALL | re.IGNORECASE,
)
_GML = re.compile(r"^[^{]*?\bgraph\s*\[")
_TOKEN = re.compile(
    r"""(?P<space>(?:\s|//[^\n]*|/\*.*?\*/|^\#[^\n]*)++)
    |(?P<arrow><->|->|<-|--)
    |(?P<mark>[{}\[\];,=:])
    |"(?P<quoted>(?:[^"\\]|\\.)*)"
    |(?P<bare>-?[\w.]+(?:-[\w.]+)*)""",
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
_HIDDEN = "A model here has no hidden common causes (see the page on assumptions):"
_UNSAID = {
    "latent": f"is a latent node. {_HIDDEN} take out that attribute to keep it as a node with data of its "
    "own, or take out the node where it has one child, whose noise it then is.",
    "selected": "is a node that rows were selected by, which the model of an unselected population cannot "
    "say. Take out [selected], or the node.",
}
_UNSAID["unobserved"] = _UNSAID["latent"]
_SHORT = {"l": "latent", "u": "latent", "s": "selected"}
"""What dagitty reads these attributes of a node as."""

_UNDRAWN = {"arrowhead": "none", "style": "invis"}
"""Attributes of an edge in DOT with the value by which its arrow is not drawn."""


def _unsaid(attributes: Mapping[str, Any]) -> str | None:
    """Why a node with these attributes cannot be one of a model."""
    if str(attributes.get("observed", "")).lower() in ("no", "false", "0"):
        return _UNSAID["latent"]
    return next((why for word, why in _UNSAID.items() if word in attributes), None)


def parse_graph(text: str) -> dict[str, list[str]]:
    """The parents of each node of a text, as it names them; cycles and names are not looked at here."""
    if not isinstance(cast(object, text), str):
        raise GraphError(f"A graph's text is a string, got a {type(text).__name__}. Read the file first.")
    if len(text) > FILE_BYTES:
        raise GraphError(f"A graph's text of {len(text):,} characters; at most {FILE_BYTES:,} are read.")
    if head := _HEAD.match(text):
        return _Parser(text, "dagitty" if head["word"].lower() == "dag" else "dot").parse()
    if _GML.match(text):
        return _parse_gml(text)
    raise GraphError(
        f"The text {_show(text.strip())} is no graph: expected 'digraph {{ a -> b }}' (DOT), "
        "'dag { a -> b }' (dagitty) or 'graph [ directed 1 ... ]' (GML)."
    )


def write_graph(parents: Mapping[str, Sequence[str]], form: GraphFormat) -> str:
    """A causal graph as text, nodes in the order given and edges by child; every name stands in quotes."""
    if form not in _WRITERS:
        known = ", ".join(map(repr, get_args(GraphFormat)))
        raise GraphError(f"A graph is written as one of {known}; got {form!r}.")
    text, edges = _WRITERS[form](parents), sum(map(len, parents.values()))
    if len(text) > FILE_BYTES or edges > VALUES:
        raise GraphError(
            f"The graph as text has {edges:,} edges and {len(text):,} characters, and at most {VALUES:,} and "
            f"{FILE_BYTES:,} are read."
        )
    return text


def _statements(parents: Mapping[str, Sequence[str]], head: str, end: str) -> str:
    lines = [f"  {_quoted(node)}{end}" for node in parents]
    edges = [(parent, node) for node, its in parents.items() for parent in its]
    lines += [f"  {_quoted(parent)} -> {_quoted(node)}{end}" for parent, node in edges]
    return "\n".join([f"{head} {{", *lines, "}\n"])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '\\"') + '"'


def _gml(parents: Mapping[str, Sequence[str]]) -> str:
    number = {node: index for index, node in enumerate(parents)}
    lines = [f"  node [ id {index} label {_quoted(node)} ]" for node, index in number.items()]
    edges = [(number[parent], number[node]) for node, its in parents.items() for parent in its]
    lines += [f"  edge [ source {parent} target {node} ]" for parent, node in edges]
    return "\n".join(["graph [", "  directed 1", *lines, "]\n"])


_WRITERS: dict[str, Callable[[Mapping[str, Sequence[str]]], str]] = {
    "dagitty": lambda parents: _statements(parents, "dag", ""),
    "dot": lambda parents: _statements(parents, "digraph", ";"),
    "gml": _gml,
}


def _show(text: str) -> str:
    return repr(shortened(text, _SHOWN))


def _parse_gml(text: str) -> dict[str, list[str]]:
    """By networkx, nodes by their ids: relabelling would lose the order of edges."""
    try:
        graph = cast(Any, nx).parse_gml(text, label="id")
    except Exception as error:  # wrong text raises a dozen kinds
        found = shortened(printable(str(error)), 200)
        raise GraphError(f"Cannot read the graph as GML: {type(error).__name__}: {found}.") from error
    if not graph.is_directed() or graph.is_multigraph():
        got = "a multigraph" if graph.is_multigraph() else "an undirected graph"
        raise GraphError(f"A causal graph is directed, one edge from a node to another; this GML is {got}.")
    if len(graph) > NODES:
        raise GraphError(f"The graph has {len(graph):,} nodes, at most {NODES:,} are allowed.")
    labels = {each: str(data.get("label", each)) for each, data in graph.nodes(data=True)}
    for each, data in graph.nodes(data=True):
        if why := _unsaid(data):
            raise GraphError(f"The GML graph: {_show(labels[each])} {why}")
    parents = {label: [labels[each] for each in graph.predecessors(node)] for node, label in labels.items()}
    if len(parents) < len(labels):
        twice = next(label for label in parents if list(labels.values()).count(label) > 1)
        raise GraphError(f"Two nodes of the GML graph have the label {_show(twice)}. Rename one of them.")
    return parents


class _Token(NamedTuple):
    kind: str
    text: str
    place: int


class _Parser:
    """Recursive descent through statements: chains of nodes and blocks, attributes, nested blocks."""

    def __init__(self, text: str, form: GraphFormat) -> None:
        self.text, self.form = text, form
        self.parents: dict[str, list[str]] = {}
        self.edges: set[tuple[str, str]] = set()
        self.merged = False
        self.tokens = self._tokenise()
        self.token = next(self.tokens)

    def parse(self) -> dict[str, list[str]]:
        """The parents of each node."""
        self.merged = self._keyword("strict")
        if self.merged:
            self._advance()
        if self.token.text.lower() not in ("digraph", "dag"):
            self._refuse("expected 'digraph' (DOT) or 'dag' (dagitty), whose edges are from cause to effect")
        self._advance()
        if self.token.kind in ("bare", "quoted"):
            self._advance()  # the name of the graph
        self._block(0)
        if self.token.kind != "end":
            self._refuse("expected the end of the text after the graph")
        return self.parents

    def _block(self, depth: int) -> list[str]:
        """The statements in braces; the nodes they name, each once."""
        if depth > DEPTH:
            self._refuse(f"blocks are more than {DEPTH} deep")
        self._expect("{")
        named: dict[str, None] = {}
        while self.token.text != "}" or self.token.kind != "mark":
            if self.token.kind == "mark" and self.token.text == ",":  # neither format has any here
                self._refuse("no comma stands between statements. Write a -> {b c}, or a -> b; a -> c")
            if not self._mark(";"):
                named |= dict.fromkeys(self._statement(depth))
        self._expect("}")
        return list(named)

    def _statement(self, depth: int) -> list[str]:
        start = self.token
        if self._keyword("node", "edge", "graph"):
            self._advance()
            attributes = self._attributes()
            if start.text.lower() == "edge":
                self._refuse_direction(attributes, start)
            return []
        groups, arrows = [self._group(depth)], list[_Token]()
        if start.kind != "mark" and self._mark("="):
            self._name("a value")  # of an attribute of the graph
            return []
        for each in groups[0] if start.kind != "mark" and self.token.kind != "arrow" else ():
            self._add(each)
        while self.token.kind == "arrow":
            arrows.append(self.token)
            self._advance()
            groups.append(self._group(depth))
        for (tails, heads), arrow in zip(pairwise(groups), arrows, strict=True):
            self._connect(tails, heads, arrow)
        attributes = self._attributes()
        if not arrows and (why := _unsaid(attributes)):
            self._refuse(f"{_show(start.text)} {why}", start)
        if arrows:
            self._refuse_direction(attributes, start)
        return [node for group in groups for node in group]

    def _group(self, depth: int) -> list[str]:
        """One node, or the nodes of a block."""
        if self.form == "dot" and self._keyword("subgraph"):
            self._advance()
            if self.token.kind in ("bare", "quoted"):
                self._advance()
        if self.token.kind == "mark" and self.token.text == "{":
            return self._block(depth + 1)
        name = self._name("a node, '{' or '}'")
        if self._mark(":"):
            self._refuse("ports of nodes are not read. Leave them out")
        return [name]

    def _connect(self, tails: list[str], heads: list[str], arrow: _Token) -> None:
        if arrow.text == "<->":
            self._refuse(
                f"{_pair(tails, heads, arrow)} says that both have a hidden common cause. {_HIDDEN} add the "
                "cause as a node with edges to both where there are data of it; else take the edge out, and "
                "answers rest on its absence",
                arrow,
            )
        if arrow.text == "--":
            told = f"{_pair(tails, heads, arrow)} has no direction. Write which one causes the other"
            self._refuse(told, arrow)
        if arrow.text == "<-":
            if self.form == "dot":
                self._refuse("'<-' is dagitty's. DOT writes a -> b", arrow)
            tails, heads = heads, tails
        if len(self.edges) + len(tails) * len(heads) > VALUES:
            self._refuse(f"the graph has more than {VALUES:,} edges", arrow)
        for node in (*tails, *heads):
            self._add(node)
        for head in heads:
            for tail in tails:
                if (tail, head) not in self.edges:
                    self.edges.add((tail, head))
                    self.parents[head].append(tail)
                elif not self.merged:
                    told = f"the edge {_show(tail)} -> {_show(head)} is there twice. Remove one"
                    self._refuse(told, arrow)

    def _add(self, node: str) -> None:
        self.parents.setdefault(node, [])
        if len(self.parents) > NODES:
            self._refuse(f"the graph has more than {NODES:,} nodes")

    def _refuse_direction(self, attributes: Mapping[str, str], start: _Token) -> None:
        """Refuse edges that are drawn otherwise than their arrow says, or not at all, as for the layout."""
        for name, value in _UNDRAWN.items() if self.form == "dot" else ():
            if value in map(str.strip, attributes.get(name, "").split(",")):
                self._refuse(f"{name}={value} draws no arrow. Take out the edge, or the attribute", start)
        if (drawn := attributes.get("dir", "forward")) != "forward":
            self._refuse(f"dir={drawn} draws another edge than it says. Write edges as a -> b", start)

    def _attributes(self) -> dict[str, str]:
        found: dict[str, str] = {}
        while self._mark("["):
            while not self._mark("]"):
                if not self._mark(";", ","):
                    name = self._name("an attribute or ']'").lower()
                    name = _SHORT.get(name, name) if self.form == "dagitty" else name
                    found[name] = self._name("a value") if self._mark("=") else ""
        return found

    def _name(self, expected: str) -> str:
        if self.token.kind not in ("bare", "quoted"):
            self._refuse(f"expected {expected}")
        name, bare = self.token.text, self.token.kind == "bare"
        if bare and self.form == "dot" and re.fullmatch(r"-?(\.\d+|\d+(\.\d*)?)|[^\W\d]\w*", name) is None:
            self._refuse("such a name stands in quotes")
        if not bare:
            name = name.replace("\\\n", "").replace('\\"', '"')
        self._advance()
        return name

    def _keyword(self, *words: str) -> bool:
        """Whether the next word is one of these, which know no case."""
        return self.token.kind == "bare" and self.token.text.lower() in words

    def _mark(self, *marks: str) -> bool:
        """Take one of these marks, where it is next."""
        found = self.token.kind == "mark" and self.token.text in marks
        if found:
            self._advance()
        return found

    def _expect(self, mark: str) -> None:
        if not self._mark(mark):
            self._refuse(f"expected {mark!r}")

    def _advance(self) -> None:
        if self.token.kind != "end":
            self.token = next(self.tokens)

    def _tokenise(self) -> Iterator[_Token]:
        place = count = 0
        while place < len(self.text):
            found = _TOKEN.match(self.text, place)
            if found is None:
                self._refuse("expected a name, an arrow or a mark", _Token("", self.text[place], place))
            kind = cast(str, found.lastgroup)
            if kind != "space":
                if (count := count + 1) > _TOKENS:
                    self._refuse(f"more than {_TOKENS:,} names and marks", _Token("", "", place))
                yield _Token(kind, found[kind], place)
            place = found.end()
        yield _Token("end", "the end", place)

    def _refuse(self, why: str, token: _Token | None = None) -> NoReturn:
        token = self.token if token is None else token
        line = self.text.count("\n", 0, token.place) + 1
        column = token.place - self.text.rfind("\n", 0, token.place)
        why = why if why.endswith(".") else f"{why}."
        got = f" Got {_show(token.text)}." if why.startswith(("expected", "such")) else ""
        raise GraphError(f"The graph's text, line {line}, column {column}: {why}{got}")


def _pair(tails: list[str], heads: list[str], arrow: _Token) -> str:
    one, other = (", ".join(map(_show, nodes[:3])) for nodes in (tails, heads))
    return f"{one} {arrow.text} {other}"
