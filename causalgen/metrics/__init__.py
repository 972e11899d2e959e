"""Metrics: one file a family, each function with its source; most return a ``Score`` with its interval.

axioms         composition, reversibility, effectiveness, of any node of any model
fidelity       minimality; the error against the true counterfactual, where the generator is known
likeness       what a counterfactual keeps of its factual, and how much its draws differ
controls       real images of the target class, random and nearest, to compare with
scores         a figure with its interval: Wilson's for shares, bootstrap for means
latent_divergence, feature_distance
               CLD, IM1 and IM2; FD, and interventional consistency: whether counterfactuals, averaged over
               factuals, have the interventional law; by networks that know the data, see evaluators
evaluators     these networks: shipped for some data sets, trained by ``causalgen evaluators`` for others
published_networks
               FID and LPIPS, where their published weights are given as files
measurement    stroke thickness, slant, size and intensity, measured on the image itself
"""

from causalgen.metrics.axioms import composition, effectiveness, reversibility
from causalgen.metrics.controls import RealImages, real_images
from causalgen.metrics.evaluators import (
    Evaluators,
    load_evaluators,
    refuse_former_name,
    save_evaluators,
    train_evaluators,
)
from causalgen.metrics.feature_distance import (
    FeatureDistance,
    Features,
    attribute_distance,
    feature_distance,
    frechet_distance,
    variance_ratio,
)
from causalgen.metrics.fidelity import minimality, true_counterfactual_error
from causalgen.metrics.image_rows import distance
from causalgen.metrics.latent_divergence import (
    ClassDistances,
    class_distances,
    cld,
    cld_do_nothing,
    cld_floor,
    im1,
    im2,
)
from causalgen.metrics.likeness import attribute_correlation, diversity, kept_in_rank, likeness, moves_of
from causalgen.metrics.measurement import intensity, size, slant, thickness
from causalgen.metrics.published_networks import fid, lpips
from causalgen.metrics.scores import Score, bootstrap_interval, mean_score, share_score, wilson_interval

__all__ = [
    "ClassDistances",
    "Evaluators",
    "FeatureDistance",
    "Features",
    "RealImages",
    "Score",
    "attribute_correlation",
    "attribute_distance",
    "bootstrap_interval",
    "class_distances",
    "cld",
    "cld_do_nothing",
    "cld_floor",
    "composition",
    "distance",
    "diversity",
    "effectiveness",
    "feature_distance",
    "fid",
    "frechet_distance",
    "im1",
    "im2",
    "intensity",
    "kept_in_rank",
    "likeness",
    "load_evaluators",
    "lpips",
    "mean_score",
    "minimality",
    "moves_of",
    "real_images",
    "reversibility",
    "save_evaluators",
    "share_score",
    "size",
    "slant",
    "thickness",
    "train_evaluators",
    "true_counterfactual_error",
    "variance_ratio",
    "wilson_interval",
]


def __getattr__(name: str) -> object:
    refuse_former_name("cg.metrics", name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
