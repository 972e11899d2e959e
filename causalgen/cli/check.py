"""``causalgen check``: whether a model agrees with rows; see ``scm.check``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from causalgen.cli.options import Device, GivenRows, Missing, ModelName, Rename, Seed, Threads

__all__ = ["FOUND", "check"]

FOUND = 3
"""Exit code where something speaks against the model."""


def check(
    model: ModelName,
    data: GivenRows = None,
    out: Annotated[Path | None, typer.Option(help="Write the report to this JSON too.")] = None,
    level: Annotated[float, typer.Option(help="False discovery rate of all tests together.")] = 0.01,
    missing: Missing = "refuse",
    rename: Rename = None,
    seed: Seed = 0,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Whether a model agrees with rows: fit and independences; exit code 3 where it does not."""
    from causalgen.cli.common import console, load_model, rows_of, use_threads, write_file

    use_threads(threads)
    scm = load_model(model, device)
    rows = rows_of(model, scm, data, rename)
    report = scm.check(rows, seed=seed, level=level, missing=missing)
    say = console().print
    say(str(report))
    if out is not None:
        write_file(out, json.dumps(report.to_dict(), indent=2, allow_nan=False).encode())
        say(str(out.resolve()))
    if not report.ok:
        sys.exit(FOUND)
