"""How each value of a result was obtained, by node and row; of all that went into it, the weakest wins.

copied          the factual value itself: nothing upstream changed
exact           recomputed from noise recovered exactly
posterior       recomputed from a draw of the noise's posterior under the model
approximate     recomputed from noise recovered approximately, as by inverting a diffusion model
inferred        drawn from its posterior, being missing in the evidence; or recomputed from such values
prior           drawn from the model: no evidence bears on it
interventional  set by the intervention

A value is *determined* where no other seed would give another one: no noise behind it was drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cached_property, reduce
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalgen.counterfactuals.engine import Prediction
from causalgen.counterfactuals.mutilated_model import MutilatedModel
from causalgen.counterfactuals.rows import Mask

__all__ = ["Provenance", "ProvenanceTable", "trace_provenance"]

Provenance = Literal["copied", "exact", "posterior", "approximate", "inferred", "prior", "interventional"]

_ORDER = ("copied", "exact", "posterior", "approximate", "inferred", "prior", "interventional")
_Code = NDArray[np.integer]
"""Place in the order: (B,), or one for all rows, ()."""
_NAMES = np.array(_ORDER, dtype=object)
_SET = _ORDER.index("interventional")


_DRAWN = ("posterior", "inferred", "prior")

_Traced = tuple[Mapping[str, _Code], Mapping[str, _Code]]
"""The places in the order, by node, and 1 where a value depends on a draw."""


class ProvenanceTable(Mapping[str, NDArray[np.object_]]):
    """Provenance by node, (B,) strings; traced, and spelled out, when asked for."""

    def __init__(self, trace: Callable[[], _Traced], nodes: Iterable[str], rows: int) -> None:
        """Made by ``trace_provenance``; codes count in the order of the module's list."""
        self._trace, self._nodes, self._rows = trace, tuple(nodes), rows

    @cached_property
    def _traced(self) -> _Traced:
        return self._trace()

    def determined(self, node: str) -> NDArray[np.bool_]:
        """(B,) whether no other seed would give the row another value."""
        return np.broadcast_to(self._traced[1][node], self._rows) == 0

    def __getitem__(self, node: str) -> NDArray[np.object_]:
        return _NAMES[np.broadcast_to(self._traced[0][node], self._rows)]

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
    abducted: Collection[str],
    rows: int,
    samples: int,
    fed: Mapping[str, NDArray[np.object_]] | None = None,
    drawn: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> ProvenanceTable:
    """Provenance of each predicted node and row, (B,) strings; over samples the weakest.

    ``abducted`` names the nodes whose noise was abducted; others drew from their prior. ``fed`` is the
    provenance of nodes set to what they are in another world, (B,), where it was obtained. ``drawn`` says of
    nodes missing in the evidence in which rows, (B,) bool, the value was "inferred" or drawn from its
    "prior".
    """

    def trace() -> _Traced:
        """Places in the order, by node; and 1 where a draw went into the value, whether or not it was set."""
        codes: dict[str, _Code] = {}
        unsure: dict[str, _Code] = {}
        given = {node: _code_of(sources) for node, sources in (drawn or {}).items()}
        missing = {node: np.minimum(code, 1) for node, code in given.items()}
        for node in prediction.values:
            if fed and node in fed:
                codes[node] = np.array([_ORDER.index(name) for name in fed[node]])
                unsure[node] = np.isin(fed[node], _DRAWN).astype(int)
                continue
            parents, origin, touched = world.graph.parents(node), world.origin(node), node in world.touched
            again = _any_sample(prediction.recomputed[node], rows, samples)
            # Noise recovered from an inferred value, or given an inferred parent, is no better than these.
            origins = {origin, *map(world.origin, parents)}
            inferred = () if touched else origins & given.keys()
            draws: list[Any] = [int(_draws_noise(world, node, abducted)), *(unsure[name] for name in parents)]
            draws += [missing[name] for name in inferred]
            unsure[node] = np.where(again, reduce(np.maximum, draws), missing.get(origin, 0))
            if touched:
                codes[node] = np.array(_SET)
                continue
            own = world.mechanisms[node].abduction if origin in abducted else "prior"
            # An intervened parent is known for certain: it weakens nothing.
            inherited = [
                _ORDER.index(own),
                *(np.where(codes[name] == _SET, 0, codes[name]) for name in parents),
            ]
            inherited += [given[name] for name in inferred]
            codes[node] = np.where(again, reduce(np.maximum, inherited), given.get(origin, 0))
        return codes, unsure

    return ProvenanceTable(trace, prediction.values, rows)


def _draws_noise(world: MutilatedModel, node: str, abducted: Collection[str]) -> bool:
    """Whether a recomputed node's noise is a draw: of its posterior, or of its prior."""
    mechanism = world.mechanisms[node]
    if world.keeps_noise(node) and world.origin(node) in abducted:
        return not mechanism.deterministic
    generator = torch.Generator(mechanism.device).manual_seed(0)
    return bool(mechanism.sample_noise(1, generator=generator).leaves)


def _code_of(sources: Mapping[str, Tensor]) -> _Code:
    """Where values are missing, how they were drawn; 0 elsewhere."""
    return reduce(np.maximum, (where.numpy() * _ORDER.index(name) for name, where in sources.items()))


def _any_sample(mask: Mask, rows: int, samples: int) -> NDArray[np.bool_]:
    """Rows of which some sample was computed, (B,), or (1,) for all."""
    whole = torch.as_tensor(mask).cpu().reshape(-1)
    return (whole if len(whole) in (1, rows) else whole.view(samples, rows).any(0)).numpy()
