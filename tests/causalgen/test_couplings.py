"""Counterfactual categories under two couplings, against enumeration, rejection sampling and closed forms."""

import networkx as nx
import numpy as np
import pytest

import causalgen as cg

DRAWS = 20_000
ERROR = 0.015
"""Four standard errors of a probability from so many draws."""


def model(sizes, seed=0, labels=None):
    """x -> y, categories counted from random rows; y -> z, a number; and p(y | x), (X, Y)."""
    random = np.random.default_rng(seed)
    law = random.dirichlet(np.ones(sizes[1]), sizes[0])
    x = random.integers(0, sizes[0], 3000)
    y = np.array([random.choice(sizes[1], p=law[each]) for each in x])
    graph = nx.DiGraph([("x", "y"), ("y", "z"), ("x", "w")])
    scm = cg.SCM(
        graph,
        {
            "x": cg.Categorical(sizes[0]),
            "y": cg.Categorical(labels or sizes[1], ordered=True),
            "z": cg.Continuous(),
            "w": cg.Continuous(),
        },
        {
            "z": cg.mechanisms.Equation(value="y * y", noise={}),
            "w": cg.mechanisms.Equation(value="x + u", noise={"u": {"normal": [0, 1]}}),
        },
    )
    names = y if labels is None else np.array(labels)[y]
    scm = scm.fit({"x": x, "y": names, "z": (y**2).astype(float), "w": x + 0.0}, progress=False)
    return scm, scm.mechanisms["y"].table.exp().numpy()


def gumbel_max(before, after, seen):
    """P(Y' | Y = seen) by rejection: prior Gumbels, of which those that give ``seen`` are kept."""
    noise = np.random.default_rng(1).gumbel(size=(400_000, len(before)))
    kept = noise[(np.log(before) + noise).argmax(1) == seen]
    return np.bincount((np.log(after) + kept).argmax(1), minlength=len(before)) / len(kept)


def inverse_transform(before, after, seen):
    """P(Y' | Y = seen) of one uniform noise: overlaps of the steps of two distribution functions."""
    one, other = np.append(0, before.cumsum()), np.append(0, after.cumsum())
    low, high = one[seen], one[seen + 1]
    overlap = np.minimum(other[1:], high) - np.maximum(other[:-1], low)
    return overlap.clip(0) / (high - low)


def test_three_categories_are_the_oracles_of_each_coupling():
    scm, law = model((2, 3))
    evidence = {"x": [0, 1], "y": [1, 2], "z": [1.0, 4.0]}
    found = scm.coupling_sensitivity(evidence, do={"x": [1, 0]}, targets=["y"], num_samples=DRAWS, seed=0)
    frame = found.to_frame()
    for row, (before, after, seen) in enumerate([(law[0], law[1], 1), (law[1], law[0], 2)]):
        lines = frame.loc["y"].loc[row]
        np.testing.assert_allclose(lines["gumbel"], gumbel_max(before, after, seen), atol=ERROR)
        np.testing.assert_allclose(lines["monotone"], inverse_transform(before, after, seen), atol=ERROR)
        low = np.maximum(0, after + before[seen] - 1) / before[seen]
        high = np.minimum(after, before[seen]) / before[seen]
        np.testing.assert_allclose(lines[["low", "high"]], np.stack([low, high], 1), atol=1e-9)
    gap = (frame["gumbel"] - frame["monotone"]).abs().max()
    assert found.largest_difference == pytest.approx(gap) and float(gap) > 0.05
    assert "gumbel" in repr(found) and "monotone" in repr(found) and "do(x = 2 values)" in repr(found)


