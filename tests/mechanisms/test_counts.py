"""Counts by regression: against numpy's own steps, Pyro's law, simulation, and the noise's own law."""

import math

import networkx as nx
import numpy as np
import pytest
import torch
from torch.testing import assert_close

import causalgen as cg
from causalgen.testing import check_mechanism
from graphs import variables
from graphs.errors import CausalgenError, DomainError, EvidenceError, MechanismError
from graphs.variables import Continuous, Integer
from mechanisms.base import Noise
from mechanisms.tables.counts import Counts
from tests.mechanisms.fit import codes, fit, generator, normal

N = 3000
PARENTS = {"age": Continuous(unit="years"), "ward": variables.Categorical(3)}
ROWS = {"age": 40 + 10 * normal(N, seed=4), "ward": codes(3, N, 2)}
LOG_MEAN = 0.4 + 0.05 * (ROWS["age"] - 40) - 0.5 * (ROWS["ward"] == 2)
RATE = torch._standard_gamma(torch.full_like(LOG_MEAN, 2.0), generator=generator(1)) / 2  # pyright: ignore[reportPrivateImportUsage]
X = {
    "poisson": torch.poisson(LOG_MEAN.exp(), generator=generator()),
    "negative_binomial": torch.poisson(RATE * LOG_MEAN.exp(), generator=generator()),
}
LAWS = ["poisson", "negative_binomial"]
YEARS = 0.1 + normal(N, seed=12).square()


def fitted(law, **options):
    return fit(Counts(law=law, **options).bind(Integer(lower=0), PARENTS), X[law], ROWS)


def with_law(law, mean, shape=1.0):
    """A root of this mean."""
    mechanism = Counts(law=law).bind(Integer(lower=0), {})
    mechanism.intercept.fill_(math.log(mean))
    mechanism.shape.fill_(shape)
    mechanism.mark_fitted()
    return mechanism


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("parents", [{}, PARENTS])
def test_laws(law, parents):
    rows = {name: ROWS[name] for name in parents}
    mechanism = fit(Counts(law=law).bind(Integer(lower=0), parents), X[law], rows)
    check_mechanism(mechanism, X[law][:60], {name: value[:60] for name, value in rows.items()})


@pytest.mark.parametrize("smoothing", [0.0, 1.0, 50.0])
@pytest.mark.parametrize("exposure", [None, "at_risk"])
def test_poisson_regression_is_that_of_newton_steps(smoothing, exposure):
    years = torch.ones(N).double() if exposure is None else YEARS
    age, x = ROWS["age"].numpy(), torch.poisson(years * LOG_MEAN.exp(), generator=generator(8))
    parents = {"age": Continuous()} | ({} if exposure is None else {exposure: Continuous(lower=0)})
    spec = Counts(law="poisson", smoothing=smoothing, exposure=exposure)
    mechanism = fit(spec.bind(Integer(lower=0), parents), x, {"age": ROWS["age"], "at_risk": years})
    x = x.numpy()
    columns = np.column_stack([np.ones(N), (age - age.mean()) / age.std()])
    start = found = np.array([np.log((x.mean() + 0.5 / N) / years.mean().item()), 0.0])
    for _ in range(30):
        mean = years.numpy() * np.exp(columns @ found)
        slope = columns.T @ (x - mean) - smoothing * (found - start)
        found = found + np.linalg.solve(columns.T * mean @ columns + smoothing * np.eye(2), slope)
    learned = torch.stack([mechanism.intercept, mechanism.slope[0]])
    assert_close(learned, torch.from_numpy(found), atol=1e-5, rtol=0)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("mean", [1e-2, 1.0, 1e3, 1e6, 1e10])
