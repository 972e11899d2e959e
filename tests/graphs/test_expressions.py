"""What expressions compute: Python's own values; and what is derived from them holds at random points."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from graphs.errors import SpecError, UnknownNameError
from graphs.expressions import ARITIES, Functions, Range, parse_expression

NAMES = ("a", "b", "u")

# Python's own functions of one number, which know nothing of numpy.
PYTHON = {
    "abs": abs,
    "atanh": math.atanh,
    "ceil": math.ceil,
    "clip": lambda x, lower, upper: min(max(x, lower), upper),
    "cos": math.cos,
    "exp": math.exp,
    "floor": math.floor,
    "log": math.log,
    "logit": lambda p: math.log(p / (1 - p)),
    "maximum": max,
    "minimum": min,
    "round": round,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "sign": lambda x: (x > 0) - (x < 0),
    "sin": math.sin,
    "sqrt": math.sqrt,
    "tanh": math.tanh,
    "where": lambda test, then, otherwise: then if test else otherwise,
}


def composed(smaller):
    """Pairs: an expression, and Python that computes it, with truth as 1 or 0."""
    two = st.tuples(smaller, smaller)
    truth = "float(bool({}))".format
    operators = st.sampled_from(["+", "-", "*", "/", "//", "%"])
    comparisons = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
    arguments = st.sampled_from(sorted(ARITIES)).flatmap(
        lambda name: st.tuples(
            st.just(name), st.lists(smaller, min_size=ARITIES[name], max_size=ARITIES[name])
        )
    )
    return st.one_of(
        st.builds(lambda op, p: tuple(f"({x}) {op} ({y})" for x, y in zip(*p, strict=True)), operators, two),
        st.builds(lambda p, n: tuple(f"({x}) ** {n}" for x in p), smaller, st.integers(-8, 8)),
        st.builds(lambda p: tuple(f"-({x})" for x in p), smaller),
        st.builds(lambda p: (f"not ({p[0]})", truth(f"not ({p[1]})")), smaller),
        st.builds(
            lambda op, p: (f"({p[0][0]}) {op} ({p[1][0]})", truth(f"({p[0][1]}) {op} ({p[1][1]})")),
            st.one_of(comparisons, st.sampled_from(["and", "or"])),
            two,
        ),
        st.builds(
            lambda p, q, r: tuple(f"({x}) if ({y}) else ({z})" for x, y, z in zip(p, q, r, strict=True)),
            smaller, smaller, smaller,
        ),
        st.builds(lambda c: tuple(f"{c[0]}({', '.join(p[i] for p in c[1])})" for i in (0, 1)), arguments),
    )  # fmt: skip


NUMBERS = st.one_of(st.integers(0, 20), st.floats(0, 1e3).map(lambda x: round(x, 3)))
LEAVES = st.one_of(NUMBERS.map(str), st.sampled_from(NAMES)).map(lambda written: (written, written))
FORMULAS = st.recursive(LEAVES, composed, max_leaves=12)
VALUES = st.fixed_dictionaries({name: st.floats(-10, 10).map(lambda x: round(x, 3)) for name in NAMES})


def accepted(text):
    """The expression, or no test where it is refused for its size."""
    try:
        return parse_expression(text, NAMES)
    except SpecError as error:
        assume("nested too deep" not in str(error) and "too large" not in str(error))
        raise


def in_python(written, values):
    """Python's value, or no test where Python raises, or leaves the real numbers that float64 holds."""
    try:
        value = eval(written, {"__builtins__": {"float": float, "bool": bool}, **PYTHON}, dict(values))
    except (ArithmeticError, ValueError):
        assume(False)
    assume(not isinstance(value, complex))
    return float(value)


@settings(max_examples=400)
@given(FORMULAS, VALUES)
def test_values_are_pythons(formula, values):
    expected = in_python(formula[1], values)
    got = accepted(formula[0]).evaluate(values)
    assert got.dtype == np.float64 and got.shape == ()
    # Where both compute the untaken branch of a condition or round differently, only their last digits do.
    assume(abs(expected) < 1e100)
    sensitive = any(
        part in formula[0] for part in ("//", "%", "floor", "ceil", "round", "sign", "=", "<", ">")
    )
    if not sensitive or got == expected:
        assert got == pytest.approx(expected, rel=1e-6, abs=1e-6) or not steady(accepted(formula[0]), values)


@settings(max_examples=300)
@given(FORMULAS, VALUES)
def test_text_parses_back_to_an_equal_expression(formula, values):
    expression = accepted(formula[0])
    again = parse_expression(str(expression), NAMES)
    assert again == expression and hash(again) == hash(expression) and str(again) == str(expression)
    np.testing.assert_array_equal(again.evaluate(values), expression.evaluate(values))


