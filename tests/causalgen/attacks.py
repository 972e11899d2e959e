"""What attacks tried and what was lost, for the page that tells it.

With ``CAUSALGEN_ATTACKS=docs/data/attacks.json`` in the environment it is written there: a test that makes
many tries calls ``record`` when it has passed, and tests that make one each, marked
``@pytest.mark.attack("name of the attack")``, are counted by ``tests/conftest.py``. Then

    python tests/causalgen/attacks.py

writes the table of ``docs/testing.md`` anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

__all__ = ["record", "with_table"]

_HEAD = "| Attack | tried | lost or wrong |\n|---|---|---|\n"


def record(attack: str, **counts: int) -> None:
    """Keep the counts of an attack, in the place of its earlier ones."""
    if name := os.environ.get("CAUSALGEN_ATTACKS"):
        path = Path(name)
        found = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(dict(sorted({**found, attack: counts}.items())), indent=1) + "\n")


def with_table(page: str, counts: dict[str, dict[str, int]]) -> str:
    """The page with a table of these counts."""
    before, _, after = page.partition(_HEAD)
    rows = (f"| {attack} | {found['tried']:,} | {found['lost']} |\n" for attack, found in counts.items())
    return before + _HEAD + "".join(rows) + after[after.index("\n\n") + 1 :]


if __name__ == "__main__":
    docs = Path(__file__).parents[2] / "docs"
    page = docs / "testing.md"
    counted = json.loads((docs / "data" / "attacks.json").read_text())
    page.write_text(with_table(page.read_text(encoding="utf-8"), counted), encoding="utf-8")
