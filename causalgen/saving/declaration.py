"""A declared model: its graph, its variables and bound mechanisms, from Python or from an SCM file's text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import networkx as nx
from pydantic import ValidationError

from causalgen.saving.atomic import write_atomic
from graphs.causal_graph import CausalGraph
from graphs.errors import (
    CausalgenError,
    CheckpointError,
    GraphError,
    MechanismError,
    SpecError,
    UnknownNameError,
)
from graphs.limits import model_bytes
from graphs.scm_file import Locations, NodeSpec, SCMSpec, parse_spec, read_spec, spec_error, write_spec
from graphs.text import check_text
from graphs.variables import Variable
from graphs.variables.base import VariableBase
from mechanisms.allowance import Allowance
from mechanisms.base import Mechanism, MechanismSpec
from mechanisms.registry import MECHANISMS, default_mechanism, dump_mechanism, mechanism_spec, parse_mechanism

__all__ = ["Declaration", "DeclaredModel"]

_TIMES = 4
"""What binding a saved model may take, in times of its weights: buffers and what initialises them too."""

_SHOWN = 12
"""Nodes named in a line."""


class DeclaredModel(Protocol):
    """What an ``SCM`` declares, as those take it that are beneath the class."""

    @property
    def name(self) -> str | None:
        """Of the model."""

    @property
    def graph(self) -> CausalGraph:
        """The causal graph."""
        ...

    @property
    def variables(self) -> Mapping[str, Variable]:
        """One a node."""
        ...

    @property
    def mechanisms(self) -> Mapping[str, Mechanism]:
        """One a node."""
        ...


@dataclass(frozen=True)
class Declaration:
    """A model before it is fitted."""

    graph: CausalGraph
    variables: Mapping[str, Variable]
    mechanisms: Mapping[str, Mechanism]
    name: str | None

    @classmethod
    def of(
        cls,
        graph: nx.DiGraph[Any] | CausalGraph,
        variables: Mapping[str, Variable],
        mechanisms: Mapping[str, MechanismSpec | Mechanism] | None,
        name: str | None,
    ) -> Declaration:
        """What Python declares; see ``SCM``."""
        causal = graph if isinstance(graph, CausalGraph) else CausalGraph.from_networkx(graph)
        _check_declared(variables, mechanisms, name)
        for what, names in (("variables", variables), ("mechanisms", mechanisms or {})):
            for node in names:
                UnknownNameError.check("node", node, causal, where=what)
        for node in causal.nodes:
            if node not in variables:
                raise GraphError(f"Node {node!r} has no variable. Add variables={{{node!r}: ...}}.")
        own, given = {node: variables[node] for node in causal.nodes}, mechanisms or {}
        bound = {node: _bind(node, given.get(node), causal, own) for node in causal.nodes}
        declared = cls(causal, own, bound, name)
        declared.text(mechanisms=False)  # what no file could say is refused before it is fitted
        return declared

    @classmethod
    def read(cls, path: Path | str) -> Declaration:
        """What a file declares.

        Raises:
            SpecError: the file does not declare a model; the message starts with file:line:column.
        """
        return cls._of(*read_spec(path), model_bytes())

    @classmethod
    def parse(cls, text: str, source: str = "<text>", *, weights: int = 0) -> Declaration:
        """What a file's text declares; ``source`` stands for the file in messages.

        Of so many bytes of weights that come with it, a model may ask for some times as much memory.
        """
        most = max(model_bytes(), _TIMES * weights)
        return cls._of(*parse_spec(text, source), most, saved=weights > 0)

    def text(self, *, mechanisms: bool = True) -> str:
        """The file's text: every mechanism with what differs from its kind's defaults, or none.

        Raises:
            MechanismError: a mechanism that no file can say, such as a function of the running program.
            SpecError: the file would be larger than any that is read.
        """
        said = self.mechanisms.items() if mechanisms else ()
        options = {node: _dumped(node, mechanism.spec) for node, mechanism in said}
        nodes = {
            node: NodeSpec(
                variable=self.variables[node], parents=self.graph.parents(node), mechanism=options.get(node)
            )
            for node in self.graph.nodes
        }
        return write_spec(SCMSpec(causalgen=1, name=self.name, nodes=nodes))

    def describe(self) -> str:
        """The model as text: a line a node."""
        width = max(map(len, self.variables))
        lines = []
        for node, variable in self.variables.items():
            mechanism, parents = self.mechanisms[node], ", ".join(self.graph.parents(node))
            state = "" if mechanism.fitted else "  (not fitted)"
            state += f"  [{mechanism.note}]" if mechanism.note else ""
            lines.append(
                f"{node:<{width}}  {variable.describe()}  <- {mechanism.spec.kind}({parents}){state}"
            )
        return "\n".join(lines)

    def summary(self) -> str:
        """Name, whether it is fitted, and the nodes with their parents, in one line."""
        lacking = [node for node in self.variables if not self.mechanisms[node].fitted]
        state = f"{', '.join(lacking[:4])}{', ...' * (len(lacking) > 4)} not fitted" if lacking else "fitted"
        if len(lacking) == len(self.variables):
            state = "not fitted"
        nodes = [
            f"{node} <- {', '.join(parents)}" if (parents := self.graph.parents(node)) else node
            for node in list(self.variables)[:_SHOWN]
        ]
        more = [f"... {left} more nodes"] if (left := len(self.variables) - _SHOWN) > 0 else []
        return f"{self.name or 'unnamed'}, {state}: {'; '.join([*nodes, *more])}"

    def write(self, path: Path | None) -> str:
        """The file's text, written to ``path`` where given, all or nothing."""
        text = self.text()
        if path is not None:
            try:
                write_atomic(path, text.encode())
            except OSError as error:
                raise CheckpointError(
                    f"Cannot write the SCM file {path}: {error.strerror or error}."
                ) from error
        return text

    @classmethod
    def _of(cls, spec: SCMSpec, locations: Locations, most: int, *, saved: bool = False) -> Declaration:
        variables = {node: each.variable for node, each in spec.nodes.items()}
        mechanisms: dict[str, Mechanism] = {}
        allowance = Allowance(most)
        for node, each in spec.nodes.items():
            given = None if each.mechanism is None else _mechanism(node, each.mechanism, locations)
            given = given.as_saved() if given and saved else given
            try:
                with allowance:
                    mechanisms[node] = _bind(node, given, spec.graph, variables)
            except Exception as error:  # an option that does not fit its node, told where it stands
                place = ("nodes", node) if given is None else ("nodes", node, "mechanism")
                found = str(error).removeprefix(f"Node {node!r}: ")
                if not isinstance(error, CausalgenError):  # of a library, or of a plug-in
                    found = f"its mechanism cannot be made: {type(error).__name__}: {found}"
                raise SpecError(f"{locations[place]}: node {node!r}: {found}") from error
        return cls(spec.graph, {node: variables[node] for node in spec.graph.nodes}, mechanisms, spec.name)


