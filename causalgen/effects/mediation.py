"""Mediation: natural direct effect and natural indirect effect of an intervention.

    total      E[Y(x1)        - Y(x0)]
    direct     E[Y(x1, M(x0)) - Y(x0, M(x0))]     the mediators stay as they would have been at x0
    indirect   E[Y(x0, M(x1)) - Y(x0, M(x0))]     only the mediators change

(Pearl 2001, "Direct and indirect effects".) The three share their noise. Direct and indirect effect add up to
the total one only where treatment and mediators do not interact; what is left, ``interaction``, tells.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from causalgen.counterfactuals.abduction import Abduction
from causalgen.counterfactuals.world_ref import WorldRef
from causalgen.effects.effect import Effect, Question, find_effect
from causalgen.effects.population import Population
from graphs.causal_graph import CausalGraph
from graphs.errors import InterventionError, UnknownNameError
from graphs.shown import Shown
from graphs.variables import Variable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["NaturalEffects", "find_natural_effects"]


@dataclass(frozen=True, eq=False, repr=False)
class NaturalEffects(Shown):
    """The natural effects of an intervention on a target. ``print`` shows them."""

    through: tuple[str, ...]  #: the mediators
    total: Effect  #: effect of the intervention
    direct: Effect  #: the part that goes past the mediators
    indirect: Effect  #: the part that passes through them

    @property
    def interaction(self) -> Any:
        """What the total effect has beyond the sum of the direct and the indirect one."""
        return self.total.value - self.direct.value - self.indirect.value

    def plot(self) -> Figure:
        """Total, direct and indirect effect with their intervals."""
        return import_module("causalgen.plotting.effect_plots").plot_natural_effects(self)

    def __repr__(self) -> str:
        head, *_ = repr(self.total).splitlines()
        parts = {"total": self.total, "direct": self.direct, "indirect": self.indirect}
        lines = [f"  {name:<8}  {repr(each).splitlines()[1].strip()}" for name, each in parts.items()]
        return "\n".join([f"{head}, through {', '.join(self.through)}", *lines])


def find_natural_effects(
    through: tuple[str, ...],
    total: Question,
    source: Abduction | Population,
    graph: CausalGraph,
    variables: Mapping[str, Variable],
) -> tuple[Effect, ...]:
    """Total, direct and indirect effect of a question that was checked.

    Raises:
        UnknownNameError, InterventionError: a mediator that is none.
    """
    versus = total.versus or {}
    _check_mediators(through, total.target, {*total.do, *versus}, graph)
    direct = {**total.do, **{node: WorldRef("versus")[node] for node in through}}
    indirect = {**versus, **{node: WorldRef("treated")[node] for node in through}}
    questions = (total, replace(total, do=direct), replace(total, do=indirect, worlds={"treated": total.do}))
    return tuple(find_effect(each, source, graph, variables) for each in questions)


def _check_mediators(
    through: Collection[str], target: str, touched: Collection[str], graph: CausalGraph
) -> None:
    """Refuse what lies on no path from what is set to the target."""
    if not through:
        raise InterventionError("through names no mediator. Say through=['m'], or ask for effect.")
    for node in through:
        UnknownNameError.check("node", node, graph, where="through")
        if node in touched or node == target:
            what = "is set by the intervention" if node in touched else "is the target"
            raise InterventionError(f"through: {node!r} {what}, and so no mediator.")
        if node not in graph.descendants(touched) or target not in graph.descendants(node):
            raise InterventionError(
                f"through: {node!r} lies on no path from {', '.join(sorted(touched))} to {target}."
            )
