"""What the model itself reads of an image's causes, against images that literally contain them."""

import json
import pickle
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch

import causalgen as cg
from causalgen.counterfactuals.results import Counterfactual
from causalgen.saving.manifest import load_weights
from graphs.errors import MechanismError, UnknownNameError
from mechanisms.base import Abducted, Mechanism, Noise
from mechanisms.intervened import Constant

KIND, LEVEL, PLACE = cg.Categorical(["oak", "elm", "ash"]), cg.Continuous(unit="m"), cg.Continuous(shape=(2,))
PARENTS = {"kind": KIND, "level": LEVEL, "place": PLACE}
NORMAL = {"normal": [0, 1]}


class Filled(Mechanism):
    """A 1 x 2 x 3 image: pixels kind / 4, gain * level / 100 and place / 100 beside two of noise.

    It is read at gain 1, so that of another gain the reading of level is ``gain * level``.
    """

    abduction = "exact"
    deterministic = True
    chunk_rows = 2

    def __init__(self, gain=1.0, forgets_kind=False):
        super().__init__(Constant(), cg.Image(1, 2, 3), PARENTS)
        self.gain, self.forgets_kind, self.calls = gain, forgets_kind, []

    def __getstate__(self):
        raise AssertionError("a result that is pickled holds no mechanism")

    def shown(self, parents):
        kind = parents["kind"] * (0 if self.forgets_kind else 1)
        columns = [kind / 4, self.gain * parents["level"] / 100, *(parents["place"] / 100).unbind(1)]
        return torch.stack([each.double() for each in columns], 1)

    def sample_noise(self, n, *, generator):
        return Noise(n, {"u": 0.1 * torch.randn(n, 6, generator=generator)})

    def generate(self, parents, noise):
        u = noise["u"].double()
        return torch.cat([self.shown(parents) + u[:, :4], u[:, 4:]], 1).float().view(-1, 1, 2, 3)

    def abduct(self, value, parents, *, generator):
        flat = value.flatten(1).double()
        u = torch.cat([flat[:, :4] - self.shown(parents), flat[:, 4:]], 1)
        return Abducted(Noise(len(value), {"u": u.float()}))

    def read(self, value):
        self.calls.append(len(value))
        flat = value.flatten(1).double()
        kind = (4 * flat[:, 0]).round().clamp(0, 2).long()
        return {"kind": kind, "level": 100 * flat[:, 1], "place": 100 * flat[:, 2:4]}


class Blind(Filled):
    """One that reads nothing."""

    def read(self, value):
        return {}


def model(image=None):
    """kind -> level -> image, kind -> image, place -> image; and the image's mechanism."""
    equation = cg.mechanisms.Equation
    image = image or Filled()
    scm = cg.SCM(
        nx.DiGraph([("kind", "image"), ("level", "image"), ("place", "image"), ("kind", "level")]),
        {**PARENTS, "image": cg.Image(1, 2, 3)},
        {
            "kind": equation(value="u", noise={"u": {"categorical": [0.5, 0.3, 0.2]}}),
            "level": equation(value="10 * kind + u", noise={"u": {"normal": [0, 1]}}),
            "place": cg.mechanisms.Additive(),
            "image": image,
        },
    )
    places = np.random.default_rng(0).normal(size=(20, 2))
    return scm.fit({"place": places}, nodes=["place"], progress=False), image


EVIDENCE = {
    "kind": np.array(["oak", "elm", "ash"], dtype=object),
    "level": np.array([3.0, 8.0, 21.0]),
    "place": np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
}
ROWS, SHOWN_KIND = 3, np.array([0, 1, 2])


def evidence(gain=1.0, rows=slice(None)):
    """Rows whose images show their causes, with noise in the last pixels."""
    pixels = np.full((ROWS, 1, 2, 3), 0.3)
    flat = pixels.reshape(ROWS, 6)
    flat[:, 0], flat[:, 1] = SHOWN_KIND / 4, gain * EVIDENCE["level"] / 100
    flat[:, 2:4] = EVIDENCE["place"] / 100
    return {name: values[rows] for name, values in (EVIDENCE | {"image": (pixels + 1) / 2}).items()}


def close(got, expected):
    np.testing.assert_allclose(np.asarray(got), expected, atol=1e-4)


