"""What a fit says when it is done: one report a node, with held-out figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from graphs.errors import warn
from graphs.text import Shown

__all__ = ["FitReport", "NodeReport", "too_short"]


_REMEDY = "Take a simpler mechanism (for tables 'additive'; 'auto' compares), or more rows."

_RISE = 0.05
"""Held-out loss over training loss that does not matter, however sure it is."""

_ERRORS = 2.0

_FEW = 100

_FOOT = (
    "Losses are means over rows; held-out rows were not seen by the fit that is measured. "
    "No figure here holds the error of the fitted parameters."
)


@dataclass(frozen=True)
class NodeReport:
    """How the fit of one node ended."""

    node: str  # its name
    rows: int  # rows it was fitted to: all of them by a closed form, else all but the held-out ones
    held_out: int  # rows that the fit behind the held-out figures never saw
    steps: int = 0  # optimizer steps; 0 where a closed form, or nothing at all, was to be fitted
    seconds: float = 0.0  # time of training, all resumed runs together
    # Mean loss on the rows it was fitted to; with the last weights kept, of the last epoch
    train_loss: float | None = None
    # Mean loss on the held-out rows, of the kept weights, or of a closed form that was fitted without them;
    # None without any
    validation_loss: float | None = None
    # Further held-out figures of the mechanism, such as a predictor's accuracy and chance
    figures: Mapping[str, float] = field(default_factory=dict)
    parameters: int = 0  # trainable numbers
    dropped: int = 0  # rows left out, which lack a value of the node or of one of its parents
    intervened: int = 0  # rows left out, in which an experiment set the node
    # Step after which the held-out loss was least, whose weights were kept; None for the last
    kept_step: int | None = None
    # Of a mechanism chosen among candidates: "chosen", its options; "label"; "reason"; and "candidates", the
    # mean log-likelihood of held-out rows by label, or why one was left out
    choice: Mapping[str, Any] | None = None
    validation_error: float | None = None  # standard error of the held-out mean, over its rows
    least_steps: int = 0  # steps that images of this size need at least; 0 for other nodes
    impossible: int = 0  # held-out rows that have probability 0, so that the loss on them is infinite
    doubt: str = ""  # what speaks against trusting it that was found as it was made, with the remedy
    # Of the forward passes in training, "float32" or "bfloat16"; None for tables
    precision: str | None = None

    @property
    def advice(self) -> str | None:
        """What speaks against trusting the fit, with the remedy; None where nothing does."""
        if self.doubt:
            return f"{self.node}: {self.doubt}"
        if 0 < self.steps < self.least_steps:
            return f"{self.node}: {too_short(self.steps, self.least_steps)}"
        if self.impossible:
            return (
                f"{self.node}: {self.impossible:,} of {self.held_out:,} held-out rows have probability 0 "
                "under a fit without them: the mechanism rules out what occurs. Give one whose law "
                "reaches further."
            )
        if self.validation_loss is None or self.train_loss is None or self.validation_error is None:
            return None
        if not self.steps or self._compared:
            return None
        rise = self.validation_loss - self.train_loss
        if rise > max(_RISE, _ERRORS * self.validation_error):
            errors = rise / self.validation_error
            return (
                f"{self.node}: the held-out loss is {rise:.2g} above that in training, {errors:.1f} standard "
                f"errors: it overfits {self.rows:,} rows. {_REMEDY}"
            )
        if self.rows < _FEW and self.choice is None:
            return f"{self.node}: {self.rows:,} rows are few for a mechanism that is trained. {_REMEDY}"
        return None

    @property
    def _compared(self) -> bool:
        """Whether held-out rows chose it: the simpler candidates, which they could have chosen, did worse."""
        candidates = () if self.choice is None else self.choice["candidates"].values()
        return sum("log_likelihood" in each for each in candidates) > 1

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self) | {"figures": dict(self.figures)}

    def __str__(self) -> str:
        if self.steps:
            parts = [f"{self.rows:,} rows", f"{self.held_out:,} held out", f"{self.parameters:,} parameters"]
        else:
            parts = [f"all {self.rows:,} rows"]
        if self.dropped:
            parts.append(f"{self.dropped:,} left out (values missing)")
        if self.intervened:
            parts.append(f"{self.intervened:,} left out (set by an experiment)")
        if self.steps:
            kept = "" if self.kept_step is None else f" (the best after {self.kept_step:,})"
            lower = " (bfloat16)" if self.precision == "bfloat16" else ""
            parts.append(f"{self.steps:,} steps{kept} in {self.seconds:,.1f} s{lower}")
        if self.train_loss is not None:
            parts.append(f"loss {self.train_loss:.4g}")
        if self.validation_loss is not None:
            notes = [f"{self.impossible:,} rows have probability 0"] if self.impossible else []
            notes += [] if self.steps else [f"of a fit without {self.held_out:,} of them"]
            told = f" ({'; '.join(notes)})" if notes else ""
            parts.append(f"held-out loss {self.validation_loss:.4g}{told}")
        parts += [f"{name} {value:.4g}" for name, value in self.figures.items()]
        if self.choice is not None:
            parts.append(_choice_text(self.choice))
        return f"{self.node}: " + ", ".join(parts)


def too_short(steps: int, least: int) -> str:
    """That images of a size need more steps, and how to take them."""
    return (
        f"{steps:,} steps are few for images of this size, expected at least {least:,}. "
        f"Give training: {{steps: {least}}}."
    )


class FitReport(Mapping[str, NodeReport], Shown):
    """The reports of all fitted nodes, by name, in the order they were fitted."""

    def __init__(self, nodes: Mapping[str, NodeReport]) -> None:
        self._nodes = dict(nodes)

    def __getitem__(self, node: str) -> NodeReport:
        return self._nodes[node]

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def advice(self) -> list[str]:
        """What speaks against trusting a fit, a sentence a node."""
        return [report.advice for report in self._nodes.values() if report.advice is not None]

    def warn_of_doubts(self) -> None:
        """Warn of each node's ``doubt``."""
        for report in self._nodes.values():
            if report.doubt:
                warn(f"Node {report.node!r}: {report.doubt}")

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain values, ready for JSON."""
        return {name: report.to_dict() for name, report in self._nodes.items()}

    def __str__(self) -> str:
        if not self._nodes:
            return "nothing was fitted"
        return "\n".join([*map(str, self._nodes.values()), *self.advice, _FOOT])

    def __repr__(self) -> str:
        return f"FitReport({', '.join(self._nodes)})"


def _choice_text(choice: Mapping[str, Any]) -> str:
    """A choice in a line: what, why, and the figures of each candidate."""
    figures = [
        f"{label} {each['log_likelihood']:.4f}" if "log_likelihood" in each else f"{label} {each['excluded']}"
        for label, each in choice["candidates"].items()
        if "log_likelihood" in each or each["excluded"]
    ]
    likelihoods = f" (held-out log-likelihood: {'; '.join(figures)})" if figures else ""
    return f"chosen: {choice['label']}, {choice['reason']}{likelihoods}"
