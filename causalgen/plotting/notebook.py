"""What a notebook shows of models, results and reports: HTML, its pictures inside, by ``notebook.html.j2``.

Long tables are cut, and say how many lines are left; values of tensors appear as means and spreads
of the first rows. Everything written is escaped: labels, units and names come from files and data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from causalgen.checking.check_report import CheckReport, verdict_of
from causalgen.counterfactuals.abduction import Abduction
from causalgen.counterfactuals.export import figure_png, figure_svg
from causalgen.counterfactuals.missing_evidence.distributions import NodePosterior
from causalgen.counterfactuals.results import Contrast, Counterfactual, Draws
from causalgen.counterfactuals.summaries import evidence_texts, node_texts, one_draw, value_text
from causalgen.effects.couplings import CouplingSensitivity
from causalgen.effects.effect import Effect
from causalgen.effects.estimates import Estimate
from causalgen.effects.queries import NaturalEffects
from causalgen.fitting.fit_report import FitReport
from causalgen.plotting.graph_plots import plot_graph
from causalgen.plotting.plot_style import page_template
from causalgen.scm import SCM
from graphs.causal_graph import CausalGraph
from graphs.text import counted, shortened
from graphs.variables import Image, Variable, image_variables
from graphs.variables.arrays import as_array

__all__ = ["html"]

_MOST_LINES, _MOST_DRAWN, _MOST_VALUES, _MOST_LETTERS = 24, 60, 4, 200
"""Lines of a table, nodes of a picture of a graph, rows whose values are told, letters of a cell."""


@dataclass(frozen=True)
class _Picture:
    alt: str
    kind: str
    data: bytes
    width: int


@dataclass(frozen=True)
class _Table:
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    more: int = 0


@dataclass(frozen=True)
class _Piece:
    title: str
    lines: Sequence[str] = ()
    picture: _Picture | None = None
    tables: Sequence[_Table] = ()
    problems: Sequence[str] = ()
    notes: Sequence[str] = ()


def html(shown: object) -> str:
    """A piece of a page about a model, a result or a report; of anything else, its repr."""
    template = page_template("causalgen", "plotting", "notebook.html.j2")
    return template.render(piece=_piece(shown))


@singledispatch
def _piece(shown: object) -> _Piece:
    title, *lines = repr(shown).splitlines()
    return _Piece(title, lines)


@_piece.register
def _(shown: CausalGraph) -> _Piece:
    lines = [(node, ", ".join(shown.parents(node)), ", ".join(shown.children(node))) for node in shown.nodes]
    title = f"Causal graph of {counted(len(shown), 'node')} and {counted(len(shown.edges), 'edge')}"
    return _Piece(title, picture=_graph(shown, {}), tables=[_table(("node", "parents", "children"), lines)])


@_piece.register
def _(shown: SCM) -> _Piece:
    lines = []
    for node, variable in shown.variables.items():
        parents, mechanism = ", ".join(shown.graph.parents(node)), shown.mechanisms[node]
        fitted = "fitted" if mechanism.fitted else "not fitted"
        lines.append((node, variable.describe(), parents, mechanism.spec.kind, fitted))
    nodes, edges = counted(len(shown.variables), "node"), counted(len(shown.graph.edges), "edge")
    lacking = sum(not mechanism.fitted for mechanism in shown.mechanisms.values())
    state = f"{lacking} of {nodes} not fitted" if lacking else "fitted"
    return _Piece(
        f"SCM {shown.name or ''}".strip(),
        [f"{nodes}, {edges}; {state}"],
        _graph(shown.graph, shown.variables),
        [_table(("node", "variable", "parents", "mechanism", "state"), lines)],
        [] if shown.fit_report is None else shown.fit_report.advice,
    )


@_piece.register
def _(shown: Draws) -> _Piece:
    lines = [
        (node, variable.describe(), _first_values(shown, node), _sources(shown.provenance[node]))
        for node, variable in shown.variables.items()
    ]
    table = _table(("node", "variable", "first rows", "provenance"), lines)
    title, *_ = repr(shown).splitlines()
    return _Piece(title, [], _result_picture(shown), [table], notes=[f"seed {shown.seed}"])


@_piece.register
def _(shown: Counterfactual) -> _Piece:
    evidence, sources = _evidence(shown), shown.sources
    observed = all((sources[node] == "observed").all() for node in shown.variables)
    values = [(name, evidence[name], text, shown.provenance[node]) for node, name, text in node_texts(shown)]
    lines = [(name, before, after, _sources(how)) for name, before, after, how in values]
    head = ("node", "factual" if observed else "evidence", "counterfactual", "provenance")
    tables = [_table(head, lines)]
    if shown.samples is not None:
        tables.append(_frame(shown.summary(), "Mean and spread of the samples"))
    asked = ", ".join(f"{node} = {text}" for node, text in shown.do.items())
    title, *_ = repr(shown).splitlines()
    notes = [*map(str.strip, one_draw(shown)), f"seed {shown.seed}"]
    return _Piece(title, [f"do({asked})"], _result_picture(shown), tables, notes=notes)


@_piece.register
def _(shown: Contrast) -> _Piece:
    title, *_ = repr(shown).splitlines()
    notes = list(map(str.strip, one_draw(shown.one, shown.other)))
    return _Piece(title, tables=[_frame(shown.summary(), "Differences")], notes=notes)


@_piece.register
def _(shown: Effect) -> _Piece:
    title, *lines = repr(shown).splitlines()
    (what,) = [line.strip() for line in lines if "interval of" in line]
    named = [("all", shown.overall), *shown.named]
    dimensions = np.ndim(shown.value)
    tables = [_frame(shown.to_frame()) if dimensions else _estimates(named, ", ".join(shown.given))]
    picture = _picture(shown.plot(), title)
    if dimensions > 1:  # the picture tells more than a line for each pixel
        return _Piece(title, [lines[0].strip()], picture, notes=[what])
    return _Piece(title, picture=picture, tables=tables, notes=[what])


@_piece.register
def _(shown: NaturalEffects) -> _Piece:
    title, *lines = repr(shown).splitlines()
    parts = {"total": shown.total, "direct": shown.direct, "indirect": shown.indirect}
    scalar = np.shape(shown.total.value) == ()
    tables = [_estimates([(name, each.overall) for name, each in parts.items()], "effect")] if scalar else []
    note = f"{100 * shown.total.confidence:g} % intervals of {shown.total.included}"
    return _Piece(title, [] if scalar else lines, _picture(shown.plot(), title), tables, notes=[note])


@_piece.register
def _(shown: CouplingSensitivity) -> _Piece:
    title, *_, last = repr(shown).splitlines()
    return _Piece(title, [last], tables=[_frame(shown.to_frame().dropna(axis=1, how="all"))])


@_piece.register
def _(shown: NodePosterior) -> _Piece:
    title, *lines = repr(shown).splitlines()
    if isinstance(shown.variable, Image):
        return _Piece(title, lines, _picture(shown.plot(), title, vector=False))
    return _Piece(title, picture=_picture(shown.plot(), title), tables=[_frame(shown.summary())])


@_piece.register
def _(shown: Abduction) -> _Piece:
    lines = []
    for node, variable in shown.variables.items():
        count = int(shown.gaps(node).sum())
        seen = f"not observed in {count:,} of {shown.rows:,} rows: inferred" if count else "observed"
        lines.append((node, variable.describe(), seen, shown.fidelity[node]))
    title, _, _ = repr(shown).partition(":")
    tables = [_table(("node", "variable", "evidence", "noise"), lines)]
    notes = ["Noise is recovered when a question first needs it: counterfactual(do), posterior(node)."]
    return _Piece(title.replace("(", ", ", 1), tables=tables, notes=notes)


@_piece.register
def _(shown: CheckReport) -> _Piece:
    fits = [
        (node, fit.measure, fit.mechanism, fit.baseline, verdict_of(fit.holds), fit.note)
        for node, fit in shown.fits.items()
    ]
    tests = sorted(shown.independences, key=lambda test: (test.holds, test.adjusted, -test.strength))
    said = [(str(test), test.strength, test.adjusted, verdict_of(test.holds)) for test in tests]
    tables = [
        _table(("node", "measure", "mechanism", "marginal", "", ""), fits, "Fit"),
        _table(("independence", "strength", "adjusted p", ""), said, "Independences"),
    ]
    notes = [*(f"{node}: {why}" for node, why in shown.skipped.items()), *shown.advice]
    return _Piece(shown.verdict, tables=tables, problems=shown.problems, notes=notes)


@_piece.register
def _(shown: FitReport) -> _Piece:
    lines = []
    for node, each in shown.items():
        counts = (f"{each.rows:,}", f"{each.held_out:,}", f"{each.steps:,}" if each.steps else "closed form")
        chosen = "" if each.choice is None else str(each.choice["label"])
        lines.append((node, *counts, each.train_loss, each.validation_loss, chosen))
    head = ("node", "rows", "held out", "steps", "loss", "held-out loss", "chosen")
    return _Piece("Fit report", tables=[_table(head, lines)], problems=shown.advice)


def _cell(value: Any) -> str:
    if value is None or value is pd.NA or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ""
    return shortened(value_text(value), _MOST_LETTERS, "…")


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> _Table:
    rows = list(rows)
    cells = [tuple(map(_cell, row)) for row in rows[:_MOST_LINES]]
    return _Table(head, cells, caption, len(rows) - len(cells))


def _frame(frame: pd.DataFrame, caption: str = "") -> _Table:
    """The first lines of a DataFrame with its index, unless that only counts them."""
    plain = frame.index.names == [None]
    head = [*(() if plain else map(str, frame.index.names)), *map(str, frame.columns)]
    part = frame.head(_MOST_LINES)
    index = [() if plain else each if isinstance(each, tuple) else (each,) for each in part.index]
    rows = [(*key, *line) for key, line in zip(index, part.itertuples(index=False, name=None), strict=True)]
    return _Table(head, [tuple(map(_cell, row)) for row in rows], caption, len(frame) - len(part))


def _estimates(named: Sequence[tuple[str, Estimate]], what: str) -> _Table:
    head = (what, "mean effect", "standard error", "interval from", "to", "under do", "under versus", "rows")
    lines = []
    for name, each in named:
        figures = (each.value, each.told_error, each.low, each.high, each.under_do, each.under_versus)
        lines.append((name, *figures, f"{each.rows:,}{', all agree' if np.all(each.all_agree) else ''}"))
    return _table(head, lines)


def _graph(graph: CausalGraph, variables: Mapping[str, Variable]) -> _Picture | None:
    """The picture of a graph that can be read."""
    if len(graph) > _MOST_DRAWN:
        return None
    edges = ", ".join(f"{cause} -> {effect}" for cause, effect in islice(graph.edges, _MOST_LINES))
    return _picture(plot_graph(graph, variables), f"causal graph: {edges or ', '.join(graph.nodes)}")


def _result_picture(draws: Draws) -> _Picture | None:
    return _picture(draws.plot(), repr(draws).splitlines()[0], vector=False) if draws.variables else None


def _picture(figure: Figure, alt: str, *, vector: bool = True) -> _Picture:
    """A figure as SVG, whose text is drawn as shapes; with images in it as PNG, which is smaller."""
    width = round(96 * figure.get_figwidth())
    if not vector:
        return _Picture(alt, "image/png", figure_png(figure), width)
    return _Picture(alt, "image/svg+xml", figure_svg(figure), width)


def _sources(how: Iterable[object]) -> str:
    counts = Counter(map(str, how))
    return ", ".join(f"{name} {count:,}" if len(counts) > 1 else name for name, count in counts.items())


def _evidence(cf: Counterfactual) -> dict[str, str]:
    """What the first rows were, by name of the number; what was not observed says so."""
    sources = cf.sources
    found = {node: _sources(sources[node]) for node in image_variables(cf.variables)}
    for node, name, texts in evidence_texts(cf, _MOST_VALUES):
        pairs = zip(texts, sources[node], strict=False)
        cells = [_cell(text) if how == "observed" else f"{text} ({how})" for text, how in pairs]
        found[name] = ", ".join(cells) + ", ..." * (cf.rows > _MOST_VALUES)
    return found


def _first_values(draws: Draws, node: str) -> str:
    if isinstance(draws.variables[node], Image):
        return ""
    values = as_array(draws[node] if draws.samples is None else draws[node][0], where=node)
    cells = [", ".join(map(_cell, np.ravel(row).tolist())) for row in values[:_MOST_VALUES]]
    return "; ".join(cells) + "; ..." * (draws.rows > _MOST_VALUES)
