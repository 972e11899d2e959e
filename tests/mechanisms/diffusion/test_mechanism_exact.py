"""The diffusion mechanism with exact scores: counterfactuals, noise, samples, and what they cost."""

import pytest
import torch

from graphs.variables import Image
from mechanisms.base import Noise
from mechanisms.diffusion.anticausal import Anticausal
from mechanisms.diffusion.backbones import UNet
from mechanisms.diffusion.guidance import ClassifierFree
from mechanisms.diffusion.mechanism import Diffusion, DiffusionMechanism
from mechanisms.diffusion.predictor import ResNet
from mechanisms.diffusion.schedule import KarrasGrid, LogGrid
from mechanisms.diffusion.solvers import DDIM, Anchored
from tests.mechanisms.diffusion.exact import EVENT, ExactDenoiser, ExactPredictor, World

GAUSSIAN, BOTH = World(1, 2), World(4, 2)
GUIDANCE = [
    ClassifierFree(weight=2.0),
    Anticausal(),
    Anticausal(denoiser="unconditional"),
    Anticausal(form="raw", denoiser="unconditional"),
    Anticausal(denoiser="counterfactual"),
]
HIDDEN = ClassifierFree(against="hidden", weight=2.0)


def exact(world: World, **options) -> DiffusionMechanism:
    """A mechanism whose networks are the world's own."""
    tiny = {
        "backbone": UNet(channels=(8,), unshuffle=1),
        "predictor": ResNet(channels=(8,), unshuffle=1),
    }
    with torch.random.fork_rng():
        mechanism = Diffusion(**tiny, **options).bind(Image(*EVENT), world.variables)
    mechanism.denoiser, mechanism.predictor = ExactDenoiser(world), ExactPredictor(world)
    mechanism.predictor.lowest = mechanism.spec.solver.levels()[0]
    assert isinstance(mechanism, DiffusionMechanism)
    return mechanism.eval()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_counterfactuals_of_a_gaussian_are_exact():
    image, parents = GAUSSIAN.draw(6)
    other = {"t1": parents["t1"] + 1, "t2": -parents["t2"]}
    for guidance in (ClassifierFree(weight=2.0), Anticausal()):
        # Residuals carry the abduction's own error along, so they help the counterfactual little or nothing.
        mechanism = exact(GAUSSIAN, solver=Anchored(steps=150), guidance=guidance)
        noise = mechanism.abduct(image, parents, generator=seeded()).noise
        found = mechanism.generate(other, noise)
        expected = GAUSSIAN.transport(image, GAUSSIAN.mean(parents), GAUSSIAN.mean(other), 0.02, 20)
        torch.testing.assert_close(found, expected, rtol=0, atol=5e-4)


def test_noise_of_abducted_data_is_standard_normal():
    image, parents = BOTH.draw(4000)
    mechanism = exact(BOTH, solver=Anchored(steps=64, grid=LogGrid(sigma_max=200)))
    x_T = mechanism.abduct(image, parents, generator=seeded()).noise["x_T"].flatten(1)
    assert x_T.mean(0).abs().max() < 0.08  # 5 standard errors
    assert (x_T.T.cov() - torch.eye(4)).abs().max() < 0.12
    # Nor does it tell the parents, but for what the highest level leaves of them.
    for value in parents.values():
        correlation = torch.corrcoef(torch.cat([x_T, value[:, None].double()], 1).T)[4, :4]
        assert correlation.abs().max() < 0.08


@pytest.mark.parametrize(
    "guidance", [GUIDANCE[0], HIDDEN, GUIDANCE[1], GUIDANCE[3]], ids=["cfg", "hidden", "delta", "raw"]
)
def test_prior_samples_follow_the_law_of_the_image_given_its_parents(guidance):
    n = 3000
    one = {name: value[:1] for name, value in BOTH.draw(1, seed=3)[1].items()}
    parents = {name: value.expand(n) for name, value in one.items()}
    mechanism = exact(BOTH, solver=Anchored(steps=16), guidance=guidance)
    noise = mechanism.sample_noise(n, generator=seeded())
    noise = Noise(n, {**noise, "x_T": noise["x_T"].double(), "residuals": noise["residuals"].double()})
    image = mechanism.generate(parents, noise).flatten(1)
    mean = BOTH.mean(one).flatten()
    assert (image.mean(0) - mean).abs().max() < 0.07
    assert (image.T.cov() - BOTH.noise).abs().max() < 0.06


