"""Run a peer's worker under the peer's own Python."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

__all__ = ["check_checkout", "check_rows", "latest", "run_worker"]


def run_worker(
    python: Path, worker: str, arguments: Sequence[str | Path | int | float], threads: int
) -> None:
    """Run ``peers/WORKER`` and wait for it; its messages go to standard error.

    Raises:
        SystemExit: the worker failed; it has said why.
    """
    if not python.exists():
        raise SystemExit(
            f"--python: no {python}; it is the interpreter in which the peer's requirements are installed"
        )
    command = [str(python), str(Path(__file__).with_name(worker)), *map(str, arguments)]
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "CUDA_VISIBLE_DEVICES": "",
        "TQDM_DISABLE": "1",
    }
    if subprocess.run(command, env=environment, check=False, stdout=subprocess.DEVNULL).returncode:
        raise SystemExit(f"{worker} failed; see above")


def latest(folder: Path, pattern: str) -> Path:
    """The file of the pattern with the highest name.

    Raises:
        SystemExit: there is none.
    """
    found = sorted(folder.glob(pattern))
    if not found:
        raise SystemExit(f"no {pattern} in {folder}; train the peer first, or give the folder that holds it")
    return found[-1]


def check_checkout(repo: Path, package: str, name: str) -> None:
    """Check that a folder is a checkout of the peer.

    Raises:
        SystemExit: it does not hold the package.
    """
    if not (repo / package).is_dir():
        raise SystemExit(f"{repo} is no checkout of {name}: it holds no folder {package}")


def check_rows(path: Path, needed: Mapping[str, tuple[str, ...]]) -> None:
    """Check a file of rows before minutes are spent on it.

    Args:
        path: of the .npz.
        needed: array name -> the kinds its dtype may have ("u" unsigned, "i" integer, "f" floating).

    Raises:
        SystemExit: an array is missing, of another kind or another length than the others.
    """
    with np.load(path) as file:
        missing = sorted(set(needed) - set(file.files))
        if missing:
            raise SystemExit(f"{path}: no {', '.join(missing)}; it must hold {', '.join(needed)}")
        arrays = {name: file[name] for name in needed}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or not next(iter(lengths.values())):
        raise SystemExit(f"{path}: as many rows in every array, at least one; got {lengths}")
    for name, kinds in needed.items():
        if arrays[name].dtype.kind not in kinds:
            raise SystemExit(
                f"{path}: {name} is {arrays[name].dtype}; its kind must be one of {', '.join(kinds)}"
            )
        shape = (28, 28) if name.endswith("images") else ()
        if arrays[name].shape[1:] != shape:
            raise SystemExit(f"{path}: {name} has rows of shape {arrays[name].shape[1:]}; expected {shape}")
