"""The gallery model ``morphomnist`` on the published Morpho-MNIST test set: every metric, beside the truth.

    python benchmarks/morphomnist.py --mnist DIR --morphomnist DIR [--model morphomnist] [--only ours,steps]

``--morphomnist`` holds the published test files, ``--mnist`` MNIST in torchvision's layout: the true
counterfactual image of do(thickness) and do(intensity) is drawn from the original digit by the generator.
The model was fitted on training images, the evaluators on training images, and neither saw these rows.

    ours         1,000 rows for each of three seeds, a section each; composition on 32 of them
    uncorrected  200 rows without corrections: continuous parents at weight 1, asked for once; composition,
                 which corrections do not touch, on all of them
    oracle       what the evaluators read off the true counterfactual images of seed 0: their own error
    steps        200 rows at 8, 16, 32 and 64 steps
    peer         counterfactual-benchmark's VAE with flows on the rows of seed 0; needs --cf-repo,
                 --cf-weights and --cf-python, see ``peers/cf_benchmark_answers.py``
    training     how long the fit took, from the run folder that ``causalgen fit`` left; needs --run-dir
"""

from __future__ import annotations

import argparse
import json
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from parts.peer_scores import Setting, peer_answers, plain
from parts.record import Section, add_common, command

import causalgen as cg
from causalgen.cli.judging import read_morphomnist_truth
from causalgen.evaluation.metric import MECHANISM, Entry
from causalgen.evaluation.questions import Truth
from causalgen.evaluation.report import EvaluationReport
from causalgen.metrics.evaluators import Evaluators, load_evaluators


class Run:
    """What every section needs."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.data = options, f"morphomnist:{options.morphomnist}:test"

    @cached_property
    def scm(self) -> cg.SCM:
        """The model, as it was saved."""
        return cg.SCM.from_pretrained(self.options.model)

    @cached_property
    def evaluators(self) -> Evaluators:
        """The evaluators, as they were saved."""
        return load_evaluators(self.options.evaluators)

    @cached_property
    def truth(self) -> Truth:
        """The true worlds."""
        return read_morphomnist_truth(self.data, self.options.mnist, "image")

    def evaluate(self, scm: cg.SCM, rows: int, seed: int, *, full: bool) -> EvaluationReport:
        """``cg.evaluate`` with evaluators and truth; ``full`` composes on all rows, not on 32 of them."""
        return cg.evaluate(
            scm,
            self.data,
            rows=rows,
            full=full,
            evaluators=self.evaluators,
            measures="strokes",
            truth=self.truth,
            seed=seed,
        )


def ours(run: Run) -> None:
    """The model as it is saved, a seed at a time."""
    for seed in run.options.seeds:
        section = Section(run.options.out, f"ours, seed {seed}")
        report = run.evaluate(run.scm, run.options.rows, seed, full=False)
        print(report, flush=True)
        if run.options.report and seed == 0:
            report.save(run.options.report)
        section.finish(report.to_dict())


def uncorrected(run: Run) -> None:
    """What corrections add."""
    section = Section(run.options.out, "uncorrected")
    scm = run.scm.with_options("image", guidance={"corrections": 0})
    report = run.evaluate(scm, run.options.step_rows, 0, full=True)
    print(f"without corrections\n{report}", flush=True)
    section.finish(report.to_dict())


def oracle(run: Run) -> None:
    """The evaluators' own error where causes are combined as no real image combines them."""
    section = Section(run.options.out, "oracle")
    setting = Setting(run.scm, "image", run.data, run.options.rows, 0, run.evaluators, run.truth)
    factual, entries = np.asarray(setting.columns["image"])[:, 0], list[Entry]()
    for question in setting.asked:
        if question.image is not None:
            found = setting.score(question, np.asarray(question.image)[:, 0], factual, 0.0)
            entries += [each for each in found if (each.metric, each.subject) == ("effectiveness", MECHANISM)]
    section.finish({"entries": plain(entries), "rows": run.options.rows, "seed": 0})


