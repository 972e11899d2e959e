"""The evaluation report: print it, take it as plain values, or write it to a folder as an HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causalgen.evaluation.metric import CONTROLS, FLOOR, MECHANISM, MODEL, Entry
from causalgen.evaluation.readings import Readings
from causalgen.metrics.image_rows import distance_unit
from causalgen.metrics.scores import Score, figure
from causalgen.plotting.plot_style import page_template
from causalgen.saving.manifest import check_result_folder, library_versions, write_result
from causalgen.scm import SCM
from graphs.text import aligned
from graphs.variables import Variable
from mechanisms.registry import told_options

__all__ = ["EvaluatedModel", "EvaluationReport", "REPORT"]

REPORT = "report.json"

Cell = Score | str | None

_CONTROLS = ("do nothing", "a random real image", "the nearest real image", "a sample of the model")
_LABELS = {
    MECHANISM: "counterfactual, mechanism",
    MODEL: "counterfactual, whole model",
    **{name: f"control: {label}" for name, label in zip(CONTROLS, _CONTROLS, strict=True)},
    FLOOR: "floor",
}
_APART = (
    "consistency",
    "likeness",
    "diversity",
    "true error",
    "reversibility",
    "composition",
    "log-likelihood",
)
"""Metrics with a table of their own."""

_NAMES = {"distance": "distance to the factual"}
_WITH_UNIT = ("distance", "FD")
_ARROWS = {"higher": " \u2191", "lower": " \u2193", "neither": ""}
"""Which way is better."""


@dataclass(frozen=True)
class EvaluatedModel:
    """What was evaluated."""

    name: str  # of the model
    description: str  # a line a node
    parameters: Mapping[str, int]  # numbers that were fitted, by node
    options: Mapping[str, Mapping[str, Any]]  # of each node's mechanism, as a file would say them
    causes: Mapping[str, Sequence[str]]  # of each image node, those of one value
    units: Mapping[str, str]  # what a distance counts, by node
    evaluators: Mapping[str, Mapping[str, Sequence[str]]]  # who reads which attribute of each image node
    versions: Mapping[str, str]  # of what computed it

    @classmethod
    def of(cls, scm: SCM, images: Mapping[str, tuple[Mapping[str, Variable], Readings]]) -> EvaluatedModel:
        """What a report says of a model; ``images`` are the causes and readings of its image nodes."""
        mechanisms = scm.mechanisms.items()
        return cls(
            scm.name or "unnamed model",
            scm.describe(),
            {node: sum(each.numel() for each in mechanism.parameters()) for node, mechanism in mechanisms},
            {node: told_options(mechanism.spec) for node, mechanism in mechanisms},
            {node: tuple(causes) for node, (causes, _) in images.items()},
            {node: distance_unit(variable) for node, variable in scm.variables.items()},
            {
                node: {by: tuple(each) for by, each in readings.by.items()}
                for node, (_, readings) in images.items()
            },
            library_versions(("causalgen", "torch")),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        fields = {name: value for name, value in vars(self).items() if name != "units"}
        return fields | {"description": self.description.splitlines()}


@dataclass(frozen=True, repr=False)
class EvaluationReport:
    """What ``cg.evaluate`` found; ``print`` it, or ``save`` it as a page."""

    model: EvaluatedModel  #: what was evaluated
    rows: int  #: evaluated
    available: int  #: rows of the data that have every value
    composed: int  #: rows on which composition of images was measured
    seed: int  #: gives the same report again
    truth: bool  #: whether true counterfactuals were known
    entries: tuple[Entry, ...]  #: every figure; see ``find``
    check: Mapping[str, Any] | None  #: what ``scm.check`` found, or None
    notes: tuple[str, ...]  #: what could not be measured, and why
    images_per_second: Mapping[str, float]  #: counterfactual images a second, by node
    seconds: float  #: spent in all
    pictures: Mapping[str, bytes]  #: PNGs by name

    def find(self, metric: str, **where: str) -> list[Entry]:
        """The entries of a metric, with these values of ``node``, ``subject``, ``do``, ``of`` or ``by``."""
        return [
            entry
            for entry in self.entries
            if entry.metric == metric and all(getattr(entry, name) == value for name, value in where.items())
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; what took how long is apart, so that the rest can be compared."""
        return {
            "model": self.model.to_dict(),
            "rows": self.rows,
            "available": self.available,
            "composed": self.composed,
            "seed": self.seed,
            "truth": self.truth,
            "entries": [entry.to_dict() for entry in self.entries],
            "check": self.check,
            "notes": list(self.notes),
            "time": {"seconds": self.seconds, "images_per_second": dict(self.images_per_second)},
        }

    def save(self, folder: Path | str) -> Path:
        """Write ``index.html``, which needs no network, its pictures and ``report.json``; all or nothing.

        Returns:
            The page.

        Raises:
            CheckpointError: the folder holds something else, or cannot be written; it is unchanged then.
        """
        check_result_folder(folder, REPORT)
        template = page_template("causalgen", "evaluation", "report.html.j2", figure=figure)
        page = template.render(report=self, tables=_tables(self), cards=list(_key_figures(self)))
        files = [("index.html", page.encode())]
        files += [(f"pictures/{name}", picture) for name, picture in self.pictures.items()]
        return write_result(folder, files, self.to_dict(), REPORT) / "index.html"

    def __repr__(self) -> str:
        return f"EvaluationReport({self.model.name}: {self.rows:,} rows, {len(self.entries):,} figures)"

    def __str__(self) -> str:
        head = f"{self.model.name}: {self.rows:,} of {self.available:,} rows, seed {self.seed}"
        parts = [head, *(_table_text(table) for table in _tables(self))]
        if self.notes:
            parts.append("Notes\n" + "\n".join(f"  {note}" for note in self.notes))
        return "\n\n".join(parts)


