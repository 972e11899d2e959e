"""What declares a model, between an SCM file's text and the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from graphs.causal_graph import CausalGraph
from graphs.errors import CausalgenError, MechanismError, SpecError, UnknownNameError
from graphs.scm_file import Locations, NodeSpec, SCMSpec, parse_spec, read_spec, spec_error, write_spec
from graphs.variables import Variable
from mechanisms.base import MechanismSpec
from mechanisms.registry import dump_mechanism, mechanism_spec, parse_mechanism

__all__ = ["Declaration"]


@dataclass(frozen=True)
class Declaration:
    """A model before its mechanisms are bound.

    Attributes:
        graph: the causal graph.
        variables: one a node.
        mechanisms: specs of the nodes that name one.
        name: of the model.
    """

    graph: CausalGraph
    variables: Mapping[str, Variable]
    mechanisms: Mapping[str, MechanismSpec]
    name: str | None

    @classmethod
    def read(cls, path: Path | str) -> Declaration:
        """What a file declares.

        Raises:
            SpecError: the file does not declare a model; the message starts with file:line:column.
        """
        return cls._of(*read_spec(path))

    @classmethod
    def parse(cls, text: str, source: str = "<text>") -> Declaration:
        """What a file's text declares; ``source`` stands for the file in messages."""
        return cls._of(*parse_spec(text, source))

    def text(self) -> str:
        """The file's text: every mechanism with what differs from its kind's defaults.

        Raises:
            MechanismError: a mechanism that no file can say, such as a function of the running program.
        """
        for node, spec in self.mechanisms.items():
            if spec.kind in ("drawn", "function") or (
                spec.kind == "constant" and getattr(spec, "value", None) is None
            ):
                raise MechanismError(
                    f"Node {node!r} was intervened on, which no file can say. "
                    "Write the model before the intervention."
                )
            if not _registered(spec):
                raise MechanismError(
                    f"Node {node!r}: its mechanism, {type(spec).__name__} of kind {spec.kind!r}, is not "
                    "registered, so no file can say it. Register it by an entry point."
                )
            if (why := spec.why_unwritable()) is not None:
                raise MechanismError(f"Node {node!r}: {why}")
        nodes = {
            node: NodeSpec(
                variable=self.variables[node],
                parents=self.graph.parents(node),
                mechanism=dump_mechanism(self.mechanisms[node]),
            )
            for node in self.graph.nodes
        }
        return write_spec(SCMSpec(causalgen=1, name=self.name, nodes=nodes))

    @classmethod
    def _of(cls, spec: SCMSpec, locations: Locations) -> Declaration:
        variables = {node: each.variable for node, each in spec.nodes.items()}
        mechanisms: dict[str, MechanismSpec] = {}
        for node, each in spec.nodes.items():
            if each.mechanism is None:
                continue
            mechanisms[node] = _mechanism(node, each.mechanism, locations)
            # Bound once here, so that an option that does not fit its node is reported where it stands.
            try:
                mechanisms[node].bind(variables[node], {parent: variables[parent] for parent in each.parents})
            except (CausalgenError, ValueError) as error:
                raise SpecError(
                    f"{locations[('nodes', node, 'mechanism')]}: node {node!r}: {error}"
                ) from error
        return cls(spec.graph, variables, mechanisms, spec.name)


def _registered(spec: MechanismSpec) -> bool:
    """Whether reading a file would find this class."""
    try:
        return mechanism_spec(spec.kind) is type(spec)
    except UnknownNameError:
        return False


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
