"""Blocks of categories and numbers together, against sums over categories and integrals over numbers."""

import warnings

import networkx as nx
import numpy as np
import pytest
import torch

import causalgen as cg
from causalgen.counterfactuals.missing_evidence import mixed, posterior
from causalgen.counterfactuals.missing_evidence.distributions import (
    CategoryPosterior,
    GaussianPosterior,
    MixturePosterior,
    SamplePosterior,
)

NORMAL = {"u": {"normal": [0, 1]}}
LAW_D, LAW_E = np.array([0.2, 0.3, 0.5]), np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])
LAW_W = np.array([[0.7, 0.3], [0.4, 0.6], [0.1, 0.9]])


def table(law):
    """A categorical mechanism of this law, p(x | pa) by row."""
    law = np.atleast_2d(law)
    copies = np.rint(law * 1000).astype(int)
    parents = np.repeat(np.repeat(np.arange(len(law)), law.shape[1]), copies.ravel())
    return parents, np.repeat(np.tile(np.arange(law.shape[1]), len(law)), copies.ravel())


@pytest.fixture(scope="module")
def scm():
    """d -> e, d -> w; d, e -> z -> y <- e; z -> v, v in the plane: all laws known."""
    variables = {
        "d": cg.Categorical(["low", "mid", "high"]),
        "e": cg.Categorical(2),
        "w": cg.Categorical(2),
        "z": cg.Continuous(),
        "y": cg.Continuous(),
    }
    exact = cg.mechanisms.Categorical(smoothing=0.0, training={"validation": 0.0})
    made = cg.SCM(
        nx.DiGraph([("d", "e"), ("d", "w"), ("d", "z"), ("e", "z"), ("e", "y"), ("z", "y")]),
        variables,
        {
            "d": exact,
            "e": exact,
            "w": exact,
            "z": cg.mechanisms.Equation(value="2*d - 3*e + (1 + d)*u", noise=NORMAL),
            "y": cg.mechanisms.Equation(value="(1 + e)*z + 0.5*u", noise=NORMAL),
        },
    )
    labels = np.array(variables["d"].labels)
    made.fit({"d": labels[table(LAW_D)[1]]}, nodes=["d"], progress=False)
    for node, law in (("e", LAW_E), ("w", LAW_W)):
        parents, values = table(law)
        made.fit({"d": labels[parents], node: values}, nodes=[node], progress=False)
    return made


def normal(x, mean, deviation):
    return np.exp(-0.5 * ((x - mean) / deviation) ** 2) / deviation


def brute_force(w, y):
    """Joint weights (3, 2) of d and e, and mean and variance of z in each, by integrals over a grid of z."""
    z = np.linspace(-60, 60, 240_001)
    weights, means, variances = (np.zeros((3, 2)) for _ in range(3))
    for d in range(3):
        for e in range(2):
            density = normal(z, 2 * d - 3 * e, 1 + d) * normal(y, (1 + e) * z, 0.5)
            total = density.sum()
            weights[d, e] = LAW_D[d] * LAW_E[d, e] * LAW_W[d, w] * total
            means[d, e] = (density * z).sum() / total
            variances[d, e] = (density * z**2).sum() / total - means[d, e] ** 2
    return weights / weights.sum(), means, variances


def test_posteriors_are_brute_force(scm):
    rows = {"w": [0, 1, 1], "y": [0.3, -4.0, 11.0]}
    ab = scm.abduct(rows, num_samples=20_000, seed=0)
    found = {node: ab.posterior(node) for node in "dez"}
    assert isinstance(found["d"], CategoryPosterior) and isinstance(found["z"], MixturePosterior)
    drawn = ab.counterfactual({})
    for row, (w, y) in enumerate(zip(rows["w"], rows["y"], strict=True)):
        weights, means, variances = brute_force(w, y)
        np.testing.assert_allclose(found["d"].probabilities[row], weights.sum(1), atol=1e-9)
        np.testing.assert_allclose(found["e"].probabilities[row], weights.sum(0), atol=1e-9)
        mixture = found["z"]
        np.testing.assert_allclose(mixture.weights[:, row], weights.ravel(), atol=1e-9)
        np.testing.assert_allclose(mixture.means[:, row], means.ravel(), atol=1e-9)
        np.testing.assert_allclose(mixture.covariances[:, row, 0, 0], variances.ravel(), atol=1e-9)
        mean = (weights * means).sum()
        variance = (weights * (variances + (means - mean) ** 2)).sum()
        np.testing.assert_allclose(mixture.mean[row], mean, atol=1e-9)
        np.testing.assert_allclose(mixture.covariance[row, 0, 0], variance, atol=1e-9)
        # Draws have the joint law: each category's share, and the number given it.
        labels, z = drawn["d"][:, row], drawn["z"][:, row].numpy()
        for code, label in enumerate(scm.variables["d"].labels):
            share = weights[code].sum()
            assert abs((labels == label).mean() - share) < 5 * np.sqrt(share * (1 - share) / 20_000) + 1e-9
            if share > 0.05:
                inside = weights[code] / share
                mean = (inside * means[code]).sum()
                spread = np.sqrt((inside * (variances[code] + (means[code] - mean) ** 2)).sum())
                assert abs(z[labels == label].mean() - mean) < 5 * spread / np.sqrt(share * 20_000)
    assert torch.isinf(ab.effective_sample_size).all()


