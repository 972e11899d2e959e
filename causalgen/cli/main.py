"""The command line; heavy imports wait inside its commands, so that ``--help`` is quick.

Exit codes: 0 done, 1 an error, told in one line, 2 wrong usage, 3 a check found a problem or rows of a
--table could not be answered, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from causalgen.cli.check import check
from causalgen.cli.data import data_app
from causalgen.cli.demo import demo
from causalgen.cli.distil import distil
from causalgen.cli.effect import effect
from causalgen.cli.evaluate import evaluate
from causalgen.cli.evaluators import evaluators
from causalgen.cli.fit import fit
from causalgen.cli.interrupts import Commands
from causalgen.cli.options import (
    ASSIGNED,
    Clip,
    Device,
    Engine,
    Evidence,
    GivenRows,
    LongTable,
    ModelName,
    Out,
    PartRows,
    Preset,
    Rename,
    ResumeJob,
    Seed,
    Set,
    Threads,
    Workers,
)
from causalgen.cli.sample import sample
from causalgen.cli.show import gallery, schema, show
from causalgen.cli.tune import tune

__all__ = ["app", "main"]

app = typer.Typer(
    cls=Commands,
    help="Structural causal models whose nodes may be images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; an error of ours, or of the system, is one line on stderr."""
    from causalgen.cli.wording import in_command_words, plain_warnings
    from graphs.errors import CausalgenError
    from graphs.text import printable

    # Wherever it stands; the callback below only lists it.
    debug = "--debug" in sys.argv[1:]
    try:
        with plain_warnings():
            app([argument for argument in sys.argv[1:] if argument != "--debug"], prog_name="causalgen")
    except (CausalgenError, OSError) as error:
        if debug:
            raise
        typer.echo(f"error: {printable(in_command_words(str(error)))}", err=True)
        sys.exit(1)


def _tell_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"causalgen {version('causalgen')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Say the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where an error comes from; goes anywhere.")
    ] = False,
) -> None:
    """Structural causal models whose nodes may be images."""


for each in (demo, gallery, schema, show, fit, distil, evaluators):
    app.command()(each)


@app.command(
    "judges", hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)
def _judges() -> None:
    """The former name of ``evaluators``."""
    from graphs.errors import CausalgenError

    raise CausalgenError("causalgen judges is now causalgen evaluators.")


app.command()(tune)
app.command()(sample)


@app.command()
def counterfactual(
    model: ModelName,
    evidence: Evidence = None,
    given: Set = None,
    do: Annotated[list[str] | None, typer.Option(help=f"{ASSIGNED}; each one is a world.")] = None,
    out: Out = Path("counterfactual"),
    samples: Annotated[int | None, typer.Option(min=1, help="Draws a row.")] = None,
    table: LongTable = None,
    rename: Rename = None,
    engine: Engine = "serial",
    workers: Workers = None,
    part_rows: PartRows = None,
    resume: ResumeJob = False,
    seed: Seed = 0,
    preset: Preset = None,
    clip: Clip = False,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """What would have been, had things been otherwise: a picture and a JSON; of a --table, Parquet."""
    from causalgen.cli.batch import Job, check_engine, run_table
    from causalgen.cli.counterfactual import Typed, run_counterfactual

    check_engine(engine, table, evidence, workers=workers, part_rows=part_rows, resume=resume)
    typed = (model, given or [], do or [], out, samples, rename or [], seed, preset, clip, device)
    if table is None:
        run_counterfactual(Typed(*typed, threads), evidence)
    else:
        run_table(Job(*typed, threads or 1, table, part_rows), engine, workers, resume=resume)


for each in (effect, check, evaluate):
    app.command()(each)


@app.command("app")
def _page(
    model: ModelName,
    data: GivenRows = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of this machine alone; 0 takes a free one.")
    ] = 7860,
    browse: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    rename: Rename = None,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Ask a model on a page in the browser, served to this machine alone."""
    from causalgen.cli.app.server import run_app

    run_app(model, data, port, browse=browse, rename=rename or [], device=device, threads=threads)


app.add_typer(data_app, name="data")
