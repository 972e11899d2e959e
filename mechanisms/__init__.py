"""How one node behaves: ``x := f(pa, u)``. Names load on first use, and torch, Pyro and diffusers with them.

Specs, as an SCM file's ``mechanism:`` blocks: Additive, Auto, Categorical, Constant, Counts, Diffusion,
Empirical, Equation, Flow, Program.
The protocol that further mechanisms implement: Mechanism, MechanismSpec, Noise, Abducted, Parents, Training.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mechanisms.base import Abducted, Mechanism, MechanismSpec, Noise, Parents
    from mechanisms.conditioning import Conditioning
    from mechanisms.diffusion.mechanism import Diffusion
    from mechanisms.equation.mechanism import Equation
    from mechanisms.intervened import Constant
    from mechanisms.options import TrainedSpec
    from mechanisms.program.mechanism import Program
    from mechanisms.registry import default_mechanism, dump_mechanism, kinds, mechanism_spec, parse_mechanism
    from mechanisms.tables.additive import Additive
    from mechanisms.tables.auto import Auto
    from mechanisms.tables.categorical import Categorical
    from mechanisms.tables.counts import Counts
    from mechanisms.tables.empirical import Empirical
    from mechanisms.tables.flow import Flow
    from mechanisms.training import Training

_HOMES = {
    "base": ("Abducted", "Mechanism", "MechanismSpec", "Noise", "Parents"),
    "conditioning": ("Conditioning",),
    "diffusion.mechanism": ("Diffusion",),
    "equation.mechanism": ("Equation",),
    "intervened": ("Constant",),
    "options": ("TrainedSpec",),
    "program.mechanism": ("Program",),
    "registry": ("default_mechanism", "dump_mechanism", "kinds", "mechanism_spec", "parse_mechanism"),
    "tables.additive": ("Additive",),
    "tables.auto": ("Auto",),
    "tables.categorical": ("Categorical",),
    "tables.counts": ("Counts",),
    "tables.empirical": ("Empirical",),
    "tables.flow": ("Flow",),
    "training": ("Training",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Abducted",
    "Additive",
    "Auto",
    "Categorical",
    "Conditioning",
    "Constant",
    "Counts",
    "Diffusion",
    "Empirical",
    "Equation",
    "Flow",
    "Mechanism",
    "MechanismSpec",
    "Noise",
    "Parents",
    "Program",
    "TrainedSpec",
    "Training",
    "default_mechanism",
    "dump_mechanism",
    "kinds",
    "mechanism_spec",
    "parse_mechanism",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
