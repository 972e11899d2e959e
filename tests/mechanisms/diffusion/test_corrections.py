"""Corrections: numbers are asked for anew until the predictor reads the change that was asked for."""

from types import SimpleNamespace

import pytest
import torch

from graphs.errors import MechanismError
from graphs.variables import Categorical, Continuous, Image
from mechanisms.diffusion.anticausal import Anticausal
from mechanisms.diffusion.feedback import closest, corrected, readings
from mechanisms.diffusion.guidance import ClassifierFree
from mechanisms.diffusion.mechanism import Diffusion
from mechanisms.diffusion.solvers import Anchored
from tests.mechanisms.diffusion.test_mechanism import draws, seeded, untrained

PARENTS = {"digit": Categorical(3), "size": Continuous(shape=(2,)), "shade": Continuous()}
ONE = {"a": torch.ones(1), "b": torch.ones(1)}


def picture(values):
    """Numbers (N,) as images whose two channels hold them."""
    return torch.stack([values["a"], values["b"]], 1).view(-1, 2, 1, 1)


def lacking(wanted):
    return lambda images: {name: wanted[name] - images[:, k, 0, 0] for k, name in enumerate(("a", "b"))}


def test_a_response_that_falls_short_and_mixes_is_driven_to_what_is_asked():
    def decode(asked):
        return picture({"a": 0.8 * asked["a"], "b": asked["b"] + 0.3 * asked["a"] - 0.1})

    wanted = {"a": torch.tensor([1.0, -2.0, 0.0]), "b": torch.tensor([0.5, 0.0, 3.0])}
    errors = []
    for times in (0, 1, 2, 8):
        images = closest(decode, lacking(wanted), ONE, wanted, times)
        errors.append((images - picture(wanted)).abs().amax().item())
    assert errors[0] > 0.4 and errors[1] < errors[0] / 2 and errors[2] < errors[1] / 2 and errors[3] < 1e-4


def test_relaxation_meets_a_response_that_falls_short_at_once():
    def decode(asked):
        return picture({"a": 0.8 * asked["a"], "b": 0.5 * asked["b"]})

    wanted = {"a": torch.tensor([1.0, -2.0]), "b": torch.zeros(2)}
    for relaxation, left in [(1.0, 0.2 * 0.2), (1.25, 0.0), (0.5, 0.2 * (1 - 0.8 * 0.5))]:
        images = closest(decode, lacking(wanted), ONE, wanted, 1, relaxation)
        torch.testing.assert_close(images[:, 0, 0, 0], (1 - left) * wanted["a"])
    value, parents = draws(6, PARENTS)
    asked = parents | {"shade": parents["shade"] + 1}
    found = []
    for relaxation in (1.0, 1.5):
        guidance = ClassifierFree(corrections=1, relaxation=relaxation)
        mechanism = untrained(PARENTS, solver=Anchored(steps=4), guidance=guidance)
        noise = mechanism.abduct(value, parents, generator=seeded()).noise
        found.append(mechanism.generate(asked, noise))
    assert not torch.equal(*found)


def test_an_image_parent_that_differs_by_rounding_is_no_change():
    """An image that was made anew from its own noise moved what it causes by 0.07."""
    parents = PARENTS | {"mask": Image(1, 4, 4)}
    value, given = draws(6, parents)
    mechanism = untrained(parents, solver=Anchored(steps=4), guidance=ClassifierFree(corrections=2))
    noise = mechanism.abduct(value, given, generator=seeded()).noise
    found = mechanism.generate(given | {"mask": given["mask"] + 1e-6}, noise)
    torch.testing.assert_close(found, value, rtol=0, atol=1e-4)
    moved = mechanism.generate(given | {"mask": -given["mask"]}, noise)
    assert (moved - value).abs().max() > 1e-3


def test_each_row_keeps_the_image_of_its_least_gap_in_units_of_the_scales():
    # Row 0 converges, row 1 answers the wrong way round and diverges.
    slopes = torch.tensor([0.5, -1.0])

    def decode(asked):
        return picture({"a": slopes * asked["a"], "b": asked["b"]})

    wanted = {"a": torch.ones(2), "b": torch.zeros(2)}
    images = closest(decode, lacking(wanted), ONE, wanted, 3)
    assert images[:, 0, 0, 0].tolist() == [pytest.approx(0.9375), -1.0]

    def trade(asked):  # what helps a hurts b, twice as much
        return picture({"a": 0.5 * asked["a"], "b": asked["b"] + 2 * (asked["a"] - 1).abs()})

    fair = closest(trade, lacking(wanted), ONE, wanted, 1)
    assert fair[:, 0, 0, 0].tolist() == [0.5, 0.5]
    partial = closest(trade, lacking(wanted), ONE | {"b": torch.full((1,), 100.0)}, wanted, 1)
    assert partial[:, 0, 0, 0].tolist() == [0.75, 0.75]


def test_nothing_is_decoded_again_once_nothing_lacks():
    calls = []

    def decode(asked):
        calls.append(asked)
        return picture(asked)

    wanted = {"a": torch.ones(2), "b": torch.zeros(2)}
    closest(decode, lacking(wanted), ONE, wanted, 5)
    assert len(calls) == 1


