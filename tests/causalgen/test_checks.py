"""A right model passes its check, and each way of being wrong is found and named."""

import json
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
import torch

import causalgen as cg
from causalgen.checking import goodness
from graphs.errors import DataError, InterventionError, NotFittedError
from tests.mechanisms.fit import normal

N = 1000
RANDOM = np.random.default_rng(0)
X, U, W = RANDOM.normal(size=(3, N))
Y = 2 * X + U
Z = -X + 0.5 * Y + RANDOM.normal(size=N)
ROWS = {"x": X, "y": Y, "z": Z, "w": W}
RIGHT = [("x", "y"), ("x", "z"), ("y", "z")]


def fitted(edges, rows, variables=None, **mechanisms):
    graph = nx.DiGraph(edges)
    graph.add_nodes_from(rows)
    variables = {node: cg.Continuous() for node in rows} | (variables or {})
    linear = {node: cg.mechanisms.Additive() for node in rows if variables[node].type == "continuous"}
    return cg.SCM(graph, variables, linear | mechanisms).fit(rows, progress=False)


def failed(report):
    return {str(test) for test in report.independences if not test.holds}


def test_a_right_model_passes():
    report = fitted(RIGHT, ROWS).check(ROWS)
    assert report.ok and not report.problems and not report.skipped
    assert {str(test) for test in report.independences} == {
        "noise of y ⟂ x",
        "noise of z ⟂ x",
        "noise of z ⟂ y",
        "x ⟂ w",
        "y ⟂ w | x",
        "z ⟂ w | x, y",
    }


def test_copies_of_rows_are_told_where_they_look_like_evidence():
    """Of rows that are each there three times, half of the checks of true models found a problem."""
    some = {node: np.repeat(column[:300], 3) for node, column in ROWS.items()}
    report = fitted([("x", "y"), ("y", "z")], some).check(some)
    assert report.repeated == 600 and "600 rows equal an earlier one" in repr(report) and not report.ok
    report = fitted(RIGHT, ROWS).check(ROWS)
    assert report.repeated == 0 and "equal an earlier" not in repr(report)


def test_a_missing_edge_is_found():
    report = fitted([("x", "y"), ("y", "z")], ROWS).check(ROWS)
    assert failed(report) == {"z ⟂ x | y"} and not report.ok
    assert report.problems[0].startswith("z depends on x beyond its parents")


def test_one_missing_edge_is_found_among_many_nodes():
    """Of 20 nodes, 190 pairs: by permutations alone p is 1e-4 at least, and 0.02 among so many tests."""
    random = np.random.default_rng(0)
    rows = {f"x{k}": random.normal(size=200) for k in range(20)}
    rows["x19"] = rows["x0"] + 0.3 * rows["x19"]
    assert failed(fitted([], rows).check(rows)) == {"x19 ⟂ x0"}


def test_one_mechanism_without_a_density_that_does_not_fit_is_found_among_many_nodes():
    random = np.random.default_rng(0)
    rows = {f"x{k}": random.normal(size=200) for k in range(14)}
    scm = fitted([], rows, x0=cg.mechanisms.Additive(noise="empirical"))
    report = scm.check(rows | {"x0": 3 + 0.1 * rows["x0"]})
    assert [node for node, fit in report.fits.items() if not fit.holds] == ["x0"] and not failed(report)


def test_a_row_of_probability_zero_is_told_also_in_json():
    codes = np.array([0] * 30 + [1] * 10)
    scm = fitted([], {"x": codes}, {"x": cg.Categorical(3)}, x=cg.mechanisms.Categorical(smoothing=0))
    codes[35] = 2
    report = scm.check({"x": codes})
    assert report.fits["x"].mechanism == -np.inf and "-inf" in str(report)
    told = json.loads(json.dumps(report.to_dict(), allow_nan=False))["fits"]["x"]
    assert told["mechanism"] is None and "probability zero" in told["note"] and not told["holds"]


