"""A result is finite or refused, by node, value and row."""

import networkx as nx
import numpy as np
import pytest
import torch

import causalgen as cg
from causalgen.counterfactuals.rows import refuse_nonfinite
from graphs.errors import DomainError


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 1, 4, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("worst", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_by_node_and_row(shape, dtype, worst):
    value = torch.ones(shape, dtype=dtype)
    refuse_nonfinite("y", value)
    value[1].view(-1)[-1] = worst
    with pytest.raises(DomainError, match=f"Node 'y': .* row 1 comes out as {worst} .1 of 3 rows"):
        refuse_nonfinite("y", value)


def test_large_finite_values_codes_and_no_rows_pass():
    refuse_nonfinite("y", torch.full((4,), 1.7e308, dtype=torch.float64))
    refuse_nonfinite("y", torch.tensor([1.7e308, -1.7e308, 1.7e308, 1.7e308], dtype=torch.float64))
    refuse_nonfinite("y", torch.full((4,), 3e38))
    refuse_nonfinite("y", torch.arange(3))
    refuse_nonfinite("y", torch.zeros(0, 2))


@pytest.fixture(scope="module")
def scan():
    """t -> picture, 8 x 8, a diffusion trained for a moment; and its data."""
    random = np.random.default_rng(0)
    t = random.normal(size=64)
    picture = np.clip(128 + 20 * t[:, None, None, None] + random.normal(size=(64, 1, 8, 8)), 0, 255)
    scm = cg.SCM(
        nx.DiGraph([("t", "picture")]),
        {"t": cg.Continuous(), "picture": cg.Image(1, 8, 8)},
        {
            "t": cg.mechanisms.Additive(),
            "picture": cg.mechanisms.Diffusion(
                backbone={"channels": (8,)},
                predictor=None,
                solver={"kind": "anchored", "steps": 3},
                training={"epochs": 1, "batch_size": 32},
            ),
        },
    )
    return scm.fit({"t": t, "picture": picture.astype(np.uint8)}, progress=False), t, picture.astype(np.uint8)


@pytest.mark.filterwarnings("ignore:.*is extrapolation")
@pytest.mark.parametrize("absurd", [1e40, -1e40, 1e300, 1e9])
def test_a_number_that_float32_cannot_hold_is_no_cause_of_a_picture(scan, absurd):
    scm, t, picture = scan
    told = r"Node 'picture': Parent 't': row 0 is .*standard deviations from the mean in fitting"
    with pytest.raises(cg.DomainError, match=told):
        scm.counterfactual({"t": absurd, "picture": picture[:1]}, do={"t": 0.0}, seed=0)
    with pytest.raises(cg.DomainError, match=told):
        scm.counterfactual({"t": t[:1], "picture": picture[:1]}, do={"t": absurd}, seed=0)
    with pytest.raises(cg.DomainError, match=told):
        scm.sample(2, do={"t": absurd}, seed=0)
    far = scm.counterfactual({"t": t[:1], "picture": picture[:1]}, do={"t": 1e3}, seed=0)
    assert far["picture"].isfinite().all()


@pytest.mark.parametrize("parent", [cg.Categorical(3), cg.Continuous()])
def test_a_density_that_is_infinite_whatever_is_missing_tells_nothing(parent):
    """y = a * u**3 is 0 where u is: the last a, or the last particle, was drawn every time."""
    law = {"categorical": [0.5, 0.3, 0.2]} if parent.type == "categorical" else {"normal": [0, 1]}
    scm = cg.SCM(
        nx.DiGraph([("a", "y")]),
        {"a": parent, "y": cg.Continuous()},
        {
            "a": cg.mechanisms.Equation(value="u", noise={"u": law}),
            "y": cg.mechanisms.Equation(value="exp(a)*u**3", noise={"u": {"normal": [0, 1]}}),
        },
    )
    ab = scm.abduct({"y": [1.0, 0.0]}, num_samples=10, seed=0)
    told = "Row 1: what was observed of 'y' has an infinite density.*value of 'a'"
    for ask in (lambda: ab.counterfactual({}), lambda: ab.posterior("a")):
        with pytest.raises(cg.EvidenceError, match=told):
            ask()
    assert scm.abduct({"y": [1.0, -1e-9]}, num_samples=10, seed=0).counterfactual({})["a"].shape == (10, 2)


@pytest.mark.parametrize("mechanism", [cg.mechanisms.Additive(), cg.mechanisms.Flow()])
def test_a_fit_to_sums_beyond_the_largest_number_is_refused(mechanism):
    """LAPACK took them for a fault of its own."""
    rows = {"site": np.arange(60) % 2, "y": np.where(np.arange(60) < 3, 1.7e308, np.arange(60.0))}
    variables = {"site": cg.Categorical(2), "y": cg.Continuous()}
    scm = cg.SCM(nx.DiGraph([("site", "y")]), variables, {"y": mechanism})
    with pytest.raises(cg.CausalgenError, match=r"node 'y'.*outliers"):
        scm.fit(rows, progress=False)
