"""Inference of a program's noise by a guide and by Markov chains, against closed forms and prior draws."""

import networkx as nx
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.testing import assert_close

import causalgen as cg
from causalgen.testing import check_mechanism
from graphs.errors import EvidenceError, MechanismError, SpecError
from graphs.variables import Categorical, Continuous, Integer
from mechanisms.program.mechanism import Program
from mechanisms.registry import dump_mechanism, parse_mechanism
from mechanisms.rows import distinct_rows, rank_among_equals
from tests.mechanisms.fit import generator, normal

PARENTS = {"a": Continuous()}
X = torch.tensor([-1.0, 2.0, 6.0]).double()
ZERO = {"a": torch.zeros(3).double()}
COPIES = 200
FAST = {"kind": "svi", "steps": 80, "particles": 4, "learning_rate": 0.1}
SHORT = {"kind": "nuts", "warmup": 30, "draws": 100, "chains": 1, "max_tree_depth": 4}


def hidden_cause(parents):
    z = pyro.sample("z", dist.Normal(parents["a"], 1.0))
    return pyro.sample("x", dist.Normal(z, 0.5))


def random_gain(parents):
    gain = pyro.sample("gain", dist.Gamma(2.0, 2.0))
    return gain * parents["a"] + pyro.sample("u", dist.Laplace(0.0, 1.0))