def test_rows_that_lack_a_value_are_dropped_where_that_is_asked():
    gaps = {
        node: np.where(np.arange(N) % 5 == k, np.nan, column) for k, (node, column) in enumerate(ROWS.items())
    }
    scm = fitted(RIGHT, ROWS)
    with pytest.raises(DataError, match=r"missing in 800 of the 1,000 rows.*missing='drop'"):
        scm.check(gaps)
    with pytest.raises(DataError, match="'refuse' or 'drop', got 'keep'"):
        scm.check(gaps, missing="keep")
    report = scm.check(gaps, missing="drop", seed=1)
    assert (report.rows, report.dropped, scm.check(ROWS).dropped) == (800, 800, 0)
    assert "on 800 rows (800 lack values, left out where read)" in report.verdict
    for node, family in {"x": "x", "y": "xy", "z": "xyz"}.items():
        whole = np.all([np.isfinite(gaps[each]) for each in family], 0)
        own = {each: column[whole] for each, column in ROWS.items()}
        assert report.fits[node].mechanism == pytest.approx(scm.check(own).fits[node].mechanism)
    with pytest.raises(DataError, match="20 rows that have a node's value and those of .*, got 16"):
        scm.check({node: column[:20] for node, column in gaps.items()}, missing="drop")


def test_a_right_model_passes_where_a_value_was_measured_by_what_came_before():
    """Complete rows are those with a high y, among which x and the noise of y depend: 3 problems."""
    rows = {"x": X, "y": Y, "z": np.where(Y > 1, Y + W, np.nan)}
    graph, linear = nx.DiGraph([("x", "y"), ("y", "z")]), {node: cg.mechanisms.Additive() for node in rows}
    scm = cg.SCM(graph, {node: cg.Continuous() for node in rows}, linear)
    report = scm.fit(rows, missing="drop", progress=False).check(rows, missing="drop")
    assert report.ok and len(report.independences) == 3 and not report.untested
    few = rows | {"z": np.where(np.cumsum(np.isfinite(rows["z"])) > 19, np.nan, rows["z"])}
    report = scm.check(few, missing="drop")
    assert report.ok and "fewer than 20 rows" in report.skipped["z"] and report.fits["z"].measure == "none"


def test_a_common_cause_is_found():
    rows = {"y": Y, "z": X + RANDOM.normal(size=N), "w": W}
    assert failed(fitted([("w", "y"), ("w", "z")], rows).check(rows)) == {"z ⟂ y | w"}


@pytest.mark.parametrize(("edge", "ok"), [(("x", "y"), True), (("y", "x"), False)])
def test_the_direction_of_a_nonlinear_edge(edge, ok):
    rows = {"x": X, "y": np.tanh(2 * X) + 0.5 * X**2 + 0.3 * U}
    network = cg.mechanisms.Additive(function="network", training={"epochs": 40})
    report = fitted([edge], rows, x=network, y=network).check(rows)
    assert (not failed(report)) == ok == report.ok


def test_a_wrong_form_is_told_from_a_wrong_graph():
    rows = {"x": X, "y": X**2 + U}
    report = fitted([("x", "y")], rows).check(rows)
    assert failed(report) == {"noise of y ⟂ x"}
    assert "wrong form of mechanism" in str(report)


def test_an_interaction_of_parents_that_no_sum_of_them_has_is_found():
    """y = g x + u, g = -1 or 1: its noise depends on x and g together, and was held against each alone."""
    g = np.random.default_rng(3).choice([-1.0, 1.0], N)
    rows = {"x": X, "g": g, "y": 0.6 * g * X + U}
    report = fitted([("x", "y"), ("g", "y")], rows).check(rows)
    assert failed(report) & {"noise of y ⟂ x", "noise of y ⟂ g"}


def test_categories(categories):
    scm, rows = categories
    assert scm.check(rows).ok
    wrong = cg.SCM(nx.DiGraph([("a", "b"), ("b", "c")]), scm.variables, {"c": cg.mechanisms.Additive()})
    assert "c ⟂ a | b" in failed(wrong.fit(rows, progress=False).check(rows))


