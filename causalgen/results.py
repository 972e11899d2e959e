"""Results: mappings from node to values, with where each value came from.

A node gives a tensor (B, *event), or (S, B, *event) where S samples were asked for, in the user's form: data
units, codes, images in [0, 1]; labelled categories give an array of labels. Where the evidence was a
DataFrame, scalar nodes give a Series with its index.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from graphs.errors import UnknownNameError
from graphs.variables import Variable
from mechanisms.base import Noise

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Counterfactual", "Draws"]


class Draws(Mapping[str, Any]):
    """Rows drawn from a model, by node.

    Attributes:
        variables: of the nodes it holds, in topological order.
        provenance: how each row of each node was obtained, (B,) strings; see ``causalgen.provenance``.
        rows: B.
        samples: S, or None where one draw was asked for.
        seed: gives the same result again.
    """

    def __init__(
        self,
        variables: Mapping[str, Variable],
        canonical: Mapping[str, Tensor],
        *,
        rows: int,
        samples: int | None,
        provenance: Mapping[str, NDArray[np.object_]],
        seed: int,
        index: pd.Index | None = None,
    ) -> None:
        """Made by ``SCM``; ``canonical`` holds B or S * B rows a node."""
        self.variables, self.provenance = variables, provenance
        self.rows, self.samples, self.seed, self.index = rows, samples, seed, index
        self._canonical = canonical

    def __getitem__(self, node: str) -> Any:
        """Values of a node in the user's form."""
        if node not in self.variables:
            raise UnknownNameError.of("node", node, self.variables, where="the result")
        return self._decode(node, self._canonical[node], samples=self.samples)

    def __iter__(self) -> Iterator[str]:
        """Nodes in topological order."""
        return iter(self.variables)

    def __len__(self) -> int:
        """How many nodes there are."""
        return len(self.variables)

    def canonical(self, node: str) -> Tensor:
        """Values of a node in canonical encoding: (B, *event) where no sample differs, or (S * B, *event)."""
        return self._canonical[node]

    def to_frame(self) -> pd.DataFrame:
        """The nodes that are no images as a table; index (sample, row) where there are samples."""
        from causalgen.saving.export import to_frame

        return to_frame(self)

    def plot(self, rows: int = 8) -> Figure:
        """A picture of at most ``rows`` rows."""
        from causalgen.drawing.plots import plot_draws

        return plot_draws(self, rows)

    def save(self, folder: Path | str) -> Path:
        """Write a folder, all or nothing: a table, PNGs and JSON; see ``causalgen.saving.export``."""
        from causalgen.saving.export import save_draws

        return save_draws(self, folder)

    def __repr__(self) -> str:
        """Counts and nodes."""
        draws = "" if self.samples is None else f"{self.samples} samples x "
        return f"{type(self).__name__}({draws}{self.rows} rows: {', '.join(self.variables)})"

    def _repr_html_(self) -> str:
        """The picture and the table, for notebooks."""
        from causalgen.saving.export import draws_html

        return draws_html(self)

    def _decode(self, node: str, values: Tensor, *, samples: int | None) -> Any:
        if samples is not None:
            if len(values) == self.rows:
                values = values.expand(samples, *values.shape)
            else:
                values = values.reshape(samples, self.rows, *values.shape[1:])
        decoded = self.variables[node].decode(values)
        if self.index is None or samples is not None or self.variables[node].event_shape:
            return decoded
        import pandas as pd

        return pd.Series(np.asarray(decoded), index=self.index, name=node)


class Counterfactual(Draws):
    """What rows of evidence would have been under an intervention.

    Attributes:
        do: what was set, as text, by node.
        noise: of the nodes that were recomputed.
        weights: (S, B) of the samples, summing to 1 over S: all equal, since weighted draws are resampled.
        lineages: (S, B) each: draws of one number in a row are copies of one weighted draw, and no
            independent draws; see ``causalgen.inference.resampling``.
    """

    def __init__(
        self,
        variables: Mapping[str, Variable],
        canonical: Mapping[str, Tensor],
        *,
        factual: Mapping[str, Tensor],
        do: Mapping[str, str],
        noise: Mapping[str, Noise],
        weights: Tensor,
        lineages: Sequence[Tensor] = (),
        rows: int,
        samples: int | None,
        provenance: Mapping[str, NDArray[np.object_]],
        seed: int,
        index: pd.Index | None = None,
    ) -> None:
        """Made by ``SCM``."""
        super().__init__(
            variables, canonical, rows=rows, samples=samples, provenance=provenance, seed=seed, index=index
        )
        self.do, self.noise, self.weights, self._factual = do, noise, weights, factual
        self.lineages = tuple(lineages)

    @property
    def factual(self) -> dict[str, Any]:
        """The evidence in the form of the result, (B, *event) by node.

        Where it was missing, the first of the values drawn for it; ``do={}`` gives all of them.
        """
        return {
            node: self._decode(node, self._factual[node][: self.rows], samples=None)
            for node in self.variables
        }

    def factual_canonical(self, node: str) -> Tensor:
        """The evidence of a node in canonical encoding, (B, *event); (S * B, *event) where it was drawn."""
        return self._factual[node]
