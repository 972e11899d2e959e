"""Speed, growth and memory of tables: counterfactuals and fits of linear models, beside numpy and peers.

    python benchmarks/tables.py [--dowhy-python PYTHON] [--chirho-python PYTHON] [--quick] [--only fit,growth]

Every contender runs in its own process on the same rows, in turns. Peers are looked for nowhere: give the
interpreter of an environment that has them. Sections are written to the result file one by one.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from parts.arguments import add_only
from parts.record import run_record, save_section
from parts.tables_agreement import agreement
from parts.tables_context import Context, Result
from parts.tables_growth import growth
from parts.tables_memory import memory
from parts.tables_speed import counterfactual, fit, one_row
from rich.console import Console

SECTIONS = {
    "agreement": agreement,
    "counterfactual": counterfactual,
    "one_row": one_row,
    "fit": fit,
    "growth": growth,
    "memory": memory,
}

_FULL = {
    "nodes": (10, 50, 200),
    "rows": 100_000,
    "threads": (1, 2),
    "turns": 9,
    "grow_nodes": (10, 30, 100, 300, 1000, 2000),
    "grow_rows": (1, 10, 100, 1000, 10_000, 100_000, 1_000_000),
    "memory_rows": 1_000_000,
}
_QUICK = {
    "nodes": (50,),
    "rows": 10_000,
    "threads": (1,),
    "turns": 3,
    "grow_nodes": (10, 100),
    "grow_rows": (1, 10, 100, 1000, 10_000),
    "memory_rows": 100_000,
}


def main(arguments: list[str]) -> None:
    """Run the chosen sections, print their tables and save their results."""
    options = _parser().parse_args(arguments)
    sizes = dict(_QUICK if options.quick else _FULL)
    for name in ("nodes", "rows", "threads", "turns"):
        given = getattr(options, name)
        if given is not None:
            sizes[name] = tuple(given) if isinstance(given, list) else given
    out = options.out or Path(
        "runs/tables.json" if options.quick else Path(__file__).parent / "results/tables.json"
    )
    pythons = {"DoWhy-GCM": options.dowhy_python, "ChiRho": options.chirho_python}
    folder = Path(tempfile.mkdtemp(prefix="causalgen-tables-"))
    context = Context(
        pythons={name: python for name, python in pythons.items() if python is not None},
        folder=folder,
        results=out.parent,
        budget=options.budget,
        console=Console(width=options.width),
        **sizes,  # pyright: ignore[reportArgumentType]
    )
    try:
        for name in options.only or SECTIONS:
            _run(name, context, out)
    finally:
        shutil.rmtree(folder)


def _run(name: str, context: Context, out: Path) -> None:
    run, start = run_record() | {"threads": list(context.threads)}, time.perf_counter()

    def keep(result: Result, *, complete: bool = False) -> None:
        save_section(out, name, run, result, complete=complete)

    context.keep = keep
    result = SECTIONS[name](context)
    result["minutes"] = (time.perf_counter() - start) / 60
    keep(result, complete=True)
    context.console.print(f"{name}: {result['minutes']:.1f} minutes, saved in {out.name}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--dowhy-python", metavar="PYTHON", help="interpreter that has dowhy; without it, no such column")
    add("--chirho-python", metavar="PYTHON", help="interpreter that has chirho; without it, no such column")
    add("--quick", action="store_true", help="small sizes, under a minute")
    add_only(parser, SECTIONS)
    add("--nodes", type=int, nargs="+", help="of the models (10 50 200)")
    add("--rows", type=int, help="of evidence (100000)")
    add("--threads", type=int, nargs="+", help="of every contender (1 2)")
    add("--turns", type=int, help="of each comparison (9)")
    add("--budget", type=float, default=60, help="seconds of a contender in a comparison (%(default)s)")
    add("--width", type=int, default=170, help="of the printed tables (%(default)s)")
    add("--out", type=Path, metavar="FILE", help="(results/tables.json beside this; quick: runs/tables.json)")
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
