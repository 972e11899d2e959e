"""A fitted model of coloured digits on held-out rows, beside the true counterfactual pictures.

    python benchmarks/colour_digits.py --mnist DIR --model DIR [--only ours]

Rows are of MNIST's test set, coloured as they are read, which no fit sees. Ink, paper and shape are each set
to those of another row, and the digit to another one; the whole model answers.

    ours       a section for each seed. Of ink, paper and shape, whose true picture is known: L1 on 0..255
               of ours and of doing nothing, their ratio, L1 inside and outside the pixels that the truth
               changes; of each, the colours as measured by least squares on the picture under the answer's
               shape, and the digit as the packaged evaluators read it off the picture less its colours: of
               ours, of doing nothing and of the true picture. In how many rows the answer's shape is the
               factual one to the bit
    null       the picture regenerated from its own noise under its own causes, nothing copied, with and
               without the residuals of steps
    training   how long the fit of the picture took, from the run folder of ``causalgen fit``; needs --run-dir
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from parts.against_truth import HeldOut, add_options, pixels, run_sections, training
from parts.record import Section, command, show, target
from rich.console import Console

import causalgen as cg
from causalgen.datasets.colour_digits import colours_of
from causalgen.evaluation.questions import other_values
from causalgen.metrics import load_evaluators
from mechanisms.seeds import keyed_seed

NODES = ("digit", "shape", "ink", "paper", "picture")
COLOURS = ("ink", "paper")
ASKED = (*COLOURS, "shape", "digit")

World = dict[str, NDArray[Any]]


class Run(HeldOut):
    """What every section needs."""

    def __init__(self, options: argparse.Namespace) -> None:
        columns = cg.datasets.colour_digits(options.mnist, "test")
        super().__init__(options, "colour-digits", columns, NODES, "picture")
        self.evaluators = load_evaluators("mnist")

    def factual(self, rows: NDArray[np.int64]) -> World:
        """What was seen, pictures in [0, 1]."""
        world = {name: self.columns[name][rows] for name in NODES}
        for name in ("shape", "picture"):
            world[name] = world[name].astype(np.float32) / np.float32(255)
        return world | {"shape": world["shape"][:, None]}

    def asked(self, cause: str, rows: NDArray[np.int64], seed: int) -> NDArray[Any]:
        """What a cause is set to: another digit, or what another row has."""
        random = np.random.default_rng(keyed_seed(seed, "colour-digits", cause))
        if cause == "digit":
            digits = self.columns["digit"][rows]
            return np.asarray(other_values(self.scm.variables["digit"], digits, keyed_seed(seed, cause)))
        others = (rows + random.integers(1, len(self.columns["digit"]), len(rows))) % len(
            self.columns["digit"]
        )
        return self.columns[cause][others]

    def worlds(
        self, rows: NDArray[np.int64], do: World, seed: int, scm: cg.SCM | None = None, **options: Any
    ) -> World:
        """The model's counterfactual worlds, or those of ``scm``."""
        parts: list[World] = []
        for found in self.batches(rows, do, seed, scm, **options):
            was, now = np.asarray(found.factual["shape"]), np.asarray(found["shape"])
            kept = {"shape_equal": (was == now).all((1, 2, 3))}
            parts.append({name: np.asarray(found[name]) for name in NODES} | kept)
        world = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return world | {name: world[name].clip(0, 1) for name in ("shape", "picture")}

    def read_digits(
        self, pictures: NDArray[Any], ink: NDArray[Any], paper: NDArray[Any]
    ) -> NDArray[np.int64]:
        """The digit of pictures, read off how much of the way from paper to ink each pixel has gone.

        What is less than a quarter of the way is paper, more than three quarters ink: grain is no stroke.
        """
        ink, paper = ink[..., None, None], paper[..., None, None]
        cover = ((pictures - paper) * (ink - paper)).sum(1) / ((ink - paper) ** 2).sum(1)
        seen = torch.as_tensor((2 * cover - 0.5).clip(0, 1)[:, None], dtype=torch.float32)
        return np.asarray(self.evaluators.readers["digit"](seen)).astype(np.int64)


