"""Answers of equations do not depend on the unit of the data, nor on which values happen to be atoms."""

import itertools

import networkx as nx
import numpy as np
import pytest
import torch
from torch.testing import assert_close

import causalgen as cg
from graphs.errors import DomainError, EvidenceError
from graphs.expressions import ARITIES, NUMPY, parse_expression
from graphs.variables import Categorical, Continuous, Integer
from mechanisms.equation.inversion import TORCH, scale_of
from mechanisms.equation.mechanism import Equation
from tests.mechanisms.fit import generator, normal

N = 200
ROWS = {"a": normal(N, seed=1), "b": normal(N, seed=2), "t": torch.arange(N) % 2}
REAL = {"a": Continuous(), "b": Continuous(), "t": Categorical(2)}


def bound(value, noise=None, variable=None, parents=REAL, **options):
    return Equation(value=value, noise=noise or {}, **options).bind(variable or Continuous(), parents)


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


# Homogeneous of degree 1: with a, b and {c} c times as large, the value is c times as large.
UNITS = {
    "difference": ("2*a - 0.5*b", {}),
    "by cases": ("where(t, a, maximum(a, b)) - abs(b)", {}),
    "root": ("sqrt(a*a + b*b)", {}),
    "additive": ("a - b + {c}*u", {"u": {"normal": [0, 1]}}),
    "gate": ("a + {c}*t*u", {"u": {"normal": [0, 1]}}),
    "bounded": ("a + {c}*u", {"u": {"uniform": [-1, 2]}}),
    "coin": ("a + 2*{c}*k", {"k": {"bernoulli": [0.3]}}),
    "fine steps": ("a + 1e-7*{c}*k", {"k": {"categorical": [0.2, 0.3, 0.5]}}),
    "two coins": ("a + {c}*(j + k)", {"j": {"bernoulli": [0.3]}, "k": {"bernoulli": [0.4]}}),
    "exponential": ("b * exp(u)", {"u": {"normal": [0, 1]}}),
    "search": ("b + {c}*(u + u**3)", {"u": {"normal": [0, 1]}}),
    "poisson": ("a + 3*{c}*k", {"k": {"poisson": [4]}}),
}


@pytest.mark.parametrize(("value", "noise"), UNITS.values(), ids=UNITS.keys())
def test_the_unit_of_the_data_changes_no_answer(value, noise):
    def answers(unit, moved):
        """With data in that unit: noise, density in the first unit, rows refused when moved."""
        mechanism = bound(value.format(c=repr(unit)), noise)
        rows = {"a": unit * ROWS["a"], "b": unit * ROWS["b"], "t": ROWS["t"]}
        drawn = mechanism.sample_noise(N, generator=generator(3))
        x = mechanism.generate(rows, drawn)
        found = mechanism.abduct(x, rows, generator=generator(4)).noise
        log_prob = mechanism.log_prob(x, rows)
        atoms = mechanism.atomic(x, rows)
        if log_prob is not None:
            density = torch.ones(N, dtype=torch.bool) if atoms is None else ~atoms
            log_prob = torch.where(density, log_prob + np.log(unit), log_prob)
        refused = []
        for row in range(5):
            one = {name: each[[row]] for name, each in rows.items()}
            try:
                mechanism.abduct(x[[row]] * (1 + moved), one, generator=generator(4))
                refused.append(False)
            except EvidenceError:
                refused.append(True)
        return {"drawn": drawn, "found": found, "log_prob": log_prob, "refused": refused}

    for moved in (1e-9, 1e-3, -0.5):
        one = answers(1.0, moved)
        for unit in (1e-9, 1e9):
            other = answers(unit, moved)
            assert other["refused"] == one["refused"]
            for name in noise:
                assert_close(other["found"][name], one["found"][name], rtol=1e-5, atol=1e-6)
            if one["log_prob"] is not None:
                assert_close(other["log_prob"], one["log_prob"], rtol=1e-5, atol=1e-5)


def test_fine_steps_are_told_apart():
    """1e-7 is far below the tolerance of a; the nearest of the three values is the one that was drawn."""
    mechanism = bound("a + 1e-7*k", {"k": {"categorical": [0.2, 0.3, 0.5]}})
    noise = mechanism.sample_noise(N, generator=generator(3))
    x = mechanism.generate(ROWS, noise)
    assert torch.equal(mechanism.abduct(x, ROWS, generator=generator()).noise["k"], noise["k"])
    expected = numbers(0.2, 0.3, 0.5)[noise["k"].long()].log()
    assert_close(mechanism.log_prob(x, ROWS), expected)


