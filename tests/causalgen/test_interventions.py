"""What ``do`` may say: expressions, draws, policies, other mechanisms; their laws, and what is refused."""

import functools
import math
import warnings

import networkx as nx
import numpy as np
import pyro.distributions as dist
import pytest
import torch

import causalgen as cg
from graphs.errors import EvidenceError, InterventionError
from mechanisms.base import Mechanism, MechanismSpec


@pytest.fixture(scope="module")
def bounded():
    """a -> b -> c, all in [0, 10] and seen in [1, 9]."""
    random = np.random.default_rng(0)
    data = {"a": random.uniform(1, 9, 200)}
    data["b"] = np.clip(10 - data["a"] + random.normal(size=200) / 4, 1, 9)
    data["c"] = np.clip(data["b"] + random.normal(size=200) / 4, 1, 9)
    scm = cg.SCM(
        nx.DiGraph([("a", "b"), ("b", "c")]),
        variables={node: cg.Continuous(0, 10) for node in "abc"},
        mechanisms={node: cg.mechanisms.Additive() for node in "abc"},
    )
    return scm.fit(data, progress=False), data


def rows(data, n):
    return {node: torch.as_tensor(values[:n]) for node, values in data.items()}


def weights(scm, node):
    return scm.mechanisms[node].function.weight[:, 0]


# Expressions


def test_an_expression_reads_other_nodes_in_the_counterfactual_world(linear):
    scm, data = linear
    evidence = rows(data, 20)
    cf = scm.counterfactual(evidence, do={"x": "x + 1", "w": "2*x - 0.5*y"}, seed=0)
    x = evidence["x"] + 1
    y = evidence["y"] + weights(scm, "y")[0]
    torch.testing.assert_close(cf["x"], x, rtol=0, atol=1e-12)
    torch.testing.assert_close(cf["w"], 2 * x - 0.5 * y, rtol=0, atol=1e-12)
    assert scm.do({"w": "2*x - 0.5*y"}).graph.parents("w") == ("x", "y")
    assert cf.do == {"x": "x + 1", "w": "2 * x - 0.5 * y"}


def test_an_expression_that_does_not_read_its_own_node_cuts_its_parents_off(linear):
    scm, data = linear
    cf = scm.counterfactual(rows(data, 5), do={"y": "3*x"}, seed=0)
    torch.testing.assert_close(cf["y"], 3 * cf["x"], rtol=0, atol=0)
    assert scm.do({"y": "3*x"}).graph.nodes == scm.graph.nodes


def test_an_expression_of_no_names_is_a_value(linear, categories):
    scm, data = linear
    evidence = rows(data, 5)
    assert torch.equal(
        scm.counterfactual(evidence, do={"x": "1/2"}, seed=0)["z"],
        scm.counterfactual(evidence, do={"x": 0.5}, seed=0)["z"],
    )
    scm, data = categories
    evidence = {node: values[:5] for node, values in data.items()}
    assert (scm.counterfactual(evidence, do={"b": "2"}, seed=0)["b"] == 2).all()


def test_a_label_is_a_value_and_other_strings_count_in_codes(categories):
    scm, data = categories
    evidence = {node: values[:40] for node, values in data.items()}
    assert set(scm.counterfactual(evidence, do={"a": "mid"}, seed=0)["a"]) == {"mid"}
    cf = scm.counterfactual(evidence, do={"a": "minimum(a + 1, 2)"}, seed=0)
    following = {"low": "mid", "mid": "high", "high": "high"}
    assert list(cf["a"]) == [following[label] for label in evidence["a"]]
    cf = scm.counterfactual(evidence, do={"c": "10*a + b"}, seed=0)
    codes = torch.tensor([["low", "mid", "high"].index(label) for label in evidence["a"]])
    assert torch.equal(cf["c"], (10 * codes + torch.as_tensor(evidence["b"])).double())


def test_a_scalar_counts_for_every_pixel(pictures):
    scm, data = pictures
    evidence = {node: values[:4] for node, values in data.items()}
    cf = scm.counterfactual(evidence, do={"picture": "picture * (0.5 + 0.5*kind)"}, seed=0)
    factual = cf.factual["picture"]
    scale = 0.5 + 0.5 * torch.as_tensor(evidence["kind"]).view(-1, 1, 1, 1)
    torch.testing.assert_close(cf["picture"], (factual * scale).float(), rtol=0, atol=1e-6)


# Draws


