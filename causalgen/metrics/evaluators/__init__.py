"""Evaluators: small networks that score counterfactual images, trained apart from the models they score."""

from causalgen.metrics.evaluators.evaluators import Evaluators, Recipe, Roles
from causalgen.metrics.evaluators.storage import evaluator_names, load_evaluators, save_evaluators
from causalgen.metrics.evaluators.training import train_evaluators

__all__ = [
    "Evaluators",
    "Recipe",
    "Roles",
    "evaluator_names",
    "load_evaluators",
    "refuse_former_name",
    "save_evaluators",
    "train_evaluators",
]

_FORMER = {
    "Judges": "Evaluators",
    "judge_names": "evaluator_names",
    "load_judges": "load_evaluators",
    "save_judges": "save_evaluators",
    "train_judges": "train_evaluators",
}


def refuse_former_name(module: str, name: str) -> None:
    """Refuse a name that is now another one."""
    if name in _FORMER:  # no AttributeError: ``from module import name`` would not show its message
        raise ImportError(f"{module}.{name} is now {module}.{_FORMER[name]}.", name=name)


def __getattr__(name: str) -> object:
    refuse_former_name(__name__, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
