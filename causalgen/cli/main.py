"""The command line. Heavy imports wait inside the commands, so that ``--help`` is quick.

Exit codes: 0 done, 1 an error, told in one line, 2 wrong usage, 3 a check found a problem or rows of a
--table could not be answered, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from causalgen.cli.data import data_app
from causalgen.cli.distil import distil
from causalgen.cli.evaluators import evaluators
from causalgen.cli.interrupts import Commands
from causalgen.cli.options import (
    ASSIGNED,
    Clip,
    Device,
    Engine,
    Evidence,
    GivenRows,
    LongTable,
    Missing,
    ModelName,
    Out,
    PartRows,
    Preset,
    Rename,
    Resume,
    ResumeJob,
    RunDir,
    Seed,
    Set,
    SharedBy,
    SharedWorkers,
    Threads,
    TrainingRows,
    Workers,
)
from causalgen.evaluation import STRENGTHS

__all__ = ["app", "main"]

app = typer.Typer(
    cls=Commands,
    help="Structural causal models whose nodes may be images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_SPAN = f"{min(STRENGTHS):g} to {max(STRENGTHS):g}"


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


@app.command()
def demo(
    preset: Preset = None,
    out: Out = Path("demo.png"),
    seed: Seed = 0,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Real handwritten digits, and what each would have been as any other digit."""
    from causalgen.cli.demo import run_demo

    run_demo(preset, out, seed, device, threads)


@app.command()
def gallery() -> None:
    """The models that ship with the package."""
    from causalgen.cli.gallery import run_gallery

    run_gallery()


@app.command()
def schema() -> None:
    """The JSON Schema of SCM files, by which editors complete and check them."""
    from causalgen.cli.schema import run_schema

    run_schema()


@app.command()
def show(
    model: ModelName,
    picture: Annotated[Path | None, typer.Option(help="Draw the graph to this PNG too.")] = None,
) -> None:
    """The graph of a model, its variables and its mechanisms."""
    from causalgen.cli.show import run_show

    run_show(model, picture)


@app.command()
def fit(
    file: Annotated[Path, typer.Argument(help="An SCM file.")],
    data: TrainingRows,
    out: Out,
    node: Annotated[
        list[str] | None,
        typer.Option(help="Fit only this node now; may be repeated. --resume does the rest."),
    ] = None,
    seed: Seed = 0,
    run_dir: RunDir = None,
    resume: Resume = False,
    missing: Annotated[
        str, typer.Option(help="Rows that lack a value: refuse, or drop for the nodes that need it.")
    ] = "refuse",
    start: Annotated[
        str | None, typer.Option(help="A model whose weights trained nodes start from: a name or a folder.")
    ] = None,
    rename: Rename = None,
    threads: Threads = None,
) -> None:
    """Fit a model to data and save it."""
    from causalgen.cli.fit import run_fit

    run_fit(
        file,
        data,
        out,
        nodes=node,
        seed=seed,
        run_dir=run_dir,
        resume=resume,
        missing=missing,
        start=start,
        rename=rename or [],
        threads=threads,
    )


app.command()(distil)
app.command()(evaluators)


@app.command(
    "judges", hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)
def _judges() -> None:
    """The former name of ``evaluators``."""
    from graphs.errors import CausalgenError

    raise CausalgenError("causalgen judges is now causalgen evaluators.")


