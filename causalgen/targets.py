"""Which nodes a question asks for."""

from collections.abc import Iterable, Mapping

from causalgen.arguments import names_of
from graphs.errors import UnknownNameError
from graphs.variables import Variable

__all__ = ["check_targets"]


def check_targets(targets: Iterable[str] | None, variables: Mapping[str, Variable]) -> tuple[str, ...]:
    """The nodes asked for, in topological order; all where None.

    Raises:
        UnknownNameError: a target is no node.
        EvidenceError: they are no names.
    """
    if targets is None:
        return tuple(variables)
    asked = names_of(targets, "targets")
    for node in asked:
        if node not in variables:
            raise UnknownNameError.of("node", node, variables, where="targets")
    return tuple(node for node in variables if node in asked)
