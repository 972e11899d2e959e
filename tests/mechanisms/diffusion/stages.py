"""Fits of a node in stages, counted by their steps and stopped where a test wants them to be."""

import pytest
import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from causalgen.data.table import Table
from causalgen.fitting.fit import fit_mechanism
from mechanisms.training import Training

__all__ = ["SHORT", "Stop", "fit_counted", "same_weights"]

SHORT = Training(epochs=2, batch_size=6, validation=0)
"""Of a stage: four steps on 12 rows."""


class Stop(Exception):
    """What a killed process looks like from inside."""


def fit_counted(mechanism, columns, stop_at=None, **options) -> int:
    """Fit "x" on these columns: the number of steps; ``Stop`` is raised before step ``stop_at``."""
    steps, average = [], get_ema_multi_avg_fn

    def counted(decay):
        if len(steps) == stop_at:
            raise Stop
        steps.append(1)
        return average(decay)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("causalgen.fitting.training_loop.get_ema_multi_avg_fn", counted)
        fit_mechanism("x", mechanism, Table(columns), seed=0, progress=False, checkpoint_seconds=0, **options)
    return len(steps)


def same_weights(one, two) -> bool:
    """Whether two mechanisms hold the same, to the bit."""
    mine, theirs = one.state_dict(), two.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