@dataclass(frozen=True)
class _Table:
    """One table, of a node or of several; ``strong`` are the columns it is about, from 0 without labels."""

    title: str
    note: str
    node: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    strong: frozenset[int] = frozenset()


def _tables(report: EvaluationReport) -> list[_Table]:
    """All tables of a report that have something in them."""
    tables: list[_Table] = []
    for node, causes in report.model.causes.items():
        tables += [table for do in causes for table in _questions(report, node, do)]
        tables += [table for do in causes for table in _consistency(report, node, do)]
        tables += [table for do in causes for table in _likeness(report, node, do)]
        tables += [*_true_error(report, node), *_reversibility(report, node)]
    return [*tables, *_composition(report), *_fits(report), *_further(report)]


def _questions(report: EvaluationReport, node: str, do: str) -> Iterator[_Table]:
    """Everything about one intervention: subjects down, metrics across."""
    own = [e for e in report.entries if (e.node, e.do) == (node, do) and e.metric not in _APART]
    columns = dict.fromkeys((e.metric, e.of, e.by) for e in own)
    # Those of the images' attributes first, then as the metrics come.
    ordered = sorted(columns, key=lambda each: each[0] != "effectiveness")
    floors = report.find("effectiveness", node=node, subject=FLOOR)
    found = {
        each: {e.subject: e.score for e in [*floors, *own] if (e.metric, e.of, e.by) == each}
        for each in ordered
    }
    causes = "those that were not set at their factual value"
    if report.truth:
        causes = "the true counterfactual ones"
    note = (
        f"The mechanism is asked with every cause given, {causes}. "
        "The floor is what is read from the factual images, and the least that minimality can be."
    )
    heads = {each: _heading(*each, next(iter(found[each].values()))) for each in ordered}
    strong = [place for place, each in enumerate(ordered) if each[:2] == ("effectiveness", do)]
    yield from _by_subject(
        f"{node} under do({do})", note, node, {heads[each]: found[each] for each in ordered}, strong
    )


def _heading(metric: str, of: str, by: str, score: Score) -> str:
    arrow = _ARROWS[score.better]
    if metric == "effectiveness":
        return f"{of}: {score.unit}, {by}{arrow}"
    unit = score.unit if metric in _WITH_UNIT else ""
    return ", ".join(filter(None, [_NAMES.get(metric, metric), of, by, unit])) + arrow


