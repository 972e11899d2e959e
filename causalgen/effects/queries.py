"""Causal effects of an ``SCM``: average, conditional, individual; mediation by natural effects.

These functions are methods of ``SCM``: ``scm.effect(...)``.

Mediation, the natural direct effect (NDE) and the natural indirect effect (NIE) of an intervention:

    total      E[Y(x1)        - Y(x0)]
    direct     E[Y(x1, M(x0)) - Y(x0, M(x0))]     the mediators stay as they would have been at x0
    indirect   E[Y(x0, M(x1)) - Y(x0, M(x0))]     only the mediators change

(Pearl 2001, "Direct and indirect effects".) The three share their noise. Direct and indirect effect add up to
the total one only where treatment and mediators do not interact; what is left, ``interaction``, tells.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from causalgen.arguments import chosen_seed, names_of
from causalgen.counterfactuals.evidence import Evidence
from causalgen.counterfactuals.interventions import WorldRef
from causalgen.counterfactuals.mutilated_model import CausalModel, MutilatedModel
from causalgen.counterfactuals.rows import watching
from causalgen.data.reading import Rows
from causalgen.effects.effect import Effect, Question, find_effect
from causalgen.effects.groups import Given, Statistic
from causalgen.effects.population import source_of_worlds
from causalgen.effects.refits import effects_with_refits
from causalgen.fitting.parallel import Workers
from causalgen.fitting.progress import Progress
from graphs.causal_graph import CausalGraph
from graphs.errors import EvidenceError, InterventionError, UnknownNameError
from graphs.text import Shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["NaturalEffects", "effect", "natural_effects"]


def effect(
    scm: CausalModel,
    target: str,
    *,
    do: Mapping[str, Any],
    versus: Mapping[str, Any] | None = None,
    given: Given | None = None,
    evidence: Evidence | None = None,
    n: int = 10_000,
    statistic: Statistic | None = None,
    seed: int | None = None,
    confidence: float = 0.95,
    worlds: Mapping[str, Mapping[str, Any]] | None = None,
    clip: bool = False,
    refits: int = 0,
    data: Any = None,
    clusters: Any = None,
    workers: Workers = 1,
    progress: bool = True,
) -> Effect:
    """How much an intervention changes a target on average, against another.

    Both worlds share their noise, draw by draw. Errors and intervals are of finitely many draws and rows,
    and of the fit only with ``refits``: a bootstrap over the training rows.

    Args:
        scm: the fitted model.
        target: the node.
        do: intervention, as for ``counterfactual``.
        versus: the one to compare with; none where None.
        given: nodes to group by, for conditional effects: a name, several, or a mapping from names to the
            edges that cut a continuous one, as in ``{"age": [18, 65]}``. A node that is set groups by its
            natural value.
        evidence: rows to ask about, for individual effects; the whole population where None.
        n: draws, at least 2: of the population, or of what evidence leaves open, shared by its B rows
            (max(2, n // B) each). An image that is drawn takes n passes through its network for each world,
            and one for the abduction of evidence: 10,000 take long, and the progress says how long.
        statistic: values of N rows -> N numbers, whose mean is compared; needed for categories
            and images, as in ``lambda digit: digit == 3``.
        seed: of all draws; None draws one, which the result names.
        confidence: of the intervals.
        worlds: further interventions by name, whose values ``do`` and ``versus`` may take:
            ``WorldRef("name")["m"]``.
        clip: as for ``counterfactual``.
        refits: how often to fit the model anew, to training rows drawn with replacement, so that errors
            and intervals include the error of the fit; 200 are usual. See ``causalgen.effects.refits``.
        data: the training rows, as for ``fit``; needed for ``refits``.
        clusters: which training rows belong together, such as those of one clinic, and tell less than as many
            rows of different ones: the name of a column of ``data``, which need be no node, or a label a row.
            Refits draw clusters, whole; rows by themselves where None. Rows of ``evidence`` count as
            independent all the same: of rows in clusters ask without it, of the population.
        workers: who share the refits: a number of processes, or a pool; see ``causalgen.fitting.parallel``.
        progress: show progress of the refits, and of draws of images.

    Raises:
        UnknownNameError: no such node or world.
        EvidenceError: a category or an image without ``statistic``, a group that ``do`` changes, or
            ``refits`` that cannot be had.
        InterventionError: ``do`` sets nothing, or an intervention that does not fit the model.
    """
    question = Question(target, do, versus, given, worlds, statistic, confidence, clip)
    question.check(scm._world.graph, scm._variables)
    options: Any = {"count": refits, "data": data, "clusters": clusters, "workers": workers}
    return _answered(scm, [question], evidence, n, seed, progress=progress, **options)[0]


def _answered(
    scm: CausalModel,
    questions: Sequence[Question],
    evidence: Evidence | None,
    n: int,
    seed: int | None,
    *,
    progress: bool,
    **options: Any,
) -> Sequence[Effect]:
    """The effects that questions ask about, checked ones with the same noise; with refits."""
    graph, variables = scm._world.graph, scm._variables
    seed = chosen_seed(seed)

    def ask(world: MutilatedModel, intervals: bool) -> Sequence[Effect]:
        with _shown(progress and world is scm._world):
            source = source_of_worlds(world, variables, evidence, n, seed)
            asked = [replace(each, intervals=intervals) for each in questions]
            return [find_effect(each, source, graph, variables) for each in asked]

    data = options["data"]
    marked = data.intervened if isinstance(data, Rows) else {}
    for node, mechanism in scm._world.mechanisms.items() if options["count"] else ():
        experiments = mechanism.experiments
        if experiments is not None and experiments[0] and node not in marked:
            raise EvidenceError(
                f"refits: the fit left out rows in which an experiment set {node!r}, and these data do not "
                "say which. Give what it was fitted to, cg.Rows(..., intervened=...)."
            )
    options |= {"seed": seed, "progress": progress}
    return effects_with_refits(ask, scm._world, questions[0], evidence, **options)


@contextmanager
def _shown(enabled: bool) -> Iterator[None]:
    """Progress of what takes several blocks of rows, as images do; nothing where all is done at once."""
    if not enabled:
        yield
        return
    with ExitStack() as stack:
        bars: list[Progress] = []

        def tell(what: str, done: int, total: int) -> None:
            if not bars:
                bars.append(stack.enter_context(Progress(what, total, unit="draw")))
            if not done:
                bars[0].begin(what, total)
            bars[0].update(done)

        with watching(tell):
            yield


def natural_effects(
    scm: CausalModel,
    target: str,
    *,
    do: Mapping[str, Any],
    versus: Mapping[str, Any] | None = None,
    through: str | Iterable[str],
    evidence: Evidence | None = None,
    n: int = 10_000,
    statistic: Statistic | None = None,
    seed: int | None = None,
    confidence: float = 0.95,
    clip: bool = False,
    refits: int = 0,
    data: Any = None,
    clusters: Any = None,
    workers: Workers = 1,
    progress: bool = True,
) -> NaturalEffects:
    """Natural direct and indirect effects: how much of an effect passes through mediators.

    ``through`` names these, on paths from what is set to the target; all else is as for ``effect``.

    Raises:
        InterventionError: a mediator that is none.
        UnknownNameError, EvidenceError: as for ``effect``.
    """
    nodes = names_of(through, "through")
    total = Question(target, do, versus, None, None, statistic, confidence, clip)
    total.check(scm._world.graph, scm._variables)
    other = versus or {}
    _check_mediators(nodes, target, {*do, *other}, scm._world.graph)
    direct = {**do, **{node: WorldRef("versus")[node] for node in nodes}}
    indirect = {**other, **{node: WorldRef("treated")[node] for node in nodes}}
    questions = (total, replace(total, do=direct), replace(total, do=indirect, worlds={"treated": do}))
    options: Any = {"count": refits, "data": data, "clusters": clusters, "workers": workers}
    answers = _answered(scm, questions, evidence, n, seed, progress=progress, **options)
    return NaturalEffects(nodes, *answers)


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
