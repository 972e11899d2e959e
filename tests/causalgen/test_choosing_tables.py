"""``auto`` against the better of additive noise and a flow, on tables whose counterfactuals are known."""

from pathlib import Path

import numpy as np
import pytest

import causalgen as cg

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(CHECKOUT / "benchmarks")
    from parts import choosing_tables

    return choosing_tables


def ratio(tables, name, seeds):
    """Error of auto over that of the better of the two, root mean squares over tables drawn by these seeds.

    On one small table either may come nearer by luck: what is claimed is the mean over tables.
    """
    specs = {"additive": cg.mechanisms.Additive(), "flow": cg.mechanisms.Flow(), "auto": cg.mechanisms.Auto()}
    generator, squares = tables.TABLES[name], dict.fromkeys(specs, 0.0)
    for seed in seeds:
        rows, _ = generator.draw(np.random.default_rng([seed, 0]), generator.rows)
        parents = {node: column for node, column in rows.items() if node != "y"}
        for kind, spec in specs.items():
            scm = generator.model(parents, spec).fit(rows, seed=seed, progress=False)
            squares[kind] += tables.counterfactual_error(scm, generator, seed=seed) ** 2
    return (squares["auto"] / min(squares["additive"], squares["flow"])) ** 0.5


@pytest.mark.filterwarnings("ignore::causalgen.ExtrapolationWarning")
@pytest.mark.filterwarnings("ignore:.*outside its bounds")  # additive noise leaves them, where auto does not
@pytest.mark.parametrize("name", ["bounded", "skewed noise"])
def test_the_choice_is_as_good_as_the_better_one(tables, name):
    assert ratio(tables, name, seeds=[0]) <= 1.1


_SHORT = pytest.mark.xfail(reason="250 held-out rows do not tell a sine from a line in one column of two")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::causalgen.ExtrapolationWarning")
@pytest.mark.parametrize(
    "name",
    [
        "linear",
        "no effect",
        "nonlinear, few rows",
        "nonlinear",
        "heteroscedastic",
        "multiplicative",
        "two modes",
        "discrete parent",
        "several parents",
        pytest.param("vector", marks=_SHORT),
    ],
)
def test_the_choice_is_as_good_as_the_better_one_on_average(tables, name):
    assert ratio(tables, name, seeds=range(3)) <= 1.1
