"""What the peers' scripts share: the file of answers, and a training budget. Runs under a peer's own Python.

Answers are one .npz that grows block by block, so that a stopped run goes on where it was: arrays by name,
and ``meta``, a JSON text with ``rows`` (digest of the rows asked for), ``settings`` and, for each block,
``seconds`` by the wall clock, ``cpu_seconds`` and whatever else the script says of it.

A budget is in CPU seconds of one thread of a quiet machine. On a shared machine a step costs more CPU time
than it does alone, so every step is charged at the 10th percentile of the steps' CPU times so far.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["AnswerFile", "StepBudget", "digest"]


class AnswerFile:
    """Blocks of answers in ``path``; those that are there already, for the same rows and settings, are kept.

    Args:
        path: of the .npz; its folder must exist.
        rows: digest of the rows.
        settings: what else the answers depend on, as JSON.
    """

    def __init__(self, path: Path, rows: str, settings: dict[str, Any]) -> None:
        self.path = path
        self.arrays: dict[str, np.ndarray] = {}
        self.meta: dict[str, Any] = {"rows": rows, "settings": settings, "blocks": {}}
        if path.exists():
            with np.load(path) as found:
                meta = json.loads(str(found["meta"]))
                if (meta["rows"], meta["settings"]) == (rows, json.loads(json.dumps(settings))):
                    self.meta = meta
                    self.arrays = {name: found[name] for name in found.files if name != "meta"}

    def block(self, name: str, compute: Callable[[], dict[str, np.ndarray]], **about: Any) -> None:
        """Add the arrays ``name/key`` that ``compute`` gives by key, and save, unless the block is there."""
        if name in self.meta["blocks"]:
            return
        wall, cpu = time.perf_counter(), time.process_time()
        found = compute()
        seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
        self.arrays |= {f"{name}/{key}" if key else name: array for key, array in found.items()}
        self.meta["blocks"][name] = {"seconds": seconds, "cpu_seconds": cpu_seconds} | about
        self.save()
        print(f"{name}: {seconds:.0f} s, {cpu_seconds:.0f} CPU s", file=sys.stderr, flush=True)

    def save(self) -> None:
        """Write the file anew beside itself and put it in place."""
        beside = self.path.with_name(self.path.name + ".part")
        with beside.open("wb") as file:
            np.savez_compressed(file, meta=np.array(json.dumps(self.meta)), **self.arrays)  # type: ignore[arg-type]
        os.replace(beside, self.path)


def digest(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 of named arrays."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        total.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        total.update(np.ascontiguousarray(arrays[name]).tobytes())
    return total.hexdigest()


class StepBudget:
    """Counts steps and what they are charged.

    Args:
        seconds: that may be spent.
        earlier: ``report`` of the run that is continued, whose steps count.
    """

    def __init__(self, seconds: float, earlier: dict[str, Any] | None = None) -> None:
        self.seconds = seconds
        self.earlier = earlier or {}
        self.steps: list[float] = []
        self.mark = self.began = time.process_time()
        self.wall = time.time()

    def begin(self) -> None:
        """A step begins."""
        self.mark = time.process_time()

    def end(self) -> None:
        """It ended."""
        self.steps.append(time.process_time() - self.mark)

    @property
    def charged(self) -> float:
        """CPU seconds charged so far."""
        now = len(self.steps) * float(np.percentile(self.steps, 10)) if self.steps else 0.0
        return self.earlier.get("charged_seconds", 0.0) + now

    @property
    def taken(self) -> int:
        """Steps so far."""
        return self.earlier.get("steps", 0) + len(self.steps)

    def report(self) -> dict[str, Any]:
        """What was spent, for ``budget.json``."""
        return {
            "steps": self.taken,
            "charged_seconds": self.charged,
            "budget_seconds": self.seconds,
            "process_cpu_seconds": self._and_earlier("process_cpu_seconds", time.process_time() - self.began),
            "wall_seconds": self._and_earlier("wall_seconds", time.time() - self.wall),
        }

    def _and_earlier(self, name: str, now: float) -> float:
        return self.earlier.get(name, 0.0) + now
