"""Missing values: exact blocks against closed forms and brute force, particles against exact, images."""

import itertools

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import causalgen as cg
from causalgen.counterfactuals.missing_evidence import posterior
from causalgen.counterfactuals.missing_evidence.blocks import find_blocks
from causalgen.counterfactuals.missing_evidence.distributions import SamplePosterior
from graphs.variables.gaps import encode_gaps

NAN = float("nan")


def equations(graph, values, noise, variables=None):
    return cg.SCM(
        graph,
        variables=variables or {node: cg.Continuous() for node in graph},
        mechanisms={
            node: cg.mechanisms.Equation(value=values[node], noise=noise.get(node, {})) for node in graph
        },
    )


def random_linear(seed, nodes):
    """A random linear-Gaussian model, and the mean and covariance of its nodes n0, n1, ... jointly."""
    random = np.random.default_rng(seed)
    names = [f"n{k}" for k in range(nodes)]
    graph = nx.DiGraph()
    graph.add_nodes_from(names)
    matrix, shift, scale = np.zeros((nodes, nodes)), random.normal(size=nodes), random.uniform(0.5, 2, nodes)
    values = {}
    for k, name in enumerate(names):
        for parent in random.permutation(k)[: random.integers(0, 4)]:
            matrix[k, parent] = random.normal()
            graph.add_edge(names[parent], name)
        terms = [f"({matrix[k, p]!r}) * {names[p]}" for p in range(k) if matrix[k, p]]
        values[name] = " + ".join([*terms, f"({shift[k]!r})", "u"]).replace("np.float64(", "(")
    noise = {name: {"u": {"normal": [0.0, float(s)]}} for name, s in zip(names, scale, strict=True)}
    inverse = np.linalg.inv(np.eye(nodes) - matrix)
    return equations(graph, values, noise), names, inverse @ shift, inverse @ np.diag(scale**2) @ inverse.T


def condition(mean, covariance, seen, values):
    """The rest's mean and covariance given that these are seen."""
    rest = [k for k in range(len(mean)) if k not in seen]
    gain = covariance[np.ix_(rest, seen)] @ np.linalg.inv(covariance[np.ix_(seen, seen)])
    return (
        rest,
        mean[rest] + gain @ (values - mean[seen]),
        covariance[np.ix_(rest, rest)] - gain @ covariance[np.ix_(seen, rest)],
    )


