"""Composition, reversibility and effectiveness where the answer is known by hand."""

import networkx as nx
import numpy as np
import pytest
import torch

import causalgen as cg
from causalgen.metrics.axioms import composition, effectiveness, reversibility
from graphs.errors import DataError, DomainError, MechanismError, ShapeError, UnknownNameError
from tests.causalgen.metrics import shades


@pytest.fixture(scope="module")
def data():
    return shades.rows()


def model(**options):
    return shades.shades(**options)


def pattern(data):
    """Mean |pattern| of each image, on 0..255."""
    centred = data["image"] - data["image"].mean((1, 2, 3), keepdims=True)
    return 255 * np.abs(centred).mean((1, 2, 3))


def test_an_exact_mechanism_composes(data):
    found = composition(model(), data, "image")
    assert list(found) == [1, 10]
    assert all(score.value < 1e-4 for score in found.values())
    assert found[1].unit == "L1 on 0..255" and found[1].rows == 60


def test_drift_adds_up_cycle_by_cycle(data):
    found = composition(model(keeps=0.9), data, "image", cycles=[3, 1])
    for cycle in (1, 3):
        assert found[cycle].value == pytest.approx((1 - 0.9**cycle) * pattern(data).mean(), rel=1e-3)


def test_composition_of_a_table(linear):
    scm, data = linear
    found = composition(scm, data, "z")
    assert found[10].value < 1e-12
    found = composition(scm, {name: data[name] for name in ("x", "y")}, "y", cycles=[1])
    assert found[1].value < 1e-12


def test_composition_of_a_category_whose_noise_is_drawn(categories):
    scm, data = categories
    assert composition(scm, data, "b")[10].value == 0


def test_residuals_are_what_makes_composition_exact(pictures):
    scm, data = pictures
    kept = composition(scm, data, "picture", cycles=[1])[1]
    bare = composition(scm, data, "picture", cycles=[1], residuals=False)[1]
    assert kept.value < 1e-2 < 0.1 < bare.value


@pytest.mark.parametrize(
    "solver", [{"residuals": False}, pytest.param({"kind": "ddim", "steps": 6}, marks=pytest.mark.slow)]
)
def test_composition_is_measured_without_shrinkage_too(pictures, solver):
    scm, data = pictures
    bare = scm.with_options("picture", solver=solver)
    shrinking = bare.with_options("picture", shrinkage=0.5)
    expected = composition(bare, data, "picture", cycles=[1])[1].value
    assert composition(shrinking, data, "picture", cycles=[1], residuals=False)[1].value == expected
    assert composition(shrinking, data, "picture", cycles=[1])[1].value < expected / 1.5
    found = cg.evaluate(shrinking, data, metrics=["composition"], progress=False).entries
    by = {entry.by for entry in found if entry.metric == "composition"}
    assert {"with shrinkage", "without shrinkage"} <= by


def test_composition_does_not_depend_on_the_batches(pictures, monkeypatch):
    scm, data = pictures
    whole = composition(scm, data, "picture", cycles=[1], residuals=False)[1]
    monkeypatch.setattr("causalgen.metrics.node_passes.BATCH_ROWS", 7)
    again = composition(scm, data, "picture", cycles=[1], residuals=False)[1]
    assert again.value == pytest.approx(whole.value, rel=1e-3)


def test_progress_counts_passes(data):
    told = []
    composition(model(), data, "image", cycles=[4], advance=told.append)
    reversibility(model(), data, "image", {"shade": 0.0}, advance=told.append)
    assert sum(told) == 60 * 4 + 60 * 2


def test_an_exact_mechanism_comes_back(data):
    found = reversibility(model(), data, "image", {"shade": 0.5})
    assert found["back"].value < 1e-4
    there = 255 * np.abs(0.5 - data["shade"]).mean() / 4
    assert found["there"].value == pytest.approx(there, rel=1e-4)


def test_reversibility_carries_no_noise_over(data):
    """What the way there lost is lost: 0.9 of the pattern on each way."""
    found = reversibility(model(keeps=0.9), data, "image", {"shade": 0.5})
    assert found["back"].value == pytest.approx((1 - 0.9**2) * pattern(data).mean(), rel=1e-3)


def test_the_way_back_draws_its_own_noise():
    """Of a category by Gumbel noise: there and back by two draws, each of its own posterior."""
    random, shares = np.random.default_rng(0), np.array([[0.7, 0.2, 0.1], [0.2, 0.3, 0.5]])
    x = np.arange(4000) % 2
    y = (np.log(shares[x]) + random.gumbel(size=(4000, 3))).argmax(1)
    scm = cg.SCM(nx.DiGraph([("x", "y")]), {"x": cg.Categorical(2), "y": cg.Categorical(3)})
    scm = scm.fit({"x": x, "y": y}, progress=False)
    found = reversibility(scm, {"x": x, "y": y}, "y", {"x": 1 - x})
    noise = random.gumbel(size=(100_000, 3))
    low, high = ((np.log(each) + noise).argmax(1) for each in shares)
    joint = np.zeros((3, 3))
    np.add.at(joint, (low, high), 1 / len(noise))
    there, back = joint / joint.sum(1, keepdims=True), joint.T / joint.T.sum(1, keepdims=True)
    same = [shares[0] @ (there * back.T).sum(1), shares[1] @ (back * there.T).sum(1)]
    assert found["back"].value == pytest.approx(1 - np.mean(same), abs=0.03)
    assert found["there"].value == pytest.approx(1 - np.trace(joint), abs=0.03)


