"""The one protocol: ``x := f(pa, u)``, a mechanism bound to one variable and its parents.

    u = sample_noise(n)            u ~ p(u)
    x = generate(parents, u)       f(pa, u)
    u = abduct(x, parents).noise   a draw of p(u | x, pa)

Laws (``causalgen.testing.check_mechanism`` holds every mechanism to them):
``generate(pa, abduct(x, pa)) == x``; the noise of abducted data follows the prior; ``log_prob`` is the
density of ``generate``; one row at a time equals all rows at once; the generator alone decides.

Tensors are batch-first, (N, *event), in the variable's canonical encoding: categories int64 codes,
tables float64 in data units, images float32 in [-1, 1]. A root is a mechanism without parents.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from graphs.errors import MechanismError
from graphs.variables import Variable
from mechanisms.training import Training

__all__ = ["Abducted", "Abduction", "Mechanism", "MechanismSpec", "Noise", "Parents"]

Parents = Mapping[str, Tensor]
"""Values of a node's parents by name, each (N, *event of that parent)."""

Abduction = Literal["exact", "posterior", "approximate", "none"]
"""How faithfully a mechanism recovers its noise: the weakest ancestor names a result's provenance."""


@dataclass(frozen=True, eq=False)
class Noise(Mapping[str, Tensor]):
    """Exogenous noise of one node for ``n`` rows: named leaves, each (n, ...); opaque to the engine.

    Whatever a mechanism must remember from abduction travels here; there is no side channel.
    A deterministic node has no leaves, hence the explicit ``n``.
    """

    n: int
    leaves: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, leaf in self.leaves.items():
            if leaf.shape[:1] != (self.n,):
                raise MechanismError(
                    f"Noise leaf {name!r} must have {self.n} rows, got shape {tuple(leaf.shape)}."
                )

    def __getitem__(self, name: str) -> Tensor:
        return self.leaves[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.leaves)

    def __len__(self) -> int:
        return len(self.leaves)

    def rows(self, index: slice | Tensor) -> Noise:
        """The noise of some rows: a slice, or a tensor of row numbers (rows may repeat)."""
        leaves = {name: leaf[index] for name, leaf in self.leaves.items()}
        n = len(range(*index.indices(self.n))) if isinstance(index, slice) else len(index)
        return Noise(n, leaves)

    def repeat(self, times: int) -> Noise:
        """All rows ``times`` times over, sample-major: row r of sample s is row ``s * n + r``."""
        return Noise(
            self.n * times,
            {name: leaf.repeat(times, *[1] * (leaf.ndim - 1)) for name, leaf in self.leaves.items()},
        )

    def to(self, device: torch.device | str) -> Noise:
        """The same noise on a device."""
        return Noise(self.n, {name: leaf.to(device) for name, leaf in self.leaves.items()})

    @staticmethod
    def concat(parts: Sequence[Noise]) -> Noise:
        """Rows of several noises of one mechanism, one after the other; at least one part."""
        if len(parts) == 1:
            return parts[0]
        leaves = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return Noise(sum(part.n for part in parts), leaves)


@dataclass(frozen=True)
class Abducted:
    """A draw of p(u | x, pa) for N rows.

    Attributes:
        noise: the draw.
        log_weight: (N,) log importance weights; None where the draw is exact or deterministic.
        diagnostics: (N,) figures by name, such as an effective sample size.
    """

    noise: Noise
    log_weight: Tensor | None = None
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)


class MechanismSpec(BaseModel, frozen=True, extra="forbid"):
    """The options of a mechanism, as written in an SCM file; ``bind`` makes the mechanism.

    A spec is immutable and compares by value. Subclasses declare ``kind`` as a literal and their
    options, and implement ``make``; those with something to fit give ``training`` a default.
    """

    kind: str
    training: Training | None = None

    def bind(self, variable: Variable, parents: Mapping[str, Variable]) -> Mechanism:
        """The mechanism with these options, for one variable and its parents in declared order.

        Initial weights are always the same, and the global random state is left as it was.

        Raises:
            MechanismError: the options do not fit the variable or its parents.
        """
        # Layers draw their initial weights from the global state: lend them one of their own.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            return self.make(variable, parents)

    def make(self, variable: Variable, parents: Mapping[str, Variable]) -> Mechanism:
        """What ``bind`` returns; subclasses implement it and may build layers freely."""
        raise NotImplementedError


class Mechanism(nn.Module, ABC):
    """``x := f(pa, u)`` for one variable and its parents.

    Subclasses are final: they compose parts and implement the four abstract methods. What only some
    mechanisms can do has a default that returns None, "I cannot".

    Attributes:
        spec: the options it was bound with.
        variable: the variable it generates.
        parents: its parents' variables, in declared order; empty for a root.
        abduction: how faithfully ``abduct`` recovers the noise, with these options.
        deterministic: True where abduction is one point, so that S draws are one.
        chunk_rows: most rows the engine passes in one call, None for no limit (memory).
    """

    abduction: Abduction = "exact"
    deterministic: bool = True
    chunk_rows: int | None = None
    fitted_flag: Tensor

    def __init__(self, spec: MechanismSpec, variable: Variable, parents: Mapping[str, Variable]) -> None:
        super().__init__()
        self.spec = spec
        self.variable = variable
        self.parents = dict(parents)
        # A buffer, so that it is saved and loaded with the weights.
        self.register_buffer("fitted_flag", torch.tensor(spec.training is None))

    @abstractmethod
    def sample_noise(self, n: int, *, generator: torch.Generator) -> Noise:
        """``n`` rows of u ~ p(u)."""

    @abstractmethod
    def generate(self, parents: Parents, noise: Noise) -> Tensor:
        """x = f(pa, u): (N, *event) in canonical encoding."""

    @abstractmethod
    def abduct(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Abducted:
        """A draw of p(u | x, pa) for each row."""

    def prepare(self, value: Tensor, parents: Parents) -> None:
        """See all training rows once, before fitting: standardising, class counts."""

    def solve(self, value: Tensor, parents: Parents) -> bool:
        """Fit in closed form; True where that is all the fitting there is, False to train by ``loss``."""
        return False

    def loss(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Tensor:
        """(N,) what the fitting loop minimises; the default is -log p(x | pa)."""
        log_prob = self.log_prob(value, parents)
        if log_prob is None:
            raise MechanismError(
                f"Mechanism {self.spec.kind!r} has neither a loss nor a log_prob: nothing to fit."
            )
        return -log_prob

    def validate(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Mapping[str, float]:
        """Further figures on held-out rows for the fit report, by name; most mechanisms have none."""
        return {}

    def log_prob(self, value: Tensor, parents: Parents) -> Tensor | None:
        """(N,) log p(x | pa), or None where the mechanism has no tractable density."""
        return None

    @property
    def fitted(self) -> bool:
        """Whether it can generate: it was fitted or loaded, or there is nothing to fit."""
        return bool(self.fitted_flag)

    def mark_fitted(self) -> None:
        """Called by the fitting loop at its end."""
        self.fitted_flag.fill_(True)
