"""Answers tell what was observed from what was inferred, and one draw from a distribution."""

import json
import math
import re

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch

import causalgen as cg
from causalgen.counterfactuals.summaries import spread_text

NORMAL = {"u": {"normal": [0, 1]}}


@pytest.fixture(scope="module")
def chain():
    """x -> m -> y, m = 2x + u_m, y = m + u_y, standard normal noise."""
    graph = nx.DiGraph([("x", "m"), ("m", "y")])
    values = {"x": "u", "m": "2*x + u", "y": "m + u"}
    return cg.SCM(
        graph,
        dict.fromkeys(graph, cg.Continuous()),
        {node: cg.mechanisms.Equation(value=value, noise=NORMAL) for node, value in values.items()},
    )


@pytest.fixture(scope="module")
def clinic():
    """Labels, codes and counts with known laws: sex -> ward -> visits."""
    graph = nx.DiGraph([("sex", "ward"), ("ward", "visits")])
    return cg.SCM(
        graph,
        {"sex": cg.Categorical(["f", "m"]), "ward": cg.Categorical(3), "visits": cg.Integer(lower=0)},
        {
            "sex": cg.mechanisms.Equation(value="u", noise={"u": {"bernoulli": 0.3}}),
            "ward": cg.mechanisms.Equation(value="sex + u", noise={"u": {"bernoulli": 0.5}}),
            "visits": cg.mechanisms.Equation(value="2*ward + u", noise={"u": {"geometric": [0.5]}}),
        },
    )


GAPS = {"x": [1.0, 1.0, 0.0], "m": [np.nan, 3.0, 0.0], "y": [5.0, 5.0, 0.0]}
"""m given x = 1, y = 5 is N(3.5, 1/2): the mean of 2x and y."""


def test_factual_is_what_was_observed(chain):
    cf = chain.counterfactual(GAPS, do={"x": 3.0}, num_samples=4000, seed=0)
    assert cf.factual["m"].isnan().tolist() == [True, False, False]
    assert cf.factual["m"][1:].tolist() == [3.0, 0.0]
    assert cf.factual["x"].tolist() == GAPS["x"]
    assert cf.sources["m"].tolist() == ["inferred", "observed", "observed"]
    assert list(cf.inferred) == ["m"]
    assert cf.inferred["m"].shape == (4000, 3)
    assert (cf.inferred["m"][:, 1] == 3.0).all()
    assert abs(cf.inferred["m"][:, 0].mean() - 3.5) < 0.05
    assert abs(cf.inferred["m"][:, 0].var() - 0.5) < 0.05
    assert not chain.counterfactual({"x": 1.0, "m": 2.0, "y": 3.0}, do={"x": 0.0}).inferred


def test_gaps_take_the_form_of_the_type_and_are_evidence_again(clinic):
    evidence = {
        "sex": ["f", None, "m"],
        "ward": np.array([np.nan, 1, 2]),
        "visits": [3, 2, None],
    }
    ab = clinic.abduct(evidence, num_samples=50, seed=3)
    cf = ab.counterfactual({"ward": 2})
    assert cf.factual["sex"].tolist() == ["f", None, "m"]
    np.testing.assert_array_equal(cf.factual["ward"], [np.nan, 1, 2])
    np.testing.assert_array_equal(cf.factual["visits"], [3, 2, np.nan])
    assert cf.inferred["visits"].dtype == torch.int64 and cf.inferred["sex"].dtype == object
    again = clinic.abduct(cf.factual, num_samples=50, seed=3).counterfactual({"ward": 2})
    for node in cf:
        np.testing.assert_array_equal(np.asarray(cf[node]), np.asarray(again[node]))
    frame = clinic.counterfactual(pd.DataFrame(evidence, index=list("abc")), do={"ward": 2}, seed=3)
    assert frame.factual["sex"].isna().tolist() == [False, True, False]
    assert frame.factual["visits"].index.tolist() == list("abc")
    assert frame.factual["visits"].isna().tolist() == [False, False, True]


