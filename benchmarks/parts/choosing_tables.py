"""Synthetic tables whose counterfactuals are known: x := f(pa, u), f monotone in each column of u.

Each table has parents, drawn first, and one node ``y``. ``truth`` is y of the same noise under other parents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

import causalgen as cg

__all__ = ["TABLES", "Generator", "counterfactual_error"]

Array = NDArray[Any]
Columns = Mapping[str, Array]


@dataclass(frozen=True)
class Generator:
    """One table.

    Attributes:
        rows: of the training table.
        parents: (random, rows) -> columns.
        noise: (random, rows) -> u.
        value: (parents, u) -> y.
        variable: of y.
        categories: of the parents that are categorical.
    """

    rows: int
    parents: Callable[[np.random.Generator, int], Columns]
    noise: Callable[[np.random.Generator, int], Array]
    value: Callable[[Columns, Array], Array]
    variable: Any = field(default_factory=cg.Continuous)
    categories: Mapping[str, int] = field(default_factory=dict)

    def draw(self, random: np.random.Generator, rows: int) -> tuple[dict[str, Array], Array]:
        """Columns with ``y``, and the noise of y."""
        parents, noise = dict(self.parents(random, rows)), self.noise(random, rows)
        return parents | {"y": self.value(parents, noise)}, noise

    def model(self, parents: Columns, mechanism: Any = None) -> cg.SCM:
        """A model that is not fitted; only ``y`` has a mechanism to choose."""
        graph = nx.DiGraph([(name, "y") for name in parents])
        variables = {
            name: cg.Categorical(self.categories[name]) if name in self.categories else cg.Continuous()
            for name in parents
        }
        empirical = {name: cg.mechanisms.Empirical() for name in parents}
        chosen = {} if mechanism is None else {"y": mechanism}
        return cg.SCM(graph, variables | {"y": self.variable}, empirical | chosen)


def counterfactual_error(scm: cg.SCM, table: Generator, *, seed: int, rows: int = 1000) -> float:
    """Root mean square error of y under do(parents = those of another row), for new rows."""
    random = np.random.default_rng([seed, 1])
    factual, noise = table.draw(random, rows)
    order = random.permutation(rows)
    other = {name: factual[name][order] for name in factual if name != "y"}
    found = scm.counterfactual(factual, do=other, targets=["y"], seed=0)["y"]
    error = np.asarray(found) - table.value(other, noise)
    return float(np.sqrt(np.mean(error**2)))


def _normal(*shape: int) -> Callable[[np.random.Generator, int], Array]:
    return lambda random, rows: random.normal(size=(rows, *shape))


def _x(random: np.random.Generator, rows: int) -> Columns:
    return {"x": random.normal(size=rows)}


def _three(random: np.random.Generator, rows: int) -> Columns:
    a = random.normal(size=rows)
    return {"a": a, "b": 0.6 * a + 0.8 * random.normal(size=rows), "c": random.integers(0, 3, rows)}


def _skewed(random: np.random.Generator, rows: int) -> Array:
    return random.exponential(size=rows)


def _two_modes(random: np.random.Generator, rows: int) -> Array:
    return 1.5 * random.choice([-1, 1], rows) + 0.3 * random.normal(size=rows)


TABLES: Mapping[str, Generator] = {
    "linear": Generator(100, _x, _normal(), lambda pa, u: 2 * pa["x"] + u),
    "no effect": Generator(50, _x, _normal(), lambda pa, u: u),
    "skewed noise": Generator(1000, _x, _skewed, lambda pa, u: 2 * pa["x"] + u),
    "nonlinear, few rows": Generator(200, _x, _normal(), lambda pa, u: np.sin(2 * pa["x"]) + 0.3 * u),
    "nonlinear": Generator(
        5000, _x, _normal(), lambda pa, u: np.tanh(2 * pa["x"]) + 0.5 * pa["x"] ** 2 + 0.3 * u
    ),
    "heteroscedastic": Generator(
        2000, _x, _normal(), lambda pa, u: pa["x"] + (0.3 + 0.5 * np.abs(pa["x"])) * u
    ),
    "bounded": Generator(
        1000,
        _x,
        _normal(),
        lambda pa, u: 1 / (1 + np.exp(-pa["x"] - 0.5 * u)),
        cg.Continuous(lower=0, upper=1),
    ),
    "multiplicative": Generator(
        500, _x, _normal(), lambda pa, u: np.exp(0.5 * pa["x"] + 0.4 * u), cg.Continuous(lower=0)
    ),
    "two modes": Generator(2000, _x, _two_modes, lambda pa, u: pa["x"] + u),
    "discrete parent": Generator(
        500,
        lambda random, rows: {"c": random.integers(0, 3, rows)},
        _normal(),
        lambda pa, u: np.array([0.0, 2.0, -1.0])[pa["c"]] + np.array([0.5, 1.0, 0.2])[pa["c"]] * u,
        categories={"c": 3},
    ),
    "several parents": Generator(
        10_000,
        _three,
        _normal(),
        lambda pa, u: pa["a"] - 0.5 * pa["a"] * pa["b"] + np.array([0.0, 1.0, -1.0])[pa["c"]] + 0.5 * u,
        categories={"c": 3},
    ),
    "vector": Generator(
        1000,
        _x,
        _normal(2),
        lambda pa, u: np.stack([pa["x"] + u[:, 0], np.sin(pa["x"]) + 0.5 * u[:, 0] + 0.5 * u[:, 1]], 1),
        cg.Continuous(shape=(2,)),
    ),
}
"""The tables by name."""
