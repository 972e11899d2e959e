"""Digits redrawn: the published images bit for bit, and what thickness and intensity do to them."""

import numpy as np
import pytest
import torch

import causalgen as cg
from causalgen.datasets.medial_axis import squared_distances


def measured(measure, images):
    return measure(images / 255)


def test_the_published_images_come_out_bit_for_bit(rows):
    made = cg.datasets.morphomnist_images(rows["original"], rows["thickness"], rows["intensity"])
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made, rows["published"])


def test_a_row_does_not_depend_on_its_batch_and_channels_are_kept(rows):
    images, thickness = rows["original"][:, None], rows["thickness"]
    made = cg.datasets.morphomnist_images(torch.tensor(images[3:6]), thickness[3:6], rows["intensity"][3:6])
    assert made.shape == (3, 1, 28, 28)
    np.testing.assert_array_equal(made[:, 0], rows["published"][3:6])


def test_thickness_is_what_was_asked_for(rows):
    for asked in (1.5, 2.5, 4.0):
        made = cg.datasets.morphomnist_images(rows["original"], asked, 200.0)
        # Shrinking to 28 x 28 blurs the strokes, and a radius is a whole number of sixteenths.
        assert abs(np.median(measured(cg.metrics.thickness, made)) - asked) < 0.35


def test_thicker_strokes_hold_the_thinner_ones(rows):
    thin, thick = (cg.datasets.morphomnist_images(rows["original"], asked, 255.0) for asked in (1.8, 3.6))
    assert (thick.astype(int) >= thin.astype(int) - 2).mean() > 0.999
    assert (thick.sum((1, 2), dtype=int) > thin.sum((1, 2), dtype=int)).all()


def test_intensity_is_what_was_asked_for_and_scales_the_image(rows):
    dark, bright = (cg.datasets.morphomnist_images(rows["original"], 2.5, asked) for asked in (90, 180))
    assert np.abs(measured(cg.metrics.intensity, dark) - 90).max() <= 2
    assert np.abs(measured(cg.metrics.intensity, bright) - 180).max() <= 2
    unclipped = bright < 255
    assert np.abs(bright[unclipped].astype(int) - 2 * dark[unclipped].astype(int)).max() <= 2


def test_several_processes_give_the_same_images(rows):
    images = np.tile(rows["original"], (3, 1, 1))  # more than one worker is sent at a time
    made = cg.datasets.morphomnist_images(images, 2.2, 150, workers=2)
    one = cg.datasets.morphomnist_images(rows["original"], 2.2, 150)
    np.testing.assert_array_equal(made, np.tile(one, (3, 1, 1)))


def test_no_rows_give_no_images():
    assert cg.datasets.morphomnist_images(np.zeros((0, 28, 28), np.uint8), 2, 100).shape == (0, 28, 28)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"digits": np.zeros((2, 28, 28))}, cg.DomainError, "expected uint8.*got float64"),
        ({"digits": np.zeros((28, 28), np.uint8)}, cg.ShapeError, r"got \(28, 28\). One image\?"),
        ({"digits": np.zeros((2, 28, 28), np.uint8)}, cg.DomainError, "row 0: the image has no contrast"),
        ({"thickness": [2.0, 2.0, 2.0]}, cg.ShapeError, r"one number or shape \(2,\), got \(3,\)"),
        ({"thickness": [2.0, 0.0]}, cg.DomainError, r"Thickness, row 1: expected in \(0, 28\], got 0"),
        ({"thickness": 100.0}, cg.DomainError, r"Thickness, row 0: expected in \(0, 28\], got 100"),
        ({"thickness": np.nan}, cg.DomainError, "Thickness, row 0"),
        ({"intensity": [300, 100]}, cg.DomainError, r"Intensity, row 0: expected in \(0, 255\], got 300"),
        ({"workers": 0}, cg.DomainError, "at least 1 worker"),
    ],
)
def test_bad_input_is_told(rows, change, error, message):
    given = {"digits": rows["original"][2:4], "thickness": 2.0, "intensity": 100.0} | change
    with pytest.raises(error, match=message):
        cg.datasets.morphomnist_images(**given)


def test_a_digit_that_vanishes_is_told():
    across = np.arange(28) - 13.5
    blot = 255 * (across**2 + across[:, None] ** 2 < 36)
    images = np.stack([blot, blot]).astype(np.uint8)
    with pytest.raises(cg.DomainError, match="Row 1: no stroke is left of the digit at thickness 0.001 px"):
        cg.datasets.morphomnist_images(images, [8, 0.001], 100)


@pytest.mark.parametrize("bordered", [True, False])
def test_squared_distances_are_exact(bordered):
    random = np.random.default_rng(0)
    for shape in ((3, 9, 14), (2, 1, 6), (1, 40, 3)):
        masks = random.random(shape) < 0.85
        masks[:, 0, 0] = False
        padded = np.pad(masks, [(0, 0), (1, 1), (1, 1)]) if bordered else masks
        for mask, found in zip(padded, squared_distances(masks, bordered=bordered), strict=True):
            away = np.argwhere(mask)[:, None] - np.argwhere(~mask)[None]
            expected = np.zeros(mask.shape, int)
            expected[mask] = (away**2).sum(2).min(1)
            np.testing.assert_array_equal(found, expected[1:-1, 1:-1] if bordered else expected)
