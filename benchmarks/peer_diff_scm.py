"""Diff-SCM (Sanchez and Tsaftaris 2022) on given rows, as published and repaired.

    python benchmarks/peer_diff_scm.py --diff-scm-repo DIR --weights DIR --python PYTHON --rows NPZ --out NPZ

Nothing of the peer is in this repository: its code (vios-s/Diff-SCM, Apache-2.0) is imported from the
checkout ``--diff-scm-repo`` by a process under ``--python``, an interpreter with torch, torchvision,
ml_collections, blobfile, tensorboard, matplotlib and tqdm. It publishes no weights: ``--weights`` holds
what its own training scripts wrote, ``score_train/model*.pt`` and ``classifier_train_class/model*.pt`` (raw
weights, as its configuration samples with), and ``budget.json`` beside each where the training was given
one. Figures of weights trained at another budget than its 30,000 steps are "at equal training budget", not
Diff-SCM's result.

``--rows``: ``images`` (N, 28, 28) uint8, upright, 0..255; ``digits`` (N,) integer 0..9, the factual
digits; ``targets`` (N,) integer 0..9, the digits asked for.

``--out``, every image (N, 28, 28) float32 in [0, 1], upright; V is a variant, S a scale printed by ``:g``:

    V/S/counterfactual   abducted, then guided to ``targets`` with classifier scale S
    V/S/reversal         that image taken as evidence, abducted anew (no noise is carried over), and guided
                         back to ``digits``
    V/S/null_guided      abducted, then guided to the factual ``digits``
    V/null_K             abducted and decoded without guidance, K times over (``--cycles``)
    V/latent             (N, 1, 28, 28) float32, transposed as the peer's networks see it; for inspection
    meta                 JSON text: ``blocks`` (for each array seconds, cpu_seconds, and for one image
                         ``evaluations`` of the U-Net and ``predictor_gradients``; a counterfactual costs
                         V/latent and its own block), ``settings`` (parameters, digest and training budget
                         of both networks, steps, threads, batch, torch), ``check`` (largest difference to
                         the peer's own ``estimate_counterfactual`` on two rows) and ``rows`` (a digest)

The variants (``peers/diff_scm_method.py``): ``published``; ``aligned``, decoding from the level at which
encoding ended; ``repaired``, also without clipping and dynamic threshold inside the loop;
``repaired_predictor``, also with the predictor told the index it was trained on. About 1 image a second and
thread for 75 + 75 steps. A stopped run goes on: blocks that are in ``--out`` for the same rows and weights
are kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from peers.processes import check_checkout, check_rows, latest, run_worker

VARIANTS = ("published", "aligned", "repaired", "repaired_predictor")
PARTS = ("counterfactual", "null", "null_guided", "reversal")


def run_diff_scm(
    repo: Path,
    weights: Path,
    python: Path,
    rows: Path,
    out: Path,
    *,
    variants: Sequence[str] = ("published", "repaired"),
    scales: Sequence[float] = (1.0,),
    parts: Sequence[str] = ("counterfactual", "null", "reversal"),
    cycles: Sequence[int] = (1,),
    batch: int = 100,
    threads: int = 1,
) -> None:
    """Fill ``out``; the arguments are the command's, see the module.

    Raises:
        SystemExit: rows, weights or interpreter are missing or wrong, or the worker failed.
    """
    check_checkout(repo, "diff_scm", "vios-s/Diff-SCM")
    check_rows(rows, {"images": ("u",), "digits": ("i", "u"), "targets": ("i", "u")})
    arguments: list[str | Path | int | float] = ["--repo", repo, "--rows", rows, "--out", out]
    arguments += ["--unet", latest(weights / "score_train", "model*.pt")]
    arguments += ["--classifier", latest(weights / "classifier_train_class", "model*.pt")]
    arguments += ["--variants", *variants, "--scales", *scales, "--parts", *parts, "--cycles", *cycles]
    run_worker(python, "diff_scm_worker.py", [*arguments, "--batch", batch, "--threads", threads], threads)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--diff-scm-repo", type=Path, required=True, metavar="DIR", help="checkout of vios-s/Diff-SCM")
    add("--weights", type=Path, required=True, metavar="DIR", help="what its training wrote")
    add("--python", type=Path, required=True, help="interpreter with the peer's requirements")
    add("--rows", type=Path, required=True, metavar="NPZ", help="images, digits, targets")
    add("--out", type=Path, required=True, metavar="NPZ", help="the answers")
    add("--variants", nargs="+", choices=VARIANTS, default=["published", "repaired"], help="(%(default)s)")
    add("--scales", nargs="+", type=float, default=[1.0], help="of the guidance (%(default)s)")
    add(
        "--parts",
        nargs="+",
        choices=PARTS,
        default=["counterfactual", "null", "reversal"],
        help="(%(default)s)",
    )
    add("--cycles", nargs="+", type=int, default=[1], help="of the null (%(default)s)")
    add("--batch", type=int, default=100, help="rows at a time (%(default)s)")
    add("--threads", type=int, default=1, help="of torch (%(default)s)")
    options = parser.parse_args()
    run_diff_scm(
        options.diff_scm_repo, options.weights, options.python, options.rows, options.out,
        variants=options.variants, scales=options.scales, parts=options.parts, cycles=options.cycles,
        batch=options.batch, threads=options.threads,
    )  # fmt: skip
    print(options.out)


if __name__ == "__main__":
    main()