def _by_subject(
    title: str, note: str, node: str, columns: Mapping[str, Mapping[str, Score]], strong: Sequence[int] = ()
) -> Iterator[_Table]:
    """A table of columns, heading -> subject -> score; none where there are no columns."""
    present = [each for each in _LABELS if any(each in column for column in columns.values())]
    rows = tuple((_LABELS[each], tuple(column.get(each) for column in columns.values())) for each in present)
    if rows:
        yield _Table(title, note, node, ("", *columns), rows, frozenset(strong))


def _by_what(found: Sequence[Entry], metric: str = "") -> dict[str, dict[str, Score]]:
    """Scores by subject of each figure, under what it is of."""
    columns: dict[str, dict[str, Score]] = {}
    for each in found:
        columns.setdefault(f"{metric}{each.of}, {each.score.unit}", {})[each.subject] = each.score
    return columns


def _consistency(report: EvaluationReport, node: str, do: str) -> Iterator[_Table]:
    """Sets of images against samples of the same intervention."""
    columns = _by_what(report.find("consistency", node=node, do=do))
    yield from _by_subject(
        f"{node} under do({do}): interventional consistency",
        "Averaged over factuals, counterfactuals should have the law of the model's own samples under the "
        "same intervention, and are compared with them as a set. Pixel variance within a class: 1 is "
        "consistent, below 1 images are too alike. Distances: 0 is consistent, and equal laws are as far "
        "apart as the few rows make them. Doing nothing is the law of the data, not of the intervention; a "
        "random real image tells how far the model itself is from the data.",
        node,
        columns,
    )


def _likeness(report: EvaluationReport, node: str, do: str) -> Iterator[_Table]:
    """What is kept of the factual, and what differs between draws."""
    kept, drawn = (report.find(metric, node=node, do=do) for metric in ("likeness", "diversity"))
    columns = _by_what(kept, "likeness of ") | _by_what(drawn, "diversity of ")
    point = any(entry.subject == MECHANISM and entry.score.value == 0 for entry in drawn)
    yield from _by_subject(
        f"{node} under do({do}): likeness and diversity",
        "Likeness: how often the counterfactual is nearer to its factual than to another real image of the "
        "factual's class, the direction of the intervention left out (1/2 is chance), and correlations "
        "(r) with the factual of what is read from the image and was not asked to change. Diversity: the "
        "variance of several draws of one row as a share of that over rows that are asked the same, 1 for "
        "draws that do not depend on the row. "
        + ("The abduction of this node gives a point: draws of one row are equal." if point else ""),
        node,
        columns,
    )


def _true_error(report: EvaluationReport, node: str) -> Iterator[_Table]:
    found = report.find("true error", node=node)
    subjects = [each for each in (MECHANISM, MODEL, "do nothing") if any(e.subject == each for e in found)]
    rows: list[tuple[str, tuple[Cell, ...]]] = []
    for do, of in dict.fromkeys((entry.do, entry.of) for entry in found):
        scores = {entry.subject: entry.score for entry in found if (entry.do, entry.of) == (do, of)}
        share = scores[MECHANISM].value / (scores["do nothing"].value or float("nan"))
        rows.append((f"do({do}), {of}", (*(scores.get(each) for each in subjects), figure(share))))
    if rows:
        yield _Table(
            f"{node}: error against the true counterfactual",
            "The true images are what the known data generator makes of the same noise. Attributes are "
            "measured on both. The last column is the mechanism's error as a share of that of doing nothing.",
            node,
            ("", *(_LABELS[each] for each in subjects), "share"),
            tuple(rows),
        )


def _reversibility(report: EvaluationReport, node: str) -> Iterator[_Table]:
    found = report.find("reversibility", node=node)
    there = {entry.do: entry.score for entry in report.find("distance", node=node, subject=MECHANISM)}
    if found:
        yield _Table(
            f"{node}: reversibility",
            "There and back: the counterfactual and its causes, abducted anew, to the factual causes. "
            "No noise is carried over. Distances to the factual, lower is better for the way back.",
            node,
            ("", f"back, {found[0].score.unit}", "there"),
            tuple((f"do({entry.do})", (entry.score, there.get(entry.do))) for entry in found),
        )