@settings(max_examples=150)
@given(FORMULAS, st.lists(VALUES, min_size=1, max_size=4))
def test_rows_are_independent(formula, rows):
    expression = accepted(formula[0])
    columns = {name: np.array([row[name] for row in rows]) for name in NAMES}
    together = np.broadcast_to(expression.evaluate(columns), len(rows))
    for row, value in zip(rows, together, strict=True):
        np.testing.assert_allclose(expression.evaluate(row), value, rtol=1e-12)


ONCE = ["{x} + {p}", "{p} - ({x})", "({x}) * ({p})", "({p}) * ({x})", "({x}) / ({p})", "-({x})"]
AFFINE_STEPS = [*ONCE, "where({p} > 1, {x}, {p})", "({x}) + 2 * u", "u - ({x})", "({x}) ** 1"]
ONCE_STEPS = [*ONCE, "({p}) / ({x})", "log({x})", "sqrt({x})", "logit({x})", "atanh(({x}) / 99)"]
ONCE_STEPS += [f"{function}(({{x}}) / 9)" for function in ("exp", "tanh", "sigmoid")]
ONCE_STEPS += [f"({{x}}) ** {exponent}" for exponent in (3, -1, 0.5)]
GROWING_STEPS = [*ONCE_STEPS, "({x}) + u", "({x}) * u", "maximum({x}, u)", "abs({x})", "({x}) ** 2"]
GROWING_STEPS += ["where({p} > 1, {x}, u)", "({x}) * exp(u)", "u / ({x})", "({x}) % 2", "minimum({x}, {p})"]


def chains(steps):
    """Formulas in u, by steps from the inside out; {p} stands for a formula without u."""
    others = st.sampled_from(["a", "b", "a + 1", "2", "0.5", "b - a", "exp(a)", "3 * b", "a ** 2"])
    wrap = st.tuples(st.sampled_from(steps), others)

    def wrapped(layers):
        text = "u"
        for step, other in layers:
            text = step.format(x=text, p=other)
        return text

    return st.lists(wrap, max_size=5).map(wrapped)


RANGES = {"a": Range(0.5, 3), "b": Range(-2, -0.1), "u": Range(0, 4)}
INSIDE = st.fixed_dictionaries({name: st.floats(each.low, each.high) for name, each in RANGES.items()})


def steady(expression, values):
    """Whether the value is no accident of rounding: it hardly moves when its names hardly move."""
    moved = [
        float(expression.evaluate({n: v * (1 + e) for n, v in values.items()})) for e in (0, 1e-13, -1e-13)
    ]
    return max(moved) - min(moved) <= 1e-9 * max(1.0, *map(abs, moved))


@settings(max_examples=200)
@given(chains(AFFINE_STEPS), INSIDE)
def test_affine_form_is_the_expression(text, values):
    expression = accepted(text)
    form = expression.affine("u")
    assert form is not None
    slope, intercept = form
    assert "u" not in slope.names and "u" not in intercept.names
    whole = expression.evaluate(values)
    with np.errstate(all="ignore"):
        product = slope.evaluate(values) * values["u"] + intercept.evaluate(values)
    assume(np.isfinite(whole) and np.isfinite(product))
    assert product == pytest.approx(whole, rel=1e-6, abs=1e-6) or not steady(expression, values)


@settings(max_examples=300)
@given(FORMULAS.map(lambda formula: formula[0]) | chains(GROWING_STEPS), INSIDE)
def test_range_contains_every_value(text, values):
    expression = accepted(text)
    value, bounds = float(expression.evaluate(values)), expression.range(RANGES)
    assume(math.isfinite(value))
    slack = 1e-9 * max(1.0, abs(value))
    assert bounds.low - slack <= value <= bounds.high + slack
    assert not (bounds.nonzero and value == 0) or abs(bounds.low) < 1e-300 or abs(bounds.high) < 1e-300


@settings(max_examples=500)
@given(FORMULAS.map(lambda formula: formula[0]) | chains(GROWING_STEPS), INSIDE, st.floats(0, 4))
def test_direction_holds(text, values, other):
    expression = accepted(text)
    direction = expression.direction("u", RANGES)
    low, high = sorted([values["u"], other])
    one, two = (float(expression.evaluate({**values, "u": u})) for u in (low, high))
    assume(math.isfinite(one) and math.isfinite(two))
    slack = 1e-9 * max(1.0, abs(one), abs(two))
    if direction == "increasing":
        assert one <= two + slack
    elif direction == "decreasing":
        assert two <= one + slack
    assert direction != "constant" or ("u" not in expression.names and one == two)