@app.command()
def tune(
    model: Annotated[str, typer.Argument(help="A gallery name or a saved model's folder.")],
    out: Out,
    data: GivenRows = None,
    evaluators: Annotated[
        str,
        typer.Option("--evaluators", "--judges", help="Networks that score: a data set's name, or a folder."),
    ] = "mnist",
    node: Annotated[str | None, typer.Option(help="The image node, where there are several.")] = None,
    strength: Annotated[
        list[float] | None, typer.Option(help=f"A strength to try; repeat for each. {_SPAN} by default.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=2, help="How many rows to try them on; 100 by default.")
    ] = None,
    min_effectiveness: Annotated[
        float, typer.Option(min=0, max=1, help="Share of rows that must show what was asked for.")
    ] = 0.95,
    save: Annotated[bool, typer.Option("--save", help="Write the choice into the model's folder.")] = False,
    missing: Missing = "refuse",
    rename: Rename = None,
    preset: Preset = None,
    seed: Seed = 0,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Choose the strength of guidance on validation rows: effective first, then of least divergence (CLD)."""
    from causalgen.cli.tune import run_tune

    run_tune(
        model,
        data,
        evaluators,
        out,
        node=node,
        strengths=strength,
        rows=rows,
        min_effectiveness=min_effectiveness,
        save=save,
        missing=missing,
        rename=rename or [],
        preset=preset,
        seed=seed,
        device=device,
        threads=threads,
    )


@app.command()
def sample(
    model: ModelName,
    out: Out,
    n: Annotated[int, typer.Option("-n", min=1, help="Rows.")] = 16,
    do: Annotated[list[str] | None, typer.Option(help=f"{ASSIGNED}; several set more nodes.")] = None,
    seed: Seed = 0,
    clip: Clip = False,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Draw rows from a model, perhaps under an intervention."""
    from causalgen.cli.sample import run_sample

    run_sample(model, out, n=n, does=do or [], seed=seed, clip=clip, device=device, threads=threads)


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
    from causalgen.cli.counterfactual import run_counterfactual

    check_engine(engine, table, evidence, workers=workers, part_rows=part_rows, resume=resume)
    options: dict[str, Any] = {"seed": seed, "preset": preset, "clip": clip, "device": device}
    options |= {"threads": threads, "samples": samples, "rename": rename or []}
    if table is None:
        run_counterfactual(model, evidence, given or [], do or [], out, **options)
    else:
        job = Job(model, table, given or [], do or [], out, part_rows=part_rows, **options)
        run_table(job, engine, workers, resume=resume)


@app.command()
def effect(
    model: ModelName,
    target: Annotated[str, typer.Argument(help="The node whose mean is compared.")],
    do: Annotated[list[str] | None, typer.Option(help=f"{ASSIGNED}; several set more nodes.")] = None,
    versus: Annotated[
        list[str] | None, typer.Option(help="What to compare with, as --do; no intervention by default.")
    ] = None,
    given: Annotated[
        list[str] | None, typer.Option(help="Group by a node, or by the intervals of one, as in age=18,65.")
    ] = None,
    category: Annotated[
        str | None, typer.Option(help="Of a target with categories: the one whose probability is compared.")
    ] = None,
    evidence: Evidence = None,
    typed: Set = None,
    n: Annotated[int, typer.Option("-n", min=2, help="Draws.")] = 10_000,
    confidence: Annotated[float, typer.Option(help="Of the interval, between 0 and 1.")] = 0.95,
    refits: Annotated[
        int, typer.Option(min=0, help="Fits to resampled --data, so that the interval has their error.")
    ] = 0,
    data: Annotated[str | None, typer.Option(help="The training rows, for --refits.")] = None,
    workers: SharedWorkers = None,
    engine: SharedBy = "processes",
    rename: Rename = None,
    out: Annotated[Path | None, typer.Option(help="Write the effect to this CSV too.")] = None,
    seed: Seed = 0,
    clip: Clip = False,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """How much an intervention changes a node on average, with its interval."""
    from causalgen.cli.effect import run_effect

    run_effect(
        model,
        target,
        do or [],
        versus=versus or [],
        given=given or [],
        category=category,
        evidence=evidence,
        typed=typed or [],
        n=n,
        confidence=confidence,
        clip=clip,
        refits=refits,
        data=data,
        shared=(engine, workers),
        rename=rename or [],
        out=out,
        seed=seed,
        device=device,
        threads=threads,
    )


@app.command()
def check(
    model: ModelName,
    data: GivenRows = None,
    out: Annotated[Path | None, typer.Option(help="Write the report to this JSON too.")] = None,
    level: Annotated[float, typer.Option(help="False discovery rate of all tests together.")] = 0.01,
    missing: Missing = "refuse",
    rename: Rename = None,
    seed: Seed = 0,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Whether a model agrees with rows: fit and independences; exit code 3 where it does not."""
    from causalgen.cli.check import run_check

    options: dict[str, Any] = {
        "missing": missing,
        "rename": rename or [],
        "device": device,
        "threads": threads,
    }
    run_check(model, data, out, level=level, seed=seed, **options)


@app.command()
def evaluate(
    model: ModelName,
    data: GivenRows = None,
    out: Out = Path("evaluation"),
    rows: Annotated[int | None, typer.Option(min=2, help="How many rows; 200 by default.")] = None,
    full: Annotated[bool, typer.Option("--full", help="All rows: hours, not minutes.")] = False,
    evaluators: Annotated[
        str | None,
        typer.Option(
            "--evaluators", "--judges", help="Networks that read images: a data set's name, or a folder."
        ),
    ] = None,
    measures: Annotated[
        str | None, typer.Option(help="What to measure on images: strokes (of drawn characters) or pendulum.")
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(help="MNIST's folder: true counterfactuals of --data morphomnist:DIR."),
    ] = None,
    missing: Missing = "refuse",
    workers: SharedWorkers = None,
    engine: SharedBy = "processes",
    rename: Rename = None,
    preset: Preset = None,
    seed: Seed = 0,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Hold a model to held-out rows: every metric with its controls, as a page."""
    from causalgen.cli.evaluate import run_evaluate

    run_evaluate(
        model,
        data,
        out,
        rows=rows,
        full=full,
        evaluators=evaluators,
        measures=measures,
        truth=truth,
        missing=missing,
        shared=(engine, workers),
        rename=rename or [],
        preset=preset,
        seed=seed,
        device=device,
        threads=threads,
    )


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
