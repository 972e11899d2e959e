"""The page of an evaluation: one HTML file that needs no network, its pictures inside it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from causalgen.evaluation.entries import FLOOR, MECHANISM
from causalgen.evaluation.page_style import STYLE, TERMS
from causalgen.evaluation.report_tables import Cell, ReportTable, report_tables
from causalgen.metrics.scores import Score, figure

if TYPE_CHECKING:
    from causalgen.evaluation.evaluation_report import EvaluationReport

__all__ = ["evaluation_page"]


def evaluation_page(report: EvaluationReport) -> str:
    """The page as text."""
    title = f"Evaluation of {report.model.name}"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(_lead(report))}</p>',
        *_cards(report),
        *_sections(report),
        *_about(report),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _lead(report: EvaluationReport) -> str:
    told = f"{report.rows:,} of {report.available:,} rows, seed {report.seed}, {report.seconds:,.0f} seconds."
    for node, speed in report.images_per_second.items():
        told += f" {node}: {figure(speed)} counterfactual images a second, abduction included."
    return told


def _cards(report: EvaluationReport) -> Iterator[str]:
    cards = list(_key_figures(report))
    if cards:
        yield '<div class="cards">'
        for label, score, beside in cards:
            yield (
                f'<div class="card"><span>{escape(label)}</span><b>{escape(figure(score.value))}</b>'
                f"<span>{escape(beside)}</span></div>"
            )
        yield "</div>"


def _key_figures(report: EvaluationReport) -> Iterator[tuple[str, Score, str]]:
    """What a reader looks for first: label, score, and what to hold it against."""
    for node, causes in report.model.causes.items():
        for do in causes:
            for entry in report.find("effectiveness", node=node, subject=MECHANISM, do=do, of=do):
                floors = report.find("effectiveness", node=node, subject=FLOOR, of=do, by=entry.by)
                nothing = report.find(
                    "effectiveness", node=node, subject="do nothing", do=do, of=do, by=entry.by
                )
                beside = ", ".join(
                    f"{name} {figure(found[0].score.value)}"
                    for name, found in (("factual images", floors), ("doing nothing", nothing))
                    if found
                )
                yield f"do({do}): {entry.score.unit}, {entry.by}", entry.score, beside
        for entry in report.find("composition", node=node, of="1"):
            if entry.by != "with residuals":
                yield (
                    f"{node}: one null intervention",
                    entry.score,
                    f"{entry.score.unit}, {entry.by}".rstrip(", "),
                )
        for entry in report.find("reversibility", node=node):
            yield f"{node}: to do({entry.do}) and back", entry.score, entry.score.unit
    if not report.model.causes:
        for entry in report.find("log-likelihood"):
            yield f"{entry.node}: log-likelihood", entry.score, entry.score.unit


def _sections(report: EvaluationReport) -> Iterator[str]:
    tables = report_tables(report)
    for node in report.model.causes:
        yield f"<h2>{escape(node)}</h2>"
        yield from _grid(report, node)
        own = [table for table in tables if table.node == node]
        yield from (part for table in own for part in _table(table))
        yield '<div class="figures">'
        for name, picture in report.pictures.items():
            if name.startswith(f"{node}-"):
                yield _picture(picture, name.removesuffix(".png").replace("-", " "))
        yield "</div>"
    rest = [table for table in tables if not table.node]
    if rest:
        yield "<h2>All nodes</h2>"
        yield from (part for table in rest for part in _table(table))
    if report.check and report.check["problems"]:
        yield "<h3>Problems that scm.check found</h3><ul>"
        yield from (f"<li>{escape(problem)}</li>" for problem in report.check["problems"])
        yield "</ul>"


def _grid(report: EvaluationReport, node: str) -> Iterator[str]:
    if picture := report.pictures.get(f"{node}.png"):
        yield f'<div class="wide">{_picture(picture, f"counterfactuals of {node}")}</div>'


def _table(table: ReportTable) -> Iterator[str]:
    def kind(column: int) -> str:
        return ' class="strong"' if column in table.strong else ""

    yield f"<h3>{escape(table.title)}</h3>"
    yield '<div class="wide"><table><thead><tr>'
    yield "<th></th>" + "".join(
        f"<th{kind(column)}>{escape(name)}</th>" for column, name in enumerate(table.head[1:])
    )
    yield "</tr></thead><tbody>"
    for label, cells in table.rows:
        row = "control" if label.startswith(("control", "floor")) else "model"
        told = "".join(f"<td{kind(column)}>{_cell(cell)}</td>" for column, cell in enumerate(cells))
        yield f'<tr class="{row}"><th scope="row">{escape(label)}</th>{told}</tr>'
    yield "</tbody></table></div>"
    yield f'<p class="note">{escape(table.note)}</p>'


def _cell(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, str):
        return escape(cell)
    value, _, rest = str(cell).partition(" ")
    return escape(value) + (f"<small>{escape(rest.strip('()'))}</small>" if rest else "")


def _picture(picture: bytes, told: str) -> str:
    return f'<img alt="{escape(told)}" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'


def _about(report: EvaluationReport) -> Iterator[str]:
    if report.notes:
        yield "<h2>What was not measured</h2><ul>"
        yield from (f"<li>{escape(note)}</li>" for note in report.notes)
        yield "</ul>"
    yield "<h2>The model</h2>"
    yield f"<pre>{escape(report.model.description)}</pre>"
    parameters = ", ".join(f"{node} {count:,}" for node, count in report.model.parameters.items() if count)
    versions = ", ".join(f"{name} {number}" for name, number in report.model.versions.items())
    yield f'<p class="note">Parameters: {escape(parameters or "none")}. Computed by {escape(versions)}.</p>'
    yield "<h2>How to read this</h2><dl>"
    for term, told in TERMS.items():
        yield f"<dt>{escape(term)}</dt><dd>{escape(told)}</dd>"
    yield "</dl>"