@pytest.mark.parametrize(
    "law", [{"normal": [2, 0.5]}, dist.Normal(2.0, 0.5), torch.distributions.Normal(2.0, 0.5)], ids=str
)
def test_a_draw_is_fresh_in_every_row_and_sample_and_follows_its_law(linear, law):
    scm, data = linear
    evidence = {node: values[:100] for node, values in data.items()}
    state = torch.random.get_rng_state()
    cf = scm.counterfactual(evidence, do={"y": cg.Stochastic(law)}, num_samples=40, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert cf["y"].shape == (40, 100)
    assert cf["y"].unique().numel() == 4000
    assert cf["y"].mean().item() == pytest.approx(2, abs=5 * 0.5 / 4000**0.5)
    assert cf["y"].std().item() == pytest.approx(0.5, rel=0.08)
    # What is downstream follows; what is not, stays.
    moved = weights(scm, "z")[1] * (cf["y"] - torch.as_tensor(evidence["y"]))
    torch.testing.assert_close(cf["z"], torch.as_tensor(evidence["z"]) + moved, rtol=0, atol=1e-10)
    assert torch.equal(cf["x"][0], torch.as_tensor(evidence["x"]))
    again = scm.counterfactual(evidence, do={"y": cg.Stochastic(law)}, num_samples=40, seed=1, targets=["y"])
    other = scm.counterfactual(evidence, do={"y": cg.Stochastic(law)}, num_samples=40, seed=2)
    assert torch.equal(again["y"], cf["y"])
    assert not torch.equal(other["y"], cf["y"])
    assert set(cf.provenance["y"]) == {"interventional"}


def test_draws_of_vectors_images_and_categories(pictures, categories):
    scm, data = pictures
    evidence = {node: values[:3] for node, values in data.items()}
    cf = scm.counterfactual(evidence, do={"picture": cg.Stochastic({"uniform": [0, 1]})}, seed=0)
    assert cf["picture"].shape == (3, 1, 8, 8)
    assert cf["picture"].unique().numel() > 180
    scm, data = categories
    evidence = {node: values[:300] for node, values in data.items()}
    cf = scm.counterfactual(evidence, do={"a": cg.Stochastic({"categorical": [0.5, 0, 0.5]})}, seed=0)
    assert set(cf["a"]) == {"low", "high"}
    vectors = cg.SCM(
        nx.DiGraph([("k", "v")]),
        variables={"k": cg.Categorical(2), "v": cg.Continuous(shape=(2,))},
        mechanisms={"v": cg.mechanisms.Additive()},
    ).fit({"k": [0, 1, 0, 1], "v": [[0.0, 1], [1, 0], [0, 2], [1, 1]]}, progress=False)
    law = dist.MultivariateNormal(torch.zeros(2), torch.eye(2))
    assert vectors.sample(7, do={"v": cg.Stochastic(law)}, seed=0)["v"].shape == (7, 2)


# Policies


def test_a_policy_reads_values_in_the_users_form(categories):
    scm, data = categories
    evidence = {node: values[:30] for node, values in data.items()}
    seen = []

    def policy(a, c):
        seen.append(a)
        return torch.where(torch.as_tensor(a == "high"), c + 1, c)

    cf = scm.counterfactual(evidence, do={"c": cg.Policy(policy, reads=["a", "c"])}, seed=0)
    assert list(seen[0]) == list(evidence["a"])
    high = evidence["a"] == "high"
    assert torch.equal(cf["c"][~high], torch.as_tensor(evidence["c"])[~high])
    assert torch.equal(cf["c"][high], torch.as_tensor(evidence["c"])[high] + 1)


def test_a_policy_without_the_natural_value_brings_only_what_it_reads(linear):
    scm, _ = linear
    moved = scm.do({"z": cg.Policy(lambda x, w: x * w, reads=["x", "w"])})
    assert moved.graph.parents("z") == ("x", "w")
    draws = moved.sample(50, seed=0)
    assert torch.equal(draws["z"], draws["x"] * draws["w"])
    # It is how that model works now, so evidence from it can be abducted.
    evidence = {node: draws[node] for node in "xyzw"}
    cf = moved.counterfactual(evidence, do={"x": 2.0}, seed=0)
    assert torch.equal(cf["z"], 2 * draws["w"])


def test_a_policy_sees_every_sample_of_what_it_reads(linear):
    scm, data = linear
    evidence = {node: values[:6] for node, values in data.items()}
    do = {"x": cg.Stochastic({"normal": [0, 1]}), "w": cg.Policy(lambda x: -x, reads=["x"])}
    cf = scm.counterfactual(evidence, do=do, num_samples=5, seed=0)
    assert cf["w"].shape == (5, 6)
    assert torch.equal(cf["w"], -cf["x"])


# Other mechanisms


def test_replacing_a_mechanism_keeps_the_abducted_noise_or_draws_anew(linear):
    scm, data = linear
    evidence = rows(data, 50)
    parents = {"x": cg.Continuous()}
    steep = cg.mechanisms.Additive().bind(cg.Continuous(), parents)
    old = scm.mechanisms["y"]
    steep.load_state_dict(old.state_dict())
    steep.function.weight.mul_(3)
    kept = scm.counterfactual(evidence, do={"y": cg.Replace(steep)}, seed=0)
    extra = 2 * weights(scm, "y")[0] * evidence["x"]
    torch.testing.assert_close(kept["y"], evidence["y"] + extra, rtol=0, atol=1e-10)
    torch.testing.assert_close(kept["z"], evidence["z"] + weights(scm, "z")[1] * extra, rtol=0, atol=1e-10)
    fresh = scm.counterfactual(evidence, do={"y": cg.Replace(steep, noise="fresh")}, num_samples=3, seed=0)
    assert fresh["y"].shape == (3, 50)
    assert fresh["y"].unique().numel() == 150
    assert scm.do({"y": cg.Replace(steep)}).graph.edges == scm.graph.edges


def test_replacing_by_a_spec_with_nothing_to_fit(linear):
    scm, data = linear
    spec = cg.mechanisms.Equation(value="x + e", noise={"e": {"normal": [0, 0.1]}})
    cf = scm.counterfactual(
        {node: values[:200] for node, values in data.items()},
        do={"y": cg.Replace(spec, noise="fresh")},
        seed=0,
    )
    assert (cf["y"] - cf["x"]).std().item() == pytest.approx(0.1, rel=0.3)
    draws = scm.sample(20, do={"y": cg.Replace(cg.mechanisms.Equation(value="2*x"), noise="fresh")}, seed=0)
    assert torch.equal(draws["y"], 2 * draws["x"])


def test_replacing_a_mechanism_by_itself_is_a_no_op_on_images_too(linear, pictures):
    for scm, data in (linear, pictures):
        evidence = {node: values[:6] for node, values in data.items()}
        for node in scm.graph.nodes:
            cf = scm.counterfactual(evidence, do={node: cg.Replace(scm.mechanisms[node])}, seed=0)
            for name in scm.graph.nodes:
                torch.testing.assert_close(cf[name], cf.factual[name], rtol=0, atol=1e-4)


# Laws


def no_ops(node, parents):
    found = {
        "expression": node,
        "sum": f"{node} + 0*1",
        "policy": cg.Policy(lambda own: own, reads=[node]),
        "shift": cg.Shift(0),
        "scale": cg.Scale(1),
    }
    if parents:
        found["wide policy"] = cg.Policy(lambda other, own: own, reads=[parents[0], node])
        found["wide expression"] = f"where({parents[0]} > 1e9, 0, {node})"
    return found


@pytest.mark.parametrize("samples", [None, 3])
def test_no_ops_leave_every_row_bit_equal(linear, samples):
    scm, data = linear
    evidence = rows(data, 100)
    for node in "xyz":
        for name, no_op in no_ops(node, scm.graph.parents(node)).items():
            cf = scm.counterfactual(evidence, do={node: no_op}, num_samples=samples, seed=0)
            for each, value in evidence.items():
                assert torch.equal(cf[each], value.expand(cf[each].shape)), (node, name, each)


def test_no_ops_leave_categories_and_images_as_they_are(categories, pictures):
    scm, data = categories
    evidence = {node: values[:60] for node, values in data.items()}
    for no_op in ("a", cg.Policy(lambda own: own, reads=["a"])):
        cf = scm.counterfactual(evidence, do={"a": no_op}, seed=0)
        assert list(cf["a"]) == list(evidence["a"])
        assert torch.equal(cf["b"], torch.as_tensor(evidence["b"]))
        assert torch.equal(cf["c"], torch.as_tensor(evidence["c"]))
    scm, data = pictures
    evidence = {node: values[:4] for node, values in data.items()}
    cf = scm.counterfactual(evidence, do={"picture": "picture", "kind": "kind"}, seed=0)
    assert torch.equal(cf["picture"], cf.factual["picture"])


@pytest.mark.parametrize("copying", [True, False])
def test_consistency_setting_what_was_observed_by_any_means_changes_nothing(linear, copying):
    scm, data = linear
    observed = {node: values[7] for node, values in data.items()}
    y = float(observed["y"])
    means = (
        y,
        repr(y),
        cg.Policy(lambda: y, reads=[]),
        cg.Stochastic(dist.Delta(torch.tensor(y, dtype=torch.float64))),
        cg.Replace(cg.mechanisms.Constant(value=y), noise="fresh"),
    )
    for mean in means:
        cf = scm.counterfactual(observed, do={"y": mean}, seed=0, copy_unaffected=copying)
        for node in scm.graph.nodes:
            assert cf[node].item() == pytest.approx(observed[node], abs=1e-12)


def test_several_at_once_in_any_order(linear):
    scm, data = linear
    evidence = rows(data, 20)
    do = {
        "x": "x + 0.1",
        "y": cg.Policy(lambda x, own: own - x, reads=["x", "y"]),
        "w": cg.Stochastic({"normal": [0, 1]}),
        "z": cg.Replace(scm.mechanisms["z"]),
    }
    one = scm.counterfactual(evidence, do=do, seed=0)
    other = scm.counterfactual(evidence, do=dict(reversed(do.items())), seed=0)
    for node in scm.graph.nodes:
        assert torch.equal(one[node], other[node])
    x = evidence["x"] + 0.1
    y = evidence["y"] + 0.1 * weights(scm, "y")[0] - x
    torch.testing.assert_close(one["y"], y, rtol=0, atol=1e-10)


def test_whether_a_cycle_closes_does_not_depend_on_the_order(linear):
    scm, _ = linear
    # x reads z, which is z's cause no longer once z is set.
    for do in ({"x": "z", "z": 1.0}, {"z": 1.0, "x": "z"}):
        assert scm.do(do).graph.edges == (("z", "x"), ("x", "y"))


def test_abduction_takes_them_too_and_one_row_meets_several_values(linear):
    scm, data = linear
    abduction = scm.abduct({node: values[0] for node, values in data.items()}, seed=0)
    cf = abduction.counterfactual({"x": [0.0, 1.0], "w": "x"})
    assert cf["w"].tolist() == [0.0, 1.0]


# Bounds, and the range seen


@pytest.mark.filterwarnings("ignore:.*outside its bounds")
def test_out_of_bounds_is_an_error_or_is_clipped(bounded):
    scm, data = bounded
    evidence = rows(data, 30)
    ways = {
        "value": 12.0,
        "expression": "a + 8",
        "function": lambda a: a + 8,
        "shift": cg.Shift(8),
        "policy": cg.Policy(lambda a: a + 8, reads=["a"]),
        "draw": cg.Stochastic({"normal": [5, 20]}),
    }
    for way in ways.values():
        with pytest.raises(cg.DomainError, match=r"Intervention on 'a'.*upper bound 10|lower bound 0"):
            scm.counterfactual(evidence, do={"a": way}, seed=0)
        cf = scm.counterfactual(evidence, do={"a": way}, seed=0, clip=True, targets=["a"])
        assert 0 <= cf["a"].min() and cf["a"].max() == 10
    cf = scm.abduct(evidence).counterfactual({"a": "a + 8"}, clip=True, targets=["a"])
    assert torch.equal(cf["a"], (evidence["a"] + 8).clamp(0, 10))
    assert scm.sample(5, do={"c": 50}, clip=True, seed=0)["c"].tolist() == [10.0] * 5
    assert scm.do({"c": -3}, clip=True).sample(2, seed=0)["c"].tolist() == [0.0, 0.0]


def test_clipping_pixels_and_never_categories_or_nan(pictures, linear):
    scm, data = pictures
    evidence = {node: values[:2] for node, values in data.items()}
    cf = scm.counterfactual(evidence, do={"picture": "3*picture"}, seed=0, clip=True)
    torch.testing.assert_close(cf["picture"], (3 * cf.factual["picture"]).clamp(0, 1), rtol=0, atol=1e-6)
    with pytest.raises(cg.DomainError):
        scm.counterfactual(evidence, do={"kind": 2}, clip=True)
    scm, data = linear
    with pytest.raises(cg.DomainError, match="finite"):
        scm.counterfactual(rows(data, 2), do={"x": float("nan")}, clip=True)


def test_a_function_of_other_arguments_than_it_gets_is_refused(linear):
    scm, data = linear
    asked = (
        (lambda: 1, r"takes \(\) \(too many .*\), and gets the values of 'x': an argument each"),
        (lambda a, b: a, r"takes \(a, b\) \(missing a required argument: 'b'\), .* cg.Policy"),
        (cg.Policy(lambda a: a, reads=["x", "w"]), r"Policy.* takes \(a\) .* gets the values of 'x', 'w'"),
    )
    for do, told in asked:
        with pytest.raises(cg.InterventionError, match=rf"Intervention on 'x': .*{told}"):
            scm.counterfactual(rows(data, 2), do={"x": do})


def test_a_function_whose_decorator_gives_further_arguments_is_taken(linear):
    scm, data = linear

    @functools.wraps(math.pow)
    def halved(x):
        return 0.5 * x

    evidence = rows(data, 2)
    answer = scm.counterfactual(evidence, do={"x": halved})
    torch.testing.assert_close(answer["x"], 0.5 * evidence["x"])


@pytest.mark.parametrize("n", [2, 30, 100])
def test_a_function_that_mixes_rows_is_refused(linear, n):
    scm, data = linear
    evidence = rows(data, n)
    for mixing in (lambda x: x - x.mean(), lambda x: x.mean(), lambda x: (x > x.median()).double()):
        with pytest.raises(cg.InterventionError, match="'x': the function's value of a row is another"):
            scm.counterfactual(evidence, do={"x": mixing})
    amounts = torch.arange(n) / n

    def in_place(x):
        return x.add_(1)

    for each, expected in ((in_place, evidence["x"] + 1), (lambda x: x + amounts, evidence["x"] + amounts)):
        torch.testing.assert_close(scm.counterfactual(evidence, do={"x": each})["x"], expected)


@pytest.mark.parametrize("n", [5, 100])
def test_a_function_that_mixes_times_is_refused(n):
    """All rows of 1.7e9 +- 100 are within 1e-7 of each other."""
    t = 1.7e9 + 100 * np.random.default_rng(0).normal(size=n)
    variables = dict.fromkeys("ty", cg.Continuous())
    mechanisms = {"t": cg.mechanisms.Empirical(), "y": cg.mechanisms.Additive()}
    scm = cg.SCM(nx.DiGraph([("t", "y")]), variables, mechanisms).fit({"t": t, "y": t}, progress=False)
    for mixing in (lambda t: t - t.mean() + 1.7e9, lambda t: t.clamp(min=t.median())):
        with pytest.raises(cg.InterventionError, match="'t': the function's value of a row is another"):
            scm.counterfactual({"t": t, "y": t}, do={"t": mixing})
    answer = scm.counterfactual({"t": t, "y": t}, do={"t": lambda t: t.clamp(min=1.7e9)})
    torch.testing.assert_close(answer["t"], torch.tensor(t).clamp(min=1.7e9), rtol=0, atol=0)


def test_a_number_and_the_range_that_it_lies_outside_of_are_told_apart():
    """It was 1e+09, outside [1e+09, 1e+09]."""
    x = 1e9 + np.arange(10.0)
    scm = cg.SCM(
        nx.DiGraph([("x", "y")]),
        dict.fromkeys("xy", cg.Continuous()),
        dict.fromkeys("xy", cg.mechanisms.Additive()),
    )
    scm = scm.fit({"x": x, "y": x}, progress=False)
    told = r"row 0 is 1000000012, outside \[1000000000, 1000000009\], the range seen"
    with pytest.warns(cg.ExtrapolationWarning, match=told):
        scm.sample(2, do={"x": 1e9 + 12})


def test_a_range_that_ends_at_minus_0_ends_at_0():
    """It was 5, outside [-1, -0]."""
    scm = cg.SCM(
        nx.DiGraph([("x", "y")]),
        dict.fromkeys("xy", cg.Continuous()),
        {"x": cg.mechanisms.Empirical(), "y": cg.mechanisms.Additive()},
    )
    columns = {"x": np.array([-1.0, -0.0] * 5), "y": np.arange(10.0)}
    with pytest.warns(cg.ExtrapolationWarning, match=r"row 0 is 5, outside \[-1, 0\], the range seen"):
        scm.fit(columns, progress=False).sample(2, do={"x": 5.0})


def test_outside_the_range_seen_in_fitting_warns_once_with_the_row(bounded):
    scm, data = bounded
    evidence = rows(data, 30)
    high = data["a"].max()
    ways = (9.9, "9.9", lambda a: 0 * a + 9.9, cg.Stochastic({"uniform": [9.8, 9.9]}))
    for way in ways:
        with pytest.warns(
            cg.ExtrapolationWarning, match=rf"'a'.*row 0 is 9.*, {high:g}\], the range seen"
        ) as said:
            scm.counterfactual(evidence, do={"a": way}, seed=0, targets=["a"])
        assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scm.counterfactual(evidence, do={"a": [*data["a"][:30]]}, seed=0, targets=["a"])
        scm.counterfactual(evidence, do={"a": "a"}, seed=0)
    one = cg.Policy(lambda a: torch.where(torch.arange(30) == 17, 9.9, a), reads=["a"])
    with pytest.warns(cg.ExtrapolationWarning, match="row 17 is 9.9"):
        scm.counterfactual(evidence, do={"a": one}, seed=0, targets=["a"])


ASKING = """
import causalgen as cg

def mine(scm, rows):
    scm.counterfactual(rows, do={"a": 9.9}, seed=0, targets=["a"])

mine(scm, rows)
scm.sample(2, do={"b": 9.9}, seed=0)
abduction = scm.abduct({**rows, "note": 1}, seed=0)
abduction.counterfactual({"a": lambda a: 0 * a + 9.9}, targets=["a"])
scm.sample(9, do={"a": cg.Policy(lambda a: 0 * a + 9.9, reads=["a"])}, targets=["a"], seed=0)
"""


def test_warnings_are_shown_at_the_line_of_the_user_s_that_asked(bounded):
    scm, data = bounded
    given = {"scm": scm, "rows": rows(data, 3), "__name__": "user"}
    filters = list(warnings.filters)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        exec(compile(ASKING, "user.py", "exec"), given)
    assert warnings.filters == filters
    assert {each.filename for each in said} == {"user.py"}
    told = {each.lineno for each in said}
    texts = ASKING.splitlines()
    assert [texts[line - 1].split("(")[0].strip() for line in sorted(told)] == [
        "scm.counterfactual",
        "scm.sample",
        "abduction = scm.abduct",
        "abduction.counterfactual",
        "scm.sample",
    ]


def test_a_line_that_asks_again_and_again_is_warned_of_once(bounded):
    scm, _ = bounded
    lines = 'for _ in range(3):\n    scm.sample(2, do={"a": 9.9}, targets=["a"], seed=0)'
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        exec(compile(lines, "user.py", "exec"), {"scm": scm, "__name__": "user"})
    assert len(said) == 1


def test_the_range_is_saved_and_older_models_without_one_still_load(bounded, tmp_path):
    scm, data = bounded
    loaded = cg.SCM.from_pretrained(scm.save_pretrained(tmp_path / "model"))
    seen = loaded.mechanisms["b"].seen_range
    assert seen.tolist() == [data["b"].min(), data["b"].max()]
    with pytest.warns(cg.ExtrapolationWarning, match="'b'"):
        loaded.sample(2, do={"b": 9.9}, targets=["b"], seed=0)
    older = {name: each for name, each in scm.mechanisms["b"].state_dict().items() if name != "seen_range"}
    assert len(older) == len(scm.mechanisms["b"].state_dict()) - 1
    loaded.mechanisms["b"].load_state_dict(older)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded.sample(2, do={"b": 9.9}, targets=["b"], seed=0)


def test_computed_values_that_leave_their_bounds_are_told():
    scm = cg.SCM(
        nx.DiGraph([("a", "b")]),
        variables={"a": cg.Continuous(), "b": cg.Continuous(lower=0, upper=5)},
        mechanisms={
            "a": cg.mechanisms.Equation(value="u", noise={"u": {"normal": [0, 1]}}),
            "b": cg.mechanisms.Equation(value="a"),
        },
    )
    row = {"a": 1.0, "b": 1.0}
    with pytest.warns(UserWarning, match=r"'b'.*comes out as -2, outside its bounds.*\[0, 5\].*clip"):
        scm.counterfactual(row, do={"a": -2.0})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scm.counterfactual(row, do={"a": 5.0})["b"].item() == 5.0
        scm.counterfactual(row, do={"a": -2.0}, targets=["a"])
    doubled = {"b": cg.Replace(cg.mechanisms.Equation(value="2*a"))}
    for ask in (
        lambda: scm.counterfactual({"a": 4.0, "b": 4.0}, do=doubled),
        lambda: scm.sample(9, do=doubled),
    ):
        with pytest.warns(UserWarning, match="'b'.*comes out as .*outside its bounds"):
            ask()


def test_computed_values_that_are_not_finite_are_refused():
    scm = cg.SCM(
        nx.DiGraph([("a", "b"), ("b", "c")]),
        variables={node: cg.Continuous() for node in "abc"},
        mechanisms={
            "a": cg.mechanisms.Equation(value="u", noise={"u": {"normal": [0, 1]}}),
            "b": cg.mechanisms.Additive(),
            "c": cg.mechanisms.Additive(),
        },
    )
    random = np.random.default_rng(0)
    a = random.normal(size=50)
    data = {"a": a, "b": 1e100 * a, "c": random.normal(size=50)}
    scm = scm.fit(data, progress=False)
    with pytest.raises(cg.DomainError, match="Node 'b'.*row 0.*inf"):
        scm.sample(1, do={"a": 1e300}, seed=0)


# What is refused


@pytest.mark.parametrize(
    ("do", "error", "message"),
    [
        ({"x": "x +"}, cg.InterventionError, r"Intervention on 'x'"),
        ({"x": "__import__('os')"}, cg.InterventionError, r"Intervention on 'x'"),
        ({"x": "wx + 1"}, cg.UnknownNameError, r"'wx'"),
        ({"x": "y"}, cg.CycleError, r"'x'.*x -> y -> x|'x'.*y -> x -> y"),
        ({"x": "x + z"}, cg.CycleError, r"'x'"),
        ({"x": cg.Policy(lambda z: z, reads=["z"])}, cg.CycleError, r"z -> x|x -> .*z"),
        ({"x": cg.Policy(lambda v: v, reads=["v"])}, cg.UnknownNameError, r"'v'.*Known: w, x, y, z"),
        ({"x": "w", "w": "x"}, cg.CycleError, r"w -> x|x -> w"),
        ({"x": {"normal": [0, 1]}}, cg.InterventionError, r"Stochastic"),
        ({"x": dist.Normal(0.0, 1.0)}, cg.InterventionError, r"Stochastic"),
        ({"x": cg.mechanisms.Additive()}, cg.InterventionError, r"Replace"),
        ({"x": cg.Stochastic(dist.Normal(torch.zeros(3), 1.0))}, cg.ShapeError, r"'x'.*\(3,\)"),
        ({"x": cg.Stochastic(dist.Normal(1.7e9, 100.0))}, cg.InterventionError, "203 apart.*100.*float64"),
        ({"x": cg.Replace(cg.mechanisms.Additive())}, cg.InterventionError, r"'x'.*fitted"),
        (
            {"x": cg.Replace(cg.mechanisms.Equation(value="e", noise={"e": {"normal": [0, 1]}}))},
            cg.InterventionError,
            r"'x'.*leaves.*'e'.*fresh",
        ),
        ({"x": cg.Policy(lambda: [1.0, 2.0], reads=[])}, cg.DomainError, r"'x'.*1 row or 4, got 2"),
    ],
)
def test_what_does_not_fit_is_refused(linear, do, error, message):
    scm, data = linear
    with pytest.raises(error, match=message):
        scm.counterfactual(rows(data, 4), do=do, seed=0)


def test_a_misspelt_label_lists_the_labels(categories):
    scm, _ = categories
    for text in ("hgh", "not a label"):
        with pytest.raises(cg.DomainError, match="'low', 'mid', 'high'"):
            scm.do({"a": text})


def test_an_expression_cannot_read_an_image_into_a_number(pictures):
    scm, _ = pictures
    with pytest.raises(cg.InterventionError, match=r"'picture'.*\(1, 8, 8\)"):
        scm.do({"kind": "picture"})


def test_a_replacement_for_other_parents_is_refused(linear):
    scm, _ = linear
    with pytest.raises(cg.InterventionError, match="other parents"):
        scm.do({"z": cg.Replace(scm.mechanisms["y"])})


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: cg.Stochastic({"normal": [0, -1]}), cg.SpecError, "scale must be positive|above 0"),
        (lambda: cg.Stochastic({"normal": ["0", None]}), cg.SpecError, "numbers"),
        (lambda: cg.Stochastic({"nrmal": [0, 1]}), cg.UnknownNameError, "normal"),
        (lambda: cg.Stochastic({}), cg.SpecError, "one family"),
        (lambda: cg.Stochastic(3), cg.InterventionError, "a int"),
        (lambda: cg.Policy(3, reads=["x"]), cg.InterventionError, "function"),
        (lambda: cg.Policy(abs, reads="x"), cg.InterventionError, "list of nodes"),
        (lambda: cg.Policy(max, reads=["x", "x"]), cg.InterventionError, "twice"),
        (lambda: cg.Replace(3), cg.InterventionError, "mechanism"),
        (
            lambda: cg.Replace(cg.mechanisms.Additive(), noise="old"),
            cg.InterventionError,
            "'keep' or 'fresh'",
        ),
    ],
)
def test_bad_assignments_are_refused_when_they_are_made(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "assignment",
    ["2*x", cg.Shift(1), cg.Policy(lambda x: x, reads=["x"]), cg.Stochastic({"normal": [0, 1]})],
    ids=str,
)
def test_what_no_file_can_say_is_not_saved(linear, tmp_path, assignment):
    scm, _ = linear
    with pytest.raises(cg.MechanismError, match="'y': it was intervened on"):
        scm.do({"y": assignment}).save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


