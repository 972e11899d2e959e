"""Average (ATE), conditional (CATE) and individual treatment effects of an intervention against another.

    effect = E[s(Y(do)) - s(Y(versus))],   s the statistic, the identity for numbers

population   n draws of the noise, shared by both worlds (common random numbers): ATE
given        by group of nodes that no intervention reaches: CATE; by a node that is set itself: its natural
             value, the effect on the treated
evidence     rows with their abducted noise, each with max(2, n // B) draws of what it leaves open: ITE and
             their mean

Errors and intervals are of finitely many draws and rows, particles included, never of the fitted model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import product
from math import prod
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from causalgen.arguments import share
from causalgen.counterfactuals.abduction import Abduction
from causalgen.counterfactuals.assignments import Policy, Replace, Stochastic
from causalgen.counterfactuals.nested import named_worlds
from causalgen.counterfactuals.results import Counterfactual, Draws
from causalgen.counterfactuals.summaries import number_text
from causalgen.data.arrow_tables import Tabular
from causalgen.effects.estimates import Estimate, Floats, estimate, individual_means
from causalgen.effects.groups import (
    Given,
    Statistic,
    check_statistic,
    group_edges,
    group_labels,
    measure,
    refuse_reached,
)
from causalgen.effects.population import Population
from graphs.causal_graph import CausalGraph
from graphs.errors import EvidenceError, UnknownNameError
from graphs.text import Shown, counted
from graphs.variables import Variable
from mechanisms.seeds import keyed_seed

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Effect", "Question", "find_effect"]

_COLUMNS = ("value", "standard_error", "low", "high", "under_do", "under_versus")
_SHOWN = 8
"""Most numbers of a statistic that are told one by one."""


@dataclass(frozen=True)
class Question:
    """What ``SCM.effect`` was asked; see there."""

    target: str
    do: Mapping[str, Any]
    versus: Mapping[str, Any] | None = None
    given: Given | None = None
    worlds: Mapping[str, Mapping[str, Any]] | None = None
    statistic: Statistic | None = None
    confidence: float = 0.95
    clip: bool = False
    intervals: bool = True

    def check(self, graph: CausalGraph, variables: Mapping[str, Variable]) -> None:
        """Refuse what cannot be answered, before anything is computed."""
        UnknownNameError.check("node", self.target, variables, where="target")
        check_statistic(self.target, variables[self.target], self.statistic)
        share(self.confidence, "confidence")
        does = named_worlds(self.do, self.versus, self.worlds)
        for world in ("do", "versus"):
            for node in does[world]:
                UnknownNameError.check("node", node, variables, where=world)
        if self.given is not None:
            touched = {*does["do"], *does["versus"]}
            refuse_reached(group_edges(self.given, variables).keys(), touched, graph)


@dataclass(frozen=True, eq=False, repr=False)
class Effect(Shown, Tabular):
    """The mean effect on a target, overall and by group. ``print`` shows it."""

    target: str  #: the node
    do: str  #: what was set, as text
    versus: str  #: what it is compared with
    overall: Estimate  #: the mean effect with its error and interval
    given: tuple[str, ...]  #: nodes grouped by
    #: Effect of each group that occurs, by the node's value, or a tuple of several nodes' values
    groups: Mapping[Any, Estimate]
    #: Effect of each row of evidence, averaged over its draws; of each draw of a population, (B, *shape)
    individual: Floats
    #: Monte Carlo standard error of each row of evidence, (B, *shape); 0 where the evidence leaves nothing
    #: open, and where the row's draws all agree, which few draws may by chance. None for a population.
    individual_error: Floats | None
    #: How the target's values were obtained, in both worlds; see ``causalgen.counterfactuals.provenance``
    provenance: tuple[str, ...]
    confidence: float  #: of the intervals
    seed: int  #: gives the same result again
    index: pd.Index | None = None  #: of the evidence, where it was a DataFrame
    #: How many refits the errors and intervals include; 0 where they are of draws and rows alone
    refits: int = 0
    clusters: int | None = None  #: of training rows, which the refits drew whole; None where they drew rows
    fitted: bool = True  #: whether it depends on what was fitted, so that there is an error of the fit

    @property
    def value(self) -> Any:
        """The mean effect: a float, or an array of the statistic's shape."""
        return self.overall.value

    @property
    def standard_error(self) -> Any:
        """Its standard error."""
        return self.overall.standard_error

    @property
    def interval(self) -> tuple[Any, Any]:
        """Its interval, at the level ``confidence``."""
        return self.overall.low, self.overall.high

    @property
    def named(self) -> list[tuple[str, Estimate]]:
        """Each group's label as text, and its estimate."""
        labels = [label if isinstance(label, tuple) else (label,) for label in self.groups]
        texts = [", ".join(map(str, label)) for label in labels]
        return list(zip(texts, self.groups.values(), strict=True))

    @property
    def versus_text(self) -> str:
        """What it is compared with, in words."""
        return "no intervention" if self.versus == "do()" else self.versus

    @property
    def included(self) -> str:
        """What the interval is of, and what it leaves out."""
        if self.refits:
            refits = f"{self.refits} refits" + (f" to {self.clusters:,} clusters" if self.clusters else "")
            of = f"{refits} and finite draws, given the graph and the forms of the mechanisms"
            if self.clusters and self.individual_error is not None and self.overall.rows > 1:
                of += "; rows of evidence count as independent, whatever their clusters"
        elif not self.fitted:
            of = "finite draws and rows, given the equations"
        else:
            of = "finite draws and rows; without the error of the fit (refits=...)"
        edited = any("approximate" in each for each in self.provenance)
        return of + ("; without the bias of approximate noise, such as guidance's" if edited else "")

    def to_frame(self, *, individual: bool = False) -> pd.DataFrame:
        """The effect as a table: one line, or one a group; with ``individual`` one a row."""
        return _individual_frame(self) if individual else _frame(self)

    def plot(self) -> Figure:
        """The mean effect, overall and by group, with its intervals."""
        return import_module("causalgen.plotting.effect_plots").plot_effect(self)

    def __repr__(self) -> str:
        return _text(self)


