"""How each value of a result was obtained, by node and row; of all that went into it, the weakest wins.

copied          the factual value itself: nothing upstream changed, whatever is drawn
exact           recomputed from noise recovered exactly, or without noise from what is observed
posterior       recomputed from a draw of the noise's posterior under the model
approximate     recomputed from noise recovered approximately, as by inverting a diffusion model
inferred        drawn from its posterior, being missing in the evidence; or recomputed from such values
prior           drawn from the model given its causes: nothing that it causes was observed
interventional  set by the intervention

What is set by a function, or by another mechanism, is no better known than what it reads: children inherit
the weakest of that. A constant or a fresh draw weakens nothing.

A value is *determined* where no other seed would give another one: no noise behind it was drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, reduce
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalgen.counterfactuals.engine import Prediction
from causalgen.counterfactuals.interventions import Origin
from causalgen.counterfactuals.mutilated_model import MutilatedModel
from causalgen.counterfactuals.rows import Mask
from mechanisms.base import Mechanism

__all__ = ["Provenance", "ProvenanceTable", "trace_provenance"]

Provenance = Literal["copied", "exact", "posterior", "approximate", "inferred", "prior", "interventional"]

_ORDER = ("copied", "exact", "posterior", "approximate", "inferred", "prior", "interventional")
_Code = NDArray[np.integer]
"""Place in the order: (B,), or one for all rows, ()."""
_NAMES = np.array(_ORDER, dtype=object)
_SET = _ORDER.index("interventional")


class ProvenanceTable(Mapping[str, NDArray[np.object_]]):
    """Provenance by node, (B,) strings; traced, and spelled out, when asked for."""

    def __init__(self, trace: Callable[[], Mapping[str, Origin]], nodes: Iterable[str], rows: int) -> None:
        """Made by ``trace_provenance``; codes count in the order of the module's list."""
        self._trace, self._nodes, self._rows = trace, tuple(nodes), rows

    @cached_property
    def _traced(self) -> Mapping[str, Origin]:
        return self._trace()

    def origin(self, node: str) -> Origin:
        """Where a node's rows come from."""
        return self._traced[node]

    def determined(self, node: str) -> NDArray[np.bool_]:
        """(B,) whether no other seed would give the row another value."""
        return np.broadcast_to(self._traced[node].drawn, self._rows) == 0

    def __getitem__(self, node: str) -> NDArray[np.object_]:
        return _NAMES[np.broadcast_to(self._traced[node].told, self._rows)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def __repr__(self) -> str:
        return repr(dict(self))

    def __getstate__(self) -> dict[str, Any]:
        """Traced: copies and pickles of a result do not hold its model."""
        return {"_traced": self._traced, "_nodes": self._nodes, "_rows": self._rows}

    def only(self, nodes: Iterable[str]) -> ProvenanceTable:
        """That of some nodes."""
        return ProvenanceTable(lambda: self._traced, nodes, self._rows)


def trace_provenance(
    world: MutilatedModel,
    prediction: Prediction,
    abducted: Mapping[str, Mechanism],
    rows: int,
    samples: int,
    fed: Mapping[str, Origin] | None = None,
    drawn: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> ProvenanceTable:
    """Provenance of each predicted node and row, (B,) strings; over samples the weakest.

    ``abducted`` has the nodes whose noise was abducted, with the mechanisms that did so; others drew from
    their prior. ``fed`` says of nodes set to what they are in another world where they come from there.
    ``drawn`` says of nodes missing in the evidence in which rows, (B,) bool, the value was "inferred" or
    drawn from its "prior", or "exact", the same in each draw.
    """

    def trace() -> dict[str, Origin]:
        found: dict[str, Origin] = {}
        given = {node: _code_of(sources) for node, sources in (drawn or {}).items()}
        missing = {node: (code > _ORDER.index("exact")).astype(int) for node, code in given.items()}
        # Where draws decide whether a value is the factual one: with another seed its children may change.
        unsettled: dict[str, Any] = {}
        for node in prediction.values:
            if fed and node in fed:
                found[node] = fed[node]
                unsettled[node] = found[node].drawn | missing.get(world.origin(node), 0)
                continue
            parents, origin, kept = world.graph.parents(node), world.origin(node), world.keeps_noise(node)
            by = abducted.get(origin) if kept else None
            again = _any_sample(prediction.recomputed[node], rows, samples)
            again = reduce(np.logical_or, (unsettled[name] for name in parents), again)
            # Noise recovered from an inferred value, or given an inferred parent, is no better than these.
            inferred = {origin, *map(world.origin, parents)} & given.keys() if kept else ()
            own = 0 if not kept else _ORDER.index("prior" if by is None else by.abduction)
            weakest: list[Any] = [own, *(found[name].inherited for name in parents)]
            weakest += [given[name] for name in inferred]
            draws: list[Any] = [_draws_noise(world.mechanisms[node], by)]
            draws += [*(found[name].drawn for name in parents), *(missing[name] for name in inferred)]
            inherited = np.where(again, reduce(np.maximum, weakest), given.get(origin, 0))
            told = np.array(_SET) if node in world.touched else inherited
            unsure = np.where(again, reduce(np.maximum, draws), missing.get(origin, 0))
            found[node] = Origin(told, inherited, unsure)
            unsettled[node] = again & (unsure | missing.get(origin, 0)).astype(bool)
        return found

    return ProvenanceTable(trace, prediction.values, rows)


def _draws_noise(mechanism: Mechanism, by: Mechanism | None) -> int:
    """1 where a recomputed node's noise is a draw: of its posterior ``by`` a mechanism, or of a law."""
    if by is not None:
        return int(not by.deterministic)
    generator = torch.Generator(mechanism.device).manual_seed(0)
    return int(bool(mechanism.sample_noise(1, generator=generator).leaves))


def _code_of(sources: Mapping[str, Tensor]) -> _Code:
    """Where values are missing, how they were drawn; 0 elsewhere."""
    return reduce(np.maximum, (where.numpy() * _ORDER.index(name) for name, where in sources.items()))


def _any_sample(mask: Mask, rows: int, samples: int) -> NDArray[np.bool_]:
    """Rows of which some sample was computed, (B,), or (1,) for all."""
    whole = torch.as_tensor(mask).cpu().reshape(-1)
    return (whole if len(whole) in (1, rows) else whole.view(samples, rows).any(0)).numpy()
