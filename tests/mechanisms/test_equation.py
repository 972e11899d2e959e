import networkx as nx
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

import causalgen as cg
from causalgen.testing import check_mechanism
from graphs.errors import CannotAbductError, DomainError, EvidenceError, MechanismError, SpecError
from graphs.expressions import ARITIES, NUMPY, parse_expression
from graphs.variables import Categorical, Continuous, Image
from mechanisms.base import Noise
from mechanisms.equation.inversion import TORCH
from mechanisms.equation.mechanism import Equation
from mechanisms.registry import dump_mechanism, kinds, parse_mechanism
from tests.mechanisms.fit import codes, generator, normal

N = 60
PARENTS = {"a": Continuous(), "b": Continuous(lower=0.5, upper=3), "k": Categorical(3), "t": Categorical(2)}
ROWS = {"a": normal(N, seed=1), "b": 0.5 + 2.5 * torch.rand(N, generator=generator(2)).double()}
ROWS |= {"k": codes(3, N, 3), "t": codes(2, N, 4)}
NORMAL = {"u": {"normal": [0, 1]}}

EXACT = {
    "affine": ("2*a - 0.5*b + u", NORMAL),
    "affine with scale": ("a + b * (1 + k) * u - 3", {"u": {"laplace": [1, 2]}}),
    "affine, falling": ("(a - u) / b", {"u": {"gamma": [2, 1]}}),
    "affine by cases": ("u if t else a - 2*u", {"u": {"logistic": [0, 1]}}),
    "root": ("3 + 2*u", {"u": {"uniform": [-1, 1]}}),
    "exponential": ("exp(a / 2 + 0.3*u)", NORMAL),
    "odd power": ("a - (u + 3)**3 / 9", {"u": {"exponential": [1]}}),
    "sigmoid": ("b * sigmoid(u + a)", {"u": {"gumbel": [0, 1]}}),
    "tanh": ("tanh(u / 4)", {"u": {"student_t": [8, 0, 1]}}),
    "logarithm": ("a * 2 + log(u)", {"u": {"log_normal": [0, 1]}}),
    "square root": ("sqrt(u) - k", {"u": {"beta": [2, 3]}}),
    "twice": ("u + b * u**3 / 9 + a", NORMAL),
    "twice, falling": ("a - exp(u) - b * u", {"u": {"normal": [0.5, 1]}}),
    "even power of what is positive": ("b * u**2 + a", {"u": {"gamma": [3, 1]}}),
    "larger": ("maximum(u, 2*u - 1) + a", {"u": {"cauchy": [0, 0.01]}}),
    "half normal": ("a + u", {"u": {"half_normal": [2]}}),
    "bernoulli shift": ("a + 2*u", {"u": {"bernoulli": 0.3}}),
    "poisson": ("a + 2 * u", {"u": {"poisson": [4]}}),
    "poisson, slope by row": ("a + b * u", {"u": {"poisson": [4]}}),
    "poisson, not affine": ("exp(u / 9) + a", {"u": {"poisson": [2]}}),
    "no noise": ("2*a - b * k + sin(a)", {}),
    "constant": ("4", {}),
}
POSTERIOR = {
    "gate": ("a + t * u", NORMAL),
    "coin": ("a if u else b", {"u": {"bernoulli": [0.4]}}),
    "hidden coin": ("a if u and t else b", {"u": {"bernoulli": [0.4]}}),
    "two coins": ("a + u * v", {"u": {"bernoulli": [0.4]}, "v": {"bernoulli": [0.7]}}),
    "sum of dice": ("u + v", {"u": {"categorical": [0.2, 0.3, 0.5]}, "v": {"binomial": [3, 0.5]}}),
}
CATEGORIES = {
    "exclusive or": ("(t + u) % 2", {"u": {"bernoulli": [0.25]}}, 2),
    "next category": ("(k + u) % 3", {"u": {"categorical": [0.5, 0.3, 0.2]}}, 3),
    "without noise": ("2 - k", {}, 3),
    "any of them": ("t or u and v", {"u": {"bernoulli": [0.5]}, "v": {"bernoulli": [0.5]}}, 2),
}
NONE = {
    "two noises": ("a + u + v", {"u": {"normal": [0, 1]}, "v": {"gamma": [1, 1]}}),
    "wave": ("sin(u) + a", NORMAL),
    "even power": ("u**2", NORMAL),
    "censored": ("maximum(u, 0)", NORMAL),
    "discrete and continuous": ("a + u * v", {"u": {"normal": [0, 1]}, "v": {"bernoulli": [0.5]}}),
}


