"""Results: mappings from node to values, with where each value came from.

A node gives a tensor (B, *event), or (S, B, *event) where S samples were asked for, in the user's form: data
units, codes, images in [0, 1]; labelled categories give an array of labels. Where the evidence was a
DataFrame, scalar nodes give a Series with its index.

A counterfactual keeps apart what was observed (``factual``) and what was drawn in its place (``inferred``);
the contrast of two is node by node what one differs by.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalgen.counterfactuals.own_readings import OwnReadings
from causalgen.counterfactuals.provenance import ProvenanceTable
from causalgen.counterfactuals.rows import by_sample
from causalgen.counterfactuals.summaries import contrast_text, summarise, summarise_contrast, summary_text
from causalgen.data.arrow_tables import Tabular
from graphs.errors import EvidenceError, UnknownNameError
from graphs.text import Shown, counted
from graphs.variables import Categorical, Image, Variable
from mechanisms.base import Noise
from mechanisms.rows import decoded_rows

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Contrast", "Counterfactual", "Draws"]


@dataclass(eq=False, repr=False)
class Draws(Mapping[str, Any], Shown, Tabular):
    """Rows drawn from a model, by node. Made by ``SCM``."""

    variables: Mapping[str, Variable]  #: of the nodes it holds, in topological order
    _canonical: Mapping[str, Tensor]  # B or S * B rows a node
    _: KW_ONLY
    rows: int  #: B
    samples: int | None  #: S, or None where one draw was asked for
    #: how each row of each node was obtained, (B,) strings; see ``causalgen.counterfactuals.provenance``
    provenance: ProvenanceTable
    seed: int  #: gives the same result again
    index: pd.Index | None = None  #: of the evidence, where it was a DataFrame

    def __getitem__(self, node: str) -> Any:
        UnknownNameError.check("node", node, self.variables, where="the result")
        return self._decode(node, self._canonical[node])

    def __iter__(self) -> Iterator[str]:
        return iter(self.variables)

    def __len__(self) -> int:
        return len(self.variables)

    def canonical(self, node: str) -> Tensor:
        """A copy of a node's values, in canonical encoding: (B, *event), or (S * B, *event)."""
        return self._canonical[node].clone()

    def draws(self, node: str) -> Tensor:
        """A copy of a node's values, canonical, (S, B, *event); S is 1 where one draw was asked for."""
        return by_sample(self._canonical[node], self.samples or 1, self.rows).clone()

    def to_frame(self) -> pd.DataFrame:
        """The nodes that are no images as a table; index (sample, row) where there are samples."""
        from causalgen.counterfactuals.export import to_frame

        return to_frame(self)

    def plot(self, rows: int = 8) -> Figure:
        """A picture of at most ``rows`` rows."""
        # Plots read results, and results do not know how they are drawn.
        return import_module("causalgen.plotting.plots").plot_draws(self, rows)

    def save(self, folder: Path | str) -> Path:
        """Write a folder, all or nothing: a table, images and JSON; see ``counterfactuals.export``."""
        from causalgen.counterfactuals.export import save_draws

        return save_draws(self, folder)

    def __repr__(self) -> str:
        draws = "" if self.samples is None else f"{counted(self.samples, 'sample')} x "
        return f"{type(self).__name__}({draws}{counted(self.rows, 'row')}: {', '.join(self.variables)})"

    def _decode(self, node: str, values: Tensor) -> Any:
        if self.samples is not None:
            return decoded_rows(self.variables[node], by_sample(values, self.samples, self.rows))
        return self._with_index(node, decoded_rows(self.variables[node], values))

    def _with_index(self, node: str, decoded: Any) -> Any:
        """A Series of a scalar node where the evidence was a DataFrame."""
        if self.index is None or self.variables[node].event_shape:
            return decoded
        import pandas as pd

        values = np.asarray(decoded)
        # Of strings with gaps pandas would make a column whose gaps are NaN, not None.
        gaps = values.dtype == object and any(value is None for value in values)
        return pd.Series(values, index=self.index, name=node, dtype=object if gaps else None)


