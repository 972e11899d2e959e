"""The page, in gradio: a panel for the evidence, one for what is set, the answer below them; effects beside.

Only what is drawn where, and what a button does: reading, asking and drawing are functions of other modules.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import uuid4

import gradio as gr
import numpy as np
from gradio import themes
from gradio.components import Component

from causalgen.cli.app.controls import control_of, read_controls, shown
from causalgen.cli.app.downloads import counterfactual_downloads, effect_downloads, effect_lines, worlds_lines
from causalgen.cli.app.inputs import QUIET, as_picture, node_inputs, told
from causalgen.cli.app.questions import AskedEffect, Model, Session, ask, ask_effect, effect_targets
from causalgen.cli.app.views import answer_html, effect_html, graph_html
from causalgen.cli.common import write_file
from causalgen.counterfactuals.summaries import value_text
from graphs.text import printable, shortened
from graphs.variables import Categorical, Variable, image_variables, table_variables

__all__ = ["STYLE", "build_page", "offered", "theme"]

STYLE = files("causalgen.cli.app").joinpath("page.css").read_text(encoding="utf-8")
"""The sheet of the page."""

_THUMBNAILS, _MOST_LETTERS, _KEPT_S = 24, 60, 3600
"""Images of rows to pick, letters of a row's line, seconds that a session is kept."""

_SETS = "as it is"
"""What an empty control says of a node that may be set."""


def theme() -> themes.Base:
    """The system's fonts, so that none is fetched."""
    fonts, fixed = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")
    return themes.Default(
        font=[themes.Font(each) for each in fonts],
        font_mono=[themes.Font(each) for each in fixed],
        primary_hue="slate",
        radius_size="sm",
        spacing_size="sm",
    )


def build_page(model: Model, folder: Path) -> gr.Blocks:
    """The page about a model."""
    title = model.scm.name or Path(model.name).name
    with gr.Blocks(title=f"causalgen: {title}", analytics_enabled=False) as page:
        gr.HTML(f"<h1 class='cg-title'>{html.escape(title)}</h1>{graph_html(model)}")
        with gr.Tab("Counterfactual"):
            evidence = _counterfactual_tab(model, folder)
        with gr.Tab("Effect"):
            _effect_tab(model, folder, evidence)
    return page


def _counterfactual_tab(model: Model, folder: Path) -> dict[str, Component]:
    """The controls of the evidence."""
    with gr.Row(equal_height=False):
        with gr.Column(min_width=300):
            gr.Markdown("### What was observed")
            evidence = _evidence_panel(model)
        with gr.Column(min_width=300):
            gr.Markdown("### What if it had been")
            sets = _sets_panel(model)
            with gr.Row():
                draws = gr.Number(1, label="Draws", step=1, min_width=90)
                seed = gr.Number(0, label="Seed", step=1, min_width=90)
            with gr.Row():
                button = gr.Button("Ask", variant="primary", elem_id="ask")
                clear = gr.Button("Clear the worlds", elem_id="clear")
    answer = gr.HTML(
        "<p class='cg-note'>Pick a row or type what was observed, set something, and ask. Each question adds "
        "a world; what is left empty in the evidence is inferred.</p>",
        elem_id="answer",
    )
    names = ("PNG", "JSON", "CSV", "Python", "all as ZIP")
    buttons = _download_buttons(names)
    lines = gr.Code(language="python", label="The same in Python", visible=False, elem_id="lines")
    session = gr.State(None, time_to_live=_KEPT_S)

    @told
    def prepare(now: Session | None) -> list[Any]:
        files = {} if now is None else dict(counterfactual_downloads(model, now))
        return offered(names, files, folder)

    button.click(
        _world_adder(model),
        [session, *evidence.values(), *sets.values(), draws, seed],
        [session, answer, lines],
        concurrency_limit=1,
        concurrency_id="engine",
        api_name="counterfactual",
    ).success(prepare, session, buttons, concurrency_limit=1, **QUIET)
    clear.click(
        lambda: (None, "<p class='cg-note'>No world has been asked for.</p>", gr.Code(visible=False)),
        None,
        [session, answer, lines],
        api_visibility="private",
    ).then(prepare, session, buttons, **QUIET)
    return evidence


