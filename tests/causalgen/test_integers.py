"""Integer nodes in a model: tables in and out, interventions, missing values, effects, files."""

import json

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close
from typer.testing import CliRunner

import causalgen as cg
from causalgen.cli import main as cli
from causalgen.counterfactuals.missing_evidence.distributions import CategoryPosterior, SamplePosterior


@pytest.fixture(scope="module")
def clinic():
    """kind -> visits -> cost <- rooms: visits are counts, rooms lie in 1..4."""
    random = np.random.default_rng(0)
    kind, rooms = random.integers(0, 2, 600), random.integers(1, 5, 600)
    visits = random.poisson(2 + 2 * kind)
    cost = 1.5 * visits + rooms + random.normal(size=600)
    table = pd.DataFrame({"kind": kind, "visits": visits, "rooms": rooms, "cost": cost})
    scm = cg.SCM(
        nx.DiGraph([("kind", "visits"), ("visits", "cost"), ("rooms", "cost")]),
        variables={
            "kind": cg.Categorical(2),
            "visits": cg.Integer(lower=0, unit="visits"),
            "rooms": cg.Integer(1, 4),
            "cost": cg.Continuous(),
        },
        mechanisms={
            "visits": cg.mechanisms.Flow(training={"epochs": 3, "batch_size": 64}, hidden=(8,), bins=4),
            "rooms": cg.mechanisms.Empirical(),
            "cost": cg.mechanisms.Additive(),
        },
    )
    return scm.fit(table, progress=False), table.set_axis([f"p{row}" for row in range(600)])


def test_tables_keep_their_integers(clinic):
    scm, table = clinic
    answer = scm.counterfactual(table.head(8), do={"kind": 1}, seed=0)
    frame = answer.to_frame()
    assert frame.dtypes["visits"] == np.int64 and frame.dtypes["rooms"] == np.int64
    assert list(frame.index) == list(table.index[:8])
    assert answer["visits"].dtype == np.int64 and answer.factual["visits"].equals(table["visits"].head(8))
    stays = table["kind"].head(8) == 1
    assert frame["visits"][stays].equals(table["visits"].head(8)[stays])
    assert set(answer.provenance["visits"]) == {"copied", "posterior"}
    assert scm.sample(3, seed=0)["visits"].dtype == torch.int64


def test_doing_nothing_changes_nothing_without_copying(clinic):
    scm, table = clinic
    same = scm.counterfactual(table, do={"kind": "kind"}, copy_unaffected=False, seed=0)
    assert same["visits"].equals(table["visits"])
    assert np.allclose(same["cost"], table["cost"], rtol=0, atol=1e-9)