def _check_declared(variables: Any, mechanisms: Any, name: Any) -> None:
    """Refuse what is no variable or no mapping; mechanisms are checked where they are bound."""
    for what, given, example in (
        ("variables", variables, "cg.Continuous()"),
        ("mechanisms", {} if mechanisms is None else mechanisms, "cg.mechanisms.Additive()"),
    ):
        if not isinstance(given, Mapping):
            raise GraphError(
                f"{what} maps nodes to {what}, as in {{'x': {example}}}; got a {type(given).__name__}."
            )
    for node, variable in variables.items():
        if not isinstance(variable, VariableBase):
            got = f"the class {variable.__name__}" if isinstance(variable, type) else repr(variable)
            raise GraphError(
                f"Node {node!r}: a variable is a cg.Categorical, cg.Continuous, cg.Integer or cg.Image, "
                f"as in cg.Continuous(lower=0); got {got}."
            )
    if not isinstance(name, str | None):
        raise GraphError(f"The name of a model is a string, got {name!r}.")
    try:
        check_text(name or "", "name")
    except ValueError as error:
        raise GraphError(f"SCM: {error}.") from error


def _bind(
    node: str, given: MechanismSpec | Mechanism | None, graph: CausalGraph, variables: Mapping[str, Variable]
) -> Mechanism:
    parents = {parent: variables[parent] for parent in graph.parents(node)}
    if isinstance(given, Mechanism):
        if given.variable != variables[node] or list(given.parents.items()) != list(parents.items()):
            raise MechanismError(
                f"Node {node!r}: its mechanism is bound to another variable or other parents."
            )
        return given.eval()
    spec = default_mechanism(variables[node]) if given is None else given
    if not isinstance(spec, MechanismSpec):
        raise MechanismError(
            f"Node {node!r}: a mechanism is a spec such as causalgen.mechanisms.Additive(), "
            f"got {f'the class {spec.__name__}' if isinstance(spec, type) else repr(spec)}."
        )
    try:
        return spec.bind(variables[node], parents).eval()
    except (MechanismError, ValueError) as error:
        raise MechanismError(f"Node {node!r}: {error}") from error


def _dumped(node: str, spec: MechanismSpec) -> dict[str, Any]:
    """A mechanism as a file says it."""
    if (why := spec.why_unwritable()) is not None:
        raise MechanismError(f"Node {node!r}: {why}")
    if not MECHANISMS.provides(spec):
        raise MechanismError(
            f"Node {node!r}: its mechanism, {type(spec).__name__} of kind {spec.kind!r}, is not "
            "registered, so no file can say it. Register it by an entry point."
        )
    return dump_mechanism(spec)


def _mechanism(node: str, options: Mapping[str, Any], locations: Locations) -> MechanismSpec:
    place = ("nodes", node, "mechanism")
    try:
        return parse_mechanism(options)
    except ValidationError as error:
        model = mechanism_spec(str(options["kind"]))
        raise spec_error(error, locations, place, model=model) from error
    except UnknownNameError as error:
        raise SpecError(f"{locations[(*place, 'kind')]}: {error}") from error
    except (SpecError, MechanismError) as error:
        raise SpecError(f"{locations[place]}: {error}") from error