def test_the_optimum_is_reached_whatever_the_size_of_counts(law, mean):
    """No coordinate is a twentieth of its standard error away from there, by finite differences."""
    age = ROWS["age"]
    rate = RATE if law == "negative_binomial" else 1.0
    x = torch.poisson(rate * mean * (0.03 * (age - 40)).exp(), generator=generator(7))
    mechanism = fit(Counts(law=law).bind(Integer(lower=0), {"age": Continuous()}), x, {"age": age})
    start = (x.mean() + 0.5 / N).log()

    def likelihood():
        size = mechanism.slope.square().sum() + (mechanism.intercept - start).square()
        return float(mechanism.log_prob(x, {"age": age}).sum() - size / 2)

    for name in ["intercept", "slope"] + ["shape"] * (law == "negative_binomial" and 1 <= mean <= 1e6):
        buffer = getattr(mechanism, name)
        found, best = buffer.clone(), likelihood()
        told = 2 * mean / (2 + mean) if law == "negative_binomial" else min(mean, 1e6)  # by a row, of log m
        size = 1e-3 * (float(found) if name == "shape" else 1 / math.sqrt(1 + told))
        around = []
        for side in (-1, 1):
            buffer.copy_(found + side * size)
            around.append(likelihood())
        buffer.copy_(found)
        slope, bend = (around[1] - around[0]) / (2 * size), (2 * best - sum(around)) / size**2
        assert bend > 0 and abs(slope) / math.sqrt(bend) < 0.05, name


def test_negative_binomial_regression_finds_the_truth():
    mechanism = fitted("negative_binomial")
    assert float(mechanism.shape) == pytest.approx(2, rel=0.15)
    per_year = float(mechanism.slope[0] / mechanism.conditioning.std[0])
    assert per_year == pytest.approx(0.05, abs=0.006)
    assert float(mechanism.slope[3] - mechanism.slope[1]) == pytest.approx(-0.5, abs=0.12)
    best = mechanism.log_prob(X["negative_binomial"], ROWS).mean()
    for name in ("intercept", "shape"):  # the penalty moves the optimum by less than that
        for factor in (0.97, 1.03):
            other = fitted("negative_binomial")
            getattr(other, name).mul_(factor)
            assert other.log_prob(X["negative_binomial"], ROWS).mean() < best


def test_rows_of_a_poisson_variable_leave_no_spread():
    mechanism = fit(Counts().bind(Integer(lower=0), PARENTS), X["poisson"], ROWS)
    plain = fitted("poisson")
    assert float(mechanism.shape) > 20
    gain = mechanism.log_prob(X["poisson"], ROWS) - plain.log_prob(X["poisson"], ROWS)
    assert abs(float(gain.mean())) < 2 / N


@pytest.mark.parametrize("law", LAWS)
def test_log_prob_is_pyros(law):
    mechanism = fitted(law)
    assert_close(mechanism.log_prob(X[law], ROWS), mechanism.distribution(ROWS, N).log_prob(X[law]))


@pytest.mark.parametrize("mean", [1e-3, 0.7, 40.0])
@pytest.mark.parametrize(
    ("law", "shape"), [("poisson", 1.0), ("negative_binomial", 0.5), ("negative_binomial", 8.0)]
)
def test_draws_have_the_law_of_log_prob(law, shape, mean):
    mechanism, n = with_law(law, mean, shape), 40_000
    drawn = mechanism.generate({}, mechanism.sample_noise(n, generator=generator(3)))
    counts = torch.bincount(drawn.long()).double()
    expected = n * mechanism.log_prob(torch.arange(len(counts)).double(), {}).exp()
    usual = expected > 5
    chi = ((counts - expected).square() / expected)[usual].sum()
    freedom = int(usual.sum())
    assert float(chi) < freedom + 4 * math.sqrt(2 * freedom)


@pytest.mark.parametrize(("law", "shape"), [("poisson", 1.0), ("negative_binomial", 0.5)])
@pytest.mark.parametrize("mean", [0.5, 30.0, 1e8])
def test_noise_of_own_draws_has_its_law_and_gives_them_back(law, shape, mean):
    mechanism, n = with_law(law, mean, shape), 20_000
    drawn = mechanism.generate({}, mechanism.sample_noise(n, generator=generator(5)))
    noise = mechanism.abduct(drawn, {}, generator=generator(6)).noise
    assert torch.equal(mechanism.generate({}, noise), drawn)
    places = (noise["uniform"] % 1).sort().values - (torch.arange(n) + 0.5) / n
    assert float(places.abs().max()) < 1.63 / math.sqrt(n)  # Kolmogorov, Smirnov at 1 %
    if law == "negative_binomial":
        assert float(noise["rate"].mean()) == pytest.approx(1, abs=4 / math.sqrt(n * shape))
        assert float(noise["rate"].var()) == pytest.approx(1 / shape, rel=0.1)
        together = torch.corrcoef(torch.stack([noise["rate"], noise["uniform"] % 1]))[0, 1]
        assert abs(float(together)) < 4 / math.sqrt(n)


