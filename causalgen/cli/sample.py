"""``causalgen sample``: rows from a model."""

from __future__ import annotations

from typing import Annotated

import typer

from causalgen.cli.options import ASSIGNED, Clip, Device, ModelName, Out, Seed, Threads

__all__ = ["sample"]


def sample(
    model: ModelName,
    out: Out,
    n: Annotated[int, typer.Option("-n", min=1, help="Rows.")] = 16,
    do: Annotated[list[str] | None, typer.Option(help=f"{ASSIGNED}; several set more nodes.")] = None,
    seed: Seed = 0,
    clip: Clip = False,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Draw rows from a model, perhaps under an intervention."""
    from causalgen.cli.assignments import parse_assignments
    from causalgen.cli.common import console, load_model, use_threads
    from causalgen.saving.result_folder import check_result_folder

    check_result_folder(out)
    use_threads(threads)
    scm = load_model(model, device)
    asked = parse_assignments(do or [], scm.variables, "--do", expressions=True)
    scm.sample(n, do=asked or None, seed=seed, clip=clip).save(out)
    console().print(str(out.resolve()))
