"""Evaluators: small networks that score counterfactual images, trained apart from every model that they score."""

from causalgen.metrics.evaluators.evaluators import Evaluators, Recipe
from causalgen.metrics.evaluators.roles import Roles
from causalgen.metrics.evaluators.storage import evaluator_names, load_evaluators, save_evaluators
from causalgen.metrics.evaluators.training import train_evaluators

__all__ = [
    "Evaluators",
    "Recipe",
    "Roles",
    "evaluator_names",
    "load_evaluators",
    "save_evaluators",
    "train_evaluators",
]
