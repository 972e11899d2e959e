"""Speed, growth and memory of tables: counterfactuals and fits of linear models, beside numpy and peers.

    python benchmarks/tables.py [--dowhy-python PYTHON] [--chirho-python PYTHON] [--quick] [--only fit,growth]

Every contender runs in its own process on the same rows, in turns. Peers are looked for nowhere: give the
interpreter of an environment that has them. Sections are written to the result file one by one.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from parts.record import RESULTS, Result, Section, add_common, target
from parts.table_growth import growth, memory
from parts.table_turns import OURS, Context, Process, Speeds, contenders, take_turns
from rich.console import Console

_DOWHY, _CHIRHO, _NUMPY, _HELD_OUT = "DoWhy-GCM", "ChiRho", "numpy", "causalgen, rows held out"
_AGREE_NODES, _AGREE_ROWS = 50, 10_000


def agreement(context: Context) -> Result:
    """The same model fitted to the same rows gives the same answers, whichever contenders there are.

    Counterfactuals are compared value by value: with additive noise they are determined, so only rounding may
    differ. Means under an intervention are compared in units of their Monte Carlo error.
    """
    folder = context.case(_AGREE_NODES, _AGREE_ROWS)
    rows: list[Result] = []
    targets: list[Result] = []
    with contenders((OURS, _NUMPY, _DOWHY, _CHIRHO), context.pythons, 1, folder) as found:
        answers = {}
        for name, process in found.items():
            file = context.folder / "answer.npy"
            process.ask("counterfactual", rows=_AGREE_ROWS, save=str(file))
            answers[name] = np.load(file)
        draws = {
            name: found[name].ask("interventional", rows=_AGREE_ROWS, means=True)
            for name in (OURS, _DOWHY)
            if name in found
        }
    for name in answers:
        if name == OURS:
            continue
        difference = float(np.abs(answers[name] - answers[OURS]).max())
        row: Result = {"peer": name, "largest |x_cf - x_cf|": difference}
        targets.append(target(f"counterfactual, {name}", difference, most=1e-8))
        if name in draws:
            row["largest difference of means / its standard error"] = largest = _largest_z(
                draws[OURS], draws[name]
            )
            # The largest of 50 normal deviates is above 4 once in 300 runs.
            targets.append(target(f"interventional means, {name}", largest, most=4.0))
        rows.append(row)
    result = {"nodes": _AGREE_NODES, "rows": _AGREE_ROWS, "peers": rows, "targets": targets}
    context.show(
        f"Agreement, {_AGREE_NODES} nodes x {_AGREE_ROWS:,} rows, values of about unit deviation", rows
    )
    context.show("Targets", targets)
    missing = context.missing(_DOWHY, _CHIRHO)
    for line in missing:
        context.console.print(line)
    return result | {"not measured": missing}


def _largest_z(ours: Result, theirs: Result) -> float:
    difference = np.subtract(ours["means"], theirs["means"])
    error = np.sqrt(np.add(ours["variances"], theirs["variances"]) / _AGREE_ROWS)
    # The node that was set has no error.
    return float(np.abs(difference[error > 0] / error[error > 0]).max())


def counterfactual(context: Context) -> Result:
    """Counterfactuals of many rows under do() on a node from which nearly all others descend."""
    cases = [(nodes, context.rows) for nodes in context.nodes]
    names = (OURS, _NUMPY, _DOWHY, _CHIRHO)
    return _counterfactuals(context, cases, names, {_NUMPY: 2.0}, {_DOWHY: 5.0}, times=1)


def one_row(context: Context) -> Result:
    """The counterfactual of one row over the largest model; a turn is the median of 10 calls."""
    names = (OURS, _NUMPY, _DOWHY)
    return _counterfactuals(context, [(max(context.nodes), 1)], names, {}, {_DOWHY: 20.0}, times=10)


def fit(context: Context) -> Result:
    """Fitting the largest model: to all rows, as DoWhy-GCM does, and as ours does by default."""
    nodes, result = max(context.nodes), _empty(context, _DOWHY)
    folder = context.case(nodes, context.rows)
    for threads in context.threads:
        with contenders((OURS, _HELD_OUT, _DOWHY), context.pythons, threads, folder, fit=False) as found:
            speeds = take_turns(
                found, "fit", turns=context.turns, budget=context.budget, console=context.console
            )
        _add(result, speeds, {}, {_DOWHY: 5.0}, nodes=nodes, rows=context.rows, threads=threads)
        result["versions"] = _versions(found)
        context.keep(result)
    shutil.rmtree(folder)
    return _shown(context, "Fit of a linear model, seconds", result)


def _counterfactuals(
    context: Context,
    cases: list[tuple[int, int]],
    names: tuple[str, ...],
    most: dict[str, float],
    least: dict[str, float],
    *,
    times: int,
) -> Result:
    result = _empty(context, *(name for name in names if name in (_DOWHY, _CHIRHO)))
    for nodes, rows in cases:
        folder = context.case(nodes, max(rows, 2000))
        for threads in context.threads:
            with contenders(names, context.pythons, threads, folder) as found:
                agreement = _same_answers(found, rows)
                speeds = take_turns(
                    found, "counterfactual", rows=rows, times=times,
                    turns=context.turns, budget=context.budget, console=context.console,
                )  # fmt: skip
            case = {"nodes": nodes, "rows": rows, "threads": threads}
            _add(result, speeds, most, least, **case)
            result["cases"][-1]["largest difference of means"] = agreement
            result["versions"] = _versions(found)
            context.keep(result)
        shutil.rmtree(folder)
    return _shown(context, "Counterfactuals, seconds a call", result)


def _same_answers(processes: dict[str, Process], rows: int) -> float:
    """Stop where a contender computes something else: its speed would mean nothing."""
    means = {
        name: process.ask("counterfactual", rows=rows, means=True)["means"]
        for name, process in processes.items()
    }
    largest = 0.0
    for name, theirs in means.items():
        difference = max(abs(a - b) for a, b in zip(means[OURS], theirs, strict=True))
        if not difference < 1e-7:
            raise SystemExit(f"error: {name} answers differently, by {difference:.2g} in the mean of a node")
        largest = max(largest, difference)
    return largest


def _versions(processes: dict[str, Process]) -> dict[str, dict[str, str]]:
    return {name: process.versions for name, process in processes.items() if process.versions}


def _empty(context: Context, *peers: str) -> Result:
    return {"not measured": context.missing(*peers), "cases": [], "targets": []}


def _add(
    result: Result, speeds: Speeds, most: dict[str, float], least: dict[str, float], **case: Any
) -> None:
    row = speeds.row(**case)
    told = ", ".join(f"{value} {name}" for name, value in case.items())
    for name in speeds.seconds:
        if name == OURS:
            continue
        ratio, low, high = speeds.ratio(name)
        # Against numpy how many times slower we are; against the others how many times faster.
        if name == _NUMPY:
            ratio, low, high = speeds.ratio(OURS, name)
        if name in most:
            result["targets"].append(target(f"{told}: seconds by those of {name}", ratio, most=most[name]))
        if name in least:
            result["targets"].append(target(f"{told}: faster than {name} by", ratio, least=least[name]))
        row[f"{OURS} / {name}" if name == _NUMPY else f"{name} / {OURS}"] = ratio
        row[f"range, {name}"] = [low, high]
    result["cases"].append(row)


def _shown(context: Context, title: str, result: Result) -> Result:
    context.show(title, result["cases"], hide=("cpu s", "range", "largest"))
    if result["targets"]:
        context.show("Targets", result["targets"])
    for line in result["not measured"]:
        context.console.print(line)
    return result


SECTIONS = {
    "agreement": agreement,
    "counterfactual": counterfactual,
    "one_row": one_row,
    "fit": fit,
    "growth": growth,
    "memory": memory,
}

_FULL = {
    "nodes": (10, 50, 200),
    "rows": 100_000,
    "threads": (1, 2),
    "turns": 9,
    "grow_nodes": (10, 30, 100, 300, 1000, 2000),
    "grow_rows": (1, 10, 100, 1000, 10_000, 100_000, 1_000_000),
    "memory_rows": 1_000_000,
}
_QUICK = {
    "nodes": (50,),
    "rows": 10_000,
    "threads": (1,),
    "turns": 3,
    "grow_nodes": (10, 100),
    "grow_rows": (1, 10, 100, 1000, 10_000),
    "memory_rows": 100_000,
}


def main(arguments: list[str]) -> None:
    """Run the chosen sections, print their tables and save their results."""
    options = _parser().parse_args(arguments)
    sizes = dict(_QUICK if options.quick else _FULL)
    for name in ("nodes", "rows", "threads", "turns"):
        given = getattr(options, name)
        if given is not None:
            sizes[name] = tuple(given) if isinstance(given, list) else given
    # A quick run is no result to keep.
    quick_out = options.quick and options.out == RESULTS / "tables.json"
    out = Path("runs/tables.json") if quick_out else options.out
    pythons = {"DoWhy-GCM": options.dowhy_python, "ChiRho": options.chirho_python}
    folder = Path(tempfile.mkdtemp(prefix="causalgen-tables-"))
    context = Context(
        pythons={name: python for name, python in pythons.items() if python is not None},
        folder=folder,
        results=out.parent,
        budget=options.budget,
        console=Console(width=options.width),
        **sizes,  # pyright: ignore[reportArgumentType]
    )
    try:
        for name in options.only or SECTIONS:
            section = Section(out, name, threads=list(context.threads))
            context.keep = section.keep
            section.finish(SECTIONS[name](context))
    finally:
        shutil.rmtree(folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--dowhy-python", metavar="PYTHON", help="interpreter that has dowhy; without it, no such column")
    add("--chirho-python", metavar="PYTHON", help="interpreter that has chirho; without it, no such column")
    add("--quick", action="store_true", help="small sizes, under a minute, into runs/tables.json")
    add_common(parser, "tables.json", SECTIONS, threads=False, width=170)
    add("--nodes", type=int, nargs="+", help="of the models (10 50 200)")
    add("--rows", type=int, help="of evidence (100000)")
    add("--threads", type=int, nargs="+", help="of every contender (1 2)")
    add("--turns", type=int, help="of each comparison (9)")
    add("--budget", type=float, default=60, help="seconds of a contender in a comparison (%(default)s)")
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
