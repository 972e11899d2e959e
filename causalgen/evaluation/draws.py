"""Several draws of the counterfactual of one row, and what their spread is compared with.

Where the abduction draws, one image has many counterfactuals under the same question. For row i, asked for
the causes c_i:

    own       S draws of f(c_i, u), u ~ p(u | x_i, pa_i)
    others    S draws of f(c_i, u), u ~ p(u | x_j, pa_j), the next row j asked what row i is asked
    samples   2 S draws of f(c_i, u), u ~ p(u): the model's own, half of them for those of another row

So the causes are the same in all three, and what differs is which evidence there was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from causalgen.fitting.parallel import Workers, in_parallel
from causalgen.metrics.node_passes import BATCH_ROWS
from graphs.errors import numbered_rows
from mechanisms.extrapolation import extrapolation_expected
from mechanisms.seeds import keyed_seed

if TYPE_CHECKING:
    from causalgen.scm import SCM

__all__ = ["DRAWS", "PASSES", "RowDraws", "draw_rows"]

DRAWS = 4
"""Draws of a row, S."""

PASSES = 5 * DRAWS
"""Of a row and question, for the progress bar: own, others and samples, and the abductions."""

Drawn = NDArray[np.float32]
"""(S, N, C, H, W), in [0, 1]."""


@dataclass(frozen=True)
class RowDraws:
    """Draws of N rows under one question, (S or 2 S, N, C, H, W) each; see the module."""

    own: Drawn  # of the row itself
    others: Drawn  # of another row, asked the same
    samples: Drawn  # of the model under the same causes


def draw_rows(
    scm: SCM,
    node: str,
    evidence: Mapping[str, NDArray[Any]],
    asked: Sequence[Mapping[str, NDArray[Any]]],
    *,
    numbers: NDArray[np.int64],
    seed: int,
    workers: Workers,
    advance: Callable[[int], None],
) -> list[RowDraws]:
    """Draws of an image node, whose abduction draws, under several questions; a row is abducted once for all.

    ``evidence`` holds every node of the model, N >= 2 rows, ``asked`` for each question the values of all
    causes of the image. ``numbers`` are those of the rows, (N,), in the data that the user gave; ``advance``
    is told of passes of rows.
    """
    count = len(evidence[node])
    # Parts of nearly equal size: none is left with a single row, which would be its own other one.
    split = np.array_split(np.arange(count), ceil(count * DRAWS / BATCH_ROWS))

    def draw(part: int) -> list[RowDraws]:
        rows, key = split[part], keyed_seed(seed, "draws", part)
        held = {name: values[rows] for name, values in evidence.items()}
        found: list[RowDraws] = []
        with extrapolation_expected(), numbered_rows(numbers[rows]):
            abduction = scm.abduct(held, num_samples=DRAWS, seed=key)
            for place, question in enumerate(asked):
                causes = {name: values[rows] for name, values in question.items()}
                before = {name: np.roll(values, 1, axis=0) for name, values in causes.items()}
                own, others = (
                    abduction.counterfactual(each, targets=[node])[node].cpu().numpy()
                    for each in (causes, before)
                )
                tiled = {name: np.concatenate([values] * 2 * DRAWS) for name, values in causes.items()}
                n = 2 * DRAWS * len(rows)
                samples = scm.sample(n, do=tiled, targets=[node], seed=keyed_seed(key, place))
                drawn = samples[node].cpu().numpy().reshape(2 * DRAWS, *own.shape[1:])
                found.append(RowDraws(own, np.roll(others, -1, axis=1), drawn))
        return found

    def done(part: int) -> None:
        advance(PASSES * len(asked) * len(split[part]))

    drawn = in_parallel(draw, len(split), workers, done=done)
    return [
        RowDraws(
            *(
                np.concatenate([getattr(part, name) for part in parts], 1)
                for name in ("own", "others", "samples")
            )
        )
        for parts in zip(*drawn, strict=True)
    ]
