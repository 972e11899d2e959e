"""Diff-SCM's own counterfactual estimation, on any rows, as published or with its defects taken out.

Sanchez and Tsaftaris 2022, code vios-s/Diff-SCM (Apache-2.0), imported from a checkout, unchanged or not.
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
"""

# The peer's modules come from the checkout that is given.
# pyright: reportMissingImports=false

from __future__ import annotations

import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

__all__ = ["VARIANTS", "DiffSCM", "Variant", "import_peer"]


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
