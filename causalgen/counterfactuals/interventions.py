"""The do-operator's arguments: what ``do`` says about a node, as the mechanism that takes the node's place.

do={"x": 5}                    one value for every row
do={"x": [5, 6, 7]}            one value a row
do={"x": "x + 2*a"}            an expression of other nodes; its own name is its natural value
do={"x": lambda x: x + 1}      a function of the node's natural value in the counterfactual world
do={"x": Shift(1)}             and whatever else ``causalgen.counterfactuals.assignments`` offers

``WorldRef("x0")["m"]``, the value of node m in the world called x0, stands there wherever the worlds of a
question have names, as nested counterfactuals need; see ``causalgen.counterfactuals.nested``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networkx import shortest_path
from numpy.typing import NDArray
from torch.distributions import Distribution

from causalgen.counterfactuals.assignments import (
    Formula,
    Policy,
    Replace,
    Scale,
    Shift,
    Stochastic,
    parse_assignment,
)
from causalgen.counterfactuals.evidence import read_pictures
from causalgen.data.frames import first_other, refuse_other_index
from causalgen.data.pictures import ENDINGS
from graphs.causal_graph import CausalGraph
from graphs.errors import CycleError, InterventionError, UnknownNameError
from graphs.variables import Categorical, Image, Variable
from mechanisms.base import Mechanism, MechanismSpec
from mechanisms.extrapolation import warn_unseen
from mechanisms.intervened import ConstantMechanism, FunctionMechanism, StochasticMechanism

__all__ = ["Intervention", "Origin", "WorldRef", "WorldValue", "interventions", "refuse_circle"]

_NATURAL = "--natural"


@dataclass(frozen=True)
class WorldValue:
    """The value of a node in another world, row by row and sample by sample."""

    world: str
    node: str

    def __repr__(self) -> str:
        return f"WorldRef({self.world!r})[{self.node!r}]"


@dataclass(frozen=True)
class WorldRef:
    """Another world of the same question, by name; ``WorldRef("x0")["m"]`` is the value of node m there.

    It stands as a value in ``do`` wherever worlds have names: in ``Abduction.worlds``, ``Abduction.contrast``
    and ``SCM.effect``. In the last two, "do" and "versus" are the two worlds compared, and "factual" is the
    one without intervention.

    Raises:
        InterventionError: the name is no string.
    """

    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise InterventionError(
                f"WorldRef takes the name of a world, as in WorldRef('x0'); got {self.name!r}."
            )

    def __getitem__(self, node: str) -> WorldValue:
        if not isinstance(node, str):
            raise InterventionError(f"{self!r} is indexed by a node, as in {self!r}['x']; got {node!r}.")
        return WorldValue(self.name, node)

    def __repr__(self) -> str:
        return f"WorldRef({self.name!r})"


@dataclass(frozen=True)
class Origin:
    """Where the values of a node's B rows come from, as codes; see ``causalgen.counterfactuals.provenance``.

    (B,), or one for all rows, ().
    """

    told: NDArray[np.integer]  # the provenance
    inherited: NDArray[np.integer]  # what children inherit: of a node that was set, of what it was set by
    drawn: NDArray[np.integer]  # 1 where another seed may give another value, else 0


@dataclass(frozen=True)
class Intervention:
    """What takes a node's place."""

    mechanism: Mechanism  # the node's new mechanism
    text: str  # what was asked, for listings
    parents: tuple[str, ...] = ()  # what the mechanism reads, in its order
    natural: str | None = None  # name of the node's natural half, where the mechanism reads it
    keeps_noise: bool = False  # whether the mechanism takes the noise that was abducted for the node
    rows: int = 1  # number of rows it has values for; 1 serves any number
    origin: Origin | None = None  # where the values come from in another world, whose they are