@settings(max_examples=500)
@given(FORMULAS.map(lambda formula: formula[0]) | chains(GROWING_STEPS), INSIDE)
def test_derivative_is_the_limit_of_differences(text, values):
    expression, u = accepted(text), values["u"]
    value, derivative = (float(each.evaluate(values)) for each in (expression, expression.derivative("u")))
    quotients = [
        (float(expression.evaluate({**values, "u": u + step})) - value) / step
        for step in (1e-4, -1e-4, 1e-5, -1e-5)
    ]
    # Where there is a slope: neither a step, nor a kink, nor the end of where it has values, nor rounding,
    # as where u**2 underflows.
    assume(u == 0 or abs(u) > 1e-100)
    assume(math.isfinite(derivative) and all(map(math.isfinite, quotients)) and abs(value) < 1e6)
    assume(max(quotients) - min(quotients) <= 1e-3 * max(1.0, *map(abs, quotients)))
    assert derivative == pytest.approx(quotients[-1], rel=1e-2, abs=1e-2)


@settings(max_examples=300)
@given(chains(ONCE_STEPS), INSIDE)
def test_inverse_is_where_the_value_came_from(text, values):
    expression = accepted(text)
    inverse = expression.inverse("u", "y")
    assert inverse is not None and set(inverse.names) <= {"a", "b", "y"}
    y = expression.evaluate(values)
    u = inverse.evaluate({**values, "y": y})
    assume(np.isfinite(u) and 1e-200 < abs(y) < 1e200 and steady(inverse, {**values, "y": y}))
    # Far from the original where the expression is flat, and then it has the same value.
    again = expression.evaluate({**values, "u": u})
    assert u == pytest.approx(values["u"], rel=1e-6, abs=1e-6) or again == pytest.approx(
        y, rel=1e-6, abs=1e-6
    )


@pytest.mark.parametrize(
    ("text", "inverse"),
    [
        ("2*a - 0.5*b + u", "y - (2 * a - 0.5 * b)"),
        ("a - u", "a - y"),
        ("a / u", "a / y"),
        ("u / 4", "y * 4"),
        ("-(u * a)", "-y / a"),
        ("exp(a + 2*u)", "(log(y) - a) / 2"),
        ("log(u)", "exp(y)"),
        ("u ** 3", "sign(y) * abs(y) ** 0.3333333333333333"),
        ("u ** 0.5 + 1", "(y - 1) ** 2"),
        ("sqrt(u)", "y ** 2"),
        ("sigmoid(tanh(u))", "atanh(logit(y))"),
        ("u ** 2", None),
        ("u + u ** 3", None),
        ("sin(u)", None),
        ("u // 2", None),
        ("where(a, u, 0)", None),
        ("a", None),
    ],
)
def test_inverse_by_unwinding(text, inverse):
    found = parse_expression(text).inverse("u", "y")
    assert (found if found is None else str(found)) == inverse


@pytest.mark.parametrize(
    ("text", "derivative"),
    [
        ("a * exp(2 * u)", "a * (exp(2 * u) * 2)"),
        ("u ** 3 / b", "1 / b * (3 * u ** 2)"),
        ("u if a > 0 else exp(u)", "where(a > 0, 1, exp(u))"),
        ("maximum(u, 0)", "where(u >= 0, 1, 0)"),
        ("floor(u) + (u > 0)", "0"),
        ("exp(a)", "0"),
    ],
)
def test_derivative(text, derivative):
    assert str(parse_expression(text).derivative("u")) == derivative


def test_derivatives_in_the_tails_are_not_rounded_to_0():
    found = [
        parse_expression(text).derivative("u").evaluate({"u": 40.0}) for text in ("sigmoid(u)", "tanh(u)")
    ]
    assert found == pytest.approx([math.exp(-40), 4 * math.exp(-80)], rel=1e-12, abs=0)


@pytest.mark.parametrize(
    ("text", "slope", "intercept"),
    [
        ("2*a - 0.5*b + u", "1", "2 * a - 0.5 * b"),
        ("a * (u - b) / 2", "a / 2", "a * -b / 2"),
        ("3 - 2*u + u", "-1", "3"),
        ("u if a > 0 else b", "where(a > 0, 1, 0)", "where(a > 0, 0, b)"),
        ("exp(a)", "0", "exp(a)"),
        ("u", "1", "0"),
    ],
)
def test_affine_form(text, slope, intercept):
    form = parse_expression(text).affine("u")
    assert form is not None and tuple(map(str, form)) == (slope, intercept)


@pytest.mark.parametrize("text", ["u * u", "u ** 2", "exp(u)", "a / u", "maximum(u, 0)", "u if u > 0 else 0"])
def test_what_is_not_affine(text):
    assert parse_expression(text).affine("u") is None