def test_what_is_read_is_what_the_image_holds():
    scm, _ = model()
    cf = scm.counterfactual(evidence(), do={"kind": "ash"}, seed=0)
    readings = cf.readings["image"]
    assert list(cf.readings) == ["image"] and set(readings) == {"kind", "level", "place"}
    assert readings["kind"].asked.tolist() == readings["kind"].read.tolist() == ["ash"] * 3
    assert readings["kind"].factual.tolist() == ["oak", "elm", "ash"]
    close(readings["level"].asked, [23, 18, 21])  # level = 10 kind + u
    close(readings["level"].read, [23, 18, 21])
    close(readings["level"].factual, [3, 8, 21])
    close(readings["place"].read, EVIDENCE["place"])
    assert readings["level"].read.shape == (3,) and readings["place"].factual.shape == (3, 2)


def test_what_did_not_take_is_told():
    scm, _ = model(Filled(gain=0.5, forgets_kind=True))
    shown = evidence(gain=0.5)
    cf = scm.counterfactual(shown, do={"kind": ["oak", "ash", "ash"], "level": 40.0}, seed=0)
    kind, level = cf.readings["image"]["kind"], cf.readings["image"]["level"]
    # What was asked left no mark: the mechanism takes the old kind for noise.
    assert kind.read.tolist() == ["oak", "elm", "ash"]
    assert kind.not_taken().tolist() == [[False, True, False]]
    close(level.read, [20, 20, 20])
    close(level.factual, [1.5, 4, 10.5])
    assert level.not_taken() is None
    close(level.error, [[20, 20, 20]])

    report = {"image": SimpleNamespace(figures={"level error": 9.9, "kind accuracy": 0.9})}
    table = cf.readings.summary(report)
    assert table.loc[("image", "kind"), ["made", "not_taken"]].tolist() == [3, 1]
    assert table.loc[("image", "level"), "not_taken"] == 3  # 20 is more than twice 9.9
    close(table.loc[("image", "level"), "error"], 20)
    report["image"].figures["level error"] = 10.1
    assert cf.readings.summary(report).loc[("image", "level"), "not_taken"] == 0
    assert pd.isna(cf.readings.summary().loc[("image", "level"), "not_taken"])
    assert "not taken in 1 of 3 made anew" in repr(cf.readings)
    assert "no independent judge" in repr(cf.readings)


def test_nothing_is_read_before_it_is_asked_for_and_then_it_is_kept():
    scm, image = model()
    cf = scm.counterfactual(evidence(), do={"kind": ["oak", "ash", "elm"]}, seed=0)
    readings = cf.readings
    _ = repr(cf), cf.summary(), cf.to_frame(), cf["image"], cf.provenance["image"], readings.only(["image"])
    assert image.calls == []
    _ = readings["image"]["level"].read
    # Three factual images and the two that are others, no more than two in a call.
    assert image.calls == [2, 1, 2]
    _ = cf.readings.to_frame(), cf.readings.summary(), repr(cf.readings), readings["image"]["kind"].asked
    assert image.calls == [2, 1, 2]


def test_a_copied_image_is_read_as_the_factual_one():
    class Moody(Filled):
        """Reads another level at every call."""

        def read(self, value):
            return super().read(value) | {"level": torch.full((len(value),), float(len(self.calls))).double()}

    scm, _ = model(Moody())
    cf = scm.counterfactual(evidence(), do={"kind": ["oak", "ash", "ash"]}, seed=0)
    level = cf.readings["image"]["level"]
    assert level.made.tolist() == [[False, True, False]]
    assert level.factual.tolist() == [1, 1, 2]
    assert level.read.tolist() == [1, 3, 2]


def test_samples_are_read_one_by_one():
    scm, _ = model()
    drawn = cg.Stochastic({"uniform": [30, 40]})
    cf = scm.counterfactual(evidence(), do={"level": drawn}, num_samples=4, seed=0)
    level = cf.readings["image"]["level"]
    assert level.asked.shape == level.read.shape == level.factual.shape == (4, 3)
    close(level.asked, cf["level"])
    close(level.read, cf["level"])
    assert len(np.unique(level.read)) == 12
    close(level.factual, [[3, 8, 21]] * 4)
    table = cf.readings.to_frame()
    assert table.index.names == ["node", "cause", "sample", "row"]
    close(table.loc[("image", "level", 2), "read"].astype(float), cf["level"][2])
    still = scm.counterfactual(evidence(), do={"level": [30, 31, 32]}, num_samples=4, seed=0)
    close(still.readings["image"]["level"].read, [[30, 31, 32]] * 4)


