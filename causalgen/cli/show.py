"""``causalgen show``: a line a node and a line an edge, causes first, and a picture of the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from causalgen.cli.options import ModelName

__all__ = ["show"]


def show(
    model: ModelName,
    picture: Annotated[Path | None, typer.Option(help="Draw the graph to this PNG too.")] = None,
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
