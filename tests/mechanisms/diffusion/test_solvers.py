"""Solvers against probability flows that are known: orders of convergence, exact inverses, moments."""

import math
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from graphs.errors import CannotAbductError, MechanismError, SpecError
from mechanisms.diffusion.schedule import DDPMGrid, KarrasGrid, LogGrid
from mechanisms.diffusion.solvers import BELM, DDIM, DDPM, Anchored, NoiseEstimate
from tests.mechanisms.diffusion.exact import EVENT, World

GRID = LogGrid(sigma_min=0.05, sigma_max=10)
ENDS = GRID.sigma_min, GRID.sigma_max

SOLVERS = {
    "ddim": lambda steps: DDIM(steps=steps, grid=GRID),
    "anchored": lambda steps: Anchored(steps=steps, grid=GRID, residuals=False),
    "belm": lambda steps: BELM(steps=steps, grid=GRID, max_spread=100),
}
ORDERS = [("ddim", 1), ("anchored", 2), ("belm", 2)]

GAUSSIAN = World(digits=1, continuous=2)
IMAGE, FACTUAL = GAUSSIAN.draw(6)
OTHER = {"t1": FACTUAL["t1"] + 1, "t2": -FACTUAL["t2"]}
MIXTURE = World(digits=3, continuous=0)
MIXED, _ = MIXTURE.draw(6)


def given(parents: Mapping[str, Tensor], world: World = GAUSSIAN) -> NoiseEstimate:
    return lambda x, sigma: world.eps(x, sigma, parents, tuple(parents))


def prior(x_T: Tensor, count: int) -> dict[str, Tensor]:
    return {"x_T": x_T, "residuals": torch.zeros(len(x_T), count, *EVENT, dtype=torch.float64)}


def flow(x: Tensor, eps: NoiseEstimate, start: float, stop: float, steps: int = 300) -> Tensor:
    """The probability flow by classical Runge-Kutta in log sigma: dx / dlog sigma = sigma eps."""
    width, sigma = math.log(stop / start) / steps, start
    for _ in range(steps):
        middle, end = sigma * math.exp(width / 2), sigma * math.exp(width)
        a = sigma * eps(x, sigma)
        b = middle * eps(x + width / 2 * a, middle)
        c = middle * eps(x + width / 2 * b, middle)
        d = end * eps(x + width * c, end)
        x, sigma = x + width / 6 * (a + 2 * b + 2 * c + d), end
    return x


def orders(error: Callable[[int], Tensor], steps: tuple[int, ...] = (64, 128, 256)) -> list[float]:
    """How often the largest error halves when steps double."""
    errors = torch.stack([error(n).abs().max() for n in steps])
    return (-errors.log2().diff()).tolist()


@pytest.mark.parametrize(("kind", "order"), ORDERS)
def test_order_of_encoding_decoding_and_counterfactuals_of_a_gaussian(kind, order):
    mean, other = GAUSSIAN.mean(FACTUAL), GAUSSIAN.mean(OTHER)
    top = mean + GAUSSIAN.contract(IMAGE - mean, *reversed(ENDS))

    def up(steps: int) -> Tensor:
        solver = SOLVERS[kind](steps)
        return solver.from_noise(solver.encode(IMAGE, given(FACTUAL))["x_T"]) - top

    def down(steps: int) -> Tensor:
        solver = SOLVERS[kind](steps)
        return solver.decode(prior(solver.to_noise(top), 1), given(FACTUAL)) - IMAGE

    def counterfactual(steps: int) -> Tensor:
        solver = SOLVERS[kind](steps)
        found = solver.decode(solver.encode(IMAGE, given(FACTUAL)), given(OTHER))
        return found - GAUSSIAN.transport(IMAGE, mean, other, *ENDS)

    for error in (up, down, counterfactual):
        assert orders(error) == pytest.approx([order] * 2, abs=0.1), error.__name__


@pytest.mark.parametrize(("kind", "order"), ORDERS)
def test_order_against_the_flow_of_a_mixture(kind, order):
    top = flow(MIXED, given({}, MIXTURE), *ENDS)

    def up(steps: int) -> Tensor:
        solver = SOLVERS[kind](steps)
        return solver.from_noise(solver.encode(MIXED, given({}, MIXTURE))["x_T"]) - top

    def down(steps: int) -> Tensor:
        solver = SOLVERS[kind](steps)
        return solver.decode(prior(solver.to_noise(top), 1), given({}, MIXTURE)) - MIXED

    for error in (up, down):
        assert orders(error) == pytest.approx([order] * 2, abs=0.15), error.__name__


