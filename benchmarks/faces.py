"""A fitted model of drawn portraits on held-out rows, beside the true counterfactual portraits.

    python benchmarks/faces.py --faces DIR --model DIR [--judges FILE] [--only judges,ours]

``--faces`` is a folder of ``causalgen data faces``; its test rows are used, which no fit sees. Each cause is
set to the value of another row, or to another label, one at a time, and the whole model answers: an age that
is set turns hair grey by the model's own mechanism. Needs the extra ``datasets``, which draws the truth.

    judges     trains what reads the causes and the noise off portraits, on portraits of its own, and says how
               well it reads others; kept in --judges
    ours       a section for each seed. For each cause, against the true portrait: L1 on 0..255 of ours and of
               doing nothing, inside and outside the pixels that the truth changes; each cause of the image
               as judged, of ours, of doing nothing and of the true portrait, which is the floor; each part of
               the noise: the share of rows in which it is read as it was, beside that of the true portrait
    null       the portrait regenerated from its own noise under its own causes, nothing copied, without the
               residuals of steps
    pictures   counterfactuals beside their truths, and samples of the model: faces_answers.png and
               faces_samples.png beside --out
    training   how long the fit took, from the run folder that ``causalgen fit`` left; needs --run-dir

Background is measured on the upper corners: as before means no channel further off than 8 of 255.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from parts.against_truth import HeldOut, add_options, pixels, run_sections, training
from parts.denoising import without_residuals
from parts.face_judges import LABELS, NUMBERS, FaceJudge, backgrounds, independent_faces
from parts.record import RESULTS, Section, command, show, target
from PIL import Image as Pictures
from rich.console import Console

import causalgen as cg
from causalgen.datasets.faces import CAUSES, NOISE
from causalgen.evaluation.questions import other_values
from mechanisms.seeds import keyed_seed

ASKED = ("age", "grey", "beard", "hair", "skin", "smile")
PARENTS = ("grey", "beard", "hair", "skin", "smile")
KEPT = tuple(name for name in LABELS if name in NOISE)
NEAR = 8.0

Images = NDArray[np.float32]


class Run(HeldOut):
    """What every section needs."""

    def __init__(self, options: argparse.Namespace) -> None:
        columns = cg.datasets.faces(options.faces, "test")
        super().__init__(options, "faces", columns, (*CAUSES, "image"))

    @cached_property
    def judge(self) -> FaceJudge:
        """What reads portraits, trained before."""
        if not self.options.judges.is_file():
            raise cg.DataError(f"There are no judges {self.options.judges}. Train them with --only judges.")
        return FaceJudge.load(self.options.judges)

    def asked(self, cause: str, rows: NDArray[np.int64], seed: int) -> dict[str, NDArray[Any]]:
        """What a cause is set to, row by row."""
        values = self.columns[cause][rows]
        return {cause: other_values(self.scm.variables[cause], values, keyed_seed(seed, "faces", cause))}


def judges(run: Run) -> None:
    """Train the judges, apart from every model."""
    section = Section(run.options.out, "judges")
    torch.manual_seed(keyed_seed(0, "faces", "judges"))
    judge = FaceJudge()
    judge.fit(independent_faces(run.options.judge_rows, seed=100), run.options.judge_epochs, seed=0)
    judge.save(run.options.judges)
    others = independent_faces(run.options.judge_rows // 10, seed=101)
    read = judge.read(others["image"].astype(np.float32) / 255)
    found: dict[str, Any] = {"rows": run.options.judge_rows, "epochs": run.options.judge_epochs}
    found["accuracy"] = {name: np.mean(read[name] == others[name]) for name in LABELS}
    found["mae"] = {name: np.abs(read[name] - others[name]).mean() for name in NUMBERS}
    print(found["accuracy"], found["mae"])
    section.finish(found)


def ours(run: Run) -> None:
    """The model as it is saved, a seed at a time."""
    truth = cg.datasets.faces_truth(run.columns, run.columns["image"].shape[-1])
    for seed in run.options.seeds:
        rows = run.rows(seed, run.options.rows)
        section, found = run.section(seed, rows)
        before = run.before(rows)
        for cause in ASKED:
            do = run.asked(cause, rows, seed)
            world = truth(rows, do)
            made = run.answers(rows, do, seed)
            scored = pixels(made, before, world["image"])
            scored["inside_share_of_doing_nothing"] = scored["l1_inside"] / scored["l1_inside_doing_nothing"]
            found["do"][cause] = scored | readings(run.judge, made, before, world)
            section.keep(found)
            summary(cause, found["do"][cause])
        found["targets"] = targets(found["do"])
        section.finish(found)


def readings(
    judge: FaceJudge, made: Images, before: Images, world: Mapping[str, NDArray[Any]]
) -> dict[str, Any]:
    """Causes as judged against the true world's, and noise as judged against that of the factual portrait."""
    subjects = {"ours": made, "doing_nothing": before, "true_image": world["image"]}
    read = {of: judge.read(images) for of, images in subjects.items()}
    found: dict[str, Any] = {}
    for name in PARENTS:
        if name in LABELS:
            due = CAUSES[name].encode(world[name], where=name)
            found[f"{name}_accuracy"] = {of: np.mean(each[name] == due) for of, each in read.items()}
        else:
            found[f"{name}_mae"] = {of: np.abs(each[name] - world[name]).mean() for of, each in read.items()}
    factual, corners = read["doing_nothing"], {of: backgrounds(images) for of, images in subjects.items()}
    for of in ("ours", "true_image"):
        kept = {name: np.mean(read[of][name] == factual[name]) for name in KEPT}
        kept["background"] = np.mean(np.abs(corners[of] - corners["doing_nothing"]).max(1) <= NEAR)
        found[f"kept_{of}"] = kept
    return found


