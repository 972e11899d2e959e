"""Random linear SCMs with additive noise, and rows of them on disk, for every contender the same.

    x_i = b_i + sum over about 3 random earlier nodes of w_ij x_j + u_i,   u_i ~ N(0, 1)

Weights are scaled so that every node has about unit variance, however deep it lies. The intervention sets the
first node, from which nearly all others descend.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["LinearModel"]

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
        """Write the model and rows drawn from it where ``tables_serve.Case`` reads them."""
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
