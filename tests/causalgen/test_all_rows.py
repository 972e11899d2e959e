"""Closed forms are fitted to every row: the held-out rows only measure a fit that is thrown away."""

import networkx as nx
import numpy as np
import pytest
import torch

import causalgen as cg

KIDNEY = {  # (size, treatment, success): patients; Charig et al. 1986
    ("small", "A", 1): 81,
    ("small", "A", 0): 6,
    ("large", "A", 1): 192,
    ("large", "A", 0): 71,
    ("small", "B", 1): 234,
    ("small", "B", 0): 36,
    ("large", "B", 1): 55,
    ("large", "B", 0): 25,
}


@pytest.mark.parametrize("seed", [0, 1])
def test_kidney_stones_do_not_depend_on_the_seed(seed):
    rows = [row for row, count in KIDNEY.items() for _ in range(count)]
    data = dict(zip(("size", "treatment", "success"), map(list, zip(*rows, strict=True)), strict=True))
    scm = cg.SCM(
        nx.DiGraph([("size", "treatment"), ("size", "success"), ("treatment", "success")]),
        {
            "size": cg.Categorical(["small", "large"]),
            "treatment": cg.Categorical(["A", "B"]),
            "success": cg.Categorical(2),
        },
        {node: cg.mechanisms.Categorical(smoothing=0) for node in data},
    ).fit(data, seed=seed, progress=False)
    risk = {}
    for size in ("small", "large"):
        share = sum(count for row, count in KIDNEY.items() if row[0] == size) / len(rows)
        for treatment in ("A", "B"):
            good, bad = (KIDNEY[size, treatment, outcome] for outcome in (1, 0))
            risk[treatment] = risk.get(treatment, 0) + share * good / (good + bad)
    found = scm.mechanisms["success"]
    probability = {
        treatment: sum(
            float(scm.mechanisms["size"].log_prob(torch.tensor([size]), {}).exp())
            * float(
                found.log_prob(
                    torch.tensor([1]), {"size": torch.tensor([size]), "treatment": torch.tensor([code])}
                ).exp()
            )
            for size in (0, 1)
        )
        for code, treatment in enumerate("AB")
    }
    assert probability == pytest.approx(risk, abs=1e-12)
    assert risk["A"] - risk["B"] == pytest.approx(0.0536, abs=5e-4)
    report = scm.fit_report["success"]
    assert (report.rows, report.held_out) == (700, 35) and report.validation_loss is not None
    assert "all 700 rows" in str(report)


def test_least_squares_is_that_of_numpy():
    random = np.random.default_rng(0)
    rows = 442
    age, bmi, bp = random.normal([48, 26, 94], [13, 4, 14], (rows, 3)).T
    sex = random.integers(0, 2, rows)
    y = 2 * bmi + 0.3 * age - 12 * sex + 0.1 * bp + 50 * random.standard_t(5, rows)
    table = {"age": age, "sex": sex, "bmi": bmi, "bp": bp, "y": y}
    graph = nx.DiGraph([(name, "y") for name in table if name != "y"])
    variables = {name: cg.Continuous() for name in table} | {"sex": cg.Categorical(2)}
    additive = {name: cg.mechanisms.Additive() for name in table if name != "sex"}
    scm = cg.SCM(graph, variables, additive).fit(table, seed=3, progress=False)
    weights = np.linalg.lstsq(np.column_stack([np.ones(rows), age, sex, bmi, bp]), y, rcond=None)[0]
    for name, weight in {"age": weights[1], "sex": weights[2], "bmi": weights[3], "bp": weights[4]}.items():
        effect = scm.effect("y", do={name: 1}, versus={name: 0}, n=10, seed=0).value
        assert effect == pytest.approx(weight, rel=1e-10)
    assert float(scm.mechanisms["age"].function.bias) == pytest.approx(age.mean(), rel=1e-12)


def test_empirical_noise_is_of_all_rows():
    values = np.arange(100.0)
    scm = cg.SCM(
        nx.DiGraph([("x", "y")]),
        {"x": cg.Continuous(), "y": cg.Continuous()},
        {
            "x": cg.mechanisms.Empirical(training={"validation": 0.1}),
            "y": cg.mechanisms.Additive(noise="empirical"),
        },
    ).fit({"x": values, "y": values**2}, progress=False)
    assert scm.mechanisms["x"].values.tolist() == values.tolist()
    assert len(scm.mechanisms["y"].residuals) == 100
