"""Sections ``counterfactual``, ``one_row`` and ``fit``: the same question to every contender, in turns."""

from __future__ import annotations

import shutil
from typing import Any

from .tables_contenders import OURS, Process, Speeds, contenders, take_turns
from .tables_context import Context, Result, target

__all__ = ["counterfactual", "fit", "one_row"]

_DOWHY, _CHIRHO, _NUMPY, _HELD_OUT = "DoWhy-GCM", "ChiRho", "numpy", "causalgen, rows held out"


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
    hidden = ("cpu s", "range", "largest")
    rows = [
        {key: value for key, value in row.items() if not any(word in key for word in hidden)}
        for row in result["cases"]
    ]
    context.show(title, rows)
    if result["targets"]:
        context.show("Targets", result["targets"])
    for line in result["not measured"]:
        context.console.print(line)
    return result
