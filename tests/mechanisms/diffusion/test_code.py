"""The style code: noise that stays under interventions, its prior, and its independence of the parents."""

import math

import numpy as np
import pytest
import torch

from graphs.errors import MechanismError, SpecError
from graphs.variables import Categorical, Continuous, Image
from mechanisms.diffusion.anticausal import Anticausal
from mechanisms.diffusion.code import Code, StyleCode
from mechanisms.diffusion.code_training import CodeTraining, told
from mechanisms.diffusion.guidance import ClassifierFree
from mechanisms.diffusion.mechanism import Diffusion
from mechanisms.diffusion.solvers import BELM, DDIM, Anchored
from mechanisms.encoders import Strided
from mechanisms.options import start_from, with_options
from mechanisms.training import Training
from tests.mechanisms.diffusion.stages import SHORT, Stop, fit_counted, same_weights
from tests.mechanisms.diffusion.test_mechanism import SMALL, draws, seeded, untrained

PARENTS = {"digit": Categorical(3), "shade": Continuous()}
ENCODER = Strided(channels=(4,), unshuffle=1, cells=2, width=8)
CODE = Code(width=2, nats=3.0, encoder=ENCODER)
SPREAD = math.exp(-1.5)
"""exp(-nats / width)."""


def coded(**options):
    return untrained(PARENTS, code=CODE, **options)


@pytest.mark.parametrize("abduction", ["point", "posterior"])
@pytest.mark.parametrize(
    "options",
    [
        {"solver": Anchored(steps=6)},
        {"solver": BELM(steps=6, max_spread=1e6)},
        {"solver": Anchored(steps=6), "guidance": ClassifierFree(against="hidden", weight=2.0)},
        {"solver": Anchored(steps=6), "guidance": ClassifierFree(weight="auto")},
        {"solver": Anchored(steps=6), "guidance": Anticausal()},
        {"solver": Anchored(steps=6), "guidance": Anticausal(denoiser="unconditional")},
    ],
    ids=["anchored", "belm", "hidden", "auto", "anticausal", "unconditional"],
)
def test_nulls_return_the_image_and_the_code_stays(abduction, options):
    mechanism, (value, parents) = coded(abduction=abduction, **options), draws(5, PARENTS)
    noise = mechanism.abduct(value, parents, generator=seeded()).noise
    code = noise["code"].clone()
    torch.testing.assert_close(mechanism.generate(parents, noise), value, rtol=0, atol=1e-4)
    mechanism.generate(draws(5, PARENTS, seed=1)[1], noise)
    assert torch.equal(noise["code"], code)


@pytest.mark.parametrize("rows", [1, 2])
def test_codes_of_as_many_rows_as_numbers_are_refused(rows):
    """Their covariance is singular: the map to the prior was NaN, blamed on outliers."""
    mechanism, (value, parents) = coded(), draws(rows, PARENTS)
    with pytest.raises(MechanismError, match=f"of 2 numbers needs at least 3 training rows, got {rows}"):
        mechanism.code.settle(value, parents, 8, generator=seeded())


def test_images_depend_on_the_code_and_only_the_posterior_draws_it():
    value, parents = draws(4, PARENTS)
    point, drawn = coded(), coded(abduction="posterior")
    leaf = point.abduct(value, parents, generator=seeded(1)).noise["code"]
    assert torch.equal(leaf, point.abduct(value, parents, generator=seeded(2)).noise["code"])
    mean = point.code.from_prior(leaf)
    many = {name: each.repeat_interleave(2000, 0) for name, each in parents.items()}
    draw = drawn.code.around(drawn.code.mean(value.repeat_interleave(2000, 0), many), generator=seeded())
    error = (draw - mean.repeat_interleave(2000, 0)).detach().view(4, 2000, 2)
    assert error.mean(1).abs().max() < 5 * SPREAD / 2000**0.5
    assert (error.std(1) / SPREAD - 1).abs().max() < 0.08
    noise = point.abduct(value, parents, generator=seeded()).noise
    moved = type(noise)(noise.n, {**noise.leaves, "code": noise["code"] + 1})
    assert not torch.allclose(point.generate(parents, moved), value, atol=1e-3)


