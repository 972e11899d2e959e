"""Tuning against known answers: strength 0 does nothing, the choice is effective first, the file says so."""

import json
import math
import re
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import causalgen as cg
from causalgen.cli import main as cli
from causalgen.evaluation.tuning import Tuned, choose, strength_options
from causalgen.metrics.evaluators import Evaluators, Recipe, save_evaluators
from causalgen.metrics.evaluators.evaluators import CodedRecipe, NetworkRecipe, find_roles
from causalgen.metrics.scores import Score
from graphs.errors import CheckpointError, DataError, DomainError, MechanismError, SpecError, UnknownNameError
from mechanisms.networks import reproducible_initialisation

STRENGTHS = (0, 1, 3)
CODED, PLAIN = (
    CodedRecipe(width=4, latent=2, training=cg.mechanisms.Training()),
    NetworkRecipe(width=4, training=cg.mechanisms.Training()),
)
RECIPE = Recipe(
    class_autoencoder=CODED, autoencoder=CODED, variational=CODED, classifier=PLAIN, regressor=PLAIN
)


def judges_of(variables) -> Evaluators:
    """Random networks: whether the right thing is scored does not depend on what they have learned."""
    with reproducible_initialisation():
        return Evaluators("bars", find_roles(variables), RECIPE)


@pytest.fixture(scope="module")
def tuned(pictures):
    scm, data = pictures
    return cg.tune(
        scm, data, judges_of(scm.variables), strengths=STRENGTHS, rows=40, min_effectiveness=0, progress=False
    )


def test_strength_0_does_nothing(tuned):
    assert [point.strength for point in tuned.points] == [0, 1, 3]
    nothing = tuned.controls["do nothing"]
    assert nothing["CLD"].value == pytest.approx(math.log(1 + math.e))
    for name, score in tuned.points[0].scores.items():
        # Rounding moves an image's rank among 30 others, of which CLD is made, by one at most.
        assert score.value == pytest.approx(nothing[name].value, abs=0.04 if name == "CLD" else 1e-3)
    assert tuned.points[1].scores["distance"].value > 0.1


def test_evaluators_are_named_as_on_the_command_line(pictures, tuned, tmp_path):
    scm, data = pictures
    save_evaluators(judges_of(scm.variables), tmp_path / "judges")
    named = {"strengths": STRENGTHS, "rows": 40, "min_effectiveness": 0, "progress": False}
    found = cg.tune(scm, data, tmp_path / "judges", **named)
    assert [point.scores for point in found.points] == [point.scores for point in tuned.points]
    report = cg.evaluate(scm, data, rows=4, evaluators=str(tmp_path / "judges"), progress=False)
    assert report.find("effectiveness")
    with pytest.raises(UnknownNameError, match="no-such"):
        cg.evaluate(scm, data, rows=4, evaluators="no-such", progress=False)


@pytest.mark.parametrize("against", ["factual", "hidden"])
def test_every_strength_is_that_of_the_model_with_it(pictures, tuned, against):
    scm, data = pictures
    scm = scm.with_options("picture", guidance={"against": against})
    if against == "hidden":
        tuned = cg.tune(
            scm,
            data,
            judges_of(scm.variables),
            strengths=STRENGTHS,
            rows=40,
            min_effectiveness=0,
            progress=False,
        )
    from causalgen.data.reading import read_data
    from causalgen.evaluation.evaluate import held_rows
    from causalgen.evaluation.questions import other_values
    from mechanisms.seeds import keyed_generator, keyed_seed

    order = torch.randperm(64, generator=keyed_generator(0, "tune", "rows")).numpy()
    columns = held_rows(read_data(data, scm.variables), scm.variables, np.sort(order[:40]))
    wanted = other_values(scm.variables["kind"], columns["kind"], keyed_seed(0, "tune", "kind"))
    for point in tuned.points:
        alone = scm.with_options("picture", guidance={"weight": point.strength})
        images = alone.counterfactual(columns, do={"kind": wanted}, seed=5)["picture"]
        moved = 255 * np.abs(np.asarray(images) - columns["picture"]).mean((1, 2, 3))
        assert moved.mean() == pytest.approx(point.scores["distance"].value, abs=1e-3)


