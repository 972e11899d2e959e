"""The engine against hand-written structural equations, and the laws of copying, rows, samples and seeds."""

import hypothesis.strategies as st
import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings

import causalgen as cg


def tensors(data, rows):
    return {node: torch.as_tensor(values[rows]) for node, values in data.items()}


def test_counterfactual_of_a_linear_model_is_the_hand_written_one(linear):
    scm, data = linear
    evidence = tensors(data, slice(0, 50))
    cf = scm.counterfactual(evidence, do={"x": 3.0}, seed=0)
    weight = {node: scm.mechanisms[node].function.weight[:, 0] for node in "yz"}
    change = 3.0 - evidence["x"]
    y = evidence["y"] + weight["y"][0] * change
    z = evidence["z"] + weight["z"][0] * change + weight["z"][1] * (y - evidence["y"])
    torch.testing.assert_close(cf["y"], y, rtol=0, atol=1e-12)
    torch.testing.assert_close(cf["z"], z, rtol=0, atol=1e-12)


def random_linear_scm(nodes, seed):
    """A random DAG with known coefficients; returns the model, weights and noise."""
    random = np.random.default_rng(seed)
    names = [f"n{i}" for i in range(nodes)]
    weight = np.tril(random.normal(size=(nodes, nodes)) * (random.random((nodes, nodes)) < 0.4), -1)
    noise = random.normal(size=(8 * nodes + 200, nodes))
    values = np.linalg.solve(np.eye(nodes) - weight, noise.T).T
    graph = nx.DiGraph()
    graph.add_nodes_from(names)
    graph.add_edges_from((names[j], names[i]) for i in range(nodes) for j in range(nodes) if weight[i, j])
    scm = cg.SCM(
        graph,
        variables={name: cg.Continuous() for name in names},
        mechanisms={name: cg.mechanisms.Additive() for name in names},
    )
    return scm.fit(dict(zip(names, values.T, strict=True)), progress=False), values, names


