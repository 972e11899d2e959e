"""Model checking, ``scm.check(data)``: goodness of fit, and independences that confounding would break.

    fit      every mechanism explains its node at least as well as the node's marginal does
    noise    u_k, recovered from the rows, is independent of each parent of k, jointly with the others: the
             mechanism's form is right
    graph    u_k is independent of each earlier node that is no parent, jointly with k's parents: x_k is
             independent of it given them, the ordered Markov property, which, of all earlier nodes together,
             implies every independence that the graph does (Verma, Pearl 1988)

Where abduction draws noise, as for categories, it is independent of them all the same if the model is right.
A wrong form leaves parents in the noise, and with them whatever is related to them: mend "noise" first.
All tests, of fit and of independence, are judged together by their false discovery rate (Benjamini, Hochberg
1995): of a true model, a share of at most ``level`` of the checks reports any problem. A fitted one is true
up to the error of its fit, which tests take for dependence where it is wide beside the noise's finest part:
of least squares on 400 rows, under noise of two narrow peaks far apart or of heavy tails, a third to a half
did in trials.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

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
from graphs.text import Shown, aligned
from graphs.variables import Continuous, Image, Variable
from mechanisms.base import Mechanism, Noise
from mechanisms.seeds import keyed_generator

__all__ = ["CheckReport", "Independence", "check_model"]

_SHOWN = 12
"""Most tests shown that hold; those that fail are all shown."""

_ROWS = 1000
"""Most rows looked at; the work grows with their square."""

_PICTURES = 256
"""Most rows of nodes whose mechanism generates or reads pictures."""

_LEAST = 20

_TESTS = 1000
"""Most pairs tested of those that the graph says are independent."""

_PERMUTATIONS = 10_000

_NOTHING = 1e-8
"""What a noise moves numbers by, in parts of their middling deviation, that counts as none."""

_UNTESTED = {
    "none": "its noise cannot be recovered",
    "approximate": "its noise is recovered only approximately, and keeps a trace of the value",
}


@dataclass(frozen=True)
class Independence:
    """Whether a node's noise is independent of another node, which is no descendant of it."""

    node: str  # whose noise
    other: str  # an earlier node
    # The node's parents. With ``other`` among them this tests the mechanism, else the graph, which says that
    # ``node`` is independent of ``other`` given them.
    given: tuple[str, ...]
    strength: float  # of the dependence, 0 to 1
    p_value: float  # of so strong a one by chance
    adjusted: float = 1.0  # the same, adjusted for all tests of the check (Benjamini and Hochberg)
    holds: bool = True  # whether independence is not rejected

    @property
    def tests_mechanism(self) -> bool:
        """Whether ``other`` is a parent, so that the form of the mechanism is tested."""
        return self.other in self.given

    def __str__(self) -> str:
        if self.tests_mechanism:
            return f"noise of {self.node} ⟂ {self.other}"
        return f"{self.node} ⟂ {self.other}" + (f" | {', '.join(self.given)}" if self.given else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self) | {"given": list(self.given), "tests": self._what()}

    def _what(self) -> str:
        return "mechanism" if self.tests_mechanism else "graph"


