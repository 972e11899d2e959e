"""``causalgen check``: whether a model agrees with rows; see ``scm.check``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from causalgen.cli.common import (
    choice_of_missing,
    column_names,
    console,
    load_model,
    rows_of,
    use_threads,
    write_file,
)

__all__ = ["FOUND", "run_check"]

FOUND = 3
"""Exit code where something speaks against the model."""


def run_check(
    model: str,
    data: str | None,
    out: Path | None,
    *,
    level: float,
    missing: str,
    rename: Sequence[str],
    seed: int,
    device: str | None,
    threads: int | None,
) -> None:
    """Check, print the report, write it as JSON where asked, and exit with 3 where there are problems."""
    use_threads(threads)
    drop = choice_of_missing(missing)
    scm = load_model(model, device)
    rows = rows_of(model, data, column_names(rename, scm, data))
    report = scm.check(rows, seed=seed, level=level, missing=drop)
    say = console().print
    say(str(report))
    if out is not None:
        write_file(out, json.dumps(report.to_dict(), indent=2, allow_nan=False).encode())
        say(str(out.resolve()))
    if not report.ok:
        sys.exit(FOUND)
