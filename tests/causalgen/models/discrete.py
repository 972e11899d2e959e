"""Random discrete models with known tables, as the library's SCM and as arrays."""

from __future__ import annotations

import networkx as nx
import numpy as np
import torch

import causalgen as cg
from tests.causalgen.oracles.discrete import Discrete

__all__ = ["random_discrete", "tabled"]


def tabled(variable, parents, table, coupling="gumbel"):
    """A fitted categorical mechanism with these probabilities, (sizes of the parents..., size)."""
    mechanism = cg.mechanisms.Categorical(logits="table", coupling=coupling).bind(variable, parents)
    logs = torch.as_tensor(table).reshape(-1, variable.size).log()
    mechanism.load_state_dict({**mechanism.state_dict(), "table": logs})
    mechanism.mark_fitted()
    return mechanism.eval()


def random_discrete(
    seed: int, nodes: int, *, coupling="gumbel", zeros=0.15, certain=0.1, most=4
) -> tuple[cg.SCM, Discrete]:
    """A random DAG of categories n0, n1, ... with at most 3 parents each.

    Args:
        seed: decides the model.
        nodes: how many.
        coupling: of every node.
        zeros: share of a table's entries that are impossible.
        certain: share of nodes that their parents determine.
        most: categories of a node.
    """
    random = np.random.default_rng(seed)
    names = [f"n{k}" for k in range(nodes)]
    variables = {name: cg.Categorical(int(random.integers(2, most + 1))) for name in names}
    graph, mechanisms, tables = nx.DiGraph(), {}, {}
    graph.add_nodes_from(names)
    for k, name in enumerate(names):
        parents = [names[p] for p in random.permutation(k)[: random.integers(0, 4)]]
        graph.add_edges_from((parent, name) for parent in parents)
        shape = [variables[each].size for each in (*parents, name)]
        weights = random.gamma(0.7, size=shape) + 0.02
        keep = random.random(shape) > (1.0 if parents and random.random() < certain else zeros)
        np.put_along_axis(keep, random.integers(0, shape[-1], [*shape[:-1], 1]), True, axis=-1)
        tables[name] = weights * keep / (weights * keep).sum(-1, keepdims=True)
        above = {parent: variables[parent] for parent in parents}
        mechanisms[name] = tabled(variables[name], above, tables[name], coupling)
    parents = {name: tuple(graph.predecessors(name)) for name in names}
    return cg.SCM(graph, variables, mechanisms), Discrete(parents, tables)