def bound(value, noise=None, variable=None, parents=PARENTS, **options):
    return Equation(value=value, noise=noise or {}, **options).bind(variable or Continuous(), parents)


def generated(mechanism, seed=5):
    return mechanism.generate(ROWS, mechanism.sample_noise(N, generator=generator(seed)))


def abducted(mechanism, value, rows=None, seed=6):
    return mechanism.abduct(value, ROWS if rows is None else rows, generator=generator(seed)).noise


@pytest.mark.parametrize(("value", "noise"), EXACT.values(), ids=EXACT.keys())
def test_laws_where_the_noise_is_determined(value, noise):
    mechanism = bound(value, noise)
    assert (mechanism.abduction, mechanism.deterministic) == ("exact", True)
    check_mechanism(mechanism, generated(mechanism), ROWS)


@pytest.mark.parametrize(("value", "noise"), POSTERIOR.values(), ids=POSTERIOR.keys())
def test_laws_where_the_noise_is_drawn(value, noise):
    mechanism = bound(value, noise)
    assert (mechanism.abduction, mechanism.deterministic) == ("posterior", False)
    check_mechanism(mechanism, generated(mechanism), ROWS)


@pytest.mark.parametrize(("value", "noise", "size"), CATEGORIES.values(), ids=CATEGORIES.keys())
def test_laws_of_a_categorical_node(value, noise, size):
    mechanism = bound(value, noise, Categorical(size))
    assert mechanism.abduction != "none"
    check_mechanism(mechanism, generated(mechanism), ROWS)


@pytest.mark.parametrize(("value", "noise"), NONE.values(), ids=NONE.keys())
def test_laws_where_the_noise_stays_unknown(value, noise):
    mechanism = bound(value, noise)
    assert mechanism.abduction == "none" and mechanism.log_prob(generated(mechanism), ROWS) is None
    check_mechanism(mechanism, generated(mechanism), ROWS)


def test_refusal_says_why_and_what_to_do():
    two, wave = (bound(*NONE[name]) for name in ("two noises", "wave"))
    with pytest.raises(
        CannotAbductError, match=r"2 noises, u, v, .*nodes of their own.* or intervene on this node"
    ):
        abducted(two, generated(two))
    with pytest.raises(
        CannotAbductError, match="'u' in a form that is neither affine nor known to be monotone"
    ):
        abducted(wave, generated(wave))


def test_affine_noise_is_the_residual():
    mechanism = bound("2*a - 0.5*b + u", NORMAL)
    x = normal(N, seed=8)
    assert_close(abducted(mechanism, x)["u"], x - (2 * ROWS["a"] - 0.5 * ROWS["b"]), rtol=0, atol=1e-12)
    expected = torch.distributions.Normal(2 * ROWS["a"] - 0.5 * ROWS["b"], 1.0).log_prob(x)
    assert_close(mechanism.log_prob(x, ROWS), expected)
    assert_close(mechanism.distribution(ROWS, N).log_prob(x), expected)


def test_density_by_formula_is_torchs():
    mechanism = bound("exp(a / 2 + 0.3*u)", NORMAL)
    x = generated(mechanism)
    assert_close(mechanism.log_prob(x, ROWS), torch.distributions.LogNormal(ROWS["a"] / 2, 0.3).log_prob(x))
    assert bool((mechanism.log_prob(-x, ROWS) == -torch.inf).all())


def test_probability_of_discrete_noise_is_not_scaled():
    mechanism = bound("a + b * u", {"u": {"poisson": [4]}})
    noise = mechanism.sample_noise(N, generator=generator(7))
    x = mechanism.generate(ROWS, noise)
    assert torch.equal(abducted(mechanism, x)["u"], noise["u"])
    assert_close(mechanism.log_prob(x, ROWS), torch.distributions.Poisson(4.0).log_prob(noise["u"]))


def test_density_by_search_is_that_of_the_formula():
    twice = bound("exp(u) / 3 + exp(u) * 2 / 3", NORMAL, parents={})
    once = bound("exp(u)", NORMAL, parents={})
    x = torch.linspace(0.01, 30, 50).double()
    assert_close(twice.log_prob(x, {}), once.log_prob(x, {}), rtol=1e-9, atol=1e-9)