def test_equal_values_that_rounding_parts_all_count():
    """0.1 * 3 and 0.1 + 0.2 differ in the last digit: both ways to 0.3 keep their probability."""
    noise = {"j": {"binomial": [3, 0.5]}, "k": {"bernoulli": [0.4]}}
    mechanism = bound("0.1*j + 0.2*k", noise, parents={})
    expected = 0.125 * 0.6 + 0.375 * 0.4
    for x in (0.3, 0.1 + 0.2, 3 * 0.1):
        assert mechanism.log_prob(numbers(x), {}).exp().item() == pytest.approx(expected)


def test_small_numbers_are_compared_as_small_numbers():
    mechanism = bound("1e-9 * a", parents={"a": Continuous()})
    for wrong in (1.1e-9, 0.0, 1.0):
        with pytest.raises(EvidenceError):
            mechanism.check(numbers(wrong), {"a": numbers(1.0)})
    mechanism.check(numbers(1e-9), {"a": numbers(1.0)})


def test_cancelling_terms_are_as_certain_as_they_are():
    mechanism = bound("a - b", parents={"a": Continuous(), "b": Continuous()})
    mechanism.check(numbers(1e-6), {"a": numbers(1.0), "b": numbers(1.0)})
    mechanism.check(numbers(0.0), {"a": numbers(0.1 + 0.2), "b": numbers(0.3)})
    with pytest.raises(EvidenceError):
        mechanism.check(numbers(1e-3), {"a": numbers(1.0), "b": numbers(1.0)})
    with pytest.raises(EvidenceError):
        mechanism.check(numbers(1e-6), {"a": numbers(0.0), "b": numbers(0.0)})


@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e9])
@pytest.mark.parametrize("value", ["2*a - 0.5*b", "where(t, a, b) + a", "maximum(a, b)", "(a + b) / 3"])
def test_six_significant_digits_are_enough(value, unit):
    def rounded(numbers):
        return torch.tensor([float(f"{number:.6g}") for number in numbers], dtype=torch.float64)

    mechanism = bound(value)
    rows = {"a": unit * ROWS["a"], "b": unit * ROWS["b"], "t": ROWS["t"]}
    x = mechanism.generate(rows, mechanism.sample_noise(N, generator=generator()))
    written = {"a": rounded(rows["a"]), "b": rounded(rows["b"]), "t": ROWS["t"]}
    mechanism.check(rounded(x), written)


@pytest.mark.parametrize(
    "value",
    ["a - b", "a*b/(a - 2)", "(a - b)**3", "clip(a, b, 2) % 3", "exp(a) - log(abs(b))", "sin(a) * (a + b)"],
)
def test_the_scale_is_at_least_the_size(value):
    expression = parse_expression(value)
    scale = scale_of(expression, ROWS, {})
    size = torch.as_tensor(expression.evaluate(ROWS, TORCH)).abs()
    assert bool((scale >= size * (1 - 1e-12)).all())


def test_atoms_are_told_from_densities():
    gate = bound("t * u", {"u": {"normal": [0, 1]}})
    rows = {"a": numbers(0, 0, 0), "b": numbers(0, 0, 0), "t": torch.tensor([0, 1, 0])}
    x = numbers(0.0, 0.0, 1.0)
    assert gate.atomic(x, rows).tolist() == [True, False, True]
    assert gate.log_prob(x, rows)[0] == 0 and gate.log_prob(x, rows)[2] == -torch.inf
    by_case = bound("where(a > 0, u, 0)", {"u": {"normal": [0, 1]}})
    assert by_case.atomic(numbers(0, 0), {"a": numbers(1, -1)}).tolist() == [False, True]
    assert bound("a + u", {"u": {"normal": [0, 1]}}).atomic(x, rows) is None
    assert bound("a + k", {"k": {"bernoulli": [0.5]}}).atomic(x, rows).all()
    assert bound("a + k", {"k": {"poisson": [2]}}).atomic(x, rows).all()
    assert bound("a + b").atomic(x, rows).all()
    assert bound("sin(u)", {"u": {"normal": [0, 1]}}).atomic(x, rows) is None
    assert bound("k", {"k": {"poisson": [2]}}, Integer()).atomic(x, rows) is None


