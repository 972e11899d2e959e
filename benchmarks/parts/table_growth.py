"""Sections ``growth`` and ``memory`` of ``tables.py``: seconds by nodes and rows, and memory.

Growth is against a + b n: a and b are not negative and minimise the sum of squared *relative* deviations, so
that 10 nodes count as much as 2,000. Memory is what a counterfactual of many rows holds beyond its input and
output, each measured in a process of its own, since the operating system only tells the most that a process
ever held. With chunks the rows are asked for in slices, and each slice's answer is copied into the output.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.figure import Figure

from causalgen.plotting.plot_style import ACCENT, FAINT, INK

from .record import Result
from .table_turns import OURS, Context, Process, contenders

__all__ = ["growth", "line", "memory"]

_ROWS, _NODES, _CHUNK = 10_000, 50, 65_536


def growth(context: Context) -> Result:
    """Both series, their lines and a picture."""
    result: Result = {
        "nodes": {"rows": _ROWS, **_by_nodes(context)},
        "rows": {"nodes": _NODES, **_by_rows(context)},
    }
    for what in ("nodes", "rows"):
        series = result[what]
        context.show(f"Seconds by {what}", series["measured"])
        context.console.print(
            f"{series['a']:.3g} s + {series['b']:.3g} s * {what}, deviation at most "
            f"{series['largest relative deviation']:.0%}\n"
        )
    picture = context.results / "tables_growth.png"
    _plot(result, picture)
    context.console.print(f"picture: {picture.name}")
    return result


def line(sizes: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """a and b of a + b n, neither negative, of least relative squares."""
    n, t = np.asarray(sizes, dtype=np.float64), np.asarray(seconds, dtype=np.float64)
    columns = np.stack([1 / t, n / t], axis=1)
    a, b = np.linalg.lstsq(columns, np.ones_like(t), rcond=None)[0]
    if a >= 0 and b >= 0:
        return float(a), float(b)
    only = 1 if a < 0 else 0
    value = float(columns[:, only].sum() / (columns[:, only] ** 2).sum())
    return (0.0, value) if only else (value, 0.0)


def _by_nodes(context: Context) -> Result:
    folders = {nodes: context.case(nodes, _ROWS) for nodes in context.grow_nodes}
    with ExitStack() as stack:
        processes = {
            nodes: stack.enter_context(contenders((OURS,), {}, 1, folder))[OURS]
            for nodes, folder in folders.items()
        }
        seconds = _turns({nodes: (process, _ROWS) for nodes, process in processes.items()}, context.turns)
    for folder in folders.values():
        shutil.rmtree(folder)
    return _series(seconds)


def _by_rows(context: Context) -> Result:
    folder = context.case(_NODES, max(context.grow_rows))
    with contenders((OURS,), {}, 1, folder) as found:
        seconds = _turns({rows: (found[OURS], rows) for rows in context.grow_rows}, context.turns)
    shutil.rmtree(folder)
    return _series(seconds)


def _turns(questions: dict[int, tuple[Process, int]], turns: int) -> dict[int, list[float]]:
    """Seconds by size; the sizes take turns, and short questions are asked more than once a turn."""
    seconds: dict[int, list[float]] = {size: [] for size in questions}
    for turn in range(-1, turns):
        for size, (process, rows) in questions.items():
            times = max(2, min(20, 20_000 // rows))
            answer = process.ask("counterfactual", rows=rows, times=times)
            if turn >= 0:  # the first is to warm up
                seconds[size].append(answer["seconds"])
    return seconds


def _series(seconds: dict[int, list[float]]) -> Result:
    sizes, times = list(seconds), [median(each) for each in seconds.values()]
    a, b = line(sizes, times)
    deviations = [t / (a + b * n) - 1 for n, t in zip(sizes, times, strict=True)]
    measured = [
        {"n": n, "seconds": t, "a + b n": a + b * n, "deviation": deviation}
        for n, t, deviation in zip(sizes, times, deviations, strict=True)
    ]
    largest = max(abs(deviation) for deviation in deviations)
    return {"a": a, "b": b, "largest relative deviation": largest, "measured": measured}


def _plot(result: Result, file: Path) -> None:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    fixed = {"nodes": f"{_ROWS:,} rows", "rows": f"{_NODES} nodes"}
    for axes, what in zip(figure.subplots(1, 2), ("nodes", "rows"), strict=True):
        series = result[what]
        sizes = [each["n"] for each in series["measured"]]
        dense = np.geomspace(min(sizes), max(sizes), 200)
        axes.loglog(dense, series["a"] + series["b"] * dense, color=FAINT, label=_told(series, what))
        axes.loglog(sizes, [each["seconds"] for each in series["measured"]], "o", color=ACCENT)
        axes.set_xlabel(what, color=INK)
        axes.set_ylabel("seconds", color=INK)
        axes.set_title(f"Counterfactual of {fixed[what]}, one thread", color=INK, fontsize=10)
        axes.legend(frameon=False, loc="upper left")
        axes.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)


def _told(series: Result, what: str) -> str:
    unit = {"nodes": "node", "rows": "row"}[what]
    return f"{_plain(series['a'] * 1e3)} ms + {_plain(series['b'] * 1e6)} µs a {unit}"


def _plain(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def memory(context: Context) -> Result:
    """All rows at once, and in chunks."""
    folder = context.case(_NODES, context.memory_rows)
    rows = []
    for chunk in (context.memory_rows, _CHUNK):
        if chunk > context.memory_rows:
            continue
        with contenders((OURS,), {}, 1, folder, fit=False) as found:
            rows.append({"rows at once": chunk, **found[OURS].ask("memory", chunk=chunk)})
    context.show(f"Memory, {_NODES} nodes x {context.memory_rows:,} rows, MB", rows)
    return {"nodes": _NODES, "rows": context.memory_rows, "chunks": rows}
