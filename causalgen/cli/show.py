"""``causalgen show``, ``gallery``, ``schema``, ``app`` and ``demo``: models and their files, shown."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from causalgen.cli import options as opt

if TYPE_CHECKING:
    import numpy as np

__all__ = ["demo", "gallery", "page", "schema", "show"]


def show(
    model: opt.ModelName,
    picture: Annotated[Path | None, opt.Png] = None,
) -> None:
    """Show a model: its graph, its variables and its mechanisms."""
    from rich.table import Table

    from causalgen.cli.common import console, load_model, write_file
    from causalgen.counterfactuals.export import figure_png
    from graphs.text import printable

    scm = load_model(model)
    table = Table(title=scm.name, title_justify="left", box=None, pad_edge=False)
    for heading in ("node", "variable", "parents", "mechanism", "state"):
        table.add_column(heading, overflow="fold")
    for node, variable in scm.variables.items():
        parents, mechanism = ", ".join(scm.graph.parents(node)) or "-", scm.mechanisms[node]
        fitted = "fitted" if mechanism.fitted else "not fitted"
        table.add_row(node, variable.describe(), parents, mechanism.spec.kind, fitted)
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
    """List the models that ship with the package."""
    from causalgen.cli.common import say
    from causalgen.saving.pretrained import gallery_folder, gallery_names
    from graphs.scm_file import read_spec

    names = gallery_names()
    width = max(map(len, names))
    for name in names:
        spec, _ = read_spec(gallery_folder(name) / "scm.yaml")
        nodes = ", ".join(f"{node} ({each.variable.describe()})" for node, each in spec.nodes.items())
        say(f"{name:<{width}}  {nodes}")


def schema() -> None:
    """Print the JSON Schema of SCM files, with which editors complete and check them."""
    from mechanisms.schema import scm_schema

    typer.echo(json.dumps(scm_schema(), indent=2, ensure_ascii=False))


def page(
    model: opt.ModelName,
    data: opt.GivenRows = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port, open to this machine alone; 0 takes a free one.")
    ] = 7860,
    browse: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    rename: opt.Rename = None,
    device: opt.Device = None,
    threads: opt.Threads = None,
) -> None:
    """Ask a model on a page in the browser, which only this machine can open."""
    from causalgen.cli.app.server import run_app

    run_app(model, data, port, browse=browse, rename=rename or [], device=device, threads=threads)


def demo(
    preset: opt.Preset = None,
    out: Annotated[Path, opt.Png] = Path("demo.png"),
    seed: opt.Seed = 0,
    device: opt.Device = None,
    threads: opt.Threads = None,
) -> None:
    """Draw real handwritten digits, and what each would have been as any other digit."""
    import numpy as np

    from causalgen.cli.common import load_model, say, write_file
    from causalgen.counterfactuals.export import figure_png
    from causalgen.data.reading import sample_rows
    from causalgen.plotting.plots import plot_image_rows

    scm = load_model("mnist", device, preset, threads=threads)
    rows = sample_rows("mnist")
    columns = _one_of_each(rows["digit"], seed)
    evidence = {"digit": rows["digit"][columns], "image": rows["image"][columns]}
    say(scm.describe())
    began = time.perf_counter()
    abduction = scm.abduct(evidence, seed=seed)
    pictures = {"factual": np.asarray(abduction.counterfactual({})["image"])}
    marks: dict[str, list[bool]] = {}
    for digit in range(10):
        label = f"do(digit = {digit})"
        pictures[label] = np.asarray(abduction.counterfactual({"digit": digit}, targets=["image"])["image"])
        marks[label] = (evidence["digit"] == digit).tolist()
        say(f"{label}  {time.perf_counter() - began:.1f} s")
    write_file(out, figure_png(plot_image_rows(pictures, marks)))
    say("Framed: the digit as it was, which the intervention leaves alone bit for bit.", out.resolve())


def _one_of_each(digits: np.ndarray, seed: int) -> list[int]:
    """A row of each digit: for seed 0 the first one, for others any."""
    import numpy as np

    found: list[int] = []
    for digit in range(10):
        places = np.flatnonzero(digits == digit)
        found.append(int(places[np.random.default_rng([seed, digit]).integers(len(places)) if seed else 0]))
    return found