def test_the_choice_is_applied(pictures, tuned):
    scm, _ = pictures
    assert tuned.floor.value <= min(point.scores["CLD"].value for point in tuned.points) + 1e-9
    assert (tuned.current, tuned.min_effectiveness) == (1.0, 0)
    assert tuned.apply(scm).mechanisms["picture"].spec.guidance.weight == tuned.best.strength
    assert scm.mechanisms["picture"].spec.guidance.weight == 1.0
    assert f"Chosen: weight {tuned.best.strength:g}, {tuned.choice.reason}. 40 of 64 rows" in str(tuned)
    assert "evaluate it on others" in str(tuned)


def test_long_scores_stay_apart_in_the_table(tuned):
    """A score that leaves rows out was wider than its column."""
    point = tuned.points[0]
    long = {name: replace(score, left_out=12_345) for name, score in point.scores.items()}
    table = str(replace(tuned, points=(replace(point, scores=long), *tuned.points[1:])))
    head, first, *_ = table.splitlines()
    assert re.split(r" {2,}", head.strip()) == ["weight", "CLD", "effectiveness", "IM1", "IM2", "distance"]
    assert re.split(r" {2,}", first.strip()) == ["0", *map(str, long.values())]
    assert len(head) == len(first)


def sweep(*points):
    """(strength, effectiveness, CLD, half of its interval) of each point."""
    score = lambda value, half=0.01: Score(value, value - half, value + half, 100)  # noqa: E731
    return [Tuned(s, {"effectiveness": score(e), "CLD": score(cld, half)}) for s, e, cld, half in points]


@pytest.mark.parametrize(
    ("points", "current", "strength", "reason"),
    [
        # The least CLD, within its interval of another, hardly ever shows what was asked for.
        ([(1, 0.44, 1.244, 0.02), (4, 0.96, 1.248, 0.02)], 1, 4, "the least CLD of those that reach an eff"),
        ([(1, 0.96, 1.30, 0.02), (2, 0.97, 1.20, 0.02), (3, 1.0, 1.25, 0.02)], 3, 2, "the least CLD"),
        ([(1, 0.96, 1.21, 0.02), (2, 0.97, 1.20, 0.02), (3, 1.0, 1.21, 0.02)], 3, 3, "the model's own"),
        ([(1, 0.96, 1.21, 0.02), (2, 0.97, 1.20, 0.02), (3, 1.0, 1.21, 0.02)], 6, 1, "the smallest of them"),
        ([(1, 0.90, 1.21, 0.02), (2, 0.97, 1.20, 0.02), (3, 1.0, 1.21, 0.02)], 1, 2, "the smallest of them"),
        ([(1, 0.96, 1.21, 0.02), (2, 0.97, 1.20, 0.02)], None, 1, "the smallest of them"),
        ([(1, 0.44, 1.20, 0.02), (4, 0.69, 1.25, 0.02)], 1, 4, "the most effective, at 0.690"),
        ([(1, 0.69, 1.20, 0.02), (4, 0.69, 1.25, 0.02)], 4, 1, "none reaches an effectiveness of 0.95"),
        # An unknown interval ties nothing.
        ([(1, 0.96, 1.21, math.nan), (2, 0.97, 1.20, math.nan)], 1, 2, "the least CLD"),
    ],
)
def test_the_choice_is_effective_first_then_of_least_cld_up_to_its_error(points, current, strength, reason):
    choice = choose(sweep(*points), 0.95, current)
    assert choice.point.strength == strength and reason in choice.reason
    assert choice.effective == (choice.point.scores["effectiveness"].value >= 0.95)