@pytest.mark.parametrize(("kind", "order"), ORDERS[:2])
@pytest.mark.parametrize(("world", "image", "parents"), [(GAUSSIAN, IMAGE, FACTUAL), (MIXTURE, MIXED, {})])
def test_order_of_the_round_trip(kind, order, world, image, parents):
    def error(steps: int) -> Tensor:
        solver, eps = SOLVERS[kind](steps), given(parents, world)
        return solver.decode(solver.encode(image, eps), eps) - image

    found = orders(error)
    # Up and down the errors of a second-order pair cancel in part, the faster the coarser the grid.
    assert all(order - 0.1 < each < order + (0.1 if order == 1 else 0.8) for each in found), found


@pytest.mark.parametrize("steps", [2, 5, 64])
@pytest.mark.parametrize(("world", "image", "parents"), [(GAUSSIAN, IMAGE, FACTUAL), (MIXTURE, MIXED, {})])
@pytest.mark.parametrize(
    "solver",
    [
        BELM(max_spread=1000),
        BELM(max_spread=1000, thresholding=True),
        Anchored(),
        Anchored(grid=KarrasGrid()),
        Anchored(thresholding=True),
    ],
)
def test_anchored_and_belm_return_the_image_at_any_number_of_steps(solver, steps, world, image, parents):
    solver = solver.model_copy(update={"steps": steps})
    eps = solver.thresholded(given(parents, world))
    found = solver.decode(solver.encode(image, eps), eps)
    torch.testing.assert_close(found, image, rtol=0, atol=1e-10)


def test_one_step_is_one_step_each_way():
    eps, (low, high) = given(FACTUAL, GAUSSIAN), Anchored(steps=1).levels()
    noise = Anchored(steps=1).encode(IMAGE, eps)
    up = IMAGE + (high - low) * eps(IMAGE, low)
    torch.testing.assert_close(noise["x_T"], up / (1 + high**2) ** 0.5)
    torch.testing.assert_close(noise["residuals"][:, 0], IMAGE - (up + (low - high) * eps(up, high)))
    torch.testing.assert_close(Anchored(steps=1).decode(noise, eps), IMAGE)


@pytest.mark.parametrize("sigma", [0.05, 1.0, 10.0])
@pytest.mark.parametrize("make", [DDIM, Anchored, BELM, DDPM])
def test_thresholding_moves_what_is_out_of_range_to_its_end_and_nothing_else(make, sigma):
    x, eps = 3 * IMAGE, given(FACTUAL)
    clean, held = x - sigma * eps(x, sigma), make(thresholding=True).thresholded(eps)(x, sigma)
    within = (clean >= -1) & (clean <= 1)
    assert within.any() and not within.all()
    torch.testing.assert_close(held[within], eps(x, sigma)[within], rtol=0, atol=0)
    torch.testing.assert_close((x - sigma * held)[~within], clean.sign()[~within])
    torch.testing.assert_close(make().thresholded(eps)(x, sigma), eps(x, sigma), rtol=0, atol=0)


def test_anchored_returns_a_float32_image_to_rounding():
    image = IMAGE.float()
    eps = given({name: value.float().double() for name, value in FACTUAL.items()})

    def single(x: Tensor, sigma: float) -> Tensor:
        return eps(x.double(), sigma).float()

    for steps in (8, 16, 64):
        found = Anchored(steps=steps).decode(Anchored(steps=steps).encode(image, single), single)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, image, rtol=0, atol=1e-4)


def test_residuals_are_what_each_step_of_the_solver_misses():
    noise = Anchored(steps=8).encode(IMAGE, given(FACTUAL))
    assert noise["residuals"].shape == (6, 8, *EVENT)
    silenced = {**noise, "residuals": torch.zeros_like(noise["residuals"])}
    bare = Anchored(steps=8, residuals=False)
    torch.testing.assert_close(
        Anchored(steps=8).decode(silenced, given(OTHER)), bare.decode(noise, given(OTHER)), rtol=0, atol=0
    )
    assert "residuals" not in bare.encode(IMAGE, given(FACTUAL))


