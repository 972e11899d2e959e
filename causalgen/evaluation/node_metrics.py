"""Metrics of any node: held-out log-likelihood, and composition, the drift over null interventions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, final

import numpy as np
import torch

from causalgen.evaluation.metric import MECHANISM, Entry, Metric, NodeEvaluation
from causalgen.metrics.axioms import composition
from causalgen.metrics.node_passes import brings_back
from causalgen.metrics.scores import mean_score
from graphs.errors import CannotAbductError, numbered_rows
from graphs.variables import Image

if TYPE_CHECKING:
    from causalgen.scm import SCM

__all__ = ["Composition", "LogLikelihood", "composition_passes"]

_CYCLES = range(1, 11)
_LIKELIHOOD_ROWS = 10_000
_NATS = "nats a row"


@final
class LogLikelihood(Metric):
    """Mean log p(x | pa) of a node that has a density, on at most 10,000 rows; -inf where one has none."""

    kind: ClassVar[str] = "log_likelihood"

    def measure(self, case: NodeEvaluation) -> Iterator[Entry]:
        """In nats a row."""
        scm, node, table = case.scm, case.node, case.table
        index = torch.arange(min(table.rows, _LIKELIHOOD_ROWS))
        value, *given = (
            table.tensor(name, index, device=scm.device) for name in (node, *scm.graph.parents(node))
        )
        with torch.no_grad(), numbered_rows(table.numbers):
            parents = dict(zip(scm.graph.parents(node), given, strict=True))
            found = scm.mechanisms[node].log_prob(value, parents)
        if found is None:
            return
        rows = found.double().cpu().numpy()
        impossible, unknown = np.isneginf(rows), np.isnan(rows) | np.isposinf(rows)
        score = mean_score(np.where(impossible | unknown, np.nan, rows), _NATS, better="higher")
        if count := int(impossible.sum()):
            score = replace(score, left_out=int(unknown.sum()))
            case.note(
                f"{node}: {count:,} of {len(rows):,} rows have probability 0, the first of them row "
                f"{table.numbers[impossible.argmax()]}, so that the mean log-likelihood is -inf; that of the "
                f"others is {score}."
            )
            score = replace(score, value=-math.inf, low=math.nan, high=math.nan, rows=score.rows + count)
        yield Entry("log-likelihood", node, MECHANISM, score)


@final
class Composition(Metric):
    """Drift of a node over 1 to 10 null interventions (Monteiro et al. 2023); of images on the first rows.

    A node whose noise carries step residuals is measured without them too.
    """

    kind: ClassVar[str] = "composition"

    def measure(self, case: NodeEvaluation) -> Iterator[Entry]:
        """Distance to the factual by number of cycles."""
        scm, node = case.scm, case.node
        rows = case.few if isinstance(case.variable, Image) else len(case.factual)
        evidence = {name: case.columns[name][:rows] for name in (node, *scm.graph.parents(node))}
        advance = case.advance if node in _counted(scm) else None
        for by, residuals in _variants(scm, node):
            try:
                with numbered_rows(case.numbers):
                    found = composition(
                        scm, evidence, node, _CYCLES, residuals=residuals, seed=case.seed, advance=advance
                    )
            except CannotAbductError as error:
                case.note(f"{node}: no composition. {error}")
                break
            for cycles, score in found.items():
                yield Entry("composition", node, MECHANISM, score, of=str(cycles), by=by)


def composition_passes(scm: SCM, rows: int, few: int) -> int:
    """How many passes over rows composition is counted as, for the progress bar."""
    passes = 0
    for node in _counted(scm):
        image = isinstance(scm.variables[node], Image)
        passes += max(_CYCLES) * len(_variants(scm, node)) * (few if image else rows)
    return passes


def _counted(scm: SCM) -> list[str]:
    """The nodes that progress counts: images, beside which tables take no time; tables where no image is."""
    images = [node for node, variable in scm.variables.items() if isinstance(variable, Image)]
    return images or list(scm.variables)


def _variants(scm: SCM, node: str) -> Sequence[tuple[str, bool | None]]:
    if what := brings_back(scm, node):
        return (f"with {what}", None), (f"without {what}", False)
    return (("", None),)