def test_an_image_that_was_not_seen_is_none(pictures):
    scm, data = pictures
    cf = scm.counterfactual({"kind": [0, 1], "picture": [data["picture"][0], None]}, do={"kind": 1}, seed=0)
    seen, unseen = cf.factual["picture"]
    assert unseen is None
    np.testing.assert_allclose(seen, data["picture"][0] / 255, atol=1e-6)
    assert cf.sources["picture"].tolist() == ["observed", "prior"]
    assert cf.inferred["picture"].shape == (2, 1, 8, 8)


def test_one_row_in_many_worlds_and_what_was_set_before(chain):
    cf = chain.counterfactual({"x": 1.0, "y": 5.0}, do={"x": [0.0, 1.0, 2.0]}, num_samples=5, seed=0)
    assert cf.factual["m"].isnan().all() and len(cf.factual["m"]) == 3
    assert cf.sources["m"].tolist() == ["inferred"] * 3
    assert cf.inferred["m"].shape == (5, 3)
    known = chain.do({"x": 1.0}).counterfactual({"m": 2.0, "y": 2.0}, do={"x": 0.0})
    assert known.sources["x"].tolist() == ["observed"] and known.factual["x"].tolist() == [1.0]


@pytest.mark.parametrize("samples", [None, 6])
def test_files_hold_what_was_observed_and_what_was_inferred_apart(chain, tmp_path, samples):
    cf = chain.counterfactual(GAPS, do={"x": 3.0}, num_samples=samples, seed=0)
    folder = cf.save(tmp_path / "cf")
    factual = pd.read_csv(folder / "factual" / "values.csv")
    assert factual["m"].isna().tolist() == [True, False, False]
    told = json.loads((folder / "result.json").read_text())
    assert told["factual"]["m"] == [None, 3.0, 0.0]
    given = np.array(told["inferred"]["m"], dtype=object).reshape(-1, 3)
    assert (given[:, 1:] == None).all() and len(given) == (samples or 1)  # noqa: E711
    assert told["sources"] == {
        "x": ["observed"] * 3,
        "m": ["inferred", "observed", "observed"],
        "y": ["observed"] * 3,
    }
    assert told["draws"] == (samples or 1) and told["determined"] is False
    drawn = pd.read_csv(folder / "inferred" / "values.csv")
    assert drawn["row"].tolist() == [0] * (samples or 1)
    draws = np.asarray(cf.inferred["m"])
    np.testing.assert_allclose(drawn["m"], draws[:, 0] if samples else draws[:1])
    (line,) = pd.read_csv(folder / "inferred" / "summary.csv").to_dict("records")
    assert (line["node"], line["row"], line["provenance"]) == ("m", 0, "inferred")
    assert line["mean"] == pytest.approx(drawn["m"].mean())
    assert np.isnan(line["sd"]) if samples is None else line["sd"] == pytest.approx(drawn["m"].std())
    assert (folder / "summary.csv").exists() is (samples is not None)
    whole = chain.counterfactual({"x": 1.0, "m": 2.0, "y": 3.0}, do={"x": 0.0}).save(tmp_path / "whole")
    assert not (whole / "inferred").exists()
    assert json.loads((whole / "result.json").read_text())["determined"] is True


def test_categories_counts_and_images_are_saved_with_gaps(clinic, pictures, tmp_path):
    evidence = {"sex": ["f", None], "ward": [None, 1], "visits": [3, 2]}
    folder = clinic.counterfactual(evidence, do={"ward": 2}, num_samples=400, seed=0).save(tmp_path / "a")
    assert "3\n" in (folder / "factual" / "values.csv").read_text()  # and not 3.0
    told = json.loads((folder / "result.json").read_text())
    assert told["factual"] == {"sex": ["f", None], "ward": [None, 1], "visits": [3, 2]}
    table = pd.read_csv(folder / "inferred" / "summary.csv").set_index(["node", "row", "category"])
    # P(ward | f, visits = 3): ward 0 or 1 alike, geometric 1/16 against 1/4.
    assert table.loc[("ward", 0, "1"), "probability"] == pytest.approx(0.8, abs=0.07)
    # P(sex | ward = 1): .7 * .5 against .3 * .5.
    assert table.loc[("sex", 1, "f"), "probability"] == pytest.approx(0.7, abs=0.07)
    scm, data = pictures
    gap = {"kind": [0, 1], "picture": [data["picture"][0], None]}
    folder = scm.counterfactual(gap, do={"kind": 1}, num_samples=2, seed=0).save(tmp_path / "b")
    assert [path.name for path in (folder / "factual" / "picture").iterdir()] == ["0000.png"]
    names = sorted(path.name for path in (folder / "inferred" / "picture").iterdir())
    assert names == ["0001-00.png", "0001-01.png"]
    assert pd.read_csv(folder / "factual" / "values.csv")["picture"].isna().tolist() == [False, True]