def find_effect(
    question: Question, source: Abduction | Population, graph: CausalGraph, variables: Mapping[str, Variable]
) -> Effect:
    """Compare the two worlds of a question that was checked."""
    target, does = question.target, named_worlds(question.do, question.versus, question.worlds)
    found = source.worlds(does, targets=[target], only=("do", "versus"), clip=question.clip)
    pair = found["do"], found["versus"]
    levels, certain, bounded = _measured(question, pair, variables[target])
    lineages = _lineages(pair)
    touched = {node for node in {*does["do"], *does["versus"]} if not _set_alike(does, node)}
    reached = target in touched or target in graph.descendants(touched)
    generator = np.random.default_rng(keyed_seed(source.seed, "bootstrap"))
    # One row of evidence that meets several values in do is one row still: all values share its draws.
    one_row = source.rows == 1 and pair[0].rows > 1

    def over(mask: NDArray[np.bool_] | None = None) -> Estimate:
        one, other = (each.mean(1, keepdims=True) if one_row else each for each in levels)
        found = estimate(
            one,
            other,
            mask[:, :1] if one_row and mask is not None else mask,
            certain=certain,
            reached=reached,
            bounded=bounded,
            confidence=question.confidence if question.intervals else None,
            generator=generator,
            lineages=[each[:, :1] for each in lineages] if one_row else lineages,
        )
        return replace(found, rows=pair[0].rows) if one_row else found

    edges = {} if question.given is None else group_edges(question.given, variables)
    individual, error = individual_means(levels[0] - levels[1], certain, lineages)
    return Effect(
        target,
        _say(question.do),
        _say(question.versus or {}),
        over(),
        tuple(edges),
        {label: over(mask) for label, mask in _groups(source, edges, variables, pair[0])},
        individual,
        error if isinstance(pair[0], Counterfactual) else None,
        tuple(sorted({str(each) for world in pair for each in world.provenance[target]})),
        question.confidence,
        source.seed,
        pair[0].index,
    )