def _sets_panel(model: Model) -> dict[str, Component]:
    """A control for each node that may be set, in the model's order; pictures are folded away."""
    variables, pictures = model.scm.variables, image_variables(model.scm.variables)
    gr.HTML(_hint(variables))
    sets = node_inputs({node: each for node, each in variables.items() if node not in pictures}, _SETS, "set")
    if pictures:
        with gr.Accordion(f"set {', '.join(pictures)} to a picture", open=False):
            sets |= node_inputs(pictures, _SETS, "set")
    return {node: sets[node] for node in variables}


def _world_adder(model: Model) -> Callable[..., tuple[Session, str, Any]]:
    """What asks for one more world, of a session and what the controls hold: evidence, sets, draws, seed."""
    variables = model.scm.variables
    nodes, count = list(variables), len(variables)

    @told
    def add_world(now: Session | None, *given: Any) -> tuple[Session, str, Any]:
        known = read_controls(dict(zip(nodes, given[:count], strict=True)), variables, "Evidence")
        do = _read_set(dict(zip(nodes, given[count : 2 * count], strict=True)), variables)
        samples, number = given[2 * count :]
        after = ask(model, now, known, do, seed=number, samples=samples)
        return after, answer_html(after), gr.Code(worlds_lines(model, after), visible=True)

    return add_world


def _evidence_panel(model: Model) -> dict[str, Component]:
    """Rows to pick from, and the controls that the picked one fills."""
    variables = model.scm.variables
    choices = [(_line(model, row), row) for row in range(model.count)]
    images = image_variables(variables)
    label = f"Row, one of {model.count}" + ", or click an image" * bool(images)
    picked = gr.Dropdown(choices, value=0, label=label, elem_id="row")
    if images:
        node = next(iter(images))
        thumbnails = [
            None if image is None else as_picture(image) for image in model.rows[node][:_THUMBNAILS]
        ]
        places = [row for row, each in enumerate(thumbnails) if each is not None]
        gallery = gr.Gallery(
            [each for each in thumbnails if each is not None],
            label=f"{node} of the first rows",
            show_label=False,
            columns=8,
            allow_preview=False,
            format="png",
            height="auto",
            elem_id="rows",
            elem_classes="" if images[node].width >= 128 else "cg-pixels",
            buttons=[],
        )

        def clicked(event: gr.SelectData) -> int:
            return places[event.index]

        gallery.select(clicked, None, picked, **QUIET)
    controls = node_inputs(variables, "not observed", "observed", _row(model, 0))

    def fill(row: int | None) -> list[Any]:
        return [gr.skip() for _ in variables] if row is None else list(_row(model, row).values())

    picked.change(fill, picked, [*controls.values()], **QUIET)
    empty = gr.Button("Empty all", size="sm", elem_id="empty")
    kinds = [control_of(each).kind for each in variables.values()]
    nothing = [None if kind in ("number", "picture") else "" for kind in kinds]
    empty.click(lambda: [*nothing], None, [*controls.values()], **QUIET)
    return controls


def _effect_tab(model: Model, folder: Path, evidence: Mapping[str, Component]) -> None:
    targets = effect_targets(model.scm)
    if not targets:
        gr.Markdown("No node but images has a cause here, so that there is no effect on a mean to ask about.")
        return
    variables = table_variables(model.scm.variables)
    with gr.Row():
        with gr.Column(min_width=300):
            gr.Markdown("### Effect on the mean of")
            asked_of = _effect_panel(model, targets)
        with gr.Column(min_width=300):
            gr.Markdown("### if it were set to")
            gr.HTML(_hint(variables))
            sets = node_inputs(variables, _SETS, "effect_do")
        with gr.Column(min_width=300):
            gr.Markdown("### rather than to")
            gr.HTML("<p class='cg-note'>All empty: no intervention.</p>")
            others = node_inputs(variables, _SETS, "effect_versus")
    button = gr.Button("Ask", variant="primary", elem_id="ask_effect")
    answer = gr.HTML("", elem_id="effect")
    names = ("PNG", "JSON", "CSV", "Python")
    buttons = _download_buttons(names)
    lines = gr.Code(language="python", label="The same in Python", visible=False)
    asked = gr.State(None, time_to_live=_KEPT_S)

    @told
    def prepare(found: AskedEffect | None) -> list[Any]:
        return offered(names, {} if found is None else dict(effect_downloads(model, found)), folder)

    button.click(
        _effect_finder(model),
        [*asked_of, *sets.values(), *others.values(), *evidence.values()],
        [asked, answer, lines],
        concurrency_limit=1,
        concurrency_id="engine",
        api_name="effect",
    ).success(prepare, asked, buttons, concurrency_limit=1, **QUIET)


