"""How one node behaves: ``x := f(pa, u)``. Names load on first use, and torch, Pyro and diffusers with them.

Specs, as an SCM file's ``mechanism:`` blocks: Additive, Auto, Categorical, Constant, Diffusion, Empirical,
Equation, Flow, Program.
The protocol that further mechanisms implement: Mechanism, MechanismSpec, Noise, Abducted, Parents, Training.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mechanisms.base import Abducted as Abducted
    from mechanisms.base import Mechanism as Mechanism
    from mechanisms.base import MechanismSpec as MechanismSpec
    from mechanisms.base import Noise as Noise
    from mechanisms.base import Parents as Parents
    from mechanisms.conditioning import Conditioning as Conditioning
    from mechanisms.constant import Constant as Constant
    from mechanisms.diffusion.mechanism import Diffusion as Diffusion
    from mechanisms.equation.mechanism import Equation as Equation
    from mechanisms.options import TrainedSpec as TrainedSpec
    from mechanisms.program.mechanism import Program as Program
    from mechanisms.registry import default_mechanism as default_mechanism
    from mechanisms.registry import dump_mechanism as dump_mechanism
    from mechanisms.registry import kinds as kinds
    from mechanisms.registry import mechanism_spec as mechanism_spec
    from mechanisms.registry import parse_mechanism as parse_mechanism
    from mechanisms.tables.additive import Additive as Additive
    from mechanisms.tables.auto import Auto as Auto
    from mechanisms.tables.categorical import Categorical as Categorical
    from mechanisms.tables.empirical import Empirical as Empirical
    from mechanisms.tables.flow import Flow as Flow
    from mechanisms.training import Training as Training

_HOMES = {
    "Abducted": "base",
    "Additive": "tables.additive",
    "Auto": "tables.auto",
    "Categorical": "tables.categorical",
    "Conditioning": "conditioning",
    "Constant": "constant",
    "Diffusion": "diffusion.mechanism",
    "Empirical": "tables.empirical",
    "Equation": "equation.mechanism",
    "Flow": "tables.flow",
    "Mechanism": "base",
    "MechanismSpec": "base",
    "Noise": "base",
    "Parents": "base",
    "Program": "program.mechanism",
    "TrainedSpec": "options",
    "Training": "training",
    "default_mechanism": "registry",
    "dump_mechanism": "registry",
    "kinds": "registry",
    "mechanism_spec": "registry",
    "parse_mechanism": "registry",
}

__all__ = [
    "Abducted",
    "Additive",
    "Auto",
    "Categorical",
    "Conditioning",
    "Constant",
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
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
