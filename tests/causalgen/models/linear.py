"""Random linear-Gaussian models with known weights, as the library's SCM and as matrices."""

from __future__ import annotations

from dataclasses import dataclass, replace

import networkx as nx
import numpy as np
import torch

import causalgen as cg
from tests.causalgen.oracles.linear_gaussian import LinearGaussian

__all__ = ["LinearModel", "additive", "random_linear"]


@dataclass(frozen=True)
class LinearModel:
    """A model in both forms.

    Attributes:
        scm: the model, with categories first if there are any.
        parts: columns of each numeric node, in topological order.
        effects: by category node, (K, D): what each category adds to every column's intercept.
        plain: the matrices, without the categories' effects.
    """

    scm: cg.SCM
    parts: dict[str, slice]
    effects: dict[str, np.ndarray]
    plain: LinearGaussian

    def columns(self, rows) -> np.ndarray:
        """Values by node -> (N, D)."""
        return np.concatenate([np.asarray(rows[node]).reshape(len(rows[node]), -1) for node in self.parts], 1)

    def rows(self, columns: np.ndarray) -> dict[str, torch.Tensor]:
        """(N, D) -> values by numeric node."""
        shapes = {node: self.scm.variables[node].event_shape for node in self.parts}
        return {
            node: torch.as_tensor(columns[:, part]).reshape(len(columns), *shapes[node])
            for node, part in self.parts.items()
        }

    def matrices(self, codes) -> LinearGaussian:
        """The numeric part of the model in rows of these categories; one set of intercepts without any."""
        model = self.plain
        for node, effect in self.effects.items():
            shift = model.shift + effect[np.asarray(codes[node])]
            model = replace(model, shift=shift)
        return model


def additive(variable, parents, weight, bias, scale):
    """A fitted additive mechanism: weights (columns of the parents, width), bias and scale (width,)."""
    mechanism = cg.mechanisms.Additive().bind(variable, parents)
    state = mechanism.state_dict() | {
        "function.weight": torch.as_tensor(weight),
        "function.bias": torch.as_tensor(bias),
        "scale": torch.as_tensor(scale),
    }
    mechanism.load_state_dict(state)
    mechanism.mark_fitted()
    return mechanism.eval()


def equation(parents, slopes, bias, scale, form):
    """The same for a scalar by an equation, in one of three ways to write it; no noise at scale 0."""
    pairs = zip(parents, slopes, strict=True)
    terms = [f"{name} * ({slope!r})" if form else f"({slope!r}) * {name}" for name, slope in pairs]
    if scale == 0:
        return cg.mechanisms.Equation(value=" + ".join([*terms, f"({bias!r})"]))
    noise = ["u", f"({scale!r}) * u", "-u"][form]
    mean, deviation = (bias, scale) if form == 0 else (0.0, 1.0 if form == 1 else scale)
    value = " + ".join([*terms, f"({0.0 if form == 0 else bias!r})", noise])
    return cg.mechanisms.Equation(value=value, noise={"u": {"normal": [mean, deviation]}})


def random_linear(
    seed: int, nodes: int, *, vectors=False, categories=0, deterministic=0.0, wide=False, parents=3
) -> LinearModel:
    """A random DAG of numeric nodes n0, n1, ... with about ``parents`` parents each.

    Args:
        seed: decides the model.
        nodes: how many numeric nodes.
        vectors: some have 2 or 3 components.
        categories: how many category roots k0, k1, ... there are, parents of some nodes.
        deterministic: share of scalar nodes without noise.
        wide: deviations of noises between 0.01 and 100 instead of 0.5 and 2.
        parents: most numeric parents of a node.
    """
    random = np.random.default_rng(seed)
    kinds = {f"k{k}": int(random.integers(2, 5)) for k in range(categories)}
    widths = {
        f"n{k}": int(random.integers(1, 4)) if vectors and random.random() < 0.4 else 1 for k in range(nodes)
    }
    names, total = list(widths), sum(widths.values())
    ends = np.cumsum(list(widths.values())).tolist()
    parts = {name: slice(end - widths[name], end) for name, end in zip(names, ends, strict=True)}
    variables = {name: cg.Categorical(size) for name, size in kinds.items()} | {
        name: cg.Continuous(shape=() if width == 1 else (width,)) for name, width in widths.items()
    }
    matrix, shift, scale = np.zeros((total, total)), random.normal(size=total), np.zeros(total)
    effects = {name: np.zeros((size, total)) for name, size in kinds.items()}
    graph, mechanisms = nx.DiGraph(), {}
    graph.add_nodes_from(variables)
    for name in kinds:
        mechanisms[name] = cg.mechanisms.Categorical().bind(variables[name], {})
        mechanisms[name].solve(torch.as_tensor(random.integers(0, kinds[name], 20)), {})
        mechanisms[name].mark_fitted()
    for k, name in enumerate(names):
        part, width = parts[name], widths[name]
        numeric = [names[p] for p in random.permutation(k)[: random.integers(0, parents + 1)]]
        above = random.permutation([*numeric, *(each for each in kinds if random.random() < 0.5)]).tolist()
        graph.add_edges_from((parent, name) for parent in above)
        scale[part] = 10 ** random.uniform(-2, 2, width) if wide else random.uniform(0.5, 2, width)
        for parent in above:
            if parent in kinds:
                effects[parent][:, part] = random.normal(size=(kinds[parent], width))
            else:
                matrix[part, parts[parent]] = random.normal(size=(width, widths[parent]))
        scalar = width == 1 and all(parent in parts and widths[parent] == 1 for parent in above)
        if scalar and random.random() < max(0.4, deterministic):
            scale[part] *= random.random() >= deterministic
            slopes = [float(matrix[part.start, parts[parent].start]) for parent in above]
            figures = float(shift[part][0]), float(scale[part][0])
            mechanisms[name] = equation(above, slopes, *figures, int(random.integers(3)))
        else:
            weight = [effects[p][:, part] if p in kinds else matrix[part, parts[p]].T for p in above]
            weight = np.concatenate([np.zeros((0, width)), *weight])
            known = {parent: variables[parent] for parent in above}
            mechanisms[name] = additive(variables[name], known, weight, shift[part], scale[part])
    scm = cg.SCM(graph, variables, mechanisms)
    return LinearModel(scm, parts, effects, LinearGaussian(matrix, shift, np.ones(total), scale**2))