def test_ineffective_strengths_are_told(pictures):
    scm, data = pictures
    with pytest.warns(UserWarning, match=r"do\(kind\) reaches an effectiveness of 1 at no weight that was"):
        found = cg.tune(
            scm,
            data,
            judges_of(scm.variables),
            strengths=(0, 1),
            rows=40,
            min_effectiveness=1,
            progress=False,
        )
    assert "none reaches an effectiveness of 1" in str(found) and not found.choice.effective
    with pytest.raises(DomainError, match="a share, 0 to 1, got 95"):
        cg.tune(scm, data, judges_of(scm.variables), rows=40, min_effectiveness=95, progress=False)


def test_the_same_seed_gives_the_same_tuning(pictures, tuned):
    scm, data = pictures
    again = cg.tune(
        scm, data, judges_of(scm.variables), strengths=(3, 1, 0), rows=40, min_effectiveness=0, progress=False
    )
    assert again == tuned


def test_anticausal_guidance_is_tuned_by_its_scale(pictures):
    scm, data = pictures
    other = scm.with_options("picture", guidance={"kind": "anticausal"})
    found = cg.tune(
        other, data, judges_of(scm.variables), strengths=(0, 2), rows=40, min_effectiveness=0, progress=False
    )
    assert found.option == "scale"
    assert found.apply(other).mechanisms["picture"].spec.guidance.scale == found.best.strength


@pytest.mark.parametrize("before", [3.0, {"kind": 3.0, "sort": 3.0}, {"kind": 1.0, "sort": 3.0, "size": 2.0}])
def test_the_strength_of_another_category_stays(before):
    parents = {"kind": cg.Categorical(2), "sort": cg.Categorical(2), "size": cg.Continuous()}
    network = {"channels": [16], "unshuffle": 1}
    guided = {"kind": "classifier_free", "weight": before}
    scm = cg.SCM(
        nx.DiGraph([(name, "picture") for name in parents]),
        {**parents, "picture": cg.Image(1, 4, 4)},
        {"picture": cg.mechanisms.Diffusion(backbone=network, predictor=network, guidance=guided)},
    )
    tuned = scm.with_options("picture", **strength_options(scm, "picture", "kind", 5.0))
    found, was = (each.mechanisms["picture"].spec.guidance.strengths(parents) for each in (tuned, scm))
    assert found == was | {"kind": 5.0} and was["sort"] == 3.0


def test_refusals(pictures, linear):
    scm, data = pictures
    judges = judges_of(scm.variables)
    with pytest.raises(DomainError, match="at least two strengths from 0 to 100, got"):
        cg.tune(scm, data, judges, strengths=[2], progress=False)
    with pytest.raises(DataError, match="have 64 rows: tuning takes 2 to all of them, got 65"):
        cg.tune(scm, data, judges, rows=65, progress=False)
    with pytest.raises(UnknownNameError, match="kind"):
        cg.tune(scm, data, judges, node="kind", rows=40, progress=False)
    with pytest.raises(MechanismError, match="this model has none"):
        cg.tune(*linear, judges, rows=40, progress=False)
    others = judges_of({"sort": cg.Categorical(2), "picture": cg.Image(1, 8, 8)})
    with pytest.raises(
        DomainError, match="The evaluators of bars know sort .* Train evaluators for this model"
    ):
        cg.tune(scm, data, others, rows=40, progress=False)


@pytest.mark.parametrize(("times", "rows"), [(1, 64), (2, 100)])
def test_unless_told_a_hundred_rows_are_tried_and_it_is_said(pictures, times, rows):
    scm, data = pictures
    more = {node: np.concatenate([values] * times) for node, values in data.items()}
    judges = judges_of(scm.variables)
    found = cg.tune(scm, more, judges, strengths=(0, 3), min_effectiveness=0, progress=False)
    assert (found.rows, found.available) == (rows, 64 * times)
    assert f" {rows} of {64 * times} rows," in str(found)
    told = cg.tune(scm, more, judges, strengths=(0, 3), rows=rows, min_effectiveness=0, progress=False)
    assert told.points == found.points


