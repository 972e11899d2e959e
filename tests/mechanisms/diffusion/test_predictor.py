"""The anticausal predictor: a chain of normalised conditionals whose gradients move means only."""

import math

import pytest
import torch
from torch import Tensor

from graphs.variables import Categorical, Continuous, Image, Integer
from mechanisms.diffusion.predictor import AnticausalPredictor, ResNet

PARENTS = {
    "slant": Continuous(unit="deg"),
    "mask": Image(1, 4, 4),
    "digit": Categorical(3),
    "size": Continuous(shape=(2,)),
}
NAMES = ("slant", "digit", "size")


def draws(n: int, seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(n, 1, 4, 4, generator=generator)
    return 0.1 + 0.4 * normal, {
        "slant": 100 + 20 * normal[:, 0, 0, 0].double(),
        "mask": normal,
        "digit": torch.arange(n) % 3,
        "size": 5 + 3 * normal[:, 0, 1, :2].double(),
    }


@pytest.fixture
def predictor() -> AnticausalPredictor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = AnticausalPredictor(Image(1, 4, 4), PARENTS, ResNet(channels=(8, 16), unshuffle=2))
    module.prepare(*draws(30))
    return module.double().eval()


def test_it_predicts_the_tabular_parents_in_declared_order(predictor):
    assert predictor.names == NAMES
    value, parents = draws(5)
    log_probs = predictor.log_probs(predictor.encode(value.double(), 0.5), parents)
    assert tuple(log_probs) == NAMES
    assert all(each.shape == (5,) and each.dtype == torch.float64 for each in log_probs.values())


@pytest.mark.parametrize("changed", NAMES)
def test_a_head_sees_the_parents_before_its_own_and_no_others(predictor, changed):
    value, parents = draws(6)
    features = predictor.encode(value.double(), 0.5)
    other = {**parents, changed: parents[changed].flip(0)}
    before, after = predictor.log_probs(features, parents), predictor.log_probs(features, other)
    for name in NAMES:
        same = torch.equal(before[name], after[name])
        assert same == (NAMES.index(name) < NAMES.index(changed)), name


@pytest.mark.parametrize("name", ["type", "training", "keys"])
def test_a_parent_may_be_called_like_an_attribute_of_a_module(name):
    with torch.random.fork_rng():
        made, again = (
            AnticausalPredictor(Image(1, 4, 4), {name: Categorical(3)}, ResNet(channels=(8, 16))).eval()
            for _ in range(2)
        )
    again.load_state_dict(made.state_dict())
    value, parents = draws(6)[0], {name: torch.arange(6) % 3}
    found, loaded = (each.log_probs(each.encode(value, 0.5), parents)[name] for each in (made, again))
    assert f"heads.{name}.0.weight" in made.state_dict() and torch.equal(found, loaded)


def test_an_image_parent_does_not_enter(predictor):
    value, parents = draws(6)
    features = predictor.encode(value.double(), 0.5)
    found = [predictor.log_probs(features, {**parents, "mask": parents["mask"] * k}) for k in (1, 2)]
    assert all(torch.equal(found[0][name], found[1][name]) for name in NAMES)


def test_probabilities_of_a_category_sum_to_1(predictor):
    value, parents = draws(5)
    features = predictor.encode(value.double(), 0.5)
    total = sum(
        predictor.log_probs(features, {**parents, "digit": torch.full((5,), k)})["digit"].exp()
        for k in range(3)
    )
    torch.testing.assert_close(total, torch.ones(5, dtype=torch.float64))


def test_densities_integrate_to_1_over_the_standardised_value(predictor):
    value, parents = draws(1)
    features = predictor.encode(value.double(), 0.5)
    mean, std = parents_moments(predictor, "slant")
    grid = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    rows = {name: parent.expand(4001, *parent.shape[1:]) for name, parent in parents.items()}
    rows["slant"] = mean + std * grid
    log_prob = predictor.log_probs(features.expand(4001, -1), rows)["slant"]
    assert torch.trapezoid(log_prob.exp(), grid).item() == pytest.approx(1, abs=1e-5)


def test_a_vectors_density_is_the_product_of_its_parts(predictor):
    value, parents = draws(1)
    features = predictor.encode(value.double(), 0.5)
    mean, std = parents_moments(predictor, "size")
    line = torch.linspace(-10, 10, 201, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    rows = {name: parent.expand(len(grid), *parent.shape[1:]) for name, parent in parents.items()}
    rows["size"] = mean + std * grid
    density = predictor.log_probs(features.expand(len(grid), -1), rows)["size"].exp().view(201, 201)
    assert torch.trapezoid(torch.trapezoid(density, line), line).item() == pytest.approx(1, abs=1e-5)


def parents_moments(predictor: AnticausalPredictor, name: str) -> tuple[Tensor, Tensor]:
    rows = draws(30)[1][name]
    return rows.mean(0), rows.std(0, correction=0)


def flat_mean(predictor: AnticausalPredictor) -> None:
    """Make the mean of slant a constant, so that only its variance depends on the image."""
    last = predictor.heads["slant"][-1]
    with torch.no_grad():
        last.weight[0], last.bias[0] = 0, 0


@pytest.mark.parametrize("training", [False, True])
def test_guidance_cannot_buy_likelihood_by_variance_but_training_fits_it(predictor, training):
    flat_mean(predictor)
    predictor.train(training)
    value, parents = draws(5)
    image = value.double().requires_grad_()
    log_prob = predictor.log_probs(predictor.encode(image, 0.5), parents)["slant"]
    (gradient,) = torch.autograd.grad(log_prob.sum(), image)
    assert bool((gradient != 0).any()) == training


def test_the_gradient_of_a_continuous_parent_moves_the_mean(predictor):
    # grad log q = (pa - mu) / v grad mu, so that of log q(cf) - log q(F) is (cf - F) / v grad mu.
    value, parents = draws(5)
    image = value.double().requires_grad_()
    mean, std = parents_moments(predictor, "slant")
    features = predictor.encode(image, 0.5)
    out = predictor.heads["slant"](features)  # the first parent: no columns before it
    (slope,) = torch.autograd.grad(out[:, 0].sum(), image, retain_graph=True)
    target = (parents["slant"] - mean) / std
    weight = (target - out[:, 0]) / out[:, 1].exp()
    log_prob = predictor.log_probs(features, parents)["slant"]
    (gradient,) = torch.autograd.grad(log_prob.sum(), image)
    torch.testing.assert_close(gradient, weight.detach().view(-1, 1, 1, 1) * slope)
    # In training, the same density.
    torch.testing.assert_close(predictor.train().log_probs(features, parents)["slant"], log_prob)


def test_most_likely_is_the_mode_in_data_units(predictor):
    value, parents = draws(5)
    features = predictor.encode(value.double(), 0.5)
    guesses = {name: predictor.most_likely(features, parents, name) for name in NAMES}
    assert guesses["digit"].dtype == torch.int64 and guesses["slant"].dtype == torch.float64
    assert guesses["size"].shape == (5, 2)
    for name, guess in guesses.items():
        best = predictor.log_probs(features, {**parents, name: guess})[name]
        for other in (parents[name], guess + 1 if name != "digit" else (guess + 1) % 3):
            assert bool((best >= predictor.log_probs(features, {**parents, name: other})[name]).all()), name


def test_a_number_of_a_large_offset_is_read_in_its_own_digits():
    """In float32, 10,000 and a few thousandths was read in steps of 0.001."""
    with torch.random.fork_rng():
        near, far = (
            AnticausalPredictor(Image(1, 4, 4), {"t": Continuous()}, ResNet(channels=(8,))).eval()
            for _ in range(2)
        )
    far.load_state_dict(near.state_dict())
    value, t = draws(6)[0], torch.arange(6).double()
    near.prepare(value, {"t": t})
    far.prepare(value, {"t": 1e4 + 2**-10 * t})
    far.conditioning.std.copy_(near.conditioning.std * 2**-10)
    with torch.no_grad():
        wanted, found = (each.read(value, 0.5)["t"] for each in (near, far))
    far_mean, near_mean = far.conditioning.mean.double(), near.conditioning.mean.double()
    torch.testing.assert_close((found - far_mean) * 2**10, wanted - near_mean, rtol=1e-6, atol=1e-6)


def test_it_depends_on_the_level(predictor):
    value = draws(3)[0].double()
    levels = torch.tensor([0.1, 1.0, 10.0]).double()
    together = predictor.encode(value, levels)
    for row, level in enumerate(levels.tolist()):
        torch.testing.assert_close(together[row, None], predictor.encode(value[row, None], level))
    assert (predictor.encode(value, 0.1) - predictor.encode(value, 1.0)).abs().max() > 1e-4


def test_extreme_variances_stay_finite(predictor):
    last = predictor.heads["slant"][-1]
    value, parents = draws(3)
    for bias in (-1e4, 1e4):
        with torch.no_grad():
            last.bias[1] = bias
        log_prob = predictor.log_probs(predictor.encode(value.double(), 1.0), parents)["slant"]
        assert bool(log_prob.isfinite().all())
    assert log_prob.max().item() == pytest.approx(-5 - 0.5 * math.log(2 * math.pi), abs=1e-2)


@pytest.mark.parametrize("sides", [(5, 7), (6, 7), (4, 5)])
def test_sides_that_unshuffling_does_not_divide_are_padded(sides):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ResNet(channels=(8, 8)).build(2).eval()
        x = torch.randn(3, 2, *sides)
    ResNet().check_size(*sides)
    below, right = sides[0] % 2, sides[1] % 2
    even = torch.cat([x, x[:, :, -1:]], 2) if below else x
    even = torch.cat([even, even[..., -1:]], 3) if right else even
    sigma = torch.tensor([0.1, 1.0, 5.0])
    with torch.no_grad():
        assert torch.equal(network(x, sigma), network(even, sigma))
        assert network(x[..., :1, :1], sigma).shape == (3, 16)


class Pixels(torch.nn.Module):
    """As features, the first four pixels."""

    def forward(self, x, sigma):
        return x.flatten(1)[:, :4]


class Head(torch.nn.Module):
    """Mean pixel k plus the standardised values before, log variance 0; of three categories the nearest."""

    def __init__(self, pixel, categories=False):
        super().__init__()
        self.pixel, self.categories = pixel, categories

    def forward(self, columns):
        mean = columns[:, [self.pixel]] + columns[:, 4:].sum(1, keepdim=True)
        if self.categories:
            return -((mean - torch.arange(3)) ** 2)
        return torch.cat([mean, torch.zeros_like(mean)], 1)


def test_each_parent_is_read_under_those_that_were_read_before_it():
    parents = {
        "level": Continuous(unit="m"),
        "mask": Image(1, 4, 4),
        "kind": Categorical(3),
        "count": Integer(),
    }
    with torch.random.fork_rng():
        predictor = AnticausalPredictor(Image(1, 4, 4), parents, ResNet(channels=(8,), unshuffle=2))
    predictor = predictor.double().eval()
    predictor.pixel_mean.fill_(0)
    predictor.pixel_std.fill_(1)
    predictor.encoder = Pixels()
    for pixel, name in enumerate(predictor.names):
        predictor.heads[name] = Head(pixel, categories=name == "kind")
    # level = 1e9 + 10 a: 0 is further from its mean than a network takes
    predictor.conditioning.mean[0], predictor.conditioning.std[0] = 1e9, 10.0
    image = torch.zeros(3, 1, 4, 4, dtype=torch.float64)
    image[:, 0, 0, 0] = torch.tensor([0.5, 2.0, -1.0])
    image[:, 0, 0, 1] = torch.tensor([0.4, -1.0, 1.2])
    image[:, 0, 0, 2] = torch.tensor([0.0, 0.3, 0.8])
    with torch.no_grad():
        read = predictor.read(image, 0.0)
    assert tuple(read) == ("level", "kind", "count")
    torch.testing.assert_close(read["level"], torch.tensor([1e9 + 5, 1e9 + 20, 1e9 - 10]).double())
    assert read["kind"].tolist() == [1, 1, 0]  # 0.9, 1.0 and 0.2
    # the one-hot category adds 1: 0.5 + 1, 2 + 1 + 0.3, -1 + 1 + 0.8
    assert read["count"].tolist() == [2.0, 3.0, 1.0]
