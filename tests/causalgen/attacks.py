"""What attacks tried and what was lost, for the page that tells it.

With ``CAUSALGEN_ATTACKS=docs/data/attacks.json`` in the environment it is written there: a test that makes
many tries calls ``record`` when it has passed, and tests that make one each, marked
``@pytest.mark.attack("name of the attack")``, are counted by ``tests/conftest.py``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

__all__ = ["record"]


def record(attack: str, **counts: int) -> None:
    """Keep the counts of an attack, in the place of its earlier ones."""
    if name := os.environ.get("CAUSALGEN_ATTACKS"):
        path = Path(name)
        found = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(dict(sorted({**found, attack: counts}.items())), indent=1) + "\n")
