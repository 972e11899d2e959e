"""Structural causal models whose nodes may be images.

Public names load on first use (PEP 562), so that ``import causalgen`` is cheap: torch comes in with the first
name that needs it.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from os.path import abspath, dirname
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mechanisms
    from causalgen import datasets, metrics, testing
    from causalgen.checking.check_report import CheckReport
    from causalgen.counterfactuals.abduction import Abduction
    from causalgen.counterfactuals.assignments import Policy, Replace, Scale, Shift, Stochastic
    from causalgen.counterfactuals.interventions import WorldRef
    from causalgen.counterfactuals.results import Contrast, Counterfactual, Draws
    from causalgen.counterfactuals.table_parts import counterfactual_parts
    from causalgen.data.reading import Rows, sample_rows
    from causalgen.effects.couplings import CouplingSensitivity
    from causalgen.effects.effect import Effect
    from causalgen.effects.queries import NaturalEffects
    from causalgen.evaluation.evaluate import evaluate
    from causalgen.evaluation.report import EvaluationReport
    from causalgen.evaluation.tune import tune
    from causalgen.fitting.distilling import distil
    from causalgen.pyro import PyroModel
    from causalgen.scm import SCM
    from graphs.causal_graph import CausalGraph
    from graphs.errors import (
        CannotAbductError,
        CausalgenError,
        CheckpointError,
        ChecksumError,
        CycleError,
        DataError,
        DomainError,
        EvidenceError,
        ExtrapolationWarning,
        FormatVersionError,
        GraphError,
        InterventionError,
        MechanismError,
        NotFittedError,
        PartialEvidenceError,
        ShapeError,
        SpecError,
        UnknownNameError,
    )
    from graphs.variables import Categorical, Continuous, Image, Integer

__all__ = [
    "Abduction",
    "CannotAbductError",
    "Categorical",
    "CausalGraph",
    "CausalgenError",
    "CheckReport",
    "CheckpointError",
    "ChecksumError",
    "Continuous",
    "Contrast",
    "Counterfactual",
    "CouplingSensitivity",
    "CycleError",
    "DataError",
    "DomainError",
    "Draws",
    "Effect",
    "EvaluationReport",
    "EvidenceError",
    "ExtrapolationWarning",
    "FormatVersionError",
    "GraphError",
    "Image",
    "Integer",
    "InterventionError",
    "MechanismError",
    "NaturalEffects",
    "NotFittedError",
    "PartialEvidenceError",
    "Policy",
    "PyroModel",
    "Replace",
    "Rows",
    "SCM",
    "Scale",
    "ShapeError",
    "Shift",
    "SpecError",
    "Stochastic",
    "UnknownNameError",
    "WorldRef",
    "counterfactual_parts",
    "datasets",
    "distil",
    "evaluate",
    "mechanisms",
    "metrics",
    "sample_rows",
    "testing",
    "tune",
]

_HOMES = {
    "causalgen.checking.check_report": ("CheckReport",),
    "causalgen.counterfactuals.abduction": ("Abduction",),
    "causalgen.counterfactuals.assignments": ("Policy", "Replace", "Scale", "Shift", "Stochastic"),
    "causalgen.counterfactuals.interventions": ("WorldRef",),
    "causalgen.counterfactuals.results": ("Contrast", "Counterfactual", "Draws"),
    "causalgen.counterfactuals.table_parts": ("counterfactual_parts",),
    "causalgen.data.reading": ("Rows", "sample_rows"),
    "causalgen.effects.couplings": ("CouplingSensitivity",),
    "causalgen.effects.effect": ("Effect",),
    "causalgen.effects.queries": ("NaturalEffects",),
    "causalgen.evaluation.evaluate": ("evaluate",),
    "causalgen.evaluation.report": ("EvaluationReport",),
    "causalgen.evaluation.tune": ("tune",),
    "causalgen.fitting.distilling": ("distil",),
    "causalgen.pyro": ("PyroModel",),
    "causalgen.scm": ("SCM",),
    "graphs.causal_graph": ("CausalGraph",),
    "graphs.variables": ("Categorical", "Continuous", "Image", "Integer"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
"""Of every public name but those of errors."""

_RENAMED = {"World": "WorldRef"}
"""Former names, which still work."""


def __getattr__(name: str) -> object:
    if name in _RENAMED:
        import warnings

        new = _RENAMED[name]
        warnings.warn(f"cg.{name} is now cg.{new}.", DeprecationWarning, stacklevel=2)
        return globals().get(new) or __getattr__(new)
    if name == "mechanisms":
        return import_module("mechanisms")
    if name in ("datasets", "metrics", "testing"):
        return import_module(f"causalgen.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'causalgen' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF.get(name, "graphs.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _refuse_shadows() -> None:
    """Refuse a user's module that Python finds in the place of a package that this one is built on."""
    home = dirname(dirname(abspath(__file__)))
    for name in ("graphs", "mechanisms"):
        loaded = sys.modules.get(name)
        origin = getattr(loaded, "__file__", None) or getattr(find_spec(name), "origin", None)
        if origin is not None and dirname(dirname(abspath(origin))) != home:
            raise ImportError(
                f"{origin} has the name of causalgen's own package {name!r} and is found before it. "
                f"Rename that file, or take its folder off the Python path."
            )


_refuse_shadows()