@pytest.mark.parametrize("abduction", ["point", "posterior"])
def test_prior_noise_has_the_same_leaves(abduction):
    mechanism, (value, parents) = coded(abduction=abduction, solver=DDIM(steps=4)), draws(5, PARENTS)
    prior = mechanism.sample_noise(5, generator=seeded())
    found = mechanism.abduct(value, parents, generator=seeded()).noise
    assert {name: (leaf.shape, leaf.dtype) for name, leaf in prior.items()} == {
        name: (leaf.shape, leaf.dtype) for name, leaf in found.items()
    }
    code = mechanism.sample_noise(20_000, generator=seeded())["code"]
    assert code.T.cov().numpy() == pytest.approx(torch.eye(2).numpy(), abs=0.05)


def test_a_hidden_code_is_no_noise_and_the_same_weights_serve():
    mechanism, (value, parents) = coded(), draws(4, PARENTS)
    hidden = with_options("x", mechanism, {"code": {"hidden": True}})
    noise = hidden.abduct(value, parents, generator=seeded()).noise
    assert "code" not in noise and "code" not in hidden.sample_noise(2, generator=seeded())
    torch.testing.assert_close(hidden.generate(parents, noise), value, rtol=0, atol=1e-4)
    seen, unseen = (
        each.abduct(value, parents, generator=seeded()).noise["x_T"] for each in (mechanism, hidden)
    )
    assert not torch.allclose(seen, unseen)
    with pytest.raises(MechanismError, match="need other weights"):
        with_options("x", untrained(PARENTS), {"code": {"encoder": {"unshuffle": 1}}})


def test_settled_codes_are_standard_normal_over_the_training_rows():
    mechanism, (value, parents) = coded(), draws(3000, PARENTS)
    mechanism._chunk = 50
    mechanism.train()  # as the training loop leaves it
    mechanism.first_stage().finish(value, parents)
    with torch.no_grad():
        mean = mechanism.eval().code.mean(value, parents)
        leaf = mechanism.code.to_prior(mechanism.code.around(mean, generator=seeded(3))).double()
    assert mean.double().var(0).numpy() == pytest.approx(1 - SPREAD**2, rel=0.01)
    assert leaf.T.cov().numpy() == pytest.approx(torch.eye(2).numpy(), abs=0.08)
    ranks = (torch.arange(3000) + 0.5) / 3000
    # Twice the 99 % point of Kolmogorov's statistic: draws anew of the rows that the map was fitted on.
    for column in leaf.T:
        assert (torch.special.ndtr(column.sort().values) - ranks).abs().max() < 2 * 1.63 / 3000**0.5


def test_the_map_to_the_prior_has_its_inverse_in_the_tails_too():
    mechanism, (value, parents) = coded(), draws(500, PARENTS)
    mechanism.first_stage().finish(value, parents)
    leaf = 6 * torch.randn(500, 2, generator=seeded(4))
    back = mechanism.code.to_prior(mechanism.code.from_prior(leaf))
    torch.testing.assert_close(back, leaf, rtol=1e-3, atol=1e-3)


def _alone(parents) -> CodeTraining:
    image, spec = Image(1, 4, 4), Code(width=2, encoder=ENCODER)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CodeTraining(StyleCode(image, parents, spec), image, independence=1.0, chunk_rows=64)


def _pairs(n: int, strength: float):
    """Codes whose first number is correlated with the shade."""
    generator = seeded(5)
    normal = torch.randn(n, 3, generator=generator)
    shade = strength * normal[:, 0] + (1 - strength**2) ** 0.5 * normal[:, 2]
    return normal[:, :2], {"digit": torch.arange(n) % 3, "shade": shade.double()}