@pytest.mark.parametrize(
    ("guidance", "denoiser", "predictor"),
    [(GUIDANCE[0], 1, 0), (HIDDEN, 1, 0), (GUIDANCE[1], 1, 0), (GUIDANCE[2], 1, 1), (GUIDANCE[3], 1, 1)],
    ids=["cfg", "hidden", "delta", "delta unconditional", "raw unconditional"],
)
def test_evaluations_of_a_prior_sample(guidance, denoiser, predictor):
    mechanism = exact(BOTH, solver=Anchored(steps=6), guidance=guidance)
    parents = BOTH.draw(5)[1]
    mechanism.generate(parents, mechanism.sample_noise(5, generator=seeded()))
    # Six steps, and one more to remove the lowest level's noise.
    assert mechanism.denoiser.calls == 7 * denoiser
    assert mechanism.predictor.calls == 7 * predictor


def test_prior_samples_lose_the_lowest_levels_noise_and_abducted_images_keep_what_they_are():
    image, parents = BOTH.draw(4)
    solver = Anchored(steps=6, grid=LogGrid(sigma_min=0.5))
    mechanism, names = exact(BOTH, solver=solver), tuple(BOTH.variables)
    abducted = mechanism.abduct(image, parents, generator=seeded()).noise
    drawn = mechanism.sample_noise(4, generator=seeded())
    found = mechanism.generate(
        {name: torch.cat([value, value]) for name, value in parents.items()}, Noise.concat([abducted, drawn])
    )
    torch.testing.assert_close(found[:4], image)
    noisy = solver.decode(drawn, lambda x, sigma: BOTH.eps(x, sigma, parents, names))
    expected = noisy - 0.5 * BOTH.eps(noisy, 0.5, parents, names)  # the mean of x_0 given x_bar
    torch.testing.assert_close(found[4:], expected)


def test_thresholding_keeps_prior_samples_within_the_images_range_and_counterfactuals_nearer_to_it():
    image, parents = BOTH.draw(200)
    beyond = {**parents, "t1": parents["t1"] + 10}  # where the mean of many pixels is out of range
    plain, held = (exact(BOTH, solver=Anchored(steps=8, thresholding=on)) for on in (False, True))
    drawn = plain.sample_noise(200, generator=seeded())
    assert plain.generate(beyond, drawn).abs().max() > 2
    assert held.generate(beyond, drawn).abs().max() <= 1 + 1e-5
    ends = [
        each.generate(beyond, each.abduct(image, parents, generator=seeded()).noise) for each in (plain, held)
    ]
    excess = [(end.abs() - 1).clamp(min=0).mean() for end in ends]
    assert excess[1] < excess[0] / 4


def test_evaluations_of_a_counterfactual():
    image, parents = BOTH.draw(5)
    digit = {**parents, "digit": (parents["digit"] + 1) % 4}
    thickness = {**parents, "t1": parents["t1"] + 1}
    mechanism = exact(BOTH, solver=Anchored(steps=6), guidance=ClassifierFree(weight=2.0))
    noise = mechanism.abduct(image, parents, generator=seeded()).noise
    assert mechanism.denoiser.calls == 7
    for asked, calls in [(parents, 6), (thickness, 6), (digit, 12)]:
        mechanism.denoiser.calls = 0
        mechanism.generate(asked, noise)
        assert mechanism.denoiser.calls == calls
    assert mechanism.predictor.calls == 0