def test_draws_explain_the_evidence_and_parts_do_not_matter(scm, monkeypatch):
    rows = {"w": [0, 1, 1, 0], "y": [0.3, -4.0, 11.0, 2.0]}
    whole = scm.abduct(rows, num_samples=50, seed=0)
    cf = whole.counterfactual({}, copy_unaffected=False)
    torch.testing.assert_close(cf["y"], torch.tensor(rows["y"], dtype=torch.float64).expand(50, 4))
    monkeypatch.setattr(mixed, "_AT_ONCE", 12)  # two rows at a time for a posterior, one for draws
    parts = scm.abduct(rows, num_samples=50, seed=0)
    torch.testing.assert_close(parts.counterfactual({}, copy_unaffected=False)["z"], cf["z"])
    for name in ("weights", "means", "covariances"):
        one, other = (getattr(each.posterior("z"), name) for each in (parts, whole))
        assert one.shape == other.shape
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(parts.posterior("d").probabilities, whole.posterior("d").probabilities)


def test_rows_of_every_pattern_make_one_mixture(scm):
    gaps = {
        "d": [None, "mid", None],
        "e": [0, 1, None],
        "z": [1.5, None, None],
        "y": [2.0, 3.0, 4.0],
        "w": [1, 1, 1],
    }
    found = scm.abduct(gaps, seed=0).posterior("z")
    assert isinstance(found, MixturePosterior) and found.weights.shape == (6, 3)
    torch.testing.assert_close(found.weights.sum(0), torch.ones(3, dtype=torch.float64))
    assert found.mean[0] == 1.5 and found.covariance[0] == 0
    alone = scm.abduct({"d": "mid", "e": 1, "y": 3.0, "w": 1}, seed=0).posterior("z")
    assert isinstance(alone, GaussianPosterior)
    torch.testing.assert_close((found.mean[1], found.covariance[1]), (alone.mean[0], alone.covariance[0]))
    weights, means, _ = brute_force(1, 4.0)
    np.testing.assert_allclose(found.mean[2], (weights * means).sum(), atol=1e-9)


def test_particles_agree(scm, monkeypatch):
    exact = scm.abduct({"w": 1, "y": 3.0}, seed=0).posterior("z")
    monkeypatch.setattr(posterior, "solve_mixed", lambda *_: None)
    ab = scm.abduct({"w": 1, "y": 3.0}, seed=0, particles=100_000)
    cloud = ab.posterior("z")
    assert isinstance(cloud, SamplePosterior)
    assert (cloud.weights * cloud.values).sum().item() == pytest.approx(exact.mean.item(), abs=0.05)
    shares = [(cloud.weights * (ab.posterior("d").values == code)).sum().item() for code in range(3)]
    monkeypatch.undo()
    np.testing.assert_allclose(
        shares, scm.abduct({"w": 1, "y": 3.0}).posterior("d").probabilities[0], atol=0.02
    )


def test_vectors_enter_mixtures():
    random = np.random.default_rng(0)
    kind = random.integers(0, 2, 500)
    place = random.normal(size=(500, 2)) @ [[1.0, 0.5], [0.0, 1.0]] + 3 * kind[:, None]
    size = place @ [1.0, -2.0] + random.normal(size=500)
    made = cg.SCM(
        nx.DiGraph([("kind", "place"), ("place", "size")]),
        {"kind": cg.Categorical(2), "place": cg.Continuous(shape=(2,)), "size": cg.Continuous()},
        {node: cg.mechanisms.Additive() for node in ("place", "size")},
    ).fit({"kind": kind, "place": place, "size": size}, progress=False)
    ab = made.abduct({"size": [-3.0, 0.0]}, num_samples=20_000, seed=0)
    found, drawn = ab.posterior("place"), ab.counterfactual({})["place"]
    assert found.means.shape == (2, 2, 2) and found.covariances.shape == (2, 2, 2, 2)
    for row in range(2):
        np.testing.assert_allclose(found.mean[row], drawn[:, row].mean(0), atol=0.05)
        np.testing.assert_allclose(found.covariance[row], np.cov(drawn[:, row].T), atol=0.1)


