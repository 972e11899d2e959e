"""Model checking, ``scm.check(data)``: goodness of fit, and independences that confounding would break.

    fit      every mechanism explains its node at least as well as the node's marginal does
    noise    u_k, recovered from the rows, is independent of each parent of k, jointly with the others: the
             mechanism's form is right
    graph    u_k is independent of each earlier node that is no parent, jointly with k's parents: x_k is
             independent of it given them, the ordered Markov property, which, of all earlier nodes together,
             implies every independence that the graph does (Verma, Pearl 1988)

Where abduction draws noise, as for categories, it is independent of them all the same if the model is right;
of a root the value itself is tested, which its noise alone decides.
A wrong form leaves parents in the noise, and with them whatever is related to them: mend "noise" first.
All tests, of fit and of independence, are judged together by their false discovery rate (Benjamini, Hochberg
1995): of a true model, a share of at most ``level`` of the checks reports any problem, if rows are
independent of each other: of those of one family, clinic or machine, or one after another in time, more do (4
of 20 at 1 % in a trial of families of ten, who shared four fifths of the variance). A fitted one is true up
to the error of its fit, which tests take for dependence where it is wide beside the noise's finest part: of
least squares on 400 rows, under noise of two narrow peaks far apart or of heavy tails, a third to a half did
in trials.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from causalgen.checking.check_report import CheckReport, Independence
from causalgen.checking.goodness import Goodness, by_density, by_distance, noise_columns, value_columns
from causalgen.checking.statistics import (
    Ranked,
    adjusted_p_values,
    beside,
    independence_test,
    kernel_features,
    ranked_columns,
)
from causalgen.counterfactuals.engine import abduct
from causalgen.counterfactuals.mutilated_model import MutilatedModel, refuse_unfitted
from causalgen.data.table import Table
from graphs.errors import CausalgenError, DataError, numbered_rows
from graphs.variables import Continuous, Image, Variable
from mechanisms.base import Mechanism, Noise
from mechanisms.seeds import keyed_generator

__all__ = ["check_model"]

_ROWS = 1000
"""Most rows looked at; the work grows with their square."""

_PICTURES = 256
"""Most rows of nodes whose mechanism generates or reads pictures."""

_LEAST = 20

_TESTS = 1000
"""Most pairs tested of those that the graph says are independent."""

_PERMUTATIONS = 10_000

_KEPT = 500
"""So many features are kept, a fifth of a megabyte each: where rows have gaps, tests share few."""

_NOTHING = 1e-8
"""What a noise moves numbers by, in parts of their middling deviation, that counts as none."""

_UNTESTED = {
    "none": "its noise cannot be recovered",
    "approximate": "its noise is recovered only approximately, and keeps a trace of the value",
}


def check_model(
    world: MutilatedModel, variables: Mapping[str, Variable], table: Table, *, seed: int, level: float
) -> CheckReport:
    """Hold a fitted model to rows: at most 1,000, at least 20, that have what a test reads.

    Others may lack it. Rows that have everything would not do: where a test is only made of who fell ill,
    they are the ill, among whom the causes of illness depend on each other in a true model. The seed is of
    the draw of rows, of noise and of permutations; ``level`` is the false discovery rate of all tests.
    """
    refuse_unfitted(world.mechanisms, "check")
    check = _Check(world, variables, table, seed)
    found = list(check.independences(level))
    measured = [node for node, fit in check.fits.items() if fit.measure != "none"]
    p_values = [check.fits[node].p_value for node in measured] + [test.p_value for test in found]
    adjusted = adjusted_p_values(p_values)
    fits = check.fits | {
        node: _judged(check.fits[node], q, level)
        for node, q in zip(measured, adjusted[: len(measured)], strict=True)
    }
    tests = [
        replace(test, adjusted=q, holds=q > level)
        for test, q in zip(found, adjusted[len(measured) :], strict=True)
    ]
    dropped = int(table.incomplete(list(variables)).sum())
    left_out = {node: count for node, each in table.intervened.items() if (count := int(each.sum()))}
    skipped, untested, repeated = check.skipped, check.untested, check.repeated()
    return CheckReport(
        check.rows, seed, level, fits, tuple(tests), skipped, untested, dropped, repeated, left_out
    )


def _judged(fit: Goodness, adjusted: float, level: float) -> Goodness:
    """A fit with its verdict; what would have gone wrong is noted where it did."""
    if not fit.holds:
        return fit
    if adjusted <= level:
        return replace(fit, holds=False)
    return fit if fit.baseline is None else replace(fit, note="")


@dataclass(frozen=True)
class _Rows:
    """The rows of a test."""

    # What tells them from those of another test: its nodes with gaps in other rows, and the node whose
    # mechanism it is of, where an experiment set it in some
    kind: tuple[frozenset[str], str | None]
    index: Tensor  # their places in the table, in the order drawn


class _Check:
    """The rows of one check and what has been computed on them."""

    def __init__(
        self, world: MutilatedModel, variables: Mapping[str, Variable], table: Table, seed: int
    ) -> None:
        self.world, self.variables, self.table, self.seed = world, variables, table, seed
        self._order = torch.randperm(table.rows, generator=keyed_generator(seed, "check", "rows"))
        self._device = next(iter(world.mechanisms.values())).device
        families = {node: self._complete((node, *world.graph.parents(node)), node) for node in variables}
        self.rows = max(len(each.index) for each in families.values())
        if self.rows < _LEAST:
            lacking = " that have a node's value and those of its parents" if table.gaps else ""
            raise DataError(f"A check needs at least {_LEAST} rows{lacking}, got {self.rows}.")
        self.skipped: dict[str, str] = {}
        self.untested = 0
        self._ranked: dict[tuple[tuple[str, ...], Any, int], Ranked] = {}
        self._noises: dict[tuple[str, Any], Tensor | None] = {}
        self.fits = {node: self._fit(node) for node in variables}

    def repeated(self) -> int:
        """Rows that equal an earlier one, where not all values are categories and whole numbers."""
        if not any(isinstance(variable, Continuous | Image) for variable in self.variables.values()):
            return 0
        rows = self._complete(tuple(self.variables))
        count = len(rows.index)
        columns = [self._values(node, rows).cpu().reshape(count, -1).numpy() for node in self.variables]
        return count - len({tuple(column[row].tobytes() for column in columns) for row in range(count)})

    def independences(self, level: float) -> Iterator[Independence]:
        """Every test, with p-values not adjusted yet."""
        pairs = list(self._pairs({node for node in self.variables if self._noise(node) is not None}))
        permutations = min(max(1000, round(2 * len(pairs) / level)), _PERMUTATIONS)
        for node, other in pairs:
            rows, parents = self._rows(node, other), self.world.graph.parents(node)
            if len(rows.index) < _LEAST or (noise := self._noise(node, other)) is None:
                self.untested += 1
                continue
            generator = keyed_generator(self.seed, "check", "permutations", node, other)
            # Beside the others: an interaction of two parents may show with neither alone.
            given = tuple(parent for parent in parents if parent != other)
            other_values = beside(self._value((other,), rows), self._value(given, rows))
            strength, p_value = independence_test(
                noise, other_values, permutations=permutations, generator=generator
            )
            yield Independence(node, other, parents, strength, p_value)

    def _pairs(self, noise: Collection[str]) -> Iterator[tuple[str, str]]:
        """Each node with noise and each earlier node: all parents, and of the others at most so many."""
        graph = self.world.graph
        others: list[tuple[str, str]] = []
        for position, node in enumerate(graph.nodes):
            if node in noise:
                yield from ((node, parent) for parent in graph.parents(node))
                earlier = graph.nodes[:position]
                others += [(node, other) for other in earlier if other not in graph.parents(node)]
        chosen = torch.randperm(len(others), generator=keyed_generator(self.seed, "check", "pairs"))[:_TESTS]
        self.untested = len(others) - len(chosen)
        yield from (others[pair] for pair in sorted(chosen.tolist()))

    def _fit(self, node: str) -> Goodness:
        mechanism = self.world.mechanisms[node]
        if node in self.world.touched:
            return Goodness("none", note="it was intervened on")
        if not mechanism.sample_noise(1, generator=self._generator("leaves", node)).leaves:
            return Goodness("none", note="it has no noise: its parents determine it")
        rows = self._rows(node)
        if len(rows.index) < _LEAST:
            return Goodness("none", note=self._too_few(node, rows))
        value = self._values(node, rows)
        parents = {name: self._values(name, rows) for name in self.world.graph.parents(node)}
        with torch.no_grad():
            log_prob = None if mechanism.resamples else mechanism.log_prob(value, parents)
            if log_prob is not None and (
                bool(log_prob.isneginf().any()) or not self._atoms(node, value, parents)
            ):
                return by_density(log_prob, value, mechanism.variable)
            return by_distance(mechanism, value, parents, generator=self._generator("generate", node))

    def _atoms(self, node: str, value: Tensor, parents: Mapping[str, Tensor]) -> bool:
        """Whether some log p of real numbers are probabilities: no kernel estimate is of both kinds."""
        atoms = self.world.mechanisms[node].atomic(value, parents)
        return isinstance(self.variables[node], Continuous) and atoms is not None and bool(atoms.any())

    def _noise(self, node: str, other: str | None = None) -> Tensor | None:
        """Features of a node's noise in the rows of a test, or None, having said why."""
        rows = self._rows(node, other)
        if (key := (node, rows.kind)) not in self._noises:
            if len(self._noises) >= _KEPT:
                self._noises.clear()
            self._noises[key] = self._find_noise(node, rows)
        return self._noises[key]

    def _find_noise(self, node: str, rows: _Rows) -> Tensor | None:
        mechanism = self.world.mechanisms[node]
        few = self._too_few(node, rows) if len(rows.index) < _LEAST else None
        reason = _UNTESTED.get(mechanism.abduction) or few
        if reason or node in self.world.touched:
            self.skipped[node] = "it was intervened on" if node in self.world.touched else str(reason)
            return None
        values = {name: self._values(name, rows) for name in (node, *self.world.graph.parents(node))}
        try:
            with numbered_rows(self.table.numbers[rows.index.numpy()]):
                found = abduct(self.world, values, (node,), samples=1, seed=self.seed)[node]
        except CausalgenError as error:
            self.skipped[node] = "no noise explains the rows"
            self.fits[node] = replace(
                self.fits[node], p_value=0.0, holds=False, note=str(error).removesuffix(".")
            )
            return None
        if found.log_weight is not None:
            self.skipped[node] = "its noise is known only as weighted draws"
            return None
        parents = {name: values[name] for name in self.world.graph.parents(node)}
        columns = noise_columns(
            found.noise, mechanism.sample_noise(64, generator=self._generator("prior", node))
        )
        if not columns.shape[1] or _is_rounding(mechanism, found.noise, values[node], parents):
            self.skipped[node] = "it has no noise: its parents determine it"
            return None
        if not parents:  # all that is known of its noise is its value: draws would blur it
            return self._value((node,), rows).features
        return kernel_features(ranked_columns(columns))

    def _rows(self, node: str, other: str | None = None) -> _Rows:
        """Those of a test of a node, of its noise against another one: with their values and the parents'."""
        mechanism = self.world.mechanisms[node]
        family = (node, *self.world.graph.parents(node), *(() if other is None else (other,)))
        pictures = any(isinstance(each, Image) for each in (mechanism.variable, *mechanism.parents.values()))
        return self._complete(family, node, _PICTURES if pictures else _ROWS)

    def _complete(self, nodes: tuple[str, ...], tested: str | None = None, most: int = _ROWS) -> _Rows:
        """The first rows in the order drawn that have these nodes' values, ``tested`` not set by anyone."""
        kept = ~self.table.incomplete(nodes)
        tested = tested if tested in self.table.intervened else None
        if tested is not None:
            kept = kept & self.table.drawn(tested)
        kind = frozenset(nodes).intersection(self.table.gaps), tested
        return _Rows(kind, self._order[torch.from_numpy(kept)[self._order]][:most])

    def _too_few(self, node: str, rows: _Rows) -> str:
        if node in self.table.intervened:
            return f"an experiment set it in all but {len(rows.index)} rows"
        return f"fewer than {_LEAST} rows have its value and those of its parents"

    def _values(self, node: str, rows: _Rows) -> Tensor:
        return self.table.tensor(node, rows.index, device=self._device)

    def _value(self, nodes: tuple[str, ...], rows: _Rows) -> Ranked:
        """Some nodes' values, taken together."""
        key = nodes, rows.kind, len(rows.index)
        if key not in self._ranked:
            if len(self._ranked) >= _KEPT:
                self._ranked.clear()
            columns = [value_columns(self._values(node, rows), self.variables[node]) for node in nodes]
            together = torch.cat(columns, 1) if columns else torch.zeros(len(rows.index), 0)
            ranked = ranked_columns(together)
            self._ranked[key] = Ranked(ranked, kernel_features(ranked))
        return self._ranked[key]

    def _generator(self, purpose: str, node: str) -> torch.Generator:
        return keyed_generator(self.seed, "check", purpose, node, device=self._device)


def _is_rounding(mechanism: Mechanism, noise: Noise, value: Tensor, parents: Mapping[str, Tensor]) -> bool:
    """Whether the noise of numbers is what rounding left, and so follows from the parents: any other does."""
    if not (parents and isinstance(mechanism.variable, Continuous)):
        return False
    other = noise.rows(torch.arange(noise.n, device=value.device).roll(1))
    middling = (value - value.median(0).values).abs().median(0).values
    with torch.no_grad(), suppress(CausalgenError):  # an equation may have no value for it
        return bool(((mechanism.generate(parents, other) - value).abs() <= _NOTHING * middling).all())
    return False
