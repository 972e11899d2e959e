"""Strictness that all tests share: nothing may touch global random state or Pyro's global parameters.

Randomness enters only by a generator or a seed. A test that must draw from a global generator, as Pyro's
own ``sample`` does, draws under ``torch.random.fork_rng()``.
"""

import os
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np
import pytest
import rich.progress  # noqa: F401 - importing it draws from Python's generator, which no test is to blame for

from tests.causalgen.attacks import record

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


ATTACKS: defaultdict[str, Counter[str]] = defaultdict(Counter)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a report tells of its test, in another process too."""
    for item in items:
        if marker := item.get_closest_marker("attack"):
            item.user_properties.append(("attack", marker.args[0]))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count the tries of an attack."""
    for name, attack in report.user_properties:
        if name == "attack":
            ATTACKS[str(attack)].update(tried=report.when == "call", lost=report.failed)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write them, once for all processes of a run."""
    if not hasattr(session.config, "workerinput"):
        for attack, counts in ATTACKS.items():
            record(attack, **counts)
