"""Diff-SCM (Sanchez and Tsaftaris 2022) on given rows, as published and with its defects taken out.

    PEER_PYTHON benchmarks/peers/diff_scm_answers.py --repo DIR --unet PT --classifier PT --rows NPZ --out NPZ

Nothing of the peer is in this repository: its code (vios-s/Diff-SCM, Apache-2.0) is imported from the
checkout ``--repo`` by this process, whose interpreter has torch, torchvision, ml_collections, blobfile,
tensorboard, matplotlib and tqdm. It publishes no weights: ``--unet`` and ``--classifier`` are what its own
training wrote (``diff_scm_training.py``), with ``budget.json`` beside each. Figures of weights trained at
another budget than its 30,000 steps are "at equal training budget", not Diff-SCM's result.

Its networks, schedule, sampling loops and guidance do all the work; here are only the per-row target (its
script has one target for all) and the variants:

| variant              | levels  | clip, threshold | predictor's index |
|----------------------|---------|-----------------|-------------------|
| published            | 75 / 74 | in every step   | 0..990            |
| aligned              | 75 / 75 | in every step   | 0..990            |
| repaired             | 75 / 75 | off             | 0..990            |
| repaired_predictor   | 75 / 75 | off             | 0..99             |

Levels: its encoder ends at level 75 of 100 and its decoder starts from level 74; aligned, the decoder
mirrors the encoder, 75 to 0. Index: its predictor is trained on the respaced indices 0..99 and guided with
0..990. Its data set shows the networks every image transposed, and so does this.

``--rows``: ``images`` (N, 28, 28) uint8, upright, 0..255; ``digits`` and ``targets`` (N,) integer 0..9, the
factual digits and those asked for. ``--out``, every image (N, 28, 28) float32 in [0, 1], upright; V is a
variant, S a scale printed by ``:g``:

    V/S/counterfactual   abducted, then guided to ``targets`` with classifier scale S
    V/S/reversal         that image taken as evidence, abducted anew (no noise is carried over), and guided
                         back to ``digits``
    V/null_K             abducted and decoded without guidance, K times over (``--cycles``)
    V/latent             (N, 1, 28, 28) float32, transposed as the peer's networks see it
    meta                 JSON text, see ``answers.py``; also ``check``, the largest difference to the peer's
                         own ``estimate_counterfactual`` on two rows

About 1 image a second and thread for 75 + 75 steps.
"""

# The peer's modules come from the checkout that is given.
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import json
import os
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from answers import AnswerFile, digest

__all__ = ["DiffSCM", "VARIANTS", "Variant", "import_peer"]

_CHECKED = 2


@dataclass(frozen=True)
class Variant:
    """Which defects are left in."""

    aligned: bool
    clip: bool
    trained_index: bool


VARIANTS = {
    "published": Variant(aligned=False, clip=True, trained_index=False),
    "aligned": Variant(aligned=True, clip=True, trained_index=False),
    "repaired": Variant(aligned=True, clip=False, trained_index=False),
    "repaired_predictor": Variant(aligned=True, clip=False, trained_index=True),
}


def import_peer(repo: Path) -> None:
    """Make ``diff_scm`` importable; one process, so a stand-in serves where mpi4py is not installed."""
    sys.path.insert(0, str(repo.resolve()))
    try:
        import mpi4py  # noqa: F401
    except ImportError:
        world = types.SimpleNamespace(Get_rank=lambda: 0, bcast=lambda value, root=0: value, rank=0, size=1)
        stand_in = types.ModuleType("mpi4py")
        stand_in.MPI = types.SimpleNamespace(COMM_WORLD=world)  # type: ignore[attr-defined]
        sys.modules["mpi4py"] = stand_in


