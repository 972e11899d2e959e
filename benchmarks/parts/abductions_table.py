"""The table of the two abductions on the results page, from ``results/abductions.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from causalgen.metrics.scores import figure

from .results_tables import markdown

__all__ = ["abductions"]

_COLUMNS = {
    "effectiveness": "effectiveness",
    "CLD": "CLD",
    "L1": "L1",
    "r thickness": "r thickness",
    "r slant": "r slant",
    "r size": "r size",
    "ratio to samples": "variance ratio",
    "FD to samples": "FD to samples",
    "std x_T": "std of x_T",
    "neighbours x_T": "r of neighbours in x_T",
    "evaluations": "evaluations",
}


def abductions(sections: Mapping[str, Any]) -> str:
    """Settings and controls of each model, one table a model."""
    parts: list[str] = []
    for name, section in sections.items():
        found = section["result"]
        rows = [
            [each["setting"], *(_cell(each.get(column)) for column in _COLUMNS)] for each in found["settings"]
        ]
        head = [f"`{name}`, {found['rows']} rows", *_COLUMNS.values()]
        parts.append(markdown(head, rows))
    return "\n\n".join(parts)


def _cell(value: float | None) -> str:
    return "-" if value is None else figure(value)