def test_the_most_unlikely_counts_are_kept_or_refused():
    mechanism = with_law("poisson", 2.0)
    value = torch.tensor([0.0, 60.0, 150.0])
    noise = mechanism.abduct(value.double(), {}, generator=generator()).noise
    assert torch.equal(mechanism.generate({}, noise), value.double())
    with pytest.raises(EvidenceError, match="Row 1: a count of 300 where 2 is expected is too improbable"):
        mechanism.abduct(torch.tensor([1.0, 300.0]).double(), {}, generator=generator())
    prone = with_law("negative_binomial", 2.0, 3.0)
    noise = prone.abduct(torch.tensor([300.0]).double(), {}, generator=generator()).noise
    assert prone.generate({}, noise).item() == 300
    told = r"a count of 100,000 where 0\.5 is expected is too .* Check this row\.$"
    with pytest.raises(EvidenceError, match=told):
        with_law("negative_binomial", 0.5, 3.0).abduct(
            torch.tensor([1e5]).double(), {}, generator=generator()
        )


@pytest.mark.parametrize("law", LAWS)
def test_no_count_falls_where_causes_raise_the_mean(law):
    mechanism = fitted(law)
    noise = mechanism.abduct(X[law], ROWS, generator=generator()).noise
    older = mechanism.generate({**ROWS, "age": ROWS["age"] + 5}, noise)
    assert bool((older >= X[law]).all())
    # on average as the means: those given the counts, exactly so for Poisson
    change = math.exp(5 * float(mechanism.slope[0] / mechanism.conditioning.std[0]))
    assert float(older.mean() / X[law].mean()) == pytest.approx(change, rel=0.03)


def test_counterfactuals_average_to_the_posterior_mean():
    """By rejection of numpy's draws from the prior: those whose count is the one that was seen."""
    mechanism = with_law("negative_binomial", 3.0, 2.0)
    random = np.random.default_rng(0)
    rate = random.gamma(2, 0.5, 400_000)
    pairs = random.random(400_000)
    kept = mechanism.generate({}, _noise(pairs, rate)).numpy() == 7
    mechanism.intercept.fill_(math.log(6.0))
    expected = mechanism.generate({}, _noise(pairs[kept], rate[kept])).mean().item()
    mechanism.intercept.fill_(math.log(3.0))
    noise = mechanism.abduct(torch.full((20_000,), 7.0).double(), {}, generator=generator()).noise
    mechanism.intercept.fill_(math.log(6.0))
    assert mechanism.generate({}, noise).mean().item() == pytest.approx(expected, rel=0.02)


def _noise(uniform, rate):
    uniform = torch.from_numpy(np.where(uniform < 0.5, uniform, uniform - 1))
    return Noise(len(rate), {"uniform": uniform, "rate": torch.from_numpy(rate)})


def test_a_category_without_a_count_stays_finite():
    x = torch.where(ROWS["ward"] == 1, 0.0, X["poisson"])
    mechanism = fit(Counts().bind(Integer(lower=0), PARENTS), x, ROWS)
    assert bool(mechanism.log_prob(x, ROWS).isfinite().all())
    assert float(mechanism.log_mean(ROWS, N).detach()[ROWS["ward"] == 1].exp().max()) < 0.05
    nothing = fit(Counts().bind(Integer(lower=0), {}), torch.zeros(50).double())
    assert float(nothing.log_mean({}, 1).exp()) < 0.05