def steps(run: Run) -> None:
    """Quality against speed, a section each."""
    for count in run.options.steps:
        section = Section(run.options.out, f"steps, {count}")
        scm = run.scm.with_options("image", solver={"steps": count})
        report = run.evaluate(scm, run.options.step_rows, 0, full=False)
        print(f"{count} steps\n{report}", flush=True)
        section.finish(report.to_dict())


def peer(run: Run) -> None:
    """counterfactual-benchmark's VAE at its given training budget; its parents are set as ours are."""
    options = run.options
    if not (options.cf_repo and options.cf_weights and options.cf_python):
        print("peer: not measured (give --cf-repo, --cf-weights and --cf-python)")
        return
    section = Section(options.out, "peer")
    setting = Setting(run.scm, "image", run.data, options.rows, 0, run.evaluators, run.truth)
    names = ("thickness", "intensity", "digit")
    arrays = {"images": setting.bytes()} | {name: np.asarray(setting.columns[name]) for name in names}
    for question in setting.asked:
        arrays |= {f"do_{question.node}/{name}": np.asarray(question.shown[name]) for name in names}
    weights = ["--repo", options.cf_repo, "--weights", options.cf_weights]
    answers = peer_answers(
        options.cf_python, "cf_benchmark_answers.py", arrays, weights, threads=options.threads
    )
    entries = setting.composition({cycles: answers[f"composition_{cycles}"] for cycles in (1, 10)})
    for question in setting.asked:
        name = f"do_{question.node}"
        entries += setting.score(question, answers[f"{name}/image"], answers[f"{name}/reversal"], 0.0)
    told = str(answers["meta"])
    section.finish({"entries": plain(entries), "meta": told, "rows": options.rows, "seed": 0})


def training(run: Run) -> None:
    """What the fit says of itself, node by node."""
    folder = run.options.run_dir
    if not folder:
        print("training: not told (give --run-dir)")
        return
    section = Section(run.options.out, "training")
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    nodes = json.loads((folder / "run.json").read_text())["nodes"]
    found = {
        event["node"]: {name: event[name] for name in ("rows", "steps", "seconds", "parameters", "figures")}
        | {name: nodes[event["node"]]["mechanism"]["training"][name] for name in ("epochs", "precision")}
        for event in events
        if event["event"] == "fitted"
    }
    section.finish({"nodes": found})


SECTIONS = {
    "ours": ours,
    "uncorrected": uncorrected,
    "oracle": oracle,
    "steps": steps,
    "peer": peer,
    "training": training,
}


def main() -> None:
    """Run the chosen sections and save their results one by one."""
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    run = Run(options)
    for name in options.only or list(SECTIONS):
        SECTIONS[name](run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--mnist", type=Path, required=True, metavar="DIR", help="MNIST in torchvision's layout, unzipped")
    add("--morphomnist", type=Path, required=True, metavar="DIR", help="the published test set")
    add("--model", default="morphomnist", help="a gallery name or a model's folder (%(default)s)")
    add("--evaluators", default="morphomnist", help="a shipped set or a folder (%(default)s)")
    add_common(parser, "morphomnist.json", SECTIONS)
    add("--rows", type=int, default=1000, help="of ours and peer (%(default)s)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of ours (%(default)s)")
    add("--steps", type=int, nargs="+", default=[8, 16, 32, 64], help="(%(default)s)")
    add("--step-rows", type=int, default=200, help="of uncorrected and steps (%(default)s)")
    add("--report", type=Path, metavar="DIR", help="where to write the page of seed 0 too")
    add("--cf-repo", type=Path, metavar="DIR", help="checkout of counterfactual-benchmark")
    add("--cf-weights", type=Path, metavar="DIR", help="what its training wrote")
    add("--cf-python", type=Path, metavar="PYTHON", help="interpreter with its requirements")
    add("--run-dir", type=Path, metavar="DIR", help="the run folder of the model's fit")
    return parser


if __name__ == "__main__":
    command(main)