def _set_alike(does: Mapping[str, Mapping[str, Any]], node: str) -> bool:
    """Whether both worlds set a node to one number; a text may be an expression, which reads other nodes."""
    one, other = (does[world].get(node) for world in ("do", "versus"))
    return all(isinstance(each, int | float | np.number) for each in (one, other)) and one == other


def _measured(
    question: Question, pair: tuple[Draws, Draws], variable: Variable
) -> tuple[tuple[Floats, Floats], bool, bool]:
    """The statistic in both worlds, (S, B, *shape); whether samples do not differ; whether it is boolean."""
    one, other = pair
    if one.rows != other.rows:
        raise EvidenceError(
            f"The two worlds have {one.rows} and {other.rows} rows. "
            "Give do and versus one value, or one a row."
        )
    values = [each.canonical(question.target) for each in pair]
    found, boolean = zip(
        *(measure(question.target, variable, each, question.statistic) for each in values), strict=True
    )
    certain = one.samples is not None and all(len(each) == one.rows for each in values)
    shape = one.samples or 1, one.rows
    return (_spread(found[0], *shape), _spread(found[1], *shape)), certain, all(boolean)


def _spread(measured: NDArray[Any], samples: int, rows: int) -> NDArray[Any]:
    """(B or S * B, *shape) as (S, B, *shape)."""
    if len(measured) == rows:
        return np.broadcast_to(measured, (samples, *measured.shape))
    return measured.reshape(samples, rows, *measured.shape[1:])


def _lineages(pair: tuple[Draws, Draws]) -> list[NDArray[np.int64]]:
    """Lineages of the draws behind both worlds, (S, B) each; see ``missing_evidence.particles``."""
    worlds = [each for each in pair if isinstance(each, Counterfactual)]
    found = [lineage.cpu().numpy() for each in worlds for lineage in each.lineages]
    return [each for k, each in enumerate(found) if not any(np.array_equal(each, one) for one in found[:k])]


def _groups(
    source: Abduction | Population,
    edges: Mapping[str, NDArray[np.float64] | None],
    variables: Mapping[str, Variable],
    world: Draws,
) -> list[tuple[Any, NDArray[np.bool_]]]:
    """Label and mask (S, B) of each group that occurs, in the order of the values."""
    if not edges:
        return []
    factual = source.worlds({"factual": {}}, targets=list(edges))["factual"]
    coded = {}
    for node, cuts in edges.items():
        values = factual.canonical(node).cpu().numpy()
        if factual.rows == 1 and world.rows > 1:  # one row of evidence met several values in do
            values = np.repeat(values, world.rows, axis=0)  # which draw by draw stand side by side
        shaped = _spread(values, world.samples or 1, world.rows)
        coded[node] = group_labels(node, variables[node], shaped, cuts)
    several = []
    for numbers in product(*(np.unique(codes).tolist() for codes, _ in coded.values())):
        pairs = list(zip(numbers, coded.values(), strict=True))
        mask = np.logical_and.reduce([codes == number for number, (codes, _) in pairs])
        if mask.any():
            label = [labels[number] for number, (_, labels) in pairs]
            several.append((tuple(label) if len(label) > 1 else label[0], mask))
    return several


def _say(do: Mapping[str, Any]) -> str:
    return f"do({', '.join(f'{node} = {_value(value)}' for node, value in do.items())})"


def _value(value: Any) -> str:
    if isinstance(value, str | PurePath | Policy | Replace | Stochastic):
        return str(value)
    text = getattr(value, "__name__", repr(value))
    if len(text) <= 40 and "\n" not in text:
        return text
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" if shape is None else f"values of shape {tuple(shape)}"


