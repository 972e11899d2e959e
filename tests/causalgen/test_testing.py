"""The law suite itself: each law must catch the mechanism that breaks it."""

from collections.abc import Mapping
from typing import Literal, final

import pytest
import torch
from torch import nn

from causalgen.testing import check_mechanism
from graphs.errors import NotFittedError
from graphs.variables import Continuous, Variable
from mechanisms.base import Abducted, Mechanism, MechanismSpec, Noise
from mechanisms.tables.additive import Additive
from mechanisms.training import Training
from tests.mechanisms.fit import fit, normal

PARENTS = {"a": Continuous()}
ROWS = {"a": normal(20, seed=1)}


class Plugged(MechanismSpec, frozen=True):
    """x = slope a + exp(a / 4) u, and one mistake on demand."""

    kind: Literal["plugged"] = "plugged"
    mistake: str = ""

    def make(self, variable: Variable, parents: Mapping[str, Variable]) -> "PluggedMechanism":
        return PluggedMechanism(self, variable, parents)


@final
class PluggedMechanism(Mechanism):
    abduction = "exact"
    deterministic = True

    def __init__(self, spec, variable, parents):
        super().__init__(spec, variable, parents)
        self.register_buffer(
            "slope", torch.tensor(2.0).double(), persistent=spec.mistake != "forgets its state"
        )
        self.weight = nn.Parameter(torch.zeros(1))  # the loss below has no finite gradient in it
        if spec.mistake == "random but deterministic":
            self.abduction = "posterior"

    def sample_noise(self, n, *, generator):
        if self.spec.mistake == "draws globally":
            generator = None
        scale = 2.0 if self.spec.mistake == "prior" else 1.0
        return Noise(n, {"u": scale * torch.randn(n, generator=generator, dtype=torch.float64)})

    def generate(self, parents, noise):
        a = parents["a"] - (parents["a"].mean() if self.spec.mistake == "looks at other rows" else 0)
        if self.spec.mistake == "changes parents":
            parents["a"].add_(1)
        value = self.slope * a + (a / 4).exp() * noise["u"]
        return value.float() if self.spec.mistake == "dtype" else value

    def abduct(self, value, parents, *, generator):
        u = (value - self.slope * parents["a"]) / (parents["a"] / 4).exp()
        if self.spec.mistake == "round trip":
            u = u + 1e-3
        if self.spec.mistake == "random but deterministic":
            u = u + 1e-12 * torch.randn(len(u), generator=generator, dtype=torch.float64)
        name = "noise" if self.spec.mistake == "leaf names" else "u"
        return Abducted(Noise(len(value), {name: u}))

    def log_prob(self, value, parents):
        right = torch.distributions.Normal(self.slope * parents["a"], (parents["a"] / 4).exp()).log_prob(
            value
        )
        if self.spec.mistake == "density":
            return right + 0.3
        if self.spec.mistake == "jacobian":  # right for the first row's parents
            return right + (parents["a"] - ROWS["a"][0]) / 4
        return right

    def loss(self, value, parents, *, generator):
        return -self.log_prob(value, parents) + (0 * self.weight).sqrt()

    def read(self, value):
        read = value / self.slope
        if self.spec.mistake == "reads other rows":
            read = read - read.mean()
        if self.spec.mistake == "reads in float32":
            read = read.float()
        return {"b" if self.spec.mistake == "reads no parent" else "a": read}


def bound(mistake=""):
    training = Training() if mistake == "gradient" else None
    mechanism = Plugged(mistake=mistake, training=training).bind(Continuous(), PARENTS)
    mechanism.mark_fitted()
    return mechanism


def rows():
    """Fresh rows: one of the mistakes is to change them."""
    parents = {"a": ROWS["a"].clone()}
    return 2 * parents["a"] + normal(20, seed=2), parents


def test_a_sound_plug_in_passes():
    check_mechanism(bound(), *rows())


@pytest.mark.parametrize(
    ("mistake", "law"),
    [
        ("dtype", "'interface'.*float32, not float64"),
        ("leaf names", "'interface'.*leaves"),
        ("changes parents", "'inputs'.*parents were changed"),
        ("round trip", "'round trip'.*x came back changed"),
        ("random but deterministic", "'generator'.*deterministic, but abduct draws"),
        ("density", "'density'.*do not follow log_prob"),
        ("prior", "'density'.*do not follow log_prob"),
        ("jacobian", "'change of variables'.*log_prob is off"),
        ("looks at other rows", "'round trip'"),
        ("forgets its state", "'saving'"),
        ("reads other rows", "'reading'.*read of 'a': differs"),
        ("reads in float32", "'reading'.*read of 'a' gave torch.float32, not float64"),
        ("reads no parent", "'reading'.*'b', which is no parent"),
        ("gradient", "'gradients'.*not finite, in weight"),
    ],
)
def test_each_mistake_is_caught_by_its_law(mistake, law):
    mechanism = bound(mistake)
    if mistake == "forgets its state":
        mechanism.slope.fill_(3.0)
    with pytest.raises(AssertionError, match=f"^Law {law}"):
        check_mechanism(mechanism, *rows())


def test_global_draws_are_caught():
    with torch.random.fork_rng(), pytest.raises(AssertionError, match="'generator'"):
        check_mechanism(bound("draws globally"), *rows())


def test_statistical_laws_depend_on_the_seed_alone():
    for seed in range(3):
        check_mechanism(bound(), *rows(), seed=seed)


def test_an_unfitted_mechanism_is_refused():
    with pytest.raises(NotFittedError):
        check_mechanism(Additive().bind(Continuous(), PARENTS), *rows())


def test_the_mechanism_is_not_changed():
    value, parents = rows()
    mechanism = fit(Additive(function="network").bind(Continuous(), PARENTS), value, parents, steps=2)
    before = {name: tensor.clone() for name, tensor in mechanism.state_dict().items()}
    check_mechanism(mechanism, value, parents)
    assert all(torch.equal(before[name], tensor) for name, tensor in mechanism.state_dict().items())
