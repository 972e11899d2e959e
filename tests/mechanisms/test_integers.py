"""Mechanisms of integer nodes, and integers as parents."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.testing import assert_close

from causalgen.checking.statistics import sample_distance
from causalgen.testing import check_mechanism
from graphs.errors import CannotAbductError, DomainError, EvidenceError, MechanismError
from graphs.variables import Categorical, Continuous, Image, Integer
from mechanisms.base import Noise
from mechanisms.conditioning import Conditioning
from mechanisms.equation.mechanism import Equation
from mechanisms.intervened import Constant
from mechanisms.program.mechanism import Program
from mechanisms.registry import default_mechanism
from mechanisms.tables.additive import Additive
from mechanisms.tables.empirical import Empirical
from mechanisms.tables.flow import Flow
from tests.mechanisms.fit import codes, fit, generator, normal

N = 300
PARENTS = {"a": Continuous(), "n": Integer(0)}
ROWS = {"a": normal(N, seed=1), "n": codes(5, N, 2).double()}
COUNTS = (2 + ROWS["a"] + ROWS["n"] + normal(N, seed=3)).round()


def some(rows, n=60):
    return {name: value[:n] for name, value in rows.items()}


def equation(value, noise=None, variable=None, **options):
    spec = Equation(value=value, noise=noise or {}, **options)
    return spec.bind(variable or Integer(), PARENTS)


def test_the_default_is_a_flow():
    assert default_mechanism(Integer()) == Flow()
    mechanism = Flow().bind(Integer(), {})
    assert (mechanism.abduction, mechanism.deterministic) == ("posterior", False)


@pytest.mark.parametrize(
    ("lower", "upper", "root"), [(None, None, False), (0, None, True), (None, 6, False), (0, 6, False)]
)
def test_laws_of_a_flow(lower, upper, root):
    parents, rows = ({}, {}) if root else (PARENTS, ROWS)
    value = COUNTS.clamp(lower, upper) if (lower, upper) != (None, None) else COUNTS
    mechanism = fit(Flow(bins=4, hidden=(8,)).bind(Integer(lower, upper), parents), value, rows, steps=20)
    check_mechanism(mechanism, value[:60], some(rows))
    with torch.no_grad():
        again = mechanism.generate(rows, mechanism.abduct(value, rows, generator=generator()).noise)
    assert torch.equal(again, value)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.3), (1e6, 1e3), (1e12, 1e4), (1e15, 1e7)])
@pytest.mark.parametrize("bounded", [False, True])
def test_values_come_back_exactly_at_any_scale(mean, std, bounded):
    value = (mean + std * normal(N, seed=3)).round()
    lower = int(mean - 10 * std) - 1 if bounded else None
    mechanism = fit(Flow().bind(Integer(lower), {}), value, steps=3)
    far = torch.tensor([mean + 8 * std, mean - 8 * std, mean + 1000 * std]).double().round()
    every = torch.cat([value, far])
    with torch.no_grad():
        noise = mechanism.abduct(every, {}, generator=generator()).noise
        assert torch.equal(mechanism.generate({}, noise), every)
        assert bool(mechanism.log_prob(every, {}).isfinite().all())


def test_probabilities_of_a_bounded_flow_sum_to_one():
    variable = Integer(0, 6)
    mechanism = fit(Flow().bind(variable, PARENTS), COUNTS.clamp(0, 6), ROWS, steps=5)
    support = mechanism.support()
    assert_close(support, torch.arange(7).double())
    first = {name: rows[:1].expand(7) for name, rows in ROWS.items()}
    with torch.no_grad():
        assert_close(mechanism.log_prob(support, first).exp().sum().item(), 1.0)
    assert Flow().bind(Integer(0), {}).support() is None


def test_the_posterior_is_the_prior_noise_that_gives_the_value():
    mechanism = fit(Flow().bind(Integer(0), {}), COUNTS.clamp(min=0), steps=20)
    with torch.no_grad():
        prior = mechanism.sample_noise(20_000, generator=generator())
        generated = mechanism.generate({}, prior)
        common = generated.mode().values
        kept = prior["normal"][generated == common]
        drawn = mechanism.abduct(common.expand(4000), {}, generator=generator(1)).noise["normal"]
    assert sample_distance(kept, drawn) < 2.2 * (1 / len(kept) + 1 / 4000) ** 0.5


def test_a_value_beyond_what_numbers_can_hold_is_refused():
    mechanism = fit(Flow(transform="affine").bind(Integer(), {}), COUNTS, steps=0)
    with torch.no_grad():
        mechanism.mean.fill_(2.0**52)  # data units between neighbours of u's size are no longer whole
        mechanism.std.fill_(1e-3)
    with pytest.raises(
        EvidenceError, match=r"Row 0: no noise that its numbers can hold makes the flow give 5.0"
    ):
        mechanism.abduct(torch.tensor([5.0]).double(), {}, generator=generator())


def test_a_grid_of_its_own():
    assert Flow(dequantize=1).bind(Integer(), {}).grid is not None
    with pytest.raises(MechanismError, match="'dequantize' of a flow is 0.5, but a variable that is integer"):
        Flow(dequantize=0.5).bind(Integer(), {})


@pytest.mark.parametrize(
    ("value", "noise", "abduction"),
    [
        ("2*n + floor(a)", {}, "exact"),
        ("n + u", {"u": {"poisson": [3]}}, "exact"),
        ("n - 2*u", {"u": {"geometric": [0.4]}}, "exact"),
        ("n + u + v", {"u": {"binomial": [4, 0.3]}, "v": {"bernoulli": [0.5]}}, "posterior"),
        ("maximum(n - u, 0)", {"u": {"binomial": [3, 0.5]}}, "posterior"),
        ("floor(3 * exp(a / 4) + u)", {"u": {"uniform": [0, 1]}}, "none"),
    ],
)
def test_laws_of_an_equation(value, noise, abduction):
    mechanism = equation(value, noise)
    assert mechanism.abduction == abduction
    prior = mechanism.sample_noise(N, generator=generator())
    generated = mechanism.generate(ROWS, prior)
    check_mechanism(mechanism, generated[:60], some(ROWS))


def test_density_of_an_additive_count():
    mechanism = equation("n + u", {"u": {"poisson": [3]}})
    x = ROWS["n"] + 2
    assert_close(
        mechanism.log_prob(x, ROWS), torch.distributions.Poisson(3.0).log_prob(torch.full((N,), 2.0)).double()
    )
    assert bool((mechanism.log_prob(ROWS["n"] - 1, ROWS) == -torch.inf).all())
    assert mechanism.linear_form(["a"], {"n": ROWS["n"]}, N) is None


def test_whole_numbers_must_agree_however_large():
    mechanism = equation("n + 1000000000")
    x = ROWS["n"] + 10**9
    mechanism.abduct(x, ROWS, generator=generator())
    with pytest.raises(EvidenceError, match="Row 0: the value is"):
        mechanism.abduct(x + 1, ROWS, generator=generator())  # within the tolerance of a real number


def test_equations_that_are_not_whole():
    with pytest.raises(
        MechanismError, match=r"no whole numbers, since its noise u ~ normal\(0, 1\) is continuous"
    ):
        equation("2*n + u", {"u": {"normal": [0, 1]}})
    with pytest.raises(DomainError, match=r"expected a whole number. Write round\(...\) or floor\(...\)"):
        equation("n / 2").generate(ROWS, Noise(N))
    with pytest.raises(DomainError, match="expected a whole number"):
        equation("n * 0 + 1e200").generate(ROWS, Noise(N))
    hidden = equation("round(a + u)", {"u": {"normal": [0, 1]}})
    with pytest.raises(CannotAbductError, match="add whole noise to it .poisson.*use mechanism 'flow'"):
        hidden.abduct(COUNTS, ROWS, generator=generator())


def test_empirical_and_constant():
    mechanism = fit(Empirical().bind(Integer(), {}), COUNTS)
    check_mechanism(mechanism, COUNTS[:60], {})
    expected = (COUNTS == 3).double().mean().log()
    assert_close(mechanism.log_prob(torch.tensor([3.0, 99.0]).double(), {})[0], expected)
    assert mechanism.log_prob(torch.tensor([99.0]).double(), {}).item() == -torch.inf
    assert Constant(value=3).bind(Integer(), {}).generate({}, Noise(2)).tolist() == [3.0, 3.0]
    with pytest.raises(DomainError, match="Constant value: row 0 is 2.5"):
        Constant(value=2.5).bind(Integer(), {})


def arrivals(parents):
    return parents["n"] + pyro.sample("u", dist.Poisson(2.0))


def busy_days(parents):
    rate = pyro.sample("rate", dist.LogNormal(0.0, 0.5))
    return 3 * parents["n"] - 2 * pyro.sample("u", dist.Poisson(rate))


def at_most_two(parents):
    return pyro.sample("u", dist.Binomial(3, torch.tensor(0.5))).clamp(max=2) + 0 * parents["n"]


@pytest.mark.parametrize(
    ("program", "how", "abduction"),
    [
        (arrivals, "solve", "exact"),
        (busy_days, "solve", "posterior"),
        (at_most_two, "match", "posterior"),
    ],
)
def test_laws_of_a_program(program, how, abduction):
    mechanism = Program(program=program, particles=100).bind(Integer(), PARENTS)
    assert (mechanism.plan.how, mechanism.abduction) == (how, abduction)
    value = mechanism.generate(ROWS, mechanism.sample_noise(N, generator=generator()))
    assert value.dtype == torch.float64 and torch.equal(value, value.round())
    check_mechanism(mechanism, value[:60], some(ROWS))


def test_density_and_domain_of_a_program():
    mechanism = Program(program=arrivals).bind(Integer(0), PARENTS)
    x = ROWS["n"] + 2
    expected = torch.distributions.Poisson(2.0).log_prob(torch.full((N,), 2.0))
    assert_close(mechanism.log_prob(x, ROWS), expected.double())
    with pytest.raises(EvidenceError, match="Row 0: the program gives .* for no noise"):
        mechanism.abduct(ROWS["n"] - 1, ROWS, generator=generator())
    half = Program(program=lambda p: p["n"] + 0.5 * pyro.sample("u", dist.Poisson(2.0)))
    bad = half.bind(Integer(0), PARENTS)
    with pytest.raises(DomainError, match="the program gives .*5, expected a whole number"):
        bad.generate(ROWS, bad.sample_noise(N, generator=generator()))


def test_mechanisms_that_do_not_fit():
    with pytest.raises(MechanismError, match="needs a continuous variable, got integer"):
        Additive().bind(Integer(), {})
    with pytest.raises(MechanismError, match="got image"):
        Flow().bind(Image(1, 8, 8), {})


def test_as_a_parent_it_is_standardised():
    conditioning = Conditioning({"n": Integer(0), "k": Categorical(2)})
    n = torch.tensor([2.0, 4.0, 6.0]).double()
    rows = {"n": n, "k": torch.tensor([0, 1, 1])}
    conditioning.prepare(rows)
    assert_close(conditioning(rows)[:, 0], (n - 4) / n.std(correction=0))
