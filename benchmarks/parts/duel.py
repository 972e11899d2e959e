"""Duel: the default and the fast setting against the preset ``diff-scm``, same weights, same rows, same run.

The rows are cut into blocks; within a block the contenders take turns, in an order that rotates. Speed is the
median over blocks, and so is each ratio, taken block by block.
"""

from __future__ import annotations

from itertools import pairwise
from statistics import median

import numpy as np

from . import settings
from .answers import Answer, ask
from .context import Context, Result
from .figures import merits, target

__all__ = ["duel"]

_BLOCKS = 8


def duel(context: Context) -> Result:
    """Effectiveness, L1 and images a second of each, and the ratios of speed."""
    rows, judge = context.rows("rows"), context.judge
    contenders = {
        "default": context.scm,
        "fast": settings.fast(context.scm, context.fast_steps),
        "diff-scm": settings.diff_scm(context.scm, settings.UNCONDITIONAL["raw s=1, unconditional"]),
    }
    names = list(contenders)
    for scm in contenders.values():
        ask(scm, rows[:2])  # warm up
    answers: dict[str, list[Answer]] = {name: [] for name in names}
    cuts = np.linspace(0, len(rows), min(_BLOCKS, len(rows)) + 1).astype(int).tolist()
    blocks = [rows[start:end] for start, end in pairwise(cuts)]
    for turn, block in enumerate(blocks):
        for name in names[turn % 3 :] + names[: turn % 3]:
            answers[name].append(ask(contenders[name], block))
        context.console.print(f"duel: block {turn + 1}/{len(blocks)}")
    speeds = {
        name: [len(block) / answer.cost.seconds for block, answer in zip(blocks, answers[name], strict=True)]
        for name in names
    }
    result: Result = {"rows": len(rows), "blocks": len(blocks), "settings": []}
    for name in names:
        images = np.concatenate([answer.images for answer in answers[name]])
        cost = sum((answer.cost for answer in answers[name][1:]), answers[name][0].cost).each(len(rows))
        ratios = [ours / theirs for ours, theirs in zip(speeds[name], speeds["diff-scm"], strict=True)]
        cost["images/s"] = median(speeds[name])
        figures: Result = {"setting": name} | merits(images, rows, judge) | cost
        result["settings"].append(
            figures | {"speed-up": median(ratios), "speed-ups": [min(ratios), max(ratios)]}
        )
    default, quick, paper = result["settings"]
    result["targets"] = [
        target("default: speed-up", default["speed-up"], least=3.5),
        _above("default", default, paper),
        target("fast: speed-up", quick["speed-up"], least=7),
        _above("fast", quick, paper),
    ]
    context.show(
        f"Against diff-scm (75 + 75 steps), {len(rows)} rows, medians of {len(blocks)}", result["settings"]
    )
    context.show("Targets", result["targets"])
    return result


def _above(name: str, ours: Result, theirs: Result) -> Result:
    gain = ours["effectiveness"] - theirs["effectiveness"]
    return {
        "what": f"{name}: effectiveness above diff-scm's by",
        "value": gain,
        "bound": "> 0",
        "met": gain > 0,
    }
