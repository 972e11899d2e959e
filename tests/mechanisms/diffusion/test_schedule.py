"""One sigma for every schedule: DDPM's product of betas, the VP-SDE's integral, EDM's grids."""

import math
from itertools import pairwise

import pytest
import torch

from graphs.errors import SpecError
from mechanisms.diffusion.schedule import (
    DDPMGrid,
    KarrasGrid,
    LogGrid,
    alpha_bar_of,
    linear_alpha_bars,
    sigma_of,
)


def test_sigma_and_alpha_bar_are_inverse():
    alpha_bar = torch.linspace(1e-6, 1, 101, dtype=torch.float64)
    torch.testing.assert_close(alpha_bar_of(sigma_of(alpha_bar)), alpha_bar, rtol=1e-12, atol=0)
    assert sigma_of(torch.tensor(1.0)) == 0


@pytest.mark.parametrize(
    "grid", [LogGrid(), LogGrid(sigma_min=0.1, sigma_max=3), KarrasGrid(), KarrasGrid(rho=1)]
)
@pytest.mark.parametrize("steps", [2, 17])
def test_continuous_grids_ascend_between_their_ends(grid, steps):
    sigma = grid.sigmas(steps)
    assert sigma.shape == (steps + 1,) and sigma.dtype == torch.float64
    assert bool((sigma.diff() > 0).all())
    ends = torch.tensor([grid.sigma_min, grid.sigma_max], dtype=torch.float64)
    torch.testing.assert_close(sigma[[0, -1]], ends, rtol=1e-12, atol=0)


def test_log_grid_has_equal_ratios_and_karras_equal_roots():
    ratios = LogGrid().sigmas(12).log().diff()
    torch.testing.assert_close(ratios, ratios[:1].expand(12), rtol=1e-12, atol=0)
    roots = (KarrasGrid().sigmas(12) ** (1 / 7)).diff()
    torch.testing.assert_close(roots, roots[:1].expand(12), rtol=1e-12, atol=0)


def test_ddpm_levels_are_products_of_betas():
    betas = [1e-4 + (0.02 - 1e-4) * t / 999 for t in range(1000)]
    alpha_bar = [math.prod(1 - beta for beta in betas[: t + 1]) for t in range(1000)]
    sigma = DDPMGrid(respaced=1000).sigmas(999)
    expected = [math.sqrt((1 - a) / a) for a in alpha_bar]
    torch.testing.assert_close(sigma, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=0)


def test_diff_scm_walks_the_first_75_of_100_respaced_levels():
    # guided_diffusion's space_timesteps(1000, "100"): strides of 999 / 99, rounded.
    chosen = [round(k * 999 / 99) for k in range(100)]
    every = DDPMGrid(respaced=1000).sigmas(999)
    sigma = DDPMGrid().sigmas(75)
    torch.testing.assert_close(sigma, every[chosen[:76]], rtol=1e-12, atol=0)
    assert sigma[0].item() == pytest.approx(math.sqrt(1e-4 / (1 - 1e-4)))  # never 0
    torch.testing.assert_close(DDPMGrid().sigmas(99)[-1], every[-1])


def test_discrete_schedule_tends_to_the_vp_sde():
    # dx = -b/2 x dt + sqrt(b) dw with b(t) = .1 + 19.9 t on [0, 1]; betas b(t) / T are its T-step version.
    def gap(levels: int) -> float:
        time = torch.linspace(1, levels, levels, dtype=torch.float64) / levels
        integral = 0.1 * time + 19.9 * time**2 / 2
        alpha_bar = linear_alpha_bars(levels, 0.1 / levels, 20 / levels)
        return (alpha_bar - (-integral).exp()).abs().max().item()

    gaps = [gap(levels) for levels in (1000, 2000, 4000)]
    assert gaps[0] < 6e-3
    for coarse, fine in pairwise(gaps):
        assert coarse / fine == pytest.approx(2, rel=0.02)  # first order in 1 / T


def test_ddpm_noising_steps_have_the_closed_form_marginal():
    # x_t = sqrt(1 - beta) x_{t-1} + sqrt(beta) eps, in mean and variance.
    mean, variance = 1.0, 0.0
    for beta in torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64).tolist():
        mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
    a = linear_alpha_bars(1000, 1e-4, 0.02)[-1].item()
    assert mean == pytest.approx(math.sqrt(a), rel=1e-10)
    assert variance == pytest.approx(1 - a, rel=1e-10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogGrid(sigma_min=3, sigma_max=2), r"sigma_min \(3\) must be below sigma_max \(2\)"),
        (lambda: KarrasGrid(sigma_min=2, sigma_max=2), r"sigma_min \(2\) must be below sigma_max \(2\)"),
        (lambda: LogGrid(sigma_min=0), r"sigma_min: .*greater than 0"),
        (lambda: KarrasGrid(rho=0.5), r"rho: .*greater than or equal to 1"),
        (lambda: DDPMGrid(beta_last=1), r"beta_last: .*less than 1"),
        (lambda: DDPMGrid(levels=50), r"respaced \(100\) cannot exceed levels \(50\)"),
        (lambda: LogGrid(sigma_mim=0.1), r"sigma_mim: .*unknown option"),
    ],
)
def test_options_out_of_range(make, message):
    with pytest.raises(SpecError, match=message):
        make()


def test_too_few_levels_for_the_steps():
    with pytest.raises(ValueError, match="100 steps need 101 levels, but the schedule is respaced to 100"):
        DDPMGrid().sigmas(100)
