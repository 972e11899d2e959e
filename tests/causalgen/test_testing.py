"""The law suite itself: each law must catch the mechanism that breaks it."""

import math
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
        match self.spec.mistake:
            case "centres each batch":
                u = u - u.mean()
            case "scales with the batch":
                u = u * (1 + 1 / n)
            case "antithetic rows":
                u = torch.cat([u[: n - n // 2], -u[: n // 2]])
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
        if self.spec.mistake == "rare rows":
            u = u - 1e-3 * (u > 3)
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
        ("rare rows", "'noise'.*generated values came back changed"),
        ("centres each batch", "'batches'.*drawn alone has another law"),
        ("scales with the batch", "'batches'.*drawn alone has another law"),
        ("antithetic rows", "'batches'.*rank correlation of -1"),
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
        if self.spec.mistake == "wider at the ends":  # alike in both halves of the rows, and right on average
            draw = draw * torch.where(parents["a"].abs() > 0.5, 1.3, 0.55)
        total = value - parents["a"]
        return Abducted(Noise(len(value), {"u": torch.stack([total + draw, total - draw], 1) / 2}))


@pytest.mark.parametrize(
    ("mistake", "law"),
    [
        ("fixed draws", "'generator'.*ignores its generator"),
        ("follows its parents", "'noise'.*does not follow its prior"),
        ("wider at the ends", "'noise'.*given the parents and the value"),
    ],
)
def test_draws_are_of_the_posterior_of_each_row(mistake, law):
    parents = {"a": torch.linspace(-1, 1, 20, dtype=torch.float64)}
    value = parents["a"] + normal(20, seed=2)
    sound, broken = (Summed(mistake=each).bind(Continuous(), PARENTS) for each in ("", mistake))
    check_mechanism(sound, value, parents)
    with pytest.raises(AssertionError, match=f"^Law {law}"):
        check_mechanism(broken, value, parents)


class Gated(Plugged, frozen=True):
    """x = 0 by a gate that follows a, else exp(a / 2 + v): an atom beside a density."""

    kind: Literal["gated"] = "gated"

    def make(self, variable: Variable, parents: Mapping[str, Variable]) -> "GatedMechanism":
        return GatedMechanism(self, variable, parents)


@final
class GatedMechanism(Mechanism):
    abduction = "posterior"
    deterministic = False

    def sample_noise(self, n, *, generator):
        u = torch.rand(n, generator=generator, dtype=torch.float64)
        return Noise(n, {"u": u, "v": torch.randn(n, generator=generator, dtype=torch.float64)})

    def generate(self, parents, noise):
        a = parents["a"]
        return torch.where(noise["u"] < a.sigmoid() / 2, 0.0, (a / 2 + noise["v"]).exp())

    def abduct(self, value, parents, *, generator):
        drawn, zero = self.sample_noise(len(value), generator=generator), value == 0
        share = parents["a"].sigmoid() / 2
        u = torch.where(zero, share * drawn["u"], share + (1 - share) * drawn["u"])
        return Abducted(
            Noise(len(u), {"u": u, "v": torch.where(zero, drawn["v"], self.size(value, parents))})
        )

    def size(self, value, parents):
        return value.clamp(min=1e-300).log() - parents["a"] / 2

    def log_prob(self, value, parents):
        share = parents["a"].sigmoid() / 2
        if self.spec.mistake == "forgets its parent":  # but not that of the first row
            share = torch.full_like(share, 0.25)
        size = torch.distributions.Normal(0.0, 1.0).log_prob(self.size(value, parents))
        if self.spec.mistake != "in logarithms":
            size = size - value.clamp(min=1e-300).log()
        return torch.where(value == 0, share.log(), (1 - share).log() + size).double()

    def atomic(self, value, parents):
        return None if self.spec.mistake == "no atoms" else value == 0


@pytest.mark.parametrize(
    ("mistake", "law"),
    [
        ("no atoms", "'density'.*let atomic tell the rows"),
        ("in logarithms", "'density'.*do not follow log_prob"),
        ("forgets its parent", "'density'.*row 10.*do not follow log_prob"),
    ],
)
def test_an_atom_beside_a_density_is_no_mistake(mistake, law):
    parents = {"a": torch.linspace(0, 2, 20, dtype=torch.float64)}
    sound, broken = (Gated(mistake=each).bind(Continuous(lower=0), PARENTS) for each in ("", mistake))
    noise = sound.sample_noise(20, generator=torch.Generator().manual_seed(3))
    value = sound.generate(parents, noise)
    check_mechanism(sound, value, parents)
    with pytest.raises(AssertionError, match=f"^Law {law}"):
        check_mechanism(broken, value, parents)


class Paired(Plugged, frozen=True):
    """Two numbers that go together, x = a + (u, 3 u + v)."""

    kind: Literal["paired"] = "paired"

    def make(self, variable: Variable, parents: Mapping[str, Variable]) -> "PairedMechanism":
        return PairedMechanism(self, variable, parents)


@final
class PairedMechanism(Mechanism):
    abduction = "exact"
    deterministic = True

    def sample_noise(self, n, *, generator):
        return Noise(n, {"u": torch.randn(n, 2, generator=generator, dtype=torch.float64)})

    def generate(self, parents, noise):
        u, v = noise["u"].unbind(1)
        return parents["a"][:, None] + torch.stack([u, 3 * u + v], 1)

    def abduct(self, value, parents, *, generator):
        u, x = (value - parents["a"][:, None]).unbind(1)
        return Abducted(Noise(len(value), {"u": torch.stack([u, x - 3 * u], 1)}))

    def log_prob(self, value, parents):
        spread = [[1.0, 3.0], [3.0, 10.0]] if self.spec.mistake != "independent" else [[1.0, 0], [0, 10.0]]
        law = torch.distributions.MultivariateNormal(torch.zeros(2), torch.tensor(spread))
        found = law.log_prob((value - parents["a"][:, None]).float()).double()
        # Of a number in units of its deviation, without the logarithm of these.
        return found + (math.log(10) / 2 if self.spec.mistake == "standardised" else 0)


@pytest.mark.parametrize(
    ("mistake", "words"), [("standardised", "adds up to 3.*not to 1"), ("independent", "a quadrant of two")]
)
def test_the_density_of_several_numbers_adds_up_and_knows_how_they_go_together(mistake, words):
    sound, broken = (Paired(mistake=each).bind(Continuous(shape=(2,)), PARENTS) for each in ("", mistake))
    noise = sound.sample_noise(20, generator=torch.Generator().manual_seed(3))
    check_mechanism(sound, sound.generate(ROWS, noise), ROWS)
    with pytest.raises(AssertionError, match=f"^Law 'density'.*{words}"):
        check_mechanism(broken, sound.generate(ROWS, noise), ROWS)


class Lifetimes(Plugged, frozen=True):
    kind: Literal["lifetimes"] = "lifetimes"

    def make(self, variable: Variable, parents: Mapping[str, Variable]) -> "LifetimesMechanism":
        return LifetimesMechanism(self, variable, parents)


@final
class LifetimesMechanism(Mechanism):
    """Two lifetimes of rate exp(-a), by a law of torch's, which raises where its support ends."""

    abduction = "exact"
    deterministic = True

    def sample_noise(self, n, *, generator):
        return Noise(n, {"u": -torch.rand(n, 2, generator=generator, dtype=torch.float64).log()})

    def generate(self, parents, noise):
        return noise["u"] * parents["a"].exp()[:, None]

    def abduct(self, value, parents, *, generator):
        return Abducted(Noise(len(value), {"u": value / parents["a"].exp()[:, None]}))

    def log_prob(self, value, parents):
        law = torch.distributions.Exponential((-parents["a"]).exp()[:, None], validate_args=True)
        return law.log_prob(value).sum(1)


def test_the_density_of_numbers_with_bounds_is_asked_of_values_within_them():
    bounded, free = (Lifetimes().bind(Continuous(lower, shape=(2,)), PARENTS) for lower in (0, None))
    value = bounded.generate(ROWS, bounded.sample_noise(20, generator=torch.Generator().manual_seed(3)))
    check_mechanism(bounded, value, ROWS)
    with pytest.raises(AssertionError, match="^Law 'density'.*where -inf is due"):
        check_mechanism(free, value, ROWS)


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


def test_draws_may_leave_the_bounds_of_several_numbers():
    """Normal noise knows none."""
    mechanism = Additive().bind(Continuous(0, shape=(2,)), PARENTS)
    value = ROWS["a"][:, None] + normal(40, seed=2).reshape(20, 2)
    fit(mechanism, value - value.min(), ROWS)
    check_mechanism(mechanism, value - value.min(), ROWS)


def test_values_need_no_gradients(monkeypatch):
    mechanism = bound()
    generate = torch.no_grad()(mechanism.generate)
    monkeypatch.setattr(mechanism, "generate", generate)
    check_mechanism(mechanism, *rows())


def test_what_a_plug_in_raises_is_told_with_the_law():
    """As a state whose shape follows the rows, which saves, and loads nowhere."""
    mechanism = bound()
    mechanism.weight = nn.Parameter(torch.zeros(20))
    with pytest.raises(AssertionError, match=r"(?s)^Law 'saving'.*RuntimeError.*size mismatch for weight"):
        check_mechanism(mechanism, *rows())


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
