"""Judges of drawn portraits: one network that reads every cause and the noise off 64 x 64 pixels.

They are trained on portraits of their own, in which all causes are drawn evenly and apart from each other: a
judge that learned from the data's rows would take long hair for a sign that there is no beard. Grain is added
to what they see, so that the faint noise of a generated image is none of their business.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import causalgen as cg
from causalgen.datasets.faces import CAUSES, NOISE
from graphs.errors import DataError
from graphs.variables import Categorical

__all__ = ["FaceJudge", "LABELS", "NUMBERS", "backgrounds", "independent_faces"]

LABELS: Mapping[str, int] = {
    name: variable.size
    for name, variable in {**CAUSES, **NOISE}.items()
    if isinstance(variable, Categorical) and name != "sex"
}
"""What is read as one of so many labels."""

NUMBERS = ("grey", "skin")
"""What is read as a number in [0, 1]."""

_GRAIN = 0.03
_CHUNK = 500


def independent_faces(rows: int, seed: int) -> dict[str, NDArray[Any]]:
    """Portraits whose image's causes are even and independent: labels as codes, numbers, ``image`` uint8."""
    random = np.random.default_rng([seed, 1])
    drawn = cg.datasets.draw_faces(rows, seed=[seed, 0])
    for name in ("beard", "hair", "smile"):
        variable = CAUSES[name]
        assert isinstance(variable, Categorical) and variable.labels is not None
        drawn[name] = np.array(variable.labels)[random.integers(variable.size, size=rows)]
    drawn["grey"] = random.random(rows)
    images = [
        cg.datasets.face_images({name: each[start : start + _CHUNK] for name, each in drawn.items()})
        for start in range(0, rows, _CHUNK)
    ]
    known = {**CAUSES, **NOISE}
    columns = {name: np.asarray(known[name].encode(drawn[name], where=name)) for name in LABELS}
    return columns | {name: drawn[name] for name in NUMBERS} | {"image": np.concatenate(images)}


def backgrounds(images: NDArray[Any]) -> NDArray[np.float64]:
    """Colour of the upper corners, on 0..255, (N, 6): the one part that is measured without a network."""
    corners = images[:, :, :4, :4].mean((2, 3)), images[:, :, :4, -4:].mean((2, 3))
    return 255 * np.concatenate(corners, 1).astype(np.float64)


class FaceJudge(nn.Module):
    """Images (N, 3, 64, 64) in [0, 1] to logits of each label and to each number."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
        for into, out, stride in ((12, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)):
            layers += [nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.SiLU()]
        layers += [nn.Conv2d(128, 32, 1), nn.Flatten(), nn.Linear(2048, 192), nn.SiLU(), nn.Dropout(0.2)]
        self.trunk = nn.Sequential(*layers)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(192, size) for name, size in LABELS.items()}
            | {name: nn.Linear(192, 1) for name in NUMBERS}
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """As the class says."""
        seen = self.trunk(2 * images - 1)
        return {name: head(seen) for name, head in self.heads.items()}

    @torch.no_grad()
    def read(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Codes of labels and numbers, by name, each (N,).

        Raises:
            DataError: other images.
        """
        if images.shape[1:] != (3, 64, 64) or not (images.min() >= 0 and images.max() <= 1):
            raise DataError(f"Judges read images (N, 3, 64, 64) in [0, 1], got {images.shape}.")
        self.eval()
        found: dict[str, list[Tensor]] = {}
        for part in torch.as_tensor(images, dtype=torch.float32).split(250):
            for name, each in self(part).items():
                found.setdefault(name, []).append(
                    each.argmax(1) if name in LABELS else each[:, 0].clamp(0, 1)
                )
        return {name: torch.cat(each).numpy() for name, each in found.items()}

    def fit(self, faces: Mapping[str, NDArray[Any]], epochs: int, seed: int, batch: int = 64) -> None:
        """Train on portraits of ``independent_faces``."""
        images = torch.as_tensor(faces["image"])
        targets = {name: torch.as_tensor(faces[name]) for name in (*LABELS, *NUMBERS)}
        optimiser = torch.optim.AdamW(self.parameters(), weight_decay=0.01)
        steps = epochs * (len(images) // batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
        draws = torch.Generator().manual_seed(seed)
        self.train()
        for epoch in range(epochs):
            total = 0.0
            for rows in torch.randperm(len(images), generator=draws)[: steps // epochs * batch].split(batch):
                clean = images[rows].float() / 255
                grain = _GRAIN * torch.rand(len(rows), 1, 1, 1, generator=draws)
                seen = (clean + grain * torch.randn(clean.shape, generator=draws)).clamp(0, 1)
                loss = self._loss(self(seen), {name: each[rows] for name, each in targets.items()})
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                total += loss.item()
            print(f"judge, epoch {epoch + 1} of {epochs}: loss {total * epochs / steps:.4f}", flush=True)

    @staticmethod
    def _loss(found: Mapping[str, Tensor], due: Mapping[str, Tensor]) -> Tensor:
        labels = [nn.functional.cross_entropy(found[name], due[name]) for name in LABELS]
        numbers = [(found[name][:, 0] - due[name].float()).abs().mean() for name in NUMBERS]
        return torch.stack(labels + [3 * each for each in numbers]).sum()

    def save(self, file: Path) -> None:
        """Write the weights."""
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), file)

    @classmethod
    def load(cls, file: Path) -> FaceJudge:
        """Read the weights."""
        judge = cls()
        judge.load_state_dict(load_file(file))
        return judge