def test_a_category_caused_by_a_missing_number_goes_to_particles():
    random = np.random.default_rng(0)
    size = random.normal(size=400)
    data = {
        "size": size,
        "kind": (size + random.normal(size=400) > 0).astype(int),
        "y": size + random.normal(size=400),
    }
    made = cg.SCM(
        nx.DiGraph([("size", "kind"), ("size", "y"), ("kind", "y")]),
        {"size": cg.Continuous(), "kind": cg.Categorical(2), "y": cg.Continuous()},
        {
            "size": cg.mechanisms.Additive(),
            "kind": cg.mechanisms.Categorical(training={"epochs": 1}),
            "y": cg.mechanisms.Additive(),
        },
    ).fit(data, progress=False)
    ab = made.abduct({"y": [1.0]}, seed=0)
    assert isinstance(ab.posterior("size"), SamplePosterior) and ab.posterior("kind").values.shape == (
        4096,
        1,
    )


def test_evidence_that_no_combination_explains(scm):
    never = cg.SCM(
        scm.graph, scm.variables, {**scm.mechanisms, "w": cg.mechanisms.Categorical(smoothing=0.0)}
    ).fit({"d": ["low", "mid", "high"], "w": [0, 0, 1]}, nodes=["w"], progress=False)
    ab = never.abduct({"w": 1, "y": 3.0}, seed=0)
    assert ab.posterior("d").probabilities.tolist() == [[0.0, 0.0, 1.0]]
    never.fit({"d": ["low", "mid", "high"], "w": [0, 0, 0]}, nodes=["w"], progress=False)
    with pytest.raises(cg.EvidenceError, match="Row 1: .* zero whatever 'd', 'e', 'z' may be"):
        never.abduct({"w": [0, 1], "y": 3.0}, seed=0).posterior("z")


@pytest.mark.parametrize("numbers", [False, True])
@pytest.mark.parametrize(("deviations", "told"), [(900.0, False), (1100.0, True)])
def test_evidence_that_every_combination_as_good_as_excludes_is_told(numbers, deviations, told):
    """y = 2 b + u; with numbers z = y + v too, so that z given b has deviation sqrt 2 and y is missing."""
    scm = cg.SCM(
        nx.DiGraph([("b", "y"), ("y", "z")]),
        {"b": cg.Categorical(2), "y": cg.Continuous(), "z": cg.Continuous()},
        {
            "b": cg.mechanisms.Categorical(),
            "y": cg.mechanisms.Equation(value="2*b + u", noise=NORMAL),
            "z": cg.mechanisms.Equation(value="y + u", noise=NORMAL),
        },
    ).fit({"b": [0, 1] * 20}, nodes=["b"], progress=False)
    far = 2.0 + deviations * (2**0.5 if numbers else 1.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ab = scm.abduct({"z" if numbers else "y": [0.0, far]}, seed=0)
        assert ab.posterior("b").probabilities[1].tolist() == [0.0, 1.0]
        ab.counterfactual({"b": 0})
    found = [str(each.message) for each in caught]
    assert bool(found) is told, found
    assert all("Row 1" in each and "1.1e+03 standard deviations" in each for each in found)


def test_rows_of_every_pattern_have_many_draws_where_some_need_particles():
    """One draw stood for them all, with a deviation of 0."""
    graph = nx.DiGraph([("z", "y"), ("w", "y")])
    scm = cg.SCM(
        graph,
        dict.fromkeys(graph, cg.Continuous()),
        {
            "z": cg.mechanisms.Equation(value="u", noise=NORMAL),
            "w": cg.mechanisms.Equation(value="1 + u", noise=NORMAL),
            "y": cg.mechanisms.Equation(value="w*z + u", noise=NORMAL),
        },
    )
    found = scm.abduct(
        {"z": [None, None, 3.0], "w": [2.0, None, 1.0], "y": [1.0, 1.0, 1.0]}, seed=0
    ).posterior("z")
    assert isinstance(found, SamplePosterior)
    mean, deviation = (each[:, 0].numpy() for each in found.moments())
    z = np.linspace(-8, 8, 2001)
    of_y = np.exp(-0.5 * (1 - z) ** 2 / (1 + z**2)) / np.sqrt(1 + z**2)  # given z alone: y ~ N(z, 1 + z^2)
    law = np.exp(-0.5 * z**2) * of_y
    law /= law.sum()
    centre = (law * z).sum()
    np.testing.assert_allclose(mean, [0.4, centre, 3.0], atol=0.06)
    np.testing.assert_allclose(deviation, [0.2**0.5, ((law * z**2).sum() - centre**2) ** 0.5, 0.0], atol=0.06)
    assert found.weights.shape == (4096, 3) and (found.weights[:, 0] == 1 / 4096).all()
