"""The law suite itself: each law must catch the mechanism that breaks it."""

from collections.abc import Mapping
from typing import Literal, final

import numpy as np
import pytest
import torch
from torch import nn

from causalgen.testing import check_mechanism
from graphs.errors import NotFittedError
from graphs.variables import Continuous, Variable
from mechanisms.base import Abducted, LinearForm, Mechanism, MechanismSpec, Noise
from mechanisms.tables.additive import Additive
from mechanisms.training import Training
from tests.mechanisms.fit import fit, normal

PARENTS = {"a": Continuous()}
ROWS = {"a": normal(20, seed=1)}
SHARED = nn.Parameter(torch.zeros(1))


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
        if spec.mistake == "shares weights":
            self.weight = SHARED
        self.kept = torch.zeros(())
        if spec.mistake == "random but deterministic":
            self.abduction = "posterior"
        if spec.mistake in ("side channel", "abducts by other rows"):
            self.abduction = "approximate"

    def sample_noise(self, n, *, generator):
        if self.spec.mistake == "draws globally":
            generator = None
        scale = 2.0 if self.spec.mistake == "prior" else 1.0
        u = scale * torch.randn(n, generator=generator, dtype=torch.float64)
        more = self.abduction == "approximate"
        return Noise(n, {"u": u, "more": torch.zeros(n, dtype=torch.float64)} if more else {"u": u})

    def generate(self, parents, noise):
        if "more" in noise:
            kept = self.kept if self.spec.mistake == "side channel" and bool(noise["more"].all()) else 0
            value = noise["u"] + kept + (self.spec.mistake != "side channel") * noise["more"]
            return self.slope * parents["a"] + (parents["a"] / 4).exp() * value
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
        if self.spec.mistake == "side channel":
            self.kept = u - u.round()
            return Abducted(Noise(len(u), {"u": u.round(), "more": torch.ones_like(u)}))
        if self.spec.mistake == "abducts by other rows":
            return Abducted(Noise(len(u), {"u": u - u.mean(), "more": u.mean().expand_as(u)}))
        name = "noise" if self.spec.mistake == "leaf names" else "u"
        return Abducted(Noise(len(value), {name: u}))

    def log_prob(self, value, parents):
        right = torch.distributions.Normal(self.slope * parents["a"], (parents["a"] / 4).exp()).log_prob(
            value
        )
        if self.spec.mistake == "density":
            return right + 0.3
        if self.spec.mistake == "jacobian":  # right for the parents of some rows
            return right + parents["a"] / 4 * ~torch.isin(parents["a"], ROWS["a"][[0, 10, 19]])
        return right

    def loss(self, value, parents, *, generator):
        if self.spec.mistake == "changes values in training":
            value.mul_(2)
        if self.spec.mistake == "numpy":
            return -self.log_prob(value, parents) + np.random.random()
        return -self.log_prob(value, parents) + (0 * self.weight).sqrt()

    def distribution(self, parents, rows):
        scale = parents["a"] / 4 + (self.spec.mistake == "distribution")
        return torch.distributions.Normal(self.slope * parents["a"], scale.exp())

    def linear_form(self, unknown, known, rows):
        if unknown:
            return None
        variance = (known["a"] / (4 if self.spec.mistake == "linear form" else 2)).exp()
        return LinearForm({}, self.slope * known["a"][:, None], variance[:, None, None])

    def atomic(self, value, parents):
        return torch.zeros(1 if self.spec.mistake == "atomic" else len(value), dtype=torch.bool)

    def log_prob_of_parents(self, value, parents):
        proposals = len(parents["a"]) // len(value)
        many = (
            value.repeat_interleave(proposals)
            if self.spec.mistake == "proposals"
            else value.repeat(proposals)
        )
        return -(many - self.slope * parents["a"]).square()

    def read(self, value):
        read = value / self.slope
        if self.spec.mistake == "reads other rows":
            read = read - read.mean()
        if self.spec.mistake == "reads in float32":
            read = read.float()
        return {"b" if self.spec.mistake == "reads no parent" else "a": read}


