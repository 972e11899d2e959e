"""What a causal model says: its variables, its graph, and the file that declares both. Never torch.

The public names load on first use (PEP 562), so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphs.causal_graph import CausalGraph
    from graphs.declared import spec_error
    from graphs.scm_file import NodeSpec, SCMSpec, parse_spec, read_spec, write_spec
    from graphs.strict_yaml import Locations
    from graphs.variables import Categorical, Continuous, Image, Integer, Variable

__all__ = [
    "Categorical",
    "CausalGraph",
    "Continuous",
    "Image",
    "Integer",
    "Locations",
    "NodeSpec",
    "SCMSpec",
    "Variable",
    "parse_spec",
    "read_spec",
    "spec_error",
    "write_spec",
]

_HOMES = {
    "graphs.causal_graph": ("CausalGraph",),
    "graphs.scm_file": ("NodeSpec", "SCMSpec", "parse_spec", "read_spec", "write_spec"),
    "graphs.strict_yaml": ("Locations",),
    "graphs.declared": ("spec_error",),
    "graphs.variables": ("Categorical", "Continuous", "Image", "Integer", "Variable"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
