"""Nested worlds, contrasts and natural effects, against closed forms."""

import networkx as nx
import numpy as np
import pytest
import torch

import causalgen as cg

NORMAL = {"u": {"normal": [0, 1]}}
MEDIATION = nx.DiGraph([("x", "m"), ("x", "y"), ("m", "y")])


def mediator_model(y):
    """x -> m -> y <- x with m = 0.7 x + u."""
    equations = {"x": "u", "m": "0.7*x + u", "y": y}
    return cg.SCM(
        MEDIATION,
        variables={node: cg.Continuous() for node in "xmy"},
        mechanisms={node: cg.mechanisms.Equation(value=equations[node], noise=NORMAL) for node in "xmy"},
    )


@pytest.fixture(scope="module")
def straight():
    return mediator_model("2*x + 3*m + u")


@pytest.fixture(scope="module")
def interacting():
    return mediator_model("2*x + 3*m + 0.5*x*m + u")


@pytest.fixture(scope="module")
def rows(interacting):
    return dict(interacting.sample(20, seed=5))


def test_natural_effects_of_a_linear_model_are_products_of_coefficients(straight):
    found = straight.natural_effects("y", do={"x": 3.0}, versus={"x": 1.0}, through="m", n=500, seed=0)
    assert found.direct.value == pytest.approx(2 * 2, abs=1e-9)
    assert found.indirect.value == pytest.approx(2 * 0.7 * 3, abs=1e-9)
    assert found.total.value == pytest.approx(2 * (2 + 0.7 * 3), abs=1e-9)
    assert found.interaction == pytest.approx(0, abs=1e-9)
    assert "through m" in repr(found)


def test_natural_effects_with_interaction_are_the_closed_form_in_the_population(interacting):
    found = interacting.natural_effects("y", do={"x": 3.0}, versus={"x": 1.0}, through="m", seed=0)
    # NDE = (x1 - x0)(2 + 0.5 E M(x0)), NIE = 0.7 (x1 - x0)(3 + 0.5 x0)
    assert found.indirect.value == pytest.approx(2 * 0.7 * 3.5, abs=1e-9)
    assert found.direct.value == pytest.approx(2 * (2 + 0.5 * 0.7), abs=5 * found.direct.standard_error)
    assert found.direct.standard_error == pytest.approx(
        1 / 100, rel=0.05
    )  # sd of M, times 2 * 0.5, over sqrt n
    assert found.interaction == pytest.approx(0.5 * 2 * 0.7 * 2, abs=1e-9)


def test_natural_effects_of_rows_are_the_closed_form_row_by_row(interacting, rows):
    found = interacting.natural_effects(
        "y", do={"x": 3.0}, versus={"x": 1.0}, through=["m"], evidence=rows, seed=0
    )
    m0 = rows["m"] + 0.7 * (1.0 - rows["x"])
    np.testing.assert_allclose(found.direct.individual, 2 * (2 + 0.5 * m0), atol=1e-9)
    np.testing.assert_allclose(found.indirect.individual, np.full(20, 2 * 0.7 * 3.5), atol=1e-9)
    assert not found.direct.individual_error.any()


def test_natural_effects_of_a_discrete_mediator_are_the_mediation_formula():
    uniform = {"u": {"uniform": [0, 1]}}
    scm = cg.SCM(
        MEDIATION,
        variables={"x": cg.Categorical(2), "m": cg.Categorical(2), "y": cg.Continuous()},
        mechanisms={
            "x": cg.mechanisms.Equation(value="u < 0.5", noise=uniform),
            "m": cg.mechanisms.Equation(value="u < 0.2 + 0.5*x", noise=uniform),
            "y": cg.mechanisms.Equation(value="x + 4*m - 3*x*m + u", noise=NORMAL),
        },
    )
    found = scm.natural_effects("y", do={"x": 1}, versus={"x": 0}, through="m", seed=0)
    # E[Y | x, m] = x + 4 m - 3 x m; P(m = 1 | x) = 0.2, 0.7
    for part, expected in (("direct", 1 - 3 * 0.2), ("indirect", 4 * 0.5), ("total", 1 + 0.7 * 1 - 0.2 * 4)):
        effect = getattr(found, part)
        assert abs(effect.value - expected) < 5 * effect.standard_error
        assert effect.standard_error < 0.05


def test_a_value_of_another_world_is_that_world_s(interacting, rows):
    ab = interacting.abduct(rows, seed=0)
    does = {"nested": {"x": 3.0, "m": cg.WorldRef("x0")["m"]}, "x0": {"x": 1.0}}
    found = ab.worlds(does)
    torch.testing.assert_close(found["nested"]["m"], found["x0"]["m"], rtol=0, atol=0)
    by_hand = ab.counterfactual({"x": 3.0, "m": found["x0"]["m"]})
    torch.testing.assert_close(found["nested"]["y"], by_hand["y"], rtol=0, atol=0)
    turned = ab.worlds(dict(reversed(does.items())), targets=["y"])
    assert list(turned) == ["x0", "nested"]
    assert list(turned["x0"]) == ["y"]
    assert torch.equal(turned["nested"]["y"], found["nested"]["y"])


