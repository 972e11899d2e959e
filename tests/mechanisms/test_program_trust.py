"""A program's answers against quadrature and counting: where it bends, has atoms, is far from its prior."""

import networkx as nx
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.testing import assert_close

import causalgen as cg
from causalgen.testing import check_mechanism
from graphs.errors import CannotAbductError, EvidenceError
from graphs.variables import Categorical, Continuous, Image, Integer
from mechanisms.program.mechanism import Program
from mechanisms.program.plan import probe_parents
from tests.mechanisms.fit import generator, normal

REAL = {"a": Continuous()}


def bound(program, variable=None, parents=REAL, **options):
    return Program(program=program, **options).bind(variable or Continuous(), parents)


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def standard(name):
    return pyro.sample(name, dist.Normal(0.0, 1.0))


def folded_in_one_category(parents):
    v = standard("v")
    return torch.where(parents["k"] == 0, v.abs(), v)


def folded_above(parents):
    v = standard("v")
    return torch.where(parents["a"] > 6, v.abs(), v)


def folded_by_a_cause(parents):
    cause = pyro.sample("cause", dist.Bernoulli(0.02))
    v = standard("v")
    return torch.where(cause == 1, v.abs(), v)


def test_probes_meet_every_combination_and_both_signs():
    parents = {"k": Categorical(3), "d": Integer(0, 4), "a": Continuous(), "b": Continuous(-1, 1)}
    parents |= {"v": Continuous(shape=(2,)), "x": Image(1, 2, 2), "n": Integer(), "p": Continuous(lower=2)}
    _, probes = probe_parents(parents)
    assert len({(int(k), int(d)) for k, d in zip(probes["k"], probes["d"], strict=True)}) == 15
    assert {0.0, -0.5, 20.0} <= set(probes["a"].tolist())
    assert probes["b"].min() == -1 and probes["b"].max() == 1 and probes["p"].min() == 2
    assert bool((probes["n"] == probes["n"].round()).all())
    assert probes["v"].shape[1:] == (2,) and 0 <= probes["x"].min() and probes["x"].max() == 1
    rows, many = probe_parents({f"k{number}": Categorical(9) for number in range(5)})
    assert len(many["k0"]) == rows <= 512 and len(many["k4"].unique()) == 9
    _, again = probe_parents(parents)
    assert all(torch.equal(again[name], each) for name, each in probes.items())
    assert probe_parents({"x": Image(3, 512, 512)})[0] == 8


@pytest.mark.parametrize(
    ("program", "parents"),
    [
        (folded_in_one_category, {"k": Categorical(2)}),
        (folded_in_one_category, {"k": Integer(0, 50)}),
        (folded_above, REAL),
        (folded_above, {"a": Continuous(lower=5, upper=7)}),
        (folded_by_a_cause, {}),
        (lambda p: pyro.sample("v", dist.Normal(2.5, 1.0)).abs(), {}),
        (lambda p: pyro.sample("v", dist.Normal(50.0, 1.0)).abs(), {}),
        (lambda p: p["a"] + torch.relu(pyro.sample("v", dist.Normal(9.0, 1.0))), REAL),
        (lambda p: standard("v").clamp(max=30.0), {}),
    ],
)
def test_a_value_that_bends_somewhere_is_refused(program, parents):
    mechanism = bound(program, parents=parents)
    assert mechanism.abduction == "none" and not mechanism.deterministic
    rows = {
        name: torch.full((2,), 1 if isinstance(each, Categorical) else 6.5) for name, each in parents.items()
    }
    assert mechanism.log_prob(numbers(1.0, 1.0), rows) is None
    with pytest.raises(CannotAbductError, match=r"not affine in its last site.*sample additive noise last"):
        mechanism.abduct(numbers(1.0, 1.0), rows, generator=generator())


