"""Random discrete models, with impossible and certain entries, against enumeration of every combination."""

import hypothesis.strategies as st
import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings

import causalgen as cg
from tests.causalgen.models.discrete import random_discrete, tabled
from tests.causalgen.models.linear import additive
from tests.causalgen.oracles.couplings import gumbel_coupling, monotone_coupling, rejected_gumbels

seeds = st.integers(0, 2**32 - 1)
COUPLINGS = {"gumbel": gumbel_coupling, "monotone": monotone_coupling}


def surprise(counts, probabilities):
    """How far counts are from a law, at most, in standard errors; infinite where the impossible happened."""
    n = counts.sum()
    if counts[probabilities <= 1e-12].any():
        return np.inf
    error = np.sqrt(n * (probabilities * (1 - probabilities)).clip(min=0)) + 1
    return (np.abs(counts - n * probabilities) / error).max()


# Of a binomial count, less than one in a million even over some thousands of figures; the seeds are fixed.
RARE = 6.5


def some_evidence(random, row, names, most=None):
    """Codes of some nodes, at least one."""
    count = random.integers(1, (most or len(names)) + 1)
    return {name: int(row[name][0]) for name in sorted(random.permutation(names)[:count].tolist())}


def grid(truth):
    """Every combination of codes, by node."""
    joint = truth.joint()
    return dict(zip(truth.names, np.indices(joint.shape).reshape(joint.ndim, -1), strict=True)), joint.ravel()


@settings(max_examples=60, deadline=None)
@given(seed=seeds, nodes=st.integers(2, 6))
def test_log_prob_is_the_table_of_all_combinations(seed, nodes):
    scm, truth = random_discrete(seed, nodes)
    combinations, joint = grid(truth)
    np.testing.assert_allclose(scm.log_prob(combinations).exp(), joint, rtol=1e-9, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, nodes=st.integers(2, 6))
def test_interventional_laws_are_the_truncated_factorisation(seed, nodes):
    scm, truth = random_discrete(seed, nodes)
    random = np.random.default_rng(seed)
    do = some_evidence(random, scm.sample(1, seed=seed), truth.names, most=2)
    do = {name: int(random.integers(scm.variables[name].size)) for name in do}
    lab, after = scm.do(do), truth.after(do)
    known = lab.abduct(do)
    for name in truth.names:
        expected = after.marginal(after.joint(), name)
        found = known.posterior(name).probabilities[0]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    drawn = scm.sample(3000, do=do, seed=seed % 2**31)
    codes = np.ravel_multi_index([drawn[name].numpy() for name in truth.names], after.joint().shape)
    probabilities = after.joint().ravel()
    assert surprise(np.bincount(codes, minlength=len(probabilities)), probabilities) < RARE


@settings(max_examples=100, deadline=None)
@given(seed=seeds, nodes=st.integers(2, 7))
def test_posteriors_of_partial_evidence_are_the_enumerated_ones(seed, nodes):
    """Rows with gaps of their own; one more row that is complete."""
    scm, truth = random_discrete(seed, nodes)
    random = np.random.default_rng(seed)
    rows = [scm.sample(1, seed=each) for each in range(4)]
    given_rows = [some_evidence(random, row, truth.names) for row in rows]
    given_rows.append({name: int(rows[0][name][0]) for name in truth.names})
    columns = {name: [each.get(name) for each in given_rows] for name in truth.names}
    ab = scm.abduct(columns, seed=0)
    for name in truth.names:
        found = ab.posterior(name).probabilities
        for row, evidence in enumerate(given_rows):
            expected = truth.marginal(truth.given(evidence), name)
            np.testing.assert_allclose(found[row], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(15))
def test_draws_given_partial_evidence_have_the_enumerated_joint_law(seed):
    scm, truth = random_discrete(seed, 5)
    random = np.random.default_rng(seed)
    evidence = some_evidence(random, scm.sample(1, seed=seed), truth.names, most=3)
    cf = scm.counterfactual(evidence, do={}, num_samples=4000, seed=0)
    joint = truth.given(evidence)
    codes = np.ravel_multi_index([cf[name][:, 0].numpy() for name in truth.names], joint.shape)
    assert surprise(np.bincount(codes, minlength=joint.size), joint.ravel()) < RARE


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("seed", range(15))
def test_counterfactual_laws_given_partial_evidence_are_the_enumerated_ones(seed, coupling):
    """Both worlds summed over, with the exact joint law of categories that share their noise."""
    scm, truth = random_discrete(seed, 4, coupling=coupling, most=3)
    random = np.random.default_rng(seed)
    evidence = some_evidence(random, scm.sample(1, seed=seed), truth.names)
    node = str(random.choice(truth.names[:3]))
    do = {node: int(random.integers(scm.variables[node].size))}
    cf = scm.counterfactual(evidence, do=do, num_samples=4000, seed=0)
    for name, law in truth.counterfactual(evidence, do, COUPLINGS[coupling]).items():
        counts = np.bincount(cf[name][:, 0].numpy(), minlength=len(law))
        assert surprise(counts, law) < RARE, (name, counts / 4000, law)


def pair(p, q, coupling="gumbel"):
    """t -> x: x has law p at t = 0 and q at t = 1."""
    variables = {"t": cg.Categorical(2), "x": cg.Categorical(len(p))}
    mechanisms = {
        "t": tabled(variables["t"], {}, np.array([0.5, 0.5])),
        "x": tabled(variables["x"], {"t": variables["t"]}, np.stack([p, q]), coupling),
    }
    return cg.SCM(nx.DiGraph([("t", "x")]), variables, mechanisms)