def test_doing_nothing_reverses_perfectly_and_goes_nowhere(data):
    found = reversibility(model(moves=False), data, "image", {"shade": 0.5})
    assert found["back"].value < 1e-4 and found["there"].value < 1e-4


def counterfactual(scm, data, shade):
    do = {"kind": data["kind"], "shade": shade}
    return scm.fit(data, progress=False, nodes=["kind", "shade"]).counterfactual(data, do=do)["image"]


@pytest.mark.parametrize(("moves", "error"), [(True, 0.0), (False, None)])
def test_effectiveness_by_measurement(data, moves, error):
    shade = np.roll(data["shade"], 1)
    images = counterfactual(model(moves=moves), data, shade)
    judges = {"shade": shades.shade_of}
    found = effectiveness(images, {"shade": shade}, model().variables, judges)["shade"]
    nothing = effectiveness(data["image"], {"shade": shade}, model().variables, judges)["shade"]
    expected = np.abs(shade - data["shade"]).mean() if error is None else error
    assert found.value == pytest.approx(expected, abs=1e-5)
    assert nothing.value == pytest.approx(np.abs(shade - data["shade"]).mean(), abs=1e-5)
    assert found.unit == "MAE, tints" and found.better == "lower"


def logits(images):
    """A classifier of kind: lighter images are kind 1."""
    light = images.mean((1, 2, 3)) - 0.5
    return torch.stack([-light, light], 1)


def codes(images):
    return logits(images).argmax(1)


@pytest.mark.parametrize("judge", [logits, codes])
def test_effectiveness_of_a_category(judge):
    images = np.full((4, 1, 6, 6), 0.2, dtype=np.float32)
    images[:3] = 0.9
    variables = {"kind": cg.Categorical(["dark", "light"])}
    found = effectiveness(images, {"kind": ["light", "light", "dark", "dark"]}, variables, {"kind": judge})
    assert found["kind"].value == 0.75 and found["kind"].better == "higher"


def test_unmeasurable_images_are_counted():
    images = np.zeros((4, 1, 28, 28), dtype=np.float32)
    images[0, 0, 5:20, 12:15] = 1
    variables = {"thickness": cg.Continuous()}
    found = effectiveness(images, {"thickness": [3.0] * 4}, variables, {"thickness": cg.metrics.thickness})[
        "thickness"
    ]
    assert found.rows == 1 and found.left_out == 3 and "3 rows not measurable" in str(found)


class Other:
    variable = cg.Continuous(unit="px")

    def __call__(self, images):
        return logits(images)


def test_what_cannot_be_asked(data, linear):
    scm = model()
    variables, images = scm.variables, data["image"]
    with pytest.raises(DataError, match="lacks 'shade'.*parents .shade, kind."):
        composition(scm, {"image": images, "kind": data["kind"]}, "image")
    with pytest.raises(UnknownNameError, match="node 'imge'"):
        composition(scm, data, "imge")
    with pytest.raises(DomainError, match="from 1"):
        composition(scm, data, "image", cycles=[0])
    with pytest.raises(MechanismError, match="option of the solver 'anchored'"):
        composition(scm, data, "image", residuals=False)
    empty = {name: values[:0] for name, values in data.items()}
    with pytest.raises(DataError, match="no rows"):
        composition(scm, empty, "image")
    with pytest.raises(UnknownNameError, match="parent of 'image' 'image'"):
        reversibility(scm, data, "image", {"image": images})
    with pytest.raises(ShapeError, match=r"3 rows, the evidence has 60"):
        reversibility(scm, data, "image", {"shade": [0.1, 0.2, 0.3]})
    with pytest.raises(DomainError, match="0, 1"):
        composition(scm, data | {"image": 255 * images}, "image")
    with pytest.raises(DataError, match="'kind' has a reader, but no column"):
        effectiveness(images, {"shade": data["shade"]}, variables, {"kind": logits})
    with pytest.raises(UnknownNameError, match="attribute 'colour'"):
        effectiveness(images, {}, variables, {"colour": logits})
    with pytest.raises(DomainError, match="trained on another variable: continuous px"):
        effectiveness(images, data, variables, {"kind": Other()})
    with pytest.raises(ShapeError, match="2 numbers an image.*another variable"):
        effectiveness(images, data, variables, {"shade": logits})
    with pytest.raises(ShapeError, match=r"'kind' has 2 categories: expected logits \(60, 2\)"):
        effectiveness(images, data, variables, {"kind": lambda some: torch.zeros(len(some), 10)})
    with pytest.raises(DataError, match="empty"):
        effectiveness(images[:0], {"shade": []}, variables, {"shade": shades.shade_of})
    with pytest.raises(DomainError, match="largest value here is 1"):
        effectiveness(np.ones((60, 1, 6, 6), np.uint8), data, variables, {"shade": shades.shade_of})
    with pytest.raises(DomainError, match="0, 1"):
        effectiveness(255 * images, data, variables, {"shade": shades.shade_of})


def test_a_reader_that_reads_nothing_is_refused():
    images = np.full((3, 1, 4, 4), 0.5)
    blind = {"k": lambda batch: np.full((len(batch), 3), np.nan)}
    with pytest.raises(DomainError, match=r"The reader of 'k' gives \[nan, nan, nan\] for image 0"):
        cg.metrics.effectiveness(images, {"k": np.zeros(3, int)}, {"k": cg.Categorical(3)}, blind)