@pytest.mark.parametrize("seed", range(4))
def test_of_two_categories_both_couplings_are_monotone(seed):
    scm, law = model((3, 2), seed, labels=["well", "ill"])
    (p, q), seen = law[[0, 2]], 0
    found = scm.coupling_sensitivity({"x": 0, "y": "well"}, {"x": 2}, num_samples=DRAWS, seed=0)
    ill = found.to_frame().loc[("y", 0, "ill")]
    expected = max(0.0, q[1] - p[1]) / p[seen]  # the monotone response, and the least that can be
    assert ill["gumbel"] == pytest.approx(expected, abs=ERROR)
    assert ill["monotone"] == pytest.approx(expected, abs=ERROR)
    assert ill["low"] == pytest.approx(expected, abs=1e-9)
    assert ill["high"] == pytest.approx(min(q[1], p[seen]) / p[seen], abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_both_couplings_lie_within_the_bounds(seed):
    scm, _ = model((4, 5), seed + 10)
    random = np.random.default_rng(seed)
    evidence = {"x": random.integers(0, 4, 12), "y": random.integers(0, 5, 12)}
    frame = scm.coupling_sensitivity(evidence, {"x": 1}, targets=["y"], num_samples=4000, seed=0).to_frame()
    for coupling in ("gumbel", "monotone"):
        assert bool(np.all(frame[coupling] >= frame["low"] - 0.035))
        assert bool(np.all(frame[coupling] <= frame["high"] + 0.035))
        np.testing.assert_allclose(frame[coupling].groupby(level="row").sum(), 1)
    # What no intervention reaches is what it was.
    same = frame.loc["y"].loc[np.flatnonzero(evidence["x"] == 1).tolist()]
    assert set(same["low"]) <= {0.0, 1.0} and (same["low"] == same["gumbel"]).all()
    assert (same["low"] == same["high"]).all()


def test_numbers_downstream_are_told_and_others_are_not():
    scm, law = model((2, 3))
    found = scm.coupling_sensitivity(
        {"x": 0, "y": 1, "z": 1.0, "w": 0.3}, {"x": 1}, num_samples=DRAWS, seed=0
    )
    frame = found.to_frame()
    assert frame.index.get_level_values("node").unique().tolist() == ["y", "z"]
    squares = np.arange(3) ** 2
    z = frame.loc[("z", 0, "")]
    assert z["gumbel"] == pytest.approx(squares @ gumbel_max(law[0], law[1], 1), abs=4 * ERROR)
    assert z["monotone"] == pytest.approx(squares @ inverse_transform(law[0], law[1], 1), abs=4 * ERROR)
    assert np.isnan(z["low"])
    for asked in ({"do": {"x": 1}, "targets": ["q"]}, {"do": {"q": 1}}):
        with pytest.raises(cg.UnknownNameError, match=f"'q' in {[*asked][-1]}"):
            scm.coupling_sensitivity({"x": 0, "y": 1}, **asked)


def test_bounds_are_told_only_where_they_are_known():
    scm, _ = model((2, 3))
    found = scm.coupling_sensitivity({"x": [0, None], "y": [1, 1]}, {"x": 1}, num_samples=500, seed=0)
    frame = found.to_frame().loc["y"]
    assert frame.loc[0]["low"].notna().all() and frame.loc[1]["low"].isna().all()
    assert scm.mechanisms["y"].spec.coupling == "gumbel"  # the model is what it was


def test_the_error_of_probabilities_is_that_of_particles_too():
    """What h is follows from few particles: answers vary by 0.04, and 1,000 draws were said to by 0.016."""
    normal, h = {"u": {"normal": [0, 1]}}, np.arange(400) % 2
    t = np.arange(400) // 200
    scm = cg.SCM(
        nx.DiGraph([("h", "m"), ("m", "s"), ("h", "k"), ("t", "k")]),
        {name: cg.Categorical(2) for name in "htk"} | {name: cg.Continuous() for name in "ms"},
        {
            "m": cg.mechanisms.Equation(value="h + u", noise=normal),
            "s": cg.mechanisms.Equation(value="m*m + 0.01*u", noise=normal),
        },
    ).fit({"h": h, "t": t, "k": h, "m": h + 0.0, "s": h + 0.0}, progress=False)
    with pytest.warns(UserWarning, match="effective sample size"):
        found = scm.coupling_sensitivity({"s": 4.0, "t": 0}, {"t": 1}, num_samples=1000, seed=0)
    told = float(repr(found).split("up to ")[1].split(")")[0])
    assert 0.03 < told < 0.5


def test_where_no_category_is_recomputed_there_is_nothing_to_compare():
    scm, _ = model((2, 3))
    with pytest.raises(cg.MechanismError, match=r"do\(y\) recomputes no node of mechanism 'categorical'"):
        scm.coupling_sensitivity({"x": 0, "y": 1}, {"y": 2})
    with pytest.raises(cg.MechanismError, match="'w'"):
        scm.coupling_sensitivity({"x": 0, "y": 1}, {"x": 1}, targets=["w"])


def test_what_a_function_sets_or_reads_is_recomputed_too():
    scm, _ = model((2, 3))
    evidence = {"x": [0, 1], "y": [1, 2], "z": [1.0, 4.0], "w": [0.3, 1.2]}

    def ask(**do):
        return scm.coupling_sensitivity(evidence, {"x": [1, 0], **do}, num_samples=500, seed=0)

    plain, same = ask(), ask(y=lambda y: y)
    columns = ["gumbel", "monotone", "gumbel_sd", "monotone_sd"]
    frame = same.to_frame()
    np.testing.assert_array_equal(plain.to_frame().loc[frame.index, columns], frame[columns])
    assert same.nodes == ("y",) and same.largest_difference == plain.largest_difference > 0.05
    turned = ask(y=cg.Policy(lambda y: (y + 1) % 3, reads=["y"])).to_frame().loc["y"].loc[0]
    assert turned["gumbel"]["2"] == frame.loc["y"].loc[0]["gumbel"]["1"]
    read = ask(w="y").to_frame()  # an edge that the model lacks
    mean = np.arange(3) @ plain.to_frame().loc["y"].loc[0]["gumbel"]
    assert read.loc[("w", 0, ""), "gumbel"] == pytest.approx(mean)
    with pytest.raises(cg.MechanismError, match="recomputes no node"):
        scm.coupling_sensitivity(evidence, {"y": lambda y: 2 - y})
