"""References between worlds: ``WorldRef("x0")["m"]`` is the value of node m in the world called x0.

It stands as a value in ``do`` wherever the worlds of a question have names, as nested counterfactuals need;
see ``causalgen.counterfactuals.nested``.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphs.errors import InterventionError

__all__ = ["WorldRef", "WorldValue"]


@dataclass(frozen=True)
class WorldValue:
    """The value of a node in another world, row by row and sample by sample."""

    world: str
    node: str

    def __repr__(self) -> str:
        return f"WorldRef({self.world!r})[{self.node!r}]"


@dataclass(frozen=True)
class WorldRef:
    """Another world of the same question, by name; ``WorldRef("x0")["m"]`` is the value of node m there.

    It stands as a value in ``do`` wherever worlds have names: in ``Abduction.worlds``, ``Abduction.contrast``
    and ``SCM.effect``. In the last two, "do" and "versus" are the two worlds compared, and "factual" is the
    one without intervention.

    Raises:
        InterventionError: the name is no string.
    """

    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise InterventionError(
                f"WorldRef takes the name of a world, as in WorldRef('x0'); got {self.name!r}."
            )

    def __getitem__(self, node: str) -> WorldValue:
        if not isinstance(node, str):
            raise InterventionError(f"{self!r} is indexed by a node, as in {self!r}['x']; got {node!r}.")
        return WorldValue(self.name, node)

    def __repr__(self) -> str:
        return f"WorldRef({self.name!r})"
