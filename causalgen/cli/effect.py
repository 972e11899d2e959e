"""``causalgen effect``: how much an intervention changes a node on average; see ``scm.effect``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from causalgen.cli.assignments import parse_assignments
from causalgen.cli.common import column_names, console, load_model, use_threads, write_file
from causalgen.cli.given import named_evidence, read_evidence, with_own_rows
from causalgen.cli.ray_engine import check_shared, shared_workers
from causalgen.cli.wording import in_command_words
from causalgen.data.reading import Renamed
from graphs.errors import EvidenceError, InterventionError, UnknownNameError
from graphs.variables import Categorical, Image, Variable

__all__ = ["run_effect"]


def run_effect(
    model: str,
    target: str,
    does: Sequence[str],
    *,
    versus: Sequence[str],
    given: Sequence[str],
    category: str | None,
    evidence: str | None,
    typed: Sequence[str],
    n: int,
    confidence: float,
    clip: bool,
    refits: int,
    data: str | None,
    shared: tuple[str, int | None],
    rename: Sequence[str],
    out: Path | None,
    seed: int,
    device: str | None,
    threads: int | None,
) -> None:
    """Ask, print the effect, and write it as a CSV table where asked."""
    check_shared(*shared)
    if shared != ("processes", None) and not refits:
        raise EvidenceError("--workers and --engine are for --refits. Say how many, or leave them out.")
    use_threads(threads)
    scm = load_model(model, device)
    if not does:
        raise InterventionError("Nothing to ask: give at least one --do node=value.")
    if target not in scm.variables:
        raise UnknownNameError.of("node", target, scm.variables, where="TARGET")
    known = parse_assignments(typed, scm.variables, "--set")
    source = with_own_rows(evidence, model)
    columns = column_names(rename, scm, data, named_evidence(source))
    known = read_evidence(source, scm, known, columns) | known
    with shared_workers(*shared, threads=threads) as workers:
        found = scm.effect(
            target,
            do=parse_assignments(does, scm.variables, "--do", expressions=True),
            versus=parse_assignments(versus, scm.variables, "--versus", expressions=True) or None,
            given=_groups(given) or None,
            evidence=known or None,
            n=n,
            statistic=_statistic(target, scm.variables[target], category),
            seed=seed,
            confidence=confidence,
            clip=clip,
            refits=refits,
            workers=workers,
            data=Renamed(data, columns) if data is not None else None,
        )
    say = console().print
    say(in_command_words(str(found)))
    if out is not None:
        write_file(out, found.to_frame().to_csv(index=False).encode())
        say(str(out.resolve()))


def _statistic(target: str, variable: Variable, category: str | None) -> Callable[[Any], Any] | None:
    """What is averaged of the target: whether it is a category, or the number that it is."""
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
    return lambda values: variable.encode(values, where=target) == np.asarray(code)


def _groups(texts: Sequence[str]) -> Mapping[str, Sequence[float] | None]:
    """``age=18,65`` as a node and the edges that cut it, ``sex`` as a node."""
    found: dict[str, Sequence[float] | None] = {}
    for text in texts:
        node, equals, edges = (each.strip() for each in text.partition("="))
        try:
            found[node] = [float(each) for each in edges.split(",")] if equals else None
        except ValueError as error:
            raise EvidenceError(
                f"--given {text!r}: expected a node, or a node and the edges that cut it, as in age=18,65."
            ) from error
    return found