@given(seed=st.integers(0, 10**6), nodes=st.integers(2, 30))
@settings(max_examples=40, deadline=None)
def test_linear_gaussian_posteriors_are_the_closed_form(seed, nodes):
    scm, names, mean, covariance = random_linear(seed, nodes)
    random = np.random.default_rng(seed)
    seen = sorted(random.permutation(nodes)[: random.integers(1, nodes)].tolist())
    row = scm.sample(1, seed=seed)
    values = np.array([row[names[k]].item() for k in seen])
    ab = scm.abduct({names[k]: row[names[k]] for k in seen}, seed=0)
    for k, m, v in zip(
        *(lambda r, a, b: (r, a, np.diag(b)))(*condition(mean, covariance, seen, values)), strict=True
    ):
        found = ab.posterior(names[k])
        np.testing.assert_allclose(found.mean.item(), m, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(found.covariance.item(), v, rtol=1e-6, atol=1e-6)


def test_draws_of_a_gaussian_block_have_its_joint_law():
    scm, names, mean, covariance = random_linear(5, 6)
    ab = scm.abduct({names[4]: [1.0, 1.0], names[5]: [-1.0, -1.0]}, num_samples=40_000, seed=1)
    rest, m, v = condition(mean, covariance, [4, 5], np.array([1.0, -1.0]))
    factual = ab.counterfactual({})
    for row in range(2):
        drawn = np.stack([factual[names[k]][:, row].numpy() for k in rest])
        np.testing.assert_allclose(drawn.mean(1), m, atol=0.05)
        np.testing.assert_allclose(np.cov(drawn), v, atol=0.1)


def test_counterfactuals_of_a_partial_row_are_the_closed_form():
    """x -> m -> y with m unseen: y under do(x = 3) is linear in the posterior of m's and y's noises."""
    graph = nx.DiGraph([("x", "m"), ("m", "y")])
    normal = {"u": {"normal": [0, 1]}}
    scm = equations(graph, {"x": "u", "m": "2*x + u", "y": "m + u"}, dict.fromkeys(graph, normal))
    cf = scm.counterfactual({"x": 1.0, "y": 5.0}, do={"x": 3.0}, num_samples=20_000, seed=0)
    # u_m + u_y = 3 is known, so that y = 2 * 3 + 3 in every sample, and m = 6 + u_m with u_m ~ N(1.5, 0.5).
    torch.testing.assert_close(cf["y"], torch.full_like(cf["y"], 9.0), rtol=0, atol=1e-9)
    assert abs(cf["m"].mean().item() - 7.5) < 0.03
    assert abs(cf["m"].var().item() - 0.5) < 0.03
    assert cf.provenance["m"].tolist() == ["inferred"]
    assert cf.provenance["y"].tolist() == ["inferred"]
    assert cf.provenance["x"].tolist() == ["interventional"]
    assert cf.factual["m"].shape == (1,)


def test_slopes_may_depend_on_what_is_observed():
    graph = nx.DiGraph([("t", "y"), ("z", "y")])
    normal = {"u": {"normal": [0, 1]}}
    scm = equations(graph, {"t": "u", "z": "u", "y": "t * z + u"}, dict.fromkeys(graph, normal))
    found = scm.abduct({"t": [1.0, 3.0], "y": [2.0, 6.0]}).posterior("z")
    torch.testing.assert_close(found.mean, torch.tensor([1.0, 1.8], dtype=torch.float64))
    torch.testing.assert_close(found.covariance.flatten(), torch.tensor([0.5, 0.1], dtype=torch.float64))
    # With t missing the block is no longer linear, and yet is answered.
    assert scm.abduct({"y": 2.0}, seed=0).posterior("z").weights.shape == (4096, 1)


def test_vectors_and_categories_enter_linear_blocks(categories):
    scm, data = categories
    rows = {"a": data["a"][:4], "c": data["c"][:4]}
    shares = scm.abduct(rows).posterior("b").probabilities
    brute = torch.stack([scm.log_prob({**rows, "b": [b] * 4}) for b in range(3)], 1).softmax(1)
    torch.testing.assert_close(shares, brute, rtol=1e-9, atol=1e-12)
    random = np.random.default_rng(0)
    v = random.normal(size=(500, 2))
    y = v @ [1.0, -2.0] + random.normal(size=500)
    both = cg.SCM(
        nx.DiGraph([("v", "y")]),
        {"v": cg.Continuous(shape=(2,)), "y": cg.Continuous()},
        dict.fromkeys("vy", cg.mechanisms.Additive()),
    ).fit({"v": v, "y": y}, progress=False)
    found = both.abduct({"y": 1.0}).posterior("v")
    weight = both.mechanisms["y"].function.weight[:, 0]
    prior = torch.diag(both.mechanisms["v"].scale ** 2)
    total = weight @ prior @ weight + both.mechanisms["y"].scale.item() ** 2
    centre = both.mechanisms["v"].function.bias
    gain = prior @ weight / total
    expected = centre + gain * (1.0 - both.mechanisms["y"].function.bias - weight @ centre)
    torch.testing.assert_close(found.mean[0], expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.covariance[0], prior - torch.outer(gain, weight @ prior))


def random_discrete(seed, nodes):
    random = np.random.default_rng(seed)
    names = [f"n{k}" for k in range(nodes)]
    graph = nx.DiGraph()
    graph.add_nodes_from(names)
    for k in range(nodes):
        graph.add_edges_from((names[p], names[k]) for p in random.permutation(k)[:2])
    sizes = {name: int(random.integers(2, 4)) for name in names}
    data = {name: random.integers(0, sizes[name], 60) for name in names}
    scm = cg.SCM(graph, {name: cg.Categorical(sizes[name]) for name in names})
    return scm.fit(data, progress=False), names, sizes


@pytest.mark.parametrize("seed", range(8))
def test_discrete_posteriors_are_brute_force(seed):
    scm, names, sizes = random_discrete(seed, 6)
    random = np.random.default_rng(seed)
    seen = [names[k] for k in random.permutation(6)[: random.integers(1, 5)]]
    row = scm.sample(1, seed=seed)
    grid = list(itertools.product(*(range(sizes[name]) for name in names)))
    columns = {name: [each[k] for each in grid] for k, name in enumerate(names)}
    match = torch.tensor([all(each[names.index(s)] == int(row[s]) for s in seen) for each in grid])
    joint = torch.where(match, scm.log_prob(columns), -torch.inf).softmax(0)
    ab = scm.abduct({name: row[name] for name in seen}, num_samples=4000, seed=0)
    drawn = ab.counterfactual({})
    for name in names:
        truth = torch.zeros(sizes[name], dtype=torch.float64).index_add(0, torch.tensor(columns[name]), joint)
        torch.testing.assert_close(ab.posterior(name).probabilities[0], truth, rtol=1e-6, atol=1e-9)
        shares = torch.bincount(drawn[name][:, 0], minlength=sizes[name]) / 4000
        torch.testing.assert_close(shares.double(), truth, rtol=0, atol=0.04)


def test_xor_is_known_for_certain():
    """c = a xor b with b unseen: b follows from a and c, so that flipping a flips c in every sample."""
    graph = nx.DiGraph([("a", "c"), ("b", "c")])
    coin = {"u": {"bernoulli": 0.5}}
    scm = equations(
        graph,
        {"a": "u", "b": "u", "c": "(a + b) - 2 * a * b"},
        {"a": coin, "b": coin},
        {node: cg.Categorical(2) for node in graph},
    )
    cf = scm.counterfactual({"a": [0, 1, 0], "c": [1, 1, 0]}, do={"a": [1, 0, 1]}, num_samples=50, seed=0)
    assert (cf["c"] == torch.tensor([0, 0, 1])).all()
    assert (cf["b"] == torch.tensor([1, 0, 0])).all()
    assert scm.abduct({"a": 0, "c": 1}).posterior("b").probabilities.tolist() == [[0.0, 1.0]]


def test_particles_agree_with_the_closed_form(monkeypatch):
    scm, names, mean, covariance = random_linear(3, 5)
    monkeypatch.setattr(posterior, "solve_gaussian", lambda problem: None)
    seen = mean[4] + np.array([1.0, -0.5]) * np.sqrt(covariance[4, 4])
    ab = scm.abduct({names[4]: seen}, num_samples=4000, seed=0, particles=40_000)
    drawn = ab.counterfactual({})
    for row, value in enumerate(seen):
        rest, m, v = condition(mean, covariance, [4], np.array([value]))
        for j, k in enumerate(rest):
            cloud = ab.posterior(names[k])
            near = {"atol": 0.08 * np.sqrt(v[j, j]), "rtol": 0}
            np.testing.assert_allclose((cloud.weights * cloud.values).sum(0)[row], m[j], **near)
            np.testing.assert_allclose(drawn[names[k]][:, row].mean(), m[j], **near)
            np.testing.assert_allclose(drawn[names[k]][:, row].std(), np.sqrt(v[j, j]), **near)
    assert (ab.effective_sample_size > 4000).all()
    assert (ab.effective_sample_size < 40_000).all()


def test_particles_keep_the_evidence_and_say_when_they_are_few(linear):
    scm = equations(
        nx.DiGraph([("z", "y")]),
        {"z": "u", "y": "exp(z) + u"},
        {"z": {"u": {"normal": [0, 1]}}, "y": {"u": {"normal": [0, 0.001]}}},
    )
    with pytest.warns(UserWarning, match="effective sample size"):
        cf = scm.counterfactual({"y": [1.0, 2.0]}, do={}, num_samples=8, seed=0, copy_unaffected=False)
    torch.testing.assert_close(cf["y"], torch.tensor([[1.0, 2.0]] * 8, dtype=torch.float64))
    assert (cf["z"].exp() - cf["y"]).abs().max() < 0.01
    assert torch.isinf(linear[0].abduct({"x": 1.0, "z": 1.0}).effective_sample_size).all()


def test_more_particles_mend_what_the_warning_of_few_says():
    """The least effective sample size grew with the particles, so that no number of them was enough."""
    noise = {"u": {"normal": [0, 1]}}
    scm = equations(nx.DiGraph([("z", "y")]), {"z": "u", "y": "exp(z) + 0.03*u"}, {"z": noise, "y": noise})
    with pytest.warns(UserWarning, match=r"down to 1\d\d\."):
        scm.abduct({"y": 1.0}, seed=0).counterfactual({"z": 0.0})
    more = scm.abduct({"y": 1.0}, particles=20_000, seed=0)
    assert 700 < more.effective_sample_size.item() < 1000
    assert abs(more.counterfactual({"z": 0.0})["y"].item() - 1) < 0.2


def test_a_gap_in_a_row_is_a_node_left_out_there(linear):
    scm, data = linear
    frame = pd.DataFrame({node: data[node][:4] for node in "xyz"}, index=list("pqrs"))
    frame.loc["q", "y"] = NAN
    frame.loc["r", ["x", "y"]] = NAN
    ab = scm.abduct(frame, seed=0)
    for row, lacks in (("p", []), ("q", ["y"]), ("r", ["x", "y"]), ("s", [])):
        alone = scm.abduct(frame.loc[row].drop(lacks).to_dict(), seed=0)
        for node in "xyzw":
            both = alone.posterior(node), ab.posterior(node)
            where = list("pqrs").index(row)
            torch.testing.assert_close(both[1].mean[where], both[0].mean[0], rtol=0, atol=1e-12)
            torch.testing.assert_close(both[1].covariance[where], both[0].covariance[0], rtol=0, atol=1e-12)
    cf = ab.counterfactual({"x": 0.0})
    assert cf.provenance["y"].tolist() == ["exact", "inferred", "inferred", "exact"]
    assert cf.provenance["w"].tolist() == ["prior"] * 4
    assert list(cf["y"].index) == list(ab.posterior("y").index) == list("pqrs")
    assert scm.abduct({"x": 1.0}, particles=1, seed=0).posterior("y").mean.shape == (1,)
    full = scm.counterfactual({**frame.loc[["p", "s"]], "w": [0.0, 0.0]}, do={"x": 0.0})
    np.testing.assert_allclose(cf["z"][["p", "s"]], full["z"], rtol=0, atol=1e-12)


def test_a_column_without_values_is_a_node_left_out(linear, categories):
    scm, data = linear
    rows = {"x": data["x"][:3], "z": data["z"][:3]}
    absent = scm.counterfactual(rows, do={"x": 1.0}, num_samples=3, seed=5)
    for nothing in ([NAN] * 3, None, [None] * 3, torch.full((3,), NAN), pd.Series([pd.NA] * 3)):
        same = scm.counterfactual({**rows, "y": nothing, "w": NAN}, do={"x": 1.0}, num_samples=3, seed=5)
        assert all(torch.equal(same[node], absent[node]) for node in "xyzw")
    scm, data = categories
    rows = {"b": data["b"][:3], "c": data["c"][:3]}
    absent = scm.counterfactual(rows, do={"b": 0}, seed=5)
    for nothing in ([None] * 3, [NAN] * 3, np.full(3, NAN), pd.Series([None] * 3, dtype="category")):
        same = scm.counterfactual({**rows, "a": nothing}, do={"b": 0}, seed=5)
        assert same["a"].tolist() == absent["a"].tolist()


def test_the_seed_decides_and_targets_do_not(linear):
    scm, data = linear
    rows = {"x": data["x"][:5], "z": data["z"][:5]}
    one = scm.counterfactual(rows, do={"x": 1.0}, num_samples=4, seed=1)
    again = scm.counterfactual(rows, do={"x": 1.0}, num_samples=4, seed=1, targets=["z"])
    other = scm.counterfactual(rows, do={"x": 1.0}, num_samples=4, seed=2)
    assert torch.equal(one["z"], again["z"])
    assert not torch.equal(one["y"], other["y"])
    assert one.weights.tolist() == [[0.25] * 5] * 4


def test_samples_of_inferred_nodes_keep_apart_and_composition_holds(linear):
    scm, _ = linear
    cf = scm.counterfactual({"x": 0.3, "z": -1.0}, do={}, num_samples=6, seed=0, copy_unaffected=False)
    assert cf["y"].shape == (6, 1)
    assert cf["y"].unique().numel() == 6
    torch.testing.assert_close(cf["z"], torch.full_like(cf["z"], -1.0), rtol=0, atol=1e-12)
    wide = scm.counterfactual({"x": 0.3, "z": -1.0}, do={"x": [0.3, 1.3]}, num_samples=6, seed=0)
    assert wide["y"].shape == (6, 2)
    torch.testing.assert_close(wide["y"][:, 0], cf["y"][:, 0], rtol=0, atol=1e-12)
    slope = scm.mechanisms["y"].function.weight.item()
    torch.testing.assert_close(wide["y"][:, 1] - wide["y"][:, 0], torch.full((6,), slope).double())


def test_saving_and_drawing_do_not_mind(linear, tmp_path):
    scm, _ = linear
    cf = scm.counterfactual({"x": [0.3, 0.1], "z": -1.0}, do={"x": 1.0}, num_samples=3, seed=0)
    cf.save(tmp_path / "out")
    assert (tmp_path / "out" / "factual" / "values.csv").exists()
    contrast = scm.abduct({"x": 0.3, "z": -1.0}, num_samples=3, seed=0).contrast({"x": 1.0}, {"x": 0.0})
    assert contrast["z"].shape == (3, 1)


def test_what_was_set_before_is_known(linear):
    scm, _ = linear
    found = scm.do({"x": 2.0}).abduct({"y": 5.0, "z": 1.0})
    assert found.posterior("x").mean.item() == 2.0
    rows = scm.do({"x": [1.0, 2.0]}).counterfactual({"y": [5.0, 5.0]}, do={}, num_samples=3, seed=0)
    assert rows["x"].tolist() == [[1.0, 2.0]] * 3


def test_an_unseen_image_is_drawn_with_its_noise(pictures):
    scm, _ = pictures
    same = scm.counterfactual({"kind": 1}, do={}, seed=0, copy_unaffected=False)
    assert same.provenance["picture"].tolist() == ["prior"]
    assert torch.equal(same["picture"], scm.counterfactual({"kind": 1}, do={}, seed=0)["picture"])
    moved = scm.counterfactual({"kind": 1}, do={"kind": 0}, seed=0)
    noise = scm.abduct({"kind": 1}, seed=0).noise["picture"]
    for found, kind in ((same, 1), (moved, 0)):
        made = scm.mechanisms["picture"].generate({"kind": torch.tensor([kind])}, noise)
        assert torch.equal(found["picture"], scm.variables["picture"].decode(made))
    assert not torch.equal(same["picture"], scm.sample(1, do={"kind": 1}, seed=0)["picture"])


def test_one_particle_that_has_all_the_weight_tells_no_spread():
    """h = 2.002 was told with a deviation of 0, and its quantiles alike, without a warning."""
    noise = {"u": {"normal": [0, 1]}}
    scm = equations(nx.DiGraph([("h", "s")]), {"h": "u", "s": "h**3 + 1e-4*u"}, {"h": noise, "s": noise})
    few = pytest.warns(UserWarning, match="effective sample size is small, down to 1")
    with few:
        found = scm.abduct({"s": 8.0}, seed=0).posterior("h")
    with few:
        draws = scm.counterfactual({"s": 8.0}, {}, num_samples=4, seed=0).summary()["sd"].to_list()
    assert np.isnan(draws[0]) and draws[1] == 0  # of h, and of s, which was observed
    assert bool(found.moments()[1].isnan()) and bool(found.quantile(0.05).isnan()) and "unknown" in str(found)


def test_the_spread_of_few_weighted_draws_is_unbiased():
    """As that of S equal draws, which divides by S - 1: of a normal's 4 draws it was 0.87."""
    random = np.random.default_rng(0)
    values, weights = random.normal(size=(4, 20_000)), random.random((4, 20_000))
    for each in (weights, np.ones_like(weights)):
        shares = torch.from_numpy(each / each.sum(0))
        spread = SamplePosterior(torch.from_numpy(values), shares).moments()[1]
        assert float(spread.square().mean()) == pytest.approx(1, abs=0.03)


def test_the_posterior_of_an_image_is_that_of_its_pixels(pictures):
    """It was told in [-1, 1], with a spread of 0 where it is of one draw."""
    scm, _ = pictures
    drawn = scm.abduct({"kind": [0, 1]}, num_samples=3, seed=0)
    images = drawn.counterfactual({})["picture"].double().reshape(3, 2, -1)
    mean, spread = drawn.posterior("picture").moments()
    assert torch.allclose(mean, images.mean(0)) and torch.allclose(spread, images.std(0))
    assert torch.allclose(drawn.posterior("picture").quantile(0.5), images.median(0).values)
    alone = scm.abduct({"kind": [0, 1]}, seed=0).posterior("picture")
    mean, spread = alone.moments()
    assert bool(spread.isnan().all() and alone.quantile(0.5).isnan().all()) and not bool(mean.isnan().any())
    texts = [text.get_text() for text in alone.plot().axes[0].texts]
    assert texts.count("one draw") == 2


def test_a_list_may_lack_an_image(pictures):
    scm, data = pictures
    pair = [data["picture"][0], None]
    cf = scm.counterfactual({"kind": [0, 1], "picture": pair}, do={"kind": 1}, seed=0)
    assert cf.provenance["picture"].tolist() == ["approximate", "prior"]
    alone = scm.counterfactual({"kind": 0, "picture": pair[0]}, do={"kind": 1}, seed=0)
    torch.testing.assert_close(cf["picture"][0], alone["picture"][0], rtol=0, atol=1e-5)


def test_a_picture_tells_its_cause():
    mnist = cg.SCM.from_pretrained("mnist")
    table = cg.sample_rows("mnist")
    images, digits = table["image"][:40], torch.as_tensor(np.asarray(table["digit"][:40]))
    ab = mnist.abduct({"image": images}, seed=0)
    right = ab.posterior("digit").probabilities.gather(1, digits[:, None])[:, 0]
    assert (right > 0.9).double().mean() > 0.85
    fast = mnist.with_options("image", solver={"steps": 4})
    cf = fast.counterfactual({"image": images[:4]}, do={"digit": 3}, seed=0)
    told = fast.counterfactual({"image": images[:4], "digit": digits[:4]}, do={"digit": 3}, seed=0)
    assert cf.inferred["digit"].tolist() == digits[:4].tolist()
    torch.testing.assert_close(cf["image"], told["image"], rtol=0, atol=1e-4)
    assert cf.provenance["image"].tolist() == ["inferred"] * 4


def test_an_image_informs_ancestors_of_its_parents(pictures, monkeypatch):
    """p(c | x) is proportional to p(c) * sum over k of p(k | c) q(k | x) / p(k)."""
    scm, data = pictures
    parts = cg.SCM(nx.DiGraph([("c", "kind")]), {"c": cg.Categorical(3), "kind": cg.Categorical(2)})
    parts = parts.fit({"c": [0, 1, 2, 0, 1, 2, 2] * 2, "kind": [0, 1, 1, 0, 1, 0, 1] * 2}, progress=False)
    chain = cg.SCM(
        nx.DiGraph([("c", "kind"), ("kind", "picture")]),
        {**parts.variables, "picture": scm.variables["picture"]},
        {**parts.mechanisms, "picture": scm.mechanisms["picture"]},
    )
    image = torch.as_tensor(scm.variables["picture"].encode(data["picture"][:5], where="x"))
    joint = parts.log_prob({"c": [0, 0, 1, 1, 2, 2], "kind": [0, 1] * 3}).view(3, 2)
    kinds = torch.arange(2).repeat_interleave(5)
    read = scm.mechanisms["picture"].log_prob_of_parents(image, {"kind": kinds}).view(2, 5)
    expected = (joint[:, :, None] + read - joint.logsumexp(0)[:, None]).logsumexp(1).softmax(0).T
    ab = chain.abduct({"picture": data["picture"][:5]}, seed=0)
    torch.testing.assert_close(ab.posterior("c").probabilities, expected, rtol=1e-6, atol=1e-9)
    monkeypatch.setattr(posterior, "solve_mixed", lambda *_: None)
    cloud = chain.abduct({"picture": data["picture"][:5]}, seed=0, particles=20_000).posterior("c")
    shares = torch.stack([(cloud.weights * (cloud.values == c)).sum(0) for c in range(3)], 1)
    torch.testing.assert_close(shares, expected, rtol=0, atol=0.03)


def test_many_rows_go_in_parts_and_each_keeps_its_own(monkeypatch):
    scm = equations(
        nx.DiGraph([("z", "y")]),
        {"z": "u", "y": "z ** 3 + u"},
        {node: {"u": {"normal": [0, 1]}} for node in "zy"},
    )
    y = np.linspace(-3, 3, 500)
    cf = scm.counterfactual({"y": y}, do={}, num_samples=3, seed=0, copy_unaffected=False)
    torch.testing.assert_close(cf["y"], torch.as_tensor(y).expand(3, -1), rtol=0, atol=1e-9)
    assert np.corrcoef(cf["z"].mean(0), y)[0, 1] > 0.8
    assert cf.provenance["z"].tolist() == ["inferred"] * 500


def test_what_cannot_be_inferred_is_refused_with_the_reason(pictures):
    normal = {"u": {"normal": [0, 1]}}
    bent = equations(nx.DiGraph([("z", "y")]), {"z": "u", "y": "exp(z)"}, {"z": normal})
    with pytest.raises(cg.PartialEvidenceError, match="'y'.*deterministic"):
        bent.abduct({"y": 2.0}).posterior("z")
    hidden = equations(
        nx.DiGraph([("z", "y")]),
        {"z": "u", "y": "z + u * v"},
        {"z": normal, "y": {**normal, "v": {"normal": [0, 1]}}},
    )
    with pytest.raises(cg.PartialEvidenceError, match="'y'.*without a density"):
        hidden.counterfactual({"y": 2.0}, do={"z": 1.0})
    doubled = equations(nx.DiGraph([("z", "a"), ("z", "b")]), {"z": "u", "a": "z", "b": "2*z"}, {"z": normal})
    with pytest.raises(cg.PartialEvidenceError, match="linearly dependent"):
        doubled.abduct({"a": 1.0, "b": 2.0}).posterior("z")
    scm, _ = pictures
    blind = cg.SCM(
        nx.DiGraph([("kind", "picture"), ("picture", "label")]),
        {**scm.variables, "label": cg.Categorical(2)},
        {
            "kind": scm.mechanisms["kind"],
            "picture": scm.mechanisms["picture"],
            "label": cg.mechanisms.Constant(value=1),
        },
    )
    with pytest.raises(cg.PartialEvidenceError, match="image 'picture'"):
        blind.counterfactual({"label": 1, "kind": 1}, do={"kind": 0})


def test_evidence_of_probability_zero_is_refused():
    graph = nx.DiGraph([("a", "b")])
    scm = cg.SCM(
        graph,
        {node: cg.Categorical(3) for node in graph},
        dict.fromkeys(graph, cg.mechanisms.Categorical(smoothing=0)),
    ).fit({"a": [0, 1, 0, 1], "b": [0, 1, 0, 1]}, progress=False)
    with pytest.raises(cg.EvidenceError, match="Row 1.*probability zero.*'a'"):
        scm.counterfactual({"b": [0, 2]}, do={"a": 1})


def test_blocks_are_connected_and_leave_out_what_evidence_does_not_reach():
    graph = cg.CausalGraph.from_networkx(
        nx.DiGraph([("a", "c"), ("b", "c"), ("c", "d"), ("b", "e"), ("f", "g"), ("g", "h"), ("a", "i")])
    )
    found = find_blocks(graph, {"a", "b", "f", "e", "i", "g"})
    assert {frozenset(block.missing): block.children for block in found} == {
        frozenset("ab"): ("c",),
        frozenset("fg"): ("h",),
    }
    assert find_blocks(graph, {"d", "e"}) == []
    assert [block.missing for block in find_blocks(graph, {"d", "e"}, keep=("d",))] == [("d",)]


def test_gaps_are_found_and_nothing_else_is_let_in():
    values, gaps = encode_gaps(cg.Continuous(lower=2, shape=(2,)), [[3, 4], [NAN, NAN]], where="x")
    assert values.shape == (2, 2)
    assert gaps.tolist() == [False, True]
    assert encode_gaps(cg.Continuous(), [1.0], where="x")[1] is None
    for bad in ([[3, NAN]], [[1, 3]]):
        with pytest.raises(cg.DomainError):
            encode_gaps(cg.Continuous(lower=2, shape=(2,)), bad, where="x")
    with pytest.raises(cg.DomainError, match="row 2"):
        encode_gaps(cg.Categorical(["s", "t"]), ["s", None, "q"], where="x")
    assert encode_gaps(cg.Categorical(["s", "t"]), ["t", None], where="x")[0].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("value", "cause", "y", "truth"),
    [
        ("a * u", {"bernoulli": 0.5}, 0.0, [1.0, 0.0]),
        ("a * u", {"bernoulli": 0.5}, 0.7, [0.0, 1.0]),
        ("where(a > 0, u, 0)", {"bernoulli": 0.25}, 0.0, [1.0, 0.0]),
        ("where(a > 0, u, 3)", {"bernoulli": 0.25}, 3.0, [1.0, 0.0]),
    ],
)
def test_an_atom_outweighs_any_density(value, cause, y, truth):
    # P(y = 0) is positive where a = 0, and a density where a = 1 has no probability at any one point.
    scm = equations(
        nx.DiGraph([("a", "y")]),
        {"a": "u", "y": value},
        {"a": {"u": cause}, "y": {"u": {"normal": [0, 1]}}},
        {"a": cg.Categorical(2), "y": cg.Continuous()},
    )
    assert scm.abduct({"y": y}, seed=0).posterior("a").probabilities.tolist() == [truth]