class Unregistered(MechanismSpec, frozen=True):
    kind: str = "unregistered"

    def make(self, variable, parents):
        return Half(self, variable, parents)


class Half(Mechanism):
    abduction = "exact"
    deterministic = True

    def sample_noise(self, n, *, generator):
        return cg.mechanisms.Noise(n)

    def generate(self, parents, noise):
        return parents["x"] / 2

    def abduct(self, value, parents, *, generator):
        return cg.mechanisms.Abducted(cg.mechanisms.Noise(len(value)))


def test_a_replacement_is_saved_where_a_file_can_say_it(linear, tmp_path):
    scm, _ = linear
    made = scm.do({"y": cg.Replace(cg.mechanisms.Equation(value="2*x"), noise="fresh")})
    loaded = cg.SCM.from_pretrained(made.save_pretrained(tmp_path / "model"))
    assert torch.equal(loaded.sample(9, seed=0)["z"], made.sample(9, seed=0)["z"])
    half = scm.do({"y": cg.Replace(Unregistered(), noise="fresh")})
    draws = half.sample(9, seed=0)
    assert torch.equal(draws["y"], draws["x"] / 2)
    with pytest.raises(cg.MechanismError, match=r"'y'.*not registered"):
        half.save_pretrained(tmp_path / "half")


