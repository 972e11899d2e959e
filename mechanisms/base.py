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
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from graphs.declared import Declared
from graphs.errors import MechanismError
from graphs.text import counted
from graphs.variables import Categorical, Integer, Variable
from mechanisms.extrapolation import common_range
from mechanisms.networks import first_non_finite, reproducible_initialisation
from mechanisms.rows import repeat_rows
from mechanisms.training import Stage, Training

if TYPE_CHECKING:
    from pyro.distributions import TorchDistribution

__all__ = [
    "Abducted",
    "Fidelity",
    "INTERVENED",
    "InterventionSpec",
    "LinearForm",
    "Mechanism",
    "MechanismSpec",
    "Noise",
    "Parents",
]

INTERVENED = "it was intervened on, which no file can say. Write the model before the intervention."
"""Why the mechanism of an intervention is not written."""

Parents = Mapping[str, Tensor]
"""Values of a node's parents by name, each (N, *event of that parent)."""

Fidelity = Literal["exact", "posterior", "approximate", "none"]
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
            if not leaf.ndim or leaf.shape[0] != self.n:
                raise MechanismError(
                    f"Noise leaf {name!r} must have {self.n} rows, got shape {tuple(leaf.shape)}."
                )

    def __getitem__(self, name: str) -> Tensor:
        return self.leaves[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.leaves)

    def __len__(self) -> int:
        return len(self.leaves)

    def __repr__(self) -> str:
        leaves = ", ".join(f"{name} {tuple(leaf.shape)}" for name, leaf in self.leaves.items())
        return f"Noise({counted(self.n, 'row')}: {leaves or 'no leaves'})"

    def rows(self, index: slice | Tensor) -> Noise:
        """The noise of some rows: a slice, or a tensor of row numbers (rows may repeat)."""
        leaves = {name: leaf[index] for name, leaf in self.leaves.items()}
        n = len(range(*index.indices(self.n))) if isinstance(index, slice) else len(index)
        return Noise(n, leaves)

    def repeat(self, times: int) -> Noise:
        """All rows ``times`` times over, sample-major: row r of sample s is row ``s * n + r``."""
        return Noise(self.n * times, {name: repeat_rows(leaf, times) for name, leaf in self.leaves.items()})

    def clone(self) -> Noise:
        """A copy, to be changed."""
        return Noise(self.n, {name: leaf.clone() for name, leaf in self.leaves.items()})

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
    """A draw of p(u | x, pa) for N rows."""

    noise: Noise  #: the draw
    #: (N,) log importance weights; None where the draw is exact or deterministic
    log_weight: Tensor | None = None
    #: (N,) figures by name, such as an effective sample size
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class LinearForm:
    """A mechanism that is affine in some parents with normal noise, as exact Gaussian inference needs it.

        x = offset(known parents) + sum over unknown parents of weight_k pa_k + u,    u ~ N(0, covariance)

    Float64; values of any event shape are flattened. Weights and covariance have a leading dimension of 1
    where they are the same in every row, or of N where they depend on the known parents.
    """

    weights: Mapping[str, Tensor]  # of the unknown parents by name, (1 or N, width, width of the parent)
    offset: Tensor  # (N, width)
    covariance: Tensor  # (1 or N, width, width); zero for a deterministic node


class MechanismSpec(Declared, frozen=True):  # pyright: ignore[reportGeneralTypeIssues]
    """The options of a mechanism, as written in an SCM file; ``bind`` makes the mechanism.

    A spec is immutable and compares by value. Subclasses declare ``kind`` as a literal and their
    options, and implement ``make``; those with something to fit give ``training`` a default, and name in
    ``learned`` the options that say what fitted weights mean, as in "prediction" or "code.nats". Mappings
    named in ``whole`` are no parts with options: ``scm.with_options`` takes them as they are given.
    """

    learned: ClassVar[tuple[str, ...]] = ()
    whole: ClassVar[tuple[str, ...]] = ()
    kind: str
    training: Training | None = None

    def bind(self, variable: Variable, parents: Mapping[str, Variable]) -> Mechanism:
        """The mechanism with these options, for one variable and its parents in declared order.

        Initial weights are always the same, and the global random state is left as it was.

        Raises:
            MechanismError: the options do not fit the variable or its parents.
        """
        with reproducible_initialisation():
            made = self.make(variable, parents)
        for name in ("abduction", "deterministic"):
            if not hasattr(made, name):
                raise MechanismError(
                    f"{type(made).__name__} does not declare {name!r}: say how faithfully it abducts, as in "
                    "abduction = 'exact' and deterministic = True, in the class or in its constructor."
                )
        return made

    def candidates(self, variable: Variable, parents: Mapping[str, Variable]) -> tuple[MechanismSpec, ...]:
        """Specs of which fitting chooses one by held-out log-likelihood, the least flexible first.

        Where there are some, the fitted node is of the chosen spec. Most specs stand for themselves: none.
        """
        return ()

    def as_saved(self) -> MechanismSpec:
        """These options as a saved model means them, whose file says all that ``bind`` would choose today."""
        return self

    def why_unwritable(self) -> str | None:
        """Why no file can say these options, or None where one can."""
        return None

    @abstractmethod
    def make(self, variable: Variable, parents: Mapping[str, Variable]) -> Mechanism:
        """What ``bind`` returns; subclasses implement it and may build layers freely."""


