"""Large tables: counterfactuals of the gallery model ``mnist`` by one process and on Ray, and memory by rows.

    python benchmarks/cluster.py --mnist DIR [--rows 2000] [--only ray,memory]

``ray`` asks the command line, as a user would, for another digit of the first rows of MNIST's test images: in
one process, on a cluster of one worker and on one of two, one thread each, in turns. A job's time without its
start-up is that between its first part and its last, for as many parts as it has; both are told, and the
answers' bytes are compared. ``memory`` asks a table of four numeric nodes of growing length, each length in a
process of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from parts.record import Section, add_common, command, show, target
from rich.console import Console

import causalgen as cg
from causalgen.counterfactuals.export import to_png
from causalgen.data.reading import read_data

SECTIONS = ("ray", "memory")
ENGINES = {
    "one process": [],
    "Ray, one worker": ["--engine", "ray", "--workers", "1"],
    "Ray, two workers": ["--engine", "ray", "--workers", "2"],
}
MOST = {"Ray, one worker": 1.15, "Ray, two workers": 0.62}
"""Of the time of one process, start-up left out."""

PART = 50
LENGTHS = (100_000, 1_000_000, 10_000_000)


def write_digits(mnist: Path, rows: int, path: Path) -> None:
    """The first test images and their digits, as a Parquet table of PNGs."""
    variables = cg.SCM.from_pretrained("mnist").variables
    data = read_data(f"mnist:{mnist}:test", variables)
    digits, images = np.asarray(data["digit"])[:rows], np.asarray(data["image"])[:rows]
    pngs = [to_png(image / 255) for image in images]
    pq.write_table(pa.table({"digit": digits, "image": pngs}), path)


def ask(table: Path, out: Path, words: list[str], preset: str | None, workers: int) -> dict[str, Any]:
    """One job: its seconds, those of its parts alone, and a digest of what it wrote."""
    began = time.time()
    given = ["counterfactual", "mnist", "--table", str(table), "--do", "digit=3", "--out", str(out)]
    options = ["--part-rows", str(PART), "--threads", "1", *(["--preset", preset] if preset else [])]
    done = subprocess.run(
        [sys.executable, "-m", "causalgen", *given, *options, *words],
        capture_output=True,
        text=True,
        env=os.environ | {"RAY_worker_niceness": "0"},
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words) or 'one process'}: {done.stderr}")
    whole = time.time() - began
    times = sorted(file.stat().st_mtime for file in (out / "parts").glob("*.json"))
    parts = len(times)
    # When the first part ends, each worker has done about one: from there to the end they do the others.
    between = (times[-1] - times[0]) * parts / (parts - workers)
    digest = sha256()
    for file in sorted(out.rglob("*.parquet")):
        digest.update(file.read_bytes())
    return {"seconds": whole, "seconds of the parts": between, "digest": digest.hexdigest()}


def ray_section(arguments: argparse.Namespace, console: Console) -> None:
    """One process beside clusters of one and two workers, in turns."""
    section = Section(
        arguments.out, "ray", rows=arguments.rows, part_rows=PART, preset=arguments.preset or "the default"
    )
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ENGINES}
    with TemporaryDirectory() as folder:
        table = Path(folder, "digits.parquet")
        write_digits(arguments.mnist, arguments.rows, table)
        for turn in range(arguments.turns):
            for name, words in ENGINES.items():
                workers = int(words[-1]) if words else 1
                run = ask(table, Path(folder, f"{turn} {name}"), words, arguments.preset, workers)
                found[name].append(run)
                print(f"turn {turn + 1}, {name}: {found[name][-1]['seconds']:.0f} s", flush=True)
    digests = {each["digest"] for runs in found.values() for each in runs}
    rows = []
    for name, runs in found.items():
        shares = [
            one["seconds of the parts"] / alone["seconds of the parts"]
            for one, alone in zip(runs, found["one process"], strict=True)
        ]
        parts = median(each["seconds of the parts"] for each in runs)
        rows.append(
            {
                "engine": name,
                "seconds": median(each["seconds"] for each in runs),
                "seconds of the parts": parts,
                "start-up and end": median(each["seconds"] - each["seconds of the parts"] for each in runs),
                "share of one process": median(shares),
                "images/s": arguments.rows / parts,
            }
        )
    targets = [
        target(
            f"{row['engine']}: share of one process", row["share of one process"], most=MOST[row["engine"]]
        )
        for row in rows
        if row["engine"] in MOST
    ]
    show(console, f"{arguments.rows} counterfactuals of mnist", rows)
    show(console, "Targets", targets)
    section.finish({"rows": rows, "same bytes": len(digests) == 1, "targets": targets})


MEMORY = """
import resource, sys, time
import causalgen as cg, networkx as nx, numpy as np, pandas as pd
table = sys.argv[1]
names = ["a", "b", "c", "d"]
draw = np.random.default_rng(0)
frame = pd.DataFrame(draw.normal(size=(1000, 4)), columns=names)
chain, additive = nx.DiGraph([("a", "b"), ("b", "c"), ("c", "d")]), cg.mechanisms.Additive
scm = cg.SCM(chain, dict.fromkeys(names, cg.Continuous()), {name: additive() for name in names})
scm = scm.fit(frame, progress=False)
began, rows = time.process_time(), 0
for each in cg.counterfactual_parts(scm, table, {"up": {"b": 1.0}}, seed=0):
    rows += len(each.rows)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(rows, peak, time.process_time() - began)
"""


def memory_section(arguments: argparse.Namespace, console: Console) -> None:
    """Peak memory and processor time by the number of rows."""
    section, rows = Section(arguments.out, "memory"), []
    with TemporaryDirectory() as folder:
        for length in LENGTHS:
            table, draw = Path(folder, f"{length}.parquet"), np.random.default_rng(1)
            with pq.ParquetWriter(table, pa.schema([(name, pa.float64()) for name in "abcd"])) as writer:
                for _ in range(length // 100_000):
                    block = {name: draw.normal(size=100_000).clip(-2, 2) for name in "abcd"}
                    writer.write_table(pa.table(block))
            words = [sys.executable, "-c", MEMORY, str(table)]
            one = os.environ | {"OMP_NUM_THREADS": "1"}
            done = subprocess.run(words, capture_output=True, text=True, check=True, env=one)
            count, peak, seconds = done.stdout.split()
            assert int(count) == length
            rows.append({"table rows": length, "peak MiB": int(peak), "cpu s": float(seconds)})
            section.keep({"rows": rows})
    show(console, "Memory by rows", rows)
    section.finish({"rows": rows})


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_common(parser, "cluster.json", SECTIONS, threads=False)
    parser.add_argument("--mnist", type=Path, required=True, help="where torchvision keeps MNIST")
    parser.add_argument("--rows", type=int, default=2000, help="test images (%(default)s)")
    parser.add_argument("--turns", type=int, default=1, help="of every engine (%(default)s)")
    parser.add_argument("--preset", help="of the counterfactuals")
    arguments = parser.parse_args()
    console = Console(width=110)
    for name in arguments.only or SECTIONS:
        {"ray": ray_section, "memory": memory_section}[name](arguments, console)


if __name__ == "__main__":
    command(main)