@pytest.mark.parametrize("located", [0.0, 2.5])
def test_a_bend_that_no_probe_met_is_seen_in_its_row(located):
    def folded(parents):
        v = pyro.sample("v", dist.Normal(located, 1.0))
        return torch.where((parents["a"] - 3.75).abs() < 0.01, v.abs(), v)

    mechanism = bound(folded)
    rows = {"a": numbers(1.0, 3.75)}
    for question in (
        lambda: mechanism.abduct(numbers(1.0, 1.0), rows, generator=generator()),
        lambda: mechanism.log_prob(numbers(1.0, 1.0), rows),
    ):
        with pytest.raises(CannotAbductError, match="Row 1: .*not affine"):
            question()


def test_what_is_straight_on_its_support_stays_exact():
    def shifted(parents):
        return parents["a"] + pyro.sample("u", dist.Exponential(1.0)).abs()

    for program in (shifted, lambda p: p["a"].exp() - 3 * pyro.sample("u", dist.Uniform(0.0, 1.0))):
        mechanism = bound(program)
        assert (mechanism.abduction, mechanism.deterministic) == ("exact", True)
        rows = {"a": normal(40, seed=1)}
        value = mechanism.generate(rows, mechanism.sample_noise(40, generator=generator(2)))
        check_mechanism(mechanism, value, rows)
    # Parents that the program cannot take do not hinder it.
    picky = bound(lambda p: p["a"].log() + standard("u"), parents={"a": Continuous(lower=0)})
    assert picky.abduction == "exact"

    def failing(parents):
        if bool((parents["a"] < 0).any()):
            raise ValueError("negative")
        return parents["a"] + standard("u")

    assert bound(failing).abduction == "exact"


@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e9])
def test_the_unit_of_the_data_changes_no_answer(unit):
    def program(parents):
        gain = pyro.sample("gain", dist.Gamma(2.0, 2.0))
        return gain * parents["a"] + unit * standard("u")

    n = 200
    mechanism, rows = bound(program, particles=200), {"a": unit * normal(n, seed=1)}
    x = mechanism.generate(rows, mechanism.sample_noise(n, generator=generator(2)))
    found = mechanism.abduct(x, rows, generator=generator(3))
    assert_close(mechanism.generate(rows, found.noise) / unit, x / unit)
    first = bound(lambda p: pyro.sample("gain", dist.Gamma(2.0, 2.0)) * p["a"] + standard("u"), particles=200)
    ones = {"a": normal(n, seed=1)}
    expected = first.log_prob(x / unit, ones)
    assert_close(
        mechanism.log_prob(x, rows) + torch.tensor(unit).double().log(), expected, rtol=1e-5, atol=1e-5
    )
    coin = bound(lambda p: p["a"] + unit * pyro.sample("k", dist.Bernoulli(0.5)))
    with pytest.raises(EvidenceError):
        coin.check(numbers(0.5 * unit), {"a": numbers(0.0)})
    coin.check(numbers(unit), {"a": numbers(0.0)})


