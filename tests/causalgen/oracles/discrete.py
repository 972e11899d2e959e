"""Discrete models by brute force, numpy alone: every combination of categories with its probability."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Discrete"]


@dataclass(frozen=True)
class Discrete:
    """A model in topological order.

    Attributes:
        parents: by node.
        tables: by node, (sizes of the parents..., size of the node).
    """

    parents: Mapping[str, tuple[str, ...]]
    tables: Mapping[str, np.ndarray]

    @property
    def names(self) -> list[str]:
        return list(self.parents)

    def joint(self) -> np.ndarray:
        """(sizes of the nodes...) of all nodes, by node order."""
        letters = {name: chr(97 + k) for k, name in enumerate(self.names)}
        factors = ["".join(letters[each] for each in (*self.parents[name], name)) for name in self.names]
        return np.einsum(",".join(factors) + "->" + "".join(letters.values()), *self.tables.values())

    def after(self, do: Mapping[str, int]) -> Discrete:
        """The truncated factorisation: nodes set to codes lose their parents."""
        parents, tables = dict(self.parents), dict(self.tables)
        for name, code in do.items():
            parents[name], tables[name] = (), np.eye(self.tables[name].shape[-1])[code]
        return Discrete(parents, tables)

    def given(self, evidence: Mapping[str, int]) -> np.ndarray:
        """The joint posterior of all nodes given some."""
        joint = self.joint()
        for name, code in evidence.items():
            axis = self.names.index(name)
            mask = np.arange(joint.shape[axis]) == code
            joint = joint * mask.reshape([-1 if k == axis else 1 for k in range(joint.ndim)])
        return joint / joint.sum()

    def marginal(self, joint: np.ndarray, name: str) -> np.ndarray:
        """One node's own probabilities out of a joint."""
        axis = self.names.index(name)
        return joint.sum(tuple(k for k in range(joint.ndim) if k != axis))

    def counterfactual(
        self,
        evidence: Mapping[str, int],
        do: Mapping[str, int],
        coupling: Callable[[np.ndarray, np.ndarray], np.ndarray],
    ) -> dict[str, np.ndarray]:
        """Each node's law in the world of ``do`` given evidence in this one, by summing over both worlds.

        Args:
            evidence: codes of some nodes.
            do: codes of the nodes set.
            coupling: two laws -> the joint law of the categories that one noise gives under both.
        """
        pairs: dict[tuple[tuple[int, ...], tuple[int, ...]], float] = {((), ()): 1.0}
        for name in self.names:
            columns = [self.names.index(parent) for parent in self.parents[name]]
            grown: dict[tuple[tuple[int, ...], tuple[int, ...]], float] = {}
            for (here, there), chance in pairs.items():
                p = self.tables[name][tuple(here[k] for k in columns)]
                q = self.tables[name][tuple(there[k] for k in columns)]
                if name in do:
                    both = np.outer(p, np.eye(len(p))[do[name]])
                else:
                    both = coupling(p, q)
                for i, j in np.argwhere(both > 0):
                    if evidence.get(name, i) == i:
                        key = (*here, int(i)), (*there, int(j))
                        grown[key] = grown.get(key, 0.0) + chance * both[i, j]
            pairs = grown
        total = sum(pairs.values())
        laws = {name: np.zeros(self.tables[name].shape[-1]) for name in self.names}
        for (_, there), chance in pairs.items():
            for name, code in zip(self.names, there, strict=True):
                laws[name][code] += chance / total
        return laws
