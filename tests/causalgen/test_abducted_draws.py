"""Draws of abducted noise: each likelihood counts once, draws weigh the same, and fresh noise is fresh.

Every expected value is a closed form, or an integral over a grid; neither uses the package.
"""

import networkx as nx
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import causalgen as cg
from causalgen.counterfactuals.missing_evidence.particles import systematic

STANDARD = {"u": {"normal": [0, 1]}}


def equation(value, **noise):
    return cg.mechanisms.Equation(value=value, noise=noise or STANDARD)


def program_model(program, **variables):
    """z -> y: z standard normal, y by a Pyro program."""
    return cg.SCM(
        nx.DiGraph([("z", "y")]),
        variables={"z": cg.Continuous(), "y": cg.Continuous(), **variables},
        mechanisms={"z": equation("u"), "y": cg.mechanisms.Program(program=program, particles=100)},
    )


def additive_program(parents):
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    return pyro.sample("y", dist.Normal(parents["z"] + a, 0.5))


def logistic_program(parents):
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    v = pyro.sample("v", dist.Uniform(0.0, 1.0))
    return (v < torch.sigmoid(2 * parents["z"] + a - 1)).double()


def respond(parents):
    sensitivity = pyro.sample("sensitivity", dist.Gamma(4.0, 2.0))
    return pyro.sample("response", dist.Normal(sensitivity * parents["dose"], 0.5))


def dosed():
    return cg.SCM(
        nx.DiGraph([("dose", "response")]),
        variables={"dose": cg.Continuous(), "response": cg.Continuous()},
        mechanisms={
            "dose": cg.mechanisms.Equation(value="u", noise={"u": {"normal": [1, 1]}}),
            "response": cg.mechanisms.Program(program=respond, particles=200),
        },
    )


def response_given(dose, response, do):
    """E[response under do(dose) | evidence] by a grid over the sensitivity, and over the dose where None."""
    s = np.linspace(1e-4, 30, 6001)[:, None]
    d = np.linspace(-6, 8, 1401)[None] if dose is None else np.array([[dose]])
    prior = s**3 * np.exp(-2 * s) * np.exp(-0.5 * (d - 1) ** 2)
    weight = prior * np.exp(-0.5 * ((response - s * d) / 0.5) ** 2)
    return float((weight * (s * do + response - s * d)).sum() / weight.sum())


def test_evidence_on_a_program_counts_once():
    # y = z + a + e / 2, so E[z | y] = y / 2.25, and do(z = 0) takes z away.
    scm = program_model(additive_program)
    effect = scm.effect("y", do={"z": 0.0}, evidence={"y": 3.0}, n=4000, seed=0)
    assert effect.overall.under_do == pytest.approx(3 - 3 / 2.25, abs=4 * effect.standard_error)
    assert effect.standard_error < 0.05


def test_evidence_on_a_discrete_program_counts_once():
    scm = program_model(logistic_program, y=cg.Categorical(2))
    z, a = np.meshgrid(np.linspace(-6, 6, 601), np.linspace(-6, 6, 601))
    density = np.exp(-0.5 * (z**2 + a**2))
    seen, set_to = 1 / (1 + np.exp(-(2 * z + a - 1))), 1 / (1 + np.exp(-(a - 3)))
    both = np.minimum(seen, set_to)  # v below both
    truth = (density * both).sum() / (density * seen).sum()
    effect = scm.effect("y", do={"z": -1.0}, evidence={"y": 1}, statistic=lambda y: y == 1, n=4000, seed=0)
    assert effect.overall.under_do == pytest.approx(truth, abs=4 * effect.standard_error)


def test_an_unknown_parent_of_a_program_is_weighed_once():
    truth = response_given(None, 3.0, 2.0)
    effect = dosed().effect("response", do={"dose": 2.0}, evidence={"response": 3.0}, n=4000, seed=0)
    assert effect.overall.under_do == pytest.approx(truth, abs=4 * effect.standard_error)


def test_plain_means_of_draws_are_posterior_means():
    truth = response_given(1.0, 6.0, 2.0)
    cf = dosed().counterfactual({"dose": 1.0, "response": 6.0}, do={"dose": 2.0}, num_samples=400, seed=0)
    assert (cf.weights == 1 / 400).all()
    assert cf["response"].mean().item() == pytest.approx(truth, abs=0.1)


