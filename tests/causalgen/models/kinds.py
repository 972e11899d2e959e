"""Every kind of mechanism, as small as it gets, ready without training: solved, or weights moved at random.

A kind says which variable it is for, which parents it can have, and its options given these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import causalgen as cg
from graphs.variables import Variable
from mechanisms.base import Mechanism, MechanismSpec

__all__ = ["KINDS", "Kind", "ready"]

Variables = Mapping[str, Variable]


@dataclass(frozen=True)
class Kind:
    """One way to be a node.

    Attributes:
        variable: of the node.
        spec: options, given the parents' variables.
        fits: whether it can have these parents.
        step: of the grid that its values lie on, if they do.
    """

    variable: Variable
    spec: Callable[[Variables], MechanismSpec]
    fits: Callable[[Variables], bool]
    step: float | None = None


def ready(kind: Kind, parents: Variables, rows: Mapping[str, Tensor], seed: int) -> tuple[Mechanism, Tensor]:
    """A mechanism that can answer, and values for the rows of its parents that it generates itself."""
    generator = torch.Generator().manual_seed(seed)
    random = np.random.default_rng(seed)
    mechanism = kind.spec(parents).bind(kind.variable, parents)
    n = len(next(iter(rows.values()))) if rows else 40
    if not mechanism.fitted:
        plausible = _plausible(kind, parents, rows, n, random)
        values = torch.as_tensor(kind.variable.encode(plausible, where="x"))
        mechanism.prepare(values, dict(rows))
        mechanism.record_range(values)
        if not mechanism.solve(values, dict(rows)):
            with torch.no_grad():
                for parameter in mechanism.parameters():
                    scale = 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
                    parameter.add_(scale)
        mechanism.mark_fitted()
    mechanism.eval()
    with torch.no_grad():
        return mechanism, mechanism.generate(rows, mechanism.sample_noise(n, generator=generator))


def _plausible(kind: Kind, parents: Variables, rows: Mapping[str, Tensor], n: int, random):
    """Training values that depend on the parents, in the user's form."""
    variable = kind.variable
    level = sum((rows[name].reshape(n, -1).double().mean(1).numpy() for name in parents), np.zeros(n))
    level = level / (1 + np.abs(level).max())
    if variable.type == "categorical":
        codes = np.floor(level * variable.size).astype(int) + random.integers(0, variable.size, n)
        return variable.decode(codes % variable.size)
    if variable.type == "image":
        noise = random.random((n, *variable.event_shape))
        return ((noise + level[:, None, None, None] + 1) / 3).astype(np.float32)
    value = random.normal(size=(n, *variable.event_shape)) + 2 * level.reshape(
        n, *[1] * len(variable.event_shape)
    )
    if variable.lower is not None and variable.upper is not None:
        value = variable.lower + (variable.upper - variable.lower) / (1 + np.exp(-value))
    elif variable.lower is not None:
        value = variable.lower + np.logaddexp(0, value)
    elif variable.upper is not None:
        value = variable.upper - np.logaddexp(0, value)
    return value if kind.step is None else kind.step * np.round(value / kind.step)


def _anything(parents: Variables) -> bool:
    return all(each.type != "image" for each in parents.values())


def _plain(parents: Variables) -> bool:
    return all(each.type != "image" and each.event_shape == () for each in parents.values())


def _codes(parents: Variables) -> bool:
    return all(each.type == "categorical" for each in parents.values())


def _some(parents: Variables) -> bool:
    return bool(parents) and _plain(parents)


def _alone(parents: Variables) -> bool:
    return not parents


def _terms(parents: Variables) -> str:
    """A linear expression of the parents."""
    return " + ".join(["0.25", *(f"{0.7 - 0.4 * k!r} * {name}" for k, name in enumerate(parents))])


def _equation(value: str, **noise) -> Callable[[Variables], MechanismSpec]:
    def spec(parents: Variables) -> MechanismSpec:
        return cg.mechanisms.Equation(value=value.replace("PA", f"({_terms(parents)})"), noise=noise)

    return spec


def _level(parents: Mapping[str, Tensor]) -> Tensor | float:
    """What programs make of their parents, (N,)."""
    return sum((value.reshape(len(value), -1).double().mean(1) for value in parents.values()), 0.0)


def _normal_program(parents):
    return pyro.sample("x", dist.Normal(_level(parents), 0.7))


def _hidden_program(parents):
    """Two normals behind one number: which of them it was stays open."""
    hidden = pyro.sample("hidden", dist.Normal(_level(parents), 1.0))
    return pyro.sample("x", dist.Normal(0.5 * hidden, 0.5))


def _code_program(parents):
    coin = pyro.sample("coin", dist.Bernoulli(0.4))
    return (pyro.sample("u", dist.Uniform(0.0, 1.0)) > 0.5).long() + coin.long()


def _given(spec: MechanismSpec) -> Callable[[Variables], MechanismSpec]:
    return lambda parents: spec


