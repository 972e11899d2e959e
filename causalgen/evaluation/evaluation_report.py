"""What an evaluation found: print it, take it as plain values, or write it to a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalgen.evaluation.entries import Entry
from causalgen.evaluation.judging import Judging
from causalgen.evaluation.page import evaluation_page
from causalgen.evaluation.report_tables import report_tables, table_text
from causalgen.metrics.distances import distance_unit
from causalgen.saving.manifest import library_versions
from causalgen.saving.result_folder import check_result_folder, write_result
from graphs.variables import Variable

if TYPE_CHECKING:
    from causalgen.scm import SCM

__all__ = ["EvaluatedModel", "EvaluationReport", "REPORT"]

REPORT = "report.json"


@dataclass(frozen=True)
class EvaluatedModel:
    """What was evaluated.

    Attributes:
        name: of the model.
        description: a line a node.
        parameters: numbers that were fitted, by node.
        options: of each node's mechanism, as a file would say them.
        causes: of each image node, those of one value.
        units: what a distance counts, by node.
        judges: who reads which attribute of each image node.
        versions: of what computed it.
    """

    name: str
    description: str
    parameters: Mapping[str, int]
    options: Mapping[str, Mapping[str, Any]]
    causes: Mapping[str, Sequence[str]]
    units: Mapping[str, str]
    judges: Mapping[str, Mapping[str, Sequence[str]]]
    versions: Mapping[str, str]

    @classmethod
    def of(
        cls, scm: SCM, causes: Mapping[str, Mapping[str, Variable]], judging: Mapping[str, Judging]
    ) -> EvaluatedModel:
        """What a report says of a model."""
        return cls(
            scm.name or "unnamed model",
            scm.describe(),
            {
                node: sum(each.numel() for each in mechanism.parameters())
                for node, mechanism in scm.mechanisms.items()
            },
            {node: mechanism.spec.model_dump(mode="json") for node, mechanism in scm.mechanisms.items()},
            {node: tuple(each) for node, each in causes.items()},
            {node: distance_unit(variable) for node, variable in scm.variables.items()},
            {node: {by: tuple(each) for by, each in judges.by.items()} for node, judges in judging.items()},
            library_versions(("causalgen", "torch")),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "name": self.name,
            "description": self.description.splitlines(),
            "parameters": dict(self.parameters),
            "options": dict(self.options),
            "causes": {node: list(each) for node, each in self.causes.items()},
            "judges": {
                node: {by: list(each) for by, each in judges.items()} for node, judges in self.judges.items()
            },
            "versions": dict(self.versions),
        }


@dataclass(frozen=True)
class EvaluationReport:
    """What ``scm.evaluate`` found; ``print`` it, or ``save`` it as a page.

    Attributes:
        model: what was evaluated.
        rows: evaluated.
        available: rows of the data.
        composed: rows on which composition of images was measured.
        seed: gives the same report again.
        truth: whether true counterfactuals were known.
        entries: every figure; see ``score`` for one.
        check: what ``scm.check`` found, or None.
        notes: what could not be measured, and why.
        images_per_second: counterfactual images a second, by node.
        seconds: spent in all.
        pictures: PNGs by name.
    """

    model: EvaluatedModel
    rows: int
    available: int
    composed: int
    seed: int
    truth: bool
    entries: tuple[Entry, ...]
    check: Mapping[str, Any] | None
    notes: tuple[str, ...]
    images_per_second: Mapping[str, float]
    seconds: float
    pictures: Mapping[str, bytes]

    def find(self, metric: str, **where: str) -> list[Entry]:
        """The entries of a metric, with these values of ``node``, ``subject``, ``do``, ``of`` or ``by``."""
        return [
            entry
            for entry in self.entries
            if entry.metric == metric and all(getattr(entry, name) == value for name, value in where.items())
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; what took how long is apart, so that the rest can be compared."""
        return {
            "model": self.model.to_dict(),
            "rows": self.rows,
            "available": self.available,
            "composed": self.composed,
            "seed": self.seed,
            "truth": self.truth,
            "entries": [entry.to_dict() for entry in self.entries],
            "check": self.check,
            "notes": list(self.notes),
            "time": {"seconds": self.seconds, "images_per_second": dict(self.images_per_second)},
        }

    def save(self, folder: Path | str) -> Path:
        """Write ``index.html``, which needs no network, its pictures and ``report.json``; all or nothing.

        Returns:
            The page.

        Raises:
            CheckpointError: the folder holds something else, or cannot be written; it is unchanged then.
        """
        check_result_folder(folder, REPORT)
        files = [("index.html", evaluation_page(self).encode())]
        files += [(f"pictures/{name}", picture) for name, picture in self.pictures.items()]
        return write_result(folder, files, self.to_dict(), REPORT) / "index.html"

    def __str__(self) -> str:
        head = f"{self.model.name}: {self.rows:,} of {self.available:,} rows, seed {self.seed}"
        parts = [head, *(table_text(table) for table in report_tables(self))]
        if self.notes:
            parts.append("Notes\n" + "\n".join(f"  {note}" for note in self.notes))
        return "\n\n".join(parts)