@settings(max_examples=25, deadline=None)
@given(nodes=st.integers(2, 12), seed=st.integers(0, 10_000))
def test_random_linear_models_against_matrix_algebra(nodes, seed):
    scm, values, names = random_linear_scm(nodes, seed)
    fitted = np.zeros((nodes, nodes))
    for i, name in enumerate(names):
        for parent, weight in zip(scm.graph.parents(name), scm.mechanisms[name].function.weight, strict=True):
            fitted[i, names.index(parent)] = weight[0].item()
    node = seed % nodes
    keep = np.eye(nodes)
    keep[node, node] = 0
    # x_cf solves x = keep (A x + x_F - A x_F) + do.
    residual = (values - values @ fitted.T) @ keep
    residual[:, node] = 2.0
    expected = np.linalg.solve(np.eye(nodes) - keep @ fitted, residual.T).T
    evidence = dict(zip(names, values.T, strict=True))
    cf = scm.counterfactual(evidence, do={names[node]: 2.0}, seed=0)
    again = scm.counterfactual(evidence, do={names[node]: 2.0}, seed=0, copy_unaffected=False)
    for i, name in enumerate(names):
        np.testing.assert_allclose(cf[name], expected[:, i], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(again[name], expected[:, i], rtol=1e-6, atol=1e-6)
        if name not in scm.graph.descendants(names[node]):
            assert torch.equal(cf[name], torch.as_tensor(evidence[name]))


@pytest.mark.parametrize(
    "no_op",
    [lambda v: v, cg.Shift(0), cg.Scale(1), "observed"],
    ids=["function", "shift", "scale", "observed"],
)
@pytest.mark.parametrize("node", ["x", "y", "z"])
def test_no_ops_leave_every_row_bit_equal(linear, node, no_op):
    scm, data = linear
    evidence = tensors(data, slice(0, 100))
    do = {node: evidence[node] if isinstance(no_op, str) else no_op}
    cf = scm.counterfactual(evidence, do=do, seed=0)
    for name, value in evidence.items():
        assert torch.equal(cf[name], value)


def test_no_ops_on_images_and_categories_leave_every_row_equal(pictures, categories):
    for scm, data in (pictures, categories):
        evidence = {node: values[:6] for node, values in data.items()}
        factual = scm.counterfactual(evidence, do={}, seed=0)
        for node in scm.graph.nodes:
            cf = scm.counterfactual(evidence, do={node: lambda v: v}, seed=0)
            for name in scm.graph.nodes:
                assert np.array_equal(np.asarray(cf[name]), np.asarray(factual[name]))


def test_only_rows_whose_parents_change_are_recomputed(pictures):
    scm, data = pictures
    evidence = {node: values[:8] for node, values in data.items()}
    cf = scm.counterfactual(evidence, do={"kind": 1}, seed=0)
    same = evidence["kind"] == 1
    assert list(cf.provenance["picture"]) == ["copied" if each else "approximate" for each in same]
    assert torch.equal(cf["picture"][same], cf.factual["picture"][same])
    assert not torch.equal(cf["picture"][~same], cf.factual["picture"][~same])


def test_callables_see_the_natural_value_in_the_counterfactual_world(linear):
    scm, data = linear
    evidence = tensors(data, slice(0, 20))
    moved = scm.counterfactual(evidence, do={"x": 1.0}, seed=0)
    both = scm.counterfactual(evidence, do={"x": 1.0, "y": cg.Shift(10)}, seed=0)
    torch.testing.assert_close(both["y"], moved["y"] + 10, rtol=0, atol=1e-12)


def test_a_callable_cannot_reach_into_the_evidence(linear):
    scm, data = linear
    evidence = tensors(data, slice(0, 5))
    before = evidence["y"].clone()

    def in_place(value):
        value += 1
        return value

    cf = scm.counterfactual(evidence, do={"y": in_place}, seed=0)
    assert torch.equal(evidence["y"], before)
    assert torch.equal(cf.factual["y"], before)
    torch.testing.assert_close(cf["y"], before + 1, rtol=0, atol=0)


def test_disjoint_interventions_commute(linear):
    scm, data = linear
    evidence = tensors(data, slice(0, 20))
    one = scm.counterfactual(evidence, do={"x": 1.0, "w": 2.0}, seed=0)
    other = scm.counterfactual(evidence, do={"w": 2.0, "x": 1.0}, seed=0)
    for node in scm.graph.nodes:
        assert torch.equal(one[node], other[node])


def test_targets_change_what_is_computed_and_not_the_answer(categories):
    scm, data = categories
    evidence = {node: values[:40] for node, values in data.items()}
    whole = scm.counterfactual(evidence, do={"a": "mid"}, num_samples=5, seed=3)
    part = scm.counterfactual(evidence, do={"a": "mid"}, num_samples=5, seed=3, targets=["b"])
    assert list(part) == ["b"]
    assert torch.equal(part["b"], whole["b"])


def test_only_needed_noise_is_recovered(linear, monkeypatch):
    scm, data = linear
    abducted = []
    for node, mechanism in scm.mechanisms.items():
        original = type(mechanism).abduct

        def spy(self, *args, node=node, original=original, **options):
            abducted.append(node)
            return original(self, *args, **options)

        monkeypatch.setattr(mechanism, "abduct", spy.__get__(mechanism))
    scm.counterfactual(tensors(data, slice(0, 5)), do={"y": 1.0}, targets=["z"], seed=0)
    assert abducted == ["z"]


def test_chunks_do_not_change_the_answer(categories, pictures):
    scm, data = categories
    evidence = {node: values[:40] for node, values in data.items()}
    whole = scm.counterfactual(evidence, do={"a": "high"}, num_samples=7, seed=1)
    pairs = scm.abduct(evidence, num_samples=7, seed=1)
    assert torch.equal(pairs.counterfactual({"a": "high"})["b"], whole["b"])
    scm, data = pictures
    evidence = {node: values[:6] for node, values in data.items()}
    whole = scm.counterfactual(evidence, do={"kind": 1}, seed=1)["picture"]
    small = scm.with_options("picture")
    small.mechanisms["picture"].chunk_rows = 2
    torch.testing.assert_close(
        small.counterfactual(evidence, do={"kind": 1}, seed=1)["picture"], whole, rtol=0, atol=1e-5
    )


def test_deterministic_nodes_are_computed_once_whatever_the_samples(linear):
    scm, data = linear
    evidence = tensors(data, slice(0, 4))
    one = scm.counterfactual(evidence, do={"x": 1.0}, seed=0)
    many = scm.counterfactual(evidence, do={"x": 1.0}, num_samples=3, seed=0)
    assert many["z"].shape == (3, 4)
    assert all(torch.equal(many["z"][s], one["z"]) for s in range(3))
    assert many.noise["z"].n == 4


def test_the_posterior_of_a_category_keeps_what_was_seen(categories):
    scm, data = categories
    evidence = {node: values[:50] for node, values in data.items()}
    cf = scm.counterfactual(evidence, do={}, num_samples=20, seed=0, copy_unaffected=False)
    assert (cf["b"] == torch.as_tensor(evidence["b"])).all()
    assert (cf["a"] == evidence["a"]).all()
    assert set(cf.provenance["b"]) == {"posterior"}


def test_one_row_of_evidence_meets_many_values(pictures):
    scm, data = pictures
    evidence = {"kind": data["kind"][0], "picture": data["picture"][0]}
    cf = scm.counterfactual(evidence, do={"kind": [0, 1, 0]}, num_samples=2, seed=0)
    assert cf["picture"].shape == (2, 3, 1, 8, 8)
    assert torch.equal(cf["picture"][:, 0], cf["picture"][:, 2])


def test_seeds_decide_and_the_result_names_its_own(categories):
    scm, data = categories
    evidence = {node: values[:100] for node, values in data.items()}
    first = scm.counterfactual(evidence, do={"a": "low"})
    again = scm.counterfactual(evidence, do={"a": "low"}, seed=first.seed)
    other = scm.counterfactual(evidence, do={"a": "low"}, seed=first.seed + 1)
    assert torch.equal(first["b"], again["b"])
    assert not torch.equal(first["b"], other["b"])
    assert torch.equal(scm.sample(50, seed=4)["c"], scm.sample(50, seed=4)["c"])
    assert torch.equal(scm.sample(50, seed=4)["b"], scm.sample(50, seed=4, targets=["b"])["b"])


def test_sampling_under_an_intervention_keeps_the_noise_of_the_others(linear):
    scm, _ = linear
    natural, moved = scm.sample(200, seed=0), scm.sample(200, do={"x": cg.Shift(1)}, seed=0)
    weight = scm.mechanisms["y"].function.weight[0, 0]
    torch.testing.assert_close(moved["x"], natural["x"] + 1, rtol=0, atol=1e-12)
    torch.testing.assert_close(moved["y"], natural["y"] + weight, rtol=0, atol=1e-9)
    assert set(moved.provenance["x"]) == {"interventional"}
    assert set(moved.provenance["y"]) == {"prior"}


def test_an_intervened_model_answers_for_evidence_from_an_experiment(linear):
    scm, _ = linear
    lab = scm.do({"y": 1.0})
    evidence = {"x": 0.5, "y": 1.0, "z": 0.3, "w": 0.0}
    cf = lab.counterfactual(evidence, do={"x": 2.0}, seed=0)
    assert cf["y"].item() == 1.0
    weight = scm.mechanisms["z"].function.weight[0, 0].item()
    assert cf["z"].item() == pytest.approx(0.3 + 1.5 * weight, abs=1e-12)
    with pytest.raises(cg.InterventionError, match="before the intervention"):
        scm.do({"y": cg.Shift(1)}).abduct(evidence)
