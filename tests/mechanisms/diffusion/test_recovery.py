"""Figures of a predictor beside guessing, and the warning where it is no better."""

import warnings

import pytest
import torch

from mechanisms.diffusion.predictor import recovery


def test_figures_of_a_category_and_of_a_number():
    truth = torch.tensor([0, 0, 1, 2])
    assert recovery("k", torch.tensor([0, 1, 1, 2]), truth, categorical=True) == {
        "k accuracy": 0.75,
        "k chance": 0.5,
    }
    truth = torch.tensor([0.0, 1.0, 2.0, 10.0])
    figures = recovery("t", truth + 0.5, truth, categorical=False)
    assert figures == {"t error": 0.5, "t chance": (1 + 0 + 1 + 9) / 4}


@pytest.mark.parametrize("categorical", [True, False])
def test_a_cause_that_does_not_show_is_warned_of(categorical):
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 4, (400,), generator=generator)
    guess = truth[torch.randperm(400, generator=generator)]
    dtype = torch.int64 if categorical else torch.float64
    with pytest.warns(UserWarning, match="'k' is not recovered"):
        recovery("k", guess.to(dtype), truth.to(dtype), categorical=categorical)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recovery("k", truth.to(dtype), truth.to(dtype), categorical=categorical)
        recovery("k", guess[:50].to(dtype), truth[:50].to(dtype), categorical=categorical)
