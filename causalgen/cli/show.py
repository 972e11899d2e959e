"""``causalgen show``, ``gallery`` and ``schema``: a model, the models that ship, what a file may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from causalgen.cli.options import ModelName, Png

__all__ = ["gallery", "schema", "show"]


def show(
    model: ModelName,
    picture: Annotated[Path | None, Png] = None,
) -> None:
    """The graph of a model, its variables and its mechanisms."""
    from rich.table import Table

    from causalgen.cli.common import console, load_model, write_file
    from causalgen.counterfactuals.export import figure_png
    from graphs.text import printable

    scm = load_model(model)
    table = Table(title=scm.name, title_justify="left", box=None, pad_edge=False)
    for heading in ("node", "variable", "parents", "mechanism", "state"):
        table.add_column(heading, overflow="fold")
    for node, variable in scm.variables.items():
        mechanism = scm.mechanisms[node]
        table.add_row(
            node,
            variable.describe(),
            ", ".join(scm.graph.parents(node)) or "-",
            mechanism.spec.kind,
            "fitted" if mechanism.fitted else "not fitted",
        )
    out = console()
    out.print(table)
    for node, mechanism in scm.mechanisms.items():
        if mechanism.note:
            out.print(f"\n{node}: {printable(mechanism.note)}")
    if scm.graph.edges:
        out.print()
    for cause in scm.graph.nodes:
        if effects := scm.graph.children(cause):
            out.print(f"{cause} -> {', '.join(effects)}")
    if picture is not None:
        from causalgen.plotting.plots import plot_graph

        write_file(picture, figure_png(plot_graph(scm.graph, scm.variables, scm.name or "")))
        out.print(str(picture.resolve()))


def gallery() -> None:
    """The models that ship with the package."""
    from causalgen.cli.common import console
    from causalgen.saving.pretrained import gallery_folder, gallery_names
    from graphs.scm_file import read_spec

    names = gallery_names()
    width = max(map(len, names))
    for name in names:
        spec, _ = read_spec(gallery_folder(name) / "scm.yaml")
        nodes = ", ".join(f"{node} ({each.variable.describe()})" for node, each in spec.nodes.items())
        console().print(f"{name:<{width}}  {nodes}")


def schema() -> None:
    """The JSON Schema of SCM files, by which editors complete and check them."""
    from mechanisms.schema import scm_schema

    typer.echo(json.dumps(scm_schema(), indent=2, ensure_ascii=False))
