"""How well ``auto`` chooses: counterfactual errors on synthetic tables, beside its candidates' own.

    python benchmarks/choosing.py [--seeds 3] [--only linear,bounded]

Each table has a known generator (``parts.choosing_tables``). The error is the root mean square over 1,000 new
rows of what y would have been under another row's parents, over all seeds. ``auto`` is held to the better of
``additive`` (least squares) and ``flow``.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from parts.arguments import add_only
from parts.choosing_tables import TABLES, counterfactual_error
from parts.record import Section
from rich.console import Console
from rich.table import Table

import causalgen as cg

FILE = Path(__file__).parent / "results" / "choosing.json"
SPECS = {"additive": cg.mechanisms.Additive(), "flow": cg.mechanisms.Flow(), "auto": cg.mechanisms.Auto()}


def main(arguments: list[str]) -> None:
    """Measure the chosen tables, print them and save them one by one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    add_only(parser, TABLES)
    options = parser.parse_args(arguments)
    console = Console(width=120)
    section, results = Section(FILE, "choosing"), {}
    for name in options.only or TABLES:
        results[name] = measure(name, options.seeds)
        section.keep({"seeds": options.seeds, "tables": results})
        console.print(f"{name}: {results[name]}", highlight=False)
    section.finish()
    console.print(shown(results))


def measure(name: str, seeds: int) -> dict[str, Any]:
    """Errors and seconds of each mechanism on one table, and what was chosen."""
    generator, squares = TABLES[name], dict.fromkeys(SPECS, 0.0)
    seconds, chosen = dict.fromkeys(SPECS, 0.0), []
    for seed in range(seeds):
        rows, _ = generator.draw(np.random.default_rng([seed, 0]), generator.rows)
        parents = {node: column for node, column in rows.items() if node != "y"}
        for kind, spec in SPECS.items():
            began = time.process_time()
            scm = generator.model(parents, spec).fit(rows, seed=seed, progress=False)
            seconds[kind] += (time.process_time() - began) / seeds
            squares[kind] += counterfactual_error(scm, generator, seed=seed) ** 2 / seeds
            report = scm.fit_report["y"] if scm.fit_report else None
            if report is not None and report.choice is not None:
                chosen.append(report.choice["label"])
    error = {kind: math.sqrt(square) for kind, square in squares.items()}
    ratio = error["auto"] / min(error["additive"], error["flow"])
    return {"rows": generator.rows, "error": error, "ratio": ratio, "chosen": chosen, "cpu_seconds": seconds}


def shown(results: dict[str, Any]) -> Table:
    """A row for each table."""
    table = Table("table", "rows", *SPECS, "auto / better", "chosen")
    for name, each in results.items():
        errors = [f"{each['error'][kind]:.4f}" for kind in SPECS]
        table.add_row(
            name, f"{each['rows']:,}", *errors, f"{each['ratio']:.2f}", ", ".join(sorted({*each["chosen"]}))
        )
    return table


if __name__ == "__main__":
    main(sys.argv[1:])