def test_summaries_are_the_statistics_of_the_draws(chain, clinic):
    cf = chain.counterfactual(GAPS, do={"x": 3.0}, num_samples=4000, seed=0)
    table = cf.summary()
    line = table.loc[("m", 0, "")]
    # m = 6 + u_m, u_m ~ N(1.5, 1/2)
    assert line["mean"] == pytest.approx(7.5, abs=0.05) and line["sd"] == pytest.approx(0.5**0.5, abs=0.03)
    assert line["5%"] == pytest.approx(7.5 - 1.645 * 0.5**0.5, abs=0.07)
    assert line["50%"] == pytest.approx(7.5, abs=0.05) and line["provenance"] == "inferred"
    assert table.loc[("m", 1, ""), ["mean", "sd", "95%"]].tolist() == [7.0, 0.0, 7.0]
    np.testing.assert_allclose(table.loc["m"]["mean"], cf["m"].mean(0))
    np.testing.assert_allclose(table.loc["m"]["sd"][:1], cf["m"].std(0)[:1])
    one = chain.counterfactual(GAPS, do={"x": 3.0}, seed=0).summary()
    assert np.isnan(one.loc[("m", 0, ""), "sd"]) and one.loc[("m", 1, ""), "sd"] == 0.0
    drawn = clinic.counterfactual({"sex": ["f"]}, do={}, num_samples=3000, seed=0).summary()
    shares = drawn.loc["ward"].loc[0]["probability"]
    assert shares["0"] == pytest.approx(0.5, abs=0.03) and shares.sum() == pytest.approx(1)
    assert "2" not in shares.index  # cannot happen
    frame = pd.DataFrame({"x": [1.0]}, index=["ann"])
    assert ("y", "ann", "") in chain.counterfactual(frame, do={}, num_samples=3).summary().index
    visits = pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["site", "mean"])
    both = chain.counterfactual(pd.DataFrame({"x": [1.0, 2.0]}, visits), do={}, num_samples=3).summary()
    assert both.index.names == ["node", "site", "row_1", "category"] and ("y", "b", 2, "") in both.index


def test_vectors_have_a_line_a_component():
    scm = cg.SCM(
        nx.DiGraph([("pair", "sum")]),
        {"pair": cg.Continuous(shape=(2,)), "sum": cg.Continuous()},
        dict.fromkeys(("pair", "sum"), cg.mechanisms.Additive()),
    )
    pair = np.random.default_rng(0).normal(size=(50, 2))
    scm.fit({"pair": pair, "sum": pair.sum(1)}, progress=False)
    cf = scm.counterfactual({"sum": [1.0, 2.0]}, do={"sum": 0.0}, num_samples=9, seed=0)
    assert cf.factual["pair"].isnan().all() and cf.factual["pair"].shape == (2, 2)
    table = cf.summary()
    np.testing.assert_allclose(table.loc["pair_1"]["mean"], cf["pair"].mean(0)[:, 1])


def test_what_another_seed_would_change_is_not_determined(chain, clinic):
    whole = {"x": 1.0, "m": 2.0, "y": 3.0}
    assert chain.counterfactual(whole, do={"x": 0.0}).determined["y"].tolist() == [True]
    gaps = chain.counterfactual(GAPS, do={"x": 3.0}, seed=0)
    assert gaps.determined["m"].tolist() == [False, True, True]
    assert gaps.determined["y"].tolist() == [False, True, True]
    stochastic = chain.counterfactual(whole, do={"m": cg.Stochastic({"normal": [0, 1]})}, seed=0)
    assert {node: mask.tolist() for node, mask in stochastic.determined.items()} == {
        "x": [True], "m": [False], "y": [False],
    }  # fmt: skip
    natural = chain.counterfactual({"x": 1.0, "y": 3.0}, do={"m": cg.Shift(1.0)}, seed=0)
    assert not natural.determined["m"].any() and natural.provenance["m"].tolist() == ["interventional"]