def test_search_finds_the_nearest_number():
    mechanism = bound("u + u**3", {"u": {"normal": [0, 1e6]}}, parents={})
    u = torch.tensor([-1e30, -1e6, -1.0, -1e-9, 0.0, 1e-9, 0.5, 1e6, 1e30]).double()
    x = u + u**3
    assert_close(abducted(mechanism, x, {})["u"], u, rtol=1e-12, atol=1e-18)


@pytest.mark.parametrize(
    ("value", "derivative"),
    [
        ("a + log(u + 5) + u", lambda u: 1 / (u + 5) + 1),  # no value below -5
        ("a - log(5 - u) + u", lambda u: 1 / (5 - u) + 1),  # no value above 5
        ("a - atanh(u / 6) - u", lambda u: 6 / (36 - u**2) + 1),  # neither below -6 nor above 6
    ],
)
def test_search_where_the_equation_has_values_on_an_interval(value, derivative):
    mechanism = bound(value, NORMAL)
    u = torch.linspace(-4.9, 4.9, N).double()
    x = mechanism.generate(ROWS, Noise(N, {"u": u}))
    assert_close(abducted(mechanism, x)["u"], u, rtol=1e-9, atol=1e-9)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(u) - derivative(u).log()
    assert_close(mechanism.log_prob(x, ROWS), expected)


def test_the_branch_that_is_not_taken_leaves_the_density_alone():
    """Where the exponential of the other branch overflows, the density was nan."""
    mechanism = bound("exp(u) if a > 0 else u", {"u": {"normal": [0, 1000]}})
    rows = {**ROWS, "a": torch.where(torch.arange(N) % 2 == 0, -1.0, 1.0).double()}
    x = torch.where(rows["a"] > 0, 3.0, torch.linspace(-2000, 2000, N).double())
    normal_law = torch.distributions.Normal(torch.zeros(N).double(), 1000.0)
    expected = torch.where(
        rows["a"] > 0, normal_law.log_prob(x.abs().log()) - x.abs().log(), normal_law.log_prob(x)
    )
    assert_close(mechanism.log_prob(x, rows), expected)


def test_a_density_in_inference_mode():
    mechanism = bound("a + u + exp(u)", NORMAL)
    x = generated(mechanism)
    with torch.inference_mode():
        within = mechanism.log_prob(x, ROWS)
    assert torch.equal(within.clone(), mechanism.log_prob(x, ROWS))


@pytest.mark.parametrize("value", ["a + b * u", "a + b * sigmoid(u)", "a + b * u + u**3"])
def test_gradients_of_the_density(value):
    mechanism = bound(value, NORMAL)
    x = generated(mechanism).clone()
    assert not mechanism.log_prob(x, ROWS).requires_grad
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(mechanism.log_prob(x, ROWS).sum(), x)
    step = 1e-6
    with torch.no_grad():
        difference = (mechanism.log_prob(x + step, ROWS) - mechanism.log_prob(x - step, ROWS)) / (2 * step)
    assert_close(gradient, difference, rtol=1e-4, atol=1e-4)


def test_a_gate_that_is_closed_leaves_the_prior():
    mechanism = bound("a + t * u", NORMAL)
    rows = {name: value[:1].expand(4000) for name, value in ROWS.items()}
    rows["t"] = torch.arange(4000) % 2
    x = mechanism.generate(rows, mechanism.sample_noise(4000, generator=generator(1)))
    noise = abducted(mechanism, x, rows)["u"]
    assert_close(noise[1::2], (x - rows["a"])[1::2], rtol=0, atol=1e-12)
    assert abs(noise[::2].mean()) < 0.1 and abs(noise[::2].std() - 1) < 0.1
    assert mechanism.log_prob(x, rows)[::2].abs().max() == 0
    assert bool((mechanism.log_prob(x + 1, rows)[::2] == -torch.inf).all())
    with pytest.raises(EvidenceError, match="Row 0.*probability zero"):
        abducted(mechanism, x + 1, rows)


