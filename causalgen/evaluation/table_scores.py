"""What any model is held to: held-out likelihood, ``scm.check``, and composition of every node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from causalgen.data.table import Table
from causalgen.evaluation.entries import MECHANISM, Entry
from causalgen.evaluation.questions import Columns
from causalgen.fitting.progress import Progress
from causalgen.metrics.axioms import composition
from causalgen.metrics.node_passes import has_residuals
from causalgen.metrics.scores import mean_score
from graphs.errors import CannotAbductError
from graphs.variables import Image

if TYPE_CHECKING:
    from causalgen.scm import SCM

__all__ = ["composition_entries", "composition_passes", "likelihood_entries"]

_CYCLES = range(1, 11)
_LIKELIHOOD_ROWS = 10_000


def likelihood_entries(scm: SCM, table: Table) -> Iterator[Entry]:
    """Mean log p(x | pa) of each node that has a density, on at most 10,000 rows."""
    index = torch.arange(min(table.rows, _LIKELIHOOD_ROWS))
    for node, mechanism in scm.mechanisms.items():
        value, parents = (
            table.tensor(node, index, device=scm.device),
            {name: table.tensor(name, index, device=scm.device) for name in scm.graph.parents(node)},
        )
        with torch.no_grad():
            found = mechanism.log_prob(value, parents)
        if found is not None and bool(found.isfinite().all()):
            score = mean_score(found.double().cpu().numpy(), "nats a row", better="higher")
            yield Entry("log-likelihood", node, MECHANISM, score)


def composition_entries(
    scm: SCM, columns: Columns, image_rows: int, *, seed: int, progress: Progress, notes: list[str]
) -> Iterator[Entry]:
    """Drift of each node over 1 to 10 null interventions; of image nodes on the first ``image_rows`` rows.

    A node whose noise carries step residuals is measured without them too.
    """
    for node, variable in scm.variables.items():
        progress.begin(f"composition of {node}")
        rows = image_rows if isinstance(variable, Image) else len(next(iter(columns.values())))
        evidence = {name: columns[name][:rows] for name in (node, *scm.graph.parents(node))}
        advance = progress.advance if node in _counted(scm) else None
        for by, residuals in _variants(scm, node):
            try:
                found = composition(
                    scm, evidence, node, _CYCLES, residuals=residuals, seed=seed, advance=advance
                )
            except CannotAbductError as error:
                notes.append(f"{node}: no composition. {error}")
                break
            for cycles, score in found.items():
                yield Entry("composition", node, MECHANISM, score, of=str(cycles), by=by)


def composition_passes(scm: SCM, rows: int, image_rows: int) -> int:
    """How many passes over rows composition is counted as."""
    passes = 0
    for node in _counted(scm):
        image = isinstance(scm.variables[node], Image)
        passes += max(_CYCLES) * len(_variants(scm, node)) * (image_rows if image else rows)
    return passes


def _counted(scm: SCM) -> list[str]:
    """The nodes that progress counts: images, beside which tables take no time; tables where no image is."""
    images = [node for node, variable in scm.variables.items() if isinstance(variable, Image)]
    return images or list(scm.variables)


def _variants(scm: SCM, node: str) -> Sequence[tuple[str, bool | None]]:
    if has_residuals(scm, node):
        return ("with residuals", None), ("without residuals", False)
    return (("", None),)