def test_categories_without_causes_are_held_against_each_other_as_they_are():
    """Drawn noise would blur them: of these tables, all of p < 0.001 by correlation, it found one of five."""
    for seed in (1, 2, 4, 6, 11):
        random = np.random.default_rng(seed)
        one = random.integers(0, 2, 300)
        rows = {"one": one, "other": (random.random(300) < np.where(one, 0.64, 0.4)).astype(int)}
        assert abs(np.corrcoef(*rows.values())[0, 1]) * 300**0.5 > 3.4
        report = fitted([], rows, dict.fromkeys(rows, cg.Categorical(2))).check(rows)
        assert failed(report) == {"other ⟂ one"}


def test_a_missing_edge_between_categories():
    random = np.random.default_rng(1)
    a = random.integers(0, 3, N)
    b = (a + (random.random(N) < 0.4)) % 3
    rows = {"a": a, "b": b, "c": (a + b + (random.random(N) < 0.3)) % 3}
    variables = {node: cg.Categorical(3) for node in rows}
    edges = [("a", "b"), ("b", "c")]
    assert failed(fitted(edges, rows, variables).check(rows)) == {"c ⟂ a | b"}
    assert fitted([*edges, ("a", "c")], rows, variables).check(rows).ok


def test_a_mechanism_that_fits_worse_than_the_marginal():
    rows = {"x": np.exp(2 * X)}
    report = fitted([], rows).check(rows)
    assert not report.fits["x"].holds and not report.ok
    assert report.fits["x"].mechanism < report.fits["x"].baseline
    assert report.problems == ["x: the marginal alone explains it better."]


def test_the_marginal_is_a_density():
    values = torch.cat([normal(300), torch.tensor([1e6]).double()])  # an outlier costs a few nats, no more
    grid = torch.linspace(-60, 60, 20_001).double()
    density = [goodness._kernels(torch.cat([values, point[None]]))[-1].exp() for point in grid[::50]]
    assert torch.trapezoid(torch.stack(density), grid[::50]).item() == pytest.approx(1, abs=0.02)
    assert goodness._kernels(values)[300] > -60


@pytest.mark.parametrize("noise", ["normal", "empirical"])
def test_where_the_rows_lie_does_not_matter(noise):
    """Of 300 rows, since up to 25 have their distances computed in another way."""
    rows = {"x": X[:300].round(2), "y": Y[:300].round(2)}
    kind = {"y": cg.mechanisms.Additive(noise=noise)}
    near, far = (
        fitted([("x", "y")], moved, **kind).check(moved)
        for moved in (rows, {node: values + 1e9 for node, values in rows.items()})
    )
    assert near.ok and far.ok
    for node, fit in near.fits.items():
        assert far.fits[node].baseline == pytest.approx(fit.baseline, abs=1e-3)


@pytest.mark.parametrize("offset", [0.0, 1.7e9])
def test_what_parents_determine_to_the_last_digit_has_no_noise_to_test(offset):
    """Of y = 2 x the noise is rounding, which follows x: it was called a wrong form."""
    x = offset + 100 * X
    rows = {"x": x, "y": 2 * (x - offset) + 1, "z": X + U}
    report = fitted([("x", "y"), ("y", "z")], rows).check(rows)
    assert report.ok and report.skipped == {"y": "it has no noise: its parents determine it"}


def test_a_law_that_is_as_wrong_in_all_rows_fails():
    """1/4 each of four categories, of which rows have two, half each: as short in each row, without error."""
    found = goodness.by_density(torch.full((40,), 0.25).log(), torch.arange(40) % 2, cg.Categorical(4))
    assert found.error == 0 and found.p_value == 0


def test_likelihoods_are_means_of_log_prob_on_the_rows():
    scm = fitted(RIGHT, ROWS)
    total = sum(fit.mechanism for fit in scm.check(ROWS).fits.values())
    assert total == pytest.approx(scm.log_prob(ROWS).mean().item())


def test_without_a_density_generated_values_are_compared():
    empirical = cg.mechanisms.Additive(noise="empirical")
    right = fitted(RIGHT, ROWS, y=empirical).check(ROWS).fits["y"]
    assert right.measure == "energy distance" and right.holds
    assert right.mechanism < 0.1 * right.baseline
    shifted = ROWS | {"z": Z + 20}
    assert not fitted(RIGHT, ROWS, z=empirical).check(shifted).fits["z"].holds