def two_causes(parents):
    pair = pyro.sample("pair", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    return pyro.sample("x", dist.Normal(pair.sum(-1) + parents["a"], 0.5))


def positive_rest(parents):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    return z + pyro.sample("u", dist.Exponential(1.0)) + parents["a"]


def bound(program, inference, variable=None):
    return Program(program=program, inference=inference).bind(variable or Continuous(), PARENTS)


def many(values):
    return values.repeat(COPIES)


def moments(abducted, leaf):
    """Weighted mean and deviation of a leaf for each of the three rows."""
    noise = abducted.noise[leaf].reshape(COPIES, 3, -1)
    weight = torch.zeros(COPIES * 3).double() if abducted.log_weight is None else abducted.log_weight
    weight = weight.reshape(COPIES, 3, 1).softmax(0)
    mean = (weight * noise).sum(0)
    return mean, (weight * (noise - mean).square()).sum(0).sqrt()


@pytest.mark.parametrize("guide", ["multivariate", "normal"])
def test_svi_meets_the_closed_form(guide):
    """z ~ N(0, 1), x ~ N(z, .5): z given x is N(x / 1.25, .2). No prior draw is near x = 6."""
    mechanism = bound(hidden_cause, {**FAST, "guide": guide})
    rows = {"a": many(ZERO["a"])}
    abducted = mechanism.abduct(many(X), rows, generator=generator())
    mean, deviation = moments(abducted, "z")
    assert_close(mean[:, 0], X / 1.25, rtol=0, atol=0.1)
    assert_close(deviation[:, 0], torch.full((3,), 0.2**0.5).double(), rtol=0, atol=0.07)
    # Weights are estimates of p(x).
    evidence = torch.distributions.Normal(0.0, 1.25**0.5).log_prob(X).double()
    assert_close(
        abducted.log_weight.reshape(COPIES, 3).logsumexp(0) - torch.tensor(COPIES).log(),
        evidence,
        rtol=0,
        atol=0.02,
    )
    effective = abducted.diagnostics["effective_sample_size"]
    assert effective.shape == (3 * COPIES,) and 1 <= effective.min() and effective.max() <= 100
    assert effective.reshape(COPIES, 3).mean(0).min() > 60
    assert_close(mechanism.generate(rows, abducted.noise), many(X), rtol=0, atol=1e-12)


def test_importance_draws_until_they_are_effective():
    """No prior draw is near x = 6; draws of the fitted law are, and both kinds meet the closed form."""
    rows = {"a": many(ZERO["a"])}
    for inference, enough in (({"kind": "importance"}, 100), (FAST, 60)):
        abducted = bound(hidden_cause, inference).abduct(many(X), rows, generator=generator())
        assert abducted.diagnostics["effective_sample_size"].reshape(COPIES, 3).mean(0).min() >= enough
        mean, deviation = moments(abducted, "z")
        assert_close(mean[:, 0], X / 1.25, rtol=0, atol=0.1)
        assert_close(deviation[:, 0], torch.full((3,), 0.2**0.5).double(), rtol=0, atol=0.07)


def test_a_guide_with_correlations_fits_correlated_noise():
    """Given x the pair is normal: mean x / 2.25 each, variance 1 - 1 / 2.25, covariance -1 / 2.25."""
    rows = {"a": many(ZERO["a"])}
    abducted = bound(two_causes, {**FAST, "steps": 150}).abduct(many(X), rows, generator=generator())
    mean, deviation = moments(abducted, "pair")
    assert_close(mean, (X / 2.25)[:, None].expand(3, 2), rtol=0, atol=0.15)
    assert_close(deviation, torch.full((3, 2), (1 - 1 / 2.25) ** 0.5).double(), rtol=0, atol=0.12)
    assert abducted.diagnostics["effective_sample_size"].min() > 50


def test_a_bad_guide_is_made_up_for_by_its_weights():
    """Against the posterior by quadrature: the gain g ~ Gamma(2, 2), and x - g ~ Laplace."""
    rows = {"a": many(ZERO["a"]) + 1}
    inference = {"kind": "svi", "steps": 0, "draws": 400}
    rough = bound(random_gain, inference).abduct(many(X), rows, generator=generator())
    gain = torch.linspace(1e-6, 60, 600_001).double()
    density = dist.Gamma(2.0, 2.0).log_prob(gain) - (X[:, None] - gain).abs()
    weights, noise = density.softmax(1), 2 * gain
    mean = (weights * noise).sum(1)
    deviation = (weights * (noise - mean[:, None]).square()).sum(1).sqrt()
    for found, expected in zip(moments(rough, "gain"), (mean, deviation), strict=True):
        assert_close(found[:, 0], expected, rtol=0, atol=0.3)
    # The noise of a gamma site has rate 1.
    assert_close(rough.noise["gain"] / 2 + rough.noise["u"], many(X), rtol=0, atol=1e-12)


def test_values_that_only_some_noise_gives():
    abducted = bound(positive_rest, FAST).abduct(X, ZERO, generator=generator())
    assert bool((abducted.noise["u"] > 0).all())
    assert_close(abducted.noise["z"] + abducted.noise["u"], X, rtol=0, atol=1e-12)


def test_nuts_meets_the_closed_form():
    mechanism = bound(hidden_cause, SHORT)
    rows = {"a": many(ZERO["a"])}
    abducted = mechanism.abduct(many(X), rows, generator=generator())
    mean, deviation = moments(abducted, "z")
    assert_close(mean[:, 0], X / 1.25, rtol=0, atol=0.25)
    assert_close(deviation[:, 0], torch.full((3,), 0.2**0.5).double(), rtol=0, atol=0.15)
    assert abducted.log_weight is None
    assert sorted(abducted.diagnostics) == ["acceptance", "divergences", "effective_sample_size", "r_hat"]
    assert abducted.diagnostics["r_hat"].max() < 1.05 and bool(
        (abducted.diagnostics["divergences"] == 0).all()
    )
    assert_close(mechanism.generate(rows, abducted.noise), many(X), rtol=0, atol=1e-12)
    # Equal rows share a chain and take different draws of it.
    assert len(abducted.noise["z"][::3].unique()) > 60


def test_nuts_warns_of_chains_that_disagree():
    hasty = {"kind": "nuts", "warmup": 1, "draws": 4, "chains": 2, "max_tree_depth": 1}
    with pytest.warns(UserWarning, match=r"NUTS: R-hat is above 1.05 in \d of 3 rows.*raise warmup"):
        bound(hidden_cause, hasty).abduct(X, ZERO, generator=generator())


@pytest.mark.slow
@pytest.mark.parametrize("program", [hidden_cause, random_gain, two_causes])
def test_nuts_agrees_with_prior_draws(program):
    rows = {"a": many(ZERO["a"]) + 1}
    inferences = ({"kind": "nuts", "draws": 400}, {"kind": "importance"})
    chained, weighed = (
        bound(program, each).abduct(many(X[:2].repeat(2)[:3]), rows, generator=generator())
        for each in inferences
    )
    leaf = next(iter(chained.noise))
    for one, other in zip(moments(chained, leaf), moments(weighed, leaf), strict=True):
        assert_close(one, other, rtol=0, atol=0.25)


@pytest.mark.parametrize("inference", [FAST, SHORT], ids=["svi", "nuts"])
def test_the_generator_alone_decides(inference):
    mechanism = bound(
        hidden_cause, {**inference, "warmup": 3, "draws": 4} if inference is SHORT else inference
    )
    with pytest.warns(UserWarning) if inference is SHORT else torch.no_grad():
        one, again, other = (
            mechanism.abduct(X, ZERO, generator=generator(seed)).noise["z"] for seed in (0, 0, 1)
        )
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert not one.requires_grad and len(pyro.get_param_store()) == 0


@pytest.mark.slow
@pytest.mark.parametrize("program", [hidden_cause, random_gain])
def test_laws(program):
    mechanism = Program(program=program, particles=200, inference=FAST).bind(Continuous(), PARENTS)
    rows = {"a": normal(40, seed=1)}
    value = mechanism.generate(rows, mechanism.sample_noise(40, generator=generator(5)))
    check_mechanism(mechanism, value, rows)


def test_counterfactuals_of_a_model():
    scm = cg.SCM(
        nx.DiGraph([("a", "x")]),
        variables={"a": cg.Continuous(), "x": cg.Continuous()},
        mechanisms={
            "a": cg.mechanisms.Equation(value="u", noise={"u": {"normal": [0, 1]}}),
            "x": cg.mechanisms.Program(program=hidden_cause, inference=FAST),
        },
    )
    answer = scm.counterfactual({"a": 0.0, "x": 6.0}, do={"a": 1.0}, num_samples=20, seed=0)
    assert_close(answer["x"], torch.full((20, 1), 7.0).double())
    assert set(answer.provenance["x"]) == {"posterior"}


def test_options_are_written_and_read():
    spec = Program(program="respond", inference={"kind": "svi", "steps": 50})
    assert dump_mechanism(spec) == {
        "kind": "program",
        "program": "respond",
        "inference": {"kind": "svi", "steps": 50},
    }
    assert parse_mechanism(dump_mechanism(spec)) == spec
    assert dump_mechanism(Program(program="respond", inference={"kind": "importance"})) == {
        "kind": "program",
        "program": "respond",
    }


@pytest.mark.parametrize(
    ("inference", "message"),
    [
        ({"kind": "vi"}, "inference: unknown kind 'vi'. Did you mean 'svi'. Known: importance, nuts, svi"),
        ({"kind": "svi", "guide": "flow"}, "'multivariate' or 'normal'"),
        ({"kind": "svi", "draws": 1}, "greater than or equal to 2"),
        ({"kind": "svi", "learning_rate": 0}, "greater than 0"),
        ({"kind": "nuts", "draws": 3}, "greater than or equal to 4"),
        ({"kind": "nuts", "target_accept": 1}, "less than 1"),
        ({"kind": "nuts", "steps": 3}, "unknown option"),
        ({"kind": "importance", "particles": 3}, "unknown option"),
    ],
)
def test_bad_options(inference, message):
    with pytest.raises(SpecError, match=message):
        Program(program=hidden_cause, inference=inference)


def a_switch(parents):
    on = pyro.sample("on", dist.Bernoulli(0.5))
    return on * parents["a"] + pyro.sample("u", dist.Normal(0.0, 1.0))


def test_programs_without_gradients_are_refused():
    with pytest.raises(MechanismError, match="Site 'on' of the program is discrete.*kind: importance"):
        bound(a_switch, FAST)
    for variable in (Categorical(2), Integer()):
        with pytest.raises(MechanismError, match="inference 'nuts' needs a density"):
            bound(lambda p: (pyro.sample("u", dist.Normal(0.0, 1.0)) > 0).long(), {"kind": "nuts"}, variable)


def test_evidence_that_no_noise_gives():
    def above(parents):
        z = pyro.sample("z", dist.Uniform(0.0, 1.0))
        return z + pyro.sample("u", dist.Exponential(1.0)) + parents["a"]

    with pytest.raises(
        EvidenceError, match=r"Row 0: none of 256 prior draws of the program's sites gives -1.0"
    ):
        bound(above, FAST).abduct(X, ZERO, generator=generator())


def test_where_a_value_has_one_noise_nothing_is_inferred():
    mechanism = bound(lambda p: p["a"] + pyro.sample("u", dist.Normal(0.0, 1.0)), FAST)
    assert mechanism.abduction == "exact"
    assert_close(mechanism.abduct(X, ZERO, generator=generator()).noise["u"], X)


def test_equal_rows():
    first, inverse = distinct_rows([torch.tensor([3, 1, 3, 3, 1]), torch.tensor([[0.0], [0], [1], [0], [0]])])
    assert sorted(first.tolist()) == [0, 1, 2]
    assert inverse[0] == inverse[3] != inverse[2] and inverse[1] == inverse[4]
    assert rank_among_equals(inverse).tolist() == [0, 0, 0, 1, 1]
