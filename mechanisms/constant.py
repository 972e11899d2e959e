"""The do-operator's ``x := value``, whatever the parents: a constant takes a node's place. No noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, final

import torch
from pydantic import field_validator
from torch import Tensor

from graphs.errors import EvidenceError, MechanismError, ShapeError
from graphs.variables import Variable
from mechanisms.base import INTERVENED, Abducted, Mechanism, MechanismSpec, Noise, Parents

__all__ = ["Constant", "ConstantMechanism", "Noiseless"]


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

    def _refuse_others(self, value: Tensor, expected: Tensor, same: Tensor, what: str) -> None:
        """Refuse evidence, (N, *event), in whose rows an earlier ``do`` gave another value."""
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
        """Compare the value with what the node was set to."""
        expected = self.generate(parents, Noise(len(value))).to(value.device)
        same = (value == expected).reshape(len(value), -1).all(1)
        self._refuse_others(value, expected, same, "set")
