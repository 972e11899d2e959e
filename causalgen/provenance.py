"""How each value of a result was obtained, by node and row; of all that went into it, the weakest wins.

copied          the factual value itself: nothing upstream changed
exact           recomputed from noise recovered exactly
posterior       recomputed from a draw of the noise's exact posterior
approximate     recomputed from noise recovered approximately, as by inverting a diffusion model
prior           drawn from the model: no evidence bears on it
interventional  set by the intervention
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalgen.engine import Prediction, World
from causalgen.rows import Mask

__all__ = ["Provenance", "trace_provenance"]

Provenance = Literal["copied", "exact", "posterior", "approximate", "prior", "interventional"]

_ORDER = ("copied", "exact", "posterior", "approximate", "prior", "interventional")
_SET = _ORDER.index("interventional")


def trace_provenance(
    world: World, prediction: Prediction, abducted: Collection[str], rows: int, samples: int
) -> dict[str, NDArray[np.object_]]:
    """Provenance of each predicted node and row, (B,) strings; over samples the weakest.

    Args:
        world: after surgery.
        prediction: in that world.
        abducted: nodes whose noise was abducted; others drew from their prior.
        rows: B.
        samples: S.
    """
    codes: dict[str, Tensor] = {}
    for node in prediction.values:
        if node in world.touched:
            codes[node] = torch.full((rows,), _SET)
            continue
        origin = world.origin(node)
        own = world.mechanisms[node].abduction if origin in abducted else "prior"
        # An intervened parent is known for certain: it weakens nothing.
        inherited = [torch.where(codes[p] == _SET, 0, codes[p]) for p in world.graph.parents(node)]
        weakest = torch.stack([torch.full((rows,), _ORDER.index(own)), *inherited]).amax(0)
        codes[node] = torch.where(_any_sample(prediction.recomputed[node], rows, samples), weakest, 0)
    names = np.array(_ORDER, dtype=object)
    return {node: names[code.numpy()] for node, code in codes.items()}


def _any_sample(mask: Mask, rows: int, samples: int) -> Tensor:
    if isinstance(mask, bool):
        return torch.full((rows,), mask)
    return mask.cpu() if len(mask) == rows else mask.cpu().view(samples, rows).any(0)
