"""The noise of the shipped image models, if drawn, follows its prior: standard normal, telling no cause."""

import numpy as np
import pytest
import torch

import causalgen as cg

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
    point, _ = noise_of(model("mnist", abduction="point"), "mnist", 8)
    assert point.std() < 0.5 and neighbours(point) > 0.1


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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "morphomnist"])
def test_noise_tells_no_digit(name):
    drawn, digits = noise_of(model(name, abduction="posterior"), name, 200)
    held_to_its_prior(drawn)
    assert digits_told(drawn, digits) <= chance(digits)
    point, _ = noise_of(model(name, abduction="point"), name, 200)
    assert digits_told(point, digits) > chance(digits)
