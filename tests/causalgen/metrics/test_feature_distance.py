"""The Frechet distance where it is known, and the name it goes by."""

import numpy as np
import pytest

from causalgen.metrics.feature_distance import Features, feature_distance, frechet_distance
from graphs.errors import DataError, DomainError, ShapeError

RNG = np.random.default_rng(0)
CORNERS = Features("corners", "ab12" * 16, lambda images: images[:, 0, :2, :2].flatten(1))


def covariance(size):
    root = RNG.normal(size=(size, size))
    return root @ root.T


def test_equal_gaussians_are_at_distance_zero():
    mean, spread = RNG.normal(size=6), covariance(6)
    assert frechet_distance(mean, spread, mean, spread) == pytest.approx(0, abs=1e-10)


def test_commuting_covariances_have_a_closed_form():
    one, other = RNG.uniform(0.1, 4, (2, 5))
    basis, _ = np.linalg.qr(RNG.normal(size=(5, 5)))
    shift = RNG.normal(size=5)
    found = frechet_distance(shift, (basis * one) @ basis.T, np.zeros(5), (basis * other) @ basis.T)
    assert found == pytest.approx((shift**2).sum() + ((np.sqrt(one) - np.sqrt(other)) ** 2).sum())


def test_distance_is_symmetric_and_does_not_see_rotations():
    a, b = covariance(4), covariance(4)
    m, n = RNG.normal(size=(2, 4))
    basis, _ = np.linalg.qr(RNG.normal(size=(4, 4)))
    found = frechet_distance(m, a, n, b)
    assert frechet_distance(n, b, m, a) == pytest.approx(found)
    turned = frechet_distance(basis @ m, basis @ a @ basis.T, basis @ n, basis @ b @ basis.T)
    assert turned == pytest.approx(found)


def test_two_by_two_without_common_axes():
    # For 2 x 2, Tr sqrt(C1 C2) = sqrt(Tr(C1 C2) + 2 sqrt(det C1 C2)).
    a, b = covariance(2), covariance(2)
    product = a @ b
    trace = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    exact = np.trace(a) + np.trace(b) - 2 * trace
    assert frechet_distance(np.zeros(2), a, np.zeros(2), b) == pytest.approx(exact)


def test_singular_covariances_are_fine():
    assert frechet_distance([0.0, 0.0], np.diag([1.0, 0.0]), [0.0, 0.0], np.diag([0.0, 1.0])) == 2


def test_images_against_themselves_and_moved():
    images = RNG.uniform(0, 0.5, (50, 1, 4, 4))
    assert feature_distance(images, images, CORNERS).value == pytest.approx(0, abs=1e-8)
    # All four features move by a quarter, and nothing else changes.
    assert float(feature_distance(images + 0.25, images, CORNERS)) == pytest.approx(4 / 16, rel=1e-5)


def test_a_distance_names_its_network():
    images = RNG.uniform(0, 1, (50, 1, 4, 4))
    told = str(feature_distance(images, images[::-1], CORNERS))
    assert told.startswith("FD(corners, ab12ab12) = ")
    assert "FID" not in told


def test_bad_input_is_refused():
    images = RNG.uniform(0, 1, (50, 1, 4, 4))
    with pytest.raises(DataError, match="The real images: 4 are too few .* at least 5"):
        feature_distance(images, images[:4], CORNERS)
    with pytest.raises(DomainError, match="divide by 255"):
        feature_distance(images * 255, images, CORNERS)
    with pytest.raises(DomainError, match="positive semi-definite"):
        frechet_distance([0.0], [[-1.0]], [0.0], [[1.0]])
    with pytest.raises(ShapeError, match="two means"):
        frechet_distance([0.0, 1.0], [[1.0]], [0.0], [[1.0]])


def test_a_single_feature_has_the_distance_of_two_normal_laws():
    images, real = RNG.random((2, 40, 1, 3, 3))
    mean = Features("mean", "ab12" * 16, lambda images: images.mean((1, 2, 3))[:, None])
    one, other = images.astype(np.float32).mean((1, 2, 3)), real.astype(np.float32).mean((1, 2, 3))
    exact = (one.mean() - other.mean()) ** 2 + (one.std(ddof=1) - other.std(ddof=1)) ** 2
    assert feature_distance(images, real, mean).value == pytest.approx(exact, rel=1e-4)