def interventions(
    do: Mapping[str, Any],
    graph: CausalGraph,
    variables: Mapping[str, Variable],
    mechanisms: Mapping[str, Mechanism],
    *,
    clip: bool = False,
    index: object = None,
) -> dict[str, Intervention]:
    """Check what ``do`` says against the model: a value by node, or an intervention that was read before.

    ``clip`` moves what is out of bounds onto the bound, instead of refusing it. ``index`` is that of the
    evidence, where it was a DataFrame or has Series.
    """
    if not isinstance(do, Mapping):
        raise InterventionError(f"do maps nodes to values, as in do={{'x': 1}}; got a {type(do).__name__}.")
    found: dict[str, Intervention] = {}
    refuse_other_index(do, "Intervention on", InterventionError)
    for node, value in do.items():
        UnknownNameError.check("node", node, variables, where="do")
        if isinstance(value, Intervention):  # read before
            found[node] = value
            continue
        _refuse_other_index(node, value, index)
        found[node] = _Reader(node, graph, variables, mechanisms[node], clip).read(value)
    counts = {node: each.rows for node, each in found.items() if each.rows != 1}
    if len(set(counts.values())) > 1:
        raise InterventionError(f"Values in do must have equal numbers of rows, got {counts}.")
    return found


def refuse_circle(node: str, reads: Sequence[str], graph: CausalGraph) -> None:
    """Refuse a function that reads what its own node causes."""
    caused = graph.descendants(node)
    for name in reads:
        if name in caused:
            path = " -> ".join([*shortest_path(graph.to_networkx(), node, name), node])
            raise CycleError(
                f"Intervention on {node!r} reads {name!r}, which {node!r} causes: a cycle, {path}. Read only "
                f"what {node!r} does not cause, or give the factual values of {name!r} as an array."
            )


def _refuse_other_index(node: str, value: Any, index: Any) -> None:
    """Refuse a Series that pandas would match to other rows than its place does."""
    own = getattr(value, "index", None)
    if index is None or own is None or not hasattr(own, "equals") or not 1 < len(own) == len(index):
        return
    if (row := first_other(own, index)) is not None:
        raise InterventionError(
            f"Intervention on {node!r}: the Series has another index than the evidence, first in row {row}: "
            f"{own[row]}, expected {index[row]}. Give series.loc[index of the evidence], or "
            "series.to_numpy() to go by place."
        )


