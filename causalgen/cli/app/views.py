"""Answers as HTML: the evidence and each world as cards side by side, images with what differs in them.

A picture in a page is the PNG of the library, bit for bit (``export.to_png``), as a data URI. Everything
written is escaped: names and labels come from files.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from causalgen.cli.app.questions import AskedEffect, Model, Session
from causalgen.counterfactuals.export import figure_svg, to_png
from causalgen.counterfactuals.results import Counterfactual
from causalgen.counterfactuals.summaries import draw_texts, evidence_texts, node_texts, undetermined_nodes
from causalgen.plotting.graph_plots import MOST_NODES, plot_graph
from causalgen.plotting.plot_style import ACCENT, INFERRED, page_template
from graphs.variables import image_variables

__all__ = ["answer_html", "difference_image", "effect_html", "graph_html"]

_MOST_SHOWN = 4
"""Draws of an image that a card shows."""

_MEANINGS = {
    "copied": "the factual value itself",
    "exact": "from noise recovered exactly",
    "posterior": "from a draw of the noise given the evidence",
    "approximate": "from noise recovered approximately",
    "inferred": "drawn given the evidence, which lacks it or a cause of it",
    "prior": "drawn from the model given its causes: nothing that it causes was observed",
    "interventional": "set",
    "observed": "given",
}


@dataclass(frozen=True)
class _Picture:
    label: str
    source: str
    fine: bool
    """Whether it has pixels enough to be smoothed."""
    how: str = ""
    """Its provenance, or "observed" and the like; empty of a difference."""


@dataclass(frozen=True)
class _Card:
    title: str
    lines: Sequence[tuple[str, str, str]]
    pictures: Sequence[_Picture] = ()
    readings: Mapping[str, Sequence[tuple[str, str, str]]] = field(default_factory=dict)
    """By image: cause, what the model reads, what was asked."""


def graph_html(model: Model) -> str:
    """The causal graph, drawn."""
    graph, variables = model.scm.graph, model.scm.variables
    if len(graph) > MOST_NODES:
        return _render("graph", alt=f"{len(graph):,} nodes, too many to draw.", source="")
    edges = ", ".join(f"{cause} -> {effect}" for cause, effect in list(graph.edges)[:24])
    figure = plot_graph(graph, variables)
    return _render("graph", alt=f"Causal graph: {edges or ', '.join(graph.nodes)}", **_drawn(figure))


def answer_html(session: Session) -> str:
    """The evidence and every world, side by side."""
    worlds = {label: world.answer for label, world in session.worlds.items()}
    first = next(iter(worlds.values()))
    cards = [_evidence_card(first), *(_world_card(label, answer) for label, answer in worlds.items())]
    words = {how for card in cards for _, _, how in card.lines}
    words |= {picture.how for card in cards for picture in card.pictures}
    unsure = undetermined_nodes(*worlds.values())
    notes = [*session.warnings]
    if unsure and session.samples is None:
        notes.append(
            f"One draw of {', '.join(unsure)}, which the evidence does not determine: ask for more draws."
        )
    return _render(
        "answer",
        cards=cards,
        meanings={word: _MEANINGS[word] for word in _MEANINGS if word in words},
        compared=any(not picture.how for card in cards for picture in card.pictures),
        notes=notes,
    )


def effect_html(asked: AskedEffect) -> str:
    """An effect with its interval, as text and drawn."""
    title, *lines = str(asked.effect).splitlines()
    picture = _drawn(asked.effect.plot())
    return _render("effect", title=title, lines=lines, alt=title, notes=asked.warnings, **picture)


def difference_image(after: Any, before: Any) -> np.ndarray:
    """What differs between images (C, H, W): (3, H, W) in [0, 1], red where brighter, blue where darker."""
    gap = (np.asarray(after, dtype=float) - np.asarray(before, dtype=float)).mean(0)
    colour = np.where(gap >= 0, *(np.array(to_rgb(each))[:, None, None] for each in (ACCENT, INFERRED)))
    return 1 - np.abs(gap) * (1 - colour)


def _evidence_card(cf: Counterfactual) -> _Card:
    """What was observed, and what was drawn in the place of the rest."""
    sources = cf.sources
    lines = [(name, told[0], str(sources[node][0])) for node, name, told in evidence_texts(cf, 1)]
    pictures = [
        _Picture(node, _png(image), _fine(image), str(sources[node][0]))
        for node in image_variables(cf.variables)
        for image in _before(cf, node)[:1]
    ]
    whole = all((how == "observed").all() for how in sources.values())
    return _Card("factual" if whole else "evidence", lines, pictures)


def _world_card(label: str, cf: Counterfactual) -> _Card:
    lines = [(name, text, str(cf.provenance[node][0])) for node, name, text in node_texts(cf, images=False)]
    pictures = [each for node in image_variables(cf.variables) for each in _image_pair(cf, node)]
    return _Card(f"do({label})", lines, pictures, _readings(cf))


def _image_pair(cf: Counterfactual, node: str) -> Iterator[_Picture]:
    """Each draw of an image, and what differs from the evidence."""
    how = str(cf.provenance[node][0])
    for sample, (after, before) in enumerate(zip(_first_draws(cf[node], cf), _before(cf, node), strict=True)):
        number = f" #{sample + 1}" if cf.samples is not None else ""
        yield _Picture(f"{node}{number}", _png(after), _fine(after), how)
        if how == "copied":
            return
        gap = difference_image(after, before)
        yield _Picture("what differs", _png(gap), _fine(after))


def _readings(cf: Counterfactual) -> dict[str, list[tuple[str, str, str]]]:
    """What the model's own predictor reads in images made anew, beside what was asked."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for node, causes in cf.readings.items():
        for cause, reading in causes.items():
            if reading.made.any():
                variables = {name: each.variable for name, each in causes.items()}
                read, asked = (draw_texts(cause, variables, reading.draws[key]) for key in ("read", "asked"))
                lines = [(name, cells[0], f"asked {asked[name][0]}") for name, cells in read.items()]
                found.setdefault(node, []).extend(lines)
    return found


def _first_draws(images: Any, cf: Counterfactual) -> np.ndarray:
    """The first draws of the first row, (S, C, H, W) in [0, 1]."""
    values = np.asarray(images)
    return values[:_MOST_SHOWN, 0] if cf.samples is not None else values[:1]


def _before(cf: Counterfactual, node: str) -> np.ndarray:
    """The image of the evidence behind each of these draws; one that was not observed was drawn too."""
    if cf.sources[node][0] == "observed":
        return np.repeat(np.asarray(cf.factual[node]), min(cf.samples or 1, _MOST_SHOWN), axis=0)
    return _first_draws(cf.inferred[node], cf)


def _fine(image: np.ndarray) -> bool:
    return image.shape[-1] >= 128


def _png(image: np.ndarray) -> str:
    return f"data:image/png;base64,{b64encode(to_png(image)).decode()}"


def _drawn(figure: Figure) -> dict[str, Any]:
    source = f"data:image/svg+xml;base64,{b64encode(figure_svg(figure)).decode()}"
    return {"source": source, "width": round(96 * figure.get_figwidth())}


def _render(part: str, **values: Any) -> str:
    template = page_template("causalgen.cli", "app", "views.html.j2")
    return template.render(part=part, **values)
