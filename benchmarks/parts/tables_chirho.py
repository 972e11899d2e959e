"""The contender "ChiRho": a Pyro program with explicit noise; runs in ChiRho's own Python.

It recovers no noise, so that is done by hand, and it has no fit for this model, so the weights are given.
Only the intervened world is asked for, which is the cheapest question it can be asked.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from chirho.counterfactual.handlers import SingleWorldCounterfactual
from chirho.interventional.handlers import do
from chirho.observational.handlers import condition
from tables_serve import Case, least_squares, serve
from torch import Tensor


class ChiRho:
    """Noise u by hand, then the program conditioned on u, under ``do``."""

    def prepare(self, case: Case) -> None:
        """Weights by least squares."""
        self.case = case
        self.weights, self.biases = least_squares(case)
        self.columns = {name: torch.from_numpy(column) for name, column in case.columns.items()}

    def fit(self) -> None:
        """Not timed: the model is given."""

    def counterfactual(self, rows: int) -> dict[str, Tensor]:
        """Every node in the intervened world."""
        evidence = {name: column[:rows] for name, column in self.columns.items()}
        noise: dict[str, Tensor] = {}
        for name in self.case.names:
            residual = evidence[name] - self.biases[name]
            for parent, weight in self.weights[name]:
                residual = residual.sub_(evidence[parent], alpha=weight)
            noise[f"u_{name}"] = residual
        actions = {self.case.node: torch.tensor(self.case.value, dtype=torch.float64)}
        with torch.no_grad(), SingleWorldCounterfactual(), do(actions=actions), condition(data=noise):
            found = self._program(rows)
        return {name: value.expand(rows) for name, value in found.items()}

    def interventional(self, rows: int) -> dict[str, Tensor]:
        """Not asked of it."""
        raise NotImplementedError

    def _program(self, rows: int) -> dict[str, Tensor]:
        zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
        values: dict[str, Tensor] = {}
        with pyro.plate("rows", rows, dim=-1):
            for name in self.case.names:
                value = pyro.sample(f"u_{name}", dist.Normal(zero, one)) + self.biases[name]
                for parent, weight in self.weights[name]:
                    value = value + weight * values[parent]
                values[name] = pyro.deterministic(name, value)
        return values


if __name__ == "__main__":
    serve(ChiRho(), "chirho", "pyro-ppl", "torch")
