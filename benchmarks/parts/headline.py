"""Headline: are the counterfactuals effective, and still counterfactuals *of* their factual?

Default and fast settings of the model, and w = 1, asked as a user asks. An effective prototype is no
counterfactual, so L1 and the correlations of measured thickness, slant and size stand beside their controls:
a random real image of the digit asked for, the nearest one among the training images, and another, random
test image.
"""

from __future__ import annotations

import numpy as np
import torch

from . import settings
from .answers import ask
from .context import Context, Result
from .figures import Pixels, correlations, grey_levels, merits, target
from .rows import Rows, mnist_arrays

__all__ = ["headline"]


def headline(context: Context) -> Result:
    """Figures of the model's settings and of the controls, and which targets they meet."""
    rows, judge = context.rows("rows"), context.judge
    floor = float((judge.digits(rows.pixels) == rows.digits).mean())
    models = {
        "default": context.scm,
        f"fast ({context.fast_steps} steps)": settings.fast(context.scm, context.fast_steps),
        "default, w=1": settings.guided(context.scm, settings.CONDITIONAL["classifier_free w=1"]),
    }
    result: Result = {
        "rows": len(rows),
        "judge accuracy on the factual": floor,
        "settings": [],
        "controls": [],
    }
    for name, images in _controls(context, rows).items():
        figures: Result = {"control": name}
        if name == "random test image":
            figures |= {"L1": grey_levels(images, rows.pixels)} | correlations(images, rows.pixels)
        else:
            figures |= merits(images, rows, judge)
        result["controls"].append(figures)
    for name, scm in models.items():
        answer = ask(scm, rows)
        figures = {"setting": name} | merits(answer.images, rows, judge) | answer.cost.each(len(rows))
        result["settings"].append(figures)
        context.keep(result)
    default, quick, _ = result["settings"]
    result["targets"] = [
        target("default: effectiveness", default["effectiveness"], least=0.985),
        target("default: evaluations an image", default["evaluations"], most=49),
        target("default: L1 to the factual", default["L1"], most=37),
        target("fast: effectiveness", quick["effectiveness"], least=0.97),
        target("fast: evaluations an image", quick["evaluations"], most=25),
        target("fast: L1 to the factual", quick["L1"], most=37),
    ]
    context.console.print(f"{len(rows)} rows; the judge is right on {floor:.4f} of the factual images")
    context.show("Settings", result["settings"])
    context.show("Controls: real images in the place of the counterfactual", result["controls"])
    context.show("Targets", result["targets"])
    return result


def _controls(context: Context, rows: Rows) -> dict[str, Pixels]:
    """Real images in the place of each row's counterfactual, (N, 28, 28) in [0, 1]."""
    images, digits = mnist_arrays(context.mnist, "train")
    random = np.random.default_rng(1)
    one = np.zeros(len(rows), dtype=np.int64)
    nearest = np.zeros(len(rows), dtype=np.int64)
    for digit in range(10):
        asked, there = np.flatnonzero(rows.targets == digit), np.flatnonzero(digits == digit)
        if len(asked):
            one[asked] = random.choice(there, len(asked))
            distance = torch.cdist(_flat(rows.images[asked]), _flat(images[there]), p=1)
            nearest[asked] = there[distance.argmin(1).numpy()]
    # A shift by 1..N-1 pairs every row with another one.
    others = (np.arange(len(rows)) + random.integers(1, max(2, len(rows)), len(rows))) % len(rows)
    return {
        "random real image of the digit": images[one] / 255.0,
        "nearest real image of the digit": images[nearest] / 255.0,
        "random test image": rows.pixels[others],
    }


def _flat(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.reshape(len(images), -1)).float()