def test_far_evidence_keeps_the_posterior_mean():
    truth = response_given(1.0, 11.0, 2.0)
    cf = dosed().counterfactual({"dose": 1.0, "response": 11.0}, do={"dose": 2.0}, num_samples=200, seed=0)
    assert cf["response"].mean().item() == pytest.approx(truth, abs=0.25)


def rare_program(parents):
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    return ((a > 3.7) & (parents["z"] > -10)).double()


def test_low_effective_sample_sizes_name_the_node_and_the_remedy():
    ab = program_model(rare_program, y=cg.Categorical(2)).abduct({"z": 0.0, "y": 1}, seed=0)
    with pytest.warns(UserWarning, match=r"'y'.*effective sample size.*(svi|particles)"):
        ab.counterfactual(do={"z": 2.0})
    assert ab.effective_sample_size.item() < 50


def test_an_earlier_question_changes_no_later_answer():
    graph = nx.DiGraph([("dose", "response"), ("dose", "other")])
    scm = cg.SCM(
        graph,
        variables={node: cg.Continuous() for node in graph},
        mechanisms={
            "dose": equation("u"),
            "response": cg.mechanisms.Program(program=respond),
            "other": cg.mechanisms.Program(program=respond),
        },
    )
    row = {"dose": 1.0, "response": 3.0, "other": 2.0}
    one, two = (scm.abduct(row, num_samples=50, seed=0) for _ in range(2))
    one.counterfactual({"dose": 2.0}, targets=["other"])
    first, second = (each.contrast({"dose": 2.0}, targets=["response"]) for each in (one, two))
    assert torch.equal(first["response"], second["response"])


@pytest.mark.parametrize(
    "change",
    [
        cg.Stochastic({"normal": [0, 1]}),
        cg.Replace(cg.mechanisms.Equation(value="u", noise=STANDARD), noise="fresh"),
    ],
)
def test_fresh_noise_is_independent_of_the_natural_one(change):
    scm = cg.SCM(
        nx.DiGraph([("x", "y")]),
        variables={"x": cg.Continuous(), "y": cg.Continuous()},
        mechanisms={"x": equation("u"), "y": equation("x + u")},
    )
    effect = scm.effect("y", do={"x": change}, given={"x": [0]}, n=20_000, seed=0)
    below, above = effect.groups.values()
    # Given the natural x, the fresh one has mean 0, so the effect is minus the group's mean of x.
    mean = np.sqrt(2 / np.pi)
    assert below.value == pytest.approx(mean, abs=5 * below.standard_error)
    assert above.value == pytest.approx(-mean, abs=5 * above.standard_error)
    assert effect.individual.std() == pytest.approx(np.sqrt(2), rel=0.02)


def test_rows_that_were_sampled_by_a_seed_are_not_foretold_by_it():
    """x alone is observed: z, which bears on nothing that was, is drawn independently of its true value."""
    scm = cg.SCM(
        nx.DiGraph([("z", "w"), ("x", "w")]),
        dict.fromkeys("xzw", cg.Continuous()),
        {"x": equation("u"), "z": equation("u"), "w": equation("x + z + u")},
    )
    truth = scm.sample(2000, seed=0)
    drawn = scm.counterfactual({"x": truth["x"]}, do={"x": cg.Shift(1)}, seed=0)
    for node, shared in (("z", 0.0), ("w", 1 / 3)):  # w has x in common, a third of its variance
        correlation = np.corrcoef(truth[node], drawn[node])[0, 1]
        assert abs(correlation - shared) < 4 / 2000**0.5
    trial = {"x": cg.Stochastic({"normal": [0, 1]})}
    assigned = scm.sample(2000, do=trial, seed=0)
    again = scm.counterfactual(dict(assigned), do=trial, seed=0)
    assert abs(np.corrcoef(assigned["x"], again["x"])[0, 1]) < 4 / 2000**0.5


def test_a_missing_root_and_its_fresh_replacement_differ():
    scm = cg.SCM(
        nx.DiGraph([("x", "y"), ("w", "y")]),
        variables={node: cg.Continuous() for node in "xyw"},
        mechanisms={"x": equation("u"), "w": equation("u"), "y": equation("x + w + u")},
    )
    ab = scm.abduct({"w": 0.0}, num_samples=4000, seed=0)
    drawn = ab.counterfactual({})["x"].squeeze()
    fresh = ab.counterfactual({"x": cg.Stochastic({"normal": [0, 1]})})["x"].squeeze()
    assert abs(np.corrcoef(drawn, fresh)[0, 1]) < 0.05


