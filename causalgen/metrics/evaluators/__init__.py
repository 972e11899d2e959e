"""Small networks that score counterfactual images, trained apart from every model that they score."""

from causalgen.metrics.evaluators.judges import Judges
from causalgen.metrics.evaluators.recipe import Recipe
from causalgen.metrics.evaluators.roles import Roles
from causalgen.metrics.evaluators.storage import judge_names, load_judges, save_judges
from causalgen.metrics.evaluators.training import train_judges

__all__ = ["Judges", "Recipe", "Roles", "judge_names", "load_judges", "save_judges", "train_judges"]