@pytest.mark.parametrize(
    "assignment", ["3*a", cg.Policy(lambda a: 3 * a, reads=["a"])], ids=["text", "policy"]
)
def test_evidence_that_contradicts_an_earlier_function_is_refused(assignment):
    noise = {"u": {"normal": [0, 1]}}
    scm = cg.SCM(
        nx.DiGraph([("a", "b"), ("b", "c")]),
        {node: cg.Continuous() for node in "abc"},
        {
            "a": cg.mechanisms.Equation(value="u", noise=noise),
            "b": cg.mechanisms.Equation(value="2*a + u", noise=noise),
            "c": cg.mechanisms.Equation(value="b + u", noise=noise),
        },
    ).do({"b": assignment})
    wrong = scm.abduct({"a": 1.0, "b": 99.0, "c": 5.0})
    for ask in (lambda: wrong.noise_of("c"), lambda: wrong.counterfactual({"c": cg.Shift(0)})):
        with pytest.raises(EvidenceError, match=r"Row 0: the model says 3.0 .*earlier do.*got 99.0"):
            ask()
    right = scm.counterfactual({"a": 1.0, "b": 3.0 + 1e-9, "c": 5.0}, do={"a": 2.0})
    assert right["c"].item() == pytest.approx(8.0)


@pytest.mark.parametrize("value", [cg.Shift(1), cg.Scale(2)])
def test_names_are_no_numbers(value):
    """Twice the label "1" is no label "11"."""
    graph, coin = nx.empty_graph(["k"], create_using=nx.DiGraph), cg.mechanisms.Categorical()
    scm = cg.SCM(graph, {"k": cg.Categorical(["1", "11"])}, {"k": coin})
    scm.fit({"k": ["1", "11"] * 9}, progress=False)
    with pytest.raises(
        InterventionError, match="Intervention on 'k': .* its categories have names, such as '1'"
    ):
        scm.counterfactual({"k": ["1"]}, do={"k": value})


