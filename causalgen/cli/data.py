"""``causalgen data``: data sets made on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from causalgen.datasets.mnist import Split, file_prefix
from causalgen.datasets.writing import make_morphomnist, make_pendulum

__all__ = ["run_morphomnist", "run_pendulum"]


def run_morphomnist(
    mnist: Path,
    out: Path,
    *,
    splits: Sequence[str] | None,
    tables: Path | None,
    seed: int,
    workers: int | None,
) -> None:
    """Make Morpho-MNIST, and say where it is and how to fit on it."""
    chosen = tuple(splits or ("train", "test"))
    for split in chosen:
        file_prefix(split)  # refuses what is no split
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


def run_pendulum(out: Path, *, rows: int, size: int, experiments: float, seed: int) -> None:
    """Draw pendulums, and say where they are and how to fit on them."""
    folder = make_pendulum(out, rows=rows, size=size, experiments=experiments, seed=seed)
    print(folder)
    print(f"Fit on it with --data pendulum:{folder}")
