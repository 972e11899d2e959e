"""The diffusion mechanism with a small untrained network: the laws of the protocol."""

import math

import pytest
import torch
from torch import Tensor

from causalgen.testing import check_mechanism
from graphs.errors import CannotAbductError, DomainError, MechanismError
from graphs.variables import Categorical, Continuous, Image
from mechanisms.base import Noise
from mechanisms.diffusion.anticausal import Anticausal
from mechanisms.diffusion.backbones import UNet
from mechanisms.diffusion.guidance import ClassifierFree
from mechanisms.diffusion.mechanism import Diffusion, DiffusionMechanism
from mechanisms.diffusion.predictor import ResNet, guided_levels
from mechanisms.diffusion.schedule import DDPMGrid, LogGrid
from mechanisms.diffusion.solvers import BELM, DDIM, DDPM, Anchored

SMALL = {"backbone": UNet(channels=(8, 8), unshuffle=1), "predictor": ResNet(channels=(8,), unshuffle=1)}
PARENTS = {"digit": Categorical(3), "mask": Image(1, 4, 4), "size": Continuous(shape=(2,))}


def untrained(parents=PARENTS, **options) -> DiffusionMechanism:
    """A small random network."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mechanism = Diffusion(**{**SMALL, **options}).bind(Image(1, 4, 4), parents)
    mechanism.prepare(*draws(12, parents))
    assert isinstance(mechanism, DiffusionMechanism)
    return mechanism.eval()


def draws(n: int, parents=PARENTS, seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(n, 2, 4, 4, generator=generator)
    values = {
        "digit": (torch.arange(n) + seed) % 3,
        "mask": normal[:, 1:].clamp(-1, 1),
        "size": 5 + normal[:, 0, 0, :2].double(),
        "shade": normal[:, 0, 0, 2].double(),
    }
    return (0.4 * normal[:, :1]).clamp(-1, 1), {name: values[name] for name in parents}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


SOLVERS = [
    DDIM(steps=6),
    Anchored(steps=6),
    Anchored(steps=6, residuals=False),
    BELM(steps=6, max_spread=1e6),
    DDPM(steps=6),
]
GUIDANCE = [
    ClassifierFree(weight=2.0),
    Anticausal(),
    Anticausal(denoiser="unconditional"),
    Anticausal(form="raw", denoiser="unconditional"),
    ClassifierFree(corrections=1),
    Anticausal(denoiser="counterfactual"),
    ClassifierFree(against="hidden", weight=2.0),
]


def test_an_error_names_the_row_that_was_given_where_equal_rows_are_inverted_once():
    mechanism, (value, parents) = untrained(), draws(2)
    index = torch.tensor([1, 1, 1, 1, 0, 1])
    value, parents = value[index], {name: each[index] for name, each in parents.items()}
    parents["size"][4] = 1e9
    with pytest.raises(DomainError, match="Parent 'size': row 4 is 1e"):
        mechanism.abduct(value, parents, generator=seeded())


@pytest.mark.parametrize(
    ("solver", "guidance"),
    [(SOLVERS[1], each) for each in (*GUIDANCE[:3], *GUIDANCE[4:])]
    + [(SOLVERS[3], each) for each in GUIDANCE[:2]]
    + [(Anchored(steps=6, thresholding=True), each) for each in (GUIDANCE[0], GUIDANCE[-1])],
    ids=lambda option: option.kind,
)
def test_null_interventions_return_the_image(solver, guidance):
    mechanism, (value, parents) = untrained(solver=solver, guidance=guidance), draws(5)
    noise = mechanism.abduct(value, parents, generator=seeded()).noise
    found = mechanism.generate(parents, noise)
    assert found.dtype == torch.float32 and found.shape == value.shape
    torch.testing.assert_close(found, value, rtol=0, atol=1e-4)


@pytest.mark.parametrize("guidance", [*GUIDANCE[:3], *GUIDANCE[4:]], ids=lambda g: g.kind)
@pytest.mark.parametrize("solver", [SOLVERS[1], SOLVERS[3]], ids=lambda s: s.kind)
@pytest.mark.parametrize("abduction", ["point", "posterior"])
def test_null_interventions_of_centred_noise_return_the_image(solver, guidance, abduction):
    if solver.needs_conditional and "conditional" not in guidance.needs:
        pytest.skip("refused")
    mechanism = untrained(solver=solver, guidance=guidance, abduction=abduction, centred=True)
    value, parents = draws(5)
    noise = mechanism.abduct(value, parents, generator=seeded()).noise
    torch.testing.assert_close(mechanism.generate(parents, noise), value, rtol=0, atol=1e-4)


@pytest.mark.parametrize("guidance", GUIDANCE, ids=lambda g: g.kind)
def test_every_parent_moves_the_image(guidance):
    mechanism, (value, parents) = untrained(guidance=guidance), draws(5)
    noise = mechanism.abduct(value, parents, generator=seeded()).noise
    null = mechanism.generate(parents, noise)
    for name, other in draws(5, seed=1)[1].items():
        moved = mechanism.generate({**parents, name: other}, noise)
        assert (moved - null).flatten(1).abs().amax(1).min() > 1e-4, name


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.kind)
def test_prior_and_abducted_noise_have_the_same_leaves(solver):
    mechanism, (value, parents) = untrained(solver=solver), draws(5)
    prior = mechanism.sample_noise(5, generator=seeded())
    assert not prior["known"].any()
    assert mechanism.generate(parents, prior).shape == value.shape
    if mechanism.abduction == "none":
        return
    found = mechanism.abduct(value, parents, generator=seeded()).noise
    assert bool(found["known"].all())
    assert {name: (leaf.shape, leaf.dtype) for name, leaf in prior.items()} == {
        name: (leaf.shape, leaf.dtype) for name, leaf in found.items()
    }
    assert prior.get("residuals", torch.zeros(1)).abs().max() == 0


@pytest.mark.parametrize("guidance", GUIDANCE, ids=lambda g: g.kind)
def test_rows_do_not_depend_on_their_batch(guidance):
    mechanism, (value, parents) = untrained(guidance=guidance), draws(6)
    other = draws(6, seed=1)[1]
    abducted = mechanism.abduct(value, parents, generator=seeded()).noise
    # Abducted rows and prior samples in one batch.
    noise = Noise.concat([abducted.rows(slice(0, 3)), mechanism.sample_noise(3, generator=seeded())])
    together = mechanism.generate(other, noise)
    for row in range(6):
        one = {name: each[row, None] for name, each in parents.items()}
        asked = {name: each[row, None] for name, each in other.items()}
        alone = mechanism.abduct(value[row, None], one, generator=seeded()).noise
        torch.testing.assert_close(alone["x_T"], abducted["x_T"][row, None], rtol=1e-4, atol=1e-4)
        found = mechanism.generate(asked, noise.rows(slice(row, row + 1)))
        torch.testing.assert_close(found, together[row, None], rtol=1e-3, atol=1e-3)


def test_the_generator_alone_decides():
    mechanism, (_, parents) = untrained(solver=DDPM(steps=6)), draws(4)
    first, again, other = (mechanism.sample_noise(4, generator=seeded(s)) for s in (1, 1, 2))
    torch.testing.assert_close(dict(first), dict(again), rtol=0, atol=0)
    assert not torch.equal(first["x_T"], other["x_T"])
    assert first["residuals"].std().item() == pytest.approx(1, abs=0.1)  # fresh noise at every step
    torch.testing.assert_close(mechanism.generate(parents, first), mechanism.generate(parents, again))


def test_the_loss_is_the_generators_alone_and_trains_everything():
    mechanism, (value, parents) = untrained(), draws(6)
    mechanism.train()
    loss, again = (mechanism.loss(value, parents, generator=seeded(3)) for _ in range(2))
    torch.testing.assert_close(loss, again, rtol=0, atol=0)
    assert loss.shape == (6,)
    loss.sum().backward()
    for name, parameter in mechanism.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name


def test_denoiser_and_predictor_share_nothing():
    value, parents = draws(6)
    with_predictor, without = untrained(), untrained(predictor=None)
    without.denoiser.load_state_dict(with_predictor.denoiser.state_dict())
    losses = [m.loss(value, parents, generator=seeded(3)) for m in (with_predictor, without)]
    shown = {id(p) for p in with_predictor.denoiser.parameters()}
    assert without.predictor is None and not shown & {id(p) for p in with_predictor.predictor.parameters()}
    # What the predictor adds does not reach the denoiser.
    gradients = [
        torch.autograd.grad(loss.sum(), list(m.denoiser.parameters()))
        for loss, m in zip(losses, (with_predictor, without), strict=True)
    ]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_predictors_train_on_the_levels_they_guide_on_and_a_third_on_the_lowest():
    mechanism = untrained(solver=Anchored(grid=LogGrid(sigma_min=0.1, sigma_max=5)))
    levels = guided_levels(mechanism.spec.solver.levels(), 3000, generator=seeded()).log()
    lowest = levels == levels.min()
    assert levels.min() == pytest.approx(math.log(0.1)) and 999 <= lowest.sum() <= 1001
    above = levels[~lowest].sort().values
    assert above[0] < math.log(0.101) and math.log(4.9) < above[-1] <= math.log(5)
    assert above.diff().max() < 2 * math.log(50) / 2000  # log-uniform
    assert torch.corrcoef(torch.stack([levels, torch.arange(3000.0)]))[0, 1].abs() < 0.1  # in no order


def test_validation_names_each_cause_with_what_guessing_achieves():
    mechanism, (value, parents) = untrained(), draws(7)
    figures = mechanism.validate(value, parents, generator=seeded())
    assert set(figures) == {"digit accuracy", "digit chance", "size error", "size chance"}
    assert figures["digit chance"] == pytest.approx(3 / 7)
    assert 0 <= figures["digit accuracy"] <= 1 and figures["size error"] > 0
    assert untrained(predictor=None).validate(value, parents, generator=seeded()) == {}


@pytest.mark.parametrize("parents", [{}, {"mask": Image(1, 4, 4)}], ids=["root", "image parent"])
@pytest.mark.parametrize("guidance", GUIDANCE[:4], ids=lambda g: g.kind)
def test_an_image_without_a_cause_to_predict(parents, guidance):
    mechanism, (value, given) = untrained(parents, guidance=guidance), draws(4, parents)
    assert mechanism.predictor is None
    noise = mechanism.abduct(value, given, generator=seeded()).noise
    torch.testing.assert_close(mechanism.generate(given, noise), value, rtol=0, atol=1e-4)
    assert mechanism.generate(given, mechanism.sample_noise(4, generator=seeded())).isfinite().all()
    assert mechanism.loss(value, given, generator=seeded()).shape == (4,)
    for name, other in draws(4, parents, seed=1)[1].items():
        assert (mechanism.generate({name: other}, noise) - value).abs().max() > 1e-4


def test_image_parents_of_any_size_and_number():
    parents = {
        "large": Image(3, 9, 12),
        "digit": Categorical(3),
        "flat": Image(1, 2, 6),
        "same": Image(1, 4, 4),
    }
    generator = seeded(1)
    given = {
        name: torch.rand(4, *parent.event_shape, generator=generator) * 2 - 1
        for name, parent in parents.items()
        if isinstance(parent, Image)
    }
    value, given = draws(4, {})[0], given | {"digit": torch.arange(4) % 3}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mechanism = Diffusion(**SMALL).bind(Image(1, 4, 4), parents)
    mechanism.prepare(value, given)
    mechanism.eval()
    noise = mechanism.abduct(value, given, generator=seeded()).noise
    torch.testing.assert_close(mechanism.generate(given, noise), value, rtol=0, atol=1e-4)
    assert mechanism.generate(given, mechanism.sample_noise(4, generator=seeded())).isfinite().all()
    mechanism.loss(value, given, generator=seeded()).mean().backward()
    for name in ("large", "flat", "same"):
        moved = mechanism.generate({**given, name: -given[name]}, noise)
        assert (moved - value).flatten(1).abs().amax(1).min() > 1e-5


def test_weights_serve_every_solver_and_guidance():
    mechanism, (value, parents) = untrained(), draws(4)
    other = untrained(solver=DDIM(steps=4, grid=DDPMGrid()), guidance=GUIDANCE[3])
    other.load_state_dict(mechanism.state_dict())
    noise = other.abduct(value, parents, generator=seeded()).noise
    assert other.generate(parents, noise).isfinite().all()


def test_what_it_says_of_itself():
    mechanism = untrained()
    assert (mechanism.abduction, mechanism.deterministic, mechanism.fitted) == ("approximate", True, False)
    assert mechanism.log_prob(*draws(2)) is None
    assert untrained(solver=DDPM()).abduction == "none"
    assert Diffusion().bind(Image(1, 28, 28), {}).chunk_rows == 128


def test_ddpm_refuses_abduction_and_says_what_to_do():
    with pytest.raises(
        CannotAbductError, match=r'recover an image.*with_options\(node, solver={"kind": "anchored"}'
    ):
        untrained(solver=DDPM()).abduct(*draws(2), generator=seeded())


LAWFUL = [
    {"solver": SOLVERS[1]},
    {"solver": SOLVERS[3]},
    {"solver": SOLVERS[4]},
    *({"guidance": GUIDANCE[k], "solver": Anchored(steps=3)} for k in (1, 2, 4, 5)),
]
# First order, or second without residuals, returns an image only roughly; raw guidance moves it always.
ROUGH = [
    {"solver": SOLVERS[0]},
    {"solver": SOLVERS[2]},
    {"guidance": GUIDANCE[3], "solver": Anchored(steps=3)},
]


@pytest.mark.parametrize("options", LAWFUL)
def test_it_keeps_the_laws_of_mechanisms(options):
    mechanism = untrained(**options)
    mechanism.mark_fitted()
    check_mechanism(mechanism, *draws(4))


@pytest.mark.parametrize("options", ROUGH)
def test_some_options_give_up_the_round_trip(options):
    mechanism = untrained(**options)
    mechanism.mark_fitted()
    with pytest.raises(AssertionError, match="Law 'round trip'"):
        check_mechanism(mechanism, *draws(4))


@pytest.mark.parametrize("value", [1e40, -1e300, math.inf, math.nan])
@pytest.mark.parametrize("abduction", ["point", "posterior"])
def test_parents_beyond_float32_are_refused_by_name(value, abduction):
    parents = {"digit": Categorical(3), "shade": Continuous()}
    mechanism, (image, given) = untrained(parents, abduction=abduction), draws(4, parents)
    asked = {**given, "shade": given["shade"].clone()}
    asked["shade"][2] = value
    noise = mechanism.abduct(image, given, generator=seeded()).noise
    message = r"Parent 'shade': row 2 is .* standard deviations from the mean in fitting.*Check its unit"
    with pytest.raises(DomainError, match=message):
        mechanism.generate(asked, noise)
    with pytest.raises(DomainError, match=message):
        mechanism.abduct(image, asked, generator=seeded())


def test_an_answer_that_is_not_finite_is_refused():
    mechanism, (image, parents) = untrained(), draws(4)
    noise = mechanism.abduct(image, parents, generator=seeded()).noise
    with torch.no_grad():
        next(mechanism.denoiser.network.parameters()).fill_(math.nan)
    with pytest.raises(
        MechanismError, match=r"The image of row 0 is not finite under digit = 0: parents far"
    ):
        mechanism.generate(parents, noise)
    with pytest.raises(MechanismError, match=r"The noise of row 0 is not finite"):
        mechanism.abduct(image, parents, generator=seeded())