class InterventionSpec(MechanismSpec, frozen=True):
    """What only the running program knows of a node that was intervened on: no file can say it."""

    training: None = None

    def make(self, variable: Variable, parents: Mapping[str, Variable]) -> Mechanism:
        """Refused: an intervention makes this mechanism."""
        raise MechanismError(f"A mechanism of kind {self.kind!r} comes from an intervention alone.")

    def why_unwritable(self) -> str | None:
        """An intervention made it."""
        return INTERVENED


class Mechanism(nn.Module, ABC):
    """``x := f(pa, u)`` for one variable and its parents.

    Subclasses are final: they compose parts, declare ``abduction`` and ``deterministic`` and implement the
    three abstract methods. What only some mechanisms can do has a default that returns None, "I cannot".
    """

    abduction: Fidelity  #: how faithfully ``abduct`` recovers the noise, with these options; no default
    deterministic: bool  #: True where abduction is one point, so that S draws are one; no default
    estimated: bool = False  #: whether ``log_prob`` is an estimate by simulation; see ``likelihood``
    #: Whether ``check`` can refuse a value: some value of the variable has no noise
    restricts: bool = False
    least_rows: int = 1  #: fewest rows that it can be fitted to
    #: Whether ``log_prob`` is of the numbers that it was fitted to alone: others of their law may be missing
    resamples: bool = False
    has_loss: bool = True  #: whether ``loss`` tells how well it fits, and belongs in the report of a fit
    #: Most rows the engine passes in one call, so that all between stays in cache; None: all
    chunk_rows: int | None = 65_536
    chosen_from: MechanismSpec | None = None  #: the spec among whose candidates this one was chosen
    remedy: str = "Call scm.fit(data) first."  #: what to do where it is not fitted, in sentences
    note: str = ""  #: what a listing says beside its kind, such as the licence of pretrained weights
    awaits_weights: bool = False  #: whether a saved model may come without its state, which is got elsewhere
    brought: tuple[str, ...] = ()  #: with what the names of weights begin that came with its options
    log_probabilities: ClassVar[Collection[str]] = ()  #: of its state, what may be -inf; all else is finite
    fitted_flag: Tensor
    seen_range: Tensor | None  #: (2, *event), or categories (K,) bool, that fitting saw; None of images
    #: (1 + P,) bool, whether experiments set it, and changed each parent's law, in its rows; None for none
    experiments: Tensor | None

    def __init__(self, spec: MechanismSpec, variable: Variable, parents: Mapping[str, Variable]) -> None:
        super().__init__()
        self.spec = spec  #: the options it was bound with
        self.variable = variable  #: what it generates
        self.parents = dict(parents)  #: its parents' variables, in declared order; empty for a root
        # A buffer, so that it is saved and loaded with the weights.
        usual = type(spec).model_fields["training"].get_default(call_default_factory=True)
        self.register_buffer("fitted_flag", torch.tensor(spec.training is None and usual is None))
        self.register_buffer("seen_range", None)
        self.register_buffer("experiments", None)
        self._known_fitted = False
        self._known_interval: tuple[float, float] | None = None

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

    def unfittable(self, value: Tensor, parents: Parents) -> tuple[Tensor, str] | None:
        """Rows that it cannot be fitted to, (N,) bool, with reason and remedy; None where there are none.

        Asked for all rows of every node of numbers or categories before any is fitted: cheap checks only.
        """
        return None

    def solve(self, value: Tensor, parents: Parents) -> bool:
        """Fit in closed form; True where that is all the fitting there is, False to train by ``loss``.

        Called, after ``prepare``, for a part of the rows (to measure the fit on the others) and then for all.
        """
        return False

    def first_stage(self) -> Stage | None:
        """A part that is trained before the rest by ``loss``, where there is one."""
        return None

    def finish(self, value: Tensor, parents: Parents) -> None:
        """See all rows, or of images some thousands, once more after training, held-out ones too."""

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

    def atomic(self, value: Tensor, parents: Parents) -> Tensor | None:
        """(N,) bool, in which rows ``log_prob`` is the log of a probability (an atom), not of a density.

        An atom is a value of positive probability, given its parents. None where the kind of variable
        decides: categories and whole numbers are atoms, real numbers are not.
        """
        return None

    def likelihood(
        self, value: Tensor, parents: Parents, *, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None] | None:
        """(N,) log p(x | pa) and ``atomic``, to weigh proposals of parents by; None without a density.

        Where ``log_prob`` is an estimate this one is drawn anew for each row: p is unbiased, and errors of
        rows are independent, so that they average out over proposals (Andrieu & Roberts 2009, "The
        pseudo-marginal approach for efficient Monte Carlo computations").
        """
        log_prob = self.log_prob(value, parents)
        return None if log_prob is None else (log_prob, self.atomic(value, parents))

    def check(self, value: Tensor, parents: Parents) -> None:
        """Refuse a value that no noise gives. The default, where every value has its noise, does nothing.

        Raises:
            EvidenceError: no noise gives a row's value; the message names the row.
        """
        return

    def linear_form(self, unknown: Collection[str], known: Parents, rows: int) -> LinearForm | None:
        """x as affine in some of its parents with normal noise, where it is; the default is not.

        Args:
            unknown: names of the parents it is to be affine in.
            known: values of the others, (N, *event).
            rows: N.
        """
        return None

    def support(self) -> Tensor | None:
        """(K,) every value that a node of few values may have, or None."""
        if isinstance(self.variable, Categorical):
            return torch.arange(self.variable.size)
        values = self.variable.values if isinstance(self.variable, Integer) else None
        return None if values is None else torch.tensor(values, dtype=torch.float64)

    def log_prob_of_parents(self, value: Tensor, parents: Parents) -> Tensor | None:
        """log q(pa | x), all parents jointly, as an anticausal predictor has it; up to a constant; else None.

        Args:
            value: x, (N, *event).
            parents: (R * N, *event): R proposals for each row, proposal-major.

        Returns:
            (R * N,). Less the log of the parents' joint law in training, it is log p(x | pa) up to a term
            in x alone.
        """
        return None

    def read(self, value: Tensor) -> Mapping[str, Tensor]:
        """What it reads of its parents in values, as an anticausal predictor does; empty where it cannot.

        A function of the value alone: nothing of what was asked for can enter. Whoever reads here has learned
        from the same rows as what generates, and is no independent judge of it.

        Args:
            value: x, (N, *event).

        Returns:
            (N, *event of the parent) by name, of those parents that it reads, in canonical encoding.
        """
        return {}

    def distribution(self, parents: Parents, rows: int) -> TorchDistribution | None:
        """p(x | pa) as a Pyro distribution of batch shape (N,) whose log_prob is this one's, or None.

        ``scm.to_pyro()`` makes it the node's site, which can then be conditioned on. None where there is no
        such distribution; a node that has a ``log_prob`` still becomes a site. ``rows`` is N.
        """
        return None

    @property
    def fitted(self) -> bool:
        """Whether it can generate: it was fitted or loaded, or there is nothing to fit."""
        # Remembered: every question asks each node, and reading the buffer costs more than the answer.
        if not self._known_fitted:
            self._known_fitted = bool(self.fitted_flag)
        return self._known_fitted

    @property
    def seen_interval(self) -> tuple[float, float] | None:
        """``seen_range`` of a single number as floats, else None."""
        if self._known_interval is None:  # remembered, as ``fitted`` is
            seen = self.seen_range
            if seen is not None and seen.is_floating_point() and seen.ndim == 1:
                low, high = seen.tolist()
                self._known_interval = low, high
        return self._known_interval

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return self.fitted_flag.device

    @property
    def large_networks(self) -> tuple[nn.Module, ...]:
        """Networks that may have weights of 16 bits and compute in them (``SCM.to``); most have none."""
        return ()

    def mark_fitted(self) -> None:
        """Called by the fitting loop at its end."""
        self.fitted_flag.fill_(True)

    def non_finite(self) -> str | None:
        """Which tensor of its state holds NaN, or infinity where it means nothing, in words; or None."""
        return first_non_finite(self.state_dict(), self.log_probabilities, unknown=("seen_range",))

    def record_range(self, value: Tensor) -> None:
        """Called by the fitting loop with all rows, (N, *event): remember where they lie."""
        self._known_interval = None
        if isinstance(self.variable, Categorical):
            self.seen_range = torch.bincount(value, minlength=self.variable.size) > 0
        elif self.variable.type in ("continuous", "integer"):
            self.seen_range = torch.stack(tuple(value.aminmax(dim=0)))

    def narrow_range(self, value: Tensor) -> None:
        """Called with the rows, (N, *event), that a child was fitted to, where it left some out."""
        before = self.seen_range
        self.record_range(value)
        if before is not None and self.seen_range is not None:
            self.seen_range = common_range(before, self.seen_range)

    def _empty_range(self) -> Tensor:
        """A ``seen_range`` to load into."""
        if isinstance(self.variable, Categorical):
            return torch.empty(self.variable.size, dtype=torch.bool, device=self.device)
        dtype = getattr(torch, self.variable.dtype)
        return torch.empty(2, *self.variable.event_shape, dtype=dtype, device=self.device)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        self._known_fitted, self._known_interval = False, None
        # A buffer is loaded where there is one, and a mechanism that was never fitted has no range.
        ranged, marked = (f"{prefix}{name}" in state_dict for name in ("seen_range", "experiments"))
        self.seen_range = self._empty_range() if ranged else None
        self.experiments = self.fitted_flag.repeat(1 + len(self.parents)) if marked else None
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
