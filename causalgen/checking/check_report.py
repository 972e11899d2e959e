"""What ``scm.check(data)`` found: how well each mechanism fits, which independences hold, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from causalgen.checking.goodness import Goodness
from graphs.text import Shown, aligned

__all__ = ["CheckReport", "Independence", "verdict_of"]

_SHOWN = 12
"""Most tests shown that hold; those that fail are all shown."""


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

    rows: int  #: rows looked at, by the test that has most
    seed: int  #: gives the same report again
    #: False discovery rate of all tests: how often, at most, a true model has a problem reported
    level: float
    fits: Mapping[str, Goodness]  #: how well each node's mechanism fits
    independences: Sequence[Independence]  #: every test made
    skipped: Mapping[str, str]  #: nodes whose noise was not tested, and why
    untested: int = 0  #: pairs of a large graph that were left out, at random
    dropped: int = 0  #: rows of the data that lack a value, which tests that read it leave out
    repeated: int = 0  #: rows that equal an earlier one in every value
    #: By node, rows of the data in which an experiment set it, which tests of its mechanism leave out
    intervened: Mapping[str, int] = field(default_factory=dict)
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
            "intervened": dict(self.intervened),
            "advice": list(self.advice),
            "problems": self.problems,
        }  # fmt: skip

    @property
    def verdict(self) -> str:
        """What was looked at and how many problems were found; and rows that repeat, where there are some."""
        count = len(self.problems)
        found = "no problem" if not count else f"{count} problem{'s' * (count > 1)}"
        left = f" ({self.dropped:,} lack values, left out where read)" if self.dropped else ""
        told = [f"{node!r} in {count:,}" for node, count in self.intervened.items()]
        left += f" (an experiment set {', '.join(told)}, which say nothing of its mechanism)" if told else ""
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
            "Tests are judged together: of a true model, and rows independent of each other, at most "
            f"{100 * self.level:g}% of checks report a problem.\n"
            "The error of a fit to few rows, of noise with narrow peaks or heavy tails, counts as one too."
        )
        return "\n\n".join(parts)

    def _fits_text(self) -> str:
        rows = [("node", "measure", "mechanism", "marginal", "")]
        for node, fit in self.fits.items():
            verdict = "-" if fit.measure == "none" else verdict_of(fit.holds)
            outcome = f"{verdict}  ({fit.note})" if fit.note and fit.holds else verdict
            rows.append((node, fit.measure, _figure(fit.mechanism), _figure(fit.baseline), outcome))
        return "\n".join(aligned(rows, right=(2, 3)))


def _tests_text(tests: Sequence[Independence]) -> str:
    ordered = sorted(tests, key=lambda test: (test.holds, test.adjusted, -test.strength))
    shown = [test for position, test in enumerate(ordered) if not test.holds or position < _SHOWN]
    rows = [("independence", "strength", "adjusted p", "")]
    rows += [
        (str(test), f"{test.strength:.3f}", f"{test.adjusted:.3g}", verdict_of(test.holds)) for test in shown
    ]
    left = len(tests) - len(shown)
    return "\n".join(aligned(rows, right=(1, 2))) + (f"\n  … and {left:,} more, which hold" if left else "")


def verdict_of(holds: bool) -> str:
    """What a check found, in a word."""
    return "ok" if holds else "FAILS"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
