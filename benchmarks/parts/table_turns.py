"""How ``tables.py`` compares: random linear models, and contenders as processes that are asked in turns.

    x_i = b_i + sum over about 3 random earlier nodes of w_ij x_j + u_i,   u_i ~ N(0, 1)

Weights are scaled so that every node has about unit variance, however deep it lies. The intervention sets the
first node, from which nearly all others descend. Each contender (``table_contenders.py``) has its own Python,
the same number of threads and the same rows from one file. One turn asks all of them the same once, in an
order that rotates, so that whatever else the machine does falls on all alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from .record import Result, show

__all__ = ["Context", "LinearModel", "OURS", "Process", "Speeds", "contenders", "take_turns"]

_PARENTS = 3


@dataclass(frozen=True)
class LinearModel:
    """A model.

    Attributes:
        parents: (K,) node numbers, for each node.
        weights: (K,) of these, for each node.
        biases: of each node.
    """

    parents: list[NDArray[np.int64]]
    weights: list[NDArray[np.float64]]
    biases: NDArray[np.float64]

    @staticmethod
    def random(nodes: int, seed: int) -> LinearModel:
        """Each node has 3 parents, or all earlier nodes where there are fewer."""
        generator = np.random.default_rng(seed)
        parents = [
            np.sort(generator.choice(node, min(_PARENTS, node), replace=False)) for node in range(nodes)
        ]
        weights = [generator.normal(size=len(each)) / np.sqrt(2 * max(len(each), 1)) for each in parents]
        return LinearModel(parents, weights, generator.normal(size=nodes))

    def save(self, folder: Path, rows: int, seed: int) -> Path:
        """Write the model and rows drawn from it where ``table_contenders.Case`` reads them."""
        generator = np.random.default_rng(seed)
        values = np.empty((len(self.parents), rows))
        for node, (parents, weights) in enumerate(zip(self.parents, self.weights, strict=True)):
            generator.standard_normal(out=values[node])
            values[node] += self.biases[node]
            for parent, weight in zip(parents, weights, strict=True):
                values[node] += weight * values[parent]
        edges = [(parent, node) for node, parents in enumerate(self.parents) for parent in parents]
        folder.mkdir(parents=True)
        np.savez(
            folder / "model.npz",
            edges=np.array(edges, np.int64).reshape(-1, 2), nodes=len(self.parents), node=0, value=1.0,
        )  # fmt: skip
        np.save(folder / "values.npy", values)
        return folder


@dataclass
class Context:
    """A run of the benchmark.

    Attributes:
        pythons: interpreters of the peers that were given, by contender.
        folder: for the rows of the cases, removed at the end.
        results: where pictures go.
        nodes: of the models.
        rows: of evidence.
        threads: numbers of threads to compare at.
        turns: of each comparison.
        budget: seconds that one contender may take in one comparison.
        grow_nodes: numbers of nodes for the growth.
        grow_rows: numbers of rows for the growth, at 50 nodes.
        memory_rows: rows whose peak memory is measured.
        console: to print on.
        keep: saves a section's result so far.
    """

    pythons: dict[str, str]
    folder: Path
    results: Path
    nodes: tuple[int, ...]
    rows: int
    threads: tuple[int, ...]
    turns: int
    budget: float
    grow_nodes: tuple[int, ...]
    grow_rows: tuple[int, ...]
    memory_rows: int
    console: Console
    keep: Callable[[Result], None] = lambda result: None

    def case(self, nodes: int, rows: int) -> Path:
        """The folder of a case; the same numbers give the same case."""
        folder = self.folder / f"{nodes}x{rows}"
        return folder if folder.exists() else LinearModel.random(nodes, seed=nodes).save(folder, rows, seed=1)

    def missing(self, *names: str) -> list[str]:
        """What is not measured, and why, to be said in the result."""
        return [
            f"{name}: not measured (give --{name.split('-')[0].lower()}-python)"
            for name in names
            if name not in self.pythons
        ]

    def show(self, title: str, rows: Sequence[Result], *, hide: Sequence[str] = ()) -> None:
        """Print rows as a table."""
        show(self.console, title, rows, hide=hide)


OURS = "causalgen"

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_KERNELS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Left to OpenBLAS itself: a kernel that the environment forces may be slower than its own choice."""


