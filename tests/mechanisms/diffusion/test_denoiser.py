"""The denoiser: preconditioning without a remainder, parents that hide, images as channels."""

import math

import pytest
import torch
from torch import Tensor, nn

from graphs.variables import Categorical, Continuous, Image
from mechanisms.diffusion.backbones import DiT, UNet
from mechanisms.diffusion.denoiser import Denoiser, log_normal_levels, stratified
from mechanisms.encoders import network_time

TINY = UNet(channels=(8, 8), unshuffle=1)
PARENTS = {
    "digit": Categorical(3),
    "mask": Image(2, 4, 4),
    "size": Continuous(shape=(2,)),
    "slant": Continuous(),
}
PREDICTIONS = ["edm", "eps", "x0", "v", "velocity"]


def draws(n: int, seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """n images 1 x 4 x 4 with the parents above."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(n, 3, 4, 4, generator=generator)
    return 0.1 + 0.4 * normal[:, :1], {
        "digit": torch.arange(n) % 3,
        "mask": normal[:, 1:],
        "size": 5 + 3 * normal[:, 0, 0, :2].double(),
        "slant": 1e3 * normal[:, 0, 1, 0].double(),
    }


def denoiser(prediction="edm", parents=PARENTS, dropout=0.2) -> Denoiser:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Denoiser(Image(1, 4, 4), parents, TINY, prediction, dropout)
    module.prepare(*draws(12))
    return module.eval()


class Oracle(nn.Module):
    """A network that knows the answer, and remembers what it was asked."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor, sigma: Tensor, context: Tensor) -> Tensor:
        self.asked = x, sigma, context
        return self.answer


def perfect(module: Denoiser, value: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """What a perfect network says: Karras et al. 2022, table 1, Salimans & Ho 2022, Liu et al. 2023."""
    sigma = sigma.view(-1, 1, 1, 1)
    a = 1 / (1 + sigma**2)
    if module.prediction == "edm":
        m, s = module.pixel_mean, module.pixel_std
        skip = s**2 / (sigma**2 + s**2)
        out = sigma * s / (sigma**2 + s**2).sqrt()
        return (value - m - skip * (value + sigma * noise - m)) / out
    if module.prediction == "v":
        return a.sqrt() * noise - (1 - a).sqrt() * value
    if module.prediction == "velocity":
        return noise - value
    return noise if module.prediction == "eps" else value


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_coarse_loss_is_the_loss_of_the_averaged_images(prediction):
    """Of blocks of b pixels, with noise of level sigma / sqrt(b), by the target of the same prediction."""
    value, noise, wrong = (
        torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(k)).double() for k in range(3)
    )
    sigma, shown = torch.tensor([0.05, 1, 20], dtype=torch.float64), torch.zeros(3, 0, dtype=torch.bool)
    module, level = denoiser(prediction, parents={}).double(), sigma.view(-1, 1, 1, 1)
    module.network = Oracle(perfect(module, value, noise, sigma) + 0.3 * wrong)
    x = value + level * noise
    denoised, expected = x - level * module.eps(x, sigma, {}), module.loss(value, {}, sigma, noise, shown)
    for side in (4, 8):
        blocks = (each.unfold(2, side, side).unfold(3, side, side) for each in (x, value, denoised))
        seen, due, estimate = (each.mean((4, 5)) for each in blocks)
        # What a network of averaged images says that has this estimate, and what it should say.
        said, right = (
            perfect(module, image, (seen - image) / (level / side), sigma / side) for image in (estimate, due)
        )
        expected = expected + 0.25 * (said - right).square().mean((1, 2, 3))
    found = module.loss(value, {}, sigma, noise, shown, coarse=0.25)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("side", [1, 3, 5, 28])
def test_the_coarse_loss_takes_any_side(side):
    value = torch.randn(2, 1, side, side + 2, generator=torch.Generator().manual_seed(0))
    module = denoiser("edm", parents={})
    module.network = Oracle(value)
    sigma, shown = torch.ones(2), torch.zeros(2, 0, dtype=torch.bool)
    fine, both = (module.loss(value, {}, sigma, value, shown, coarse=weight) for weight in (0.0, 1.0))
    assert bool((both > fine).all()), "averages have errors of their own"
    assert bool(both.isfinite().all())


class Perceptron(nn.Module):
    """A network of images of one pixel."""

    def __init__(self, context: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 + context, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1)
        )

    def forward(self, x: Tensor, sigma: Tensor, context: Tensor) -> Tensor:
        return self.layers(torch.cat([x.flatten(1), sigma.log()[:, None], context], 1)).view(-1, 1, 1, 1)