def test_a_table_keeps_the_index_and_names_the_numbers_of_a_vector():
    scm, _ = model()
    rows = evidence()
    images = rows.pop("image")
    place = rows.pop("place")
    frame = pd.DataFrame({**rows, "place_0": place[:, 0], "place_1": place[:, 1], "image": list(images)})
    frame.index = pd.Index(["p", "q", "r"], name="tree")
    cf = scm.counterfactual(frame, do={"kind": "elm"}, seed=0)
    assert list(cf.readings["image"]["kind"].read.index) == ["p", "q", "r"]
    table = cf.readings.to_frame()
    assert list(table.columns) == ["asked", "read", "factual"]
    assert table.loc[("image", "kind", "r")].tolist() == ["elm", "elm", "ash"]
    close(table.loc[("image", "place_1"), "read"].astype(float), [2, 4, 6])


@pytest.mark.parametrize(
    ("do", "targets", "why"),
    [
        ({"kind": "elm"}, ["level"], "no image is among the nodes"),
        ({"image": np.zeros((1, 2, 3))}, None, "it was set, or has no predictor"),
    ],
)
def test_where_nothing_is_read_it_says_why(do, targets, why):
    scm, _ = model()
    readings = scm.counterfactual(evidence(), do=do, targets=targets, seed=0).readings
    assert not readings and len(readings) == 0 and list(readings) == []
    assert why in repr(readings)
    assert readings.to_frame().empty and readings.summary().empty and readings.describe() == {}
    with pytest.raises(UnknownNameError, match="'image'"):
        _ = readings["image"]


def test_a_mechanism_that_reads_nothing_gives_an_empty_mapping():
    scm, _ = model(Blind())
    readings = scm.counterfactual(evidence(), do={"kind": "elm"}, seed=0).readings
    assert dict(readings) == {}
    assert "image (constant) reads no cause" in repr(readings)


def test_an_image_alone_is_read_and_its_causes_need_not_be_asked_for():
    scm, _ = model()
    cf = scm.counterfactual(evidence(), do={"kind": "elm"}, targets=["image"], seed=0)
    assert cf.readings["image"]["kind"].asked.tolist() == ["elm"] * 3


def test_an_image_that_was_not_seen_is_read_as_it_was_drawn():
    scm, _ = model()
    rows = {name: values for name, values in evidence().items() if name != "image"}
    cf = scm.counterfactual(rows, do={"kind": "elm", "level": 50.0}, num_samples=5, seed=0)
    drawn, level = cf.inferred_draws("image"), cf.readings["image"]["level"]
    close(level.factual, 100 * drawn[:, :, 0, 0, 1])
    close(level.read, np.asarray(level.factual) + 50 - EVIDENCE["level"])


def test_worlds_contrasts_and_nested_worlds_carry_their_own():
    scm, _ = model()
    ab = scm.abduct(evidence(), seed=0)
    does = {"elm": {"kind": "elm"}, "nested": {"kind": "oak", "level": cg.WorldRef("elm")["level"]}}
    worlds = ab.worlds(does, targets=["image"])
    close(worlds["nested"].readings["image"]["level"].read, [13, 8, 11])
    assert worlds["nested"].readings["image"]["kind"].read.tolist() == ["oak"] * 3
    narrow = ab.worlds(does, targets=["level"])
    assert list(narrow["elm"].readings) == []
    contrast = ab.contrast({"kind": "ash"}, {"kind": "oak"})
    close(contrast.one.readings["image"]["level"].read, [23, 18, 21])
    close(contrast.other.readings["image"]["level"].read, [3, -2, 1])


def test_pickled_readings_hold_no_mechanism():
    scm, _ = model()
    readings = scm.counterfactual(evidence(), do={"kind": "elm"}, seed=0).readings
    again = pickle.loads(pickle.dumps(readings))
    pd.testing.assert_frame_equal(again.to_frame(), readings.to_frame())
    assert repr(again) == repr(readings)