def test_a_contradicted_category_is_refused_beside_large_numbers():
    noise = {"u": {"normal": [0, 1e6]}}
    scm = cg.SCM(
        nx.DiGraph([("income", "taxed")]),
        {"income": cg.Continuous(), "taxed": cg.Categorical(2)},
        {
            "income": cg.mechanisms.Equation(value="u", noise=noise),
            "taxed": cg.mechanisms.Equation(value="u", noise={"u": {"bernoulli": 0.5}}),
        },
    ).do({"taxed": "where(income > 0, 1, 0)"})
    with pytest.raises(EvidenceError, match="the model says 1 .*got 0"):
        scm.counterfactual({"income": 2e6, "taxed": 0}, do={"income": cg.Shift(0)})
    assert scm.counterfactual({"income": 2e6, "taxed": 1}, do={"income": -1.0})["taxed"].item() == 0


def test_what_needs_the_natural_value_of_a_split_node_is_refused():
    normal = {"u": {"normal": [0, 1]}}
    scm = cg.SCM(
        nx.DiGraph([("x", "y")]),
        {"x": cg.Continuous(), "y": cg.Continuous()},
        {
            "x": cg.mechanisms.Equation(value="u", noise=normal),
            "y": cg.mechanisms.Equation(value="x + u", noise=normal),
        },
    ).do({"x": cg.Shift(1)})
    rows = dict(scm.sample(30, seed=0))
    for ask in (
        lambda: scm.log_prob(rows),
        lambda: scm.check(rows),
        lambda: scm.fit(rows),
        lambda: scm.abduct(rows),
        lambda: cg.evaluate(scm, rows, progress=False),
        lambda: cg.metrics.composition(scm, rows, "x", cycles=[1]),
    ):
        with pytest.raises(cg.InterventionError, match="a function of a natural value"):
            ask()
    assert cg.metrics.composition(scm, rows, "y", cycles=[1])[1].value < 1e-12  # its causes are all seen