def test_worlds_may_be_nested_deeper(interacting, rows):
    does = {
        "c": {"x": 0.0, "m": cg.WorldRef("b")["m"]},
        "b": {"x": 2.0, "m": cg.WorldRef("a")["m"]},
        "a": {"x": 1.0},
    }
    found = interacting.abduct(rows).worlds(does)
    torch.testing.assert_close(found["c"]["m"], found["a"]["m"], rtol=0, atol=0)


def test_composition_holds_by_sample_for_drawn_noise(categories):
    """Y(x, M(x)) = Y(x), where the mediator's noise is drawn."""
    scm, data = categories
    evidence = {node: values[:10] for node, values in data.items()}
    ab = scm.abduct(evidence, num_samples=7, seed=1)
    found = ab.worlds({"high": {"a": "high"}, "nested": {"a": "high", "b": cg.WorldRef("high")["b"]}})
    assert found["high"]["b"].shape == (7, 10)
    assert torch.equal(found["high"]["b"], found["nested"]["b"])
    assert torch.equal(found["high"]["c"], found["nested"]["c"])
    assert len(found["high"]["b"].unique(dim=0)) > 1


def test_provenance_follows_the_value_into_the_other_world(interacting, rows):
    # y is exact there, copied where nothing changed, and so is what is computed from it.
    found = interacting.abduct(rows).worlds({"a": {"x": 1.0}, "b": {"m": cg.WorldRef("a")["m"]}, "f": {}})
    assert set(found["b"].provenance["m"]) == {"exact"}
    assert set(found["b"].provenance["y"]) == {"exact"}
    still = interacting.abduct(rows).worlds({"f": {}, "b": {"m": cg.WorldRef("f")["m"]}})
    assert set(still["b"].provenance["m"]) == {"copied"}
    assert torch.equal(still["b"]["y"], rows["y"])


def test_one_row_meets_several_values_in_both_worlds(interacting, rows):
    ab = interacting.abduct({node: value[:1] for node, value in rows.items()})
    found = ab.worlds({"a": {"x": [1.0, 2.0]}, "b": {"x": [0.0, 0.0], "m": cg.WorldRef("a")["m"]}})
    torch.testing.assert_close(found["b"]["m"], found["a"]["m"])
    with pytest.raises(cg.InterventionError, match="has 1 rows.*2"):
        ab.worlds({"a": {"x": 1.0}, "b": {"x": [0.0, 0.0], "m": cg.WorldRef("a")["m"]}})


@pytest.mark.parametrize(
    ("does", "error", "words"),
    [
        (
            {"a": {"m": cg.WorldRef("b")["m"]}, "b": {"x": cg.WorldRef("a")["x"]}},
            cg.InterventionError,
            "circle: ",
        ),
        ({"a": {"m": cg.WorldRef("a")["m"]}}, cg.InterventionError, "circle: a -> a"),
        ({"a": {"m": cg.WorldRef("aa")["m"]}}, cg.UnknownNameError, "Unknown world 'aa'.*Did you mean 'a'"),
        ({"a": {"m": cg.WorldRef("b")["n"]}, "b": {}}, cg.UnknownNameError, "Unknown node 'n'"),
        ({"a": {"n": cg.WorldRef("b")["m"]}, "b": {}}, cg.UnknownNameError, "Unknown node 'n'"),
        ({"a": {"m": cg.WorldRef("b")}, "b": {}}, cg.InterventionError, r"WorldRef\('b'\)\['m'\]"),
        ({"a": 3}, cg.InterventionError, "World 'a'.*int"),
        ([{"x": 3}], cg.InterventionError, "Worlds have names.*list"),
    ],
)
def test_bad_worlds_are_one_clear_error(interacting, rows, does, error, words):
    with pytest.raises(error, match=words):
        interacting.abduct(rows).worlds(does)


def test_a_world_without_others_takes_no_value_from_them(interacting, rows):
    for ask in (interacting.abduct(rows).counterfactual, interacting.do):
        with pytest.raises(cg.InterventionError, match="only one"):
            ask({"m": cg.WorldRef("a")["m"]})


def test_a_value_outside_the_other_variable_is_refused(categories):
    scm, data = categories
    ab = scm.abduct({node: values[:5] for node, values in data.items()})
    with pytest.raises(cg.DomainError, match="Intervention on 'b'"):
        ab.worlds({"a": {"b": cg.WorldRef("f")["c"]}, "f": {}})


