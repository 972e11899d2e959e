"""Draws of libraries without generators: torch's own stream from a seed, and nothing of the process moves."""

import threading

import pyro.distributions as pyro_laws
import pytest
import torch
import torch.distributions as laws
from torch import nn

from mechanisms.networks import DenseNetwork
from mechanisms.seeds import GlobalDraws, global_draws_from, layers_apart, seed_layers

HALF = torch.tensor([0.2, 0.5, 0.3])
LAWS = {
    "bernoulli": laws.Bernoulli(0.3),
    "beta": laws.Beta(2.0, 3.0),
    "binomial": laws.Binomial(5, 0.3),
    "categorical": laws.Categorical(HALF),
    "cauchy": laws.Cauchy(0.0, 1.0),
    "chi2": laws.Chi2(3.0),
    "dirichlet": laws.Dirichlet(HALF),
    "exponential": laws.Exponential(2.0),
    "gamma": laws.Gamma(2.0, 1.0),
    "geometric": laws.Geometric(0.3),
    "gumbel": laws.Gumbel(0.0, 1.0),
    "half normal": laws.HalfNormal(1.0),
    "laplace": laws.Laplace(0.0, 1.0),
    "lkj": laws.LKJCholesky(3, 1.0),
    "mixture": laws.MixtureSameFamily(laws.Categorical(HALF), laws.Normal(HALF, 1.0)),
    "multinomial": laws.Multinomial(4, HALF),
    "multivariate normal": laws.MultivariateNormal(HALF, torch.eye(3)),
    "negative binomial": laws.NegativeBinomial(5.0, 0.3),
    "normal": laws.Normal(0.0, 1.0),
    "poisson": laws.Poisson(3.0),
    "relaxed": laws.RelaxedOneHotCategorical(torch.tensor(1.0), HALF),
    "student": laws.StudentT(4.0),
    "uniform": laws.Uniform(0.0, 1.0),
    "von mises": laws.VonMises(0.0, 2.0),
    "weibull": laws.Weibull(1.0, 2.0),
    "stable": pyro_laws.Stable(1.5, 0.0),
    "delta mixture": pyro_laws.ZeroInflatedPoisson(torch.tensor(3.0), gate=torch.tensor(0.2)),
    "projected normal": pyro_laws.ProjectedNormal(HALF),
}
ROWS = torch.linspace(-1, 1, 96).view(4, 4, 6)
LAYERS = {
    "dropout": nn.Dropout(0.4),
    "all dropped": nn.Dropout(1.0),
    "channels": nn.Dropout1d(0.4),
    "alpha": nn.AlphaDropout(0.4),
    "rrelu": nn.RReLU(),
    "lstm": nn.LSTM(6, 5, num_layers=2, dropout=0.4, batch_first=True),
    "attention": nn.TransformerEncoderLayer(6, 2, 8, dropout=0.4, batch_first=True),
}


@pytest.fixture(autouse=True)
def never_moved():
    """The global state is as before."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state())


def by_torch(seed, draw):
    """The oracle: torch's own stream from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return draw()


@pytest.mark.parametrize("name", LAWS)
def test_a_law_draws_torch_s_own_stream(name):
    def draw():
        return torch.stack([LAWS[name].sample((20,)).double(), LAWS[name].sample((20,)).double()])

    expected = by_torch(7, draw)
    with GlobalDraws(7):
        assert torch.equal(draw(), expected)
    with GlobalDraws(8):
        assert not torch.equal(draw(), expected)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_draws_by_the_seed(name):
    layer = LAYERS[name]

    def forward():
        found = layer(ROWS)
        return found[0] if isinstance(found, tuple) else found

    def seeded(seed):
        with layers_apart(layer):
            seed_layers(seed)
            return forward()

    assert torch.equal(seeded(3), seeded(3))
    assert torch.equal(seeded(3), seeded(4)) == (name == "all dropped")
    if name in ("dropout", "all dropped"):
        assert torch.equal(seeded(3), by_torch(3, forward))
    layer.eval()
    still = forward()
    assert torch.equal(seeded(3), still)
    layer.train()


def test_a_layer_of_another_package_draws_by_the_seed():
    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.rand_like(x) + x.new_empty(x.shape).normal_() + torch.randn_like(x)

    layer = Noisy()
    with layers_apart(layer):
        seed_layers(5)
        found = layer(ROWS)
    assert torch.equal(found, by_torch(5, lambda: layer(ROWS)))


def test_first_weights_are_those_of_torch_s_stream():
    def weights(make):
        return torch.cat([each.flatten() for each in make().state_dict().values()])

    for make in (lambda: nn.Conv2d(2, 3, 3), lambda: nn.LSTM(2, 3), lambda: nn.Embedding(4, 3), _attention):
        with GlobalDraws(0):
            found = weights(make)
        assert torch.equal(found, by_torch(0, lambda: weights(make)))  # noqa: B023
    one, two = (DenseNetwork(2, [4], torch.zeros(1)) for _ in range(2))
    assert torch.equal(weights(lambda: one), weights(lambda: two))


def _attention():
    return nn.MultiheadAttention(6, 2)


def test_a_generator_decides_and_goes_on():
    def twice(seed):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(2):
            with global_draws_from(generator):
                yield laws.Gamma(2.0, 1.0).sample((3,))

    (one, two), (again, _), (other, _) = map(list, map(twice, (0, 0, 1)))
    assert torch.equal(one, again)
    assert not torch.equal(one, two) and not torch.equal(one, other)


def test_the_inner_of_two_contexts_draws():
    def draw():
        return torch.randn(3)

    one, two = by_torch(1, draw), by_torch(2, draw)
    with GlobalDraws(1) as outer:
        before = outer.drawn()
        with GlobalDraws(2):
            assert torch.equal(draw(), two)
        assert outer.drawn() == before
        assert torch.equal(draw(), one)
        assert outer.drawn() != before


def test_another_thread_draws_from_the_global_state():
    with GlobalDraws(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        found = []
        thread = threading.Thread(target=lambda: found.append(torch.randn(3)))
        thread.start()
        thread.join()
    assert torch.equal(found[0], by_torch(9, lambda: torch.randn(3)))
