"""Automatic strength: each row's image is that of the smallest strength its predictor accepts."""

import pytest
import torch

from graphs.errors import SpecError
from graphs.variables import Categorical, Continuous
from mechanisms.diffusion.anticausal import Anticausal
from mechanisms.diffusion.feedback import smallest_strengths
from mechanisms.diffusion.guidance import ClassifierFree
from mechanisms.diffusion.mechanism import Diffusion
from mechanisms.diffusion.solvers import Anchored
from tests.mechanisms.diffusion.test_mechanism import draws, seeded, untrained

PARENTS = {"digit": Categorical(3), "size": Continuous(shape=(2,))}
CANDIDATES = (0.5, 1.0, 2.0, 4.0)


def test_rows_stop_at_the_first_accepted_candidate_and_are_not_decoded_again():
    needs, asked = torch.tensor([2.0, 0.5, 9.0, 1.0]), []

    def decode(strength, rows):
        asked.append((strength, rows.tolist()))
        return torch.full((len(rows), 1, 1, 1), strength)

    found = smallest_strengths(
        CANDIDATES, decode, lambda images, rows: images[:, 0, 0, 0] >= needs[rows], 4, torch.device("cpu")
    )
    assert found.flatten().tolist() == [2.0, 0.5, 4.0, 1.0]
    assert asked == [(0.5, [0, 1, 2, 3]), (1.0, [0, 2, 3]), (2.0, [0, 2]), (4.0, [2])]


@pytest.mark.parametrize("kind", [ClassifierFree, Anticausal])
def test_each_row_is_as_with_the_strength_found_for_it(kind):
    option = "weight" if kind is ClassifierFree else "scale"
    rows, solver = 8, Anchored(steps=4)
    value, parents = draws(rows, PARENTS)
    other = {"digit": (parents["digit"] + torch.arange(rows) % 3) % 3, "size": parents["size"]}
    fixed = [untrained(PARENTS, solver=solver, guidance=kind(**{option: s})) for s in CANDIDATES]
    noise = fixed[0].abduct(value, parents, generator=seeded()).noise
    images = torch.stack([each.generate(other, noise) for each in fixed])
    sigma = solver.levels()[0]
    seen = torch.stack([probability(fixed[0].predictor, each, sigma, other) for each in images])
    moved = other["digit"] != parents["digit"]
    target = seen[0][moved].median().item()  # some rows reach it at once, others do not
    automatic = kind(**{option: "auto"}, target=target, candidates=CANDIDATES)
    found = untrained(PARENTS, solver=solver, guidance=automatic).generate(other, noise)
    enough = (seen >= target) | ~moved
    enough[-1] = True
    chosen = enough.int().argmax(0)
    torch.testing.assert_close(found, images[chosen, torch.arange(rows)], rtol=0, atol=1e-5)
    assert len(set(chosen[moved].tolist())) > 1


def probability(predictor, images, sigma, parents):
    return predictor.log_probs(predictor.encode(images, sigma), parents)["digit"].exp().detach()


def test_a_null_intervention_is_accepted_at_once():
    value, parents = draws(4, PARENTS)
    mechanism = untrained(PARENTS, solver=Anchored(steps=4), guidance=ClassifierFree(weight="auto"))
    noise = mechanism.abduct(value, parents, generator=seeded()).noise
    torch.testing.assert_close(mechanism.generate(parents, noise), value, rtol=0, atol=1e-4)


def test_prior_samples_have_no_strength():
    fixed = untrained(PARENTS, solver=Anchored(steps=4))
    automatic = untrained(PARENTS, solver=Anchored(steps=4), guidance=ClassifierFree(weight="auto"))
    noise, parents = fixed.sample_noise(4, generator=seeded()), draws(4, PARENTS)[1]
    assert torch.equal(automatic.generate(parents, noise), fixed.generate(parents, noise))


def test_refusals():
    with pytest.raises(SpecError, match="needs a predictor"):
        Diffusion(guidance=ClassifierFree(weight="auto"), predictor=None)
    with pytest.raises(SpecError, match="rising order, got"):
        ClassifierFree(weight="auto", candidates=(2.0, 1.0))
    with pytest.raises(SpecError, match="less than 1"):
        Anticausal(scale="auto", target=1.0)
