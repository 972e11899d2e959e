"""How often a check of a true model reports a problem: at most 5 of 100 times, whatever its mechanisms.

The rows are drawn from the very model that is checked, or from one of which it is a fit; anew for each seed.
"""

import networkx as nx
import numpy as np

import causalgen as cg

M = cg.mechanisms
NORMAL, STEEP = {"u": {"normal": [0, 1]}}, {"u": {"exponential": [1]}}


def declared(edges, nodes, **mechanisms):
    graph = nx.DiGraph(edges)
    graph.add_nodes_from(nodes)
    return cg.SCM(graph, nodes, mechanisms)


def linear():
    nodes = {node: cg.Continuous() for node in "xyzw"}
    return declared([("x", "y"), ("x", "z"), ("y", "z")], nodes, **{node: M.Additive() for node in nodes})


def categories():
    nodes = {"a": cg.Categorical(3), "b": cg.Categorical(2), "c": cg.Categorical(4)}
    return declared([("a", "b"), ("a", "c"), ("b", "c")], nodes)


def equations():
    nodes = {node: cg.Continuous() for node in "xyz"}
    return declared(
        [("x", "y"), ("y", "z")],
        nodes,
        x=M.Equation(value="exp(0.5 * u)", noise=NORMAL),
        y=M.Equation(value="x + u", noise=STEEP),
        z=M.Equation(value="tanh(y) + 0.3 * u", noise=NORMAL),
    )


def flows():
    nodes = {node: cg.Continuous() for node in "xyz"}
    short = {"epochs": 20}
    mechanisms = {node: M.Flow(training=short) for node in nodes}
    return declared([("x", "y"), ("y", "z")], nodes, **mechanisms)


def mixed():
    nodes = {
        "t": cg.Categorical(["a", "b"]),
        "n": cg.Integer(lower=0),
        "x": cg.Continuous(),
        "y": cg.Continuous(),
    }
    return declared(
        [("t", "n"), ("t", "y"), ("x", "y")],
        nodes,
        n=M.Equation(value="u + k", noise={"u": {"poisson": [3]}, "k": {"binomial": [2, 0.5]}}),
        x=M.Empirical(),
        y=M.Additive(noise="empirical"),
    )


def rows_of(random, n):
    """Rows from which models are fitted, where they are not known beforehand."""
    x, u, v, w = random.normal(size=(4, n))
    a = random.integers(0, 3, n)
    b = (random.random(n) < 0.2 + 0.3 * a).astype(int)
    return {
        "linear": {"x": x, "y": 2 * x + u, "z": -x + 0.5 * (2 * x + u) + v, "w": w},
        "categories": {"a": a, "b": b, "c": (a + b + random.integers(0, 2, n)) % 4},
        "flows": {"x": x, "y": np.tanh(x) + 0.5 * u, "z": np.tanh(x) + 0.5 * u + (0.5 + 0.3 * x**2) ** 0 * v},
        "mixed": {
            "t": np.array(["a", "b"])[b],
            "n": random.poisson(3, n) + random.binomial(2, 0.5, n),
            "x": random.exponential(size=n),
            "y": b + x + random.standard_t(4, n),
        },
    }


def alarms(kind, seeds):
    """In how many checks of a model that is true a problem is found, and what was said."""
    known = {
        "linear": linear,
        "categories": categories,
        "equations": equations,
        "flows": flows,
        "mixed": mixed,
    }
    model, told = known[kind](), []
    if kind != "equations":
        model.fit(rows_of(np.random.default_rng(0), 3000)[kind], progress=False)
    for seed in range(seeds):
        rows = {node: np.asarray(value) for node, value in model.sample(300, seed=seed + 1).items()}
        report = model.check(rows, seed=seed)
        told += report.problems[:1]
    return told