@pytest.mark.parametrize("size", [2, 3, 6])
@pytest.mark.parametrize("seed", range(3))
def test_gumbel_counterfactuals_are_those_of_rejection_sampling(seed, size):
    """Prior Gumbels are kept where they give what was seen, and then meet the other law's logits."""
    random = np.random.default_rng(seed)
    p, q = random.dirichlet(np.full(size, 0.8), size=2)
    p[random.integers(size)] *= seed > 0  # seed 0: one category that cannot be seen
    p = p / p.sum()
    scm, n = pair(p, q), 20_000
    for seen in np.flatnonzero(p > 0.02).tolist():
        cf = scm.counterfactual({"t": 0, "x": seen}, do={"t": 1}, num_samples=n, seed=seed)
        counts = np.bincount(cf["x"][:, 0].numpy(), minlength=size)
        oracle = rejected_gumbels(random, p, q, seen, 100_000)
        share = (counts + oracle) / (n + oracle.sum())
        error = np.sqrt(share * (1 - share) * (1 / n + 1 / oracle.sum())) + 1 / n
        assert (np.abs(counts / n - oracle / oracle.sum()) < RARE * error).all()
        # And rejection agrees with the closed form that the tests of whole models rely on.
        assert surprise(oracle, gumbel_coupling(p, q)[seen] / p[seen]) < RARE


@settings(max_examples=200, deadline=None)
@given(seed=seeds, size=st.integers(2, 6), zeros=st.sampled_from([0.0, 0.4]))
def test_both_couplings_have_the_laws_they_couple(seed, size, zeros):
    """Of the oracles alone: rows sum to one law, columns to the other."""
    random = np.random.default_rng(seed)
    p, q = (random.random((2, size)) + 0.01) * (random.random((2, size)) >= zeros) + 1e-3 * np.eye(size)[:2]
    p, q = p / p.sum(), q / q.sum()
    for coupling in COUPLINGS.values():
        joint = coupling(p, q)
        np.testing.assert_allclose(joint.sum(1), p, atol=1e-12)
        np.testing.assert_allclose(joint.sum(0), q, atol=1e-12)


@pytest.mark.parametrize("bits", [2, 3, 5])
def test_the_missing_bit_of_a_parity_is_known_for_certain(bits):
    """XOR, by a table of certain entries: the posterior is 1.0 and every counterfactual draw is right."""
    names = [f"b{k}" for k in range(bits)]
    variables = dict.fromkeys([*names, "parity"], cg.Categorical(2))
    parity = np.indices((2,) * bits).sum(0) % 2
    mechanisms = {name: tabled(variables[name], {}, np.array([0.7, 0.3])) for name in names}
    mechanisms["parity"] = tabled(
        variables["parity"], {name: variables[name] for name in names}, np.eye(2)[parity]
    )
    graph = nx.DiGraph([(name, "parity") for name in names])
    scm = cg.SCM(graph, variables, mechanisms)
    seen = {name: [0, 1] for name in names[1:]} | {"parity": [1, 0]}
    missing = (1 + (bits - 1) * np.array([0, 1]) + np.array([0, 1])) % 2
    probabilities = scm.abduct(seen).posterior("b0").probabilities
    assert torch.equal(probabilities.argmax(1), torch.as_tensor(missing))
    np.testing.assert_allclose(probabilities.amax(1), 1.0, rtol=0, atol=1e-12)
    cf = scm.counterfactual(seen, do={"b1": [1, 0]}, num_samples=100, seed=0)
    assert (cf["b0"] == torch.as_tensor(missing)).all()
    assert (cf["parity"] == 1 - torch.tensor([1, 0])).all()


@settings(max_examples=25, deadline=None)
@given(seed=seeds, classes=st.integers(2, 4))
def test_a_hidden_class_is_told_by_its_measurements(seed, classes):
    """A mixture, by Bayes' rule; the numbers are linear in the class and in each other."""
    random = np.random.default_rng(seed)
    prior, offsets = random.dirichlet(np.ones(classes)), random.normal(size=(classes, 2))
    slope, scale = random.normal(), random.uniform(0.3, 2, 2)
    scm = mixture(prior, offsets, slope, scale)
    x = scm.sample(6, seed=seed)
    values = np.stack([x["a"], x["b"]], 1)
    centred = values[:, None] - offsets
    centred[..., 1] -= slope * values[:, :1]
    logs = np.log(prior) - 0.5 * ((centred / scale) ** 2).sum(-1)
    expected = np.exp(logs - logs.max(1, keepdims=True))
    found = scm.abduct({"a": x["a"], "b": x["b"]}).posterior("k").probabilities
    np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), rtol=0, atol=1e-9)


def mixture(prior, offsets, slope, scale):
    """k -> a -> b <- k."""
    k, number = cg.Categorical(len(prior)), cg.Continuous()
    one, two = offsets[:, :1], np.concatenate([offsets[:, 1:], [[slope]]])
    mechanisms = {
        "k": tabled(k, {}, prior),
        "a": additive(number, {"k": k}, one, np.zeros(1), scale[:1]),
        "b": additive(number, {"k": k, "a": number}, two, np.zeros(1), scale[1:]),
    }
    graph = nx.DiGraph([("k", "a"), ("k", "b"), ("a", "b")])
    return cg.SCM(graph, {"k": k, "a": number, "b": number}, mechanisms)