def ours(run: Run) -> None:
    """The model as it is saved, a seed at a time."""
    truth = cg.datasets.colour_digits_truth(run.columns)
    for seed in run.options.seeds:
        rows = run.rows(seed, run.options.rows)
        section, found = run.section(seed, rows)
        before = run.factual(rows)
        for cause in ASKED:
            do = {cause: run.asked(cause, rows, seed)}
            made = run.worlds(rows, do, seed)
            if cause == "shape":
                do["shape"] = do["shape"].astype(np.float32)[:, None] / np.float32(255)
            found["do"][cause] = {"shape_equal": made["shape_equal"].mean()}
            subjects = {"ours": made["picture"], "doing_nothing": before["picture"]}
            wanted: World = before | do | {"shape": made["shape"]}
            if cause == "shape":
                wanted["digit"] = np.asarray(run.evaluators.readers["digit"](torch.as_tensor(do["shape"])))
            if cause != "digit":
                subjects["true_picture"] = truth(rows, do)["picture"]
                found["do"][cause] |= pixels(made["picture"], before["picture"], subjects["true_picture"])
            found["do"][cause] |= _read(run, subjects, wanted)
            section.keep(found)
            _summary(cause, found["do"][cause])
        colour, worst = found["do"]["ink"], [each["digit"]["ours"] for each in found["do"].values()]
        found["targets"] = [
            target("digit as asked, worst cause", min(worst), least=0.97),
            target("do(ink) leaves the shape as it is, share of rows", colour["shape_equal"], least=1.0),
        ]
        section.finish(found)


def _read(run: Run, subjects: World, wanted: World) -> dict[str, Any]:
    """Colours off the asked ones, and the digit."""
    found: dict[str, Any] = {f"{name}_mae": {} for name in COLOURS} | {"digit": {}}
    for of, pictures in subjects.items():
        seen = colours_of(pictures, wanted["shape"])
        for name, colours in zip(COLOURS, seen, strict=True):
            found[f"{name}_mae"][of] = np.nanmean(np.abs(colours - wanted[name]))
        read = run.read_digits(pictures, wanted["ink"], wanted["paper"])
        found["digit"][of] = np.mean(read == wanted["digit"])
    return found


def _summary(cause: str, found: Mapping[str, Any]) -> None:
    """Print one intervention."""
    rows = [
        {"of": of, **{name: found[name][of] for name in ("ink_mae", "paper_mae", "digit")}}
        for of in found["digit"]
    ]
    shares = f", L1 {found['l1']:.2f}, doing nothing {found['l1_doing_nothing']:.2f}" if "l1" in found else ""
    show(Console(), f"do({cause}): shape equal in {found['shape_equal']:.3f}{shares}", rows)


def null(run: Run) -> None:
    """What the picture's noise keeps."""
    section = Section(run.options.out, "null")
    rows = run.rows(0, run.options.null_rows)
    before = run.before(rows)
    bare = run.scm.with_options("picture", solver={"residuals": False})
    found: dict[str, Any] = {"rows": len(rows)}
    for name, scm in {"l1": run.scm, "l1_without_residuals": bare}.items():
        again = run.answers(rows, {}, 0, scm, copy_unaffected=False)
        found[name] = 255 * np.abs(again - before).mean()
    section.finish(found)


SECTIONS = {"ours": ours, "null": null, "training": training}


def main() -> None:
    """Run the chosen sections and save their results one by one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--mnist", type=Path, required=True, metavar="DIR", help="a folder with MNIST's files"
    )
    add_options(parser, "colour_digits.json", SECTIONS, rows=334)
    run_sections(Run(parser.parse_args()), SECTIONS)


if __name__ == "__main__":
    command(main)
