"""The tables of an evaluation, for the terminal and the page alike: subjects down, metrics across."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from causalgen.evaluation.entries import CONTROLS, FLOOR, MECHANISM, MODEL, Entry
from causalgen.metrics.scores import Score, figure

if TYPE_CHECKING:
    from causalgen.evaluation.evaluation_report import EvaluationReport

__all__ = ["ReportTable", "report_tables", "table_text"]

Cell = Score | str | None

_SUBJECTS = (MECHANISM, MODEL, *CONTROLS, FLOOR)
_LABELS = {
    MECHANISM: "counterfactual, mechanism",
    MODEL: "counterfactual, whole model",
    "do nothing": "control: do nothing",
    "random real": "control: a random real image",
    "nearest real": "control: the nearest real image",
    FLOOR: "floor",
}
_FIDELITY = {
    "distance": "distance to the factual",
    "minimality": "minimality",
    "CLD": "CLD",
    "IM1": "IM1",
    "IM2": "IM2",
    "FD": "FD",
}
_ARROWS = {"higher": " \u2191", "lower": " \u2193", "neither": ""}
"""Which way is better."""


@dataclass(frozen=True)
class ReportTable:
    """One table.

    Attributes:
        title: above it.
        note: below it: how to read it.
        node: the node it is of; empty where it is of several.
        head: of the columns, the first of them that of the labels.
        rows: label and cells.
        strong: columns that the title is about, from 0, labels not counted.
    """

    title: str
    note: str
    node: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    strong: frozenset[int] = frozenset()


def report_tables(report: EvaluationReport) -> list[ReportTable]:
    """All tables of a report that have something in them."""
    tables: list[ReportTable] = []
    for node, causes in report.model.causes.items():
        tables += [_questions(report, node, do) for do in causes if report.find("distance", node=node, do=do)]
        tables += [each for do in causes for each in _consistency(report, node, do)]
        tables += _true_error(report, node)
        tables += _reversibility(report, node)
    tables += _composition(report)
    tables += _fits(report)
    return tables


def _questions(report: EvaluationReport, node: str, do: str) -> ReportTable:
    """Everything about one intervention: subjects down, metrics across."""
    own = {entry for entry in report.entries if entry.node == node and entry.do == do}
    floor = [*report.find("effectiveness", node=node, subject=FLOOR), *own]
    judged = list(
        dict.fromkeys(
            (e.of, e.by, f"{e.score.unit}, {e.by}{_ARROWS[e.score.better]}")
            for e in report.entries
            if e.metric == "effectiveness" and e in own
        )
    )
    head = [f"{of}: {told}" for of, _, told in judged]
    columns = [_column(floor, "effectiveness", of, by) for of, by, _ in judged]
    for metric, label in _FIDELITY.items():
        found = [entry for entry in report.entries if entry in own and entry.metric == metric]
        if found:
            columns.append({entry.subject: entry.score for entry in found})
            unit = f", {found[0].score.unit}" if metric in ("distance", "FD") else ""
            head.append(label + unit + _ARROWS[found[0].score.better])
    present = [each for each in _SUBJECTS if any(each in column for column in columns)]
    rows = tuple((_LABELS[each], tuple(column.get(each) for column in columns)) for each in present)
    strong = frozenset(place for place, (of, _, _) in enumerate(judged) if of == do)
    note = (
        "The mechanism is asked with every cause given"
        + (
            ", the true counterfactual ones"
            if report.truth
            else ", those that were not set at their factual value"
        )
        + ". The floor is what the judge makes of the factual images, and the least that minimality can be."
    )
    return ReportTable(f"{node} under do({do})", note, node, ("", *head), rows, strong)


def _consistency(report: EvaluationReport, node: str, do: str) -> Iterator[ReportTable]:
    """Sets of images against samples of the same intervention."""
    found = report.find("consistency", node=node, do=do)
    if not found:
        return
    units = {entry.of: entry.score.unit for entry in found}
    columns = [{entry.subject: entry.score for entry in found if entry.of == of} for of in units]
    head = [f"{of}, {unit}" for of, unit in units.items()]
    present = [each for each in _SUBJECTS if any(each in column for column in columns)]
    yield ReportTable(
        f"{node} under do({do}): interventional consistency",
        "Averaged over factuals, counterfactuals should have the law of the model's own samples under the "
        "same intervention, and are compared with them as a set. Pixel variance within a class: 1 is "
        "consistent, below 1 images are too alike. Distances: 0 is consistent, and equal laws are as far "
        "apart as the few rows make them. Doing nothing is the law of the data, not of the intervention; a "
        "random real image tells how far the model itself is from the data.",
        node,
        ("", *head),
        tuple((_LABELS[each], tuple(column.get(each) for column in columns)) for each in present),
    )


def _column(entries: Sequence[Entry], metric: str, of: str, by: str) -> dict[str, Score]:
    return {
        entry.subject: entry.score
        for entry in entries
        if (entry.metric, entry.of, entry.by) == (metric, of, by)
    }


def _true_error(report: EvaluationReport, node: str) -> Iterator[ReportTable]:
    found = report.find("true error", node=node)
    if not found:
        return
    subjects = [each for each in (MECHANISM, MODEL, "do nothing") if any(e.subject == each for e in found)]
    rows: list[tuple[str, tuple[Cell, ...]]] = []
    for do, of in dict.fromkeys((entry.do, entry.of) for entry in found):
        scores = {entry.subject: entry.score for entry in found if (entry.do, entry.of) == (do, of)}
        share = scores[MECHANISM].value / (scores["do nothing"].value or float("nan"))
        rows.append((f"do({do}), {of}", (*(scores.get(each) for each in subjects), figure(share))))
    yield ReportTable(
        f"{node}: error against the true counterfactual",
        "The true images are what the known data generator makes of the same noise. Attributes are measured "
        "on both. The last column is the mechanism's error as a share of that of doing nothing.",
        node,
        ("", *(_LABELS[each] for each in subjects), "share"),
        tuple(rows),
    )


def _reversibility(report: EvaluationReport, node: str) -> Iterator[ReportTable]:
    found = report.find("reversibility", node=node)
    rows = []
    for entry in found:
        (there,) = report.find("distance", node=node, do=entry.do, subject=MECHANISM)
        rows.append((f"do({entry.do})", (entry.score, there.score)))
    if rows:
        yield ReportTable(
            f"{node}: reversibility",
            "There and back: the counterfactual and its causes, abducted anew, to the factual causes. "
            "No noise is carried over. Distances to the factual, lower is better for the way back.",
            node,
            ("", f"back, {found[0].score.unit}", "there"),
            tuple(rows),
        )


def _composition(report: EvaluationReport) -> Iterator[ReportTable]:
    found = report.find("composition")
    rows: list[tuple[str, tuple[Cell, ...]]] = []
    for node, by in dict.fromkeys((entry.node, entry.by) for entry in found):
        cells = {entry.of: entry.score for entry in found if (entry.node, entry.by) == (node, by)}
        label = f"{node}, {by}" if by else node
        rows.append((label, (cells.get("1"), cells.get("10"), report.model.units[node])))
    if rows:
        yield ReportTable(
            "Composition",
            "Distance to the factual after null interventions, copying switched off: 0 is perfect, and doing "
            "nothing is too. Step residuals make it exact by construction; what the inversion itself keeps "
            f"is told without them. Images on {report.composed:,} rows.",
            "",
            ("", "1 cycle", "10 cycles", "unit"),
            tuple(rows),
        )


def _fits(report: EvaluationReport) -> Iterator[ReportTable]:
    likelihood = {entry.node: entry.score for entry in report.find("log-likelihood")}
    fits = report.check["fits"] if report.check else {}
    rows: list[tuple[str, tuple[Cell, ...]]] = []
    for node in dict.fromkeys([*likelihood, *fits]):
        fit = fits.get(node, {})
        told = [
            figure(fit[name]) if fit.get(name) is not None else None for name in ("mechanism", "baseline")
        ]
        verdict = None if not fit or fit["measure"] == "none" else "ok" if fit["holds"] else "FAILS"
        rows.append((node, (likelihood.get(node), fit.get("measure"), *told, verdict)))
    if rows:
        yield ReportTable(
            "Fit on these rows",
            "log p(x | causes) of every node that has a density; and scm.check, on at most 1,000 rows: the "
            "mechanism against its node's marginal alone (log-likelihood: higher is better; energy distance: "
            "lower).",
            "",
            ("", "log-likelihood, nats a row", "check by", "mechanism", "marginal", ""),
            tuple(rows),
        )


def table_text(table: ReportTable) -> str:
    """A table for the terminal, with the intervals of models and not of controls.

    That of an image node stands on its side, its many metrics below each other.
    """
    lines = [tuple(table.head)]
    lines += [(_short(label), *(_told(cell, label) for cell in cells)) for label, cells in table.rows]
    if table.node:
        lines = list(zip(*lines, strict=True))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([table.title, *text])


def _short(label: str) -> str:
    return label.removeprefix("counterfactual, ").removeprefix("control: ")


def _told(cell: Cell, label: str) -> str:
    if isinstance(cell, Score) and label.startswith("control"):
        return figure(cell.value)
    return "" if cell is None else str(cell)