def _effect_panel(model: Model, targets: Sequence[str]) -> list[Component]:
    """Controls of the target, its category, of whom, draws, confidence and seed, in that order."""
    target = gr.Dropdown([*targets], value=targets[-1], label="Node", elem_id="target")
    choices = _categories(model, targets[-1])
    category = gr.Dropdown(choices, label="Its category", visible=bool(choices))
    whom = gr.Radio(
        ["everybody", "the evidence"], value="everybody", label="Of", elem_id="whom",
        info="the population, or the row on the other tab",
    )  # fmt: skip
    n = gr.Number(10_000, label="Draws", step=1000)
    confidence = gr.Number(0.95, label="Confidence of the interval", step=0.01)
    seed = gr.Number(0, label="Seed", step=1)

    def changed(node: str) -> Component:
        choices = _categories(model, node)
        return gr.Dropdown(choices, value=None, visible=bool(choices))

    target.change(changed, target, category, **QUIET)
    return [target, category, whom, n, confidence, seed]


def _effect_finder(model: Model) -> Callable[..., tuple[AskedEffect, str, Any]]:
    """What asks for an effect, of what the panel, both interventions and the evidence hold."""
    variables, everything = table_variables(model.scm.variables), list(model.scm.variables)
    nodes, count = list(variables), len(variables)

    @told
    def find(*given: Any) -> tuple[AskedEffect, str, Any]:
        node, code, of, draws, level, number, *rest = given
        one = _read_set(dict(zip(nodes, rest[:count], strict=True)), variables)
        other = _read_set(dict(zip(nodes, rest[count : 2 * count], strict=True)), variables)
        category = read_controls({node: code}, model.scm.variables, "Category").get(node) if code else None
        seen = dict(zip(everything, rest[2 * count :], strict=True)) if of == "the evidence" else {}
        known = read_controls(seen, model.scm.variables, "Evidence")
        found = ask_effect(model, node, category, one, other, known, n=draws, confidence=level, seed=number)
        return found, effect_html(found), gr.Code(effect_lines(model, found), visible=True)

    return find


def _read_set(given: Mapping[str, Any], variables: Mapping[str, Variable]) -> dict[str, Any]:
    return read_controls(given, variables, "Set", expressions=True)


def _hint(variables: Mapping[str, Variable]) -> str:
    numbers = [node for node, each in variables.items() if control_of(each).kind == "number"]
    more = f" Of numbers also an expression, as in {html.escape(numbers[-1])} + 1." if numbers else ""
    return f"<p class='cg-note'>What is left empty is as it is.{more}</p>"


def _row(model: Model, row: int) -> dict[str, Any]:
    """What the controls of the evidence show of a row."""
    found = {n: shown(model.rows[n][row], variable) for n, variable in model.scm.variables.items()}
    return {n: as_picture(each) if isinstance(each, np.ndarray) else each for n, each in found.items()}


def _line(model: Model, row: int) -> str:
    """A row in a line, for the list to pick from."""
    cells = [f"{node} {_short(model.rows[node][row])}" for node in table_variables(model.scm.variables)]
    return printable(shortened(f"{row}: {', '.join(cells)}", _MOST_LETTERS, "…"))


def _short(value: Any) -> str:
    if np.ndim(value):
        return f"[{', '.join(map(_short, value))}]"
    return value_text(value)


def _categories(model: Model, node: str) -> list[tuple[str, str]]:
    variable = model.scm.variables[node]
    if not isinstance(variable, Categorical):
        return []
    return [(label, str(code)) for code, label in enumerate(control_of(variable).choices)]


def _download_buttons(names: Sequence[str]) -> list[gr.DownloadButton]:
    with gr.Row(elem_classes="cg-downloads"):
        return [gr.DownloadButton(name, size="sm", visible=False, min_width=80) for name in names]


def offered(names: Sequence[str], contents: Mapping[str, bytes], folder: Path) -> list[Any]:
    """Buttons that give files; none is seen where there are no files."""
    if not contents:
        return [gr.DownloadButton(value=None, visible=False) for _ in names]
    own = folder / uuid4().hex
    for file, content in contents.items():
        write_file(own / file, content)
    return [gr.DownloadButton(value=str(own / file), visible=True) for file in contents]