def test_whole_numbers_beyond_what_float32_holds():
    """Of whole numbers and floats torch computes in float32, which skips those beyond 2**24."""
    cents = 20_000_001 + 2 * np.arange(40)
    mechanisms = {"cents": cg.mechanisms.Empirical(), "tax": cg.mechanisms.Additive()}
    variables = {"cents": cg.Integer(0), "tax": cg.Continuous()}
    scm = cg.SCM(nx.DiGraph([("cents", "tax")]), variables, mechanisms)
    scm = scm.fit({"cents": cents, "tax": cents + np.arange(40) % 3}, progress=False)
    evidence = {"cents": cents[:3], "tax": cents[:3]}
    for do, expected in (
        (cg.Shift(2.0), cents[:3] + 2),
        (cg.Scale(1.0), cents[:3]),
        (lambda cents: (cents / 2).floor(), cents[:3] // 2),
        (lambda cents: cents.clamp(min=20_000_002.5).ceil(), np.maximum(cents[:3], 20_000_003)),
        (lambda cents: torch.arange(20_000_100, 0, -1.0, dtype=torch.float64)[cents], 20_000_100 - cents[:3]),
    ):
        assert scm.counterfactual(evidence, do={"cents": do})["cents"].tolist() == expected.tolist()
    with pytest.raises(cg.DomainError, match="20000001.5, expected a whole number"):
        scm.counterfactual(evidence, do={"cents": cg.Shift(0.5)})
    with pytest.raises(RuntimeError, match="Float can't be cast"):  # as by torch itself
        scm.counterfactual(evidence, do={"cents": lambda cents: cents.mul_(0.5)})
    asked = {"do": {"cents": 20_000_002}, "versus": {"cents": 20_000_003}, "seed": 0}
    assert scm.effect("cents", **asked, statistic=lambda cents: cents > 20_000_002.5).value == -1


@pytest.mark.parametrize(
    ("do", "expected"),
    [
        (3, [3, 3]),
        (3.0, [3, 3]),
        (cg.Shift(2), [3, 6]),
        (cg.Scale(2), [2, 8]),
        ("floor(visits / 3) + rooms", [1, 5]),
        (lambda visits: visits // 2, [0, 2]),
        (cg.Policy(lambda rooms: rooms + 1, reads=["rooms"]), [2, 5]),
        (cg.Stochastic({"categorical": [0, 0, 1]}), [2, 2]),
    ],
)
def test_interventions(clinic, do, expected):
    scm, _ = clinic
    answer = scm.counterfactual(
        {"kind": [0, 0], "visits": [1, 4], "rooms": [1, 4], "cost": [2.5, 10.0]}, do={"visits": do}, seed=0
    )
    assert answer["visits"].tolist() == expected and answer["visits"].dtype == torch.int64


def test_a_gap_that_a_function_returns_is_refused(clinic):
    row = {"kind": 0, "visits": 1, "rooms": 1, "cost": 2.5}
    with pytest.raises(cg.DomainError, match="'visits': the function's value: row 0 is <NA>, expected a num"):
        clinic[0].counterfactual(row, do={"visits": lambda n: pd.array([pd.NA] * len(n), dtype="Int64")})


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (2.5, "Intervention on 'visits': row 0 is 2.5, expected a whole number"),
        (cg.Shift(0.5), "the function's value: row 0 is 1.5, expected a whole number; round it first"),
        ("visits / 2", r"row 0 is 0.5, expected a whole number; round it first, as by round\(...\)"),
        (cg.Scale(-1), "row 0 is -1.*below the lower bound 0"),
        (cg.Stochastic({"normal": [0, 1]}), "the drawn value: row 0 is .*, expected a whole number"),
        (float("nan"), "row 0 is nan, expected a whole number"),
    ],
)
def test_interventions_that_leave_the_domain(clinic, do, message):
    scm, _ = clinic
    row = {"kind": 0, "visits": 1, "rooms": 1, "cost": 2.5}
    with pytest.raises(cg.DomainError, match=message):
        scm.counterfactual(row, do={"visits": do}, seed=0)
    if not isinstance(do, cg.Scale):
        with pytest.raises(
            cg.DomainError, match="whole number"
        ):  # clipping moves to a bound, and never rounds
            scm.counterfactual(row, do={"visits": do}, seed=0, clip=True)


def test_clipping_and_extrapolation(clinic):
    scm, _ = clinic
    row = {"kind": 0, "visits": 1, "rooms": 1, "cost": 2.5}
    assert scm.counterfactual(row, do={"rooms": "rooms + 9"}, clip=True, seed=0)["rooms"].tolist() == [4]
    with pytest.warns(cg.ExtrapolationWarning, match="row 0 is 99, outside"):
        scm.counterfactual(row, do={"visits": 99}, seed=0)


def test_a_bounded_integer_is_inferred_exactly(clinic):
    scm, table = clinic
    evidence = {"kind": [0, 0], "visits": [2, 2], "rooms": [float("nan"), 3], "cost": [6.0, 6.0]}
    posterior = scm.abduct(evidence, seed=0).posterior("rooms")
    assert isinstance(posterior, CategoryPosterior) and posterior.values.tolist() == [1, 2, 3, 4]
    rooms = torch.arange(1, 5).double()
    cost = scm.mechanisms["cost"].log_prob(
        torch.full((4,), 6.0).double(), {"visits": torch.full((4,), 2.0).double(), "rooms": rooms}
    )
    shares = torch.tensor([(table["rooms"] == room).mean() for room in range(1, 5)])
    assert_close(posterior.probabilities[0], (cost + shares.log()).softmax(0).detach())
    assert posterior.probabilities[1].tolist() == [0, 0, 1, 0]
    mean = posterior.probabilities @ rooms
    deviation = (posterior.probabilities @ rooms.square() - mean.square()).sqrt()
    assert_close(torch.cat(posterior.moments(), 1), torch.stack([mean, deviation], 1), rtol=0, atol=1e-7)
    below = posterior.probabilities[0].cumsum(0)
    assert posterior.quantile(0.5).tolist() == [[1.0 + int((below < 0.5).sum())], [3.0]]
    with pytest.raises(cg.CausalgenError, match="'kind' has categories, which have no mean"):
        scm.abduct(evidence, seed=0).posterior("kind").moments()
    assert [*posterior.summary().columns] == ["source", "p(1)", "p(2)", "p(3)", "p(4)"]
    drawn = scm.counterfactual(evidence, do={}, num_samples=2000, seed=0)["rooms"]
    assert drawn.dtype == torch.int64 and bool((drawn[:, 1] == 3).all())
    frequencies = torch.bincount(drawn[:, 0] - 1, minlength=4) / 2000
    assert_close(frequencies.double(), posterior.probabilities[0], rtol=0, atol=0.04)


