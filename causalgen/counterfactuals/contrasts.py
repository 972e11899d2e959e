"""Contrasts: the difference between two counterfactual worlds that share evidence, noise and sample index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from causalgen.counterfactuals.results import Counterfactual
from causalgen.counterfactuals.summaries import contrast_text, summarise_contrast
from causalgen.data.arrow_tables import Tabular
from graphs.errors import EvidenceError, UnknownNameError
from graphs.shown import Shown
from graphs.variables import Categorical

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Contrast"]


class Contrast(Mapping[str, Any], Shown, Tabular):
    """What one intervention gives beyond another, by node: ``contrast["y"]``.

    A difference in the form of the values, (B, *event) or (S, B, *event): in data units for numbers, in parts
    of the range [0, 1] for images; for categories, whether they differ, as booleans.

    Attributes:
        one: the world under ``do``.
        other: the world under ``versus``.
    """

    def __init__(self, one: Counterfactual, other: Counterfactual) -> None:
        """Compare two answers of one abduction.

        Raises:
            EvidenceError: they do not share evidence, samples and seed, so that rows do not correspond.
        """
        shapes = [(each.rows, each.samples, each.seed) for each in (one, other)]
        shared = [node for node in one.variables if node in other.variables]
        evidence = [(one.factual_canonical(node), other.factual_canonical(node)) for node in shared]
        same = all(a is b or torch.equal(a, b) for a, b in evidence)  # gaps may be NaN, which equals nothing
        if shapes[0] != shapes[1] or not same:
            raise EvidenceError(
                "A contrast compares worlds of one abduction, row by row; these differ in evidence or in "
                f"(rows, samples, seed): {shapes[0]} and {shapes[1]}. Ask both with one scm.abduct(...)."
            )
        self.one, self.other = one, other
        self._nodes = shared

    def __getitem__(self, node: str) -> Any:
        UnknownNameError.check("node", node, self._nodes, where="the contrast")
        one, other = self.one[node], self.other[node]
        if not isinstance(self.one.variables[node], Categorical):
            return one - other
        different = one != other
        return torch.as_tensor(different) if isinstance(different, np.ndarray) else different

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def to_frame(self) -> pd.DataFrame:
        """The differences of all nodes that are no images; index (sample, row) where there are samples."""
        one, other = self.one.to_frame(), self.other.to_frame()
        nodes = {name: self.one.variables.get(str(name)) for name in one.columns if name in other.columns}
        columns = {
            name: one[name] != other[name] if isinstance(variable, Categorical) else one[name] - other[name]
            for name, variable in nodes.items()
        }
        return type(one)(columns, index=one.index)

    def summary(self) -> pd.DataFrame:
        """Mean, standard deviation and quantiles of each difference; see ``Counterfactual.summary``.

        Of a categorical node: the probability that the worlds differ.
        """
        return summarise_contrast(self.one, self.other, self._nodes)

    def __repr__(self) -> str:
        """Both interventions, counts and nodes; then mean and spread of each node's first rows."""
        draws = "" if self.one.samples is None else f"{self.one.samples} samples x "
        return (
            f"Contrast({_say(self.one)} against {_say(self.other)}, {draws}{self.one.rows} rows: "
            f"{', '.join(self._nodes)})\n{contrast_text(self.one, self.other, self._nodes)}"
        )


def _say(world: Counterfactual) -> str:
    return f"do({', '.join(f'{node} = {text}' for node, text in world.do.items())})"