def test_a_world_of_many_rows_feeds_another():
    scm = cg.SCM(
        nx.DiGraph([("x", "m"), ("x", "y"), ("m", "y")]),
        variables={node: cg.Continuous() for node in "xmy"},
        mechanisms={"x": equation("u"), "m": equation("2*x + u"), "y": equation("x + 3*m + u")},
    )
    found = scm.natural_effects("y", do={"x": 1.0}, versus={"x": 0.0}, through="m", n=70_000, seed=0)
    assert found.direct.value == pytest.approx(1.0) and found.indirect.value == pytest.approx(6.0)


def test_evidence_that_contradicts_the_model_is_refused_though_its_noise_is_not_needed():
    scm = cg.SCM(
        nx.DiGraph([("z", "y"), ("k", "w")]),
        variables={node: cg.Continuous() for node in "zykw"},
        mechanisms={
            "z": equation("u"),
            "k": equation("u"),
            "y": cg.mechanisms.Equation(value="z"),
            "w": equation("k + u", u={"uniform": [0, 1]}),
        },
    )
    row = {"z": 1.0, "y": 1.0, "k": 0.0, "w": 0.5}
    assert scm.counterfactual(row, do={"k": 2.0})["y"].item() == 1.0
    for wrong in ({"y": 5.0}, {"w": 3.0}):
        with pytest.raises(cg.EvidenceError, match=rf"{next(iter(wrong))!r}.*Row 0"):
            scm.counterfactual(row | wrong, do={"k": 2.0}, targets=["k"])


def test_rows_of_contradictions_are_numbered_as_in_the_evidence():
    scm = cg.SCM(
        nx.DiGraph([("z", "y")]),
        variables={"z": cg.Continuous(), "y": cg.Continuous()},
        mechanisms={"z": equation("u"), "y": cg.mechanisms.Equation(value="z")},
    )
    with pytest.raises(cg.EvidenceError, match="'y'.*Row 3"):
        scm.counterfactual({"z": [1.0, np.nan, 3.0, 4.0], "y": [1.0, np.nan, 3.0, 5.0]}, do={"z": 0.0})


def test_a_counterfactual_may_be_asked_about_again():
    scm = cg.SCM(
        nx.DiGraph([("z", "y"), ("y", "w")]),
        variables={node: cg.Continuous() for node in "zyw"},
        mechanisms={"z": equation("u"), "y": cg.mechanisms.Equation(value="z"), "w": equation("y + u")},
    )
    there = scm.counterfactual({"z": 1.0, "y": 1.0, "w": 1.5}, do={"y": 5.0})
    back = scm.counterfactual(dict(there), do={"y": 1.0})
    assert back["w"].item() == 1.5
    with pytest.raises(cg.EvidenceError, match="'y'"):
        scm.counterfactual(dict(there), do={"w": 0.0})


def test_evidence_against_an_earlier_intervention_is_refused():
    scm = cg.SCM(
        nx.DiGraph([("x", "y")]),
        variables={"x": cg.Continuous(), "y": cg.Continuous()},
        mechanisms={"x": equation("u"), "y": equation("x + u")},
    ).do({"x": 1.0})
    assert scm.counterfactual({"x": 1.0, "y": 2.0}, do={"y": 0.0})["x"].item() == 1.0
    with pytest.raises(cg.EvidenceError, match="'x'"):
        scm.counterfactual({"x": 5.0, "y": 2.0}, do={"y": 0.0})


def test_systematic_resampling_draws_each_as_often_as_its_weight_says():
    """Each number floor(S w) or ceil(S w) times, the first and the last too (Kitagawa 1996)."""
    generator = torch.Generator().manual_seed(0)
    for samples in (1, 7, 100):
        weights = torch.rand(5, 40, generator=generator, dtype=torch.float64) ** 4
        weights[:, :5] = torch.eye(5, dtype=torch.float64)  # all on one
        weights[0, 5] = weights[4, 6] = 0.0
        uniform = torch.rand(40, generator=generator, dtype=torch.float64)
        chosen = systematic(3.0 * weights, uniform, samples)  # of any total
        expected = samples * weights / weights.sum(0)
        counts = torch.stack([(chosen == number).sum(0) for number in range(5)]).double()
        assert bool(((counts - expected).abs() < 1).all())
        assert bool((counts[weights == 0] == 0).all())