@dataclass(eq=False, repr=False, kw_only=True)
class Counterfactual(Draws):
    """What rows of evidence would have been under an intervention."""

    do: Mapping[str, str]  #: what was set, as text, by node
    weights: Tensor  #: (S, B) of the samples, summing to 1 over S: all equal, as weighted draws are resampled
    #: (S, B) each: draws of one number in a row are copies of one weighted draw, and no independent draws;
    #: see ``causalgen.counterfactuals.missing_evidence.particles``
    lineages: tuple[Tensor, ...]
    _noise: Mapping[str, Noise]
    _factual: Mapping[str, Tensor]  # the evidence, with values drawn where it is missing
    # Of nodes with gaps: which rows, (B,) or (1,) bool, were "inferred", drawn from their "prior", or "exact"
    _missing: Mapping[str, Mapping[str, Tensor]]
    _readings: OwnReadings

    @property
    def noise(self) -> dict[str, Noise]:
        """A copy of the noise of the nodes that were recomputed."""
        return {node: noise.clone() for node, noise in self._noise.items()}

    @property
    def factual(self) -> dict[str, Any]:
        """What was observed, (B, *event) by node in the form of the result, with gaps where nothing was.

        A gap is NaN in numbers and in codes, None among labels. Of an image with gaps there is a list, with
        None in these. It is evidence again: abduction reads gaps the same way.
        """
        found: dict[str, Any] = {}
        for node, variable in self.variables.items():
            values: Any = decoded_rows(variable, self._factual[node][: self.rows])
            if (gaps := self._gaps(node)).any():
                values = _with_gaps(variable, values, gaps)
            found[node] = values if isinstance(values, list) else self._with_index(node, values)
        return found

    @property
    def inferred(self) -> dict[str, Any]:
        """Draws of the nodes that evidence lacks in some row, in the form of the result.

        (B, *event), or (S, B, *event) with samples. Rows that were observed hold what was observed;
        ``sources`` tells which.
        """
        return {
            node: self._decode(node, self._factual[node]) for node in self.variables if self._gaps(node).any()
        }

    @property
    def sources(self) -> dict[str, NDArray[np.object_]]:
        """Where the evidence of each node and row comes from, (B,) strings.

        "observed", as is what an earlier ``scm.do`` set; "exact", computed from what is, by a mechanism
        without noise; "inferred", drawn from its posterior; or "prior", drawn from the model given its
        causes, as nothing that it causes was observed.
        """
        found: dict[str, NDArray[np.object_]] = {}
        for node in self.variables:
            found[node] = np.full(self.rows, "observed", dtype=object)
            for source, where in self._missing.get(node, {}).items():
                found[node][where.expand(self.rows).numpy()] = source
        return found

    @property
    def determined(self) -> dict[str, NDArray[np.bool_]]:
        """Whether the evidence determines a value, (B,) by node; where not, another seed may give another.

        One draw of what is not determined says nothing of its spread: ask ``num_samples``.
        """
        return {node: self.provenance.determined(node) for node in self.variables}

    @property
    def readings(self) -> OwnReadings:
        """What the model itself reads of the causes in its images, by image node and cause.

        The model's own predictor reads, which is no independent judge. Read when first asked for; empty where
        a node has no predictor. See ``causalgen.counterfactuals.own_readings``.
        """
        return self._readings.only(self.variables)

    def factual_canonical(self, node: str) -> Tensor:
        """A copy of a node's evidence, canonical, (B, *event); (S * B, *event) where it was drawn."""
        return self._factual[node].clone()

    def inferred_draws(self, node: str) -> Tensor:
        """A copy of a node's evidence, canonical, with its draws where it lacks, (S, B, *event)."""
        return by_sample(self._factual[node], self.samples or 1, self.rows).clone()

    def summary(self) -> pd.DataFrame:
        """Mean, standard deviation and quantiles of each number, the probability of each category.

        A line for each node, row and, of a categorical node, category that occurs; see
        ``causalgen.counterfactuals.summaries``.
        """
        return summarise(self)

    def __repr__(self) -> str:
        """Counts and nodes; then mean and spread of each node's first rows."""
        return f"{super().__repr__()}\n{summary_text(self)}"

    def _gaps(self, node: str) -> NDArray[np.bool_]:
        """(B,) the rows in which a node was not observed."""
        gaps = np.zeros(self.rows, dtype=np.bool_)
        for where in self._missing.get(node, {}).values():
            gaps |= where.expand(self.rows).numpy()
        return gaps


def _with_gaps(variable: Variable, values: Any, gaps: NDArray[np.bool_]) -> Any:
    """Decoded rows without what stands in their gaps."""
    if isinstance(variable, Image):
        return [None if gap else value for gap, value in zip(gaps, values, strict=True)]
    if isinstance(values, np.ndarray):  # labels
        values = values.copy()
        values[gaps] = None
        return values
    values = values.double().clone()  # whole numbers have no NaN
    values[torch.from_numpy(gaps)] = torch.nan
    return values


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
        evidence = [(one._factual[node], other._factual[node]) for node in shared]
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
        draws = "" if self.one.samples is None else f"{counted(self.one.samples, 'sample')} x "
        return (
            f"Contrast({_say(self.one)} against {_say(self.other)}, {draws}{counted(self.one.rows, 'row')}: "
            f"{', '.join(self._nodes)})\n{contrast_text(self.one, self.other, self._nodes)}"
        )


def _say(world: Counterfactual) -> str:
    return f"do({', '.join(f'{node} = {text}' for node, text in world.do.items())})"