def test_where_the_last_site_does_not_matter_its_noise_keeps_its_prior():
    mechanism = bound(lambda p: p["a"] * standard("u"))
    assert (mechanism.abduction, mechanism.deterministic, mechanism.restricts) == ("posterior", False, True)
    n = 4000
    rows = {"a": torch.arange(n).double() % 2}
    noise = mechanism.sample_noise(n, generator=generator(1))
    x = mechanism.generate(rows, noise)
    found = mechanism.abduct(x, rows, generator=generator(2))
    assert found.log_weight is None
    assert_close(found.noise["u"][1::2], noise["u"][1::2])
    assert abs(found.noise["u"][::2].mean()) < 0.1 and abs(found.noise["u"][::2].std() - 1) < 0.1
    assert mechanism.atomic(x, rows).tolist() == [True, False] * (n // 2)
    assert bool((mechanism.log_prob(x, rows)[::2] == 0).all())
    with pytest.raises(EvidenceError, match="Row 0: the program gives 1.0 for no noise"):
        mechanism.check(numbers(1.0, 1.0), {"a": numbers(0.0, 1.0)})


def gate(parents):
    opened = pyro.sample("opened", dist.Bernoulli(0.25))
    return parents["a"] + opened * standard("u")


def test_atoms_come_before_densities():
    """x = a + gate * u. At x = a the gate is shut: a density there is nothing beside P = 3/4."""
    mechanism = bound(gate)
    n = 400
    rows = {"a": torch.arange(n).double() % 2}
    x = torch.zeros(n).double()
    found = mechanism.abduct(x, rows, generator=generator(1))
    assert bool((found.noise["opened"][::2] == 0).all()) and bool((found.noise["opened"][1::2] == 1).all())
    assert abs(found.noise["u"][::2].std() - 1) < 0.2
    assert_close(found.noise["u"][1::2], -torch.ones(n // 2).double())
    assert mechanism.atomic(x, rows).tolist() == [True, False] * (n // 2)
    log_prob = mechanism.log_prob(x, rows)
    assert_close(log_prob[0].exp().item(), 0.75, rtol=0, atol=0.05)
    expected = 0.25 * dist.Normal(0.0, 1.0).log_prob(torch.tensor(1.0)).exp().item()
    assert_close(log_prob[1].exp().item(), expected, rtol=0, atol=0.02)
    assert_close(found.log_weight[:2].exp(), log_prob[:2].exp(), rtol=0.2, atol=0)

    def hidden_gate(parents):
        return (standard("z") > 0) * standard("u")

    guided = bound(hidden_gate, parents={}, inference={"kind": "svi", "steps": 5})
    with pytest.raises(CannotAbductError, match="Row 0: .*it has a probability.*kind: importance"):
        guided.abduct(numbers(0.0), {}, generator=generator())


def respond(parents):
    sensitivity = pyro.sample("sensitivity", dist.Gamma(4.0, 2.0))
    return pyro.sample("response", dist.Normal(sensitivity * parents["dose"], 0.5))


def posterior_sensitivity(x, dose):
    """Mean and deviation of the sensitivity, and log p(x | dose), by quadrature."""
    grid = torch.linspace(1e-6, 80, 800_001).double()
    density = dist.Gamma(4.0, 2.0).log_prob(grid) + dist.Normal(grid * dose, 0.5).log_prob(torch.tensor(x))
    weights = density.softmax(0)
    mean = (weights * grid).sum()
    deviation = (weights * (grid - mean).square()).sum().sqrt()
    return mean, deviation, density.logsumexp(0) + (grid[1] - grid[0]).log()


@pytest.mark.parametrize("response", [3.0, 11.0, 40.0, -1.0])
def test_evidence_far_from_the_prior(response):
    """The plain mean of draws is that of the posterior, and so is their spread; log weights are log p(x)."""
    mechanism = bound(respond, parents={"dose": Continuous()})
    n = 200
    dose = torch.ones(n).double()
    found = mechanism.abduct(torch.full((n,), response).double(), {"dose": dose}, generator=generator())
    mean, deviation, evidence = posterior_sensitivity(response, 1.0)
    sensitivity = found.noise["sensitivity"] / 2
    assert_close(sensitivity.mean(), mean, rtol=0, atol=4 * deviation.item() / n**0.5)
    assert_close(sensitivity.std(), deviation, rtol=0.25, atol=0)
    assert_close(found.log_weight.logsumexp(0) - torch.tensor(n).log(), evidence, rtol=0, atol=0.05)
    assert found.diagnostics["effective_sample_size"].min() > 100
    assert_close(mechanism.generate({"dose": dose}, found.noise), torch.full((n,), response).double())


def test_both_halves_of_a_posterior_far_from_the_prior():
    """x = z**2 + e, x = 16: z is near 4 or -4, with equal probability."""
    mechanism = bound(lambda p: standard("z") ** 2 + 0.5 * standard("e"), parents={})
    n = 200
    found = mechanism.abduct(torch.full((n,), 16.0).double(), {}, generator=generator())
    z = found.noise["z"]
    assert abs((z > 0).double().mean() - 0.5) < 0.15
    grid = torch.linspace(0, 8, 80_001).double()
    weights = (-grid.square() / 2 - (16 - grid.square()).square() / 0.5).softmax(0)
    assert_close(z.abs().mean(), (weights * grid).sum(), rtol=0, atol=0.03)


def test_counterfactual_of_a_response_far_from_the_prior():
    scm = cg.SCM(
        nx.DiGraph([("dose", "response")]),
        variables={"dose": cg.Continuous(), "response": cg.Continuous()},
        mechanisms={
            "dose": cg.mechanisms.Equation(value="u", noise={"u": {"normal": [1, 1]}}),
            "response": cg.mechanisms.Program(program=respond),
        },
    )
    answer = scm.counterfactual({"dose": 1.0, "response": 11.0}, do={"dose": 2.0}, num_samples=300, seed=0)
    mean, deviation, _ = posterior_sensitivity(11.0, 1.0)
    assert_close(answer["response"].mean(), 11 + mean, rtol=0, atol=4 * deviation.item() / 300**0.5)


def selected(parents):
    return ((standard("u") + standard("v")) / 2**0.5 > parents["a"]).long()


def test_a_rare_selection():
    """P(selected) is 1.3e-3 at a = 3: a thousand draws may well miss it."""
    mechanism = bound(selected, Categorical(2), particles=100)
    n = 20
    rows = {"a": torch.full((n,), 3.0).double()}
    found = mechanism.abduct(torch.ones(n).long(), rows, generator=generator())
    assert bool((mechanism.generate(rows, found.noise) == 1).all())
    expected = 1 - dist.Normal(0.0, 1.0).cdf(torch.tensor(3.0).double())
    assert_close(found.log_weight.exp().mean(), expected, rtol=0.15, atol=0)
    assert found.diagnostics["effective_sample_size"].min() >= 50
    with pytest.raises(EvidenceError, match="Row 0: none of 131072 prior draws"):
        mechanism.check(torch.ones(n).long(), {"a": rows["a"] + 30})


@pytest.mark.parametrize(
    ("program", "variable", "restricts"),
    [
        (lambda p: p["a"] + standard("u"), Continuous(), False),
        (lambda p: standard("u"), Continuous(), False),
        (lambda p: p["a"] + pyro.sample("u", dist.Exponential(1.0)), Continuous(), True),
        (lambda p: pyro.sample("u", dist.Uniform(0.0, 1.0)), Continuous(), True),
        (lambda p: p["a"] * standard("u"), Continuous(), True),
        (lambda p: p["a"] + pyro.sample("u", dist.Bernoulli(0.5)), Continuous(), True),
        (lambda p: pyro.sample("u", dist.Poisson(2.0)) + p["a"].round(), Integer(), True),
        (selected, Categorical(2), True),
    ],
)
def test_check_refuses_what_abduct_refuses(program, variable, restricts):
    mechanism = bound(program, variable)
    assert mechanism.restricts is restricts
    rows = {"a": normal(20, seed=1)}
    x = mechanism.generate(rows, mechanism.sample_noise(20, generator=generator(2)))
    mechanism.check(x, rows)
    if restricts and variable != Categorical(2) and mechanism.deterministic:
        with pytest.raises(EvidenceError, match="Row 0"):
            mechanism.check(x - 1000, rows)


def test_equal_answers_for_equal_seeds():
    mechanism = bound(respond, parents={"dose": Continuous()})
    x, rows = numbers(3.0, 11.0), {"dose": numbers(1.0, 1.0)}
    one, other = (mechanism.abduct(x, rows, generator=generator(4)) for _ in range(2))
    for name, leaf in one.noise.items():
        assert torch.equal(leaf, other.noise[name])
    assert torch.equal(one.log_weight, other.log_weight)


def test_atoms_that_few_draws_meet():
    """The gate is shut in one of 44 draws, and x = 0 says that it was."""

    def rarely_shut(parents):
        shut = standard("z") > 2
        return torch.where(shut, 0.0, 1.0) * standard("u")

    mechanism = bound(rarely_shut, parents={})
    found = mechanism.abduct(torch.zeros(30).double(), {}, generator=generator())
    assert bool((found.noise["z"] > 2).all())
    expected = 1 - dist.Normal(0.0, 1.0).cdf(torch.tensor(2.0).double())
    assert_close(found.log_weight.exp().mean(), expected, rtol=0.1, atol=0)
