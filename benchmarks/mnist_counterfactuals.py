"""What the gallery model ``mnist`` is good for, measured: effectiveness, closeness, null, speed.

    python benchmarks/mnist_counterfactuals.py --mnist DIR --judge FILE [--model mnist] [--only headline,null]

The model was fitted on MNIST's training images; the rows are its first test images, each with one random
other digit; the judge of effectiveness was trained on test rows 1000 to 9999 alone. Sections are written to
the result file one by one.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from parts.agreement import agreement
from parts.arguments import add_only
from parts.context import Context, Result
from parts.duel import duel
from parts.headline import headline
from parts.machine_share import machine_share
from parts.null import null
from parts.record import run_record, save_section
from parts.rows import EVALUATED
from parts.table import table
from rich.console import Console

from graphs.errors import CausalgenError

SECTIONS = {
    "headline": headline,
    "null": null,
    "duel": duel,
    "table": table,
    "machine_share": machine_share,
    "agreement": agreement,
}


def main(arguments: list[str]) -> None:
    """Run the chosen sections, print their tables and save their results."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    context = Context(
        mnist=options.mnist,
        model=options.model,
        judge_file=options.judge,
        counts={"rows": options.rows, "table": options.table_rows},
        steps=tuple(options.steps),
        fast_steps=options.fast_steps,
        morphomnist=options.morphomnist,
        console=Console(width=options.width),
    )
    chosen = options.only or [name for name in SECTIONS if name != "agreement" or options.morphomnist]
    for name in chosen:
        run, start = run_record(), time.perf_counter()
        if name != "agreement":
            run |= context.identity()

        def keep(result: Result, *, complete: bool = False, name: str = name, run: Result = run) -> None:
            save_section(options.out, name, run, result, complete=complete)

        context.keep = keep
        result = SECTIONS[name](context)
        result["minutes"] = (time.perf_counter() - start) / 60
        keep(result, complete=True)
        context.console.print(f"{name}: {result['minutes']:.1f} minutes, saved in {options.out}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--mnist", required=True, metavar="DIR", help="MNIST in torchvision's layout, unzipped")
    add(
        "--judge",
        type=Path,
        default="runs/judge.safetensors",
        help="its weights; made when missing (%(default)s)",
    )
    add("--model", default="mnist", help="a gallery name or a model's folder (%(default)s)")
    add_only(parser, SECTIONS)
    add("--rows", type=int, default=EVALUATED, help="rows of headline, null and duel (%(default)s)")
    add("--table-rows", type=int, default=128, help="rows of the table (%(default)s)")
    add("--steps", type=int, nargs="+", default=[8, 16, 32, 64], help="of the table (%(default)s)")
    add("--fast-steps", type=int, default=7, help="of the fast setting (%(default)s)")
    add("--morphomnist", type=Path, metavar="DIR", help="published test set, for `agreement`")
    add("--threads", type=int, default=1, help="of torch (%(default)s)")
    add("--width", type=int, default=170, help="of the printed tables (%(default)s)")
    add("--out", type=Path, default=Path(__file__).parent / "results" / "mnist.json", metavar="FILE")
    return parser


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except CausalgenError as error:
        raise SystemExit(f"error: {error}") from error
