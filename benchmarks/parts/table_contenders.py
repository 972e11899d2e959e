"""The contenders of ``tables.py``, each a process of its own: JSON commands in by line, answers out.

    PYTHON parts/table_contenders.py NAME

Runs in the contender's own Python: numpy is imported here, a contender's library only by its class. A
contender is an object with these methods:

    prepare(case)                    whatever precedes the first question; not timed
    fit()                            fit the model to all rows of the case; not timed where the model is given
    counterfactual(rows)             of the first rows, under do(node = value): values by node
    interventional(rows)             draws under the same intervention: values by node (causalgen, DoWhy-GCM)
    memory(chunk)                    the most held beyond input and output, in MB (causalgen)
"""

# Peers' libraries are installed in their own Python.
# pyright: reportMissingImports=false

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

__all__ = ["CONTENDERS", "Case"]


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


class Causalgen:
    """As a user would: every node ``additive``, a dict of arrays as data and as evidence."""

    def __init__(self, *, held_out: bool) -> None:
        import causalgen as cg

        # Peers fit to all rows.
        training = cg.mechanisms.Training() if held_out else cg.mechanisms.Training(validation=0)
        self.cg, self.mechanism = cg, cg.mechanisms.Additive(training=training)

    def prepare(self, case: Case) -> None:
        """Declare the model."""
        self.case = case
        self.scm = self.cg.SCM(
            self.cg.CausalGraph(case.parents),
            {name: self.cg.Continuous() for name in case.names},
            {name: self.mechanism for name in case.names},
        )

    def fit(self) -> None:
        """To all rows."""
        self.scm.fit(self.case.columns, progress=False)

    def counterfactual(self, rows: int) -> dict[str, Any]:
        """Every node's values, taken out of the result."""
        evidence = self.case.rows(rows)
        return dict(self.scm.counterfactual(evidence, do={self.case.node: self.case.value}, seed=0))

    def interventional(self, rows: int) -> dict[str, Any]:
        """Draws under the intervention."""
        return dict(self.scm.sample(rows, do={self.case.node: self.case.value}, seed=0))

    def memory(self, chunk: int) -> dict[str, float]:
        """Of a counterfactual of all rows, ``chunk`` at a time, as the first question to the process."""
        columns, rows = self.case.columns, len(self.case.columns[self.case.node])
        self.scm.fit(self.case.rows(10_000), progress=False)
        self.counterfactual(100)  # whatever the first call loads
        do, found = {self.case.node: self.case.value}, None
        before = peak()
        if chunk < rows:
            found = {name: np.zeros(rows) for name in columns}
            for name in found:
                found[name].fill(0.0)  # the output, in memory before the first chunk
            for start in range(0, rows, chunk):
                part = slice(start, start + chunk)
                evidence = {name: column[part] for name, column in columns.items()}
                answer = self.scm.counterfactual(evidence, do=do, seed=0)
                for name, values in found.items():
                    values[part] = answer[name]
                del answer
        else:
            found = dict(self.scm.counterfactual(columns, do=do, seed=0))
        held, size = peak() - before, sum(each.nbytes for each in columns.values())
        mean = float(np.mean([float(np.asarray(each).mean()) for each in found.values()]))
        return {"input": size / 1e6, "output": size / 1e6, "beyond both": (held - size) / 1e6, "mean": mean}


class ByHand:
    """Abduct, act, predict on the affected nodes; arrays are reused where that is free."""

    def prepare(self, case: Case) -> None:
        """Weights by least squares, and the order of the affected nodes."""
        self.case = case
        self.weights, self.biases = least_squares(case)
        self.order = case.affected()

    def fit(self) -> None:
        """Not timed: the model is given."""

    def counterfactual(self, rows: int) -> dict[str, np.ndarray]:
        """A new array for each affected node, the evidence itself for the others."""
        evidence = self.case.rows(rows)
        found = dict(evidence)
        found[self.case.node] = np.full(rows, self.case.value)
        product = np.empty(rows)
        for name in self.order:
            bias, weights = self.biases[name], self.weights[name]
            value = evidence[name] - bias
            for parent, weight in weights:
                value -= np.multiply(evidence[parent], weight, out=product)
            # value is the noise now
            value += bias
            for parent, weight in weights:
                value += np.multiply(found[parent], weight, out=product)
            found[name] = value
        return found


