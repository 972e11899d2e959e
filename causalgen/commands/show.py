"""``causalgen show``: the graph of a model as text, and as a picture."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from causalgen.commands.common import load_model, save_figure

__all__ = ["run_show"]


def run_show(model: str, picture: Path | None) -> None:
    """Print a line a node, causes first; draw the graph where asked."""
    scm = load_model(model)
    table = Table(title=scm.name, title_justify="left", box=None, pad_edge=False)
    for heading in ("node", "variable", "parents", "mechanism", "state"):
        table.add_column(heading)
    for node, variable in scm.variables.items():
        mechanism = scm.mechanisms[node]
        table.add_row(
            node,
            variable.describe(),
            ", ".join(scm.graph.parents(node)) or "-",
            mechanism.spec.kind,
            "fitted" if mechanism.fitted else "not fitted",
        )
    console = Console(highlight=False)
    console.print(table)
    for cause, effect in scm.graph.edges:
        console.print(f"{cause} -> {effect}")
    if picture is not None:
        from causalgen.plots import plot_graph

        save_figure(plot_graph(scm.graph, scm.variables, scm.name or ""), picture)
        console.print(str(picture.resolve()))