class Process:
    """A contender at work.

    Args:
        name: one of the contenders.
        python: the interpreter that has its library.
        threads: it may use.
    """

    def __init__(self, name: str, python: str, threads: int) -> None:
        # Nor is a peer shown this checkout.
        hidden = _KERNELS if python == sys.executable else (*_KERNELS, "PYTHONPATH")
        environment = {key: value for key, value in os.environ.items() if key not in hidden}
        self.name = name
        self.versions: dict[str, str] = {}
        self._process = subprocess.Popen(
            [python, str(Path(__file__).with_name("table_contenders.py")), name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment | dict.fromkeys(_THREADS, str(threads)) | {"PYTHONWARNINGS": "ignore"},
        )  # fmt: skip

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The answer to a command; see ``table_contenders``."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            pass  # read below that it has ended
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(
                f"error: the process of {self.name} ended at {do!r}; what it said of that is above"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise SystemExit(f"error: {self.name} failed at {do!r}: {answer['error']}")
        return answer

    def close(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


@contextmanager
def contenders(
    names: tuple[str, ...], pythons: Mapping[str, str], threads: int, folder: Path, *, fit: bool = True
) -> Iterator[dict[str, Process]]:
    """Those of the contenders that there are, by name, with a case prepared and fitted.

    Args:
        names: wanted.
        pythons: interpreters of the peers that were given.
        threads: of each.
        folder: of the case.
        fit: whether to fit at once.
    """
    with ExitStack() as stack:
        found: dict[str, Process] = {}
        for name in names:
            python = pythons.get(name) if name in ("DoWhy-GCM", "ChiRho") else sys.executable
            if python is None:
                continue
            found[name] = Process(name, python, threads)
            stack.callback(found[name].close)
        for process in found.values():
            process.versions = process.ask("prepare", folder=str(folder))["versions"]
            if fit:
                process.ask("fit")
        yield found


class Speeds:
    """Seconds of each contender by turn."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self.seconds: dict[str, list[float | None]] = {name: [] for name in names}
        self.cpu_seconds: dict[str, list[float]] = {name: [] for name in names}

    def median(self, name: str) -> float:
        """Median over the turns it took part in."""
        return median(each for each in self.seconds[name] if each is not None)

    def ratio(self, name: str, other: str = OURS) -> tuple[float, float, float]:
        """Seconds of the one by the other's: median over the turns of both, least and largest."""
        pairs = zip(self.seconds[name], self.seconds[other], strict=True)
        ratios = [mine / theirs for mine, theirs in pairs if mine is not None and theirs is not None]
        return median(ratios), min(ratios), max(ratios)

    def row(self, **case: Any) -> dict[str, Any]:
        """The case, with medians and numbers of turns."""
        row = dict(case)
        for name in self.seconds:
            row[f"{name} s"] = self.median(name)
        for name in self.seconds:
            row[f"{name} cpu s"] = median(self.cpu_seconds[name])
        return row | {"turns": {name: self._turns(name) for name in self.seconds}}

    def _turns(self, name: str) -> int:
        return sum(each is not None for each in self.seconds[name])


def take_turns(
    processes: Mapping[str, Process],
    do: str,
    *,
    turns: int,
    budget: float,
    console: Console,
    **arguments: Any,
) -> Speeds:
    """Ask all of them the same, in turns, after one turn to warm up.

    Args:
        processes: by name.
        do: the command.
        turns: at most.
        budget: seconds a contender may take in all, but for its first turn.
        console: to tell what was left out.
        arguments: of the command.
    """
    names = list(processes)
    first = {name: processes[name].ask(do, **arguments) for name in names}
    times = arguments.get("times", 1)
    allowed = {name: budget / max(first[name]["seconds"] * times, 1e-9) for name in names}
    speeds = Speeds(processes)
    for turn in range(turns):
        answers: dict[str, dict[str, Any] | None] = dict.fromkeys(names)
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            if turn < max(1, int(allowed[name])):
                answers[name] = processes[name].ask(do, **arguments)
        for name, answer in answers.items():
            speeds.seconds[name].append(None if answer is None else answer["seconds"])
            if answer is not None:
                speeds.cpu_seconds[name].append(answer["cpu_seconds"])
    for name in names:
        if allowed[name] < turns:
            console.print(f"{name}: {max(1, int(allowed[name]))} of {turns} turns, for their length")
    return speeds