@pytest.mark.parametrize("strength", [0.0, 0.9])
def test_dependence_is_the_share_of_the_variance_that_a_regression_explains(strength):
    code = _alone({"shade": Continuous()})
    rows, parents = _pairs(3000, strength)
    code.code.prepare(torch.zeros(3000, 1, 4, 4), {"shade": parents["shade"]})
    code._groups = code._groups[:1]  # the shade's own, without the features of the joint law
    code.dependence(rows[:1024], {"shade": parents["shade"][:1024]})
    paid = code.dependence(rows[1024:], {"shade": parents["shade"][1024:]}).mean()
    # What is drawn from the prior pays nothing for its law; ridge regression shrinks a little.
    assert float(paid) == pytest.approx(strength**2, abs=0.06)


def test_several_parents_cost_a_code_as_much_as_one_on_average():
    code, (rows, parents) = _alone({"digit": Categorical(3), "shade": Continuous()}), _pairs(3000, 0.9)
    code.code.prepare(torch.zeros(3000, 1, 4, 4), parents)
    early, late = (
        {name: each[part] for name, each in parents.items()} for part in (slice(1024), slice(1024, None))
    )
    groups, paid = code._groups, []
    assert len(groups) == 3  # each parent's, and that of both jointly
    for some in (*([group] for group in groups), groups):
        code._groups = list(some)
        code.dependence(rows[:1024], early)  # they become the recent ones
        paid.append(float(code.dependence(rows[1024:], late).mean()))
    law = paid[0]  # the digit is told by nothing, so this is what the codes' law costs
    assert abs(law) < 0.06 and paid[1] > 0.7
    assert paid[3] - law == pytest.approx(sum(each - law for each in paid[:3]) / 3, abs=1e-5)


def test_codes_of_another_law_than_the_prior_pay_for_it():
    code = _alone({"digit": Categorical(3)})
    digit = {"digit": torch.arange(1500) % 3}
    code.code.prepare(torch.zeros(1500, 1, 4, 4), digit)
    normal = torch.randn(1500, 2, generator=seeded(1))
    paid = []
    for rows in (normal, normal * 0.3, normal[:, :1].expand(-1, 2)):
        code.dependence(rows, digit)  # they become the recent ones
        paid.append(float(code.dependence(rows, digit).mean()))
    good, narrow, repeated = paid
    assert narrow > good + 0.1 and repeated > good + 0.03


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_numbers_that_say_the_same_again_pay_for_it(correlation):
    code = _alone({"shade": Continuous()})
    normal = torch.randn(4000, 2, generator=seeded(1))
    second = correlation * normal[:, 0] + (1 - correlation**2) ** 0.5 * normal[:, 1]
    rows = torch.stack([normal[:, 0], second], 1)
    # Of two numbers the sum over i != j of C_ij^2 is twice the squared correlation; a tenth of it, a number.
    assert float(code.repetition(3 * rows + 1)) == pytest.approx(0.1 * correlation**2, abs=0.005)
    assert float(code.repetition(rows[:1])) == 0.0


def test_a_probe_tells_what_codes_tell_and_nothing_else():
    variables = {"digit": Categorical(3), "shade": Continuous()}
    rows, parents = _pairs(600, 0.0)
    for name, variable in variables.items():
        assert told(rows, parents[name], variable)[2] < 2
    shifted = rows + 4 * torch.nn.functional.one_hot(parents["digit"], 3)[:, :2]
    accuracy, chance, errors = told(shifted, parents["digit"], variables["digit"])
    assert accuracy > 0.9 and chance == pytest.approx(1 / 3, abs=0.01) and errors > 10
    by_label = parents["digit"].argsort()  # as files often are
    in_order = told(shifted[by_label], parents["digit"][by_label], variables["digit"])
    assert in_order[0] > 0.9 and in_order[2] > 10
    rows, parents = _pairs(600, 0.9)
    error, chance, errors = told(rows, parents["shade"], variables["shade"])
    # E|N(0, 1)| is .80; what is left of it has a standard deviation of .44.
    assert chance == pytest.approx(0.8, abs=0.08) and error == pytest.approx(0.35, abs=0.06) and errors > 10