def test_posterior_of_two_dice_is_that_of_counting():
    noise = {"u": {"categorical": [0.2, 0.3, 0.5]}, "v": {"categorical": [0.6, 0.3, 0.1]}}
    mechanism = bound("u + v", noise, parents={})
    u = abducted(mechanism, torch.full((20_000,), 2.0).double(), {})["u"]
    weights = torch.tensor([0.2 * 0.1, 0.3 * 0.3, 0.5 * 0.6]).double()
    found = torch.bincount(u.long(), minlength=3) / 20_000
    assert_close(found.double(), weights / weights.sum(), rtol=0, atol=0.02)
    assert_close(mechanism.log_prob(torch.tensor([2.0]).double(), {}).exp().item(), weights.sum().item())


def test_exclusive_or_flips_for_sure():
    mechanism = bound("(t + u) % 2", {"u": {"bernoulli": [0.25]}}, Categorical(2))
    x = generated(mechanism)
    flipped = {**ROWS, "t": 1 - ROWS["t"]}
    assert torch.equal(mechanism.generate(flipped, abducted(mechanism, x)), 1 - x)


@pytest.mark.parametrize(
    ("value", "noise", "bad", "message"),
    [
        (
            "2*a",
            {},
            5.0,
            r"Row 7: the value is 5.0, but the equation '2\*a' gives -?\d\S+ at a = .*tolerance 1e-05",
        ),
        (
            "a + u",
            {"u": {"gamma": [2, 1]}},
            -50.0,
            r"Row 7: the value is -50.0.*u ~ gamma\(2, 1\).*probability zero",
        ),
        ("u", {"u": {"uniform": [0, 1]}}, 1.01, "probability zero"),
        ("u / 2", {"u": {"bernoulli": [0.5]}}, 0.25, "probability zero"),
        ("u", {"u": {"categorical": [0.5, 0.0, 0.5]}}, 1.0, "probability zero"),
        ("u", {"u": {"bernoulli": [0.0]}}, 1.0, "probability zero"),
        ("u", {"u": {"binomial": [3, 1.0]}}, 2.0, "probability zero"),
        ("3 * u", {"u": {"poisson": [2]}}, 4.0, "probability zero"),
        ("u", {"u": {"poisson": [2]}}, -1.0, "probability zero"),
        ("sqrt(u)", {"u": {"gamma": [2, 1]}}, -3.0, "probability zero"),
        ("exp(u)", NORMAL, -1.0, "probability zero"),
        ("tanh(u)", NORMAL, 1.0, "probability zero"),
        ("u + exp(u)", {"u": {"exponential": [1]}}, 0.5, "probability zero"),
    ],
)
def test_evidence_that_no_noise_gives(value, noise, bad, message):
    mechanism = bound(value, noise)
    x = generated(mechanism).clone()
    x[7] = bad
    with pytest.raises(EvidenceError, match=message):
        abducted(mechanism, x)
    if noise:
        log_prob = mechanism.log_prob(x, ROWS)
        assert log_prob[7] == -torch.inf and bool((log_prob[:7] > -torch.inf).all())


def test_tolerance_is_relative_beyond_one():
    x = 1e6 * ROWS["a"].abs() + 1e6
    rows = {"a": ROWS["a"].abs()}
    mechanism = bound("1e6 * a + 1e6", parents={"a": Continuous()}, tolerance=1e-6)
    assert not abducted(mechanism, x + 0.5, rows)
    with pytest.raises(EvidenceError):
        abducted(mechanism, x + 50, rows)
    strict = bound("1e6 * a + 1e6", parents={"a": Continuous()}, tolerance=0)
    assert not abducted(strict, x, rows)
    with pytest.raises(EvidenceError):
        abducted(strict, x + 1e-6, rows)


def test_noise_that_rounding_put_beside_its_support_is_put_back():
    mechanism = bound("0.1 + a + u", {"u": {"uniform": [0, 1]}})
    x = 0.1 + ROWS["a"]
    noise = abducted(mechanism, x - 1e-9)["u"]
    assert bool((noise >= 0).all()) and noise.max() < 1e-8
    assert bool(mechanism.log_prob(x - 1e-9, ROWS).isfinite().all())


