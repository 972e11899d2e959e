"""Strictness that all tests share: nothing may touch global random state or Pyro's global parameters.

Randomness enters only by a generator or a seed. A test that must draw from a global generator, as Pyro's
own ``sample`` does, draws under ``torch.random.fork_rng()``.
"""

import os
import random
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import rich.progress  # noqa: F401 - importing it draws from Python's generator, which no test is to blame for

# Before torch is imported, here and in the processes that tests start: the tensors of tests are small, and
# threads that wait for each other on a busy machine take minutes over them.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def _global_state() -> dict[str, object]:
    """What each global generator and Pyro's store hold, for the libraries imported so far."""
    name, keys, *rest = np.random.get_state()
    state: dict[str, object] = {
        "Python's random state": random.getstate(),
        "NumPy's random state": (name, keys.tobytes(), *rest),
    }
    if torch := sys.modules.get("torch"):
        state["torch's random state"] = torch.get_rng_state().numpy().tobytes()
    if pyro := sys.modules.get("pyro"):
        # By content, since an optimiser changes parameters in place.
        state["Pyro's parameter store"] = {
            name: value.detach().cpu().numpy().tobytes() for name, value in pyro.get_param_store().items()
        }
    return state


@pytest.fixture(autouse=True)
def global_state_unchanged() -> Iterator[None]:
    """Fail a test that changes a global random state or Pyro's parameter store."""
    before = _global_state()
    yield
    # A library that the test was the first to import is compared from the next test on.
    changed = [what for what, state in _global_state().items() if state != before.get(what, state)]
    assert not changed, f"The test changed {' and '.join(changed)}: draw from a generator instead."