def test_a_saved_result_says_who_read_what(tmp_path):
    scm, _ = model()
    cf = scm.counterfactual(evidence(), do={"kind": "elm"}, seed=0)
    folder = cf.save(tmp_path / "result")
    told = json.loads((folder / "result.json").read_text())["readings"]
    assert "no independent judge" in told["by"]
    assert told["nodes"]["image"]["kind"] == {
        "asked": ["elm"] * 3, "read": ["elm"] * 3, "factual": ["oak", "elm", "ash"],
        "made": 2, "not_taken": 0,
    }  # fmt: skip
    table = pd.read_csv(folder / "readings.csv").set_index(["node", "cause", "row"])
    assert table.loc[("image", "kind", 0)].tolist() == ["elm", "elm", "oak"]
    table = scm.counterfactual(evidence(), do={"kind": "elm"}, targets=["level"], seed=0).save(tmp_path / "t")
    assert not (table / "readings.csv").exists()
    assert json.loads((table / "result.json").read_text())["readings"] == {}


def test_the_picture_says_what_is_read_where_an_image_was_made_anew():
    scm, _ = model()
    cf = scm.counterfactual(evidence(), do={"kind": ["oak", "ash", "elm"]}, seed=0)
    (axes,) = cf.plot().axes
    words = [text.get_text() for text in axes.texts]
    assert sum("model reads" in word for word in words) == 2
    assert any(word.endswith("model reads\nkind ash") for word in words)
    copied = scm.counterfactual(evidence(), do={}, seed=0)
    (axes,) = copied.plot().axes
    assert not any("model reads" in text.get_text() for text in axes.texts)


def test_an_error_of_the_reader_names_the_node():
    class Broken(Filled):
        def read(self, value):
            raise MechanismError("no light")

    scm, _ = model(Broken())
    cf = scm.counterfactual(evidence(), do={"kind": "elm"}, seed=0)
    with pytest.raises(MechanismError, match="Node 'image': no light"):
        _ = cf.readings["image"]["kind"]


def test_a_diffusion_node_reads_by_its_predictor(pictures):
    scm, data = pictures
    rows = {node: values[:6] for node, values in data.items()}
    cf = scm.counterfactual(rows, do={"kind": 1 - rows["kind"]}, seed=0)
    assert isinstance(cf, Counterfactual)
    mechanism = scm.mechanisms["picture"]
    sigma = mechanism.spec.solver.levels()[0]
    with torch.no_grad():
        for images, read in [
            (cf.canonical("picture"), cf.readings["picture"]["kind"].read),
            (cf.factual_canonical("picture"), cf.readings["picture"]["kind"].factual),
        ]:
            features = mechanism.predictor.encode(images, sigma)
            likely = [
                mechanism.predictor.log_probs(features, {"kind": torch.full((6,), kind)})["kind"]
                for kind in (0, 1)
            ]
            assert read.tolist() == (likely[1] > likely[0]).long().tolist()
    assert cf.readings["picture"]["kind"].factual.tolist() == rows["kind"].tolist()


def test_a_predictor_reads_at_the_level_it_learned_whatever_the_solver_walks_over(pictures, tmp_path):
    scm, data = pictures
    image = torch.from_numpy(data["picture"][:6]) / 127.5 - 1
    parents = {"kind": torch.from_numpy(data["kind"][:6])}

    def told(model):
        return model.mechanisms["picture"].log_prob_of_parents(image, parents)

    higher = scm.with_options("picture", solver={"grid": {"sigma_min": 0.5}})
    loaded = cg.SCM.from_pretrained(higher.save_pretrained(tmp_path / "model"))
    assert torch.equal(told(higher), told(scm)) and torch.equal(told(loaded), told(scm))
    again = higher.fit(data, nodes=["picture"], progress=False)
    assert again.mechanisms["picture"].predictor.lowest == pytest.approx(0.5)


def test_weights_from_before_there_was_a_lowest_level_have_that_of_their_solver(pictures):
    scm, _ = pictures
    mechanism = scm.mechanisms["picture"]
    old = {name: each for name, each in mechanism.state_dict().items() if not name.endswith("lowest")}
    fresh = mechanism.spec.bind(mechanism.variable, mechanism.parents)
    load_weights(fresh, old, "Weights")
    assert float(fresh.predictor.lowest) == pytest.approx(mechanism.spec.solver.levels()[0])


def test_a_diffusion_node_without_a_predictor_reads_nothing():
    variables = {"kind": cg.Categorical(2), "picture": cg.Image(1, 8, 8)}
    spec = cg.mechanisms.Diffusion(backbone={"channels": (8, 8)}, predictor=None)
    mechanism = spec.bind(variables["picture"], {"kind": variables["kind"]})
    assert mechanism.read(torch.zeros(2, 1, 8, 8)) == {}