def test_whole_numbers_that_no_training_row_has_are_no_problem_of_rows_drawn_again():
    """Of counts about 1,000, drawn again from 500 rows, 39 of 500 further rows "had probability zero"."""
    counts = np.random.default_rng(1).poisson(1000, N)
    rows = {"n": counts, "y": 0.1 * counts + U}
    half, rest = (
        {node: column[part] for node, column in rows.items()} for part in (slice(500), slice(500, N))
    )
    empirical = cg.mechanisms.Empirical()
    scm = fitted([("n", "y")], half, {"n": cg.Integer()}, n=empirical)
    assert scm.check(half).ok and scm.check(rest).ok
    moved = scm.check({"n": rest["n"] + 200, "y": rest["y"] + 20}).fits["n"]
    assert moved.measure == "energy distance" and not moved.holds


def test_equations_that_the_rows_contradict():
    rows = {"x": X, "y": 2 * X}
    equation = cg.mechanisms.Equation(value="2*x")
    report = fitted([("x", "y")], rows, y=equation).check(rows)
    assert report.ok and report.fits["y"].measure == "none"
    assert report.skipped == {"y": "it has no noise: its parents determine it"}
    contradicted = fitted([("x", "y")], rows, y=equation).check({"x": X, "y": Y})
    assert not contradicted.ok and "y" in contradicted.problems[0]


def test_impossible_categories_are_a_problem_and_no_error():
    rows = {"a": np.arange(40) % 2, "b": np.arange(40) % 2}
    counted = cg.mechanisms.Categorical(smoothing=0)
    variables = {node: cg.Categorical(2) for node in rows}
    scm = fitted([("a", "b")], rows, variables, b=counted)
    report = scm.check(rows | {"b": 1 - rows["b"]})
    assert not report.fits["b"].holds
    assert report.skipped["b"] == "no noise explains the rows"
    json.dumps(report.to_dict())


def test_pictures_are_compared_and_their_noise_is_not_tested(pictures):
    scm, rows = pictures
    report = scm.check(rows)
    assert report.fits["picture"].measure == "energy distance"
    assert "approximately" in report.skipped["picture"]


def test_noise_of_pictures_is_tested_where_it_is_drawn(pictures):
    scm, rows = pictures
    report = scm.with_options("picture", abduction="posterior", solver={"steps": 4}).check(rows)
    assert "picture" not in report.skipped


def test_intervened_nodes_are_left_out():
    scm = fitted(RIGHT, ROWS)
    report = scm.do({"y": 1.0}).check(ROWS)
    assert report.skipped == {"y": "it was intervened on"} and report.fits["y"].measure == "none"
    with pytest.raises(InterventionError, match="function of a natural value"):
        scm.do({"y": cg.Shift(1)}).check(ROWS)


def test_the_seed_decides():
    scm = fitted(RIGHT, ROWS)
    first, again = scm.check(ROWS, seed=3), scm.check(ROWS, seed=3)
    assert first.to_dict() == again.to_dict()
    assert first.to_dict() != scm.check(ROWS, seed=4).to_dict()


def test_at_most_so_many_rows_are_looked_at():
    many = {node: np.tile(column, 3) for node, column in ROWS.items()}
    assert fitted(RIGHT, ROWS).check(many).rows == 1000


def test_large_graphs_are_sampled(monkeypatch):
    monkeypatch.setattr("causalgen.checking.checks._TESTS", 2)
    report = fitted(RIGHT, ROWS).check(ROWS)
    assert report.untested == 1 and len(report.independences) == 3 + 2
    assert "1 further independences" in str(report)


def test_the_report_reads_well():
    report = fitted([("x", "y"), ("y", "z")], ROWS).check(ROWS)
    assert "at most 0.1% of checks" in str(replace(report, level=0.001))  # "0%" it was
    text = str(report)
    assert text.startswith("Checked 4 nodes on 1,000 rows: 1 problem found.\n")
    (line,) = [line for line in text.splitlines() if "z ⟂ x | y" in line]
    assert line.endswith("FAILS")
    assert "np." not in text and max(map(len, text.splitlines())) <= 140
    assert text.endswith(
        "The error of a fit to few rows, of noise with narrow peaks or heavy tails, counts as one too."
    )


