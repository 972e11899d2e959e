"""The axioms on every kind of mechanism, and on random models that mix them."""

import functools

import numpy as np
import pytest

from tests.causalgen.axioms import AXIOMS, Case, draw_rows
from tests.causalgen.models.kinds import KINDS
from tests.causalgen.models.mixed import around, random_mixed

pytestmark = pytest.mark.filterwarnings("ignore:.*effective sample size")
"""Axioms hold draw by draw, however few particles a program was given."""


@functools.cache
def setting(kind, seed):
    """A model around a mechanism, with rows."""
    scm = around(kind) if seed == 1 else setting(kind, 1)[0]
    return scm, *draw_rows(scm, seed)


@pytest.mark.parametrize("axiom", AXIOMS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_mechanism(kind, axiom):
    for seed, samples in ((1, None), (2, 3)):
        AXIOMS[axiom](Case(*setting(kind, seed), np.random.default_rng(seed)), samples)


def hold(seed):
    scm = random_mixed(seed)
    case = Case(scm, *draw_rows(scm, seed), np.random.default_rng(seed))
    for axiom in AXIOMS.values():
        axiom(case, None if seed % 2 else 3)


@pytest.mark.parametrize("seed", range(60))
def test_random_models_that_mix_mechanisms(seed):
    hold(seed)


@pytest.mark.slow
def test_many_random_models_that_mix_mechanisms():
    for seed in range(1000, 3000):
        hold(seed)