def test_an_unbounded_integer_is_inferred_by_particles(clinic):
    scm, _ = clinic
    posterior = scm.abduct({"kind": 1, "rooms": 2, "cost": 8.0}, seed=0).posterior("visits")
    assert isinstance(posterior, SamplePosterior)
    mean = (posterior.weights * posterior.values).sum(0)
    assert 3.2 < mean.item() < 4.8  # (8 - 2) / 1.5 = 4


def test_effects_have_means(clinic):
    scm, _ = clinic
    effect = scm.effect("visits", do={"kind": 1}, versus={"kind": 0}, seed=0)
    assert abs(effect.overall.value - 2) < 0.6
    by_rooms = scm.effect("cost", do={"kind": 1}, versus={"kind": 0}, given="rooms", seed=0)
    assert list(by_rooms.groups) == [1, 2, 3, 4] and all(isinstance(label, int) for label in by_rooms.groups)


def test_checks_compare_probabilities(clinic):
    scm, table = clinic
    report = scm.check(table, seed=0)
    fit = report.fits["visits"]
    assert fit.measure == "log-likelihood" and fit.holds and fit.mechanism > fit.baseline - 0.1
    assert -2.6 < fit.baseline < -1.8  # the entropy of the marginal is 2.1 nats


def test_plots_and_contrasts(clinic):
    scm, table = clinic
    many = scm.counterfactual(table, do={"visits": cg.Shift(1)}, seed=0)
    assert len(many.plot().axes) >= 4
    assert len(scm.counterfactual(table.head(3), do={"visits": 0}, seed=0).plot().axes) >= 4
    contrast = scm.abduct(table.head(3), seed=0).contrast({"visits": cg.Shift(2)})
    assert contrast.to_frame()["visits"].tolist() == [2, 2, 2]


def test_files(clinic, tmp_path):
    scm, table = clinic
    loaded = cg.SCM.from_pretrained(scm.save_pretrained(tmp_path / "model"))
    assert loaded.variables == scm.variables
    assert torch.equal(loaded.sample(20, seed=1)["visits"], scm.sample(20, seed=1)["visits"])
    assert (
        "variable: {type: integer, lower: 0, unit: visits}" in (tmp_path / "model" / "scm.yaml").read_text()
    )
    assert_close(loaded.mechanisms["visits"].seen_range, scm.mechanisms["visits"].seen_range)
    table.to_csv(tmp_path / "table.csv", index=False)
    loaded.fit(tmp_path / "table.csv", nodes=["rooms"], progress=False)
    assert loaded.mechanisms["rooms"].values.tolist() == table["rooms"].tolist()
    broken = table.assign(visits=table["visits"] + 0.5)
    with pytest.raises(cg.DataError, match="visits.*row 0 is .*5, expected a whole number"):
        loaded.fit(broken, nodes=["visits"], progress=False)


def test_the_command_line_reads_integers(clinic, tmp_path):
    scm, _ = clinic
    scm.save_pretrained(tmp_path / "model")
    given = "kind=0,visits=1,rooms=2,cost=3.5"
    asked = ["counterfactual", str(tmp_path / "model"), "--set", given, "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(cli.app, [*asked, "--do", "visits=4"])
    assert result.exit_code == 0, result.output
    told = json.loads((tmp_path / "out" / "result.json").read_text())["worlds"]["visits=4"]
    assert (told["values"]["visits"], told["factual"]["visits"]) == ([4], [1])
    refused = CliRunner().invoke(cli.app, [*asked, "--do", "visits=2.5"])
    assert "2.5" in str(refused.exception) and "integer [0, inf) visits" in str(refused.exception)