@dataclass(frozen=True, repr=False)
class CheckReport(Shown):
    """What a check found; ``print`` it."""

    rows: int  #: rows looked at
    seed: int  #: gives the same report again
    #: False discovery rate of all tests: how often, at most, a true model has a problem reported
    level: float
    fits: Mapping[str, Goodness]  #: how well each node's mechanism fits
    independences: Sequence[Independence]  #: every test made
    skipped: Mapping[str, str]  #: nodes whose noise was not tested, and why
    untested: int = 0  #: pairs of a large graph that were left out, at random
    dropped: int = 0  #: rows that were left out, for a value was missing in them
    repeated: int = 0  #: rows that equal an earlier one in every value
    #: Of the fit, where the model was fitted in this session: what overfits; not tested here
    advice: Sequence[str] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against the model: no mechanism fits badly, no independence is rejected."""
        return all(fit.holds for fit in self.fits.values()) and all(test.holds for test in self.independences)

    @property
    def problems(self) -> list[str]:
        """What speaks against the model, a sentence each."""
        found = [f"{node}: {fit.note}." for node, fit in self.fits.items() if not fit.holds]
        for test in self.independences:
            if not test.holds and test.tests_mechanism:
                found.append(
                    f"The noise of {test.node} depends on its parent {test.other}: wrong form of mechanism, "
                    "wrong direction of the edge, or a common cause is missing."
                )
            elif not test.holds:
                found.append(
                    f"{test.node} depends on {test.other} beyond its parents: an edge or a common cause is "
                    f"missing, or {test.node} has the wrong form of mechanism."
                )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"ok": self.ok} | vars(self) | {
            "fits": {node: fit.to_dict() for node, fit in self.fits.items()},
            "independences": [test.to_dict() for test in self.independences],
            "skipped": dict(self.skipped),
            "advice": list(self.advice),
            "problems": self.problems,
        }  # fmt: skip

    @property
    def verdict(self) -> str:
        """What was looked at and how many problems were found; and rows that repeat, where there are some."""
        count = len(self.problems)
        found = "no problem" if not count else f"{count} problem{'s' * (count > 1)}"
        left = f" ({self.dropped:,} left out: values missing)" if self.dropped else ""
        said = f"Checked {len(self.fits)} nodes on {self.rows:,} rows{left}: {found} found."
        if not (count and self.repeated):
            return said
        return (
            f"{said} {self.repeated:,} rows equal an earlier one in every value, and tests take each for a "
            "row of its own. If these are copies, which say nothing new, drop them, and fit and check again."
        )

    def __repr__(self) -> str:
        """The verdict and the problems; ``print`` shows all."""
        return "\n".join([self.verdict, *(f"  {problem}" for problem in self.problems)])

    def __str__(self) -> str:
        parts = [self.verdict]
        parts.append("Fit\n" + self._fits_text())
        mechanism = [test for test in self.independences if test.tests_mechanism]
        graph = [test for test in self.independences if not test.tests_mechanism]
        if mechanism:
            parts.append("Mechanisms: is the noise independent of the parents?\n" + _tests_text(mechanism))
        if graph:
            parts.append("Graph: do its independences hold?\n" + _tests_text(graph))
        if self.untested:
            parts.append(f"{self.untested:,} further independences of the graph were not tested.")
        if self.skipped:
            lines = [f"  {node}: {reason}" for node, reason in self.skipped.items()]
            parts.append("Noise not tested\n" + "\n".join(lines))
        if self.problems:
            parts.append("Problems\n" + "\n".join(f"  {problem}" for problem in self.problems))
        if self.advice:
            parts.append("Fit report\n" + "\n".join(f"  {each}" for each in self.advice))
        parts.append(
            "Tests are judged together: of a true model, at most "
            f"{100 * self.level:g}% of checks report a problem.\n"
            "The error of a fit to few rows, of noise with narrow peaks or heavy tails, counts as one too."
        )
        return "\n\n".join(parts)

    def _fits_text(self) -> str:
        rows = [("node", "measure", "mechanism", "marginal", "")]
        for node, fit in self.fits.items():
            verdict = "-" if fit.measure == "none" else _verdict(fit.holds)
            outcome = f"{verdict}  ({fit.note})" if fit.note and fit.holds else verdict
            rows.append((node, fit.measure, _figure(fit.mechanism), _figure(fit.baseline), outcome))
        return "\n".join(aligned(rows, right=(2, 3)))


def _tests_text(tests: Sequence[Independence]) -> str:
    ordered = sorted(tests, key=lambda test: (test.holds, test.adjusted, -test.strength))
    shown = [test for position, test in enumerate(ordered) if not test.holds or position < _SHOWN]
    rows = [("independence", "strength", "adjusted p", "")]
    rows += [
        (str(test), f"{test.strength:.3f}", f"{test.adjusted:.3g}", _verdict(test.holds)) for test in shown
    ]
    left = len(tests) - len(shown)
    return "\n".join(aligned(rows, right=(1, 2))) + (f"\n  … and {left:,} more, which hold" if left else "")


def _verdict(holds: bool) -> str:
    return "ok" if holds else "FAILS"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def check_model(
    world: MutilatedModel, variables: Mapping[str, Variable], table: Table, *, seed: int, level: float
) -> CheckReport:
    """Hold a fitted model to rows of every node.

    Those without gaps, at least 20, are used, at most 1,000 of them. The seed is of that draw, of noise and
    of permutations; ``level`` is the false discovery rate of all tests together.
    """
    given, table = table.rows, table.complete(list(variables))
    if table.rows < _LEAST:
        complete = f" without missing values, got {table.rows} of {given}" if table.rows < given else ""
        raise DataError(f"A check needs at least {_LEAST} rows{complete or f', got {table.rows}'}.")
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
    dropped, untested, repeated = given - table.rows, check.untested, check.repeated()
    return CheckReport(
        check.rows, seed, level, fits, tuple(tests), check.skipped, untested, dropped, repeated
    )


def _judged(fit: Goodness, adjusted: float, level: float) -> Goodness:
    """A fit with its verdict; what would have gone wrong is noted where it did."""
    if not fit.holds:
        return fit
    if adjusted <= level:
        return replace(fit, holds=False)
    return fit if fit.baseline is None else replace(fit, note="")


@dataclass(frozen=True)
class _Noise:
    """Kernel features of a node's noise, for the first so many rows."""

    features: Tensor
    rows: int


