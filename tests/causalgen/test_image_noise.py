"""The noise of the shipped image models, if drawn, follows its prior: standard normal, telling no cause."""

import numpy as np
import pytest
import torch

import causalgen as cg
from causalgen.cli.common import preset_options
from mechanisms.diffusion.code_training import told

LEARNED = {"kind": "classifier_free", "against": "factual", "weight": 1.0, "interval": None, "corrections": 0}


def model(name, **options):
    """The model along its conditional denoiser, without guidance."""
    return cg.SCM.from_pretrained(name).with_options("image", guidance=LEARNED, **options)


def noise_of(scm, name, rows, leaf="x_T"):
    table = cg.sample_rows(name)
    evidence = {node: table[node][:rows] for node in table}
    return scm.abduct(evidence, seed=0).noise["image"][leaf], evidence["digit"]


def neighbours(x_T):
    """Correlation of pixels side by side, (N, C, H, W) -> its mean over the image."""
    flat = x_T.flatten(0, 1)
    return float((flat[..., 1:] * flat[..., :-1]).mean() / flat.square().mean())


def digits_told(x_T, digits, penalty=100.0):
    """Share of digits that a linear probe tells from noise: ridge regression, each row left out in turn."""
    x = x_T.flatten(1).double()
    x = x - x.mean(0)
    target = torch.nn.functional.one_hot(torch.as_tensor(digits), 10).double()
    target = target - target.mean(0)
    kernel = x @ x.T
    hat = kernel @ torch.linalg.inv(kernel + penalty * torch.eye(len(x), dtype=torch.float64))
    left_out = target - (target - hat @ target) / (1 - hat.diagonal())[:, None]
    return float((left_out.argmax(1).numpy() == digits).mean())


def chance(digits):
    """The commonest digit's share and two standard errors."""
    share = np.bincount(digits).max() / len(digits)
    return share + 2 * (share * (1 - share) / len(digits)) ** 0.5


def held_to_its_prior(x_T):
    assert x_T.std().item() == pytest.approx(1, abs=0.03)
    assert abs(neighbours(x_T)) < 0.03


def test_noise_of_real_digits_follows_its_prior_when_drawn_and_not_as_a_point():
    drawn, _ = noise_of(model("mnist", abduction="posterior"), "mnist", 48)
    held_to_its_prior(drawn)
    solver = {"grid": {"kind": "log", "sigma_min": 0.1}, "thresholding": True}
    point, _ = noise_of(model("mnist", abduction="point", solver=solver, centred=False), "mnist", 8)
    assert point.std() < 0.5 and neighbours(point) > 2 * 0.03  # what a draw may have, twice


def test_noise_of_own_samples_is_a_draw_beside_the_one_they_were_made_of():
    """Of two draws of one law, correlation and slope are the same; a point's slope falls short of it."""
    for abduction, same in (("posterior", True), ("point", False)):
        scm = model("mnist", abduction=abduction)
        mechanism, digits = scm.mechanisms["image"], {"digit": torch.arange(20) % 10}
        prior = mechanism.sample_noise(20, generator=torch.Generator().manual_seed(3))
        images = mechanism.generate(digits, prior)
        found = mechanism.abduct(images, digits, generator=torch.Generator().manual_seed(4)).noise["x_T"]
        u, v = prior["x_T"].flatten(), found.flatten()
        correlation, slope = torch.corrcoef(torch.stack([u, v]))[0, 1], (u * v).mean() / (u * u).mean()
        assert bool(abs(correlation - slope) < 0.02) is same


def test_codes_of_real_digits_follow_their_prior_and_tell_no_digit():
    scm = cg.SCM.from_pretrained("mnist")
    rows, digit = cg.sample_rows("mnist"), scm.variables["digit"]
    images = scm.variables["image"].encode(rows["image"], where="test")
    code = scm.mechanisms["image"].code
    parents = {"digit": torch.as_tensor(digit.encode(rows["digit"], where="test"))}
    with torch.no_grad():
        mean = code.mean(torch.as_tensor(images), parents)
        drawn = torch.cat([code.around(mean, generator=torch.Generator().manual_seed(s)) for s in range(4)])
        leaf = code.to_prior(drawn)
    assert leaf.std().item() == pytest.approx(1, abs=0.06)
    # 200 rows: three standard errors of a correlation.
    assert (torch.corrcoef(leaf.T) - torch.eye(code.width)).abs().max() < 3 / 200**0.5
    # The first test images are by other writers than the training images, so their mean is a little off.
    assert leaf.mean(0).abs().max() < 0.3
    found, chance, errors = told(leaf[:200], parents["digit"], digit)
    assert errors < 2, (found, chance)


def test_codes_of_own_samples_are_those_they_were_made_of():
    """The denoiser draws what a code says, and the encoder reads it back."""
    scm = cg.SCM.from_pretrained("mnist").with_options("image", abduction="posterior")
    mechanism, parents = scm.mechanisms["image"], {"digit": torch.arange(60) % 10}
    prior = mechanism.sample_noise(60, generator=torch.Generator().manual_seed(3))
    images = mechanism.generate(parents, prior)
    found = mechanism.abduct(images, parents, generator=torch.Generator().manual_seed(4)).noise["code"]
    assert found.std().item() == pytest.approx(1, abs=0.1)
    drawn, read = (mechanism.code.from_prior(leaf).T for leaf in (prior["code"], found))
    pairs = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(drawn, read, strict=True)]
    assert torch.stack(pairs).mean() > 0.6


def test_the_code_stays_bit_for_bit_under_null_and_other_digits():
    scm, rows = cg.SCM.from_pretrained("mnist"), cg.sample_rows("mnist")
    few = {node: rows[node][:3] for node in rows}
    abduction = scm.abduct(few, seed=0)
    before = abduction.noise["image"]["code"].clone()
    for do in ({}, {"digit": 3}):
        abduction.counterfactual(do, copy_unaffected=False)
        assert torch.equal(abduction.noise["image"]["code"], before)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "morphomnist"])
def test_noise_tells_no_digit(name):
    drawn, digits = noise_of(model(name, abduction="posterior"), name, 200)
    held_to_its_prior(drawn)
    assert digits_told(drawn, digits) <= chance(digits)
    edits = preset_options("edit") if name == "mnist" else {}  # the other's default
    edit, _ = noise_of(cg.SCM.from_pretrained(name).with_options("image", **edits), name, 200)
    assert digits_told(edit, digits) > chance(digits)  # the probe finds a digit where there is one
