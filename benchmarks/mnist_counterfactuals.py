"""What the gallery model ``mnist`` is good for, measured: effectiveness, closeness, null, speed.

    python benchmarks/mnist_counterfactuals.py --mnist DIR [--model mnist] [--only headline,null] [--quick]

The model was fitted on MNIST's training images; the rows are its first test images, each with one random
other digit; effectiveness is read by the shipped evaluators, which guidance never saw. Sections are
written to the result file one by one:

    headline       draws, which are the default, and the edit, also without the code, beside real images
    null           an image regenerated from its own noise under its own digit
    duel           draws and the edit against the preset ``diff-scm`` on the same weights and rows, in turn
    table          solver x steps x guidance
    machine_share  the U-Net's floating-point rate against a large matrix product's
    agreement      measured thickness and intensity against the published Morpho-MNIST test set
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import cached_property
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from parts.denoising import (
    CONDITIONAL,
    MEASURES,
    SOLVERS,
    UNCONDITIONAL,
    Cost,
    Pixels,
    Rows,
    correlations,
    counted,
    diff_scm,
    grey_levels,
    image_mechanism,
    invert,
    merits,
    most_alike,
    real_in_place,
    regenerate,
    solved,
    to_pixels,
    without_residuals,
)
from parts.record import Result, Section, add_common, command, show, target
from rich.console import Console
from safetensors.torch import save
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import causalgen as cg
from causalgen.cli.common import preset_options
from causalgen.data.reading import read_data
from causalgen.evaluation.evaluate import held_rows
from causalgen.metrics.evaluators import Evaluators, load_evaluators
from causalgen.metrics.scores import wilson_interval
from graphs.errors import MechanismError

_BLOCKS, _DECODED_AT_ONCE, _SIDE, _REPEATS = 8, 100, 2048, 9


class Run:
    """What every section gets."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.console = options, Console(width=options.width)
        self.section: Section

    @cached_property
    def scm(self) -> cg.SCM:
        """The model, as it was saved."""
        return cg.SCM.from_pretrained(self.options.model)

    @cached_property
    def evaluators(self) -> Evaluators:
        """The evaluators, as they were saved."""
        return load_evaluators(self.options.evaluators)

    @property
    def draw(self) -> cg.SCM:
        """Draws of the posterior at weight 1, on the same weights."""
        return self.scm.with_options("image", **preset_options("posterior"))

    @property
    def edit(self) -> cg.SCM:
        """The image inverted to a point, under strong guidance, on the same weights."""
        return self.scm.with_options("image", **preset_options("edit"))

    @property
    def fast(self) -> cg.SCM:
        """Draws with fewer steps."""
        return self.draw.with_options("image", solver={"steps": self.options.fast_steps})

    def rows(self, count: int, seed: int = 0) -> Rows:
        """The first test images, each with one random other digit."""
        return Rows.read(self.scm, f"mnist:{self.options.mnist}:test", count, seed)[0]

    def canonical(self, rows: Rows) -> Tensor:
        """The images as mechanisms see them, (N, 1, 28, 28) float32 in [-1, 1]."""
        return torch.as_tensor(self.scm.variables["image"].encode(rows.evidence["image"], where="Rows"))

    def identity(self) -> dict[str, str]:
        """The model and its evaluators, with a digest of the weights."""
        weights = sha256(save(dict(image_mechanism(self.scm).state_dict()))).hexdigest()[:16]
        return {
            "model": Path(self.options.model).name,
            "weights": weights,
            "evaluators": self.evaluators.name,
        }

    def show(self, title: str, rows: list[Result]) -> None:
        """Print rows of figures as a table."""
        show(self.console, title, rows)


def ask(scm: cg.SCM, rows: Rows, seed: int = 0) -> tuple[Pixels, Cost]:
    """Counterfactuals (N, 28, 28) in [0, 1] as a user gets them, through ``scm.counterfactual``."""
    with counted(image_mechanism(scm)) as cost:
        answer = scm.counterfactual(rows.evidence, {"digit": rows.targets}, targets=["image"], seed=seed)
        images = answer["image"]
    return images[:, 0].double().numpy(), cost