def targets(done: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the figures are meant to keep, the worst cause of each."""
    set_to = {name: each for name, each in done.items() if name in PARENTS}
    kept = min(min(each["kept_ours"].values()) for each in done.values())
    found = [
        target(f"do({name}): {name} as judged", each[f"{name}_accuracy"]["ours"], least=0.95)
        for name, each in set_to.items()
        if name in LABELS
    ]
    for name in NUMBERS:
        mae = set_to[name][f"{name}_mae"]
        found.append(
            target(f"do({name}): MAE of {name} over the floor", mae["ours"] / mae["true_image"], most=2)
        )
    inside = max(each["inside_share_of_doing_nothing"] for each in set_to.values())
    outside = max(each["l1_outside"] for each in set_to.values())
    return [
        *found,
        target(
            "L1 inside what the truth changes, as a share of doing nothing, worst cause", inside, most=0.5
        ),
        target("L1 outside it on 0..255, worst cause", outside, most=2),
        target("a part of the noise read as before, worst part and cause", kept, least=0.95),
    ]


def summary(cause: str, found: Mapping[str, Any]) -> None:
    """Print one intervention."""
    rows = [
        {"of": of, **{name: each[of] for name, each in found.items() if name.endswith(("_accuracy", "_mae"))}}
        for of in ("ours", "doing_nothing", "true_image")
    ]
    inside = f"inside {found['l1_inside']:.2f} of {found['l1_inside_doing_nothing']:.2f}"
    show(Console(), f"do({cause}): L1 {inside}, outside {found['l1_outside']:.2f}", rows)
    show(
        Console(),
        "noise read as before",
        [{"of": of, **found[f"kept_{of}"]} for of in ("ours", "true_image")],
    )


def null(run: Run) -> None:
    """What the image's noise keeps, where no residual of a step helps."""
    section = Section(run.options.out, "null")
    rows = run.rows(0, run.options.null_rows)
    made = run.answers(rows, {}, 0, without_residuals(run.scm), copy_unaffected=False)
    off = 255 * np.abs(made - run.before(rows)).mean()
    goal = target("L1 without residuals on 0..255", off, most=1)
    section.finish({"rows": len(rows), "l1": off, "targets": [goal]})


def pictures(run: Run) -> None:
    """Sheets to look at; not chosen: the first rows of seed 0."""
    truth = cg.datasets.faces_truth(run.columns, run.columns["image"].shape[-1])
    rows = run.rows(0, run.options.rows)[:8]
    sheet = [run.before(rows)]
    for cause in PARENTS:
        do = run.asked(cause, rows, 0)
        sheet += [run.answers(rows, do, 0), truth(rows, do)["image"]]
    folder = run.options.out.parent
    folder.mkdir(parents=True, exist_ok=True)
    save_sheet(folder / "faces_answers.png", sheet)
    drawn = run.scm.sample(64, seed=0)["image"].clamp(0, 1).numpy()
    save_sheet(folder / "faces_samples.png", list(drawn.reshape(4, 16, *drawn.shape[1:])))


def save_sheet(file: Path, rows: list[Images], zoom: int = 2) -> None:
    """Rows of images (n, 3, S, S), one under the other, as a PNG."""
    tall = np.concatenate([np.concatenate(list(row), 2) for row in rows], 1)
    pixels = np.rint(255 * tall).astype(np.uint8).transpose(1, 2, 0).repeat(zoom, 0).repeat(zoom, 1)
    Pictures.fromarray(pixels).save(file)
    print(file)


SECTIONS = {"judges": judges, "ours": ours, "null": null, "pictures": pictures, "training": training}


def main() -> None:
    """Run the chosen sections and save their results one by one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--faces", type=Path, required=True, metavar="DIR", help="a folder of causalgen data faces")
    add_options(parser, "faces.json", SECTIONS, rows=1000)
    judges_file = RESULTS / "faces_judges.safetensors"
    add("--judges", type=Path, metavar="FILE", default=judges_file, help="(%(default)s)")
    add("--judge-rows", type=int, default=14_000, help="portraits that judges learn from (%(default)s)")
    add("--judge-epochs", type=int, default=8, help="passes over them (%(default)s)")
    run_sections(Run(parser.parse_args()), SECTIONS)


if __name__ == "__main__":
    command(main)
