"""Asking the model, with a stopwatch and a counter of network evaluations.

An evaluation is one row through the denoising network, counted by a hook on it: abduction and prediction,
both branches of classifier-free guidance. Gradients of the anticausal predictor are counted beside, one a
row.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

import causalgen as cg
from mechanisms.base import Noise
from mechanisms.diffusion import DiffusionMechanism

from .figures import Pixels
from .rows import Rows

__all__ = [
    "Answer",
    "Cost",
    "ask",
    "canonical",
    "counted",
    "image_mechanism",
    "invert",
    "regenerate",
    "to_pixels",
]


@dataclass
class Cost:
    """What a question took: rows through the networks, seconds, and seconds of the processor."""

    evaluations: int = 0
    gradients: int = 0
    seconds: float = 0.0
    processor: float = 0.0

    def each(self, rows: int) -> dict[str, float]:
        """The same for one image."""
        return {
            "evaluations": self.evaluations / rows,
            "gradients": self.gradients / rows,
            "images/s": rows / self.seconds,
            "images/cpu s": rows / self.processor,
        }

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.evaluations + other.evaluations,
            self.gradients + other.gradients,
            self.seconds + other.seconds,
            self.processor + other.processor,
        )


@dataclass(frozen=True)
class Answer:
    """Counterfactual images in [0, 1], (N, 28, 28), and their cost."""

    images: Pixels
    cost: Cost


def image_mechanism(scm: cg.SCM) -> DiffusionMechanism:
    """The mechanism of the node ``image``."""
    mechanism = scm.mechanisms["image"]
    if not isinstance(mechanism, DiffusionMechanism):
        raise SystemExit(f"The benchmark is about diffusion; the model's image has {mechanism.spec.kind!r}.")
    return mechanism


def ask(scm: cg.SCM, rows: Rows) -> Answer:
    """Counterfactuals as a user gets them, through ``scm.counterfactual``."""
    with counted(image_mechanism(scm)) as cost:
        result = scm.counterfactual(rows.evidence, {"digit": rows.targets}, targets=["image"], seed=0)
        images = result["image"]
    return Answer(images[:, 0].double().numpy(), cost)


def canonical(scm: cg.SCM, rows: Rows) -> Tensor:
    """The images as mechanisms see them, (N, 1, 28, 28) float32 in [-1, 1]."""
    return torch.as_tensor(scm.variables["image"].encode(rows.images, where="Rows"))


def to_pixels(values: Tensor) -> Pixels:
    """Mechanisms' images as [0, 1], not clamped, (N, 28, 28)."""
    return (values[:, 0].double().numpy() + 1) / 2


def invert(mechanism: DiffusionMechanism, images: Tensor, digits: np.ndarray) -> tuple[Noise, Cost]:
    """The noise behind images of these digits."""
    parents = {"digit": torch.as_tensor(digits)}
    generator, size = torch.Generator(), mechanism.chunk_rows or len(images)
    with counted(mechanism) as cost:
        noise = Noise.concat(
            [
                mechanism.abduct(images[part], _part(parents, part), generator=generator).noise
                for part in _parts(len(images), size)
            ]
        )
    return noise, cost


def regenerate(
    mechanism: DiffusionMechanism, noise: Noise, digits: np.ndarray, *, chunk: int | None = None
) -> tuple[Tensor, Cost]:
    """Images (N, 1, 28, 28) of these digits from that noise, computed anew (nothing is copied)."""
    parents, size = {"digit": torch.as_tensor(digits)}, chunk or mechanism.chunk_rows or noise.n
    with counted(mechanism) as cost:
        images = torch.cat(
            [mechanism.generate(_part(parents, part), noise.rows(part)) for part in _parts(noise.n, size)]
        )
    return images, cost


def _parts(rows: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def _part(parents: Mapping[str, Tensor], part: slice) -> dict[str, Tensor]:
    return {name: value[part] for name, value in parents.items()}


@contextmanager
def counted(mechanism: DiffusionMechanism) -> Iterator[Cost]:
    """A stopwatch and a counter of rows through the networks, filled in when the block ends."""
    cost = Cost()

    def evaluated(network: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        cost.evaluations += len(output)

    def predicted(network: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        cost.gradients += len(output) * output.requires_grad

    hooks = [mechanism.denoiser.network.register_forward_hook(evaluated)]
    if mechanism.predictor:
        hooks.append(mechanism.predictor.encoder.register_forward_hook(predicted))
    start, processor = time.perf_counter(), time.process_time()
    try:
        yield cost
    finally:
        cost.seconds, cost.processor = time.perf_counter() - start, time.process_time() - processor
        for hook in hooks:
            hook.remove()
