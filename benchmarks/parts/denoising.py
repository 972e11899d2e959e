"""Questions to a diffusion model of digits: the rows, the settings, what an answer costs and how good it is.

An evaluation is one row through the denoising network, counted by a hook on it: abduction and prediction,
both branches of classifier-free guidance. Gradients of the anticausal predictor are counted beside, one
a row. Settings give their options in full, so that they mean the same whatever the model's own file says.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import causalgen as cg
from causalgen.data.reading import read_data
from causalgen.evaluation.evaluate import held_rows
from causalgen.evaluation.questions import Columns, other_values
from causalgen.metrics import attribute_correlation, intensity, kept_in_rank, size, slant, thickness
from causalgen.metrics.controls import real_images
from causalgen.metrics.evaluators import Evaluators
from causalgen.metrics.scores import wilson_interval
from graphs.variables import Variable
from mechanisms.base import Noise
from mechanisms.diffusion import DiffusionMechanism

__all__ = [
    "CONDITIONAL",
    "Cost",
    "MEASURES",
    "Pixels",
    "Rows",
    "SOLVERS",
    "UNCONDITIONAL",
    "correlations",
    "counted",
    "diff_scm",
    "grey_levels",
    "image_mechanism",
    "invert",
    "merits",
    "most_alike",
    "real_in_place",
    "regenerate",
    "solved",
    "to_pixels",
    "without_residuals",
]

Pixels = NDArray[np.floating[Any]]

MEASURES = {"thickness": thickness, "slant": slant, "size": size, "intensity": intensity}
SOLVERS = ("anchored", "belm", "ddim")

_MEASURED = 6000
"""Real images whose measures say what the law of a digit is."""

_FREE = {"kind": "classifier_free", "against": "factual", "interval": None}
_DELTA = {"kind": "anticausal", "form": "delta", "denoiser": "conditional", "interval": None}
_RAW = {"kind": "anticausal", "form": "raw", "denoiser": "unconditional", "interval": None}

CONDITIONAL: dict[str, dict[str, Any]] = {
    **{f"classifier_free w={w:g}": {**_FREE, "weight": w} for w in (1.0, 2.0)},
    **{f"anticausal delta s={s:g}": {**_DELTA, "scale": s} for s in (1.0, 2.0)},
}
"""Guidance of the denoiser that sees the factual digit."""

UNCONDITIONAL: dict[str, dict[str, Any]] = {
    f"raw s={s:g}, unconditional": {**_RAW, "scale": s} for s in (0.7, 1.0, 2.0)
}
"""Guidance of Diff-SCM (Sanchez & Tsaftaris 2022): raw, on the unconditional denoiser."""


@dataclass(frozen=True)
class Rows:
    """Rows that are evaluated, and the digits asked for.

    Attributes:
        evidence: every node's values; ``image`` (N, 1, 28, 28) in [0, 1], ``digit`` (N,).
        targets: (N,) int64, each another digit than its own.
    """

    evidence: Columns
    targets: NDArray[np.int64]

    @staticmethod
    def read(scm: cg.SCM, data: str, count: int, seed: int = 0) -> tuple[Rows, Columns]:
        """The first rows of a source, each with one random other digit by the seed; and its first 5,000."""
        table = read_data(data, scm.variables)
        pool = held_rows(table, scm.variables, np.arange(min(table.rows, 5000)))
        evidence = {node: values[:count] for node, values in pool.items()}
        targets = other_values(scm.variables["digit"], evidence["digit"], 2022 + seed)
        return Rows(evidence, np.asarray(targets)), pool

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: slice) -> Rows:
        return Rows({node: values[index] for node, values in self.evidence.items()}, self.targets[index])

    @property
    def digits(self) -> NDArray[np.int64]:
        """The factual digits, (N,)."""
        return np.asarray(self.evidence["digit"])

    @property
    def pixels(self) -> Pixels:
        """The images in [0, 1], (N, 28, 28)."""
        return self.evidence["image"][:, 0].astype(np.float64)


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


def image_mechanism(scm: cg.SCM) -> DiffusionMechanism:
    """The mechanism of the node ``image``."""
    mechanism = scm.mechanisms["image"]
    if not isinstance(mechanism, DiffusionMechanism):
        raise SystemExit(f"The benchmark is about diffusion; the model's image has {mechanism.spec.kind!r}.")
    return mechanism


@contextmanager
def counted(mechanism: DiffusionMechanism) -> Iterator[Cost]:
    """A stopwatch and a counter of rows through the networks, filled in when the block ends."""
    cost = Cost()

    def evaluated(network: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        cost.evaluations += len(output)

    def predicted(network: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        cost.gradients += len(output) * output.requires_grad

    hooks = [mechanism.denoiser.network.register_forward_hook(evaluated)]
    if mechanism.student:
        hooks.append(mechanism.student.denoiser.network.register_forward_hook(evaluated))
    if mechanism.predictor:
        hooks.append(mechanism.predictor.encoder.register_forward_hook(predicted))
    start, processor = time.perf_counter(), time.process_time()
    try:
        yield cost
    finally:
        cost.seconds, cost.processor = time.perf_counter() - start, time.process_time() - processor
        for hook in hooks:
            hook.remove()


def invert(mechanism: DiffusionMechanism, images: Tensor, digits: NDArray[Any]) -> tuple[Noise, Cost]:
    """The noise behind images (N, 1, 28, 28) in [-1, 1] of these digits."""
    parents, generator = {"digit": torch.as_tensor(digits)}, torch.Generator()
    parts = _parts(len(images), mechanism.chunk_rows or len(images))
    with counted(mechanism) as cost:
        found = [
            mechanism.abduct(images[part], _part(parents, part), generator=generator).noise for part in parts
        ]
    return Noise.concat(found), cost


def regenerate(
    mechanism: DiffusionMechanism, noise: Noise, digits: NDArray[Any], *, chunk: int | None = None
) -> tuple[Tensor, Cost]:
    """Images (N, 1, 28, 28) of these digits from that noise, computed anew (nothing is copied)."""
    parents, parts = (
        {"digit": torch.as_tensor(digits)},
        _parts(noise.n, chunk or mechanism.chunk_rows or noise.n),
    )
    with counted(mechanism) as cost:
        images = [mechanism.generate(_part(parents, part), noise.rows(part)) for part in parts]
    return torch.cat(images), cost


def to_pixels(values: Tensor) -> Pixels:
    """Mechanisms' images as [0, 1], not clamped, (N, 28, 28)."""
    return (values[:, 0].double().numpy() + 1) / 2