def test_rows_with_gaps_are_left_out_where_told(pictures):
    """As those rows taken out by hand."""
    scm, data = pictures
    lacking = np.isin(np.arange(64), [1, 2, 40])
    gaps = data | {"kind": np.where(lacking, np.nan, data["kind"])}
    options = {"strengths": (0, 3), "rows": 20, "min_effectiveness": 0, "progress": False}
    with pytest.raises(DataError, match="missing in 3 of the 64 rows: .*missing='drop'"):
        cg.tune(scm, gaps, judges_of(scm.variables), **options)
    found = cg.tune(scm, gaps, judges_of(scm.variables), missing="drop", **options)
    rest = {node: values[~lacking] for node, values in data.items()}
    by_hand = cg.tune(scm, rest, judges_of(scm.variables), **options)
    assert (found.points, found.controls) == (by_hand.points, by_hand.controls)
    assert found.dropped == 3 == found.to_dict()["dropped"] and by_hand.dropped == 0
    assert "Rows left out, for they lack a value: 3." in str(found)
    with pytest.raises(DataError, match="have 61 rows without missing values, of 64: .*got 62"):
        cg.tune(scm, gaps, judges_of(scm.variables), **(options | {"rows": 62}), missing="drop")


def test_the_command_writes_the_curve_and_the_choice(pictures, tmp_path):
    scm, data = pictures
    model, judges, out = tmp_path / "model", tmp_path / "judges", tmp_path / "out"
    scm.save_pretrained(model, card="# Bars\n")
    save_evaluators(judges_of(scm.variables), judges)
    frame = tmp_path / "rows.csv"
    lines = ["kind,picture"]
    from PIL import Image as Picture

    for row, (kind, pixels) in enumerate(zip(data["kind"], data["picture"], strict=True)):
        Picture.fromarray(pixels[0]).save(tmp_path / f"{row}.png")
        lines.append(f"{kind},{row}.png")
    frame.write_text("\n".join(lines))
    arguments = ["tune", str(model), "--data", str(frame), "--judges", str(judges), "--out", str(out)]
    arguments += ["--strength", "0", "--strength", "3", "--rows", "40", "--min-effectiveness", "0", "--save"]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    told = json.loads((out / "tuning.json").read_text())
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")
    chosen = cg.SCM.from_pretrained(model)
    assert chosen.mechanisms["picture"].spec.guidance.weight == told["best"]
    assert cg.SCM.from_yaml(out / "scm.yaml").mechanisms["picture"].spec.guidance.weight == told["best"]
    assert (model / "README.md").read_text() == "# Bars\n"
    frame.write_text("\n".join([*lines[:-1], f",{len(lines) - 2}.png"]))
    with pytest.raises(DataError, match="--missing drop"):
        CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    result = CliRunner().invoke(cli.app, [*arguments, "--missing", "drop"], catch_exceptions=False)
    assert "they lack a value: 1." in result.output
    with pytest.raises(CheckpointError, match="--save writes the choice into the model's folder"):
        CliRunner().invoke(cli.app, [*arguments[:1], "mnist", *arguments[2:]], catch_exceptions=False)
    with pytest.raises(SpecError, match="--save would write all of --preset edit into the model's folder"):
        CliRunner().invoke(cli.app, [*arguments, "--preset", "edit"], catch_exceptions=False)


def test_one_constant_says_which_strengths_are_tried():
    import inspect

    from causalgen.evaluation import STRENGTHS

    assert inspect.signature(cg.tune).parameters["strengths"].default is STRENGTHS
    told = " ".join(CliRunner().invoke(cli.app, ["tune", "--help"], env={"COLUMNS": "200"}).output.split())
    assert f"{min(STRENGTHS)} to {max(STRENGTHS)} by default" in told


def test_the_old_keyword_is_refused_with_the_new_one(pictures):
    scm, data = pictures
    with pytest.raises(TypeError, match="tune: the keyword 'judges' is now 'evaluators'"):
        cg.tune(scm, data, judges=judges_of(scm.variables))
