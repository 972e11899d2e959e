"""The judge: a digit classifier that guidance never saw, which says whether a counterfactual shows its digit.

It is trained on MNIST *test* rows 1000 to 9999 only, with small shifts, rotations, scalings and shears. The
model that is judged was fitted on the 60,000 training images, and the rows judged are test rows 0 to 999: the
judge has seen neither. Its accuracy on those real images is the oracle floor beside every effectiveness.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from rich.console import Console
from safetensors.torch import load_file, save
from torch import Tensor, nn

from causalgen.saving.atomic import write_atomic

from .rows import EVALUATED, mnist_arrays

__all__ = ["Judge", "load_judge", "train_judge"]

EPOCHS, BATCH, PEAK_RATE = 45, 100, 4e-3


class Judge(nn.Module):
    """A small convolutional network, (N, 1, 28, 28) in [0, 1] -> (N, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),
            *_block(4, 32),
            *_block(32, 32),
            nn.MaxPool2d(2),
            *_block(32, 64),
            *_block(64, 64),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(64 * 3 * 3, 10),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits of each digit."""
        return self.layers(images)

    @torch.no_grad()
    def digits(self, images: ArrayLike) -> NDArray[np.int64]:
        """The digit it sees in each image, (N, 28, 28) in [0, 1] -> (N,)."""
        pixels = torch.as_tensor(np.asarray(images), dtype=torch.float32).reshape(-1, 1, 28, 28)
        return torch.cat([self(part).argmax(1) for part in pixels.split(500)]).numpy()


def _block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def load_judge(file: Path, mnist: str, console: Console) -> Judge:
    """The judge in a file, trained and saved there first where it is missing."""
    if not file.exists():
        console.print(f"No judge at {file}: training one on test rows {EVALUATED} to 9999 (minutes).")
        judge = train_judge(mnist, console)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, save(judge.state_dict()))
    judge = Judge()
    judge.load_state_dict(load_file(file))
    return judge.eval()


def train_judge(mnist: str, console: Console) -> Judge:
    """Train on test rows 1000 to 9999: AdamW, one learning-rate cycle, augmented anew in every epoch."""
    images, digits = mnist_arrays(mnist, "test")
    pixels = torch.from_numpy(images[EVALUATED:]).float().div(255)[:, None]
    labels = torch.from_numpy(digits[EVALUATED:])
    generator = torch.Generator().manual_seed(0)
    start = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # layers and dropout know no generator
        judge = Judge()
        optimizer = torch.optim.AdamW(judge.parameters(), weight_decay=0.02)
        steps = len(labels) // BATCH
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=EPOCHS * steps)
        for epoch in range(EPOCHS):
            order = torch.randperm(len(labels), generator=generator)
            total = 0.0
            for batch in order[: steps * BATCH].split(BATCH):
                logits = judge(_augment(pixels[batch], generator))
                loss = nn.functional.cross_entropy(logits, labels[batch], label_smoothing=0.05)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item()
            seconds = time.perf_counter() - start
            console.print(f"judge: epoch {epoch + 1}/{EPOCHS}, loss {total / steps:.4f}, {seconds:.0f} s")
    return judge.eval()


def _augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shifted by up to 2 pixels, turned by up to 11 degrees, scaled and sheared a little."""
    n = len(images)
    uniform = 2 * torch.rand(n, 6, generator=generator) - 1
    angle, shear = 0.2 * uniform[:, 0], 0.2 * uniform[:, 1]
    across, down = 1 + 0.12 * uniform[:, 2], 1 + 0.12 * uniform[:, 3]
    shift = uniform[:, 4:] * (2 / 14)
    top = torch.stack([across * angle.cos(), shear - angle.sin(), shift[:, 0]], 1)
    bottom = torch.stack([angle.sin(), down * angle.cos(), shift[:, 1]], 1)
    grid = nn.functional.affine_grid(torch.stack([top, bottom], 1), list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, align_corners=False)