def test_a_node_of_the_name_that_a_natural_value_takes_is_told():
    graph = nx.DiGraph([("a", "b"), ("a--natural", "b")])
    additive = dict.fromkeys(graph, cg.mechanisms.Additive())
    scm = cg.SCM(graph, {node: cg.Continuous() for node in graph}, additive)
    random = np.random.default_rng(0)
    scm.fit({node: random.normal(size=50) for node in graph}, progress=False)
    with pytest.raises(InterventionError, match="Node 'a--natural' stands in the way of .* on 'a'. Rename"):
        scm.do({"a": "2 * a"})


@pytest.mark.parametrize("root", [cg.mechanisms.Additive(), cg.mechanisms.Empirical()])
def test_rows_that_a_fit_left_out_are_rows_that_it_never_saw(root):
    """y is missing where ward is r or a exceeds 5: effects of these were told as sure, without a word."""
    a, ward = np.linspace(0.0, 10.0, 41), np.array([*"pq" * 18, *"rrrrr"])
    gaps = np.where((a > 5) | (ward == "r"), np.nan, a)
    scm = cg.SCM(
        nx.DiGraph([("a", "y"), ("ward", "y"), ("a", "z")]),
        {node: cg.Continuous() for node in "ayz"} | {"ward": cg.Categorical([*"pqr"])},
        {"a": root} | {node: cg.mechanisms.Additive() for node in "yz"},
    ).fit({"a": a, "ward": ward, "y": gaps, "z": a}, missing="drop", progress=False)
    assert scm.fit_report["y"].dropped == 20 and scm.fit_report["z"].dropped == 0
    with pytest.warns(cg.ExtrapolationWarning, match=r"'ward': row 0 is 'r', a category .* saw 'p', 'q'"):
        scm.do({"ward": "r"})
    with pytest.warns(cg.ExtrapolationWarning, match=r"'a': row 0 is 9, outside \[0, 5\]"):
        scm.do({"a": 9.0})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scm.do({"a": 4.9, "ward": "q"})