def _composition(report: EvaluationReport) -> Iterator[_Table]:
    found = report.find("composition")
    rows: list[tuple[str, tuple[Cell, ...]]] = []
    for node, by in dict.fromkeys((entry.node, entry.by) for entry in found):
        cells = {entry.of: entry.score for entry in found if (entry.node, entry.by) == (node, by)}
        label = f"{node}, {by}" if by else node
        rows.append((label, (cells.get("1"), cells.get("10"), report.model.units[node])))
    if rows:
        yield _Table(
            "Composition",
            "Distance to the factual after null interventions, copying switched off: 0 is perfect, and doing "
            "nothing is too. Step residuals make it exact by construction; what the inversion itself keeps "
            f"is told without them. Images on {report.composed:,} rows.",
            "",
            ("", "1 cycle", "10 cycles", "unit"),
            tuple(rows),
        )


def _fits(report: EvaluationReport) -> Iterator[_Table]:
    likelihood = {entry.node: entry.score for entry in report.find("log-likelihood")}
    fits = report.check["fits"] if report.check else {}
    rows: list[tuple[str, tuple[Cell, ...]]] = []
    for node in dict.fromkeys([*likelihood, *fits]):
        fit = fits.get(node, {})
        figures = [
            figure(fit[name]) if fit.get(name) is not None else None for name in ("mechanism", "baseline")
        ]
        verdict = None if not fit or fit["measure"] == "none" else "ok"
        if fit and not fit["holds"]:
            verdict = f"FAILS: {fit['note']}"
        rows.append((node, (likelihood.get(node), fit.get("measure"), *figures, verdict)))
    if rows:
        yield _Table(
            "Fit on these rows",
            "log p(x | causes) of every node that has a density; and scm.check, on at most 1,000 rows: the "
            "mechanism against its node's marginal alone (log-likelihood: higher is better; energy distance: "
            "lower).",
            "",
            ("", "log-likelihood, nats a row", "check by", "mechanism", "marginal", ""),
            tuple(rows),
        )


def _further(report: EvaluationReport) -> Iterator[_Table]:
    """Metrics of plug-ins that are of no intervention."""
    found = [e for e in report.entries if not e.do and e.metric not in (*_APART, "effectiveness")]
    if found:
        yield _Table(
            "Further metrics",
            "Of metrics that are registered by other packages.",
            "",
            ("", "metric", "subject", "score", "unit"),
            tuple(
                (e.node, (_heading(e.metric, e.of, e.by, e.score), e.subject, e.score, e.score.unit))
                for e in found
            ),
        )


def _table_text(table: _Table) -> str:
    """A table for the terminal, with the intervals of models and not of controls.

    That of an image node stands on its side, its many metrics below each other.
    """
    lines = [tuple(table.head)]
    for label, cells in table.rows:
        control = label.startswith("control")
        shown = (figure(cell.value) if control and isinstance(cell, Score) else cell for cell in cells)
        name = label.removeprefix("counterfactual, ").removeprefix("control: ")
        lines.append((name, *("" if cell is None else str(cell) for cell in shown)))
    if table.node:
        lines = list(zip(*lines, strict=True))
    return "\n".join([table.title, *aligned(lines)])


def _key_figures(report: EvaluationReport) -> Iterator[tuple[str, Score, str]]:
    """What a reader looks for first: label, score, and what to hold it against."""
    for node, causes in report.model.causes.items():
        for do in causes:
            for entry in report.find("effectiveness", node=node, subject=MECHANISM, do=do, of=do):
                own = {"node": node, "of": do, "by": entry.by}
                beside = {
                    "factual images": report.find("effectiveness", subject=FLOOR, **own),
                    "doing nothing": report.find("effectiveness", subject="do nothing", do=do, **own),
                }
                notes = [f"{name} {figure(found[0].score.value)}" for name, found in beside.items() if found]
                yield f"do({do}): {entry.score.unit}, {entry.by}", entry.score, ", ".join(notes)
        for entry in report.find("composition", node=node, of="1"):
            if entry.by != "with residuals":
                unit = f"{entry.score.unit}, {entry.by}".rstrip(", ")
                yield f"{node}: one null intervention", entry.score, unit
        for entry in report.find("reversibility", node=node):
            yield f"{node}: to do({entry.do}) and back", entry.score, entry.score.unit
    if not report.model.causes:
        for entry in report.find("log-likelihood"):
            yield f"{entry.node}: log-likelihood", entry.score, entry.score.unit