@pytest.mark.parametrize(
    ("solver", "up", "down", "residuals"),
    [
        (DDIM(steps=7), 7, 7, 0),
        (Anchored(steps=7), 8, 7, 7),
        (Anchored(steps=7, residuals=False), 7, 7, 0),
        (BELM(steps=7), 8, 7, 1),
        (DDPM(steps=7), None, 7, 7),
    ],
    ids=["ddim", "anchored", "bare", "belm", "ddpm"],
)
def test_evaluations_and_their_levels(solver, up, down, residuals):
    called: list[float] = []

    def eps(x: Tensor, sigma: float) -> Tensor:
        called.append(sigma)
        return GAUSSIAN.eps(x, sigma, FACTUAL, tuple(FACTUAL))

    drawn = solver.sample_noise(6, EVENT, generator=torch.Generator().manual_seed(0))
    assert drawn["x_T"].shape == IMAGE.shape
    assert drawn.keys() == ({"x_T", "residuals"} if residuals else {"x_T"})
    if residuals:
        assert drawn["residuals"].shape == (6, residuals, *EVENT)
        assert bool(drawn["residuals"].any()) == (solver.kind == "ddpm")
    if up is not None:
        solver.encode(IMAGE, eps)
        assert called == solver.levels()[:up]
        called.clear()
    solver.decode(prior(IMAGE, residuals), eps)
    assert called == solver.levels()[:0:-1] and len(called) == down


def test_prior_scale_of_x_T():
    solver = Anchored()
    assert solver.levels()[-1] == pytest.approx(20)
    torch.testing.assert_close(solver.to_noise(solver.from_noise(IMAGE)), IMAGE)
    # sqrt(alpha_bar) x_bar, the variance-preserving state.
    torch.testing.assert_close(solver.to_noise(IMAGE), IMAGE / math.sqrt(401))