def test_a_value_of_another_node_is_clipped_as_any_other():
    bounded = {"x": cg.Continuous(), "y": cg.Continuous(lower=0, upper=1)}
    values = {"x": "u", "y": "sigmoid(u)"}
    equations = {node: cg.mechanisms.Equation(value=values[node], noise=NORMAL) for node in bounded}
    scm = cg.SCM(nx.empty_graph(list(bounded), create_using=nx.DiGraph), bounded, equations)
    does = {"seen": {}, "fed": {"y": cg.WorldRef("seen")["x"]}}
    ab = scm.abduct({"x": [0.5, 7.0], "y": [0.1, 0.2]}, num_samples=2, seed=0)
    assert ab.worlds(does, clip=True)["fed"].draws("y")[1].tolist() == [0.5, 1.0]
    with pytest.raises(cg.DomainError, match=r"Intervention on 'y': row 1 is 7\.0, above"):
        ab.worlds(does)
    drawn = {"do": {"y": cg.WorldRef("factual")["x"]}, "statistic": lambda y: (y >= 0) & (y <= 1)}
    assert scm.effect("y", **drawn, n=50, clip=True, seed=0).overall.under_do == 1.0


@pytest.mark.parametrize(
    ("through", "error", "words"),
    [
        ([], cg.InterventionError, "no mediator"),
        (["q"], cg.UnknownNameError, "in through"),
        (["x"], cg.InterventionError, "is set"),
        (["y"], cg.InterventionError, "is the target"),
    ],
)
def test_what_is_no_mediator_is_refused(interacting, through, error, words):
    with pytest.raises(error, match=words):
        interacting.natural_effects("y", do={"x": 1}, versus={"x": 0}, through=through)


def test_a_mediator_lies_on_a_path(linear):
    scm, _ = linear
    with pytest.raises(cg.InterventionError, match="'w' lies on no path from x to z"):
        scm.natural_effects("z", do={"x": 1}, through="w")


def test_a_contrast_is_the_difference_of_its_worlds(categories):
    scm, data = categories
    evidence = {node: values[:10] for node, values in data.items()}
    for samples in (None, 4):
        ab = scm.abduct(evidence, num_samples=samples, seed=0)
        found = ab.contrast({"a": "high"}, {"a": "low"})
        one, other = ab.counterfactual({"a": "high"}), ab.counterfactual({"a": "low"})
        assert torch.equal(found["c"], one["c"] - other["c"])
        assert torch.equal(found["b"], one["b"] != other["b"])
        assert found["a"].all()
        frame = found.to_frame()
        assert list(frame.columns) == ["a", "b", "c"]
        np.testing.assert_array_equal(frame["c"], found["c"].flatten())
        assert frame["b"].dtype == bool
    assert repr(found).startswith("Contrast(do(a = high) against do(a = low), 4 samples x 10 rows: a, b, c)")


def test_a_contrast_with_nothing_is_with_the_evidence(interacting, rows):
    found = interacting.abduct(rows).contrast({"x": cg.Shift(1.0)}, targets=["y"])
    expected = 2 + 2.1 + 0.5 * (rows["m"] + 0.7 * (rows["x"] + 1))
    torch.testing.assert_close(found["y"], expected, rtol=0, atol=1e-9)
    assert list(found) == ["y"]


def test_a_contrast_keeps_the_index(interacting, rows):
    import pandas as pd

    frame = pd.DataFrame(
        {node: value.numpy() for node, value in rows.items()}, index=list("abcdefghijklmnopqrst")
    )
    found = interacting.abduct(frame).contrast({"x": 3.0}, {"x": 1.0})
    assert found["y"].index.equals(frame.index)
    assert found.to_frame().index.equals(frame.index)


def test_worlds_of_different_abductions_are_not_compared(interacting, rows):
    one = interacting.abduct(rows, seed=0).counterfactual({"x": 1})
    fewer = interacting.abduct({node: value[:5] for node, value in rows.items()}, seed=0)
    moved = interacting.abduct({**rows, "y": rows["y"] + 1}, seed=0)
    for other in (fewer, moved):
        with pytest.raises(cg.EvidenceError, match="one abduction"):
            cg.Contrast(one, other.counterfactual({"x": 0}))
    with pytest.raises(cg.UnknownNameError, match="in the contrast"):
        _ = cg.Contrast(one, one)["q"]


def test_images_are_compared_by_pixel(pictures):
    scm, data = pictures
    ab = scm.abduct({node: values[:2] for node, values in data.items()}, seed=0)
    found = ab.contrast({"kind": 1}, {"kind": 0})
    assert found["picture"].shape == (2, 1, 8, 8)
    assert found["picture"].abs().max() <= 1
    assert list(found.to_frame().columns) == ["kind"]
