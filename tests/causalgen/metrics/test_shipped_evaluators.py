"""The evaluators that ship: small, right, and able to tell the controls apart on real test images."""

import numpy as np
import pytest
import torch

import causalgen as cg
from causalgen.metrics.evaluators import evaluator_names
from causalgen.metrics.evaluators.storage import SHIPPED


@pytest.fixture(scope="module")
def evaluators():
    return cg.metrics.load_evaluators("mnist")


@pytest.fixture(scope="module")
def rows():
    return cg.sample_rows("mnist")


@pytest.fixture(scope="module")
def question(rows):
    """Fours that are to become nines: the fours, the codes, and real nines."""
    digits, images = rows["digit"], rows["image"]
    return images[digits == 4][:20], np.full(20, 4), np.full(20, 9), images[digits == 9][:20]


def test_evaluators_ship():
    assert "mnist" in evaluator_names()


@pytest.mark.parametrize("name", evaluator_names())
def test_they_are_small_and_good(name):
    assert sum(path.stat().st_size for path in (SHIPPED / name).iterdir()) < 3_000_000
    told = cg.metrics.load_evaluators(name).metadata
    assert told["figures"]["accuracy"] >= 0.99
    assert told["test_rows"] == 10_000
    assert told["training_rows"] == 60_000
    assert "CC BY-SA 3.0" in (SHIPPED / name / "README.md").read_text()


def test_they_read_digits(evaluators, rows):
    assert (evaluators.classes(rows["image"]) == rows["digit"]).mean() >= 0.98


def test_im1_sees_the_class(evaluators, question):
    fours, old, new, nines = question
    before, after = evaluators.class_autoencoder(old), evaluators.class_autoencoder(new)
    assert cg.metrics.im1(nines, before, after).value < 1 < cg.metrics.im1(fours, before, after).value


def test_im2_prefers_real_images_of_the_class(evaluators, question):
    fours, _, new, nines = question
    after = evaluators.class_autoencoder(new)
    real, copies = (cg.metrics.im2(each, after, evaluators.autoencoder).value for each in (nines, fours))
    assert real < copies


def test_cld_of_the_controls(evaluators, question, rows):
    fours, old, new, nines = question
    distances = cg.metrics.class_distances(evaluators.latents, fours, old, new, rows["image"], rows["digit"])
    nothing = cg.metrics.cld(fours, distances).value
    # The distance of an image to itself is 0 up to rounding, and no real nine is at 0.
    assert nothing == pytest.approx(cg.metrics.cld_do_nothing(), abs=1e-9)
    floor, random = cg.metrics.cld_floor(distances).value, cg.metrics.cld(nines, distances).value
    assert floor < random < nothing


def test_feature_distance_sees_noise(evaluators, rows):
    images = rows["image"].astype(np.float32) / 255
    noise = np.random.default_rng(0).normal(0, 0.3, images[:100].shape)
    noisy = (images[:100] + noise).clip(0, 1)
    clean = cg.metrics.feature_distance(images[:100], images[100:], evaluators.features)
    spoilt = cg.metrics.feature_distance(noisy, images[100:], evaluators.features)
    assert spoilt.value > 2 * clean.value
    assert str(clean).startswith("FD(mnist classifier, ")


def test_they_leave_the_random_state_alone():
    before = torch.random.get_rng_state()
    cg.metrics.load_evaluators("mnist")
    assert torch.equal(torch.random.get_rng_state(), before)
