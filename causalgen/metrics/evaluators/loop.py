"""Gradient steps for one judge, deterministic: the seed and the name decide every draw.

AdamW with a linear warm-up and half a cosine, as ``causalgen.fitting`` fits mechanisms; a judge is no
mechanism (it has no parents and no noise), so it has this short loop of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from causalgen.fitting.progress import FitProgress
from causalgen.fitting.training_loop import learning_rate
from graphs.errors import MechanismError
from mechanisms.seeds import keyed_generator, keyed_seed, seed_layers
from mechanisms.training import Training

__all__ = ["Augmentation", "as_floats", "build", "train"]

Network = TypeVar("Network", bound=nn.Module)

Augmentation = Callable[[Tensor, torch.Generator], Tensor]
"""Images (B, C, H, W) to such images, with the generator's draws."""


def build(make: Callable[[], Network], seed: int, name: str) -> Network:
    """A network with initial weights that depend on the seed and the name alone."""
    with torch.random.fork_rng(devices=[]):
        seed_layers(keyed_seed(seed, "judge", name, "weights"), torch.device("cpu"))
        return make()


def train(
    network: nn.Module,
    loss: Callable[[Tensor, Tensor, torch.Generator], Tensor],
    images: Tensor,
    targets: Tensor,
    settings: Training,
    *,
    name: str,
    seed: int,
    augmentation: Augmentation | None = None,
    progress: bool = True,
) -> None:
    """Train a network in place and leave it in evaluation mode.

    Args:
        network: the judge.
        loss: its loss.
        images: (N, C, H, W) uint8, or float32 in [0, 1].
        targets: (N, ...), what the loss compares with.
        settings: of the loop; ``ema``, ``precision`` and ``validation`` are not used here.
        name: seeds and shows.
        seed: the same seed gives the same weights on the same machine and number of threads.
        augmentation: changes the images of each batch.
        progress: show a bar.

    Raises:
        MechanismError: the loss is no longer finite.
    """
    batches = math.ceil(len(images) / settings.batch_size)
    total, step, began = batches * settings.epochs, 0, time.perf_counter()
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=settings.weight_decay, fused=True)
    noise = keyed_generator(seed, "judge", name, "noise")
    # Channels last: steps of such small convolutions take about a quarter less time on CPUs.
    network.train().requires_grad_(True).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with FitProgress(name, total, enabled=progress) as bar:
        for epoch in range(settings.epochs):
            order = torch.randperm(
                len(images), generator=keyed_generator(seed, "judge", name, "order", epoch)
            )
            for rows in order.tensor_split(batches):
                pixels = as_floats(images[rows]).contiguous(memory_format=torch.channels_last)
                pixels = pixels if augmentation is None else augmentation(pixels, noise)
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(step, total, settings)
                optimizer.zero_grad()
                value = loss(pixels, targets[rows], noise)
                value.backward()
                nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_clip)
                optimizer.step()
                step += 1
                if step % 20 == 0 or step == total:
                    _show(bar, step, total, value, settings, time.perf_counter() - began)
    network.eval().requires_grad_(False).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def as_floats(images: Tensor) -> Tensor:
    """Pixels in [0, 1], float32."""
    return images.float().div(255) if images.dtype == torch.uint8 else images


def _show(bar: FitProgress, step: int, total: int, loss: Tensor, settings: Training, seconds: float) -> None:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise MechanismError(
            f"The loss of a judge became {value} by step {step}. "
            f"Lower its training.learning_rate (now {settings.learning_rate:g})."
        )
    pace = seconds / step
    bar.update(step, value, settings.batch_size / pace, pace * (total - step))
