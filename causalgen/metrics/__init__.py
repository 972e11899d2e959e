"""Metrics: one file a family, each function with its source; every one returns a ``Score`` with its interval.

axioms         composition, reversibility, effectiveness, of any node of any model
fidelity       minimality; the error against the true counterfactual, where the generator is known
controls       real images of the target class, random and nearest, to compare with
scores         a figure with its interval: Wilson's for shares, bootstrap for means
measurement    stroke thickness, slant, size and intensity, measured on the image itself
"""

from causalgen.metrics.axioms import composition, effectiveness, reversibility
from causalgen.metrics.controls import RealImages, real_images
from causalgen.metrics.distances import distance
from causalgen.metrics.fidelity import minimality, true_counterfactual_error
from causalgen.metrics.measurement import intensity, size, slant, thickness
from causalgen.metrics.scores import Score, bootstrap_interval, mean_score, share_score, wilson_interval

__all__ = [
    "RealImages",
    "Score",
    "bootstrap_interval",
    "composition",
    "distance",
    "effectiveness",
    "intensity",
    "mean_score",
    "minimality",
    "real_images",
    "reversibility",
    "share_score",
    "size",
    "slant",
    "thickness",
    "true_counterfactual_error",
    "wilson_interval",
]