def _ancestral_moments(solver: DDPM, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (4,) and covariance (4, 4) of what ``decode``, here affine, makes of N(0, I) noise."""
    inputs = torch.eye(4 * (1 + solver.steps), dtype=torch.float64)
    inputs = torch.cat([torch.zeros_like(inputs[:1]), inputs]).view(-1, 1 + solver.steps, *EVENT)

    def eps(x: Tensor, sigma: float) -> Tensor:
        covariance = GAUSSIAN.noise + sigma**2 * torch.eye(4)
        return sigma * torch.linalg.solve(covariance, (x - mean).flatten(1).T).T.view(x.shape)

    found = solver.decode({"x_T": inputs[:, 0], "residuals": inputs[:, 1:]}, eps).flatten(1)
    jacobian = found[1:] - found[0]
    return found[0], jacobian.T @ jacobian


def test_ancestral_sampling_has_the_moments_of_the_data():
    mean = GAUSSIAN.mean(FACTUAL)[:1]
    identity = torch.eye(4, dtype=torch.float64).view(4, *EVENT)

    def gap(steps: int) -> Tensor:
        found, covariance = _ancestral_moments(DDPM(steps=steps, grid=GRID), mean)
        expected = GAUSSIAN.noise + ENDS[0] ** 2 * torch.eye(4)
        # What the start from N(0, I) leaves: the whole way contracts by (S + low^2) / (S + high^2).
        left = GAUSSIAN.contract(GAUSSIAN.contract(identity, *ENDS), *ENDS).flatten(1)
        excess = (
            left @ ((1 + ENDS[1] ** 2) * torch.eye(4) - GAUSSIAN.noise - ENDS[1] ** 2 * torch.eye(4)) @ left
        )
        offset = found - mean.flatten() + left @ mean.flatten()
        return torch.cat([offset[None], covariance - expected - excess])

    assert orders(gap, (50, 100, 200)) == pytest.approx([1, 1], abs=0.15)
    assert gap(200).abs().max() < 0.02


@pytest.mark.parametrize("steps", [2, 5, 20])
def test_ancestral_sampling_of_one_image_is_exact_at_any_number_of_steps(steps):
    # Where x_0 is certain, each step draws from the true posterior q(x_{i-1} | x_i, x_0).
    solver, mean = DDPM(steps=steps, grid=GRID), GAUSSIAN.mean(FACTUAL)[:1]
    inputs = torch.eye(4 * (1 + steps), dtype=torch.float64).view(-1, 1 + steps, *EVENT)
    noise = {"x_T": inputs[:, 0], "residuals": inputs[:, 1:]}
    jacobian = solver.decode(noise, lambda x, sigma: (x - mean) / sigma).flatten(1)
    jacobian = jacobian - solver.decode(
        prior(torch.zeros(1, *EVENT), steps), lambda x, s: (x - mean) / s
    ).flatten(1)
    # The start has variance 1 + high^2 instead of high^2.
    expected = ENDS[0] ** 2 + (ENDS[0] / ENDS[1]) ** 4
    torch.testing.assert_close(jacobian.T @ jacobian, expected * torch.eye(4, dtype=torch.float64))


def test_ancestral_sampling_with_its_own_defaults():
    mean = GAUSSIAN.mean(FACTUAL)[:1]
    solver = DDPM()
    found, covariance = _ancestral_moments(solver, mean)
    torch.testing.assert_close(found, mean.flatten(), rtol=0, atol=1e-3)
    torch.testing.assert_close(covariance, GAUSSIAN.noise, rtol=0.1, atol=0.01)


def test_ddpm_refuses_to_encode():
    with pytest.raises(CannotAbductError, match=r"'ddpm' samples but cannot recover.*Use 'anchored'"):
        DDPM().encode(IMAGE, given(FACTUAL))


def test_belm_refuses_a_drifted_latent_and_names_the_row():
    def stiff(x: Tensor, sigma: float) -> Tensor:
        scale = torch.ones(6, 1, 1, 1, dtype=torch.float64)
        scale[4] = -40
        return scale * GAUSSIAN.eps(x, sigma, FACTUAL, tuple(FACTUAL))

    with pytest.raises(MechanismError, match=r"drifted: the latent of row 4 .* Use solver 'anchored'"):
        BELM().encode(IMAGE, stiff)


def test_belm_takes_images_of_one_number():
    one = IMAGE[:, :, :1, :1]
    solver = BELM(steps=6)
    noise = solver.encode(one, lambda x, sigma: 0.1 * x)
    torch.testing.assert_close(solver.decode(noise, lambda x, sigma: 0.1 * x), one)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 28])
def test_belm_takes_draws_of_the_prior_of_any_size(side):
    """Of 2 x 2 pixels it refused one row of 900, whose standard deviation was above 2."""
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(200_000 // side**2, 1, side, side, generator=draw, dtype=torch.float64)
    solver = BELM(steps=4, grid=LogGrid(sigma_min=0.01, sigma_max=100))
    # The flow of images that are all 0 multiplies by the level.
    found = solver.encode(noise * 0.01, lambda x, sigma: x / sigma)["x_T"]
    torch.testing.assert_close(found, noise, rtol=1e-3, atol=0)


@pytest.mark.parametrize(("side", "most"), [(2, "3.88"), (4, "2.39"), (28, "2")])
def test_the_spread_that_belm_refuses_follows_the_number_of_pixels(side, most):
    wide = torch.tensor([-1.0, 1.0]).repeat(side * side // 2).view(1, 1, side, side).double()
    with pytest.raises(MechanismError, match=f"at most {most}. Use"):
        BELM().encode(wide, lambda x, sigma: 3 * x / sigma)


def test_belm_refuses_a_latent_that_is_not_finite():
    with pytest.raises(MechanismError, match="drifted: the latent of row 0"):
        BELM().encode(IMAGE, lambda x, sigma: x / 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BELM(grid=KarrasGrid()), r"belm needs a geometric grid \(kind: log\), got 'karras'"),
        (lambda: DDIM(steps=0), r"steps: .*greater than or equal to 1"),
        (lambda: BELM(steps=1), r"steps: .*greater than or equal to 2"),
        (lambda: DDIM(steps=1001), r"steps: .*less than or equal to 1000"),
        (lambda: DDIM(steps=100, grid=DDPMGrid()), "100 steps need 101 levels"),
        (
            lambda: DDIM(steps=99, grid=DDPMGrid(beta_last=0.999)),
            "the levels must be finite, got sigma up to inf",
        ),
        (lambda: DDIM(grid=LogGrid(sigma_max=math.inf)), "the levels must be finite"),
        (lambda: BELM(max_spread=1), r"max_spread: .*greater than 1"),
        (lambda: Anchored(residual=False), r"residual: .*unknown option"),
    ],
)
def test_options_out_of_range(make, message):
    with pytest.raises(SpecError, match=message):
        make()
