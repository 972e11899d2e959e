"""Abduction as a draw of the noise's posterior: its closed form, its prior, what it changes and what not."""

import copy

import pytest
import torch

from causalgen.checking.conformance import Suite
from graphs.variables import Categorical
from mechanisms.base import Noise
from mechanisms.diffusion.anticausal import Anticausal
from mechanisms.diffusion.guidance import ClassifierFree
from mechanisms.diffusion.mechanism import Diffusion
from mechanisms.diffusion.schedule import LogGrid
from mechanisms.diffusion.solvers import BELM, DDIM, DDPM, Anchored
from tests.mechanisms.diffusion.test_mechanism import draws, untrained
from tests.mechanisms.diffusion.test_mechanism_exact import BOTH, EVENT, GAUSSIAN, exact, seeded

GRID = LogGrid(sigma_min=0.1, sigma_max=20)
HIDDEN = ClassifierFree(against="hidden", weight=2.0)


def posterior(world, **options):
    return exact(world, abduction="posterior", **options)


def test_draws_have_the_closed_form_posterior_of_a_gaussian():
    """x_T = (m + C (x + s z - m)) / scale, with C the flow upwards: normal, with covariance s^2 C C'."""
    n = 4000
    image, parents = GAUSSIAN.draw(1)
    mechanism = posterior(GAUSSIAN, solver=Anchored(steps=64, grid=GRID))
    many = {name: value.expand(n) for name, value in parents.items()}
    x_T = mechanism.abduct(image.expand(n, *EVENT), many, generator=seeded()).noise["x_T"].flatten(1)
    mean = GAUSSIAN.mean(parents)
    centre = mechanism.spec.solver.to_noise(mean + GAUSSIAN.contract(image - mean, 20, 0.1)).flatten()
    steps = torch.eye(4, dtype=torch.float64).view(4, *EVENT)
    spread = mechanism.spec.solver.to_noise(0.1 * GAUSSIAN.contract(steps, 20, 0.1)).flatten(1)
    assert (x_T.mean(0) - centre).abs().max() < 5 / n**0.5
    assert (x_T.T.cov() - spread.T @ spread).abs().max() < 0.03


@pytest.mark.parametrize("abduction", ["point", "posterior"])
def test_noise_of_data_is_standard_normal_if_it_is_drawn_and_shrunk_if_it_is_a_point(abduction):
    """A point has covariance S / (S + sigma_0^2): next to none where pixels hardly vary, as in the black."""
    image, parents = BOTH.draw(3000)
    solver = Anchored(steps=64, grid=LogGrid(sigma_min=0.3, sigma_max=100))
    mechanism = exact(BOTH, solver=solver, abduction=abduction)
    x_T = mechanism.abduct(image, parents, generator=seeded()).noise["x_T"].flatten(1)
    identity = torch.eye(4, dtype=torch.float64)
    shrunk = BOTH.noise @ torch.linalg.inv(BOTH.noise + 0.3**2 * identity)
    expected = identity if abduction == "posterior" else shrunk
    assert torch.linalg.eigvalsh(shrunk)[0] < 0.3
    assert (x_T.T.cov() - expected).abs().max() < 0.08


def test_counterfactuals_of_a_gaussian_are_exact_whatever_was_drawn():
    """Equal covariances: the counterfactual is a shift, whichever noise stands behind the image."""
    image, parents = GAUSSIAN.draw(6)
    other = {"t1": parents["t1"] + 1, "t2": -parents["t2"]}
    mechanism = posterior(GAUSSIAN, solver=Anchored(steps=150, grid=LogGrid(sigma_min=0.1, sigma_max=2000)))
    for seed in range(2):
        noise = mechanism.abduct(image, parents, generator=seeded(seed)).noise
        expected = image + GAUSSIAN.mean(other) - GAUSSIAN.mean(parents)
        torch.testing.assert_close(mechanism.generate(other, noise), expected, rtol=0, atol=5e-3)


