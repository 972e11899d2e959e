"""How each value of a result was obtained, by node and row; of all that went into it, the weakest wins.

copied          the factual value itself: nothing upstream changed
exact           recomputed from noise recovered exactly
posterior       recomputed from a draw of the noise's exact posterior
approximate     recomputed from noise recovered approximately, as by inverting a diffusion model
inferred        drawn from its posterior, being missing in the evidence; or recomputed from such values
prior           drawn from the model: no evidence bears on it
interventional  set by the intervention
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalgen.engine import Prediction, World
from causalgen.rows import Mask

__all__ = ["Provenance", "ProvenanceTable", "trace_provenance"]

Provenance = Literal["copied", "exact", "posterior", "approximate", "inferred", "prior", "interventional"]

_ORDER = ("copied", "exact", "posterior", "approximate", "inferred", "prior", "interventional")
_NAMES = np.array(_ORDER, dtype=object)
_SET = _ORDER.index("interventional")


class ProvenanceTable(Mapping[str, NDArray[np.object_]]):
    """Provenance by node, (B,) strings; kept as a byte a row, and spelled out when asked for."""

    def __init__(self, codes: Mapping[str, Tensor]) -> None:
        """Made by ``trace_provenance``; codes count in the order of the module's list."""
        self._codes = codes

    def __getitem__(self, node: str) -> NDArray[np.object_]:
        """How each row of the node was obtained."""
        return _NAMES[self._codes[node].numpy()]

    def __iter__(self) -> Iterator[str]:
        """Nodes in topological order."""
        return iter(self._codes)

    def __len__(self) -> int:
        """How many nodes there are."""
        return len(self._codes)

    def __repr__(self) -> str:
        """As a dict of arrays."""
        return repr(dict(self))

    def only(self, nodes: Iterable[str]) -> ProvenanceTable:
        """That of some nodes."""
        return ProvenanceTable({node: self._codes[node] for node in nodes})


def trace_provenance(
    world: World,
    prediction: Prediction,
    abducted: Collection[str],
    rows: int,
    samples: int,
    fed: Mapping[str, NDArray[np.object_]] | None = None,
    drawn: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> ProvenanceTable:
    """Provenance of each predicted node and row, (B,) strings; over samples the weakest.

    Args:
        world: after surgery.
        prediction: in that world.
        abducted: nodes whose noise was abducted; others drew from their prior.
        rows: B.
        samples: S.
        fed: provenance of nodes set to what they are in another world, (B,): there it was obtained.
        drawn: of nodes missing in the evidence, in which rows, (B,) bool, the value was "inferred" or drawn
            from its "prior".
    """
    codes: dict[str, Tensor] = {}
    given = {node: _code_of(sources, rows) for node, sources in (drawn or {}).items()}
    observed = torch.zeros(rows, dtype=torch.uint8)
    for node in prediction.values:
        if fed and node in fed:
            codes[node] = torch.tensor([_ORDER.index(name) for name in fed[node]], dtype=torch.uint8)
            continue
        if node in world.touched:
            codes[node] = torch.full((rows,), _SET, dtype=torch.uint8)
            continue
        origin = world.origin(node)
        own = world.mechanisms[node].abduction if origin in abducted else "prior"
        # An intervened parent is known for certain: it weakens nothing.
        inherited = [torch.where(codes[p] == _SET, 0, codes[p]) for p in world.graph.parents(node)]
        # Noise recovered from an inferred value, or given an inferred parent, is no better than these.
        origins = {world.origin(name) for name in (node, *world.graph.parents(node))}
        evidence = [given[name] for name in origins & given.keys()]
        weakest = torch.full((rows,), _ORDER.index(own), dtype=torch.uint8)
        for source in (*inherited, *evidence):
            weakest = torch.maximum(weakest, source)
        again = _any_sample(prediction.recomputed[node], rows, samples)
        codes[node] = torch.where(again, weakest, given.get(origin, observed))
    return ProvenanceTable(codes)


def _code_of(sources: Mapping[str, Tensor], rows: int) -> Tensor:
    code = torch.zeros(rows, dtype=torch.uint8)
    for name, where in sources.items():
        code = torch.where(where.expand(rows), _ORDER.index(name), code)
    return code


def _any_sample(mask: Mask, rows: int, samples: int) -> Tensor:
    if isinstance(mask, bool):
        return torch.full((rows,), mask)
    return mask.cpu() if len(mask) == rows else mask.cpu().view(samples, rows).any(0)