@pytest.mark.parametrize(
    ("value", "variable", "message"),
    [
        ("log(a)", Continuous(), r"Row \d+: the equation 'log\(a\)' gives nan, expected a finite number"),
        ("k / 2", Categorical(3), r"gives 0.5, expected a code, 0..2. Write round\(...\)"),
        ("k + 1", Categorical(3), "gives 3.0, expected a code"),
        ("k - 1", Categorical(3), "gives -1.0, expected a code"),
    ],
)
def test_values_out_of_the_domain(value, variable, message):
    mechanism = bound(value, variable=variable)
    with pytest.raises(DomainError, match=message):
        generated(mechanism)


def test_categories_enter_as_codes_and_come_out_as_codes():
    mechanism = bound("round(1.4 * t)", variable=Categorical(["no", "yes"]))
    value = mechanism.generate(ROWS, mechanism.sample_noise(N, generator=generator()))
    assert torch.equal(value, ROWS["t"]) and value.dtype == torch.int64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"value": "a.real"}, "Expression 'a.real', column 1: an attribute"),
        ({"value": 3}, "valid string"),
        ({}, "Field required"),
        ({"value": "u", "noise": {"u": {"normal": [0, -1]}}}, "normal: scale must be above 0, got -1"),
        (
            {"value": "u", "noise": {"u": {"norml": [0, 1]}}},
            "Unknown noise family 'norml'. Did you mean 'normal'",
        ),
        ({"value": "u", "noise": {"u": {"normal": ["0", 1]}}}, "expected a number, got '0'"),
        ({"value": "u", "noise": {"u": {"normal": [0, float("nan")]}}}, "finite number"),
        ({"value": "u", "noise": {"u": "normal"}}, "valid dictionary"),
        ({"value": "a", "tolerance": -1}, "greater than or equal to 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValidationError, match=message):
        parse_mechanism({"kind": "equation", **options})


@pytest.mark.parametrize(
    ("value", "noise", "variable", "parents", "message"),
    [
        ("2 * c", {}, Continuous(), PARENTS, r"column 5: unknown name 'c'.*Known: a, b, k, t"),
        ("a", NORMAL, Continuous(), PARENTS, "Noise 'u' is not in the equation 'a'"),
        ("u + a", {"a": {"normal": [0, 1]}}, Continuous(), PARENTS, "Noise 'a' has the name of a parent"),
        ("a - b", {}, Continuous(), {"a-b": Continuous()}, "No expression can read 'a-b': in it, - is minus"),
        ("a", {}, Image(1, 8, 8), PARENTS, "its variable is image 1x8x8"),
        ("a", {}, Continuous(shape=(2,)), PARENTS, "its variable is continuous 2"),
        ("a", {}, Continuous(), {"a": Image(1, 8, 8)}, "parent 'a' is image 1x8x8"),
        ("a", {}, Continuous(), {"a": Continuous(shape=(1,))}, "parent 'a' is continuous 1"),
    ],
)
def test_what_does_not_fit_its_node(value, noise, variable, parents, message):
    with pytest.raises(MechanismError, match=message):
        bound(value, noise, variable, parents)


def test_options_are_written_as_they_were():
    options = {
        "kind": "equation",
        "value": "a + u",
        "noise": {"u": {"normal": [0, 1]}, "v": {"poisson": [3]}},
    }
    assert dump_mechanism(parse_mechanism(options)) == options
    assert parse_mechanism({**options, "noise": {"u": {"bernoulli": 0.3}}}).noise == {
        "u": {"bernoulli": (0.3,)}
    }
    assert "equation" in kinds()


def test_other_noise_takes_the_place_of_the_old():
    """Laws were joined: a noise then had two families, and none could be taken out."""
    law = Equation(value="a + u", noise=NORMAL)
    scm = cg.SCM(nx.DiGraph([("a", "b")]), {"a": Continuous(), "b": Continuous()}, {"b": law})
    uniform, none = {"u": {"uniform": [0, 1]}}, Equation(value="a")
    assert scm.with_options("b", noise=uniform).mechanisms["b"].spec == Equation(value="a + u", noise=uniform)
    assert scm.with_options("b", value="a", noise={}).mechanisms["b"].spec == none


FILE = """
causalgen: 1
nodes:
  a:
    variable: {type: continuous}
    mechanism: {kind: equation, value: u, noise: {u: {normal: [0, 1]}}}
  x:
    variable: {type: continuous}
    parents: [a]
    mechanism: {kind: equation, value: "2*a + u", noise: {u: {laplace: [0, 1]}}}
  late:
    variable: {type: categorical, categories: ["no", "yes"]}
    parents: [x]
    mechanism: {kind: equation, value: "x > 1"}
"""


def written(tmp_path, text):
    path = tmp_path / "scm.yaml"
    path.write_text(text)
    return path


def test_counterfactuals_of_a_file_of_equations(tmp_path):
    scm = cg.SCM.from_yaml(written(tmp_path, FILE))
    world = scm.counterfactual(
        {"a": [1.0, 0.0], "x": [2.5, 0.5], "late": ["yes", "no"]}, do={"a": [0.0, 1.0]}
    )
    assert_close(torch.as_tensor(world["x"]), torch.tensor([0.5, 2.5]).double())
    assert list(world["late"]) == ["no", "yes"]
    assert cg.SCM.from_yaml(written(tmp_path, scm.to_yaml())).to_yaml() == scm.to_yaml()
    with pytest.raises(
        EvidenceError, match=r"'late'.*Row 0: the value is 0.0, but the equation 'x > 1' gives 1.0"
    ):
        scm.counterfactual({"a": [1.0], "x": [2.5], "late": ["no"]}, do={"x": [0.0]})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"2*a + u"', '"2*a + v"', r"scm.yaml:\d+:\d+: .*unknown name 'v'"),
        (
            '"2*a + u"',
            '"2*a + [u]"',
            r"scm.yaml:10:\d+: nodes.x.mechanism.value: Expression '2\*a \+ \[u\]', column 7",
        ),
        (
            "laplace: [0, 1]",
            "laplace: [0]",
            r"scm.yaml:10:\d+: nodes.x.mechanism.noise.u: .* takes 2 parameter",
        ),
    ],
)
def test_a_file_that_is_wrong_is_told_where(tmp_path, old, new, message):
    with pytest.raises(SpecError, match=message):
        cg.SCM.from_yaml(written(tmp_path, FILE.replace(old, new)))


