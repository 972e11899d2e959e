"""A fitted pendulum model on held-out scenes, beside the true counterfactual images.

    python benchmarks/pendulum.py --pendulum DIR --model DIR [--only ours]

``--pendulum`` is a folder of ``causalgen data pendulum``; its test rows are used, which no fit sees. Each
cause is set to the value that another row has, one at a time, and the whole model answers: an angle moves the
shadow by the model's own equations, a shadow that is set moves nothing.

    ours       a section for each seed. For each cause, against the true image: L1 on 0..255 of ours and of
               doing nothing, their ratio, L1 inside and outside the pixels that the truth changes; the four
               causes as measured on the image against the true ones, of ours, of doing nothing and of the
               true image itself, which is the floor; in the data's units and as shares of published ranges
    null       the image regenerated from its own noise under its own causes, nothing copied
    training   how long the fit took, from the run folder that ``causalgen fit`` left; needs --run-dir

Published ranges: the code of Causal-Adapter (Tong et al. 2025, arXiv:2509.24798) scales labels by [-40, 43]
and [60, 147] steps of 0.9 degrees, [3, 12] and [2, 19] units. It and CausalDiffAE (Komanduri et al. 2024,
arXiv:2404.17735) read scaled labels off images by regressors that they train; here they are measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from parts.against_truth import HeldOut, add_options, pixels, run_sections, training
from parts.record import Section, command, show, target
from rich.console import Console

import causalgen as cg
from causalgen.datasets.pendulum import MEASURES, NUMBERS
from causalgen.evaluation.questions import other_values
from mechanisms.seeds import keyed_seed

RANGES = {"angle": 83 * 0.9, "light": 87 * 0.9, "shadow_length": 9.0, "shadow_position": 17.0}


def ours(run: HeldOut) -> None:
    """The model as it is saved, a seed at a time."""
    truth = cg.datasets.pendulum_truth(run.columns, run.columns["image"].shape[-1])
    for seed in run.options.seeds:
        rows = run.rows(seed, run.options.rows)
        section, found = run.section(seed, rows)
        before = run.before(rows)
        for cause in NUMBERS:
            variable, factual = run.scm.variables[cause], run.columns[cause][rows]
            values = other_values(variable, factual, keyed_seed(seed, "pendulum", cause))
            world = truth(rows, {cause: values})
            made = run.answers(rows, {cause: values}, seed)
            found["do"][cause] = {**pixels(made, before, world["image"]), **attributes(made, before, world)}
            section.keep(found)
            summary(cause, found["do"][cause])
        worst = max(each["share_of_doing_nothing"] for each in found["do"].values())
        found["targets"] = [
            target("L1 to the truth, as a share of doing nothing, worst cause", worst, most=0.25)
        ]
        section.finish(found)


def attributes(made: NDArray[Any], before: NDArray[Any], world: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Mean absolute errors of the causes measured on images, and the share of images that lack the shape."""
    subjects = {"ours": made, "doing_nothing": before, "true_image": world["image"]}
    found: dict[str, Any] = {}
    for name, measure in MEASURES.items():
        errors = {of: np.abs(measure(images) - world[name]) for of, images in subjects.items()}
        found[f"{name}_mae"] = {of: np.nanmean(error) for of, error in errors.items()}
        found[f"{name}_mae_scaled"] = {of: np.nanmean(error) / RANGES[name] for of, error in errors.items()}
        found[f"{name}_missing"] = {of: np.isnan(error).mean() for of, error in errors.items()}
    return found


def summary(cause: str, found: Mapping[str, Any]) -> None:
    """Print one intervention."""
    rows = [
        {"of": of, **{name: found[f"{name}_mae"][of] for name in MEASURES}}
        for of in ("ours", "doing_nothing", "true_image")
    ]
    title = f"do({cause}): L1 {found['l1']:.3f}, doing nothing {found['l1_doing_nothing']:.3f}"
    show(Console(), f"{title}, share {found['share_of_doing_nothing']:.3f}; MAE as measured", rows)


def null(run: HeldOut) -> None:
    """What the image's noise keeps."""
    section = Section(run.options.out, "null")
    rows = run.rows(0, run.options.null_rows)
    made = run.answers(rows, {}, 0, copy_unaffected=False)
    section.finish({"rows": len(rows), "l1": 255 * np.abs(made - run.before(rows)).mean()})


SECTIONS = {"ours": ours, "null": null, "training": training}


def main() -> None:
    """Run the chosen sections and save their results one by one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--pendulum", type=Path, required=True, metavar="DIR", help="a folder of causalgen data pendulum"
    )
    add_options(parser, "pendulum.json", SECTIONS, rows=1000)
    options = parser.parse_args()
    columns = cg.datasets.pendulum(options.pendulum, "test")
    run_sections(HeldOut(options, "pendulum", columns, (*NUMBERS, "image")), SECTIONS)


if __name__ == "__main__":
    command(main)
