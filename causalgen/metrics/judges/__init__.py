"""Small networks that score counterfactual images, trained apart from every model that they score."""

from causalgen.metrics.judges.judges import Judges
from causalgen.metrics.judges.recipe import Recipe
from causalgen.metrics.judges.roles import Roles
from causalgen.metrics.judges.storage import judge_names, load_judges, save_judges
from causalgen.metrics.judges.training import train_judges

__all__ = ["Judges", "Recipe", "Roles", "judge_names", "load_judges", "save_judges", "train_judges"]