def headline(run: Run) -> Result:
    """Are the counterfactuals effective, and still counterfactuals *of* their factual?

    An effective prototype is no counterfactual, so L1 and the correlations of measured thickness, slant and
    size stand beside those of real images: a random one of the digit asked for, the nearest one among the
    training images, and another, random test image; and beside the largest correlations that answers of the
    right law can have, by ``kept_in_rank``. Figures are means over seeds, of the digits asked for and of the
    draws; an interval is that of as many rows as a seed has.
    """
    seeds = [run.rows(run.options.rows, seed) for seed in range(run.options.seeds)]
    rows = seeds[0]
    seen = run.evaluators.classes(rows.evidence["image"])
    models = {
        "draw": run.draw,
        f"draw, {run.options.fast_steps} steps": run.fast,
        "edit": run.edit,
        "draw, code hidden": run.draw.with_options("image", code={"hidden": True}),
    }
    variables = run.scm.variables
    table = read_data(f"mnist:{run.options.mnist}:train", variables)
    pool = held_rows(table, variables, np.arange(table.rows))
    # A shift by 1..N-1 pairs every row with another one.
    shift = np.random.default_rng(1).integers(1, max(2, len(rows)), len(rows))
    other = rows.pixels[(np.arange(len(rows)) + shift) % len(rows)]
    apart = {"L1": grey_levels(other, rows.pixels)} | correlations(other, rows.pixels)
    result: Result = {
        "rows": len(rows),
        "seeds": len(seeds),
        "evaluators' accuracy on the factual": float((seen == rows.digits).mean()),
        "settings": [],
        "controls": [
            *real_in_place(rows, pool, variables["digit"], run.evaluators),
            {"control": "random test image"} | apart,
            {"control": "the most that the law allows"} | most_alike(rows, pool),
        ],
    }
    for name, scm in models.items():
        each: list[Result] = []
        for seed, asked in enumerate(seeds):
            images, cost = ask(scm, asked, seed)
            each.append(merits(images, asked, run.evaluators) | cost.each(len(asked)))
        result["settings"].append({"setting": name} | _pooled(each, len(rows)))
        run.section.keep(result)
    drawn, quick, edited, _ = result["settings"]
    result["targets"] = [
        target("draw: effectiveness", drawn["effectiveness"], least=0.985),
        target("draw: r thickness", drawn["r thickness"], least=0.75),
        target("draw: r slant", drawn["r slant"], least=0.65),
        target("draw: r size", drawn["r size"], least=0.4),
        target("draw, fewer steps: evaluations an image", quick["evaluations"], most=17),
        target("edit: effectiveness", edited["effectiveness"], least=0.985),
    ]
    floor = result["evaluators' accuracy on the factual"]
    run.console.print(f"{len(rows)} rows; the evaluators are right on {floor:.4f} of the factual images")
    run.show("Settings", result["settings"])
    run.show("Controls: real images in the place of the counterfactual", result["controls"])
    return result


def _pooled(each: list[Result], rows: int) -> Result:
    """Means over seeds, and the effectiveness of each."""
    pooled = {key: float(np.mean([one[key] for one in each])) for key in each[0] if key != "interval"}
    interval = list(wilson_interval(round(pooled["effectiveness"] * rows), rows))
    return pooled | {"interval": interval, "by seed": [one["effectiveness"] for one in each]}


def null(run: Run) -> Result:
    """``generate(pa, abduct(x, pa))``: exact with residuals by construction, without as good as the solver.

    Nothing is copied, values are taken before they are clamped, and decoding batches differ from encoding
    batches.
    """
    rows = run.rows(run.options.rows)
    values = run.canonical(rows)
    models = {"draw": run.draw}
    models |= {f"no residuals, {n} steps": without_residuals(run.draw, steps=n) for n in (16, 32)}
    result: Result = {"rows": len(rows), "dtype": str(values.dtype), "settings": []}
    for name, scm in models.items():
        mechanism = image_mechanism(scm)
        noise, up = invert(mechanism, values, rows.digits)
        again, down = regenerate(mechanism, noise, rows.digits, chunk=_DECODED_AT_ONCE)
        images = to_pixels(again)
        figures: Result = {
            "setting": name,
            "largest error": float(abs(images - to_pixels(values)).max()),
            "null L1": grey_levels(images, rows.pixels),
            "null L1 clamped": grey_levels(images.clip(0, 1), rows.pixels),
        }
        result["settings"].append(figures | (up + down).each(len(rows)))
        run.section.keep(result)
    default, sixteen, thirty_two = result["settings"]
    result["targets"] = [
        target("with residuals: largest error in [0, 1]", default["largest error"], most=1e-4),
        target("without, 16 steps: L1", sixteen["null L1"], most=0.35),
        target("without, 32 steps: L1", thirty_two["null L1"], most=0.1),
    ]
    run.show(f"Null, {len(rows)} rows", result["settings"])
    return result


