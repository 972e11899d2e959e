"""An observed image informs a missing continuous cause, against a closed form."""

import json
import math

import networkx as nx
import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch

import causalgen as cg
from causalgen.cli.given import read_evidence
from mechanisms.base import Abducted, Mechanism, Noise
from mechanisms.intervened import Constant

SPREAD, PIXEL = 0.3, 0.1
"""Deviation of the pixels of an image, and how much brighter one unit makes it."""


class Brightness(Mechanism):
    """A 4 x 4 image whose pixels are PIXEL * t + SPREAD * u; its predictor is exact where t ~ N(0, 1) ."""

    abduction = "exact"
    deterministic = True

    def sample_noise(self, n, *, generator):
        return Noise(n, {"u": torch.randn(n, 1, 4, 4, generator=generator)})

    def generate(self, parents, noise):
        return (PIXEL * parents["t"].view(-1, 1, 1, 1) + SPREAD * noise["u"]).float()

    def abduct(self, value, parents, *, generator):
        return Abducted(Noise(len(value), {"u": (value - PIXEL * parents["t"].view(-1, 1, 1, 1)) / SPREAD}))

    def log_prob_of_parents(self, value, parents):
        """log q(t | x), normal; R proposals a row, proposal-major."""
        precision = 1 + 16 * (PIXEL / SPREAD) ** 2
        mean = value.double().sum((1, 2, 3)) * PIXEL / SPREAD**2 / precision
        apart = parents["t"] - mean.repeat(len(parents["t"]) // len(value))
        return -0.5 * precision * apart**2 + 0.5 * math.log(precision)


@pytest.fixture(scope="module")
def scm():
    """t -> image, t -> y."""
    image, t = cg.Image(1, 4, 4), cg.Continuous()
    return cg.SCM(
        nx.DiGraph([("t", "image"), ("t", "y")]),
        {"t": t, "image": image, "y": cg.Continuous()},
        {
            "t": cg.mechanisms.Equation(value="u", noise={"u": {"normal": [0, 1]}}),
            "y": cg.mechanisms.Equation(value="2*t + u", noise={"u": {"normal": [0, 1]}}),
            "image": Brightness(Constant(), image, {"t": t}),
        },
    )


def closed_form(pixels, y=None):
    """Mean and variance of t given pixels in [-1, 1], and perhaps y."""
    precision = 1 + 16 * (PIXEL / SPREAD) ** 2 + (0 if y is None else 4)
    pull = pixels.sum() * PIXEL / SPREAD**2 + (0 if y is None else 2 * y)
    return pull / precision, 1 / precision


@pytest.mark.parametrize("y", [None, [0.5, -3.0]])
def test_a_continuous_cause_is_inferred_from_an_image(scm, y):
    random = np.random.default_rng(0)
    pixels = (PIXEL * np.array([1.5, -1.0])[:, None, None] + SPREAD * random.normal(size=(2, 4, 4))).clip(
        -1, 1
    )
    images = (pixels[:, None] + 1) / 2
    evidence = {"image": images} if y is None else {"image": images, "y": y}
    ab = scm.abduct(evidence, num_samples=5000, seed=0, particles=50_000)
    found, drawn = ab.posterior("t"), ab.counterfactual({"y": 0.0})["t"]
    for row in range(2):
        mean, variance = closed_form(pixels[row], None if y is None else y[row])
        weights, values = found.weights[:, row], found.values[:, row]
        weighted = (weights * values).sum()
        assert weighted.item() == pytest.approx(mean, abs=0.03)
        assert (weights * (values - weighted) ** 2).sum().item() == pytest.approx(variance, rel=0.05)
        assert drawn[:, row].mean().item() == pytest.approx(mean, abs=0.04)
        assert drawn[:, row].std().item() == pytest.approx(math.sqrt(variance), rel=0.06)


def test_pictures_are_not_copied_for_each_proposal_and_large_ones_are_read_a_few_at_a_time():
    asked: dict[str, list[int]] = {"density": [], "read": []}

    class Counted(Brightness):
        def log_prob(self, value, parents):
            asked["density"].append(len(value))

        def log_prob_of_parents(self, value, parents):
            asked["read"].append(len(value))
            return super().log_prob_of_parents(value, parents)

    image, t = cg.Image(1, 64, 64), cg.Continuous()
    normal = cg.mechanisms.Equation(value="u", noise={"u": {"normal": [0, 1]}})
    scm = cg.SCM(
        nx.DiGraph([("t", "image")]),
        {"t": t, "image": image},
        {"t": normal, "image": Counted(Constant(), image, {"t": t})},
    )
    scm.abduct({"image": np.full((10, 64, 64), 0.5)}, seed=0, particles=4096).posterior("t")
    assert set(asked["density"]) == {1}
    assert max(asked["read"]) == 4 and sum(asked["read"]) == 10  # 2**26 numbers at once


class Lit(Brightness):
    """The same in the light of a lamp, which t moves too: lamp = t + v, and both brighten the image alike."""

    def generate(self, parents, noise):
        return super().generate({"t": parents["t"] + parents["lamp"]}, noise)

    def log_prob_of_parents(self, value, parents):
        """log q(t, lamp | x) where t and v are N(0, 1), up to a constant of each row."""
        t, lamp = parents["t"], parents["lamp"]
        bright = value.double().mean((1, 2, 3)).repeat(len(t) // len(value))
        return -8 * ((bright - PIXEL * (t + lamp)) / SPREAD) ** 2 - t**2 / 2 - (lamp - t) ** 2 / 2


@pytest.mark.parametrize(("lit", "fitted"), [(False, False), (False, True), (True, False)])
@pytest.mark.parametrize("prior", [0.0, 3.0])
def test_a_cause_is_inferred_from_an_image_in_a_model_that_was_intervened_on(lit, fitted, prior):
    """The predictor learned under the law before: a lamp that was switched on tells nothing of t."""
    parents, number = {"t": cg.Continuous(), "lamp": cg.Continuous()}, {"u": {"normal": [0, 1]}}
    scm = cg.SCM(
        nx.DiGraph([("t", "image"), ("t", "lamp"), ("lamp", "image")]),
        {**parents, "image": cg.Image(1, 4, 4)},
        {
            "t": cg.mechanisms.Equation(value="u", noise=number),
            "lamp": cg.mechanisms.Equation(value="t + u", noise=number),
            "image": Lit(Constant(), cg.Image(1, 4, 4), parents),
        },
    )
    moved = cg.Replace(cg.mechanisms.Equation(value=f"u + {prior}", noise=number))
    scm = scm.do({"t": moved} | ({"lamp": 1.0} if lit else {}))
    if fitted:  # the image was not
        scm.fit({"t": np.arange(20.0), "lamp": np.arange(20.0) + 1}, nodes=["lamp"], seed=0)
    image = np.full((1, 4, 4), 0.5 + 0.75 * PIXEL)  # what t = 0.5 makes beside this lamp
    found = scm.abduct({"image": image, "lamp": 1.0}, seed=0, particles=50_000).posterior("t")
    told, seen = 16 * (PIXEL / SPREAD) ** 2, 0 if lit else 1
    expected = (prior + seen * 1.0 + told * 0.5) / (1 + seen + told)
    assert (found.weights[:, 0] * found.values[:, 0]).sum().item() == pytest.approx(expected, abs=0.03)


def test_its_counterfactual_keeps_the_image_s_noise(scm):
    image = np.full((1, 4, 4), 0.6)
    cf = scm.abduct({"image": image}, num_samples=20, seed=0).counterfactual({"t": cg.Shift(1.0)})
    brighter = (cf["image"] - cf.factual["image"]).flatten(1)
    torch.testing.assert_close(brighter, torch.full_like(brighter, PIXEL / 2), rtol=0, atol=1e-6)
    assert set(cf.provenance["t"]) == {"interventional"} and set(cf.provenance["image"]) == {"inferred"}


@pytest.mark.slow
def test_a_trained_predictor_tells_a_continuous_cause():
    random = np.random.default_rng(0)
    t = random.normal(size=256)
    image = np.clip(0.5 + 0.15 * t[:, None, None, None] + 0.02 * random.normal(size=(256, 1, 8, 8)), 0, 1)
    scm = cg.SCM(
        nx.DiGraph([("t", "image")]),
        {"t": cg.Continuous(), "image": cg.Image(1, 8, 8)},
        {
            "t": cg.mechanisms.Additive(),
            "image": cg.mechanisms.Diffusion(
                backbone={"channels": (8, 16)},
                predictor={"channels": (8, 16)},
                solver={"kind": "anchored", "steps": 4},
                training={"epochs": 12, "batch_size": 32, "learning_rate": 3e-3, "validation": 0.1},
            ),
        },
    ).fit({"t": t, "image": image}, progress=False, seed=0)
    with pytest.warns(UserWarning, match="in .* of 40 rows the effective sample size is small"):
        scm.abduct({"image": image[:40]}, seed=0).posterior("t")
    found = scm.abduct({"image": image[:40]}, seed=0, particles=2**17).posterior("t")
    guess = (found.weights * found.values).sum(0).numpy()
    assert np.corrcoef(guess, t[:40])[0, 1] > 0.9
    cf = scm.abduct({"image": image[:4]}, seed=0, particles=2**17).counterfactual(do={"t": 0.0})
    assert cf["image"].shape == (4, 1, 8, 8) and cf.provenance["image"].tolist() == ["inferred"] * 4


def test_paths_of_pictures_are_evidence_of_an_image(scm, tmp_path):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 255, (3, 4, 4), dtype=np.uint8)
    paths = [tmp_path / f"{row}.png" for row in range(3)]
    for path, image in zip(paths, pixels, strict=True):
        PIL.Image.fromarray(image).save(path)
    texts = [str(path) for path in paths]

    def found(image, t=(0.5, -1.0, 2.0)):
        return scm.counterfactual({"image": image, "t": np.array(t[:3])}, do={"t": 1.0}, seed=0)

    expected = found(pixels)
    for given in (
        texts,
        paths,
        tuple(paths),
        np.array(texts),
        pd.Series(texts),
        [paths[0], *pixels_of(paths[1:])],
    ):
        assert torch.equal(found(given)["image"], expected["image"])
    frame = pd.DataFrame({"image": texts, "t": [0.5, -1.0, 2.0]})
    whole = scm.counterfactual(frame, do={"t": 1.0}, seed=0)
    assert torch.equal(whole["image"], expected["image"])
    one = scm.counterfactual(frame.iloc[1], do={"t": 1.0}, seed=0)
    assert torch.equal(one["image"], expected["image"][1:2])
    for single in (texts[1], paths[1]):
        again = scm.counterfactual({"image": single, "t": -1.0}, do={"t": 1.0}, seed=0)
        assert torch.equal(again["image"], expected["image"][1:2])
    gaps = found([texts[0], None, paths[2]])
    assert torch.equal(gaps["image"][::2], expected["image"][::2])
    assert gaps.provenance["image"][1] == "prior"


def pixels_of(paths):
    return [PIL.Image.open(path) for path in paths]


def test_a_path_that_is_no_picture_is_one_clear_error(scm, tmp_path):
    PIL.Image.new("L", (5, 4)).save(tmp_path / "wide.png")
    with pytest.raises(cg.DataError, match="Evidence 'image', row 1: there is no file .*none.png"):
        scm.abduct({"image": [PIL.Image.new("L", (4, 4)), tmp_path / "none.png"], "t": 0.0})
    with pytest.raises(
        cg.DataError, match="Evidence 'image', row 0 .*expected an image of height 4 and width 4"
    ):
        scm.abduct({"image": str(tmp_path / "wide.png")})


def test_paths_of_a_json_stay_in_its_folder(scm, tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    for folder in (tmp_path, inner):
        PIL.Image.new("L", (4, 4), 80).save(folder / "a.png")
    file = inner / "evidence.json"
    file.write_text(json.dumps({"image": ["a.png", None], "t": [1.0, 2.0]}))
    given = read_evidence(str(file), scm, ())
    assert np.asarray(given["image"][0]).tolist() == [[[80] * 4] * 4] and given["image"][1] is None
    file.write_text(json.dumps({"image": ["a.png", "../a.png"], "t": [1.0, 2.0]}))
    with pytest.raises(cg.DataError, match="row 1: the path '../a.png' leads out of the table's folder"):
        read_evidence(str(file), scm, ())