@pytest.mark.parametrize("guidance", [ClassifierFree, Anticausal])
def test_the_predictor_reads_more_of_the_change_and_no_row_gets_worse(guidance):
    rows, solver = 12, Anchored(steps=4)
    value, parents = draws(rows, PARENTS)
    asked = parents | {"size": parents["size"] + 0.5, "shade": parents["shade"].flip(0)}
    gaps = []
    for corrections in (0, 1, 4):
        mechanism = untrained(PARENTS, solver=solver, guidance=guidance(corrections=corrections))
        noise = mechanism.abduct(value, parents, generator=seeded()).noise
        images, lowest = mechanism.generate(asked, noise), solver.levels()[0]
        scales = {k: scale for k, scale in mechanism.predictor.scales().items() if k != "digit"}
        moves = [((asked[k] - parents[k]).abs().view(rows, -1) / scale).sum(1) for k, scale in scales.items()]
        rho = torch.exp(-sum(moves))
        before = readings(mechanism.predictor, value, lowest, parents)
        after = readings(mechanism.predictor, images, lowest, asked)
        lacking = {
            k: (asked[k] - after[k]).view(rows, -1) + rho[:, None] * (before[k] - parents[k]).view(rows, -1)
            for k in scales
        }
        gaps.append(sum((lacking[k].abs() / scale).sum(1) for k, scale in scales.items()))
    assert bool((gaps[1] <= gaps[0] + 1e-4).all()) and bool((gaps[2] <= gaps[1] + 1e-4).all())


def test_the_error_of_reading_is_carried_over_less_the_more_is_changed():
    """A predictor that reads a shade as .3 more than the image, which is just what it was asked to be."""
    reader = SimpleNamespace(
        variables={"shade": PARENTS["shade"]},
        scales=lambda: {"shade": torch.full((1,), 2.0)},
        encode=lambda images, sigma: images[:, 0, 0, 0] + 0.3,
        most_likely=lambda features, parents, name: features,
    )
    zero = torch.zeros(4, dtype=torch.float64)
    factual = {"shade": zero, "digit": zero.long()}
    asked = {"shade": torch.tensor([0.0, 0.0, 1.0, 20.0]).double(), "digit": torch.tensor([0, 1, 0, 0])}

    def decode(parents):
        return parents["shade"].view(-1, 1, 1, 1)

    answer = corrected(decode, reader, 0.02, factual, {"shade": zero + 0.3}, asked, 1)
    # The null is untouched; then exp(-1) of the error is known for a category, exp(-1/2) for half a
    # standard deviation, and nothing for ten of them.
    carried = 0.3 * torch.exp(-torch.tensor([0.0, 1.0, 0.5, 10.0]).double())
    torch.testing.assert_close(answer.view(-1) - asked["shade"], carried - 0.3, atol=1e-6, rtol=0)


def test_a_null_intervention_returns_the_image_and_rows_do_not_depend_on_each_other():
    rows = 6
    value, parents = draws(rows, PARENTS)
    mechanism = untrained(PARENTS, solver=Anchored(steps=4), guidance=ClassifierFree(corrections=2))
    noise = mechanism.abduct(value, parents, generator=seeded()).noise
    torch.testing.assert_close(mechanism.generate(parents, noise), value, rtol=0, atol=1e-4)
    moved = torch.arange(rows) % 2 == 0
    asked = parents | {"shade": torch.where(moved, parents["shade"] + 1, parents["shade"])}
    images = mechanism.generate(asked, noise)
    torch.testing.assert_close(images[~moved], value[~moved], rtol=0, atol=1e-4)
    alone = [
        mechanism.generate({k: v[i : i + 1] for k, v in asked.items()}, noise.rows(slice(i, i + 1)))
        for i in range(rows)
    ]
    torch.testing.assert_close(torch.cat(alone), images, rtol=0, atol=1e-3)


def test_prior_samples_are_not_corrected():
    plain = untrained(PARENTS, solver=Anchored(steps=4))
    corrected = untrained(PARENTS, solver=Anchored(steps=4), guidance=ClassifierFree(corrections=2))
    value, parents = draws(4, PARENTS)
    noise = corrected.sample_noise(4, generator=seeded())
    assert set(noise) == set(corrected.abduct(value, parents, generator=seeded()).noise)
    images = corrected.generate(parents, noise)
    assert torch.equal(images, plain.generate(parents, plain.sample_noise(4, generator=seeded())))


def test_guidance_is_told_what_the_question_asks_whatever_corrections_ask_for(monkeypatch):
    guidance, seen = Anticausal(denoiser="counterfactual", terms="changed", corrections=1), []
    unchanged = Anticausal._gain

    def gain(self, predictor, features, factual, parents, path):
        seen.append((factual.wanted["shade"], parents["shade"]))
        return unchanged(self, predictor, features, factual, parents, path)

    monkeypatch.setattr(Anticausal, "_gain", gain)
    value, parents = draws(6, PARENTS)
    mechanism = untrained(PARENTS, solver=Anchored(steps=2), guidance=guidance)
    noise = mechanism.abduct(value, parents, generator=seeded()).noise
    mechanism.generate(parents | {"digit": (parents["digit"] + 1) % 3}, noise)
    assert all(torch.equal(wanted, parents["shade"]) for wanted, _ in seen)
    assert not torch.equal(seen[-1][1], parents["shade"])


def test_refusals():
    with pytest.raises(ValueError, match="needs a predictor"):
        Diffusion(guidance=ClassifierFree(corrections=1), predictor=None)
    with pytest.raises(MechanismError, match=r"corrections follow continuous parents.*\['digit'\]"):
        Diffusion(guidance=ClassifierFree(corrections=1)).make(Image(1, 4, 4), {"digit": Categorical(3)})