class DoWhy:
    """As its documentation does it; data frames in and out, which is its form."""

    def prepare(self, case: Case) -> None:
        """Declare the model; the frames are made before, and not timed."""
        import networkx as nx
        import pandas as pd
        from dowhy import gcm

        self.gcm = gcm
        gcm.config.disable_progress_bars()
        self.case, self.frame = case, pd.DataFrame(case.columns)
        self.evidence: dict[int, pd.DataFrame] = {}
        graph = nx.DiGraph()
        graph.add_nodes_from(case.names)
        graph.add_edges_from((parent, name) for name in case.names for parent in case.parents[name])
        self.model = gcm.InvertibleStructuralCausalModel(graph)
        for name in case.names:
            if case.parents[name]:
                regression = gcm.AdditiveNoiseModel(gcm.ml.create_linear_regressor())
                self.model.set_causal_mechanism(name, regression)
            else:
                self.model.set_causal_mechanism(name, gcm.EmpiricalDistribution())

    def fit(self) -> None:
        """To all rows."""
        self.gcm.fit(self.model, self.frame)

    def counterfactual(self, rows: int) -> Any:
        """A data frame."""
        evidence = self.evidence.setdefault(rows, self.frame.iloc[:rows])
        return self.gcm.counterfactual_samples(self.model, self._do(), observed_data=evidence)

    def interventional(self, rows: int) -> Any:
        """A data frame."""
        self.gcm.util.general.set_random_seed(0)
        return self.gcm.interventional_samples(self.model, self._do(), num_samples_to_draw=rows)

    def _do(self) -> dict[str, Any]:
        return {self.case.node: lambda natural: self.case.value}


class ChiRho:
    """A Pyro program with explicit noise, conditioned on u that is recovered by hand, under ``do``.

    ChiRho recovers no noise, and has no fit for this model, so the weights are given. Only the intervened
    world is asked for, which is the cheapest question it can be asked.
    """

    def prepare(self, case: Case) -> None:
        """Weights by least squares."""
        import torch

        self.case = case
        self.weights, self.biases = least_squares(case)
        self.columns = {name: torch.from_numpy(column) for name, column in case.columns.items()}

    def fit(self) -> None:
        """Not timed: the model is given."""

    def counterfactual(self, rows: int) -> dict[str, Any]:
        """Every node in the intervened world."""
        import torch
        from chirho.counterfactual.handlers import SingleWorldCounterfactual
        from chirho.interventional.handlers import do
        from chirho.observational.handlers import condition

        evidence = {name: column[:rows] for name, column in self.columns.items()}
        noise: dict[str, Any] = {}
        for name in self.case.names:
            residual = evidence[name] - self.biases[name]
            for parent, weight in self.weights[name]:
                residual = residual.sub_(evidence[parent], alpha=weight)
            noise[f"u_{name}"] = residual
        actions = {self.case.node: torch.tensor(self.case.value, dtype=torch.float64)}
        with torch.no_grad(), SingleWorldCounterfactual(), do(actions=actions), condition(data=noise):
            found = self._program(rows)
        return {name: value.expand(rows) for name, value in found.items()}

    def _program(self, rows: int) -> dict[str, Any]:
        import pyro
        import pyro.distributions as dist
        import torch

        zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
        values: dict[str, Any] = {}
        with pyro.plate("rows", rows, dim=-1):
            for name in self.case.names:
                value = pyro.sample(f"u_{name}", dist.Normal(zero, one)) + self.biases[name]
                for parent, weight in self.weights[name]:
                    value = value + weight * values[parent]
                values[name] = pyro.deterministic(name, value)
        return values


def serve(contender: Any, *packages: str) -> None:
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
            elif command["do"] == "memory":
                answer = contender.memory(command["chunk"])
            else:
                assert case is not None
                answer = _timed(contender, case, command)
        except Exception as error:  # told to the other side, which stops
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def _timed(contender: Any, case: Case, command: dict[str, Any]) -> dict[str, Any]:
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


CONTENDERS: dict[str, Any] = {
    "causalgen": lambda: serve(Causalgen(held_out=False)),
    "causalgen, rows held out": lambda: serve(Causalgen(held_out=True)),
    "numpy": lambda: serve(ByHand(), "numpy"),
    "DoWhy-GCM": lambda: serve(DoWhy(), "dowhy", "scikit-learn", "pandas"),
    "ChiRho": lambda: serve(ChiRho(), "chirho", "pyro-ppl", "torch"),
}

if __name__ == "__main__":
    CONTENDERS[sys.argv[1]]()
