"""Table mechanisms with image parents: the laws hold, encoders fit any image, what cannot work is refused."""

import pytest
import torch
from torch.testing import assert_close

from causalgen.testing import check_mechanism
from graphs import variables
from graphs.errors import MechanismError
from graphs.variables import Continuous, Image, Integer
from mechanisms.base import Mechanism
from mechanisms.conditioning import Conditioning
from mechanisms.encoders import Strided
from mechanisms.networks import reproducible_initialisation
from mechanisms.registry import dump_mechanism, parse_mechanism
from mechanisms.tables.additive import Additive
from mechanisms.tables.auto import Auto
from mechanisms.tables.categorical import Categorical
from mechanisms.tables.flow import Flow
from tests.mechanisms.fit import codes, fit, normal

N = 40
# Names that a module's own attributes have, among them.
PARENTS = {"type": Image(1, 8, 8), "age": Continuous(), "photo": Image(3, 5, 6)}
ROWS = {
    "type": normal(N, 1, 8, 8, seed=1).clamp(-1, 1).float(),
    "age": 50 + 20 * normal(N, seed=2),
    "photo": normal(N, 3, 5, 6, seed=3).clamp(-1, 1).float(),
}
BRIGHTNESS = ROWS["type"].double().mean((1, 2, 3)) + ROWS["photo"].double()[:, 0].mean((1, 2))
X = 100 + 30 * BRIGHTNESS + 3 * normal(N, seed=4)
SMALL = Strided(channels=(4,), unshuffle=1, cells=2, width=5)


def reader(parents, encoders) -> Conditioning:
    with reproducible_initialisation():
        return Conditioning(parents, encoders=encoders)


def encoded(mechanism: Mechanism) -> Conditioning:
    return next(
        module for module in mechanism.modules() if isinstance(module, Conditioning) and module.encoded
    )


@pytest.mark.parametrize(
    ("spec", "variable", "value"),
    [
        (Additive(function="network"), Continuous(), X),
        (Additive(function="network", encoder=SMALL), Continuous(shape=(2,)), torch.stack([X, -X], 1)),
        (Additive(function="network", noise="spline", encoder=SMALL), Continuous(), X),
        (Additive(function="network", noise="empirical", encoder=SMALL), Continuous(), X),
        (Flow(encoder=SMALL), Continuous(lower=0), X),
        (Flow(encoder=SMALL), Integer(0), X.round()),
        (Categorical(), variables.Categorical(3), codes(3, N)),
        (Categorical(coupling="monotone", encoder=SMALL), variables.Categorical(3), codes(3, N)),
    ],
    ids=["additive", "vector", "spline", "empirical", "flow", "integer", "categorical", "monotone"],
)
def test_laws(spec, variable, value):
    mechanism = spec.bind(variable, PARENTS)
    before = [weight.clone() for weight in encoded(mechanism).encoded.parameters()]
    fit(mechanism, value, ROWS, steps=5)
    changed = [
        not torch.equal(*pair) for pair in zip(before, encoded(mechanism).encoded.parameters(), strict=True)
    ]
    assert all(changed), "encoders are trained with the mechanism"
    check_mechanism(mechanism, value, ROWS)
    assert parse_mechanism(dump_mechanism(spec)) == spec


def test_images_are_columns_in_declared_order():
    encoders = {"type": SMALL, "photo": Strided(channels=(4,), unshuffle=1, width=3)}
    conditioning = reader(PARENTS, encoders)
    conditioning.prepare(ROWS)
    assert conditioning.slices == {"type": slice(0, 5), "age": slice(5, 6), "photo": slice(6, 9)}
    context = conditioning(ROWS)
    assert context.dtype == torch.float64 and context.shape == (N, 9)
    other = conditioning({**ROWS, "photo": ROWS["photo"].flip(0)})
    assert torch.equal(other[:, :6], context[:, :6])
    assert_close(other[:, 6:], context[:, 6:].flip(0))
    blank = conditioning(ROWS, images=False)
    assert torch.equal(blank[:, 5], context[:, 5]) and not blank[:, :5].any() and not blank[:, 6:].any()
    assert conditioning.to(torch.float32)(ROWS).dtype == torch.float32