def test_determined_agrees_with_other_seeds(categories, linear):
    for scm, data in (categories, linear):
        nodes = list(data)
        evidence = {node: data[node][:40].copy() for node in nodes}
        evidence[nodes[1]] = [None if k % 3 == 0 else value for k, value in enumerate(evidence[nodes[1]])]
        do = {nodes[0]: evidence[nodes[0]][0]}
        one, other = (scm.counterfactual(evidence, do=do, seed=seed) for seed in (1, 2))
        moved = {node: np.asarray(one[node]) != np.asarray(other[node]) for node in nodes}
        assert not any((moved[node] & one.determined[node]).any() for node in nodes)
        assert any(each.any() for each in moved.values())


def test_what_one_draw_leaves_as_it_was_is_not_determined():
    """A category that is drawn again as observed, or as it is set, left its children "copied" for certain."""
    random = np.random.default_rng(0)
    x = random.integers(0, 2, 400)
    y = (random.random(400) < 0.3 + 0.3 * x).astype(int)
    rows = {"x": x, "y": y, "z": 2 * y + random.normal(size=400)}
    scm = cg.SCM(
        nx.DiGraph([("x", "y"), ("y", "z")]),
        {"x": cg.Categorical(2), "y": cg.Categorical(2), "z": cg.Continuous()},
        {"z": cg.mechanisms.Additive()},
    ).fit(rows, progress=False)
    evidence = {"x": [0] * 9, "y": [0] * 9, "z": [0.0] * 9}
    drawn = {"y": cg.Stochastic({"bernoulli": 0.5})}
    for given, do in ((evidence, {"x": 1}), (evidence, drawn), ({**evidence, "x": [None] * 9}, {"x": 1})):
        one = scm.counterfactual(given, do, seed=0)
        many = scm.counterfactual(given, do, seed=0, num_samples=200)
        same = one["z"] == 0.0
        assert bool(same.any()) and not bool(same.all())
        assert not one.determined["z"].any() and one.summary().loc["z"]["sd"].isna().all()
        assert (
            one.provenance["z"].tolist() == many.provenance["z"].tolist()
            and "copied" not in one.provenance["z"]
        )
    null = scm.counterfactual(evidence, {"x": 0}, seed=0)
    assert null.determined["z"].all() and set(null.provenance["z"]) == {"copied"}


def test_what_follows_without_noise_from_what_was_observed_is_determined(tmp_path):
    """A body mass index that evidence lacked was called one draw of a distribution."""
    made, names = cg.mechanisms.Equation, ("height", "weight", "bmi", "obese", "risk")
    scm = cg.SCM(
        nx.DiGraph(
            [("height", "bmi"), ("weight", "bmi"), ("bmi", "obese"), ("bmi", "risk"), ("obese", "risk")]
        ),
        dict.fromkeys(names, cg.Continuous()) | {"obese": cg.Categorical(2)},
        {
            "height": made(value="1.7 + 0.1*u", noise=NORMAL),
            "weight": made(value="70 + 10*u", noise=NORMAL),
            "bmi": made(value="weight / height**2"),
            "obese": made(value="bmi >= 30"),
            "risk": made(value="bmi + obese + 5*u", noise=NORMAL),
        },
    )
    evidence = {"height": [2.0, 2.0, None], "weight": [80.0, 80.0, 80.0], "risk": [21.0, None, 21.0]}
    cf = scm.counterfactual(evidence, do={"weight": 160.0}, seed=0)
    assert cf["bmi"][:2].tolist() == [40.0, 40.0] and cf["risk"][0].item() == 42.0
    for node, risk in (("bmi", ["exact", "exact", "inferred"]), ("risk", ["exact", "prior", "inferred"])):
        assert cf.provenance[node].tolist() == risk
    assert cf.determined["obese"].tolist() == [True, True, False]
    assert cf.determined["risk"].tolist() == [True, False, False]
    assert cf.sources["obese"].tolist() == ["exact", "exact", "inferred"]
    assert cf.factual["bmi"].isnan().all() and cf.inferred["bmi"][:2].tolist() == [20.0, 20.0]
    known = {"height": 2.0, "weight": 80.0}
    assert "one draw" not in repr(scm.counterfactual({**known, "risk": 21.0}, do={"weight": 160.0}, seed=0))
    assert scm.effect("bmi", do={"weight": 160.0}, evidence=known, seed=0).provenance == ("exact",)
    drawn = pd.read_csv(cf.save(tmp_path / "cf") / "inferred" / "summary.csv").set_index(["node", "row"])
    assert drawn.loc[("bmi", 0), "sd"] == 0.0 and np.isnan(drawn.loc[("bmi", 2), "sd"])