def test_children_that_saw_nothing_in_common_leave_a_range_that_says_so_in_words():
    a, ward = np.linspace(0.0, 10.0, 40), np.array([*"pq" * 20])
    y, z = np.where((ward == "p") & (a < 4), a, np.nan), np.where((ward == "q") & (a > 6), a, np.nan)
    scm = cg.SCM(
        nx.DiGraph([("a", "y"), ("ward", "y"), ("a", "z"), ("ward", "z")]),
        {node: cg.Continuous() for node in "ayz"} | {"ward": cg.Categorical([*"pq"])},
        {node: cg.mechanisms.Additive() for node in "ayz"},
    ).fit({"a": a, "ward": ward, "y": y, "z": z}, missing="drop", progress=False)
    with pytest.warns(cg.ExtrapolationWarning, match=r"'a': row 0 is 5, outside \[0, 3\.5"):
        scm.do({"a": 5.0})
    with pytest.warns(cg.ExtrapolationWarning, match="'q', which not all nodes .*: they share no category"):
        scm.do({"ward": "q"})


def test_an_equation_learns_from_no_rows():
    a = np.linspace(0.0, 10.0, 40)
    scm = cg.SCM(
        nx.DiGraph([("a", "y")]),
        {"a": cg.Continuous(), "y": cg.Continuous()},
        {"a": cg.mechanisms.Empirical(), "y": cg.mechanisms.Equation(value="2 * a")},
    ).fit({"a": a, "y": np.where(a < 4, 2 * a, np.nan)}, missing="drop", progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scm.do({"a": 9.0})


def test_a_category_that_the_nodes_behind_it_do_not_share_is_told_as_such():
    """It was said to be "a category that fitting never saw; it saw " and nothing."""
    ward, y = np.array([*"pq" * 10]), np.arange(20.0)
    scm = cg.SCM(
        nx.DiGraph([("ward", "y"), ("ward", "z")]),
        {"ward": cg.Categorical([*"pq"]), "y": cg.Continuous(), "z": cg.Continuous()},
        {node: cg.mechanisms.Additive() for node in "yz"},
    )
    gaps = {"y": np.where(ward == "p", y, np.nan), "z": np.where(ward == "q", y, np.nan)}
    scm.fit({"ward": ward} | gaps, missing="drop", progress=False)
    with pytest.warns(cg.ExtrapolationWarning, match="'p', which not all nodes .*: they share no category"):
        scm.do({"ward": "p"})


@pytest.mark.parametrize(
    ("law", "wrong", "right"),
    [
        ({"uniform": [0, 1]}, 1.01, 1.0 + 1e-9),
        ({"exponential": 2.0}, -1.0, 3.0),
        (torch.distributions.Uniform(0.0, 1.0), 1.01, 1.0),
        (torch.distributions.Normal(0.0, 1.0), None, 50.0),
    ],
)
def test_evidence_that_an_earlier_law_does_not_draw_is_refused(law, wrong, right):
    """As that of an earlier value or function is."""
    noise = {"u": {"normal": [0, 1]}}
    scm = cg.SCM(
        nx.DiGraph([("a", "b")]),
        {node: cg.Continuous() for node in "ab"},
        {
            "a": cg.mechanisms.Equation(value="u", noise=noise),
            "b": cg.mechanisms.Equation(value="a + u", noise=noise),
        },
    ).do({"a": cg.Stochastic(law)})
    assert scm.counterfactual({"a": [0.5, right], "b": 1.0}, do={"b": 0.0})["a"].tolist() == [0.5, right]
    drawn = scm.sample(50, seed=0)
    assert torch.equal(scm.counterfactual(drawn, do={"b": 0.0})["a"], drawn["a"])
    if wrong is not None:
        with pytest.raises(EvidenceError, match=f"Row 1: .*earlier do.*cannot give {wrong}"):
            scm.counterfactual({"a": [0.5, wrong], "b": 1.0}, do={"b": 0.0})
        assert scm.counterfactual({"a": wrong, "b": 1.0}, do={"a": 0.5})["b"].item() == pytest.approx(
            1.5 - wrong
        )
