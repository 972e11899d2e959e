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

from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalgen.engine import Prediction, World
from causalgen.rows import Mask

__all__ = ["Provenance", "trace_provenance"]

Provenance = Literal["copied", "exact", "posterior", "approximate", "inferred", "prior", "interventional"]

_ORDER = ("copied", "exact", "posterior", "approximate", "inferred", "prior", "interventional")
_SET = _ORDER.index("interventional")


def trace_provenance(
    world: World,
    prediction: Prediction,
    abducted: Collection[str],
    rows: int,
    samples: int,
    fed: Mapping[str, NDArray[np.object_]] | None = None,
    drawn: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> dict[str, NDArray[np.object_]]:
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
    observed = torch.zeros(rows, dtype=torch.long)
    for node in prediction.values:
        if fed and node in fed:
            codes[node] = torch.tensor([_ORDER.index(name) for name in fed[node]])
            continue
        if node in world.touched:
            codes[node] = torch.full((rows,), _SET)
            continue
        origin = world.origin(node)
        own = world.mechanisms[node].abduction if origin in abducted else "prior"
        # An intervened parent is known for certain: it weakens nothing.
        inherited = [torch.where(codes[p] == _SET, 0, codes[p]) for p in world.graph.parents(node)]
        # Noise recovered from an inferred value, or given an inferred parent, is no better than these.
        origins = {world.origin(name) for name in (node, *world.graph.parents(node))}
        evidence = [given[name] for name in origins & given.keys()]
        weakest = torch.stack([torch.full((rows,), _ORDER.index(own)), *inherited, *evidence]).amax(0)
        again = _any_sample(prediction.recomputed[node], rows, samples)
        codes[node] = torch.where(again, weakest, given.get(origin, observed))
    names = np.array(_ORDER, dtype=object)
    return {node: names[code.numpy()] for node, code in codes.items()}


def _code_of(sources: Mapping[str, Tensor], rows: int) -> Tensor:
    code = torch.zeros(rows, dtype=torch.long)
    for name, where in sources.items():
        code = torch.where(where.expand(rows), _ORDER.index(name), code)
    return code


def _any_sample(mask: Mask, rows: int, samples: int) -> Tensor:
    if isinstance(mask, bool):
        return torch.full((rows,), mask)
    return mask.cpu() if len(mask) == rows else mask.cpu().view(samples, rows).any(0)