def test_training_starts_from_a_model_without_a_code_and_nothing_has_changed_yet():
    earlier, later = untrained(PARENTS), coded()
    start_from("x", later, earlier)
    value, parents = draws(4, PARENTS)
    noise = earlier.abduct(value, parents, generator=seeded()).noise
    expected = earlier.generate(draws(4, PARENTS, seed=1)[1], noise)
    for each in (later, with_options("x", later, {"code": {"hidden": True}})):
        found = each.abduct(value, parents, generator=seeded()).noise
        torch.testing.assert_close(found["x_T"], noise["x_T"], rtol=1e-4, atol=1e-4)
        made = each.generate(draws(4, PARENTS, seed=1)[1], found)
        torch.testing.assert_close(made, expected, rtol=1e-3, atol=1e-3)


def test_a_code_of_another_width_begins_anew_unless_it_should_stay():
    earlier, wider = coded(), CODE.model_copy(update={"width": 3})
    later, fresh = (untrained(PARENTS, code=wider) for _ in range(2))
    start_from("x", later, earlier)
    assert same_weights(later.code, fresh.code) and same_weights(later.predictor, earlier.predictor)
    known = dict(earlier.denoiser.named_parameters())
    for name, weight in later.denoiser.named_parameters():
        assert torch.equal(weight[:, : known[name].shape[1]] if weight.ndim == 2 else weight, known[name])
    kept = untrained(PARENTS, code=wider.model_copy(update={"training": None}))
    with pytest.raises(MechanismError, match=r"code.head.* is \(3, 256\), there \(2, 256\)"):
        start_from("x", kept, earlier)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"backbone": {"channels": [16, 16], "unshuffle": 1}},
            "denoiser.network.* there .* Give both the same networks",
        ),
        ({"parents": {"digit": Categorical(3)}}, "its parents differs there"),
    ],
)
def test_a_start_from_another_node_is_refused(options, message):
    parents = options.pop("parents", PARENTS)
    later = untrained(parents, **options)
    with pytest.raises(MechanismError, match=message):
        start_from("x", later, untrained(PARENTS))