class DiffSCM:
    """The peer's networks with its sampling, for a variant at a time.

    Args:
        unet: its U-Net's weights, of its own training (``score_train/model*.pt``).
        classifier: its predictor's (``classifier_train_class/model*.pt``).
    """

    def __init__(self, unet: Path, classifier: Path) -> None:
        from diff_scm.configs import get_config
        from diff_scm.utils import script_util

        self.config = get_config.file_from_dataset("mnist")
        self.config.sampling.model_path, self.config.sampling.classifier_path = str(unet), str(classifier)
        self.classifier, self.diffusion, self.unet = script_util.get_models_from_config(self.config)
        self.published_loop = self.diffusion.ddim_sample_loop_progressive
        self.steps = int(self.diffusion.num_timesteps * self.config.sampling.sampling_progression_ratio)

    def use(self, variant: Variant) -> None:
        """Take out, or put back, the defects."""
        sampling = self.config.sampling
        sampling.clip_denoised = sampling.dynamic_sampling = variant.clip
        self.diffusion.ddim_sample_loop_progressive = (
            self._aligned_loop if variant.aligned else self.published_loop
        )
        predictor = self.classifier
        if variant.trained_index:
            level = {time: index for index, time in enumerate(self.diffusion.timestep_map)}

            def predictor(x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
                return self.classifier(x, torch.tensor([level[int(time)] for time in times]))

        from diff_scm.sampling.sampling_utils import get_models_functions

        self.functions = get_models_functions(self.config, self.unet, predictor)

    def abduct(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 1, 28, 28) in [-1, 1] to latents, as its ``estimate_counterfactual`` does."""
        return self._loop(images, images, torch.zeros(len(images), dtype=torch.long), None, encode=True)

    def predict(self, latents: torch.Tensor, digits: torch.Tensor | None, scale: float) -> torch.Tensor:
        """Latents to images in [-1, 1], guided to the digits (B,), or unguided for None."""
        guided = digits is not None and scale != 0
        self.config.sampling.classifier_scale = scale
        labels = digits if digits is not None else torch.zeros(len(latents), dtype=torch.long)
        images = self._loop(latents, latents, labels, self.functions[0] if guided else None, encode=False)
        return images.clamp(-1, 1)

    def _loop(
        self, start: torch.Tensor, images: torch.Tensor, digits: torch.Tensor, guide: Any, *, encode: bool
    ) -> torch.Tensor:
        sampling = self.config.sampling
        sampling.batch_size = len(start)
        result, _ = self.diffusion.ddim_sample_loop(
            self.functions[1],
            tuple(start.shape),
            clip_denoised=sampling.clip_denoised,
            model_kwargs={"image": images, "y": digits},
            denoised_fn=self.functions[3] if sampling.dynamic_sampling else None,
            noise=start,
            cond_fn=guide,
            device=start.device,
            progress=False,
            eta=sampling.eta,
            reconstruction=encode,
            sampling_progression_ratio=sampling.sampling_progression_ratio,
        )
        return result

    def _aligned_loop(
        self, model: Any, shape: Any, noise: Any = None, reverse: bool = False, **rest: Any
    ) -> Any:
        """Its loop, decoding from the level at which encoding ends; a step goes from level i to i - 1."""
        if reverse:
            yield from self.published_loop(model, shape, noise=noise, reverse=True, **rest)
            return
        given = {
            name: rest[name] for name in ("clip_denoised", "denoised_fn", "cond_fn", "model_kwargs", "eta")
        }
        image = noise
        for level in range(self.steps, 0, -1):
            times = torch.full((shape[0],), level, dtype=torch.long, device=image.device)
            with torch.no_grad():
                out = self.diffusion.ddim_sample(model, image, times, **given)
            yield out
            image = out["sample"]

    def check(self, images: torch.Tensor, digits: torch.Tensor) -> float:
        """Largest difference to its own ``estimate_counterfactual``, for the variant and scale in use.

        Its one target for all rows is replaced by the rows' digits, nothing else.
        """
        from diff_scm.sampling import sampling_utils

        self.config.sampling.classifier_scale = 1.0
        self.config.sampling.batch_size = len(images)
        own = sampling_utils.get_input_data
        sampling_utils.get_input_data = lambda config, data: ({"image": images, "y": digits}, images)
        try:
            theirs, _ = sampling_utils.estimate_counterfactual(
                self.config, self.diffusion, *self.functions, {"image": images}
            )
        finally:
            sampling_utils.get_input_data = own
        ours = self.predict(self.abduct(images), digits, 1.0)
        return float((theirs.clamp(-1, 1) - ours).abs().max())


def main() -> None:
    """Answer what is asked for, block by block."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("repo", "unet", "classifier", "rows", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["published", "repaired"])
    parser.add_argument("--scales", nargs="+", type=float, default=[1.0])
    parser.add_argument("--cycles", nargs="+", type=int, default=[1])
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if not (options.repo / "diff_scm").is_dir():
        raise SystemExit(f"{options.repo} is no checkout of vios-s/Diff-SCM: it holds no folder diff_scm")
    os.environ["TQDM_DISABLE"] = "1"
    torch.set_num_threads(options.threads)
    with np.load(options.rows) as file:
        rows = {name: file[name] for name in ("images", "digits", "targets")}
    import_peer(options.repo)
    peer = DiffSCM(options.unet, options.classifier)
    answers = AnswerFile(options.out, digest(rows), _settings(options, peer))
    for variant in options.variants:
        answering = _Answering(peer, variant, rows, answers, options.batch)
        answering.check()
        answering.answer(options.scales, options.cycles)


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

    def answer(self, scales: list[float], cycles: list[int]) -> None:
        """Null, counterfactuals and the way back."""
        latents = self._block("latent", lambda at: self.peer.abduct(self.images[at]), 1, 0, 0)
        for count in cycles:
            self._block(f"null_{count}", partial(self._cycled, count), count, count, 0)
        for scale in scales:
            there = partial(self._guided, latents, self.targets, scale)
            found = self._block(f"{scale:g}/counterfactual", there, 0, 1, 1)
            self._block(f"{scale:g}/reversal", partial(self._reversed, _evidence(found), scale), 1, 1, 1)

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
