"""Models that mix every kind of mechanism: one around a given kind, and random ones."""

from __future__ import annotations

import networkx as nx
import numpy as np
from torch import Tensor

import causalgen as cg
from mechanisms.base import Mechanism
from tests.causalgen.models.kinds import KINDS, Kind, ready

__all__ = ["around", "random_mixed"]

_CHEAP = [name for name in KINDS if not name.startswith("diffusion")]


class _Builder:
    """Adds nodes one by one, each with rows that the next one can be prepared on."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.graph: nx.DiGraph = nx.DiGraph()
        self.variables: dict = {}
        self.mechanisms: dict[str, Mechanism] = {}
        self.rows: dict[str, Tensor] = {}

    def fits(self, kind: str, parents: list[str]) -> bool:
        return KINDS[kind].fits({parent: self.variables[parent] for parent in parents})

    def add(self, name: str, kind: str, parents: list[str]) -> None:
        known: Kind = KINDS[kind]
        self.graph.add_node(name)
        self.graph.add_edges_from((parent, name) for parent in parents)
        self.variables[name] = known.variable
        self.mechanisms[name], self.rows[name] = ready(
            known,
            {parent: self.variables[parent] for parent in parents},
            {parent: self.rows[parent] for parent in parents},
            self.seed + len(self.variables),
        )

    def scm(self) -> cg.SCM:
        return cg.SCM(self.graph, self.variables, self.mechanisms)


def around(kind: str) -> cg.SCM:
    """A model whose node "x" is of this kind, with causes "k" and "c" where it can have them."""
    made = _Builder(0)
    made.add("k", "categorical, table", [])
    made.add("c", "additive, linear", ["k"])
    made.add("z", "flow, spline", [])
    parents = next(each for each in (["k", "c"], ["k"], []) if made.fits(kind, each))
    made.add("x", kind, parents)
    if KINDS[kind].variable.type != "image":
        made.add("y", "additive, vector", ["x", "c"])
        made.add("w", "categorical, network", ["y", "x"])
    return made.scm()


def random_mixed(seed: int, most: int = 9) -> cg.SCM:
    """A random DAG of 3 to ``most`` nodes n0, n1, ... of random kinds; in one of twenty an image, a leaf."""
    random = np.random.default_rng(seed)
    made, nodes = _Builder(seed % 2**31), int(random.integers(3, most + 1))
    for number in range(nodes):
        above = [f"n{p}" for p in random.permutation(number)[: random.integers(0, 4)]]
        possible = [kind for kind in _CHEAP if made.fits(kind, above)]
        last = number == nodes - 1 and random.random() < 0.05
        made.add(f"n{number}", "diffusion" if last else str(random.choice(possible)), above)
    return made.scm()
