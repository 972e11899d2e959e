"""``causalgen data``: data sets made on this machine. Heavy imports wait inside, as in ``main``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, cast

import typer

from causalgen.cli import options as opt

__all__ = ["data_app", "faces", "morphomnist", "pendulum"]

data_app = typer.Typer(help="Make data sets.", no_args_is_help=True)


@data_app.command()
def morphomnist(
    mnist: Annotated[Path, typer.Option(help="A folder with MNIST's files; nothing is downloaded.")],
    out: opt.Out,
    split: Annotated[
        list[str] | None, typer.Option(help="train or test; both by default. May be repeated.")
    ] = None,
    tables: Annotated[
        Path | None,
        typer.Option(help="Thickness and intensity from a folder of published tables, or from one CSV."),
    ] = None,
    seed: opt.Seed = 0,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; one for each core by default.")
    ] = None,
) -> None:
    """MNIST's digits redrawn with stroke thickness and intensity as causes."""
    from causalgen.datasets.mnist import Split, file_prefix
    from causalgen.datasets.writing import make_morphomnist

    splits = cast("tuple[Split, ...]", tuple(split or ("train", "test")))
    for each in splits:
        file_prefix(each)  # refuses what is no split
    workers = workers or os.cpu_count() or 1
    folder = make_morphomnist(mnist, out, splits=splits, tables=tables, seed=seed, workers=workers)
    _tell("morphomnist", folder)


@data_app.command()
def pendulum(
    out: opt.Out,
    rows: Annotated[int, typer.Option(min=5, help="Rows of both splits; a fifth are for testing.")] = 62_500,
    size: Annotated[int, typer.Option(min=16, help="Pixels of a side: 64, or 96 as published.")] = 64,
    experiments: Annotated[
        float, typer.Option(min=0, max=1, help="Share of training rows in which a shadow is set at random.")
    ] = 0.0,
    seed: opt.Seed = 0,
) -> None:
    """A drawn pendulum and its shadow: angle and light as causes."""
    from causalgen.datasets.writing import make_pendulum

    _tell("pendulum", make_pendulum(out, rows=rows, size=size, experiments=experiments, seed=seed))


@data_app.command()
def faces(
    out: opt.Out,
    rows: Annotated[int, typer.Option(min=5, help="Rows of both splits; a fifth are for testing.")] = 30_000,
    size: Annotated[int, typer.Option(min=16, help="Pixels of a side.")] = 64,
    seed: opt.Seed = 0,
) -> None:
    """Drawn portraits: age, sex, skin and smile as causes of grey hair, beard, hair and the image."""
    from causalgen.datasets.writing import make_faces

    _tell("faces", make_faces(out, rows=rows, size=size, seed=seed, progress=True))


def _tell(kind: str, folder: Path) -> None:
    print(folder)
    print(f"Fit on it with --data {kind}:{folder}")
