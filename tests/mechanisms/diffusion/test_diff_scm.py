"""The paper's method: our options in x_bar and its Algorithms 2 and 3 in x_t, step for step."""

import pytest
import torch
from torch import Tensor

from causalgen.cli.common import preset_options
from graphs.variables import Categorical, Continuous, Image
from mechanisms.base import Parents
from mechanisms.diffusion.anticausal import Anticausal
from mechanisms.diffusion.backbones import UNet
from mechanisms.diffusion.guidance import ClassifierFree, Factual
from mechanisms.diffusion.mechanism import Diffusion
from mechanisms.diffusion.schedule import DDPMGrid, KarrasGrid, alpha_bar_of
from mechanisms.diffusion.solvers import DDIM, Anchored
from mechanisms.options import with_options
from tests.mechanisms.diffusion.exact import ExactDenoiser, ExactPredictor, World


def _algorithm_3(world: World, image: Tensor, other: Parents, scale: float) -> Tensor:
    """Algorithms 2 and 3 of Diff-SCM (Sanchez & Tsaftaris 2022) in x_t, with DDIM's sqrt(1 - a)."""
    names = tuple(world.variables)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alpha_bar = torch.cumprod(1 - betas, 0)
    chosen = [round(k * 999 / 99) for k in range(76)]
    a = [alpha_bar[k].item() for k in chosen]

    def epsilon(x: Tensor, t: int) -> Tensor:
        return world.eps(x / a[t] ** 0.5, ((1 - a[t]) / a[t]) ** 0.5, {}, ())

    def log_p(x: Tensor, t: int) -> Tensor:
        clean, sigma = (x / a[t] ** 0.5).flatten(1), ((1 - a[t]) / a[t]) ** 0.5
        return world.log_density(clean, sigma, other, names) - world.log_density(clean, sigma, other, ())

    x = a[0] ** 0.5 * image
    for t in range(75):  # abduction
        e = epsilon(x, t)
        x = a[t + 1] ** 0.5 * (x - (1 - a[t]) ** 0.5 * e) / a[t] ** 0.5 + (1 - a[t + 1]) ** 0.5 * e
    for t in range(75, 0, -1):  # prediction under do(other)
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(log_p(x, t).sum(), x)
        e = epsilon(x, t) - scale * (1 - a[t]) ** 0.5 * gradient
        x = a[t - 1] ** 0.5 * (x - (1 - a[t]) ** 0.5 * e) / a[t] ** 0.5 + (1 - a[t - 1]) ** 0.5 * e
    return x.detach() / a[0] ** 0.5


@pytest.mark.parametrize("scale", [0.7, 1.0, 2.0])
@pytest.mark.parametrize(
    "world", [World(1, 2), World(3, 0), World(4, 3)], ids=["gaussian", "mixture", "both"]
)
def test_diff_scm_options_are_algorithm_3_to_the_letter(world, scale):
    image, parents = world.draw(6)
    factual, other = Factual(parents, torch.ones(6, dtype=torch.bool)), world.draw(6, seed=1)[1]
    strengths = dict.fromkeys(world.variables, scale)
    guidance = Anticausal(form="raw", denoiser="unconditional", scale=strengths)
    solver = DDIM(steps=75, grid=DDPMGrid())
    denoiser, predictor = ExactDenoiser(world), ExactPredictor(world)
    noise = solver.encode(image, lambda x, s: guidance.abduction_eps(denoiser, x, s, factual))
    found = solver.decode(noise, lambda x, s: guidance.eps(denoiser, predictor, x, s, factual, other))
    assert (denoiser.calls, predictor.calls) == (150, 75)
    torch.testing.assert_close(found, _algorithm_3(world, image, other, scale), rtol=0, atol=1e-10)


def test_sigma_grad_in_x_bar_is_sqrt_1_minus_a_grad_in_x_t():
    world, sigma = World(3, 0), torch.tensor(0.8, dtype=torch.float64)
    a = alpha_bar_of(sigma)
    x = world.draw(4)[0].flatten(1)
    x_bar = x.clone().requires_grad_()
    x_t = (a.sqrt() * x).requires_grad_()
    (bar,) = torch.autograd.grad(world.log_density(x_bar, 0.8, {}, ()).sum(), x_bar)
    (vp,) = torch.autograd.grad(world.log_density(x_t / a.sqrt(), 0.8, {}, ()).sum(), x_t)
    torch.testing.assert_close(sigma * bar, (1 - a).sqrt() * vp)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        (
            "diff-scm",
            {
                "guidance": Anticausal(terms="changed", interval=(0.0, 4.0), corrections=1),
                "solver": DDIM(steps=9, grid=DDPMGrid(respaced=10), thresholding=True),
            },
        ),
        (
            "posterior",
            {
                "guidance": ClassifierFree(interval=(0.0, 4.0), corrections=1),
                "solver": Anchored(grid=KarrasGrid(sigma_max=40), thresholding=True),
            },
        ),
    ],
)
def test_a_preset_leaves_nothing_of_what_the_model_does_otherwise(name, own):
    small, parents = {"backbone": UNet(channels=(8,))}, {"digit": Categorical(10), "size": Continuous()}
    for options in ({}, {**own, "shrinkage": 0.1, "abduction": "point"}):
        mechanism = Diffusion(**small, **options).bind(Image(1, 8, 8), parents)
        found = with_options("x", mechanism, preset_options(name) | {"code": None}).spec
        expected = Diffusion(**small, **(preset_options(name) | {"code": None}))
        for part in ("guidance", "solver", "shrinkage", "abduction"):
            assert getattr(found, part) == getattr(expected, part)