def _frame(effect: Effect) -> pd.DataFrame:
    """A line a group, or a single one; a line for each component where the statistic has a shape.

    Columns: the nodes grouped by, ``component`` where there are several, then those of ``Estimate``. A node
    that is called like one of these is ``value_group`` and the like.
    """
    import pandas as pd

    if not effect.groups:
        return pd.DataFrame(_estimate_lines(effect.overall))
    lines: list[dict[str, Any]] = []
    for label, each in effect.groups.items():
        labels = label if len(effect.given) > 1 else (label,)
        figures = _estimate_lines(each)
        names = [f"{node}_group" if node in figures[0] else node for node in effect.given]
        lines += [{**dict(zip(names, labels, strict=True)), **line} for line in figures]
    return pd.DataFrame(lines)


def _individual_frame(effect: Effect) -> pd.DataFrame:
    """A line a row: its effect, and the standard error where rows are evidence; components side by side."""
    import pandas as pd

    found = {"effect": effect.individual}
    if effect.individual_error is not None:
        found["standard_error"] = effect.individual_error
    columns: dict[str, Any] = {}
    for name, values in found.items():
        if values.ndim == 1:
            columns[name] = values
            continue
        flat = values.reshape(len(values), -1)
        columns |= {f"{name}_{number}": flat[:, number] for number in range(flat.shape[1])}
    index = effect.index
    return pd.DataFrame(
        columns, index=pd.RangeIndex(len(effect.individual), name="row") if index is None else index
    )


def _text(effect: Effect) -> str:
    """The question, the mean effect, and a line for each group."""
    rows = effect.overall.rows
    what = (
        "draws" if effect.individual_error is None else "row of evidence" if rows == 1 else "rows of evidence"
    )
    lines = [
        f"Effect on {effect.target} of {effect.do} against {effect.versus_text}",
        f"  {_estimate_line(effect.overall)}",
        f"  over {rows:,} {what} ({', '.join(effect.provenance)}); {100 * effect.confidence:g} % interval of "
        + effect.included,
    ]
    if effect.groups:
        lines.append(f"by {', '.join(effect.given)}:")
        width = max(len(name) for name, _ in effect.named)
        for name, each in effect.named:
            lines.append(f"  {name:<{width}}  {_estimate_line(each)}, {counted(each.rows, 'row')}")
    return "\n".join(lines)


def _estimate_lines(each: Estimate) -> list[dict[str, Any]]:
    shape = np.shape(each.value)
    if shape == ():
        return [{name: getattr(each, name) for name in (*_COLUMNS, "rows", "all_agree")}]
    flat = {name: np.reshape(getattr(each, name), -1) for name in _COLUMNS}
    return [
        {"component": tuple(map(int, np.unravel_index(number, shape)))}
        | {name: float(values[number]) for name, values in flat.items()}
        | {"rows": each.rows, "all_agree": bool(np.reshape(each.all_agree, -1)[number])}
        for number in range(prod(shape))
    ]


def _estimate_line(each: Estimate) -> str:
    if np.size(each.value) > _SHOWN:
        low, high = np.min(each.value), np.max(each.value)
        return f"{np.size(each.value):,} numbers, {np.shape(each.value)}, from {low:.4g} to {high:.4g}"
    if np.shape(each.value) != ():
        return f"{_show(each.value)} +- {_show(each.standard_error)}"
    value, low, high = (number_text(figure, each.told_error) for figure in (each.value, each.low, each.high))
    apart = abs(each.value) if abs(each.value) > 1e-9 * abs(each.under_do) else 0.0  # else by rounding
    one, other = (number_text(mean, apart) for mean in (each.under_do, each.under_versus))
    agree = "; all agree" if each.all_agree else ""
    return f"{value} +- {each.told_error:.2g}  [{low}, {high}]  ({one} against {other}){agree}"


def _show(values: Any) -> str:
    return np.array2string(np.asarray(values), precision=4).replace("\n", "")
