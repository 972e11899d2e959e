"""An SCM file -> a model, and a model -> the file that declares it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from causalgen.atomic import write_atomic
from causalgen.scm import SCM
from graphs.errors import CausalgenError, MechanismError, SpecError, UnknownNameError
from graphs.spec import Locations, NodeSpec, SCMSpec, parse_spec, read_spec, spec_error, write_spec
from mechanisms.base import MechanismSpec
from mechanisms.registry import dump_mechanism, parse_mechanism

if TYPE_CHECKING:
    from typing import Any

__all__ = ["parse_scm", "read_scm", "scm_spec", "write_scm"]


def read_scm(path: Path | str) -> SCM:
    """The model that a file declares, not fitted.

    Raises:
        SpecError: the file does not declare a model; the message starts with file:line:column.
    """
    return _build(*read_spec(path))


def parse_scm(text: str, source: str = "<text>") -> SCM:
    """The model that a file's text declares; ``source`` stands for the file in messages."""
    return _build(*parse_spec(text, source))


def scm_spec(scm: SCM) -> SCMSpec:
    """What a file says of the model: every mechanism with what differs from its kind's defaults.

    Raises:
        MechanismError: a mechanism that no file can say, such as a function of the running program.
    """
    nodes: dict[str, NodeSpec] = {}
    for node in scm.graph.nodes:
        spec = scm.mechanisms[node].spec
        if spec.kind == "function" or (spec.kind == "constant" and getattr(spec, "value", None) is None):
            raise MechanismError(
                f"Node {node!r} was intervened on, which no file can say. Write the model before the intervention."
            )
        nodes[node] = NodeSpec(
            variable=scm.variables[node], parents=list(scm.graph.parents(node)), mechanism=dump_mechanism(spec)
        )
    return SCMSpec(causalgen=1, name=scm.name, nodes=nodes)


def write_scm(scm: SCM, path: Path | str | None = None) -> str:
    """The text of the model's file; written to ``path`` where given, all or nothing."""
    text = write_spec(scm_spec(scm))
    if path is not None:
        write_atomic(Path(path), text.encode())
    return text


def _build(spec: SCMSpec, locations: Locations) -> SCM:
    mechanisms = {
        node: _mechanism(node, each.mechanism, locations)
        for node, each in spec.nodes.items()
        if each.mechanism is not None
    }
    variables = {node: each.variable for node, each in spec.nodes.items()}
    for node, mechanism in mechanisms.items():
        # Bound here once more, so that an option that does not fit its node is reported where it stands.
        try:
            mechanism.bind(variables[node], {parent: variables[parent] for parent in spec.nodes[node].parents})
        except (CausalgenError, ValueError) as error:
            raise SpecError(f"{locations(('nodes', node, 'mechanism'))}: node {node!r}: {error}") from error
    return SCM(spec.graph, variables, mechanisms, spec.name)


def _mechanism(node: str, options: Mapping[str, Any], locations: Locations) -> MechanismSpec:
    place = ("nodes", node, "mechanism")
    try:
        return parse_mechanism(options)
    except ValidationError as error:
        raise spec_error(error, locations, place) from error
    except UnknownNameError as error:
        raise SpecError(f"{locations((*place, 'kind'))}: {error}") from error
    except (SpecError, MechanismError) as error:
        raise SpecError(f"{locations(place)}: {error}") from error
