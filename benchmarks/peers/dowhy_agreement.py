"""Record what DoWhy-GCM answers on a linear additive-noise model, for causalgen's tests to agree with.

    PEER_PYTHON benchmarks/peers/dowhy_agreement.py tests/causalgen/data/dowhy_agreement.json

Runs under the peer's own Python (dowhy alone; causalgen is not imported). Writes the data, the fitted
coefficients, counterfactuals of the first rows, and interventional means with their standard errors.
"""

# DoWhy is installed in the peer's own Python.
# pyright: reportMissingImports=false

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
from dowhy import gcm

PARENTS = {
    "a": [],
    "b": [],
    "c": ["a"],
    "d": ["a", "b"],
    "e": ["c", "d"],
    "f": ["d"],
    "g": ["e", "f", "b"],
    "h": ["g", "a"],
}
SET = {"d": 1.5}
SHIFT = {"e": -0.75}
# What each question sets to a value, and what it shifts.
QUESTIONS: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "set": (SET, {}),
    "shift": ({}, SHIFT),
    "both": (SET, SHIFT),
    "root": ({"a": -2.0}, {}),
}
ROWS = 200
ASKED = 20
DRAWS = 50_000


def draw_data() -> pd.DataFrame:
    """Rows of a model with random weights; Laplace, uniform and normal noise in turn."""
    random = np.random.default_rng(20)
    laws = (random.laplace, lambda size: random.uniform(-2, 2, size), random.standard_normal)
    data: dict[str, np.ndarray] = {}
    for number, (node, parents) in enumerate(PARENTS.items()):
        slopes = random.normal(size=len(parents)) + 0.5
        noise = laws[number % 3](size=ROWS)
        data[node] = number + noise + sum(slope * data[p] for slope, p in zip(slopes, parents, strict=True))
    return pd.DataFrame(data).round(6)


def fit(data: pd.DataFrame) -> gcm.InvertibleStructuralCausalModel:
    """Least squares at nodes with parents, empirical roots: DoWhy's own for linear additive noise."""
    edges = [(parent, node) for node, parents in PARENTS.items() for parent in parents]
    model = gcm.InvertibleStructuralCausalModel(nx.DiGraph(edges))
    for node, parents in PARENTS.items():
        mechanism = (
            gcm.AdditiveNoiseModel(gcm.ml.create_linear_regressor())
            if parents
            else gcm.EmpiricalDistribution()
        )
        model.set_causal_mechanism(node, mechanism)
    gcm.fit(model, data)
    return model


def coefficients(model: gcm.InvertibleStructuralCausalModel) -> dict[str, Any]:
    """Intercept and slopes of each node with parents."""
    found: dict[str, Any] = {}
    for node, parents in PARENTS.items():
        if parents:
            regressor = model.causal_mechanism(node).prediction_model.sklearn_model
            slopes = dict(zip(sorted(parents), regressor.coef_.tolist(), strict=True))
            found[node] = {"intercept": float(regressor.intercept_), "slopes": slopes}
    return found


def functions(fixed: dict[str, float], shifts: dict[str, float]) -> dict[str, Any]:
    """The question as DoWhy takes it."""
    return {node: lambda _, value=value: value for node, value in fixed.items()} | {
        node: lambda natural, amount=amount: natural + amount for node, amount in shifts.items()
    }


def answers(model: gcm.InvertibleStructuralCausalModel, data: pd.DataFrame) -> dict[str, Any]:
    """Counterfactuals of the first rows, and interventional means, by question."""
    found: dict[str, Any] = {}
    for name, (fixed, shifts) in QUESTIONS.items():
        asked = functions(fixed, shifts)
        rows = gcm.counterfactual_samples(model, asked, observed_data=data.head(ASKED))
        drawn = gcm.interventional_samples(model, asked, num_samples_to_draw=DRAWS)
        found[name] = {
            "set": fixed,
            "shift": shifts,
            "counterfactual": {node: rows[node].tolist() for node in PARENTS},
            "mean": {node: float(drawn[node].mean()) for node in PARENTS},
            "standard_error": {node: float(drawn[node].std() / DRAWS**0.5) for node in PARENTS},
        }
    return found


def main() -> None:
    """Fit, ask, write."""
    gcm.config.disable_progress_bars()
    gcm.util.general.set_random_seed(0)
    target, data = Path(sys.argv[1]), draw_data()
    model = fit(data)
    record = {
        "made_by": f"PEER_PYTHON benchmarks/peers/dowhy_agreement.py {target.as_posix()}",
        "dowhy": version("dowhy"),
        "draws": DRAWS,
        "parents": PARENTS,
        "data": data.to_dict("list"),
        "coefficients": coefficients(model),
        "questions": answers(model, data),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