def test_pixels_are_standardised():
    """What an encoder is given has mean 0 and deviation 1, whatever the contrast of the pictures."""
    seen = []
    for contrast in (1.0, 0.1):
        conditioning = reader({"type": Image(1, 8, 8)}, {"type": SMALL})
        pixels = {"type": 0.3 + contrast * ROWS["type"] / 2}
        conditioning.prepare(pixels)
        conditioning.encoded[0].network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        conditioning(pixels)
    assert seen[0].mean().abs() < 1e-6 and abs(seen[0].std(correction=0) - 1) < 1e-6
    assert_close(seen[1], seen[0], rtol=0, atol=1e-5)


def test_many_rows_are_encoded_some_at_a_time():
    conditioning = reader({"type": Image(1, 8, 8)}, {"type": SMALL})
    whole = conditioning(ROWS)
    conditioning.encoded[0].at_once = 7
    sizes = []
    conditioning.encoded[0].network.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    with torch.no_grad():
        assert_close(conditioning(ROWS), whole.detach())
    assert max(sizes) == 7 and sum(sizes) == N


@pytest.mark.parametrize("side", [(1, 1), (8, 8), (27, 28), (28, 28), (64, 48), (1024, 1024), (5000, 3)])
def test_the_default_encoder_takes_any_size(side):
    spec = Strided.for_size(*side)
    spec.check_size(*side)
    with torch.random.fork_rng(), torch.no_grad():
        network = spec.build(1)
        last = torch.zeros(1, 1, *side)
        assert network(last, torch.tensor([0.02])).shape == (1, spec.features)
    cells = max(side) / spec.unshuffle / 2 ** len(spec.channels)
    assert cells <= 4 or len(spec.channels) == 8


def test_the_start_is_that_without_images():
    """Least squares sees no features of an untrained encoder, which would fit a few rows exactly."""
    flow = Flow(transform="affine").bind(Continuous(), PARENTS)
    alone = Flow(transform="affine").bind(Continuous(), {"age": Continuous()})
    for mechanism, rows in ((flow, ROWS), (alone, {"age": ROWS["age"]})):
        mechanism.prepare(X, rows)
    assert_close(flow.log_prob(X, ROWS), alone.log_prob(X, {"age": ROWS["age"]}))


def test_auto_leaves_linear_candidates_out():
    spec = Auto(encoder=SMALL, training={"epochs": 3})
    labels = [(each.kind, getattr(each, "function", None)) for each in spec.candidates(Continuous(), PARENTS)]
    assert labels == [("additive", "network"), ("flow", None)]
    assert all(
        each.encoder == SMALL and each.training.epochs == 3 for each in spec.candidates(Continuous(), PARENTS)
    )
    assert spec.bind(Continuous(), PARENTS).least_rows == 10
    assert len(Auto().candidates(Continuous(), {"age": Continuous()})) == 5


@pytest.mark.parametrize(
    ("spec", "parents", "message"),
    [
        (Additive(), PARENTS, "Parent 'type' is an image, which a linear function cannot read.*network"),
        (Additive(noise="spline"), PARENTS, "'type' is an image, which a linear"),
        (Additive(function="network", encoder=SMALL), {}, "Option 'encoder' .* there are no parents. Leave"),
        (Flow(encoder=SMALL), {"a": Continuous()}, "Option 'encoder' .* none of 'a' is one"),
        (Auto(encoder=SMALL), {"a": Continuous()}, "Option 'encoder' .* none of 'a' is one"),
        (Flow(encoder=Strided()), {"photo": Image(1, 5, 6)}, "Parent 'photo': .* multiples of 2 .* got 5x6"),
        (Auto(encoder=Strided()), {"photo": Image(1, 5, 6)}, "Parent 'photo': .* multiples of 2 .* got 5x6"),
    ],
)
def test_refusals(spec, parents, message):
    with pytest.raises(MechanismError, match=message):
        spec.bind(Continuous(), parents)


def test_refusals_of_categories():
    with pytest.raises(MechanismError, match="table of logits needs categorical parents.*type"):
        Categorical(logits="table").bind(variables.Categorical(2), PARENTS)
    with pytest.raises(MechanismError, match="Option 'encoder' .* none of 'k' is one"):
        Categorical(encoder=SMALL).bind(variables.Categorical(2), {"k": variables.Categorical(2)})
    with pytest.raises(MechanismError, match=r"'photo' must have shape \(N, 3, 5, 6\), got \(40, 5, 6\)"):
        Flow(encoder=SMALL).bind(Continuous(), PARENTS).prepare(X, {**ROWS, "photo": ROWS["photo"][:, 0]})