@pytest.mark.parametrize("rows", [3, 4, 5])
def test_a_posterior_prints_its_first_four_rows(chain, rows):
    posterior = chain.abduct({"x": np.arange(float(rows))}, seed=0).posterior("m")
    text = repr(posterior)
    assert text.count("+-") == min(rows, 4) and text.endswith("; ...") == (rows > 4)


def test_provenance_prints_as_a_mapping(chain):
    provenance = chain.counterfactual({"x": 1.0, "m": 2.0, "y": 3.0}, do={"x": 0.0}).provenance
    assert repr(provenance) == repr(dict(provenance)) and "'x'" in repr(provenance)


def test_printing_shows_mean_and_spread_or_says_that_it_is_one_draw(chain, clinic):
    many = repr(chain.counterfactual(GAPS, do={"x": 3.0}, num_samples=4000, seed=0))
    assert many.startswith("Counterfactual(4,000 samples x 3 rows: x, m, y)")
    assert re.search(r"m +7\.[45]\d* \+- 0\.(69|7|71), 7, 6 +inferred, exact", many) and "draw of" not in many
    one = repr(chain.counterfactual(GAPS, do={"x": 3.0}, seed=0))
    assert "one draw" in one and "num_samples" in one and "m, y" in one
    assert "one draw" in repr(chain.counterfactual(GAPS, do={"x": 3.0}, num_samples=1, seed=0))
    assert "one draw" not in repr(chain.counterfactual({"x": 1.0, "m": 2.0, "y": 3.0}, do={"x": 0.0}))
    shares = repr(clinic.counterfactual({"sex": "f"}, do={}, num_samples=1000, seed=0))
    assert "0 0.5" in shares and "+-" in shares
    html = chain.counterfactual(GAPS, do={"x": 3.0}, num_samples=50, seed=0)._repr_html_()
    assert "<th>sd</th>" in html


def test_contrasts_are_summarised_like_answers(chain, clinic):
    ab = chain.abduct({"x": [1.0], "y": [5.0]}, num_samples=2000, seed=0)
    contrast = ab.contrast({"x": 3.0, "m": cg.Scale(2.0)}, {"x": 0.0})
    table = contrast.summary()
    # 2 (6 + u) - (0 + u) = 12 + u, with u ~ N(1.5, 1/2)
    assert table.loc[("m", 0, ""), "mean"] == pytest.approx(13.5, abs=0.06)
    assert table.loc[("m", 0, ""), "sd"] == pytest.approx(0.5**0.5, abs=0.04)
    assert re.search(r"m +13\.[45]\d* \+- 0\.(69|7|71)", repr(contrast))
    wards = clinic.abduct({"sex": "f"}, num_samples=2000, seed=0).contrast({"sex": "m"}, {"ward": 0})
    assert wards.summary().loc[("sex", 0, "differs"), "probability"] == 1.0
    # ward under do(sex = m) is 1 or 2, never the 0 it is compared with
    assert "differs" in repr(wards)
    one = repr(chain.abduct({"x": [1.0], "y": [5.0]}, seed=0).contrast({"x": 3.0}))
    assert "one draw" in one


@pytest.mark.parametrize(
    ("mean", "spread", "text"),
    [
        (10_000.00083, 0.00124, "10000.0008 +- 0.0012"),  # it was 1e+04 +- 0.0012
        (1.7e9 + 1234.5, 86_400.0, "1.700001e+09 +- 8.6e+04"),
        (3.2407, 0.053, "3.241 +- 0.053"),
        (-0.0123, 5.0, "-0.0123 +- 5"),
        (0.0, 1.0, "0 +- 1"),
        (9.1, 1e-15, "9.1 +- 1e-15"),
        (math.inf, math.nan, "inf"),
        (2.5, 0.0, "2.5"),
        (1_700_000_012.25, 0.0, "1700000012"),  # it was 1.7e+09
        (9_999.7, 0.0, "10000"),
        (2.0**52 + 1, 0.0, "4503599627370497"),
    ],
)
def test_a_mean_has_the_digits_that_its_spread_speaks_of(mean, spread, text):
    assert spread_text(mean, spread) == text