def test_evaluations_against_hidden_parents():
    image, parents = BOTH.draw(5)
    limited = HIDDEN.model_copy(update={"interval": (0.3, 100.0)})  # 4 of the 7 levels
    for guidance, up, down in [(HIDDEN, 14, 12), (limited, 11, 10)]:
        mechanism = exact(
            BOTH, solver=Anchored(steps=6, grid=LogGrid(sigma_min=0.01, sigma_max=10)), guidance=guidance
        )
        noise = mechanism.abduct(image, parents, generator=seeded()).noise
        assert mechanism.denoiser.calls == up
        mechanism.generate({**parents, "t1": parents["t1"] + 1}, noise)
        assert mechanism.denoiser.calls == up + down


def test_equal_rows_are_inverted_once():
    image, parents = BOTH.draw(4)
    rows = torch.tensor([2, 0, 2, 2, 1, 0])
    repeated = {name: value[rows] for name, value in parents.items()}
    mechanism = exact(BOTH, solver=DDIM(steps=6))
    found = mechanism.abduct(image[rows], repeated, generator=seeded()).noise
    assert (mechanism.denoiser.calls, mechanism.denoiser.rows) == (6, 18)
    alone = mechanism.abduct(image, parents, generator=seeded()).noise
    torch.testing.assert_close(found["x_T"], alone["x_T"][rows])
    torch.testing.assert_close(found["factual.t1"], parents["t1"][rows], rtol=0, atol=0)
    # The same image under other parents is another row.
    mechanism.denoiser.rows = 0
    mechanism.abduct(image[[0, 0]], {name: value[:2] for name, value in parents.items()}, generator=seeded())
    assert mechanism.denoiser.rows == 12


def test_an_unconditional_base_is_abducted_unconditionally():
    image, parents = BOTH.draw(4)
    for guidance in GUIDANCE:
        mechanism = exact(BOTH, solver=DDIM(steps=6), guidance=guidance)
        names = tuple(BOTH.variables) if "conditional" in guidance.needs else ()
        expected = DDIM(steps=6).encode(image, lambda x, s, names=names: BOTH.eps(x, s, parents, names))
        found = mechanism.abduct(image, parents, generator=seeded()).noise
        torch.testing.assert_close(found["x_T"], expected["x_T"])


def test_karras_grids_reach_higher_and_leave_less_of_the_mean():
    image, parents = GAUSSIAN.draw(6)
    other = {name: value + 1 for name, value in parents.items()}
    mechanism = exact(GAUSSIAN, solver=Anchored(steps=100, grid=KarrasGrid()))
    found = mechanism.generate(other, mechanism.abduct(image, parents, generator=seeded()).noise)
    expected = GAUSSIAN.transport(image, GAUSSIAN.mean(parents), GAUSSIAN.mean(other), 0.02, 80)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


NONE = {"t1": 0.0, "t2": 0.0}

LEAKS = Anchored(steps=60, grid=LogGrid(sigma_max=2))
"""A highest level at which much of an image shows."""

LEFT = float(torch.linalg.eigvalsh(GAUSSIAN.noise).max() / (torch.linalg.eigvalsh(GAUSSIAN.noise).max() + 4))
"""Share of the mean that one evaluation leaves there: that of the image's own variance."""


def test_a_centred_noise_tells_no_parent_where_images_show_at_the_highest_level():
    image, parents = GAUSSIAN.draw(4000)
    causes = torch.stack(list(parents.values()), 1)
    causes = causes - causes.mean(0)
    slopes = {}
    for centred in (False, True):
        mechanism = exact(GAUSSIAN, solver=LEAKS, centred=centred)
        x_T = mechanism.abduct(image, parents, generator=seeded()).noise["x_T"].flatten(1)
        slopes[centred] = torch.linalg.lstsq(causes, x_T - x_T.mean(0)).solution.abs().max()
    assert slopes[False] > 0.1 and slopes[True] < LEFT * slopes[False] + 0.03  # 2 standard errors


