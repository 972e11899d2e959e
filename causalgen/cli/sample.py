"""``causalgen sample``: rows from a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from causalgen.cli.assignments import parse_assignments
from causalgen.cli.common import console, load_model, use_threads
from causalgen.saving.result_folder import check_result_folder

__all__ = ["run_sample"]


def run_sample(
    model: str,
    out: Path,
    *,
    n: int,
    does: Sequence[str],
    seed: int,
    clip: bool,
    device: str | None,
    threads: int | None,
) -> None:
    """Draw, write the folder, and say where."""
    check_result_folder(out)
    use_threads(threads)
    scm = load_model(model, device)
    asked = parse_assignments(does, scm.variables, "--do", expressions=True)
    scm.sample(n, do=asked or None, seed=seed, clip=clip).save(out)
    console().print(str(out.resolve()))
