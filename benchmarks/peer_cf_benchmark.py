"""counterfactual-benchmark (NeurIPS 2024) on given Morpho-MNIST rows: its VAE with flows, and its predictors.

    peer_cf_benchmark.py counterfactuals --cf-repo DIR --weights DIR --python PYTHON --rows NPZ --out NPZ
    peer_cf_benchmark.py predict --cf-repo DIR --python PYTHON --rows NPZ --out NPZ

Nothing of the peer is in this repository: its code (gulnazaki/counterfactual-benchmark, MIT) is imported
from the checkout ``--cf-repo`` by a process under ``--python``, an interpreter with torch, torchvision,
pytorch_lightning, normflows, torchmetrics, pandas and tensorboard. It publishes no weights of its models
for Morpho-MNIST: ``--weights`` is what ``peers/cf_benchmark_training.py`` wrote. Figures of such weights
are "at equal training budget", not the authors'.

``counterfactuals``. ``--rows``: ``images`` (N, 28, 28) uint8 0..255; ``thickness`` (N,) in pixels,
``intensity`` (N,) in 0..255, ``digit`` (N,) integer, all factual; and for any number of queries Q (a name
without /) one or more of ``Q/thickness``, ``Q/intensity``, ``Q/digit``, (N,) in the same units. What a
query sets is intervened on; what it leaves out is the peer's own counterfactual (its intensity flow), so
that a query which sets all three scores the image mechanism alone. ``--out``, every image (N, 28, 28)
float32 in [0, 1]:

    Q/image                           the counterfactual
    Q/thickness, Q/intensity, Q/digit (N,) float64, float64, int64: the parents it was made with
    Q/reversal                        Q/image and those parents taken as evidence, abducted anew, and
                                      predicted at the factual parents
    composition_K                     abducted and predicted with nothing changed, K times over (``--cycles``)
    composition_K/l1_padded           (N,) float32, its L1 in 0..255 over the padded 32 x 32, as published
    meta                              JSON text: ``blocks`` (seconds and cpu_seconds of each, the reversal
                                      within its query's), ``settings`` (parameters, digests, training
                                      budget, temperature, seed), ``rows`` (a digest)

Its abduction samples q(z given x); ``--temperature`` scales the abducted residual of the pixels, 0.1 as
published. One encoder and one decoder evaluation an image.

``predict``. ``--rows``: for any number of names A ``A/images`` (N, 28, 28), uint8 0..255 or floating
[0, 1], and ``A/intensity`` (N,), 0..255, which its thickness predictor is told (the counterfactual one, in
its protocol). ``--out``: ``A/thickness``, ``A/intensity``, ``A/digit``, as its shipped predictors read
them. Its own evaluation puts a sigmoid on the intensity, for which the head was not trained; it is left out
here. On the 10,000 factual test images they are off by 0.122 in thickness and 1.54 in intensity and right
on 0.9905 of the digits: the floor of every such figure.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from peers.processes import check_checkout, check_rows, run_worker

_CHECKOUT = ("counterfactual_benchmark", "gulnazaki/counterfactual-benchmark")


def run_cf_benchmark(
    repo: Path,
    weights: Path,
    python: Path,
    rows: Path,
    out: Path,
    *,
    cycles: Sequence[int] = (1, 10),
    temperature: float = 0.1,
    seed: int = 0,
    threads: int = 1,
) -> None:
    """Fill ``out`` with counterfactuals; the arguments are the command's, see the module.

    Raises:
        SystemExit: rows, weights or interpreter are missing or wrong, or the worker failed.
    """
    check_checkout(repo, *_CHECKOUT)
    numbers = ("f", "i", "u")
    queries = {name: numbers for name in _names(rows) if "/" in name}
    for name in queries:
        if name.count("/") != 1 or name.split("/")[1] not in ("thickness", "intensity", "digit"):
            raise SystemExit(f"{rows}: {name}; a query's array is Q/thickness, Q/intensity or Q/digit")
    attributes = {"thickness": numbers, "intensity": numbers, "digit": ("i", "u")}
    check_rows(rows, {"images": ("u",)} | attributes | queries)
    arguments: list[str | Path | int | float] = ["counterfactuals", "--repo", repo, "--weights", weights]
    arguments += ["--rows", rows, "--out", out, "--temperature", temperature, "--seed", seed]
    run_worker(
        python, "cf_benchmark_worker.py", [*arguments, "--threads", threads, "--cycles", *cycles], threads
    )


def read_with_predictors(repo: Path, python: Path, rows: Path, out: Path, *, threads: int = 1) -> None:
    """Fill ``out`` with what the peer's predictors read; see the module.

    Raises:
        SystemExit: the images or the interpreter are missing or wrong, or the worker failed.
    """
    check_checkout(repo, *_CHECKOUT)
    names = [name.rsplit("/", 1)[0] for name in _names(rows) if name.endswith("/images")]
    if not names:
        raise SystemExit(f"{rows}: no array A/images")
    for name in names:
        check_rows(rows, {f"{name}/images": ("u", "f"), f"{name}/intensity": ("f", "i", "u")})
    arguments: list[str | Path | int | float] = ["predict", "--repo", repo, "--rows", rows, "--out", out]
    run_worker(python, "cf_benchmark_worker.py", [*arguments, "--threads", threads], threads)


def _names(rows: Path) -> list[str]:
    with np.load(rows) as file:
        return file.files


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("task", choices=["counterfactuals", "predict"])
    add("--cf-repo", type=Path, required=True, metavar="DIR", help="checkout of counterfactual-benchmark")
    add(
        "--weights",
        type=Path,
        metavar="DIR",
        help="checkpoints of cf_benchmark_training.py; for counterfactuals",
    )
    add("--python", type=Path, required=True, help="interpreter with the peer's requirements")
    add("--rows", type=Path, required=True, metavar="NPZ", help="see the module's docstring")
    add("--out", type=Path, required=True, metavar="NPZ", help="the answers")
    add("--cycles", nargs="*", type=int, default=[1, 10], help="of composition (%(default)s)")
    add("--temperature", type=float, default=0.1, help="of the abducted residual (%(default)s)")
    add("--seed", type=int, default=0, help="of its abduction (%(default)s)")
    add("--threads", type=int, default=1, help="of torch (%(default)s)")
    options = parser.parse_args()
    if options.task == "predict":
        read_with_predictors(
            options.cf_repo, options.python, options.rows, options.out, threads=options.threads
        )
    elif options.weights is None:
        parser.error("counterfactuals need --weights")
    else:
        run_cf_benchmark(
            options.cf_repo,
            options.weights,
            options.python,
            options.rows,
            options.out,
            cycles=options.cycles,
            temperature=options.temperature,
            seed=options.seed,
            threads=options.threads,
        )
    print(options.out)


if __name__ == "__main__":
    main()
