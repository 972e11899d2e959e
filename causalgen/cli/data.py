"""``causalgen data``: data sets made on this machine. Heavy imports wait inside, as in ``main``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, cast

import typer

from causalgen.cli.options import Out, Seed

__all__ = ["data_app", "morphomnist"]

data_app = typer.Typer(help="Make data sets.", no_args_is_help=True)


@data_app.command()
def morphomnist(
    mnist: Annotated[Path, typer.Option(help="A folder with MNIST's files; nothing is downloaded.")],
    out: Out,
    split: Annotated[
        list[str] | None, typer.Option(help="train or test; both by default. May be repeated.")
    ] = None,
    tables: Annotated[
        Path | None,
        typer.Option(help="Thickness and intensity from a folder of published tables, or from one CSV."),
    ] = None,
    seed: Seed = 0,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; as many as there are cores by default.")
    ] = None,
) -> None:
    """MNIST's digits redrawn with stroke thickness and intensity as causes."""
    from causalgen.datasets.mnist import Split, file_prefix
    from causalgen.datasets.writing import make_morphomnist

    chosen = tuple(split or ("train", "test"))
    for each in chosen:
        file_prefix(each)  # refuses what is no split
    folder = make_morphomnist(
        mnist,
        out,
        splits=cast("tuple[Split, ...]", chosen),
        tables=tables,
        seed=seed,
        workers=workers or os.cpu_count() or 1,
    )
    print(folder)
    print(f"Fit on it with --data morphomnist:{folder}")