def test_what_cannot_be_checked():
    scm = fitted(RIGHT, ROWS)
    with pytest.raises(DataError, match="at least 20 rows, got 5"):
        scm.check({node: column[:5] for node, column in ROWS.items()})
    with pytest.raises(DataError):
        scm.check({"x": X})
    fresh = cg.SCM(nx.DiGraph([("x", "y")]), {"x": cg.Continuous(), "y": cg.Continuous()})
    with pytest.raises(NotFittedError, match="'x'"):
        fresh.check(ROWS)


def test_a_cause_that_shows_together_with_a_parent_alone_is_found():
    """z is the exclusive or of x and y, of which each by itself says nothing about it."""
    x, y = RANDOM.integers(0, 2, (2, N))
    rows = {"x": x, "y": y, "z": x ^ y ^ (RANDOM.random(N) < 0.02)}
    scm = fitted([("y", "z")], rows, {node: cg.Categorical(2) for node in rows})
    assert failed(scm.check(rows, seed=0)) == {"z ⟂ x | y"}


def test_a_cause_that_hardly_differs_from_a_parent_is_found():
    """y is x but for .3, and z follows x: of the noise of z given y, x alone says little."""
    x, e, u = RANDOM.normal(size=(3, N))
    rows = {"x": x, "y": x + 0.3 * e, "z": x + u}
    assert failed(fitted([("x", "y"), ("y", "z")], rows).check(rows, seed=0)) == {"z ⟂ x | y"}
    rows["z"] = rows["y"] + u
    assert fitted([("x", "y"), ("y", "z")], rows).check(rows, seed=0).ok


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_probabilities_and_densities_are_not_compared(unit):
    """A true model holds and a wrong one does not, whatever the unit of a number that lies on a grid."""

    def model(share):
        steps = cg.mechanisms.Equation(value=f"{unit} * (a + u)", noise={"u": {"binomial": [10, share]}})
        coin = cg.mechanisms.Equation(value="u", noise={"u": {"bernoulli": 0.5}})
        return cg.SCM(
            nx.DiGraph([("a", "y")]), {"a": cg.Categorical(2), "y": cg.Continuous()}, {"a": coin, "y": steps}
        )

    rows = model(0.5).sample(300, seed=0).to_frame()
    assert model(0.5).check(rows, seed=0).ok
    assert not model(0.1).check(rows, seed=0).fits["y"].holds


def test_numbers_of_which_some_are_certain():
    """A hurdle: nobody who does not smoke has pack years. Its rows have probabilities and densities."""

    def model(packs):
        return cg.SCM(
            nx.DiGraph([("smokes", "packs"), ("packs", "lung")]),
            {
                "smokes": cg.Categorical(["no", "yes"]),
                "packs": cg.Continuous(lower=0),
                "lung": cg.Continuous(),
            },
            {
                "smokes": cg.mechanisms.Equation(value="u", noise={"u": {"bernoulli": 0.3}}),
                "packs": cg.mechanisms.Equation(value=packs, noise={"u": {"exponential": [1]}}),
                "lung": cg.mechanisms.Equation(value="u - packs", noise={"u": {"normal": [0, 1]}}),
            },
        )

    scm = model("smokes * u")
    assert not model("smokes * (u + 3)").check(scm.sample(300, seed=0).to_frame(), seed=0).fits["packs"].holds
    assert all(scm.check(scm.sample(300, seed=k).to_frame(), seed=0).ok for k in range(5))


@pytest.mark.parametrize("step", [0.01, 100.0])
def test_a_grid_that_a_flow_declares_has_any_step(step):
    a, e = RANDOM.normal(size=(2, 500))
    rows = {"a": a, "y": np.round(10 * a + 10 * e) * step}
    flow = cg.mechanisms.Flow(dequantize=step, training={"epochs": 15})
    assert fitted([("a", "y")], rows, y=flow).check(rows, seed=0).ok
