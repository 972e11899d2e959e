"""Interventions beyond a value: shift and scale, stochastic and policy interventions, replaced mechanisms.

do={"x": "x + 2*a"}                                 an expression; its own name is its natural value
do={"x": Shift(1)}                                   its natural value and one more
do={"x": Scale(2)}                                   twice its natural value
do={"x": Stochastic({"normal": [0, 1]})}             a fresh draw for every row and sample
do={"x": Policy(f, reads=["a", "x"])}                f of other nodes; its own name is its natural value
do={"x": Replace(mechanism, noise="keep")}           another mechanism of the same parents
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from graphs.errors import DomainError, InterventionError, SpecError, UnknownNameError
from graphs.expressions import Expression, parse_expression
from graphs.variables import Categorical, Variable
from graphs.variables.arrays import as_numbers
from mechanisms.equation.inversion import TORCH

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributions import Distribution

    from mechanisms.base import Mechanism, MechanismSpec
    from mechanisms.tables.noise_families import NoiseLaw

__all__ = ["Formula", "Policy", "Replace", "Scale", "Shift", "Stochastic", "parse_assignment"]


def _check_number(value: object, name: str, what: str) -> None:
    try:
        number = as_numbers(value, where=name)
    except DomainError:
        number = np.array(np.nan)
    if number.shape or not np.isfinite(number):
        several = (
            " For another one in each row or element, give the values themselves." if number.shape else ""
        )
        raise InterventionError(f"{name} takes a finite number as its {what}, got {value!r}.{several}")


@dataclass(frozen=True)
class Shift:
    """Add an amount to a node's natural value, in the variable's unit.

    Raises:
        InterventionError: the amount is no finite number.
    """

    amount: float

    def __post_init__(self) -> None:
        _check_number(self.amount, "Shift", "amount")

    def __call__(self, natural: Any) -> Any:
        """The shifted value."""
        return natural + self.amount


@dataclass(frozen=True)
class Scale:
    """Multiply a node's natural value.

    Raises:
        InterventionError: the factor is no finite number.
    """

    factor: float

    def __post_init__(self) -> None:
        _check_number(self.factor, "Scale", "factor")

    def __call__(self, natural: Any) -> Any:
        """The scaled value."""
        return natural * self.factor


@dataclass(frozen=True)
class Stochastic:
    """Draw a node afresh, for every row and sample independently.

    Attributes:
        law: of one value, in the variable's unit, categories as codes (0 the first, also of labels; of labels
            that are other numbers by their probabilities alone): a Pyro or torch distribution, or a noise
            family with its parameters such as {"normal": [0, 1]} (``mechanisms.tables.noise_families``),
            whose draws fill a vector or an image independently.

    Raises:
        InterventionError: neither.
        SpecError, UnknownNameError: no such family, or parameters that it cannot have.
    """

    law: Distribution | Mapping[str, Any]

    def __post_init__(self) -> None:
        self.parsed()

    def parsed(self) -> NoiseLaw | Distribution:
        """The law, checked."""
        from torch.distributions import Distribution

        from mechanisms.tables.noise_families import noise_law

        if isinstance(self.law, Distribution):
            return self.law
        if not isinstance(self.law, Mapping):
            raise InterventionError(
                "Stochastic takes a Pyro or torch distribution, or a family such as {'normal': [0, 1]}; "
                f"got a {type(self.law).__name__}."
            )
        return noise_law({name: _numbers(name, written) for name, written in self.law.items()})

    def __str__(self) -> str:
        return f"Stochastic({self.parsed()})"


def _numbers(name: str, written: object) -> list[float]:
    items: Any = written if isinstance(written, Sequence) and not isinstance(written, str) else [written]
    try:
        return [float(item) for item in items]
    except (TypeError, ValueError) as error:
        raise SpecError(f"Noise family {name}: parameters are numbers, got {written!r}.") from error


@dataclass(frozen=True)
class Policy:
    """Set a node by a function of other nodes.

    Attributes:
        function: of one argument for each name in ``reads``: the values of N rows in the user's form, a
            tensor (N, *event) or an array of labels. Returns as many rows of the node, or one.
        reads: the nodes it reads, none of them a descendant; the intervened node's own name stands for its
            natural value. Edges from them are drawn.

    Raises:
        InterventionError: ``function`` is no function, or ``reads`` is no list of different names.
    """

    function: Callable[..., Any]
    reads: Sequence[str] = field(kw_only=True)

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise InterventionError(f"Policy takes a function, got a {type(self.function).__name__}.")
        reads = self.reads
        listed = isinstance(reads, Sequence) and not isinstance(reads, str)
        if not listed or not all(isinstance(name, str) for name in reads):
            raise InterventionError(f"Policy reads a list of nodes, as in reads=['x']; got {reads!r}.")
        if len(set(reads)) < len(reads):
            raise InterventionError(f"Policy reads a node twice: {list(reads)}. Name it once.")

    def __str__(self) -> str:
        name = getattr(self.function, "__name__", repr(self.function))
        return f"Policy({name}, reads={list(self.reads)})"


@dataclass(frozen=True)
class Replace:
    """Give a node another mechanism of the same parents, whose numbers out of bounds warn and stay.

    Attributes:
        mechanism: a spec with nothing to fit, such as ``mechanisms.Equation(...)``, or a bound and fitted
            mechanism, such as another model's ``scm.mechanisms["x"]``.
        noise: "keep" the noise that was abducted with the old mechanism, which must have the same leaves, or
            draw it "fresh" from the new mechanism's prior.

    Raises:
        InterventionError: another word for ``noise``, or no mechanism.
    """

    mechanism: MechanismSpec | Mechanism
    noise: Literal["keep", "fresh"] = "keep"

    def __post_init__(self) -> None:
        from mechanisms.base import Mechanism, MechanismSpec

        if self.noise not in ("keep", "fresh"):
            raise InterventionError(f"Replace: noise is 'keep' or 'fresh', got {self.noise!r}.")
        if not isinstance(self.mechanism, MechanismSpec | Mechanism):
            raise InterventionError(
                "Replace takes a mechanism, as in Replace(cg.mechanisms.Equation(value='2*a')); "
                f"got a {type(self.mechanism).__name__}."
            )

    def __str__(self) -> str:
        spec = getattr(self.mechanism, "spec", self.mechanism)
        return f"Replace({spec.kind}, noise={self.noise!r})"


@dataclass(frozen=True)
class Formula:
    """An expression as a function of the values of its names, in their order; it reads at least one.

    ``event`` is the shape of the node's values; a scalar node that is read counts for each of their elements.
    """

    expression: Expression
    event: tuple[int, ...]

    @cached_property
    def _compiled(self) -> Any:
        return self.expression.compile(TORCH)

    def __getstate__(self) -> dict[str, Any]:
        """Without what was compiled, which does not pickle."""
        return {"expression": self.expression, "event": self.event}

    def __call__(self, *values: Tensor) -> Tensor:
        """(N, *event) of values (N, *event) or (N,), categories as codes."""
        columns = {
            name: value.reshape(*value.shape, *[1] * (len(self.event) + 1 - value.ndim))
            for name, value in zip(self.expression.names, values, strict=True)
        }
        return self._compiled(columns).expand(len(values[0]), *self.event)


def parse_assignment(node: str, text: str, variables: Mapping[str, Variable]) -> Formula | Any:
    """What a string in ``do`` means: a label, a number, or a formula of nodes."""
    variable, where = variables[node], f"Intervention on {node!r}"
    labelled = getattr(variable, "labels", None) is not None
    if labelled and _is_label(text, variable):
        return text
    try:
        expression = parse_expression(text, nodes=variables)
    except SpecError as error:
        if labelled:
            variable.encode(text, where=where)
        raise InterventionError(f"{where}: {error}") from error
    if unknown := [name for name in expression.names if name not in variables]:
        if labelled and expression.names == (text,):
            variable.encode(text, where=where)
        if expression.names == (text,) and isinstance(variable, Categorical):
            raise InterventionError(
                f"{where}: {text!r} is no node and no value of a variable that is {variable.describe()}: its "
                f"values are 0 to {variable.size - 1}."
            )
        dashed = [name for name in variables if "-" in name]
        hint = f" No expression can read {dashed[0]!r}: in it, - is minus. Use a Policy." if dashed else ""
        error = UnknownNameError.of("node", unknown[0], variables, where=f"do={{{node!r}: {text!r}}}")
        raise UnknownNameError(f"{error}{hint}")
    if not expression.names:
        if labelled:  # a number is no code where a label is expected
            variable.encode(text, where=where)
        whole = text.strip().isascii() and text.strip().removeprefix("-").isdigit()
        return int(text) if whole else float(expression.evaluate({}))  # no digit of a whole number is lost
    for name in expression.names:
        if (shape := variables[name].event_shape) not in ((), variable.event_shape):
            raise InterventionError(
                f"{where}: the expression {text!r} reads {name!r}, whose values have shape {tuple(shape)}; "
                f"expected () or the node's own, {tuple(variable.event_shape)}. Use a Policy."
            )
    for name in (*expression.names, node):
        if told := getattr(variables[name], "misread", ""):
            raise InterventionError(
                f"{where}: the expression {text!r} would take labels of {name!r} for codes, {told} "
                "Give a function, or a Policy, which see labels."
            )
    return Formula(expression, tuple(variable.event_shape))


def _is_label(text: str, variable: Variable) -> bool:
    try:
        variable.encode(text, where="")
    except DomainError:
        return False
    return True