@pytest.mark.parametrize("law", LAWS)
def test_the_mean_is_in_proportion_to_the_exposure(law):
    """Of which the law is the same as without one where all rows have the same."""
    parents, mean = {**PARENTS, "at_risk": Continuous(lower=0)}, YEARS * LOG_MEAN.exp()
    x = torch.poisson(mean * (RATE if law == "negative_binomial" else 1), generator=generator(9))
    spec, rows = Counts(law=law, exposure="at_risk"), {**ROWS, "at_risk": YEARS}
    mechanism = fit(spec.bind(Integer(lower=0), parents), x, rows)
    check_mechanism(mechanism, x[:60], {name: value[:60] for name, value in rows.items()})
    per_year = float(mechanism.slope[0] / mechanism.conditioning.std[0])
    assert per_year == pytest.approx(0.05, abs=0.006)
    double = mechanism.log_mean({**rows, "at_risk": 2 * YEARS}, N)
    assert_close(double, mechanism.log_mean(rows, N) + math.log(2))
    longer = mechanism.generate(
        {**rows, "at_risk": 2 * YEARS}, mechanism.abduct(x, rows, generator=generator()).noise
    )
    assert bool((longer >= x).all()) and float(longer.mean() / x.mean()) == pytest.approx(2, rel=0.05)
    alike = {**ROWS, "at_risk": torch.full((N,), 7.0).double()}
    same, plain = fit(spec.bind(Integer(lower=0), parents), X[law], alike), fitted(law)
    assert_close(same.log_prob(X[law], alike), plain.log_prob(X[law], ROWS), atol=1e-4, rtol=0)


def test_refusals():
    for exposure, told in (("ages", "Did you mean 'age'"), ("ward", "expected a parent of one number")):
        with pytest.raises(CausalgenError, match=told):
            Counts(exposure=exposure).bind(Integer(lower=0), PARENTS)
    at_risk = Counts(exposure="age").bind(Integer(lower=0), PARENTS)
    with pytest.raises(DomainError, match="Row 1: exposure 'age' is 0, expected a number above 0"):
        fit(at_risk, X["poisson"], {**ROWS, "age": ROWS["age"] * (torch.arange(N) != 1)})
    for variable in (Integer(), Integer(lower=1), Integer(lower=0, upper=9), Continuous(lower=0)):
        with pytest.raises(MechanismError, match="needs an integer variable with lower 0 and no upper, got"):
            Counts().bind(variable, {})
    with pytest.raises(MechanismError, match="is an image"):
        Counts().bind(Integer(lower=0), {"scan": variables.Image(1, 8, 8)})
    far = {"age": torch.tensor([40.0, 4e4]).double(), "ward": torch.tensor([0, 0])}
    with pytest.raises(DomainError, match="Row 1: its parents lead to a mean count of exp"):
        fitted("poisson").log_prob(torch.zeros(2).double(), far)


def test_a_model_with_counts_answers_and_is_saved(tmp_path):
    scm = cg.SCM(
        nx.DiGraph([("age", "visits"), ("ward", "visits"), ("visits", "cost")]),
        {**PARENTS, "visits": Integer(lower=0), "cost": Continuous()},
        {"age": cg.mechanisms.Additive(), "visits": cg.mechanisms.Counts(), "cost": cg.mechanisms.Additive()},
    )
    cost = 100 * X["negative_binomial"] + 10 * normal(N, seed=9)
    rows = {"age": ROWS["age"], "ward": ROWS["ward"], "visits": X["negative_binomial"], "cost": cost}
    scm.fit(rows, seed=0, progress=False)
    assert scm.check(rows, seed=0).ok
    found = scm.effect("visits", do={"age": 50}, versus={"age": 40}, n=20_000, seed=0, progress=False)
    mean = float((LOG_MEAN - 0.05 * (ROWS["age"] - 40)).exp().mean())
    assert found.value == pytest.approx(mean * (math.exp(0.5) - 1), rel=0.15)
    few = {name: each[:5] for name, each in rows.items()}
    cf = scm.counterfactual(few, do={"age": cg.Shift(10)}, seed=0)
    assert bool((cf["visits"] >= few["visits"]).all()) and cf.provenance["visits"][0] == "posterior"
    scm.save_pretrained(tmp_path / "model")
    again = cg.SCM.from_pretrained(tmp_path / "model")
    assert torch.equal(again.sample(30, seed=0)["visits"], scm.sample(30, seed=0)["visits"])