@dataclass(frozen=True)
class _Reader:
    """Reads what is said about one node, whose mechanism is still the ``old`` one."""

    node: str
    graph: CausalGraph
    variables: Mapping[str, Variable]
    old: Mechanism
    clip: bool

    @property
    def where(self) -> str:
        return f"Intervention on {self.node!r}"

    @property
    def variable(self) -> Variable:
        return self.variables[self.node]

    def read(self, value: Any) -> Intervention:
        if isinstance(value, Stochastic):
            made = StochasticMechanism(self.node, self.variable, value.parsed(), clip=self.clip)
            return Intervention(self._settled(made), str(value))
        if isinstance(value, Replace):
            return self._replaced(value)
        if isinstance(value, Policy):
            return self._function(value.function, value.reads, str(value))
        if isinstance(value, WorldRef | WorldValue):
            raise InterventionError(
                f"{self.where}: {value!r} names another world, and here there is only one. "
                "Ask abduction.worlds({name: do, ...}), contrast or effect."
            )
        self._refuse_bare(value)
        if isinstance(value, str):
            if isinstance(self.variable, Image) and Path(value).suffix.lower() in ENDINGS:
                return self._constant(value)
            value = parse_assignment(self.node, value, self.variables)
        if isinstance(value, Formula):
            return self._function(value, value.expression.names, str(value.expression), codes=True)
        if isinstance(value, Shift | Scale) and isinstance(self.variable, Categorical):
            for name in self.variable.labels or ():
                if isinstance(name, str):
                    raise InterventionError(
                        f"{self.where}: {value!r} computes with numbers, and its categories have names, such "
                        f"as {name!r}. Give one of them, or a function of names."
                    )
        if callable(value):
            return self._function(value, [self.node], getattr(value, "__name__", repr(value)))
        return self._constant(value)

    def _constant(self, value: Any) -> Intervention:
        given = value
        if isinstance(self.variable, Image):
            value = read_pictures(value, self.variable, where=self.where)
        encode = self.variable.encode_clipped if self.clip else self.variable.encode
        rows = torch.as_tensor(encode(value, where=self.where))
        warn_unseen(rows.to(self.old.device), self.old.seen_range, self.variable, where=self.where)
        single = rows.numel() == 1 or isinstance(given, str | Path)
        text = str(given) if single else f"{len(rows)} values" if len(rows) > 1 else "an array"
        made = ConstantMechanism.of(self.variable, rows)
        return Intervention(self._settled(made), text, rows=len(rows))

    def _function(
        self, function: Callable[..., Any], reads: Sequence[str], text: str, *, codes: bool = False
    ) -> Intervention:
        for name in reads:
            UnknownNameError.check("node", name, self.variables, where=f"what {self.node!r} is to read")
        self._refuse_signature(function, reads, text)
        half = self.node + _NATURAL
        if self.node in reads and half in self.graph:
            raise InterventionError(
                f"Node {half!r} stands in the way of an intervention on {self.node!r}. Rename it."
            )
        parents = {half if name == self.node else name: self.variables[name] for name in reads}
        natural = half if self.node in reads else None
        made = FunctionMechanism(
            self.node, self.variable, parents, function, natural=natural, codes=codes, clip=self.clip
        )
        return Intervention(self._settled(made), text, tuple(parents), natural)

    def _refuse_signature(self, function: Callable[..., Any], reads: Sequence[str], text: str) -> None:
        """Refuse a function that does not take an argument for each node that it reads."""
        try:
            takes = signature(function, follow_wrapped=False)
        except ValueError:  # some of those that are written in C tell nothing
            return
        try:
            takes.bind(*reads)
        except TypeError as error:
            raise InterventionError(
                f"{self.where}: {text} takes {takes} ({error}), and gets the values of "
                f"{', '.join(map(repr, reads)) or 'nothing'}: an argument each. For other nodes write "
                "cg.Policy(function, reads=[...])."
            ) from error

    def _replaced(self, value: Replace) -> Intervention:
        parents = {name: self.variables[name] for name in self.graph.parents(self.node)}
        given = value.mechanism
        new = given if isinstance(given, Mechanism) else self._settled(given.bind(self.variable, parents))
        if new.variable != self.variable or list(new.parents.items()) != list(parents.items()):
            raise InterventionError(
                f"{self.where}: the mechanism in Replace is bound to another variable or other parents; "
                f"expected {self.variable.describe()} of ({', '.join(parents)})."
            )
        if not new.fitted:
            raise InterventionError(
                f"{self.where}: a mechanism of kind {new.spec.kind!r} has to be fitted first. "
                f"Fit another model with it, and give its scm.mechanisms[{self.node!r}]."
            )
        # What a draw looks like tells of what make the noise is.
        if value.noise == "keep" and (had := _leaves(self.old)) != (has := _leaves(new)):
            raise InterventionError(
                f"{self.where}: the noise of its mechanism ({self.old.spec.kind}) has leaves {had}, "
                f"the new one's ({new.spec.kind}) {has}: it cannot be kept. Say noise='fresh', "
                "or give a mechanism with the same noise."
            )
        return Intervention(new.eval(), str(value), tuple(parents), keeps_noise=value.noise == "keep")

    def _settled(self, made: Mechanism) -> Mechanism:
        """A mechanism made here, where the old one was, and knowing what that one saw."""
        made.seen_range = self.old.seen_range
        return made.to(self.old.device)

    def _refuse_bare(self, value: Any) -> None:
        """What is no value of any variable, and needs a word around it that says what to do."""
        wrappers = {"Stochastic": Distribution | Mapping, "Replace": Mechanism | MechanismSpec}
        for wrapper, kinds in wrappers.items():
            if isinstance(value, kinds):
                got = type(value).__name__
                raise InterventionError(
                    f"{self.where}: got a {got}. Say do={{{self.node!r}: cg.{wrapper}(...)}}."
                )


def _leaves(mechanism: Mechanism) -> dict[str, tuple[int, ...]]:
    noise = mechanism.sample_noise(1, generator=torch.Generator(mechanism.device).manual_seed(0))
    return {name: tuple(leaf.shape[1:]) for name, leaf in sorted(noise.items())}
