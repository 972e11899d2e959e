"""One contender in a process of its own: JSON commands come in by line, answers go out by line.

Runs in the contender's own Python, so it imports numpy alone. A contender is an object with these methods:

    prepare(case)                    whatever precedes the first question; not timed
    fit()                            fit the model to all rows of the case
    counterfactual(rows)             of the first rows, under do(node = value): values by node
    interventional(rows)             draws under the same intervention: values by node
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np

__all__ = ["Case", "Contender", "least_squares", "peak", "serve"]


class Case:
    """A linear SCM, rows of it and an intervention, as ``tables_model.LinearModel.save`` wrote them.

    Attributes:
        names: nodes in topological order.
        parents: of each node.
        columns: (N,) float64 of each node, contiguous.
        node: that is intervened on.
        value: that it is set to.
    """

    def __init__(self, folder: str) -> None:
        with np.load(f"{folder}/model.npz") as file:
            edges, self.value = file["edges"], float(file["value"])
            node, nodes = int(file["node"]), int(file["nodes"])
        values = np.load(f"{folder}/values.npy")
        self.names = [f"n{number}" for number in range(nodes)]
        self.node = self.names[node]
        self.parents: dict[str, list[str]] = {name: [] for name in self.names}
        for parent, child in edges:
            self.parents[self.names[child]].append(self.names[parent])
        self.columns = dict(zip(self.names, values, strict=True))

    def rows(self, count: int) -> dict[str, np.ndarray]:
        """The first rows of each column, as views."""
        return {name: column[:count] for name, column in self.columns.items()}

    def affected(self) -> list[str]:
        """Descendants of the intervened node, in topological order, without itself."""
        reached = {self.node}
        for name in self.names:
            if not reached.isdisjoint(self.parents[name]):
                reached.add(name)
        return [name for name in self.names if name in reached and name != self.node]


class Contender(Protocol):
    """See the head of this module."""

    def prepare(self, case: Case) -> None:
        """Before the first question."""

    def fit(self) -> None:
        """Fit to all rows."""

    def counterfactual(self, rows: int) -> Mapping[str, Any]:
        """Values by node."""
        ...

    def interventional(self, rows: int) -> Mapping[str, Any]:
        """Values by node."""
        ...


def least_squares(case: Case) -> tuple[dict[str, list[tuple[str, float]]], dict[str, float]]:
    """Weights by node and parent, and biases: what a contender without a fit of its own is given."""
    weights: dict[str, list[tuple[str, float]]] = {}
    biases: dict[str, float] = {}
    for name, parents in case.parents.items():
        target = case.columns[name]
        columns = np.stack([np.ones_like(target), *(case.columns[parent] for parent in parents)], axis=1)
        solution = np.linalg.lstsq(columns, target, rcond=None)[0]
        biases[name] = float(solution[0])
        weights[name] = [(parent, float(w)) for parent, w in zip(parents, solution[1:], strict=True)]
    return weights, biases


def serve(contender: Contender, *packages: str) -> None:
    """Answer until standard input ends; ``packages`` are those whose versions to tell."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    case: Case | None = None
    for line in sys.stdin:
        command = json.loads(line)
        try:
            if command["do"] == "prepare":
                case = Case(command["folder"])
                contender.prepare(case)
                answer: dict[str, Any] = {"versions": {name: version(name) for name in packages}}
            else:
                assert case is not None
                answer = _timed(contender, case, command)
        except Exception as error:  # told to the other side, which stops
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def _timed(contender: Contender, case: Case, command: dict[str, Any]) -> dict[str, Any]:
    arguments = () if command["do"] == "fit" else (command["rows"],)
    question = getattr(contender, command["do"])
    seconds: list[float] = []
    cpu_seconds: list[float] = []
    found: Mapping[str, Any] | None = None
    for _ in range(command.get("times", 1)):
        found = None  # nobody pays for freeing the answer before
        wall, cpu = time.perf_counter(), time.process_time()
        found = question(*arguments)
        cpu_seconds.append(time.process_time() - cpu)
        seconds.append(time.perf_counter() - wall)
    answer: dict[str, Any] = {
        "seconds": float(np.median(seconds)),
        "cpu_seconds": float(np.median(cpu_seconds)),
    }
    if found is not None:
        columns = {name: np.asarray(found[name], dtype=np.float64).reshape(-1) for name in case.names}
        if "means" in command:
            answer["means"] = [float(column.mean()) for column in columns.values()]
            answer["variances"] = [float(column.var()) for column in columns.values()]
        if "save" in command:
            np.save(command["save"], np.stack(list(columns.values())))
    return answer | {"peak": peak()}


def peak() -> int:
    """Most memory that this process has held so far, in bytes."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