def duel(run: Run) -> Result:
    """Effectiveness, L1 and images a second of each contender, and the ratios of speed.

    The rows are cut into blocks; within a block the contenders take turns, in an order that rotates. Speed is
    the median over blocks, and so is each ratio, taken block by block.
    """
    rows = run.rows(run.options.rows)
    contenders = {
        "draw": run.draw,
        "draw, fewer steps": run.fast,
        "edit": run.edit,
        "diff-scm": diff_scm(run.scm, UNCONDITIONAL["raw s=1, unconditional"]),
        "draw, in bfloat16": run.draw.with_options("image").to(dtype="bfloat16"),
        "draw, fewer steps, in bfloat16": run.fast.with_options("image").to(dtype="bfloat16"),
    }
    names = list(contenders)
    for scm in contenders.values():
        ask(scm, rows[:2])  # warm up
    answers: dict[str, list[tuple[Pixels, Cost]]] = {name: [] for name in names}
    cuts = np.linspace(0, len(rows), min(_BLOCKS, len(rows)) + 1).astype(int).tolist()
    blocks = [rows[start:end] for start, end in pairwise(cuts)]
    for turn, block in enumerate(blocks):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            answers[name].append(ask(contenders[name], block))
        run.console.print(f"duel: block {turn + 1}/{len(blocks)}")
    speeds = {
        name: [len(block) / cost.seconds for block, (_, cost) in zip(blocks, answers[name], strict=True)]
        for name in names
    }
    result: Result = {"rows": len(rows), "blocks": len(blocks), "settings": []}
    for name in names:
        images = np.concatenate([images for images, _ in answers[name]])
        cost = sum((cost for _, cost in answers[name]), Cost()).each(len(rows))
        ratios = [ours / theirs for ours, theirs in zip(speeds[name], speeds["diff-scm"], strict=True)]
        cost["images/s"] = median(speeds[name])
        figures: Result = {"setting": name} | merits(images, rows, run.evaluators) | cost
        result["settings"].append(
            figures | {"speed-up": median(ratios), "speed-ups": [min(ratios), max(ratios)]}
        )
    *ours, paper = result["settings"][:4]
    result["targets"] = []
    for figures, least in zip(ours, (6.0, 10.0, 3.5), strict=True):
        gain, name = figures["effectiveness"] - paper["effectiveness"], figures["setting"]
        above = {"what": f"{name}: effectiveness above diff-scm's by", "value": gain, "bound": "> 0"}
        result["targets"] += [
            target(f"{name}: speed-up", figures["speed-up"], least=least),
            above | {"met": gain > 0},
        ]
    run.show(
        f"Against diff-scm (75 + 75 steps), {len(rows)} rows, medians of {len(blocks)}", result["settings"]
    )
    return result


def table(run: Run) -> Result:
    """Solver x steps x guidance.

    Abduction depends on solver, steps and base alone: it is timed once for each and its noise serves all
    guidance of that base; an image's cost is abduction plus prediction. The null is without residuals, under
    the same guidance (``raw`` guidance moves the image even then). ``belm`` takes no unconditional denoiser.
    The rows "diff-scm" are DDIM on the paper's levels, respaced for fewer steps; 75 steps are the preset.
    """
    rows, steps = run.rows(run.options.table_rows), run.options.steps
    asked = [
        (kind, count, guidances)
        for kind in SOLVERS
        for count in steps
        for guidances in ([CONDITIONAL] if kind == "belm" else [CONDITIONAL, UNCONDITIONAL])
    ]
    asked += [("diff-scm", count, UNCONDITIONAL) for count in (*steps, 75)]
    result: Result = {"rows": len(rows), "settings": []}
    _one_base(run, rows[:8], "ddim", 2, UNCONDITIONAL)  # warm up
    for kind, count, guidances in asked:
        run.console.print(f"table: {kind}, {count} steps, {len(guidances)} guidances")
        result["settings"] += _one_base(run, rows, kind, count, guidances)
        run.section.keep(result)
    run.show(f"Solver x steps x guidance, {len(rows)} rows", result["settings"])
    return result


def _one_base(
    run: Run, rows: Rows, kind: str, steps: int, guidances: dict[str, dict[str, Any]]
) -> list[Result]:
    """Every guidance of one base, from one abduction."""
    models = {
        name: diff_scm(run.scm, given, steps) if kind == "diff-scm" else solved(run.scm, kind, steps, given)
        for name, given in guidances.items()
    }
    settings = {name: {"solver": kind, "steps": steps, "guidance": name} for name in models}
    first = image_mechanism(next(iter(models.values())))
    try:
        noise, up = invert(first, run.canonical(rows), rows.digits)
    except MechanismError as error:  # belm drifts where steps are few
        return [setting | {"refused": str(error).split(":")[0]} for setting in settings.values()]
    found: list[Result] = []
    nothing: float | None = None
    for name, scm in models.items():
        again, down = regenerate(image_mechanism(scm), noise, rows.targets)
        # Guidance of the conditional denoiser vanishes at the factual: one null serves all.
        if nothing is None or guidances is UNCONDITIONAL:
            same, _ = regenerate(image_mechanism(without_residuals(scm)), noise, rows.digits)
            nothing = grey_levels(to_pixels(same), rows.pixels)
        figures = merits(to_pixels(again).clip(0, 1), rows, run.evaluators, measured=False)
        found.append(settings[name] | figures | {"null L1": nothing} | (up + down).each(len(rows)))
    return found


