"""``causalgen sample``, ``counterfactual`` and ``effect``: what a model is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from causalgen.cli import options as opt
from graphs.errors import EvidenceError, InterventionError, UnknownNameError, numbered_rows

if TYPE_CHECKING:
    from graphs.variables import Variable

__all__ = ["counterfactual", "effect", "sample"]


def sample(
    model: opt.ModelName,
    out: opt.Out,
    n: Annotated[int, typer.Option("-n", min=1, help="How many rows to draw.")] = 16,
    do: Annotated[list[str] | None, typer.Option(help=f"{opt.ASSIGNED}; several set more nodes.")] = None,
    seed: opt.Seed = 0,
    clip: opt.Clip = False,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    threads: opt.Threads = None,
) -> None:
    """Draw rows from a model, perhaps under an intervention."""
    from causalgen.cli.assignments import parse_assignments
    from causalgen.cli.common import load_model, say
    from causalgen.saving.manifest import check_result_folder

    check_result_folder(out)
    scm = load_model(model, device, dtype=dtype, threads=threads)
    asked = parse_assignments(do or [], scm.variables, "--do", expressions=True)
    scm.sample(n, do=asked or None, seed=seed, clip=clip).save(out)
    say(out.resolve())


def counterfactual(
    model: opt.ModelName,
    evidence: opt.Evidence = None,
    given: opt.Set = None,
    do: Annotated[list[str] | None, typer.Option(help=f"{opt.ASSIGNED}; each one is a world.")] = None,
    out: opt.Out = Path("counterfactual"),
    samples: Annotated[
        int | None, typer.Option(min=1, help="How many draws for each row; one by default.")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="Evidence of any length, answered in parts: a Parquet file, or a folder of them."),
    ] = None,
    rename: opt.Rename = None,
    engine: Annotated[
        Literal["serial", "ray"],
        typer.Option(
            help="With --table: answer in one process, or on Ray (extra ray). Both give the same bits."
        ),
    ] = "serial",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="With --engine ray: how many workers; one for each CPU by default."),
    ] = None,
    part_rows: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --table: how many rows are answered together; the model chooses by default."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="With --table: go on with an interrupted job in --out.")
    ] = False,
    seed: opt.Seed = 0,
    preset: opt.Preset = None,
    clip: opt.Clip = False,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="How many CPU threads; all cores by default, one with --table.")
    ] = None,
) -> None:
    """Say what would have been, had things been otherwise: a picture and JSON, or Parquet for a --table."""
    from causalgen.cli.batch import Job, check_engine, run_table
    from causalgen.cli.counterfactual import Typed, run_counterfactual

    check_engine(engine, table, evidence, workers=workers, part_rows=part_rows, resume=resume)
    typed = (model, given or [], do or [], out, samples, rename or [], seed, preset, clip, device, dtype)
    if table is None:
        run_counterfactual(Typed(*typed, threads), evidence)
    else:
        run_table(Job(*typed, threads or 1, table, part_rows), engine, workers, resume=resume)


def effect(
    model: opt.ModelName,
    target: Annotated[str, typer.Argument(help="The node whose mean is compared.")],
    do: Annotated[list[str] | None, typer.Option(help=f"{opt.ASSIGNED}; several set more nodes.")] = None,
    versus: Annotated[
        list[str] | None, typer.Option(help="What to compare with, as --do; no intervention by default.")
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(
            help="Also by group: of a node's values, or of intervals, as in age=18,65; may be repeated."
        ),
    ] = None,
    category: Annotated[
        str | None,
        typer.Option(help="The category whose probability is compared, where the target has categories."),
    ] = None,
    evidence: opt.Evidence = None,
    typed: opt.Set = None,
    n: Annotated[int, typer.Option("-n", min=2, help="How many draws, in all.")] = 10_000,
    confidence: Annotated[
        float, typer.Option(help="Confidence level of the interval, between 0 and 1.")
    ] = 0.95,
    refits: Annotated[
        int,
        typer.Option(
            min=0,
            help="How many refits to resampled --data: the interval then includes the error of the fit.",
        ),
    ] = 0,
    data: Annotated[str | None, typer.Option(help="The training rows, for --refits.")] = None,
    clusters: Annotated[
        str | None,
        typer.Option(help="A column of --data: --refits draw all rows that share its value together."),
    ] = None,
    workers: opt.SharedWorkers = None,
    engine: opt.SharedBy = "processes",
    rename: opt.Rename = None,
    intervened: opt.Intervened = None,
    out: Annotated[Path | None, typer.Option(help="Write the effect to this CSV too.")] = None,
    seed: opt.Seed = 0,
    clip: opt.Clip = False,
    device: opt.Device = None,
    threads: opt.Threads = None,
) -> None:
    """Say how much an intervention changes a node on average, with an interval."""
    from causalgen.cli.assignments import parse_assignments, parse_intervened
    from causalgen.cli.common import column_names, load_model, say, write_file
    from causalgen.cli.given import named_evidence, named_rows, read_evidence, with_own_rows
    from causalgen.cli.ray_engine import require_ray, shared_workers
    from causalgen.cli.wording import in_command_words
    from causalgen.data.reading import Rows

    require_ray(engine)
    if (engine, workers, clusters, intervened) != ("processes", None, None, None) and not refits:
        raise EvidenceError(
            "--workers, --engine, --clusters, --intervened are for --refits. Say how many, or leave them out."
        )
    scm = load_model(model, device, threads=threads)
    if not do:
        raise InterventionError("Nothing to ask: give at least one --do node=value.")
    UnknownNameError.check("node", target, scm.variables, where="TARGET")
    known = parse_assignments(typed or [], scm.variables, "--set")
    source = with_own_rows(evidence, model)
    columns = column_names(rename, scm, data, named_evidence(source))
    marks = parse_intervened(intervened, scm.variables)
    known = read_evidence(source, scm, known, columns) | known
    with shared_workers(engine, workers, threads=threads) as shared, numbered_rows(named_rows(source)):
        found = scm.effect(
            target,
            do=parse_assignments(do, scm.variables, "--do", expressions=True),
            versus=parse_assignments(versus or [], scm.variables, "--versus", expressions=True) or None,
            given=_groups(given or []) or None,
            evidence=known or None,
            n=n,
            statistic=_statistic(target, scm.variables[target], category),
            seed=seed,
            confidence=confidence,
            clip=clip,
            refits=refits,
            clusters=clusters,
            workers=shared,
            data=Rows(data, columns, marks) if data is not None else None,
        )
    if category is not None:
        found = replace(found, target=f"{target} = {category}")  # whose probability it is
    say(in_command_words(str(found)))
    if out is not None:
        write_file(out, found.to_frame().to_csv(index=False).encode())
        say(out.resolve())


def _statistic(target: str, variable: Variable, category: str | None) -> Callable[[Any], Any] | None:
    """What is averaged of the target: whether it is a category, or the number that it is."""
    from causalgen.cli.assignments import parse_assignments
    from graphs.variables import Categorical, Image

    if isinstance(variable, Image):
        raise EvidenceError(
            f"Target {target!r} is an image, which has no mean. Ask about a number or a category, or in "
            "Python, scm.effect(statistic=...), about what you measure on it."
        )
    if isinstance(variable, Categorical) and category is None:
        raise EvidenceError(
            f"Target {target!r} has categories ({variable.describe()}), which have no mean. Give --category "
            "LABEL: the effect is a difference of its probabilities."
        )
    if category is None:
        return None
    if not isinstance(variable, Categorical):
        raise EvidenceError(f"--category is for categories; target {target!r} is {variable.describe()}.")
    wanted = parse_assignments([f"{target}={category}"], {target: variable}, "--category")[target]
    code = variable.encode(wanted, where="--category")
    return lambda values: variable.encode(values, where=target) == code


def _groups(texts: Sequence[str]) -> Mapping[str, Sequence[float] | None]:
    """``age=18,65`` as a node and the edges that cut it, ``sex`` as a node."""
    found: dict[str, Sequence[float] | None] = {}
    for text in texts:
        node, equals, edges = (each.strip() for each in text.partition("="))
        if node in found:
            raise EvidenceError(
                f"--given {text!r}: {node!r} is grouped by already. Give all its edges at once, as in "
                "age=18,65."
            )
        try:
            found[node] = [float(each) for each in edges.split(",")] if equals else None
        except ValueError as error:
            raise EvidenceError(
                f"--given {text!r}: expected a node, or a node and the edges that cut it, as in age=18,65."
            ) from error
    return found