_NUMBER, _PAIR = cg.Continuous(), cg.Continuous(shape=(2,))
_NORMAL = {"normal": [0, 1]}
_SMALL = {"hidden": (8,)}
_DIFFUSION = {
    "backbone": {"channels": (8, 8)},
    "predictor": None,
    "solver": {"kind": "anchored", "steps": 2},
}
_TRANSFORMER = {
    "backbone": {"kind": "dit", "patch": 4, "width": 8, "depth": 1, "heads": 1},
    "prediction": "velocity",
}

KINDS: dict[str, Kind] = {
    "equation, affine": Kind(_NUMBER, _equation("PA - 0.5 * u", u=_NORMAL), _plain),
    "equation, monotone": Kind(_NUMBER, _equation("PA + exp(0.5 * u)", u={"laplace": [0, 0.5]}), _plain),
    "equation, deterministic": Kind(_NUMBER, _equation("sin(PA) + PA"), _some),
    "equation, two coins": Kind(
        _NUMBER, _equation("PA + u * v", u={"bernoulli": 0.4}, v={"bernoulli": 0.7}), _plain
    ),
    "equation, category": Kind(
        cg.Categorical(3), _equation("(round(PA) + u) % 3", u={"categorical": [0.5, 0.3, 0.2]}), _plain
    ),
    "additive, linear": Kind(_NUMBER, _given(cg.mechanisms.Additive()), _anything),
    "additive, vector": Kind(_PAIR, _given(cg.mechanisms.Additive()), _anything),
    "additive, network": Kind(
        _NUMBER, _given(cg.mechanisms.Additive(function="network", **_SMALL)), _anything
    ),
    "additive, empirical": Kind(_PAIR, _given(cg.mechanisms.Additive(noise="empirical")), _anything),
    "additive, empirical network": Kind(
        _NUMBER, _given(cg.mechanisms.Additive(function="network", noise="empirical", **_SMALL)), _anything
    ),
    "flow, affine": Kind(_NUMBER, _given(cg.mechanisms.Flow(transform="affine", **_SMALL)), _anything),
    "flow, spline": Kind(_NUMBER, _given(cg.mechanisms.Flow(**_SMALL)), _anything),
    "flow, vector": Kind(_PAIR, _given(cg.mechanisms.Flow(**_SMALL)), _anything),
    "flow, bounded": Kind(cg.Continuous(2, 5), _given(cg.mechanisms.Flow(**_SMALL)), _anything),
    "flow, positive": Kind(cg.Continuous(lower=0), _given(cg.mechanisms.Flow(**_SMALL)), _anything),
    "flow, negative": Kind(cg.Continuous(upper=-1), _given(cg.mechanisms.Flow(**_SMALL)), _anything),
    "flow, grid": Kind(
        cg.Continuous(lower=0), _given(cg.mechanisms.Flow(dequantize=0.5, **_SMALL)), _anything, step=0.5
    ),
    "flow, integer": Kind(cg.Integer(0, 9), _given(cg.mechanisms.Flow(**_SMALL)), _anything, step=1),
    "equation, integer": Kind(cg.Integer(), _equation("2 * round(PA) - u", u={"poisson": [2]}), _plain),
    "counts": Kind(cg.Integer(0), _given(cg.mechanisms.Counts()), _anything, step=1),
    "categorical, table": Kind(cg.Categorical(3), _given(cg.mechanisms.Categorical()), _codes),
    "categorical, network": Kind(
        cg.Categorical(["red", "green", "blue"]),
        _given(cg.mechanisms.Categorical(logits="network", **_SMALL)),
        _anything,
    ),
    "categorical, linear": Kind(
        cg.Categorical(3), _given(cg.mechanisms.Categorical(logits="linear")), _anything
    ),
    "categorical, ordinal": Kind(
        cg.Categorical(3, ordered=True), _given(cg.mechanisms.Categorical(logits="ordinal")), _anything
    ),
    "categorical, monotone": Kind(
        cg.Categorical(4, ordered=True),
        _given(cg.mechanisms.Categorical(coupling="monotone", **_SMALL)),
        _anything,
    ),
    "program": Kind(_NUMBER, _given(cg.mechanisms.Program(program=_normal_program)), _anything),
    "program, hidden cause": Kind(
        _NUMBER, _given(cg.mechanisms.Program(program=_hidden_program, particles=50)), _anything
    ),
    "program, category": Kind(
        cg.Categorical(3), _given(cg.mechanisms.Program(program=_code_program, particles=200)), _anything
    ),
    "empirical": Kind(_PAIR, _given(cg.mechanisms.Empirical()), _alone),
    "empirical, category": Kind(cg.Categorical(3), _given(cg.mechanisms.Empirical()), _alone),
    "diffusion": Kind(cg.Image(1, 8, 8), _given(cg.mechanisms.Diffusion(**_DIFFUSION)), _anything),
    "diffusion, transformer of velocity": Kind(
        cg.Image(1, 8, 8), _given(cg.mechanisms.Diffusion(**_DIFFUSION | _TRANSFORMER)), _anything
    ),
}
