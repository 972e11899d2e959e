"""Measures of drawn shapes whose thickness, slant and size are known, and the laws that any measure keeps."""

import numpy as np
import pytest
import torch

from causalgen.datasets.medial_axis import medial_axis, squared_distances
from causalgen.metrics import intensity, size, slant, thickness
from graphs.errors import DomainError, ShapeError

MEASURES = (thickness, slant, size, intensity)


def drawn(inside, side=28, fine=8):
    """An image (1, side, side) of where ``inside(x, y)`` holds; x right, y down from the middle, in px."""
    places = (np.arange(side * fine) + 0.5) / fine - side / 2
    mask = inside(places[None, :], places[:, None])
    return mask.reshape(side, fine, side, fine).mean((1, 3))[None]


def ring(width, radius=8.0):
    return drawn(lambda x, y: np.abs(np.hypot(x, y) - radius) <= width / 2)


def bar(lean=0.0, width=3.0, height=20.0):
    """A bar that leans to the right by ``lean`` pixels a pixel of height."""
    return drawn(lambda x, y: (np.abs(x + lean * y) <= width / 2) & (np.abs(y) <= height / 2))


def scribbles(n):
    """Smooth random shapes with ends, loops and branches, (n, 28, 28) in [0, 1]."""
    noise = np.random.default_rng(0).normal(size=(n, 28, 28))
    wave = np.fft.fftfreq(28)
    smooth = np.exp(-30 * np.hypot(wave[:, None], wave))
    field = np.fft.ifft2(np.fft.fft2(noise) * smooth).real
    shape = np.clip(1.5 - 2.5 * np.abs(field) / field.std((1, 2), keepdims=True), 0, 1)
    frame = np.zeros((28, 28))
    frame[4:-4, 4:-4] = 1
    return shape * frame


@pytest.mark.parametrize("width", [2.0, 3.0, 4.5])
def test_thickness_of_a_ring(width):
    assert thickness(ring(width)) == pytest.approx(width, abs=0.15)


@pytest.mark.parametrize("lean", [-0.5, 0.0, 0.25, 0.6])
def test_slant_of_a_bar(lean):
    assert slant(bar(lean)) == pytest.approx(np.arctan(lean), abs=0.02)


@pytest.mark.parametrize(("lean", "width", "height"), [(0.0, 4.0, 20.0), (0.4, 8.0, 16.0), (0.0, 12.0, 12.0)])
def test_size_of_a_bar_leaves_out_two_percent_of_each_side(lean, width, height):
    assert size(bar(lean, width, height)) == pytest.approx(0.98 * np.sqrt(width * height), rel=0.08)


@pytest.mark.parametrize("brightness", [0.3, 0.7, 1.0])
def test_intensity_is_the_strokes_brightness(brightness):
    assert intensity(brightness * ring(4.0)) == pytest.approx(255 * brightness, rel=1e-6)


@pytest.mark.parametrize("measure", MEASURES)
def test_moving_the_character_changes_nothing(measure):
    images = scribbles(6)
    moved = np.roll(images, (2, -3), (1, 2))
    # Where the skeleton may run on either of two equal pixels, the place decides.
    np.testing.assert_allclose(measure(moved), measure(images), atol=0.1 if measure is thickness else 1e-9)


@pytest.mark.parametrize("measure", [thickness, slant, size])
def test_brightness_does_not_matter(measure):
    images = scribbles(6)
    np.testing.assert_allclose(measure(images / 2), measure(images), atol=1e-9)


def test_a_mirror_turns_the_slant_and_keeps_the_rest():
    images = scribbles(6)
    mirrored = images[:, :, ::-1]
    np.testing.assert_allclose(slant(mirrored), -slant(images), atol=1e-9)
    np.testing.assert_allclose(size(mirrored), size(images), atol=1e-9)
    np.testing.assert_allclose(thickness(mirrored), thickness(images), atol=0.1)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_row_does_not_depend_on_its_batch(measure):
    images = scribbles(5)
    alone = np.concatenate([measure(image[None]) for image in images])
    np.testing.assert_array_equal(measure(images), alone)


@pytest.mark.parametrize("measure", MEASURES)
def test_tensors_and_arrays_with_or_without_a_channel_agree(measure):
    images = scribbles(3)
    result = measure(torch.tensor(images)[:, None])
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result, measure(images))


@pytest.mark.parametrize("measure", MEASURES)
def test_an_image_without_contrast_has_no_measures(measure):
    images = np.concatenate([ring(3.0), np.zeros((1, 28, 28)), np.full((1, 28, 28), 0.5)])
    assert np.isnan(measure(images)).tolist() == [False, True, True]
    assert measure(images[:0]).shape == (0,)


@pytest.mark.parametrize("measure", MEASURES)
def test_wrong_images_are_refused(measure):
    with pytest.raises(ShapeError, match=r"got \(28, 28\)"):
        measure(np.zeros((28, 28)))
    with pytest.raises(DomainError, match="uint8"):
        measure(np.zeros((2, 28, 28), np.uint8))
    for bad in (255.0, -0.1, np.nan):
        images = ring(3.0)
        images[0, 3, 4] = bad
        with pytest.raises(DomainError, match=r"\[0, 1\]"):
            measure(images)


def test_distances_are_those_by_definition():
    masks = scribbles(4)[:, 4:-4, 4:-4] > 0.5  # touches the edge: what is outside is background
    padded = np.pad(masks, ((0, 0), (1, 1), (1, 1)))
    for mask, found in zip(padded, squared_distances(masks), strict=True):
        background = np.argwhere(~mask)
        expected = [((background - point) ** 2).sum(1).min() for point in np.argwhere(mask)]
        assert found[mask[1:-1, 1:-1]].tolist() == expected
        assert not found[~mask[1:-1, 1:-1]].any()


def pieces(mask):
    """How many 8-connected pieces a mask has."""
    left, count = {tuple(point) for point in np.argwhere(mask).tolist()}, 0
    while left:
        count += 1
        front = [left.pop()]
        while front:
            row, column = front.pop()
            near = {(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} & left
            left -= near
            front.extend(near)
    return count


def test_a_skeleton_has_the_pieces_and_holes_of_its_shape_and_is_thin():
    masks = np.concatenate([scribbles(12), ring(5.0), bar(0.3)]) > 0.5
    skeletons = medial_axis(masks, squared_distances(masks))
    assert (skeletons <= masks).all()
    for mask, skeleton in zip(masks, skeletons, strict=True):
        assert pieces(skeleton) == pieces(mask)
        # Thin: no 3 x 3 block is full.
        full = np.lib.stride_tricks.sliding_window_view(skeleton, (3, 3)).all((2, 3))
        assert not full.any()
    # A ring stays a ring: its skeleton has the length of the middle circle.
    assert skeletons[12].sum() == pytest.approx(2 * np.pi * 8, rel=0.25)
