"""What takes a node's place under the do-operator: a value, a function of other values, or a law.

    x := value          atomic intervention, whatever the parents
    x := g(a, b, x°)    conditional intervention, a function of other nodes and of the natural value x°
    x := u              stochastic intervention, u ~ a given law: drawn afresh for every row and sample

The natural value is what the node would have been. A function that reads it splits the node (Richardson &
Robins 2013, single-world intervention graphs): the natural half keeps the node's mechanism and noise, the
other half, which the children see, is this function of it. Functions work in the user's form (data units,
images in [0, 1], labels); rows that they return unchanged keep their natural value bit for bit, so that the
identity is no intervention.

Draws come from the given generator alone: directly for the families of ``mechanisms.tables.noise_families``;
for a Pyro or torch distribution, which knows no generator, by ``global_draws_from``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from math import prod
from typing import Any, Literal, final

import numpy as np
import torch
from pydantic import field_validator
from torch import Generator, Tensor
from torch.distributions import Categorical as Categories
from torch.distributions import Distribution

from graphs.errors import DomainError, EvidenceError, InterventionError, MechanismError, ShapeError
from graphs.variables import Categorical, Continuous, Image, Integer, Variable
from graphs.variables.arrays import as_array
from graphs.variables.numeric import limits
from mechanisms.base import INTERVENED, Abducted, InterventionSpec, Mechanism, MechanismSpec, Noise, Parents
from mechanisms.extrapolation import warn_unseen
from mechanisms.rows import function_of_rows, where_rows, within_spread
from mechanisms.seeds import global_draws_from
from mechanisms.tables.noise_families import NoiseLaw

__all__ = [
    "Constant",
    "ConstantMechanism",
    "Drawn",
    "Function",
    "FunctionMechanism",
    "Noiseless",
    "StochasticMechanism",
]

_TOLERANCE = 1e-6
"""How far evidence may be from what an earlier ``do`` gave, in parts of the largest number that enters it."""


class Constant(MechanismSpec, frozen=True):
    """A node set to one value.

    Attributes:
        value: one value of the variable, in the user's form: a number, a category or its label, nested
            lists of the event's shape. None where the rows were given as a tensor
            (``ConstantMechanism.of``), which no file can say.
    """

    kind: Literal["constant"] = "constant"
    training: None = None
    value: Any = None

    @field_validator("value")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        # Arrays and tensors become lists: a spec compares by value and can be written to a file.
        return value.tolist() if hasattr(value, "tolist") else value

    def why_unwritable(self) -> str | None:
        """An intervention gave it rows."""
        return INTERVENED if self.value is None else None

    def make(self, variable: Variable, parents: Mapping[str, Variable]) -> ConstantMechanism:
        """The mechanism for one variable.

        Raises:
            MechanismError: there is no value.
            DomainError: the value is not in the variable's domain.
        """
        if self.value is None:
            raise MechanismError("Mechanism 'constant' needs a value: {kind: constant, value: ...}.")
        rows = torch.as_tensor(variable.encode(self.value, where="Constant value"))
        if len(rows) != 1:
            raise ShapeError(f"Constant value must be one value of the variable, got {len(rows)} rows.")
        return ConstantMechanism(self, variable, parents, rows)


class Noiseless(Mechanism):
    """What an intervention puts in a node's place: a value that no noise enters, of all rows at once."""

    abduction = "exact"
    deterministic = True
    chunk_rows = None

    def sample_noise(self, n: int, *, generator: torch.Generator) -> Noise:
        """No leaves: there is no noise."""
        return Noise(n)

    def abduct(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Abducted:
        """No noise. The value is not compared: an intervened node may have had any. See ``check``."""
        return Abducted(Noise(len(value)))

    def _refuse_others(self, value: Tensor, parents: Parents, what: str) -> None:
        """Refuse evidence, (N, *event), where an earlier ``do`` gave another value, rounding left aside."""
        expected = self.generate(parents, Noise(len(value))).to(value.device)
        apart = (value.double() - expected.double()).abs().reshape(len(value), -1).amax(1)
        read = [each.abs().double() for each in (expected, *parents.values()) if each.is_floating_point()]
        size = torch.stack([each.reshape(len(value), -1).amax(1) for each in read]).amax(0) if read else 0.0
        # Half a grey level, for pictures that a file rounded.
        slack = 1.01 / 255 if isinstance(self.variable, Image) else _TOLERANCE * size
        if isinstance(self.variable, Categorical | Integer):
            slack = 0.0  # whole numbers are not rounded
        same = apart <= slack
        if bool(same.all()):
            return
        row = int((~same).nonzero()[0])
        few = value[row].numel() <= 8
        want, got = (each[row].tolist() if few else "another value" for each in (expected, value))
        raise EvidenceError(
            f"Row {row}: the model says {want} ({what} by an earlier do), got {got}. Correct the evidence, "
            "leave this node out of it, or ask the model without that do."
        )


@final
class ConstantMechanism(Noiseless):
    """``x := rows``: one value for every row, or row r for row r."""

    restricts = True
    rows: Tensor

    def __init__(
        self, spec: Constant, variable: Variable, parents: Mapping[str, Variable], rows: Tensor
    ) -> None:
        super().__init__(spec, variable, parents)
        # Not saved: the spec holds it.
        self.register_buffer("rows", rows, persistent=False)

    @classmethod
    def of(cls, variable: Variable, rows: Tensor) -> ConstantMechanism:
        """A node without parents set to ``rows``, (1, *event) or (N, *event) in canonical encoding."""
        if tuple(rows.shape[1:]) != tuple(variable.event_shape) or rows.ndim == 0:
            raise ShapeError(
                f"Constant rows must have shape (N, *{tuple(variable.event_shape)}), got {tuple(rows.shape)}."
            )
        return cls(Constant(), variable, {}, rows)

    def generate(self, parents: Parents, noise: Noise) -> Tensor:
        """The value: (N, *event), a view."""
        rows = self.rows.to(getattr(torch, self.variable.dtype))
        if len(rows) == 1:
            return rows.expand(noise.n, *rows.shape[1:])
        if len(rows) != noise.n:
            raise MechanismError(f"Constant holds {len(rows)} rows, but {noise.n} were asked for.")
        return rows

    def check(self, value: Tensor, parents: Parents) -> None:
        """Compare the value with what the node was set to, within rounding."""
        self._refuse_others(value, {}, "set")


class Function(InterventionSpec, frozen=True):
    """A function that only the running program knows."""

    kind: Literal["function"] = "function"


@final
class FunctionMechanism(Noiseless):
    """``x := g(...)`` of the parents' values; where it reads x°, the node's natural half is one of them."""

    restricts = True

    def __init__(
        self,
        node: str,
        variable: Variable,
        parents: Mapping[str, Variable],
        function: Callable[..., Any],
        *,
        natural: str | None = None,
        codes: bool = False,
        clip: bool = False,
    ) -> None:
        """Bind a function of one argument a parent, in their order, to a node.

        It takes the user's values of N rows, a tensor (N, *event) or an array of labels, and returns as many
        rows of the node, or one. ``natural`` is the parent that is the node's natural half, if any. ``codes``
        shows labelled categories as their codes, and takes codes for them; ``clip`` moves what is out of
        bounds onto the bound.
        """
        super().__init__(Function(), variable, parents)
        self.node, self.function, self.natural, self.codes, self.clip = node, function, natural, codes, clip

    def generate(self, parents: Parents, noise: Noise) -> Tensor:
        """g of the parents' values, checked against the variable's domain."""
        where = f"Intervention on {self.node!r}: the function's value"
        returned = self._returned(parents)
        same = self._unchanged(parents, returned, where)
        if same is not None and bool(same.all()):
            assert self.natural is not None
            return parents[self.natural]
        encoded = self._encode(returned, where)
        if len(encoded) not in (1, noise.n):
            raise DomainError(f"{where} must have 1 row or {noise.n}, got {len(encoded)}.")
        value = torch.as_tensor(encoded, device=self.fitted_flag.device)
        value = value.expand(noise.n, *value.shape[1:])
        if not self.codes:  # an expression is of each row by itself
            self._refuse_mixing(parents, value, where)
        if same is None:
            warn_unseen(value, self.seen_range, self.variable, where=where)
            return value
        assert self.natural is not None
        same = same.to(value.device)
        warn_unseen(value, self.seen_range, self.variable, where=where, rows=~same)
        return where_rows(same, parents[self.natural], value)

    def check(self, value: Tensor, parents: Parents) -> None:
        """Compare the value with the function's, within rounding."""
        self._refuse_others(value, parents, "a function set")

    def _returned(self, parents: Parents, rows: slice = slice(None)) -> Any:
        """What the function makes of some rows."""
        forms = [self._form(each) for each in self.parents.values()]
        return function_of_rows(self.function, forms, *(parents[name][rows] for name in self.parents))

    def _refuse_mixing(self, parents: Parents, value: Tensor, where: str) -> None:
        """Refuse a function that gives a row another value beside other rows, as with a mean of them all.

        One that draws random numbers, or takes as many rows as there are, cannot be told.
        """

        def unlike(rows: slice) -> int:
            alone = torch.as_tensor(self._encode(self._returned(parents, rows), where)).to(value).double()
            beside = value[rows].double()
            if len(alone) not in (1, len(beside)):
                return 0
            slack = 1e-4 * (beside.abs() + beside.abs().median())
            if not isinstance(self.variable, Image):
                slack = within_spread(slack, value)
            return int(((alone - beside).abs() > slack).reshape(len(beside), -1).any(1).sum())

        few = len(value) <= 8
        parts = [slice(row, row + 1) for row in range(len(value))] if few else [slice(8), slice(64)]
        try:
            # Beside other rows a network rounds in another way, and one row may lie that close to a limit.
            if not any(unlike(part) > (not few) for part in parts) or unlike(slice(None)):
                return
        except Exception:
            return
        raise InterventionError(
            f"{where} of a row is another beside other rows: it must follow from the row alone. A mean or a "
            "rank of all rows is found before, as in lambda x: x - 3.2."
        )

    def _encode(self, returned: Any, where: str) -> Any:
        form = self._form(self.variable)
        return form.encode_clipped(returned, where=where) if self.clip else form.encode(returned, where=where)

    def _form(self, variable: Variable) -> Variable:
        """How the function sees a variable."""
        return Categorical(variable.size) if self.codes and isinstance(variable, Categorical) else variable

    def _unchanged(self, parents: Parents, returned: Any, where: str) -> Tensor | None:
        """Which rows the function returned as they naturally were, (N,); None where it cannot be told."""
        if self.natural is None:
            return None
        natural = as_array(self._form(self.variable).decode(parents[self.natural]), where=where)
        after = as_array(returned, where=where)
        if after.shape != natural.shape:
            return None
        try:
            same = np.asarray(natural == after)
        except TypeError:  # of pandas' NA, which is refused
            return None
        return torch.as_tensor(same).reshape(len(natural), -1).all(1)


class Drawn(InterventionSpec, frozen=True):
    """A law that only the running program knows."""

    kind: Literal["drawn"] = "drawn"


@final
class StochasticMechanism(Mechanism):
    """``x := u``. Noise: leaf "value", (N, *event) float64 in the user's form, categories as codes."""

    abduction = "exact"
    deterministic = True
    restricts = True
    chunk_rows = None

    def __init__(
        self, node: str, variable: Variable, law: NoiseLaw | Distribution, *, clip: bool = False
    ) -> None:
        """Bind the law of one value to a node; ``clip`` moves what is out of bounds onto the bound.

        A family of one number fills a larger event with independent draws.
        """
        super().__init__(Drawn(), variable, {})
        self.where, self.clip = f"Intervention on {node!r}: the drawn value", clip
        self.law = law if isinstance(law, NoiseLaw) else _of_one_value(law, variable, node)
        misread = variable.misread if isinstance(variable, Categorical) else ""
        if misread and not (isinstance(law, Categories) or getattr(law, "name", "") == "categorical"):
            raise InterventionError(
                f"Intervention on {node!r}: draws of {law} would be taken for codes, {misread} Give each "
                "category its probability, in their order: {'categorical': [...]}."
            )
        # Draws are numbers: codes, also where categories have labels.
        self.form = Categorical(variable.size) if isinstance(variable, Categorical) else variable

    def sample_noise(self, n: int, *, generator: Generator) -> Noise:
        """``n`` draws."""
        if isinstance(self.law, NoiseLaw):
            event = self.variable.event_shape
            return Noise(n, {"value": self.law.sample(n * prod(event), generator).reshape(n, *event)})
        with global_draws_from(generator), torch.no_grad():
            drawn = self.law.sample(torch.Size((n,)))
        return Noise(n, {"value": drawn.to(generator.device, torch.float64)})

    def generate(self, parents: Parents, noise: Noise) -> Tensor:
        """The draws, checked against the variable's domain."""
        drawn = noise["value"]
        encode = self.form.encode_clipped if self.clip else self.form.encode
        value = torch.as_tensor(encode(drawn, where=self.where), device=drawn.device)
        warn_unseen(value, self.seen_range, self.variable, where=self.where)
        return value

    def abduct(self, value: Tensor, parents: Parents, *, generator: Generator) -> Abducted:
        """The value is the draw."""
        return Abducted(Noise(len(value), {"value": torch.as_tensor(self.form.decode(value)).double()}))

    def check(self, value: Tensor, parents: Parents) -> None:
        """Refuse a value outside of what the law draws, within rounding."""
        drawn = torch.as_tensor(self.form.decode(value)).double()
        slack = _TOLERANCE * drawn.abs()
        possible = [_supports(self.law, drawn + each) for each in (-slack, 0.0, slack)]
        known = torch.stack(possible).any(0)
        if self.clip and isinstance(self.variable, Continuous | Integer):
            low, high = limits(self.variable)
            known = known | ((drawn == low) | (drawn == high)).reshape(len(drawn), -1).all(1)
        if not bool(known.all()):
            row = int((~known).nonzero()[0])
            got = value[row].tolist() if value[row].numel() <= 8 else "another value"
            raise EvidenceError(
                f"Row {row}: the model draws from {self.law} (set by an earlier do), which cannot give {got}."
                " Correct the evidence, leave this node out of it, or ask the model without that do."
            )


def _supports(law: NoiseLaw | Distribution, drawn: Tensor) -> Tensor:
    """Whether a law may give draws, (N,); True where it does not tell."""
    found = torch.ones(len(drawn), dtype=torch.bool, device=drawn.device)
    if isinstance(law, NoiseLaw):
        found = law.supports(drawn)
    else:
        with suppress(NotImplementedError):  # some of torch's have no support
            support = law.support
            found = found if support is None else support.check(drawn)
    return found.reshape(len(drawn), -1).all(1)


def _of_one_value(distribution: Distribution, variable: Variable, node: str) -> Distribution:
    shape = tuple(distribution.batch_shape + distribution.event_shape)
    if shape != tuple(variable.event_shape):
        raise ShapeError(
            f"Intervention on {node!r}: the distribution draws values of shape {shape}, the variable's are "
            f"{tuple(variable.event_shape)}. Give the distribution of one value; every row gets its own draw."
        )
    with suppress(NotImplementedError):  # some of torch's have no moments
        mean, deviation = distribution.mean, distribution.stddev
        single = mean.is_floating_point() and mean.dtype != torch.float64
        step = (torch.finfo(mean.dtype).eps if single else 0.0) * mean.abs()
        if bool(((step > 0.01 * deviation) & (deviation > 0)).any()):
            which = int((step / deviation).nan_to_num(0.0).argmax())
            told, apart, wide = (each.reshape(-1)[which].item() for each in (mean, step, deviation))
            raise InterventionError(
                f"Intervention on {node!r}: draws near {told:g} of a {type(distribution).__name__} in "
                f"{mean.dtype} are {apart:.3g} apart, where they deviate by {wide:g}. Give its parameters in "
                "float64, as by torch.tensor(..., dtype=torch.float64), or a family, as {'normal': [0, 1]}."
            )
    return distribution
