"""The gallery model ``mnist`` beside Diff-SCM's published code, do(digit).

    python benchmarks/diff_scm.py --mnist DIR [--diff-scm-repo DIR --weights DIR --python PYTHON]

Both were trained on MNIST's training images, the peer for 41 minutes of one thread and ours for 69 of two; so
its figures are never Diff-SCM's results, whose recipe is 30,000 steps.
The same test rows, new digits, evaluators (trained on training images alone) and real images score both.

    ours   draws, which are the default, also with fewer steps and at a weight of 1.5; the edit, and settings
           of it that come back nearer; the preset ``diff-scm`` on our weights
    many   draws and edits on 1,000 rows for each of three seeds, a section each
    peer   its code as published, and repaired; see ``peers/diff_scm_answers.py``
    curve  CLD and effectiveness against the strength of guidance: ours by w, the preset by s
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parts.peer_scores import Setting, latest, peer_answers, plain
from parts.record import Section, add_common, command

import causalgen as cg
from causalgen.cli.common import preset_options
from causalgen.metrics.evaluators import Evaluators, load_evaluators

VARIANTS = ("published", "aligned", "repaired", "repaired_predictor")
SETTINGS: dict[str, dict[str, Any]] = {
    "draw": {},
    "edit": preset_options("edit"),
    "draw, 7 steps": preset_options("posterior")
    | {"solver": preset_options("posterior")["solver"] | {"steps": 7}},
    "draw, w = 1.5": preset_options("posterior")
    | {"guidance": preset_options("posterior")["guidance"] | {"weight": 1.5}},
    "edit, there and back": preset_options("edit")
    | {
        "guidance": preset_options("edit")["guidance"] | {"weight": 3.75, "interval": [2.0, 20.0]},
        "solver": preset_options("edit")["solver"]
        | {"steps": 32, "grid": {"kind": "log", "sigma_min": 0.01}},
    },
    "diff-scm preset": preset_options("diff-scm"),
}
MANY = ("draw", "edit")
PRESET_STRENGTHS = (0.0, 0.5, 0.7, 1.0, 2.0, 4.0)


def ours(options: argparse.Namespace, evaluators: Evaluators) -> None:
    """Our settings on the same rows, a section each; composition on 32 of them."""
    for name in options.settings:
        section = Section(options.out, f"ours, {name}")
        scm = cg.SCM.from_pretrained(options.model).with_options("image", **SETTINGS[name])
        report = cg.evaluate(scm, _data(options), rows=options.rows, evaluators=evaluators, seed=options.seed)
        print(f"{name}\n{report}", flush=True)
        section.finish(report.to_dict())


def many(options: argparse.Namespace, evaluators: Evaluators) -> None:
    """Edits and draws on more rows than peers were asked for; composition on 32 of them."""
    for name in (name for name in MANY if name in options.settings):
        scm = cg.SCM.from_pretrained(options.model).with_options("image", **SETTINGS[name])
        for seed in options.seeds:
            section, given = Section(options.out, f"many, {name}, seed {seed}"), _data(options)
            report = cg.evaluate(scm, given, rows=options.many_rows, evaluators=evaluators, seed=seed)
            print(f"{name}, seed {seed}\n{report}", flush=True)
            section.finish(report.to_dict())


def peer(options: argparse.Namespace, evaluators: Evaluators) -> None:
    """The peer's variants on the same rows."""
    if not (options.diff_scm_repo and options.weights and options.python):
        print("peer: not measured (give --diff-scm-repo, --weights and --python)")
        return
    section, scm = Section(options.out, "peer"), cg.SCM.from_pretrained(options.model)
    setting = Setting(scm, "image", _data(options), options.rows, options.seed, evaluators)
    (question,) = setting.asked
    arrays = {
        "images": setting.bytes(),
        "digits": np.asarray(setting.columns["digit"]),
        "targets": np.asarray(question.values),
    }
    weights = ["--repo", options.diff_scm_repo]
    weights += ["--unet", latest(options.weights / "score_train", "model*.pt")]
    weights += ["--classifier", latest(options.weights / "classifier_train_class", "model*.pt")]
    found: dict[str, Any] = {}
    for variant in options.variants:
        asked = [*weights, "--variants", variant, "--scales", *options.scales]
        answers = peer_answers(options.python, "diff_scm_answers.py", arrays, asked, threads=options.threads)
        null = setting.composition({1: answers[f"{variant}/null_1"]})
        for scale in options.scales:
            place = f"{variant}/{scale:g}"
            made, back = answers[f"{place}/counterfactual"], answers[f"{place}/reversal"]
            found[place] = plain([*null, *setting.score(question, made, back, 0.0)])
        found["meta"] = str(answers["meta"])
        section.keep(found | {"rows": options.rows, "seed": options.seed})
    section.finish()


def curve(options: argparse.Namespace, evaluators: Evaluators) -> None:
    """``cg.tune`` on other rows than those above."""
    section, found = Section(options.out, "curve"), dict[str, Any]()
    scm = cg.SCM.from_pretrained(options.model)
    for name, strengths in (("edit", None), ("diff-scm preset", PRESET_STRENGTHS)):
        given: dict[str, Any] = {} if strengths is None else {"strengths": strengths}
        tuning = cg.tune(
            scm.with_options("image", **SETTINGS[name]),
            _data(options),
            evaluators,
            rows=options.curve_rows,
            seed=options.seed + 1,
            **given,
        )
        print(f"{name}\n{tuning}", flush=True)
        found[name] = tuning.to_dict()
        section.keep(found)
    section.finish()


SECTIONS = {"ours": ours, "many": many, "peer": peer, "curve": curve}


def _data(options: argparse.Namespace) -> str:
    return f"mnist:{options.mnist}:test"


def main() -> None:
    """Run the chosen sections and save their results one by one."""
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    evaluators = load_evaluators(options.evaluators)
    for name in options.only or list(SECTIONS):
        SECTIONS[name](options, evaluators)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--mnist", type=Path, required=True, metavar="DIR", help="MNIST in torchvision's layout, unzipped")
    add("--model", default="mnist", help="a gallery name or a model's folder (%(default)s)")
    add("--evaluators", default="mnist", help="a shipped set or a folder (%(default)s)")
    add_common(parser, "diff_scm.json", SECTIONS)
    add(
        "--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS), help="of ours and many (all)"
    )
    add("--rows", type=int, default=256, help="of ours and peer (%(default)s)")
    add("--many-rows", type=int, default=1000, help="of many, a seed (%(default)s)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of many (%(default)s)")
    add("--curve-rows", type=int, default=200, help="of curve (%(default)s)")
    add("--seed", type=int, default=0, help="of ours and peer; curve takes the next (%(default)s)")
    add("--diff-scm-repo", type=Path, metavar="DIR", help="checkout of vios-s/Diff-SCM")
    add("--weights", type=Path, metavar="DIR", help="what its training wrote")
    add("--python", type=Path, metavar="PYTHON", help="interpreter with its requirements")
    add("--variants", nargs="+", choices=VARIANTS, default=["published", "repaired_predictor"])
    add("--scales", type=float, nargs="+", default=[1.0], help="of its guidance (%(default)s)")
    return parser


if __name__ == "__main__":
    command(main)
