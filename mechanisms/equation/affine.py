"""Which equations are affine in some names with normal noise, and with which slopes.

An equation is peeled name by name: f = slope * name + rest, and the rest again, until no such name is left.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from graphs.expressions import Expression
from mechanisms.equation.tensor_functions import TORCH
from mechanisms.linear_form import LinearForm
from mechanisms.tables.noise_families import NoiseLaw

__all__ = ["affine_equation"]


def affine_equation(
    expression: Expression,
    laws: Mapping[str, NoiseLaw],
    unknown: Collection[str],
    known: Mapping[str, Tensor],
    rows: int,
    device: torch.device,
) -> LinearForm | None:
    """The form of a scalar equation with at most one noise, a normal one; None where it has none.

    Its slopes may depend on known parents alone.

    Args:
        expression: f, in parents and noise.
        laws: of the noises.
        unknown: parents that it is to be affine in.
        known: values of the others, (N,).
        rows: N.
        device: of the result.
    """
    if len(laws) > 1 or any(law.name != "normal" for law in laws.values()):
        return None
    slopes: dict[str, Tensor] = {}
    rest = expression
    for name in (*laws, *unknown):
        form = rest.affine(name)
        if form is None or not {*unknown, *laws}.isdisjoint(form[0].names):
            return None
        slopes[name], rest = form[0].evaluate(known, TORCH).to(device).expand(rows), form[1]
    offset = rest.evaluate(known, TORCH).to(device).expand(rows)
    variance = torch.zeros(rows, dtype=torch.float64, device=device)
    for name, law in laws.items():
        mean, deviation = law.parameters
        offset, variance = offset + slopes[name] * mean, (slopes[name] * deviation) ** 2
    # One matrix for all rows where no slope depends on the row.
    matrices = {name: slopes[name].view(-1, 1, 1) for name in unknown}
    matrices = {name: _once(matrix) for name, matrix in matrices.items()}
    return LinearForm(matrices, offset[:, None], _once(variance.view(-1, 1, 1)))


def _once(matrix: Tensor) -> Tensor:
    return matrix[:1] if bool((matrix == matrix[:1]).all()) else matrix