@pytest.mark.parametrize(
    ("solver", "guidance"),
    [
        (Anchored(steps=6), ClassifierFree(weight=2.0)),
        (Anchored(steps=6, thresholding=True), HIDDEN),
        (Anchored(steps=6), ClassifierFree(corrections=1)),
        (Anchored(steps=6), Anticausal()),
        (Anchored(steps=6), Anticausal(denoiser="unconditional")),
        (BELM(steps=6, max_spread=1e6), ClassifierFree(weight=2.0)),
    ],
    ids=lambda option: option.kind,
)
def test_null_interventions_return_the_image_and_draws_differ(solver, guidance):
    mechanism = untrained(solver=solver, guidance=guidance, abduction="posterior")
    value, parents = draws(5)
    one, again, other = (mechanism.abduct(value, parents, generator=seeded(s)).noise for s in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["x_T"], other["x_T"]) and not mechanism.deterministic
    for noise in (one, other):
        torch.testing.assert_close(mechanism.generate(parents, noise), value, rtol=0, atol=1e-4)
    asked = draws(5, seed=1)[1]
    assert not torch.equal(mechanism.generate(asked, one), mechanism.generate(asked, other))


def test_equal_rows_are_drawn_apart():
    image, parents = BOTH.draw(2)
    rows = torch.tensor([0, 1, 0])
    mechanism = posterior(BOTH, solver=DDIM(steps=6))
    noise = mechanism.abduct(
        image[rows], {name: value[rows] for name, value in parents.items()}, generator=seeded()
    ).noise
    assert not torch.equal(noise["x_T"][0], noise["x_T"][2])


@pytest.mark.parametrize("solver", [DDIM(steps=6), Anchored(steps=6), BELM(steps=6, max_spread=1e6)])
def test_prior_noise_has_the_same_leaves_and_the_same_samples_as_with_a_point(solver):
    mechanism, (value, parents) = untrained(solver=solver, abduction="posterior"), draws(5)
    prior = mechanism.sample_noise(5, generator=seeded())
    found = mechanism.abduct(value, parents, generator=seeded()).noise
    assert {name: (leaf.shape, leaf.dtype) for name, leaf in prior.items()} == {
        name: (leaf.shape, leaf.dtype) for name, leaf in found.items()
    }
    assert not prior["last_residual"].any()
    point = untrained(solver=solver)
    expected = point.generate(parents, point.sample_noise(5, generator=seeded()))
    torch.testing.assert_close(mechanism.generate(parents, prior), expected, rtol=0, atol=0)
    # Both kinds of rows in one batch.
    both = {name: torch.cat([each, each]) for name, each in parents.items()}
    mixed = mechanism.generate(both, Noise.concat([found, prior]))
    torch.testing.assert_close(mixed[5:], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "posterior"),
        ({"abduction": "point"}, "approximate"),
        ({"guidance": Anticausal()}, "posterior"),
        ({"guidance": Anticausal(denoiser="unconditional")}, "approximate"),
        ({"guidance": HIDDEN}, "approximate"),
        ({"guidance": ClassifierFree(against="hidden", weight=1.0)}, "posterior"),
        ({"guidance": ClassifierFree(weight="auto")}, "posterior"),
        ({"solver": DDPM(steps=6)}, "none"),
    ],
)
def test_only_a_draw_along_the_learned_flow_is_called_posterior(options, expected):
    mechanism = untrained({"digit": Categorical(3)}, **{"abduction": "posterior", **options})
    assert mechanism.abduction == expected


def test_the_option_is_written_only_where_it_is_not_the_default():
    assert Diffusion().abduction == "point"
    assert Diffusion.model_validate({"kind": "diffusion", "abduction": "posterior"}).abduction == "posterior"


def test_the_law_of_the_prior_holds_and_catches_a_point_that_calls_itself_a_draw():
    image, parents = BOTH.draw(4)
    mechanism = posterior(BOTH, solver=Anchored(steps=32, grid=LogGrid(sigma_min=0.05, sigma_max=100)))
    Suite(mechanism, image, parents, seed=0).noise()
    point = exact(BOTH, solver=Anchored(steps=32, grid=LogGrid(sigma_min=0.5, sigma_max=100)))
    Suite(point, image, parents, seed=0).noise()  # an approximation promises nothing
    false = copy.copy(point)
    false.abduction = "posterior"
    with pytest.raises(AssertionError, match="leaf 'x_T' does not follow its prior"):
        Suite(false, image, parents, seed=0).noise()


def test_levels_that_end_below_noise_give_no_posterior():
    with pytest.warns(UserWarning, match="levels end at 1, where an image still shows"):
        mechanism = untrained(
            abduction="posterior", solver=Anchored(steps=6, grid={"kind": "log", "sigma_max": 1.0})
        )
    assert mechanism.abduction == "approximate"
    assert untrained(abduction="posterior").abduction == "posterior"


def test_nothing_is_guided_unless_asked():
    """With more weight a category would move the mean of pixels further than its effect."""
    assert Diffusion().guidance == ClassifierFree(weight=1.0)
