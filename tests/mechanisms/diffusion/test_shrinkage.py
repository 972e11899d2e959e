"""Shrinkage of small changes: against numpy, and in a mechanism whose changes are known."""

import numpy as np
import pytest
import torch

import causalgen as cg
from mechanisms.diffusion.feedback import shrunk
from mechanisms.diffusion.mechanism import Diffusion
from mechanisms.diffusion.solvers import Anchored
from tests.mechanisms.diffusion.test_mechanism_exact import GAUSSIAN, exact, seeded

ROWS, SIDE = 5, 16


def changed(part: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Factual images, true counterfactuals (``part`` columns are others), and these with small errors."""
    draw = torch.Generator().manual_seed(seed)
    factual = torch.rand(ROWS, 3, SIDE, SIDE, generator=draw, dtype=torch.float64)
    truth = factual.clone()
    truth[..., :part] += 0.5 + 0.3 * torch.rand(ROWS, 3, SIDE, part, generator=draw, dtype=torch.float64)
    return factual, truth, truth + 0.01 * torch.randn(truth.shape, generator=draw, dtype=torch.float64)


def by_hand(image: np.ndarray, factual: np.ndarray, share: float) -> np.ndarray:
    """Pixel by pixel, with Gao & Bruce's thresholds tau and 2 tau."""
    answer = factual.copy()
    for row in range(len(image)):
        change = image[row] - factual[row]
        size = np.abs(change).mean(0)
        tau = min(3 * 1.4826 * np.sort(size.ravel())[(size.size - 1) // 2], share * size.max())
        for y, x in np.ndindex(size.shape):
            kept = 0 if size[y, x] <= tau else min(2 * (size[y, x] - tau), size[y, x])
            answer[row, :, y, x] += change[:, y, x] * kept / max(size[y, x], 1e-30)
    return answer


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_each_pixel_is_shrunk_as_published(share):
    factual, _, image = changed(4)
    expected = by_hand(image.numpy(), factual.numpy(), share)
    np.testing.assert_allclose(shrunk(image, factual, share).numpy(), expected, atol=1e-12)


def test_errors_beside_a_local_change_go_and_the_change_stays():
    factual, truth, image = changed(4)
    found, moved = shrunk(image, factual, 0.1), (truth != factual).any(1, keepdim=True).expand_as(truth)
    before, after = (image - truth).abs(), (found - truth).abs()
    assert after[~moved].mean() < before[~moved].mean() / 20
    torch.testing.assert_close(found[moved], image[moved])


def test_a_change_of_the_whole_image_stays():
    factual, _, image = changed(SIDE)
    torch.testing.assert_close(shrunk(image, factual, 0.1), image)
    torch.testing.assert_close(shrunk(factual + 0.003, factual, 0.5), factual + 0.003)


def test_small_changes_are_shrunk_as_large_ones():
    factual, _, image = changed(4)
    small = factual + (image - factual) / 64
    torch.testing.assert_close(
        (shrunk(small, factual, 0.1) - factual) * 64, shrunk(image, factual, 0.1) - factual
    )


def test_rows_do_not_touch_each_other_and_no_change_is_none():
    factual, _, image = changed(4)
    alone = torch.cat([shrunk(image[i : i + 1], factual[i : i + 1], 0.1) for i in range(ROWS)])
    assert torch.equal(shrunk(image, factual, 0.1), alone)
    assert torch.equal(shrunk(factual, factual, 0.1), factual)


@pytest.mark.parametrize("residuals", [True, False])
def test_a_mechanism_shrinks_counterfactuals_and_leaves_samples_alone(residuals):
    image, parents = GAUSSIAN.draw(6)
    other = {"t1": parents["t1"] + 1, "t2": parents["t2"]}
    solver = Anchored(steps=8, residuals=residuals)
    plain, shrinking = exact(GAUSSIAN, solver=solver), exact(GAUSSIAN, solver=solver, shrinkage=0.4)
    noise = shrinking.abduct(image, parents, generator=seeded()).noise
    whole = plain.generate(other, plain.abduct(image, parents, generator=seeded()).noise)
    torch.testing.assert_close(shrinking.generate(other, noise), shrunk(whole, image, 0.4))
    assert not torch.equal(shrunk(whole, image, 0.4), whole)
    prior = shrinking.sample_noise(3, generator=seeded())
    first = {name: value[:3] for name, value in parents.items()}
    unshrunk = plain.generate(first, plain.sample_noise(3, generator=seeded()))
    assert torch.equal(shrinking.generate(first, prior), unshrunk)


def test_no_change_is_none_in_half_precision_too():
    image = torch.linspace(0, 1, 32).view(2, 1, 4, 4).half()
    assert torch.equal(shrunk(image, image, 0.1), image)


@pytest.mark.parametrize("share", [-0.1, 0.6, float("nan"), "much"])
def test_shares_that_are_none_are_refused(share):
    with pytest.raises(cg.SpecError, match="shrinkage"):
        Diffusion(shrinkage=share)