class _Check:
    """The rows of one check and what has been computed on them."""

    def __init__(
        self, world: MutilatedModel, variables: Mapping[str, Variable], table: Table, seed: int
    ) -> None:
        self.world, self.variables, self.seed = world, variables, seed
        order = torch.randperm(table.rows, generator=keyed_generator(seed, "check", "rows"))[:_ROWS]
        self.rows, self._numbers = len(order), table.numbers[order.numpy()]
        device = next(iter(world.mechanisms.values())).device
        self.values = {node: table.tensor(node, order, device=device) for node in variables}
        self.skipped: dict[str, str] = {}
        self.untested = 0
        self._ranked: dict[tuple[tuple[str, ...], int], Ranked] = {}
        self.fits = {node: self._fit(node) for node in variables}

    def repeated(self) -> int:
        """Rows that equal an earlier one, where not all values are categories and whole numbers."""
        if not any(isinstance(variable, Continuous | Image) for variable in self.variables.values()):
            return 0
        columns = [value.cpu().reshape(self.rows, -1).numpy() for value in self.values.values()]
        rows = {tuple(column[row].tobytes() for column in columns) for row in range(self.rows)}
        return self.rows - len(rows)

    def independences(self, level: float) -> Iterator[Independence]:
        """Every test, with p-values not adjusted yet."""
        noise = {node: found for node in self.variables if (found := self._noise(node)) is not None}
        pairs = list(self._pairs(noise))
        permutations = min(max(1000, round(2 * len(pairs) / level)), _PERMUTATIONS)
        for node, other in pairs:
            generator = keyed_generator(self.seed, "check", "permutations", node, other)
            parents, rows = self.world.graph.parents(node), noise[node].rows
            # Beside the others: an interaction of two parents may show with neither alone.
            given = tuple(parent for parent in parents if parent != other)
            other_values = beside(self._value((other,), rows), self._value(given, rows))
            strength, p_value = independence_test(
                noise[node].features, other_values, permutations=permutations, generator=generator
            )
            yield Independence(node, other, parents, strength, p_value)

    def _pairs(self, noise: Mapping[str, _Noise]) -> Iterator[tuple[str, str]]:
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
        rows = _limit(mechanism, self.rows)
        value = self.values[node][:rows]
        parents = {name: self.values[name][:rows] for name in self.world.graph.parents(node)}
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

    def _noise(self, node: str) -> _Noise | None:
        """The noise of a node, or None, having said why."""
        mechanism, rows = self.world.mechanisms[node], _limit(self.world.mechanisms[node], self.rows)
        reason = _UNTESTED.get(mechanism.abduction)
        if reason or node in self.world.touched:
            self.skipped[node] = "it was intervened on" if node in self.world.touched else str(reason)
            return None
        values = {name: value[:rows] for name, value in self.values.items()}
        try:
            with numbered_rows(self._numbers):
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
        return _Noise(kernel_features(ranked_columns(columns)), rows)

    def _value(self, nodes: tuple[str, ...], rows: int) -> Ranked:
        """The first rows of some nodes' values, taken together."""
        key = nodes, rows
        if key not in self._ranked:
            columns = [value_columns(self.values[node][:rows], self.variables[node]) for node in nodes]
            together = torch.cat(columns, 1) if columns else torch.zeros(rows, 0)
            ranked = ranked_columns(together)
            self._ranked[key] = Ranked(ranked, kernel_features(ranked))
        return self._ranked[key]

    def _generator(self, purpose: str, node: str) -> torch.Generator:
        device = self.values[node].device
        return keyed_generator(self.seed, "check", purpose, node, device=device)


def _is_rounding(mechanism: Mechanism, noise: Noise, value: Tensor, parents: Mapping[str, Tensor]) -> bool:
    """Whether the noise of numbers is what rounding left, and so follows from the parents: any other does."""
    if not (parents and isinstance(mechanism.variable, Continuous)):
        return False
    other = noise.rows(torch.arange(noise.n, device=value.device).roll(1))
    middling = (value - value.median(0).values).abs().median(0).values
    with torch.no_grad(), suppress(CausalgenError):  # an equation may have no value for it
        return bool(((mechanism.generate(parents, other) - value).abs() <= _NOTHING * middling).all())
    return False


def _limit(mechanism: Mechanism, rows: int) -> int:
    """How many rows a mechanism is checked on."""
    pictures = any(isinstance(each, Image) for each in (mechanism.variable, *mechanism.parents.values()))
    return min(rows, _PICTURES) if pictures else rows
