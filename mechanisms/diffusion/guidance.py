"""Guidance: from the factual parents F to the counterfactual parents, vanishing when they agree.

Parents change one group after another, equal weights together, in declared order: F = v_0, v_1, ..., v_G.

    classifier_free      eps = eps(v_0) + sum_g w_g [eps(v_g) - eps(v_{g-1})]
      against hidden     eps = eps(h_0) + sum_g w_g [eps(h_g) - eps(h_{g-1})],  h_g of cf (abduction: of F)
    anticausal, delta    eps = eps_base - sigma sum_g s_g grad [log q(v_g | x_bar) - log q(v_{g-1} | x_bar)]
    anticausal, raw      eps = eps_base - sigma sum_k s_k grad log q(cf_k | x_bar, cf_<k)

with gradients in x_bar (sqrt(1 - a) grad_{x_t} = sigma grad_{x_bar}). ``raw`` is Algorithm 3 of Diff-SCM
(Sanchez & Tsaftaris 2022): the exact score of p(x | pa) at s = 1 on an unconditional base, but it moves the
image even when no parent changes. ``delta`` at s = 1 on eps(F) is exact by Bayes' rule; on an unconditional
base it is a heuristic. ``classifier_free`` is negative-prompt inversion (Miyake et al. 2023), F the negative.

Against hidden parents (Ho & Salimans 2022), h_0 hides all parents of weights other than 1 and h_g shows the
first g groups of them. Abduction integrates the same field under F: the scores of sharpened laws, p(x_bar)
p(pa | x_bar)^w, whose flow is invertible for every pa. What there and back again misses is the solver's, and
what clipping takes.

Weights above 1 sharpen a category but multiply a continuous effect, so a plain number applies to categorical
parents and continuous ones keep 1. Prior samples are of p(x | pa) as it was learned: they follow the
conditional denoiser alone, as if F were pa, and an unconditional base with ``raw`` at s = 1.
"""

from typing import Annotated

from pydantic import Field

from mechanisms.diffusion.anticausal import Anticausal
from mechanisms.diffusion.classifier_free import ClassifierFree

__all__ = ["Guidance"]

Guidance = Annotated[ClassifierFree | Anticausal, Field(discriminator="kind")]
"""Any guidance, told apart by ``kind``."""
