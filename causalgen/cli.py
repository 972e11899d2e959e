"""The command line. Heavy imports wait inside the commands, so that ``--help`` is quick.

Exit codes: 0 done, 1 an error, told in one line, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app", "main"]

app = typer.Typer(
    help="Structural causal models whose nodes may be images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ModelName = Annotated[str, typer.Argument(help="A gallery name, a saved model's folder, or an SCM file.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same answer.")]
Out = Annotated[Path, typer.Option(help="Where to write.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="CPU threads; as many as there are cores by default.")
]


def main() -> None:
    """Run the command line; an error of ours, or of the system, is one line on stderr."""
    from graphs.errors import CausalgenError

    # Wherever it stands; the callback below only lists it.
    debug = "--debug" in sys.argv[1:]
    try:
        app([argument for argument in sys.argv[1:] if argument != "--debug"], prog_name="causalgen")
    except (CausalgenError, OSError) as error:
        if debug:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where an error comes from; goes anywhere.")
    ] = False,
) -> None:
    """Structural causal models whose nodes may be images."""


@app.command()
def demo(
    preset: Annotated[str | None, typer.Option(help="Settings of a published method: diff-scm.")] = None,
    out: Out = Path("demo.png"),
    seed: Seed = 0,
    threads: Threads = None,
) -> None:
    """Real handwritten digits, and what each would have been as any other digit."""
    from causalgen.commands.demo import run_demo

    run_demo(preset, out, seed, threads)


@app.command()
def show(
    model: ModelName,
    picture: Annotated[Path | None, typer.Option(help="Draw the graph to this PNG too.")] = None,
) -> None:
    """The graph of a model, its variables and its mechanisms."""
    from causalgen.commands.show import run_show

    run_show(model, picture)


@app.command()
def fit(
    file: Annotated[Path, typer.Argument(help="An SCM file.")],
    data: Annotated[str, typer.Option(help="A CSV or Parquet table, or mnist:DIR.")],
    out: Out,
    node: Annotated[
        list[str] | None,
        typer.Option(help="Fit only this node now; may be repeated. --resume does the rest."),
    ] = None,
    seed: Seed = 0,
    run_dir: Annotated[Path | None, typer.Option(help="Log and states; OUT.run by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the run folder.")] = False,
    threads: Threads = None,
) -> None:
    """Fit a model to data and save it."""
    from causalgen.commands.fit import run_fit

    run_fit(file, data, out, nodes=node, seed=seed, run_dir=run_dir, resume=resume, threads=threads)


@app.command()
def sample(
    model: ModelName,
    out: Out,
    n: Annotated[int, typer.Option("-n", min=1, help="Rows.")] = 16,
    do: Annotated[
        list[str] | None, typer.Option(help="node=value[,node=value]; several set more nodes.")
    ] = None,
    seed: Seed = 0,
    threads: Threads = None,
) -> None:
    """Draw rows from a model, perhaps under an intervention."""
    from causalgen.commands.sample import run_sample

    run_sample(model, out, n=n, does=do or [], seed=seed, threads=threads)


@app.command()
def counterfactual(
    model: ModelName,
    evidence: Annotated[
        str | None, typer.Option(help="A JSON file, a PNG (for the image node), or TABLE[:ROW].")
    ] = None,
    given: Annotated[list[str] | None, typer.Option("--set", help="More evidence: node=value.")] = None,
    do: Annotated[
        list[str] | None, typer.Option(help="node=value[,node=value]; each one is a world.")
    ] = None,
    out: Out = Path("counterfactual"),
    samples: Annotated[int | None, typer.Option(min=1, help="Draws a row.")] = None,
    seed: Seed = 0,
    preset: Annotated[str | None, typer.Option(help="Settings of a published method: diff-scm.")] = None,
    threads: Threads = None,
) -> None:
    """What would have been, had things been otherwise: a picture and a JSON."""
    from causalgen.commands.counterfactual import run_counterfactual

    run_counterfactual(
        model,
        evidence,
        given or [],
        do or [],
        out,
        samples=samples,
        seed=seed,
        preset=preset,
        threads=threads,
    )