@pytest.mark.parametrize(
    ("code", "parents", "message"),
    [
        ({"width": 17}, PARENTS, "the width is 17, but image 1x4x4 has 16 numbers"),
        ({}, {}, "this image node has no parents"),
        ({}, {"mask": Image(1, 4, 4)}, "parent 'mask' is an image"),
    ],
)
def test_codes_that_cannot_serve(code, parents, message):
    with pytest.raises(MechanismError, match=message):
        Diffusion(**SMALL, code={"encoder": {"unshuffle": 1}, **code}).bind(Image(1, 4, 4), parents)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"code": {"width": 0}}, "code.width: .*greater than or equal to 1"),
        ({"code": {"hidden": True}, "dropout": 0}, "a hidden code needs dropout above 0"),
        ({"code": {"nats": 0}}, "code.nats: .*greater than 0"),
        ({"code": {"training": {"validation": 0.2}}}, "code.training: .*validation has no effect on a code"),
        ({"code": {"training": {"patience": 3}}}, "code.training: .*patience has no effect on a code"),
        ({"code": {"training": {"patience": None}}}, "Leave it out; the node's own is training.patience"),
        ({"code": {}, "abduction": ["point", "posterior"]}, "abduction: .*'point' or 'posterior'"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(SpecError, match=message):
        Diffusion(**options)


@pytest.mark.parametrize("training", [{"epochs": 2}, None, Training(epochs=3), Training().model_dump()])
def test_training_of_a_code_may_say_what_has_an_effect(training):
    spec = Diffusion(code={"training": training})
    assert Diffusion(**spec.model_dump()) == spec


def fitted(stop_at: int | None = None, seed: int = 0, code_training=SHORT, **options):
    """The mechanism after a fit of 4 steps of its code and 4 of the rest; how its code was when settled."""
    columns = {
        "x": np.random.default_rng(0).integers(0, 256, (12, 1, 4, 4), dtype=np.uint8),
        "digit": np.arange(12) % 3,
        "shade": np.random.default_rng(1).normal(size=12),
    }
    code = CODE.model_copy(update={"training": code_training})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        mechanism = Diffusion(**{**SMALL, "code": code, "training": SHORT}).make(Image(1, 4, 4), PARENTS)
    settled, original = [], StyleCode.settle

    def settle(self, *arguments, **named):
        original(self, *arguments, **named)
        settled.append({name: value.clone() for name, value in self.state_dict().items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StyleCode, "settle", settle)
        steps = fit_counted(mechanism, columns, stop_at, **options)
    return mechanism, settled, steps


def test_the_denoiser_learns_under_a_code_that_stays():
    mechanism, settled, steps = fitted()
    assert steps == 8 and len(settled) == 1
    assert all(torch.equal(value, settled[0][name]) for name, value in mechanism.code.state_dict().items())
    assert all(weight.requires_grad for weight in mechanism.parameters())
    before = {name: weight.clone() for name, weight in coded().code.named_parameters()}
    assert any(not torch.equal(weight, before[name]) for name, weight in mechanism.code.named_parameters())


@pytest.mark.parametrize("stop_at", [0, 3, 4, 6])
def test_a_fit_stopped_in_either_stage_resumes_bit_for_bit(stop_at, tmp_path):
    whole, _, steps = fitted()
    with pytest.raises(Stop):
        fitted(stop_at, run_dir=tmp_path)
    resumed, _, left = fitted(seed=1, run_dir=tmp_path, resume=True)
    assert left == steps - stop_at
    assert same_weights(whole, resumed)


@pytest.mark.parametrize("stop_at", [0, 6])
def test_a_fit_stopped_in_either_stage_leaves_what_is_trained_as_it_was(stop_at, monkeypatch):
    """What was frozen before stays frozen."""
    seen, make = [], Diffusion.make

    def frozen(*given):
        seen.append(make(*given))
        next(seen[0].denoiser.parameters()).requires_grad_(False)
        return seen[0]

    monkeypatch.setattr(Diffusion, "make", frozen)
    with pytest.raises(Stop):
        fitted(stop_at)
    assert [weight.requires_grad for weight in seen[0].denoiser.parameters()].count(False) == 1
    assert all(weight.requires_grad for weight in seen[0].code.parameters())


def test_a_code_without_training_is_that_of_the_start():
    first, _, _ = fitted()
    again, settled, steps = fitted(seed=1, code_training=None, start=first)
    assert steps == 4 and not settled
    before, after = first.code.state_dict(), again.code.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not all(
        torch.equal(one, two)
        for one, two in zip(first.denoiser.parameters(), again.denoiser.parameters(), strict=True)
    )
    with pytest.raises(MechanismError, match=r"'x': code.training is null.* Give one \(start="):
        fitted(code_training=None)
    with pytest.raises(MechanismError, match="keeps the code of the model .* but that has none"):
        fitted(code_training=None, start=untrained(PARENTS))


def test_the_price_of_dependence_rises_while_the_code_is_trained():
    training, (value, parents) = _alone({"digit": Categorical(3)}), draws(64, {"digit": Categorical(3)})
    training.code.prepare(value, parents)
    before, losses = {name: buffer.clone() for name, buffer in training.named_buffers()}, []
    for training.progress in (0.0, 0.3, 0.6, 1.0):
        training.load_state_dict(before, strict=False)
        with torch.no_grad():
            losses.append(float(training.loss(value, parents, generator=seeded()).mean()))
    free, half, full, last = losses
    assert abs(full - free) > 1e-3 and last == full
    assert full - free == pytest.approx(2 * (half - free), rel=1e-3)


def test_a_code_that_was_not_tested_is_told():
    mechanism, (value, parents) = coded(), draws(99, PARENTS)
    with pytest.warns(UserWarning, match="was not tested: 99 rows were held out, and it takes 100"):
        figures = mechanism.validate(value, parents, generator=seeded())
    assert not [name for name in figures if name.startswith("code")]