def test_a_sharpened_denoiser_learns_the_guided_score():
    """By training on x | d ~ N(+-1, 1), whose noise estimates are known with d shown and hidden."""
    generator = torch.Generator().manual_seed(0)
    digit = torch.randint(2, (20_000,), generator=generator)
    value = (2.0 * digit - 1).view(-1, 1, 1, 1) + torch.randn(20_000, 1, 1, 1, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Denoiser(Image(1, 1, 1), {"digit": Categorical(2)}, TINY, "edm", 0.3)
        module.network = Perceptron(3)
    module.prepare(value, {"digit": digit})
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2_000)
    for _ in range(2_000):
        rows = torch.randint(20_000, (512,), generator=generator)
        noise = torch.randn(512, 1, 1, 1, generator=generator)
        sigma = log_normal_levels(512, 0.0, 0.7, generator=generator)
        shown = module.draw_shown(512, generator=generator)
        loss = module.loss(value[rows], {"digit": digit[rows]}, sigma, noise, shown, sharpening=1.0)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        scheduler.step()
    x = torch.linspace(-2, 2, 25).view(-1, 1, 1, 1)
    for level in (0.5, 1.0, 2.0):
        mean = (x / (1 + level**2)).tanh()  # of d as +-1, where it is hidden
        expected = {d: level * (x - d) / (1 + level**2) for d in (-1, 1, mean)}
        for d in (0, 1):
            guided = 2 * expected[2 * d - 1] - expected[mean]
            asked = {"digit": torch.full((25,), d)}
            found = module.eps(x, level, asked)
            assert (found - guided).square().mean().sqrt() < 0.12  # sharpening moves it by .41 to .56
            hidden = module.eps(x, level, asked, shown=False)
            assert (hidden - expected[mean]).square().mean().sqrt() < 0.08


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_sharpened_network_is_at_rest_whatever_else_it_is_shown(prediction):
    """Numbers, images and hidden categories stay as they are learned; every prediction moves alike."""
    value, parents = draws(6)
    noise, sigma = draws(6, seed=1)[0], torch.tensor([0.02, 0.3, 1, 5, 20, 2])
    module, owed = denoiser(prediction), draws(6, seed=2)[0]
    right, flag = perfect(module, value, noise, sigma), module.conditioning.width

    class Sharpened(Oracle):
        def forward(self, x: Tensor, sigma: Tensor, context: Tensor) -> Tensor:
            return right + (context[:, flag, None, None, None] - 1 / 3) * owed  # the first parent's flag

    module.network = Sharpened(value)
    shown = torch.ones(6, 4, dtype=torch.bool)
    shown[3:, 0] = False
    shown[1] = torch.tensor([True, False, False, False])
    # Shown, the output is right + 2/3 owed, hidden right - 1/3 owed: at s = 2, 2/3 of their difference.
    loss = module.loss(value, parents, sigma, noise, shown, sharpening=2.0)
    torch.testing.assert_close(loss[:3], torch.zeros(3), rtol=0, atol=1e-9)
    torch.testing.assert_close(loss[3:], (owed[3:] / 3).square().mean((1, 2, 3)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_perfect_network_gives_the_noise_and_no_loss(prediction):
    value, parents = draws(5)
    value, noise = value.double(), draws(5, seed=1)[0].double()
    sigma = torch.tensor([0.02, 0.3, 1, 5, 20], dtype=torch.float64)
    module = denoiser(prediction).double()
    module.network = Oracle(perfect(module, value, noise, sigma))
    x = value + sigma.view(-1, 1, 1, 1) * noise
    torch.testing.assert_close(module.eps(x, sigma, parents), noise, rtol=0, atol=1e-10)
    loss = module.loss(value, parents, sigma, noise, torch.ones(5, 4, dtype=torch.bool))
    torch.testing.assert_close(loss, torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-20)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_loss_is_the_mean_square_of_the_networks_error(prediction):
    value, parents = draws(5)
    noise, sigma = draws(5, seed=1)[0], torch.tensor([0.02, 0.3, 1, 5, 20])
    module = denoiser(prediction)
    module.network = Oracle(perfect(module, value, noise, sigma) + torch.arange(5.0).view(-1, 1, 1, 1))
    loss = module.loss(value, parents, sigma, noise, torch.ones(5, 4, dtype=torch.bool))
    torch.testing.assert_close(loss, torch.arange(5.0) ** 2, rtol=1e-4, atol=1e-6)


class GaussianFlow(nn.Module):
    """E[eps - x_0 | x_t] of pixels N(mean, std^2) on the line x_t = (1 - t) x_0 + t eps."""

    def __init__(self, mean: Tensor, std: float) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, x: Tensor, sigma: Tensor, context: Tensor) -> Tensor:
        t = (sigma / (1 + sigma)).view(-1, 1, 1, 1)
        excess = (x - (1 - t) * self.mean) / ((1 - t) ** 2 * self.std**2 + t**2)
        return t * excess - (self.mean + (1 - t) * self.std**2 * excess)


def test_the_velocity_field_of_gaussian_pixels_gives_their_score():
    mean, std = torch.linspace(-0.5, 0.5, 16, dtype=torch.float64).view(4, 4), 0.3
    module = denoiser("velocity", parents={}).double()
    module.network = GaussianFlow(mean, std)
    sigma = torch.tensor([0.002, 0.02, 0.3, 1, 5, 80], dtype=torch.float64)
    x = draws(6)[0].double() * 3
    level = sigma.view(-1, 1, 1, 1)
    # eps = -sigma grad log p(x_bar), with x_bar ~ N(mean, std^2 + sigma^2)
    expected = level * (x - mean) / (std**2 + level**2)
    torch.testing.assert_close(module.eps(x, sigma, {}), expected, rtol=0, atol=1e-12)


def test_training_by_velocity_learns_the_flow_of_a_gaussian_in_each_category():
    backbone = DiT(patch=2, width=16, depth=1, heads=2)
    generator = torch.Generator().manual_seed(0)
    parents = {"side": Categorical(2)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Denoiser(Image(1, 4, 4), parents, backbone, "velocity", dropout=0)
    std, optimizer = 0.3, torch.optim.Adam(module.parameters(), lr=1e-2)

    def batch(n):
        side = torch.randint(2, (n,), generator=generator)
        mean = (side - 0.5).view(-1, 1, 1, 1)
        return side, mean, mean + std * torch.randn(n, 1, 4, 4, generator=generator)

    def error(sigma):
        side, mean, value = batch(500)
        x = value + sigma * torch.randn(value.shape, generator=generator)
        expected = sigma * (x - mean) / (std**2 + sigma**2)
        with torch.no_grad():
            return (module.eps(x, sigma, {"side": side}) - expected).square().mean().sqrt().item()

    before = {sigma: error(sigma) for sigma in (0.1, 0.5, 2.0)}
    for step in range(150):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 150)
        side, _, value = batch(64)
        sigma = log_normal_levels(64, -0.7, 1.4, generator=generator)
        noise = torch.randn(value.shape, generator=generator)
        shown = torch.ones(64, 1, dtype=torch.bool)
        optimizer.zero_grad()
        module.loss(value, {"side": side}, sigma, noise, shown).mean().backward()
        optimizer.step()
    for sigma, untrained in before.items():
        assert error(sigma) < 0.25 * untrained, sigma


def test_the_network_sees_inputs_of_unit_variance():
    value, parents = draws(6)
    x = value + 3 * draws(6, seed=1)[0]
    for prediction, expected in [
        ("edm", lambda m: (x - m.pixel_mean) / (9 + m.pixel_std**2).sqrt()),
        ("v", lambda m: x / math.sqrt(10)),
        ("velocity", lambda m: x / 4),  # t = 3/4, x_t = (1 - t) x_bar
    ]:
        module = denoiser(prediction)
        module.network = Oracle(torch.zeros_like(x))
        module.eps(x, 3.0, parents)
        torch.testing.assert_close(module.network.asked[0][:, :1], expected(module))


def test_pixel_statistics_are_those_of_the_training_rows():
    module, (value, _) = denoiser(), draws(12)
    assert module.pixel_mean.item() == pytest.approx(value.mean().item(), abs=1e-6)
    assert module.pixel_std.item() == pytest.approx(value.std(correction=0).item(), abs=1e-6)
    module.prepare(torch.zeros_like(value), draws(12)[1])
    assert module.pixel_std > 0


def test_context_is_columns_of_the_shown_parents_and_flags():
    module, (value, parents) = denoiser(), draws(2)
    module.network = Oracle(torch.zeros_like(value))
    shown = torch.tensor([[True, True, False, True], [False, False, True, True]])
    module.eps(value, 1.0, parents, shown)
    x, _, context = module.network.asked
    conditioning = module.conditioning(parents)
    expected = conditioning.clone()
    expected[0, 3:5] = 0  # size
    expected[1, :3] = 0  # digit
    torch.testing.assert_close(context, torch.cat([expected, shown.float()], 1))
    torch.testing.assert_close(x[0, 1:], parents["mask"][0])  # images beside the image
    torch.testing.assert_close(x[1, 1:], torch.zeros(2, 4, 4))


@pytest.mark.parametrize("hidden", PARENTS)
def test_the_value_of_a_hidden_parent_does_not_matter_and_that_of_a_shown_one_does(hidden):
    module, (value, parents) = denoiser(), draws(4)
    other = {**parents, hidden: parents[hidden].flip(0)}
    shown = torch.tensor([name != hidden for name in PARENTS])
    with torch.no_grad():
        torch.testing.assert_close(
            module.eps(value, 1.0, parents, shown), module.eps(value, 1.0, other, shown), rtol=0, atol=0
        )
        assert (module.eps(value, 1.0, parents) - module.eps(value, 1.0, other)).abs().max() > 1e-4
        # Hidden is not the same as zero: a flag says so.
        blank = {**parents, hidden: torch.zeros_like(parents[hidden])}
        assert (module.eps(value, 1.0, blank) - module.eps(value, 1.0, blank, shown)).abs().max() > 1e-4


def test_hiding_all_parents_is_one_setting_for_all_rows():
    module, (value, parents) = denoiser(), draws(4)
    rows = torch.zeros(4, 4, dtype=torch.bool)
    with torch.no_grad():
        found = module.eps(value, 1.0, parents, shown=False)
        torch.testing.assert_close(found, module.eps(value, 1.0, parents, rows), rtol=0, atol=0)


def test_one_level_for_all_rows_or_one_a_row():
    module, (value, parents) = denoiser(), draws(4)
    levels = torch.tensor([0.1, 0.5, 2.0, 10.0])
    with torch.no_grad():
        together = module.eps(value, levels, parents)
        for row, level in enumerate(levels.tolist()):
            one = {name: parent[row, None] for name, parent in parents.items()}
            alone = module.eps(value[row, None], level, one)
            torch.testing.assert_close(together[row, None], alone, rtol=1e-4, atol=1e-5)
        assert (module.eps(value, 0.1, parents) - module.eps(value, 0.2, parents)).abs().max() > 1e-4


def test_a_root_has_no_context():
    module = denoiser(parents={})
    value = draws(3)[0]
    with torch.no_grad():
        assert module.eps(value, 1.0, {}).shape == value.shape
        torch.testing.assert_close(module.eps(value, 1.0, {}), module.eps(value, 1.0, {}, shown=False))
    assert module.draw_shown(3, generator=torch.Generator()).shape == (3, 0)


@pytest.mark.parametrize("dropout", [0.0, 0.15, 0.9])
def test_a_share_of_rows_hides_parents_tossing_a_coin_for_each(dropout):
    hidden = ~denoiser(dropout=dropout).draw_shown(40_000, generator=torch.Generator().manual_seed(0))
    n, parents = hidden.shape
    assert parents == 4

    def agrees(found, probability):
        spread = 5 * math.sqrt(probability * (1 - probability) / n)
        return abs(found.double().mean().item() - probability) <= spread + 1e-12

    assert agrees(hidden.any(1), dropout)
    assert agrees(hidden.all(1), dropout * 2 / 16)  # all coins fell, or none
    assert all(agrees(hidden[:, k], dropout * (1 / 2 + 1 / 16)) for k in range(parents))
    assert agrees(hidden[:, 0] & hidden[:, 1], dropout * (1 / 4 + 1 / 16))


def test_a_single_parent_is_hidden_with_the_dropout_probability():
    module = denoiser(parents={"digit": Categorical(3)}, dropout=0.15)
    hidden = ~module.draw_shown(40_000, generator=torch.Generator().manual_seed(0))
    assert hidden.double().mean().item() == pytest.approx(0.15, abs=5 * math.sqrt(0.15 * 0.85 / 40_000))


def test_the_loss_has_finite_gradients_for_every_parameter():
    module, (value, parents) = denoiser(), draws(6)
    shown = torch.tensor([True, False, True] * 8).view(6, 4)
    module.loss(value, parents, torch.linspace(0.02, 20, 6), value.flip(0), shown).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name


def test_stratified_numbers_fall_one_into_each_interval():
    uniform = stratified(1000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close((uniform * 1000).floor(), torch.arange(1000.0))


def test_levels_are_log_normal():
    sigma = log_normal_levels(4000, -1.0, 1.2, generator=torch.Generator().manual_seed(0))
    assert sigma.dtype == torch.float32 and sigma.shape == (4000,)
    assert sigma.log().mean().item() == pytest.approx(-1, abs=5e-3)
    assert sigma.log().std().item() == pytest.approx(1.2, abs=5e-3)


@pytest.mark.parametrize("size", [(8, 16), (2, 2), (3, 7), (4, 4)])
def test_image_parents_become_as_high_and_wide_as_the_image(size):
    """A flat one stays flat, a ramp stays one, and what is left, right, above or below stays there."""
    module, (x, _) = denoiser(parents={"mask": Image(2, *size)}), draws(3)
    module.network = Oracle(torch.zeros_like(x))

    def channels(mask: Tensor) -> Tensor:
        module.eps(x, 1.0, {"mask": mask.expand(3, 2, *size)})
        return module.network.asked[0][:, 1:]

    torch.testing.assert_close(channels(torch.full(size, 0.3)), torch.full((3, 2, 4, 4), 0.3))
    for axis in (0, 1):
        middles = (torch.arange(size[axis]) + 0.5) / size[axis]
        ramp = middles.view(-1, 1) if axis == 0 else middles
        found = channels(ramp.expand(size)).mean(3 if axis == 0 else 2)[0, 0]
        assert (found.diff() > 0).all()
        torch.testing.assert_close(found[1:3], torch.tensor([0.375, 0.625]), rtol=0, atol=0.02)


def test_network_time_spans_the_embeddings_range():
    time = network_time(torch.tensor([0.002, 0.4, 80.0]))
    torch.testing.assert_close(time, torch.tensor([0.0, 500.0, 1000.0]), rtol=1e-4, atol=1e-3)


def test_backbone_folds_pixels_into_channels_and_back():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNet(channels=(8, 16), layers=2, unshuffle=2).build(3, 1, 5)
    out = network(torch.zeros(2, 4, 8, 12), torch.ones(2), torch.zeros(2, 5))
    assert out.shape == (2, 3, 8, 12)


@pytest.mark.parametrize("sides", [(7, 12), (8, 9), (5, 3)])
def test_backbone_pads_sides_that_do_not_divide_and_cuts_them_again(sides):
    height, width = sides
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNet(channels=(8, 16), unshuffle=2).build(3, 1, 5).eval()
        x, context = torch.randn(2, 4, *sides), torch.randn(2, 5)
    UNet().check_size(*sides)
    rows = [min(row, height - 1) for row in range(-(-height // 4) * 4)]
    columns = [min(column, width - 1) for column in range(-(-width // 4) * 4)]
    with torch.no_grad():
        whole = network(x[:, :, rows][:, :, :, columns], torch.ones(2), context)
        assert torch.equal(network(x, torch.ones(2), context), whole[:, :, :height, :width])