def test_a_dose_of_zero_tells_nothing_of_its_factor():
    mechanism = bound("a * exp(u)", {"u": {"normal": [1, 2]}})
    assert (mechanism.abduction, mechanism.deterministic) == ("posterior", False)
    n = 4000
    rows = {"a": torch.arange(n).double() % 2, "b": torch.zeros(n), "t": torch.zeros(n)}
    noise = mechanism.sample_noise(n, generator=generator(1))
    x = mechanism.generate(rows, noise)
    found = mechanism.abduct(x, rows, generator=generator(2)).noise["u"]
    assert_close(found[1::2], noise["u"][1::2])
    assert abs(found[::2].mean() - 1) < 0.15 and abs(found[::2].std() - 2) < 0.15
    assert mechanism.atomic(x, rows).tolist() == [True, False] * (n // 2)
    assert bool((mechanism.log_prob(x, rows)[::2] == 0).all())
    with pytest.raises(EvidenceError, match="Row 0.*probability zero"):
        mechanism.check(numbers(1.0), {name: each[:1] for name, each in rows.items()})
    # Where bounds say that the factor is never 0, or it is no factor, one value has one noise.
    for value, parents in (
        ("a * exp(u)", {"a": Continuous(lower=0.1)}),
        ("a + exp(u)", {"a": Continuous()}),
        ("3 / u", {}),
    ):
        assert bound(value, {"u": {"log_normal": [0, 1]}}, parents=parents).deterministic
    assert not bound("a / u", {"u": {"normal": [0, 1]}}, parents={"a": Continuous()}).deterministic


@pytest.mark.parametrize(
    ("value", "noise", "restricts"),
    [
        ("a", {}, True),
        ("a + u", {"u": {"normal": [0, 1]}}, False),
        ("a * u", {"u": {"normal": [0, 1]}}, True),
        ("a + u", {"u": {"uniform": [0, 1]}}, True),
        ("a + k", {"k": {"bernoulli": [0.5]}}, True),
        ("a + k", {"k": {"poisson": [1]}}, True),
        ("exp(u)", {"u": {"normal": [0, 1]}}, True),
        ("sin(u)", {"u": {"normal": [0, 1]}}, False),
    ],
)
def test_check_refuses_what_abduct_refuses(value, noise, restricts):
    mechanism = bound(value, noise)
    assert mechanism.restricts is restricts
    impossible = torch.full((N,), -50.5, dtype=torch.float64)
    if restricts and value != "a * u":
        for question in (mechanism.check, lambda x, rows: mechanism.abduct(x, rows, generator=generator())):
            with pytest.raises(EvidenceError, match=r"Row 0: the value is -50.5"):
                question(impossible, ROWS)
    else:
        mechanism.check(impossible, ROWS)


def test_noise_that_its_law_cannot_have_is_refused():
    uniform = bound("a + u", {"u": {"uniform": [0, 1]}})
    kept = bound("a + u", {"u": {"normal": [0, 1]}}).sample_noise(N, generator=generator())
    with pytest.raises(DomainError, match=r"noise 'u' is -?\d.*uniform\(0, 1\) cannot give.*noise='fresh'"):
        uniform.generate(ROWS, kept)
    for law in ({"bernoulli": [0.5]}, {"poisson": [3]}, {"categorical": [0.5, 0, 0.5]}, {"gamma": [1, 1]}):
        with pytest.raises(DomainError, match="'u'"):
            bound("a + u", {"u": law}).generate(ROWS, kept)
    # Of the same range: the same u, whatever the law's parameters.
    assert bound("a + u", {"u": {"normal": [0, 2]}}).generate(ROWS, kept) is not None


def test_a_replaced_law_does_not_take_noise_of_another_range():
    scm = cg.SCM(
        nx.DiGraph([("x", "y")]),
        variables={"x": cg.Continuous(), "y": cg.Continuous()},
        mechanisms={
            "x": cg.mechanisms.Equation(value="u", noise={"u": {"normal": [0, 1]}}),
            "y": cg.mechanisms.Equation(value="x"),
        },
    )
    other = cg.mechanisms.Equation(value="u", noise={"u": {"uniform": [0, 1]}})
    with pytest.raises(DomainError, match="cannot give"):
        scm.counterfactual({"x": -3.0, "y": -3.0}, do={"x": cg.Replace(other, noise="keep")}, seed=0)


SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e300, -1e300, 1.0, -1.0, 0.5, 2.5, 3.5)
OPERATORS = ("a + b", "a - b", "a * b", "a / b", "a // b", "a % b", "a < b", "a == b", "a and b", "not a")


@pytest.mark.parametrize("written", [*ARITIES, *OPERATORS])
def test_torch_agrees_with_numpy_on_numbers_that_are_not_finite(written):
    arity = ARITIES.get(written, 2)
    text = f"{written}({', '.join('abc'[:arity])})" if written in ARITIES else written
    values = dict(zip("abc", np.array(list(itertools.product(SPECIAL, repeat=arity))).T, strict=False))
    expression = parse_expression(text)
    expected = np.broadcast_to(expression.evaluate(values, NUMPY), values["a"].shape)
    found = expression.evaluate({name: torch.from_numpy(each) for name, each in values.items()}, TORCH)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=0, equal_nan=True)