def test_centred_counterfactuals_are_those_of_the_additive_noise_model():
    image, parents = GAUSSIAN.draw(6)
    other = {name: value + 1 for name, value in parents.items()}
    truth, missed = image + GAUSSIAN.mean(other) - GAUSSIAN.mean(parents), {}
    for centred in (False, True):
        mechanism = exact(GAUSSIAN, solver=LEAKS, centred=centred)
        noise = mechanism.abduct(image, parents, generator=seeded()).noise
        missed[centred] = (mechanism.generate(other, noise) - truth).abs().max()
        back = mechanism.generate(parents, noise)
        torch.testing.assert_close(back, image, rtol=0, atol=1e-6)
    assert missed[False] > 0.03 and missed[True] < LEFT * missed[False] + 1e-3


def test_centred_prior_samples_have_the_mean_of_their_parents():
    n = 20_000
    one = {name: value[:1] for name, value in GAUSSIAN.draw(1, seed=3)[1].items()}
    parents, off = {name: value.expand(n) for name, value in one.items()}, {}
    for centred in (False, True):
        mechanism = exact(GAUSSIAN, solver=LEAKS, centred=centred)
        noise = mechanism.sample_noise(n, generator=seeded())
        noise = Noise(n, {**noise, "x_T": noise["x_T"].double(), "residuals": noise["residuals"].double()})
        mean = mechanism.generate(parents, noise).flatten(1).mean(0)
        off[centred] = (mean - GAUSSIAN.mean(one).flatten()).abs().max()
    assert off[False] > 0.03 and off[True] < LEFT * off[False] + 0.006  # 2 standard errors


@pytest.mark.parametrize(
    "guidance",
    [
        ClassifierFree(weight=NONE),
        ClassifierFree(weight=NONE, against="hidden"),
        Anticausal(scale=NONE),
        Anticausal(scale=NONE, denoiser="unconditional"),
    ],
    ids=["cfg", "hidden", "delta", "unconditional"],
)
def test_guidance_of_no_strength_moves_nothing_by_the_centre(guidance):
    image, parents = GAUSSIAN.draw(6)
    mechanism = exact(GAUSSIAN, solver=LEAKS, centred=True, guidance=guidance)
    noise = mechanism.abduct(image, parents, generator=seeded()).noise
    other = {name: value + 1 for name, value in parents.items()}
    torch.testing.assert_close(mechanism.generate(other, noise), image, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("interval", "further"), [(None, 2), ((1.5, 2.0), 1)])
def test_an_interval_of_guidance_that_ends_at_the_highest_level_leaves_the_centre_out(interval, further):
    image, parents = GAUSSIAN.draw(6)
    other, calls = {name: value + 1 for name, value in parents.items()}, []
    for centred in (False, True):
        guidance = ClassifierFree(weight={"t1": 3.0, "t2": 3.0}, interval=interval)
        mechanism = exact(GAUSSIAN, solver=LEAKS, centred=centred, guidance=guidance)
        noise = mechanism.abduct(image, parents, generator=seeded()).noise
        before = mechanism.denoiser.calls
        mechanism.generate(other, noise)
        calls.append(mechanism.denoiser.calls - before)
    assert calls[1] - calls[0] == further  # two estimates where the weight is not 1


@pytest.mark.parametrize(
    ("pixels", "options", "further"),
    [
        (8, {}, 0),
        (32, {}, 1),
        (32, {"centred": False}, 0),
        (8, {"centred": True}, 1),
        (32, {"prediction": "eps"}, 0),
        (32, {"solver": Anchored(steps=4, grid=KarrasGrid())}, 0),
    ],
)
def test_noise_is_centred_by_itself_where_an_image_shows(pixels, options, further):
    spec = Diffusion(**{"solver": Anchored(steps=4), "predictor": None, **options})
    with torch.random.fork_rng():
        mechanism = spec.bind(Image(1, pixels, pixels), GAUSSIAN.variables).eval()
    calls = []
    mechanism.denoiser.network.register_forward_hook(lambda *_: calls.append(1))
    parents = {name: torch.zeros(2) for name in GAUSSIAN.variables}
    mechanism.generate(parents, mechanism.sample_noise(2, generator=seeded()))
    assert len(calls) == 5 + further
