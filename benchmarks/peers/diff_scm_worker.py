"""Answers of Diff-SCM for given rows; run by ``peer_diff_scm.py`` under the peer's own Python, see there."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from answer_file import AnswerFile, digest
from diff_scm_method import VARIANTS, DiffSCM, import_peer

os.environ["TQDM_DISABLE"] = "1"
_CHECKED = 2


def main() -> None:
    """Answer what is asked for, block by block."""
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
        answering = _Answering(peer, variant, rows, answers, options.batch)
        answering.check()
        answering.answer(options.parts, options.scales, options.cycles)


class _Answering:
    """The blocks of one variant.

    Args:
        peer: with its networks.
        variant: a name of ``VARIANTS``.
        rows: images, digits, targets.
        answers: where they go.
        batch: rows at a time.
    """

    def __init__(
        self, peer: DiffSCM, variant: str, rows: dict[str, np.ndarray], answers: AnswerFile, batch: int
    ) -> None:
        self.peer, self.variant, self.answers = peer, variant, answers
        self.images = _evidence(torch.from_numpy(rows["images"].astype(np.float32) / 255))
        self.digits = torch.from_numpy(rows["digits"].astype(np.int64))
        self.targets = torch.from_numpy(rows["targets"].astype(np.int64))
        self.batches = [slice(at, at + batch) for at in range(0, len(self.images), batch)]

    def check(self) -> None:
        """The first rows must come out as from the peer's own function."""
        self.peer.use(VARIANTS[self.variant])
        difference = self.peer.check(self.images[:_CHECKED], self.targets[:_CHECKED])
        if difference > 1e-5:
            raise SystemExit(f"{self.variant}: {difference:.2g} off the peer's own estimate_counterfactual")
        self.answers.meta.setdefault("check", {})[self.variant] = difference

    def answer(self, parts: list[str], scales: list[float], cycles: list[int]) -> None:
        """Every part that is asked for."""
        latents = self._block("latent", lambda at: self.peer.abduct(self.images[at]), 1, 0, 0)
        if "null" in parts:
            for count in cycles:
                self._block(f"null_{count}", partial(self._cycled, count), count, count, 0)
        for scale in scales:
            if "null_guided" in parts:
                self._block(
                    f"{scale:g}/null_guided", partial(self._guided, latents, self.digits, scale), 0, 1, 1
                )
            if {"counterfactual", "reversal"} & set(parts):
                there = partial(self._guided, latents, self.targets, scale)
                found = self._block(f"{scale:g}/counterfactual", there, 0, 1, 1)
                if "reversal" in parts:
                    back = partial(self._reversed, _evidence(found), scale)
                    self._block(f"{scale:g}/reversal", back, 1, 1, 1)

    def _block(
        self, name: str, compute: Callable[[slice], torch.Tensor], encodes: int, decodes: int, guided: int
    ) -> torch.Tensor:
        def whole() -> dict[str, np.ndarray]:
            return {"": torch.cat([compute(batch) for batch in self.batches]).numpy()}

        steps = self.peer.steps
        cost = {"evaluations": steps * (encodes + decodes), "predictor_gradients": steps * guided}
        self.answers.block(f"{self.variant}/{name}", whole, **cost)
        return torch.from_numpy(self.answers.arrays[f"{self.variant}/{name}"])

    def _guided(self, latents: torch.Tensor, digits: torch.Tensor, scale: float, at: slice) -> torch.Tensor:
        return _shown(self.peer.predict(latents[at], digits[at], scale))

    def _reversed(self, evidence: torch.Tensor, scale: float, at: slice) -> torch.Tensor:
        return _shown(self.peer.predict(self.peer.abduct(evidence[at]), self.digits[at], scale))

    def _cycled(self, count: int, at: slice) -> torch.Tensor:
        images = self.images[at]
        for _ in range(count):
            images = self.peer.predict(self.peer.abduct(images), None, 0.0)
        return _shown(images)


def _evidence(images: torch.Tensor) -> torch.Tensor:
    """(N, 28, 28) in [0, 1], upright, to (N, 1, 28, 28) in [-1, 1], transposed."""
    return (images.transpose(1, 2).unsqueeze(1) * 2 - 1).contiguous()


def _shown(images: torch.Tensor) -> torch.Tensor:
    """The inverse of ``_evidence``."""
    return ((images.squeeze(1).transpose(1, 2) + 1) / 2).clamp(0, 1).contiguous()


def _settings(options: argparse.Namespace, peer: DiffSCM) -> dict:
    """What the answers depend on."""

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
