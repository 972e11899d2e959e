"""Answers of Diff-SCM for given rows; run by ``peer_diff_scm.py`` under the peer's own Python, see there."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from answer_file import AnswerFile, digest
from diff_scm_method import VARIANTS, DiffSCM, import_peer

os.environ["TQDM_DISABLE"] = "1"
_CHECKED = 2


def main() -> None:
    """Answer the parts asked for, block by block."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("repo", "unet", "classifier", "rows", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", required=True)
    parser.add_argument("--scales", nargs="+", type=float, required=True)
    parser.add_argument("--parts", nargs="+", required=True)
    parser.add_argument("--cycles", nargs="+", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with np.load(options.rows) as file:
        rows = {name: file[name] for name in ("images", "digits", "targets")}
    import_peer(options.repo)
    peer = DiffSCM(options.unet, options.classifier)
    answers = AnswerFile(options.out, digest(rows), _settings(options, peer))
    for variant in options.variants:
        _answer(peer, variant, rows, answers, options)


def _answer(
    peer: DiffSCM, variant: str, rows: dict[str, np.ndarray], answers: AnswerFile, options: argparse.Namespace
) -> None:
    """All blocks of one variant."""
    peer.use(VARIANTS[variant])
    upright = torch.from_numpy(rows["images"].astype(np.float32) / 127.5 - 1)
    images = upright.transpose(1, 2).unsqueeze(1).contiguous()
    digits, targets = (torch.from_numpy(rows[name].astype(np.int64)) for name in ("digits", "targets"))
    difference = peer.check(images[:_CHECKED], targets[:_CHECKED])
    if difference > 1e-5:
        raise SystemExit(f"{variant}: the answers differ from the peer's own function by {difference:.2g}")
    answers.meta.setdefault("check", {})[variant] = difference
    steps = peer.steps

    def block(
        name: str, compute: Callable[[slice], torch.Tensor], encodes: int, decodes: int, guided: int
    ) -> torch.Tensor:
        cost = {"evaluations": steps * (encodes + decodes), "predictor_gradients": steps * guided}
        starts = range(0, len(images), options.batch)

        def whole() -> dict[str, np.ndarray]:
            return {"": torch.cat([compute(slice(at, at + options.batch)) for at in starts]).numpy()}

        answers.block(f"{variant}/{name}", whole, **cost)
        return torch.from_numpy(answers.arrays[f"{variant}/{name}"])

    latents = block("latent", lambda at: peer.abduct(images[at]), 1, 0, 0)
    if "null" in options.parts:
        for cycles in options.cycles:
            block(
                f"null_{cycles}", lambda at, n=cycles: _show(_cycled(peer, images[at], n)), cycles, cycles, 0
            )
    for scale in options.scales:

        def guided(at: slice, digit: torch.Tensor, scale: float = scale) -> torch.Tensor:
            return _show(peer.predict(latents[at], digit[at], scale))

        name = f"{scale:g}"
        if "null_guided" in options.parts:
            block(f"{name}/null_guided", lambda at, guided=guided: guided(at, digits), 0, 1, 1)
        if not {"counterfactual", "reversal"} & set(options.parts):
            continue
        shown = block(f"{name}/counterfactual", lambda at, guided=guided: guided(at, targets), 0, 1, 1)
        if "reversal" in options.parts:
            evidence = (shown.transpose(1, 2).unsqueeze(1) * 2 - 1).contiguous()

            def back(at: slice, evidence: torch.Tensor = evidence, scale: float = scale) -> torch.Tensor:
                return _show(peer.predict(peer.abduct(evidence[at]), digits[at], scale))

            block(f"{name}/reversal", back, 1, 1, 1)


def _cycled(peer: DiffSCM, images: torch.Tensor, cycles: int) -> torch.Tensor:
    for _ in range(cycles):
        images = peer.predict(peer.abduct(images), None, 0.0)
    return images


def _show(images: torch.Tensor) -> torch.Tensor:
    """(B, 1, 28, 28) in [-1, 1], transposed, to (B, 28, 28) in [0, 1], upright."""
    return ((images.squeeze(1).transpose(1, 2) + 1) / 2).clamp(0, 1).contiguous()


def _settings(options: argparse.Namespace, peer: DiffSCM) -> dict:
    """What the answers depend on, and what made the weights."""

    def network(module: torch.nn.Module, weights: Path) -> dict:
        budget = weights.parent / "budget.json"
        return {
            "parameters": sum(each.numel() for each in module.parameters()),
            "weights": digest({name: each.numpy() for name, each in module.state_dict().items()}),
            "training": json.loads(budget.read_text()) if budget.exists() else None,
        }

    return {
        "unet": network(peer.unet, options.unet),
        "classifier": network(peer.classifier, options.classifier),
        "steps": peer.steps,
        "threads": options.threads,
        "batch": options.batch,
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
