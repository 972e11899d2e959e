"""The axioms on every kind of mechanism, and on random models that mix them."""

import functools

import pytest

from tests.causalgen.axioms import AXIOMS, case_of
from tests.causalgen.models.kinds import KINDS
from tests.causalgen.models.mixed import around, random_mixed

model_around = functools.cache(around)


@pytest.mark.parametrize("axiom", AXIOMS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_mechanism(kind, axiom):
    scm = model_around(kind)
    for seed, samples in ((1, None), (2, 3)):
        AXIOMS[axiom](case_of(scm, seed), samples)


def hold(seed):
    scm = random_mixed(seed)
    for axiom in AXIOMS.values():
        axiom(case_of(scm, seed), None if seed % 2 else 3)


@pytest.mark.parametrize("seed", range(100))
def test_random_models_that_mix_mechanisms(seed):
    hold(seed)


@pytest.mark.slow
def test_many_random_models_that_mix_mechanisms():
    for seed in range(1000, 3000):
        hold(seed)
