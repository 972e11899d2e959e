"""IM1 and IM2 on autoencoders whose errors are known."""

import numpy as np
import pytest
import torch

from causalgen.metrics.latent_divergence import im1, im2
from graphs.errors import DataError, DomainError, ShapeError

IMAGES = np.random.default_rng(0).uniform(0.25, 0.75, (5, 1, 4, 4)).astype(np.float32)


def off_by(amount):
    """An autoencoder whose squared error is 16 amount² on every image."""
    return lambda images: images + amount


def test_equal_autoencoders_score_one_and_zero():
    assert im1(IMAGES, off_by(0.1), off_by(0.1)).value == pytest.approx(1, abs=1e-6)
    assert im2(IMAGES, off_by(0.1), off_by(0.1)).value == 0


def test_im1_is_the_ratio_of_the_squared_errors():
    score = im1(IMAGES, factual_autoencoder=off_by(0.2), counterfactual_autoencoder=off_by(0.1))
    assert score.value == pytest.approx(0.25, rel=1e-4)
    assert score.rows == 5


def test_perfect_reconstruction_by_the_new_class_scores_zero():
    assert im1(IMAGES, off_by(0.2), off_by(0.0)).value == 0


def test_im2_is_the_squared_distance_over_the_ink():
    ink = np.abs(IMAGES).sum((1, 2, 3))
    score = im2(IMAGES, off_by(0.1), off_by(-0.1))
    assert score.value == pytest.approx(float((16 * 0.2**2 / ink).mean()), rel=1e-4)


def test_scores_average_over_rows():
    def by_row(images):
        return images + torch.tensor([0.1, 0.3, 0.1, 0.1, 0.1]).reshape(-1, 1, 1, 1)

    score = im1(IMAGES, off_by(0.1), by_row)
    assert score.value == pytest.approx((4 * 1 + 9) / 5, rel=1e-4)


def test_bytes_are_scaled():
    pixels = (IMAGES * 255).astype(np.uint8)
    assert im2(pixels, off_by(0.1), off_by(0)).value == pytest.approx(
        im2(pixels / 255, off_by(0.1), off_by(0)).value, rel=1e-6
    )


def test_bad_input_is_refused():
    with pytest.raises(DomainError, match="divide by 255"):
        im1(IMAGES * 255, off_by(0), off_by(0))
    with pytest.raises(DataError, match="empty"):
        im1(IMAGES[:0], off_by(0), off_by(0))
    with pytest.raises(ShapeError, match="returned shape"):
        im1(IMAGES, off_by(0), lambda images: images[:, :, :2])
    black = IMAGES.copy()
    black[3] = 0
    with pytest.raises(DomainError, match="image 3 is black"):
        im2(black, off_by(0), off_by(0))