@torch.no_grad()
def machine_share(run: Run) -> Result:
    """GFLOP/s of the network and of a large float32 product, and their ratio.

    Floating-point operations of one evaluation (torch's counter: convolutions, attention, linear layers) over
    its time; both medians of interleaved repeats on the same threads.
    """
    mechanism, rows = image_mechanism(run.scm), run.rows(128)
    images, parents = run.canonical(rows), {"digit": torch.as_tensor(rows.digits)}
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(_SIDE, _SIDE, generator=generator) for _ in range(2))

    def evaluate() -> None:
        mechanism.denoiser.eps(images, 1.0, parents)

    def seconds(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    with FlopCounterMode(display=False) as counter:
        evaluate()
    flops = counter.get_total_flops()
    network, product = [], []
    for _ in range(_REPEATS):
        network.append(seconds(evaluate))
        product.append(seconds(lambda: left @ right))
    ours, peak = flops / median(network) / 1e9, 2 * _SIDE**3 / median(product) / 1e9
    result: Result = {
        "batch": len(rows),
        "parameters": sum(each.numel() for each in mechanism.denoiser.parameters()),
        "MFLOP an evaluation": flops / len(rows) / 1e6,
        "ms an evaluation": 1000 * median(network) / len(rows),
        "U-Net GFLOP/s": ours,
        "GEMM GFLOP/s": peak,
        "share": ours / peak,
    }
    run.show(f"U-Net against a float32 product of side {_SIDE}, {torch.get_num_threads()} threads", [result])
    return result


def agreement(run: Run) -> Result:
    """Measured thickness and intensity against what each published Morpho-MNIST image was *made* to have."""
    variables = cg.SCM.from_pretrained("morphomnist").variables
    source = read_data(f"morphomnist:{run.options.morphomnist}:test", variables)
    held = held_rows(source, variables, np.arange(source.rows))
    found: list[Result] = []
    for name in ("thickness", "intensity"):
        asked, measured = held[name], MEASURES[name](held["image"][:, 0])
        error = measured - asked
        found.append(
            {
                "measure": name,
                "images": len(asked),
                "correlation": float(np.corrcoef(measured, asked)[0, 1]),
                "mean absolute error": float(abs(error).mean()),
                "bias": float(error.mean()),
            }
        )
    run.show("Measured against what was asked for (px; 0..255)", found)
    return {"measures": found}


SECTIONS = {
    "headline": headline,
    "null": null,
    "duel": duel,
    "table": table,
    "machine_share": machine_share,
    "agreement": agreement,
}


def main() -> None:
    """Run the chosen sections, print their tables and save their results."""
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    if options.quick:
        options.rows = options.table_rows = 8
        options.steps = [4]
    run = Run(options)
    for name in options.only or [each for each in SECTIONS if each != "agreement" or options.morphomnist]:
        if name == "agreement" and not options.morphomnist:
            raise SystemExit("error: --only agreement needs --morphomnist DIR")
        run.section = Section(options.out, name, **run.identity())
        result = SECTIONS[name](run)
        if "targets" in result:
            run.show("Targets", result["targets"])
        run.section.finish(result)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--mnist", required=True, metavar="DIR", help="MNIST in torchvision's layout, unzipped")
    add("--model", default="mnist", help="a gallery name or a model's folder (%(default)s)")
    add("--evaluators", default="mnist", help="a shipped set or a folder (%(default)s)")
    add("--seeds", type=int, default=3, help="of the headline (%(default)s)")
    add("--quick", action="store_true", help="8 rows and 4 steps, to see that it runs; give --out")
    add("--rows", type=int, default=1000, help="rows of headline, null and duel (%(default)s)")
    add("--table-rows", type=int, default=128, help="rows of the table (%(default)s)")
    add("--steps", type=int, nargs="+", default=[8, 16, 32, 64], help="of the table (%(default)s)")
    add("--fast-steps", type=int, default=7, help="of the fast setting (%(default)s)")
    add("--morphomnist", type=Path, metavar="DIR", help="published test set, for `agreement`")
    add_common(parser, "mnist.json", SECTIONS, width=170)
    return parser


if __name__ == "__main__":
    sys.exit(command(main))
