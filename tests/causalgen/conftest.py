"""Small models for the tests of this floor, fitted once a session; tests must not change them."""

import networkx as nx
import numpy as np
import pytest

import causalgen as cg


@pytest.fixture(scope="session")
def linear():
    """x -> y -> z, x -> z, w alone; linear, fitted in closed form; and the data it was fitted on."""
    random = np.random.default_rng(0)
    u = {node: random.normal(size=400) for node in "xyzw"}
    x = u["x"]
    y = 2 * x + u["y"]
    z = -x + 0.5 * y + u["z"]
    data = {"x": x, "y": y, "z": z, "w": u["w"]}
    graph = nx.DiGraph([("x", "y"), ("x", "z"), ("y", "z")])
    graph.add_node("w")
    scm = cg.SCM(
        graph,
        variables={node: cg.Continuous() for node in "xyzw"},
        mechanisms={node: cg.mechanisms.Additive() for node in "xyzw"},
    )
    return scm.fit(data, progress=False), data


@pytest.fixture(scope="session")
def categories():
    """a -> b, a -> c <- b: labelled categories, one continuous."""
    random = np.random.default_rng(0)
    a = random.integers(0, 3, 600)
    b = (a + random.integers(0, 2, 600)) % 3
    c = a - 2.0 * b + random.normal(size=600)
    data = {"a": np.array(["low", "mid", "high"])[a], "b": b, "c": c}
    scm = cg.SCM(
        nx.DiGraph([("a", "b"), ("a", "c"), ("b", "c")]),
        variables={"a": cg.Categorical(["low", "mid", "high"]), "b": cg.Categorical(3), "c": cg.Continuous()},
        mechanisms={"c": cg.mechanisms.Additive()},
    )
    return scm.fit(data, progress=False), data


@pytest.fixture(scope="session")
def pictures():
    """kind -> picture: 8 x 8 images, a diffusion trained for a moment."""
    random = np.random.default_rng(0)
    kind = random.integers(0, 2, 64)
    picture = (random.random((64, 1, 8, 8)) * 60 + 150 * kind[:, None, None, None]).astype(np.uint8)
    scm = cg.SCM(
        nx.DiGraph([("kind", "picture")]),
        variables={"kind": cg.Categorical(2), "picture": cg.Image(1, 8, 8)},
        mechanisms={
            "picture": cg.mechanisms.Diffusion(
                backbone={"channels": (8, 16)},
                predictor={"channels": (8, 16)},
                solver={"kind": "anchored", "steps": 4},
                training={"epochs": 2, "batch_size": 32, "validation": 0.1},
            )
        },
    )
    return scm.fit({"kind": kind, "picture": picture}, progress=False), {"kind": kind, "picture": picture}