def drawn_anew(scm, evidence, worlds):
    """By world and node, whether another seed gave another value, and whether it was called determined."""
    one, other = (scm.abduct(evidence, seed=seed).worlds(worlds) for seed in (1, 2))
    return {
        (name, node): ((one[name][node] != other[name][node]).item(), one[name].determined[node].item())
        for name in worlds
        for node in scm.graph.nodes
    }


@pytest.mark.parametrize("missing", ["m", "y", None])
def test_what_another_mechanism_or_world_draws_is_not_determined(chain, missing):
    """Noise that a replaced mechanism keeps, and values of another world, may have been drawn."""
    whole = {"x": 1.0, "m": 2.0, "y": 3.0}
    kept = cg.Replace(cg.mechanisms.Equation(value="x + 2*u", noise=NORMAL), noise="keep")
    worlds = {
        "replaced": {"m": kept},
        "drawn": {"x": cg.Stochastic({"normal": [0, 1]})},
        "fed": {"x": cg.WorldRef("drawn")["x"]},
        "fed by its effect": {"m": cg.WorldRef("drawn")["m"]},
        "fed by a constant": {"m": cg.WorldRef("drawn")["x"], "y": 0.0},
    }
    found = drawn_anew(chain, {node: value for node, value in whole.items() if node != missing}, worlds)
    assert {place: told for place, (_, told) in found.items()} == {
        place: not moved for place, (moved, _) in found.items()
    }


def test_noise_that_its_mechanism_drew_is_not_determined_in_another():
    """At a = 0 the evidence says nothing of u, which the new mechanism shows."""
    made = cg.mechanisms.Equation
    scm = cg.SCM(
        nx.DiGraph([("a", "y")]),
        dict.fromkeys("ay", cg.Continuous()),
        {"a": made(value="u", noise=NORMAL), "y": made(value="a*u", noise=NORMAL)},
    )
    kept = {"kept": {"y": cg.Replace(made(value="a + u", noise=NORMAL), noise="keep")}}
    assert drawn_anew(scm, {"a": 0.0, "y": 0.0}, kept)["kept", "y"] == (True, False)


def test_what_is_set_by_a_function_is_no_better_known_than_what_it_reads(chain):
    """y was called exact where m follows from an x that was drawn."""
    ab = chain.abduct({"m": 2.0, "y": 3.0}, seed=0)
    read = ab.worlds({"one": {"m": "m + x"}, "other": {"m": cg.WorldRef("one")["m"]}, "set": {"m": 1.0}})
    for name in ("one", "other"):
        assert read[name].provenance["m"].tolist() == ["interventional"]
        assert read[name].provenance["y"].tolist() == ["inferred"] and not read[name].determined["y"]
    assert read["set"].provenance["y"].tolist() == ["exact"] and read["set"].determined["y"]
    kept = cg.Replace(cg.mechanisms.Equation(value="3*x + u", noise=NORMAL), noise="keep")
    assert ab.counterfactual({"m": kept}).provenance["y"].tolist() == ["inferred"]


def test_numbers_far_from_zero_have_their_spread():
    """Deviations of 100 beside 1.7e15 were taken for rounding."""
    scm = cg.SCM(
        nx.DiGraph([("t", "y")]),
        dict.fromkeys("ty", cg.Continuous()),
        {
            "t": cg.mechanisms.Equation(value="1.7e15 + 100*u", noise=NORMAL),
            "y": cg.mechanisms.Equation(value="t + u", noise=NORMAL),
        },
    )
    table = scm.counterfactual({"t": [None, 1.7e15]}, do={}, num_samples=2000, seed=0).summary()
    assert table.loc["t"]["sd"].to_list() == pytest.approx([100.0, 0.0], rel=0.1)