@pytest.mark.parametrize("name", ARITIES)
def test_torch_computes_what_numpy_does(name):
    arguments = ["a / 9 + 0.5", "b / 9", "0.7"][: ARITIES[name]]
    expression = parse_expression(f"{name}({', '.join(arguments)}) + (a > b) * 2 - (not a)")
    a, b = np.linspace(-4, 4, 41), np.linspace(0.1, 8, 41)
    found = expression.evaluate({"a": torch.from_numpy(a), "b": torch.from_numpy(b)}, TORCH)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(
        found.numpy(), expression.evaluate({"a": a, "b": b}, NUMPY), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize(
    ("equation", "noise", "share"),
    [
        # P(1 + g(u) > 2 | do(a = 2)) for u as before anything was seen.
        ("b + a*logit(u)", {"uniform": [0, 1]}, 1 - 1 / (1 + np.exp(-0.5))),
        ("b + a/u", {"normal": [0, 1]}, 0.4772),
        ("b + a*log(u)", {"uniform": [0, 1]}, 0.0),
        ("b + a*u", {"normal": [0, 1]}, 0.3085),
    ],
)
def test_noise_that_drops_out_of_a_row_leaves_an_atom(equation, noise, share):
    """At a = 0 x is b exactly, also where the equation has no value at the ends of the noise's range."""
    scm = cg.SCM(
        nx.DiGraph([("a", "x"), ("b", "x")]),
        {"a": cg.Categorical(3), "b": cg.Categorical(2), "x": cg.Continuous()},
        {
            "a": Equation(value="u", noise={"u": {"categorical": [0.5, 0.25, 0.25]}}),
            "b": Equation(value="u", noise={"u": {"bernoulli": 0.5}}),
            "x": Equation(value=equation, noise={"u": noise}),
        },
    )
    assert scm.abduct({"x": 1.0}, seed=0).posterior("a").probabilities.tolist() == [[1, 0, 0]]
    assert scm.log_prob({"a": 0, "b": 1, "x": 1.0}).item() == pytest.approx(np.log(0.25))
    effect = scm.effect("x", do={"a": 2}, evidence={"x": 1.0}, n=20_000, seed=0, statistic=lambda x: x > 2)
    assert effect.overall.under_do == pytest.approx(share, abs=0.015)
    own = scm.sample(50, seed=0).to_frame()
    scm.counterfactual(own, do={"a": 2}, seed=0)  # its own samples have probability