def bound(mistake=""):
    training = Training() if mistake in ("gradient", "changes values in training", "numpy") else None
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
        ("side channel", "'saving'.*values differ"),
        ("abducts by other rows", "'rows'.*abduct, leaf 'u'"),
        ("shares weights", "'saving'.*the same weights in memory"),
        ("changes values in training", "'inputs'.*values were changed"),
        ("distribution", "'other forms'.*distribution"),
        ("linear form", "'other forms'.*linear_form"),
        ("proposals", "'other forms'.*by proposal"),
        ("atomic", "'interface'.*atomic must be"),
    ],
)
def test_each_mistake_is_caught_by_its_law(mistake, law):
    mechanism = bound(mistake)
    if mistake == "forgets its state":
        mechanism.slope.fill_(3.0)
    with pytest.raises(AssertionError, match=f"^Law {law}"):
        check_mechanism(mechanism, *rows())


@pytest.mark.parametrize(("mistake", "law"), [("draws globally", "generator"), ("numpy", "gradients")])
def test_global_draws_are_caught(mistake, law):
    state = np.random.get_state()
    with torch.random.fork_rng(), pytest.raises(AssertionError, match=f"^Law '{law}'"):
        check_mechanism(bound(mistake), *rows())
    np.random.set_state(state)


class Summed(Plugged, frozen=True):
    """x = a + u_1 + u_2, which leaves u_1 - u_2 open: a draw, with a mistake on demand."""

    kind: Literal["summed"] = "summed"

    def make(self, variable: Variable, parents: Mapping[str, Variable]) -> "SummedMechanism":
        return SummedMechanism(self, variable, parents)


@final
class SummedMechanism(Mechanism):
    abduction = "posterior"
    deterministic = False

    def sample_noise(self, n, *, generator):
        return Noise(n, {"u": torch.randn(n, 2, generator=generator, dtype=torch.float64)})

    def generate(self, parents, noise):
        return parents["a"] + noise["u"].sum(1)

    def abduct(self, value, parents, *, generator):
        if self.spec.mistake == "fixed draws":
            generator = torch.Generator().manual_seed(0)
        draw = torch.randn(len(value), generator=generator, dtype=torch.float64) * 2**0.5
        if self.spec.mistake == "follows its parents":
            draw = draw.abs() * parents["a"].sign()
        total = value - parents["a"]
        return Abducted(Noise(len(value), {"u": torch.stack([total + draw, total - draw], 1) / 2}))


@pytest.mark.parametrize(
    ("mistake", "law"),
    [
        ("fixed draws", "'generator'.*ignores its generator"),
        ("follows its parents", "'noise'.*does not follow its prior"),
    ],
)
def test_draws_are_of_the_posterior_of_each_row(mistake, law):
    parents = {"a": torch.linspace(-1, 1, 20, dtype=torch.float64)}
    value = parents["a"] + normal(20, seed=2)
    sound, broken = (Summed(mistake=each).bind(Continuous(), PARENTS) for each in ("", mistake))
    check_mechanism(sound, value, parents)
    with pytest.raises(AssertionError, match=f"^Law {law}"):
        check_mechanism(broken, value, parents)


@pytest.mark.parametrize("factor", [-1.0, 1 / 3])
def test_the_density_of_several_numbers_is_that_of_the_draws(monkeypatch, factor):
    """Its sign, or a mean over the numbers in place of their sum; both once went unnoticed."""
    mechanism = Additive().bind(Continuous(shape=(3,)), PARENTS)
    value = ROWS["a"][:, None] + normal(60, seed=2).reshape(20, 3)
    fit(mechanism, value, ROWS)
    check_mechanism(mechanism, value, ROWS)
    right = mechanism.log_prob
    monkeypatch.setattr(mechanism, "log_prob", lambda value, parents: factor * right(value, parents))
    with pytest.raises(AssertionError, match="^Law 'density'.*denser"):
        check_mechanism(mechanism, value, ROWS)


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