@pytest.mark.parametrize(
    ("text", "direction"),
    [
        ("u + u**3", "increasing"),
        ("exp(-u) - u", "decreasing"),
        ("exp(a) * u + tanh(u)", "increasing"),
        ("-u / (1 + a**2)", "decreasing"),
        ("(2 + sigmoid(u)) * exp(u)", "increasing"),
        ("maximum(u, 2*u)", "increasing"),
        ("maximum(u, 0)", "unknown"),
        ("a * u", "unknown"),
        ("u - u", "unknown"),
        ("u ** 2", "unknown"),
        ("1 / u", "unknown"),
        ("sin(u)", "unknown"),
        ("clip(u, 0, 1)", "unknown"),
        ("u > 0", "unknown"),
        ("a + exp(b)", "constant"),
    ],
)
def test_direction_for_any_number(text, direction):
    assert parse_expression(text).direction("u") == direction


@pytest.mark.parametrize(
    ("text", "direction"),
    [
        ("u ** 2", "increasing"),
        ("1 / (1 + u)", "decreasing"),
        ("a * u", "increasing"),
        ("abs(-u)", "increasing"),
    ],
)
def test_direction_uses_what_is_known_of_names(text, direction):
    assert parse_expression(text).direction("u", {"u": Range(0), "a": Range(0, nonzero=True)}) == direction


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("+a", "a"),
        ("--a", "a"),
        ("a-(b-u)", "a - (b - u)"),
        ("(a-b)-u", "a - b - u"),
        ("(-a)**2", "(-a) ** 2"),
        ("-a**2", "-a ** 2"),
        ("a ** 2 ** 3", "a ** 8"),
        ("a ** (1/3)", "a ** 0.3333333333333333"),
        ("0x10 + 1_000 + 1e-3 + .5", "16 + 1000 + 0.001 + 0.5"),
        ("not a == b", "not a == b"),
        ("(not a) == b", "(not a) == b"),
        ("a and (b or u)", "a and (b or u)"),
        ("0 < a < 1", "0 < a < 1"),
        ("(a < b) < u", "(a < b) < u"),
        ("a if b else u", "where(b, a, u)"),
        ("  a\n  + b\n", "a + b"),
        ("a\t*\tb", "a * b"),
    ],
)
def test_text(text, written):
    assert str(parse_expression(text)) == written


def test_names_and_equality():
    expression = parse_expression("b * exp(a) + b")
    assert expression.names == ("a", "b")
    assert expression == parse_expression("(b*exp(a)) + b") != parse_expression("b + b * exp(a)")
    assert repr(expression) == "Expression('b * exp(a) + b')"


def test_a_name_may_be_called_as_a_function_is():
    assert parse_expression("exp(exp)").evaluate({"exp": 0.0}) == 1.0


def test_truth_is_a_number():
    a = np.array([-1.0, 0.0, 2.0])
    assert parse_expression("(a > 0) + (a >= 0) - (not a)").evaluate({"a": a}).tolist() == [0, 0, 2]
    assert parse_expression("a and a > 1 or a == 0").evaluate({"a": a}).tolist() == [0, 1, 1]
    assert parse_expression("-1 <= a < 2").evaluate({"a": a}).tolist() == [1, 1, 0]


@pytest.mark.parametrize(("text", "value"), [("1 / 0", np.inf), ("log(0)", -np.inf), ("exp(1000)", np.inf)])
def test_arithmetic_is_float64s_and_silent(text, value):
    assert parse_expression(text).evaluate({}) == value
    assert np.isnan(parse_expression("(0 - 8) ** 0.5 + 0 / 0").evaluate({}))


def test_integers_and_booleans_are_numbers():
    values = {"a": np.array([7, -7]), "b": np.array([True, False])}
    assert parse_expression("a / 2 - b").evaluate(values).tolist() == [2.5, -3.5]


def test_any_array_library_will_do():
    class Exact(Fraction):
        """A library of its own: exact fractions."""

    functions = Functions(array=Fraction, calls={name: abs for name in ARITIES})
    value = parse_expression("abs(a / 3 - 1) + (a > 0)").evaluate({"a": Exact(1)}, functions)
    assert value == Fraction(5, 3)


def test_a_name_without_a_value():
    with pytest.raises(UnknownNameError, match="Unknown name 'speed'.*Did you mean 'sped'"):
        parse_expression("2 * speed").evaluate({"sped": 1.0})


def test_evaluation_keeps_numpys_settings_and_inputs():
    a = np.array([0.0, 1.0])
    with np.errstate(divide="raise"):
        parse_expression("1 / a").evaluate({"a": a})
        with pytest.raises(FloatingPointError):
            _ = np.float64(1) / np.float64(0)
    assert a.tolist() == [0.0, 1.0]