def test_atoms_outweigh_densities_among_particles():
    scm = equations(
        nx.DiGraph([("a", "y")]),
        {"a": "u", "y": "where(a > 0, u, 0)"},
        {node: {"u": {"normal": [0, 1]}} for node in "ay"},
    )
    draws = scm.abduct({"y": 0.0}, num_samples=500, seed=0).posterior("a")
    assert draws.weights[draws.values > 0].sum() == 0


@pytest.mark.parametrize(("y", "zero"), [(0.0, 1.0), (0.7, 0.0)])
def test_atoms_outweigh_densities_in_mixtures(y, zero):
    scm = equations(
        nx.DiGraph([("a", "y"), ("z", "y")]),
        {"a": "u", "z": "u", "y": "a * z"},
        {"a": {"u": {"bernoulli": 0.5}}, "z": {"u": {"normal": [0, 1]}}},
        {"a": cg.Categorical(2), "z": cg.Continuous(), "y": cg.Continuous()},
    )
    ab = scm.abduct({"y": y}, num_samples=200, seed=0)
    assert ab.posterior("a").probabilities[0, 0].item() == zero
    spread = ab.posterior("z").covariance.item()
    assert spread == pytest.approx(zero)  # y tells z where a is 1, and nothing where a is 0


def test_what_slope_zero_contradicts_is_refused():
    scm = equations(
        nx.DiGraph([("a", "y"), ("z", "y")]),
        {"a": "u", "z": "u", "y": "a * z"},
        {node: {"u": {"normal": [0, 1]}} for node in "az"},
    )
    assert scm.abduct({"a": 0.0, "y": 0.0}, seed=0).posterior("z").covariance.item() == 1.0
    with pytest.raises(cg.EvidenceError, match="probability zero"):
        scm.abduct({"a": 0.0, "y": 1.0}, seed=0).posterior("z")