def solved(scm: cg.SCM, kind: str, steps: int, guidance: dict[str, Any]) -> cg.SCM:
    """The model with another solver, on its own grid, and other guidance."""
    grid = image_mechanism(scm).spec.solver.grid.model_dump()
    # In one go: a solver and a guidance may each be refused beside the model's old other.
    return scm.with_options("image", solver={"kind": kind, "steps": steps, "grid": grid}, guidance=guidance)


def without_residuals(scm: cg.SCM, **changed: Any) -> cg.SCM:
    """The model without what brings images back, step residuals and shrinkage: as good as the solver."""
    spec = image_mechanism(scm).spec
    if spec.shrinkage:
        scm = scm.with_options("image", shrinkage=0.0)
    if spec.solver.kind == "anchored":
        changed["residuals"] = False
    return scm.with_options("image", solver=changed) if changed else scm


def diff_scm(scm: cg.SCM, guidance: dict[str, Any], steps: int = 75) -> cg.SCM:
    """Algorithm 3 of Diff-SCM: linear betas, 1000 levels respaced to 100, DDIM over the first 75 both ways.

    Other numbers of steps respace so that the steps end at about the same level. A style code is left out.
    """
    respaced = round(1 + 99 * steps / 75)
    grid = {"kind": "ddpm", "levels": 1000, "respaced": respaced, "beta_first": 1e-4, "beta_last": 0.02}
    solver = {"kind": "ddim", "steps": steps, "grid": grid, "thresholding": False}
    code = {"code": {"hidden": True}} if image_mechanism(scm).spec.code else {}
    published: dict[str, Any] = {"abduction": "point", "centred": False, "solver": solver, **code}
    return scm.with_options("image", guidance=guidance, **published)


def grey_levels(images: Pixels, others: Pixels) -> float:
    """Mean absolute difference of images in [0, 1], on the scale 0..255."""
    return 255 * float(np.abs(images - others).mean())


def correlations(images: Pixels, others: Pixels) -> dict[str, float]:
    """Pearson's correlation of thickness, slant and size over the pairs in which they exist."""
    return {
        f"r {name}": attribute_correlation(MEASURES[name](images), MEASURES[name](others)).value
        for name in ("thickness", "slant", "size")
    }


def merits(images: Pixels, rows: Rows, evaluators: Evaluators, *, measured: bool = True) -> dict[str, Any]:
    """Effectiveness of images (N, 28, 28) in [0, 1] for ``rows``, L1 to the factual, correlations with it."""
    hits = int((evaluators.classes(images[:, None].astype(np.float32)) == rows.targets).sum())
    figures = {
        "effectiveness": hits / len(rows),
        "interval": list(wilson_interval(hits, len(rows))),
        "L1": grey_levels(images, rows.pixels),
    }
    return figures | (correlations(images, rows.pixels) if measured else {})


def real_in_place(rows: Rows, pool: Columns, digit: Variable, evaluators: Evaluators) -> list[dict[str, Any]]:
    """Real images of the digits asked for in the place of each row's counterfactual: random, and nearest."""
    factual, images = rows.evidence["image"], pool["image"]
    found = real_images(factual, rows.targets, images, pool["digit"], digit, seed=1)
    places = {
        "random real image of the digit": images[found.random][:, 0],
        "nearest real image of the digit": images[found.nearest][:, 0],
    }
    return [{"control": name} | merits(each, rows, evaluators) for name, each in places.items()]


def most_alike(rows: Rows, pool: Columns) -> dict[str, float]:
    """The correlations of measures that keep their rank within the digit, by the first real images."""
    images, digits = pool["image"][:_MEASURED, 0].astype(np.float64), pool["digit"][:_MEASURED]
    found: dict[str, float] = {}
    for name in ("thickness", "slant", "size"):
        factual = MEASURES[name](rows.pixels)
        kept = kept_in_rank(factual, rows.digits, rows.targets, MEASURES[name](images), digits)
        found[f"r {name}"] = attribute_correlation(kept, factual).value
    return found


def _parts(rows: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def _part(parents: Mapping[str, Tensor], part: slice) -> dict[str, Tensor]:
    return {name: value[part] for name, value in parents.items()}
