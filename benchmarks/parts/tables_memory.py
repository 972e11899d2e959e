"""Section ``memory``: the most a counterfactual of many rows holds beyond its input and its output.

Each measurement is a process of its own, since the operating system only tells the most that a process ever
held. With chunks the rows are asked for in slices, and each slice's answer is copied into the output.

    python benchmarks/parts/tables_memory.py FOLDER CHUNK     prints the bytes as JSON
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .tables_context import Context, Result

__all__ = ["memory"]

_NODES, _CHUNK = 50, 65_536


def memory(context: Context) -> Result:
    """All rows at once, and in chunks."""
    folder = context.case(_NODES, context.memory_rows)
    rows = []
    for chunk in (context.memory_rows, _CHUNK):
        if chunk > context.memory_rows:
            continue
        answer = subprocess.run(
            [sys.executable, __file__, str(folder), str(chunk)], stdout=subprocess.PIPE, check=False
        )
        if answer.returncode:
            raise SystemExit("error: the measurement of memory failed; what it said of that is above")
        rows.append({"rows at once": chunk, **json.loads(answer.stdout)})
    context.show(f"Memory, {_NODES} nodes x {context.memory_rows:,} rows, MB", rows)
    return {"nodes": _NODES, "rows": context.memory_rows, "chunks": rows}


def _measure(folder: str, chunk: int) -> dict[str, float]:
    from tables_causalgen import Causalgen
    from tables_serve import Case, peak

    case = Case(folder)
    ours = Causalgen(held_out=False)
    ours.prepare(case)
    ours.scm.fit(case.rows(10_000), progress=False)
    ours.counterfactual(100)  # whatever the first call loads
    columns, rows = case.columns, len(case.columns[case.node])
    do, found = {case.node: case.value}, None
    before = peak()
    if chunk < rows:
        found = {name: np.zeros(rows) for name in columns}
        for name in found:
            found[name].fill(0.0)  # the output, in memory before the first chunk
        for start in range(0, rows, chunk):
            part = slice(start, start + chunk)
            evidence = {name: column[part] for name, column in columns.items()}
            answer = ours.scm.counterfactual(evidence, do=do, seed=0)
            for name, values in found.items():
                values[part] = answer[name]
            del answer
    else:
        found = dict(ours.scm.counterfactual(columns, do=do, seed=0))
    held = peak() - before
    size = sum(each.nbytes for each in columns.values())
    mean = float(np.mean([float(np.asarray(each).mean()) for each in found.values()]))
    return {"input": size / 1e6, "output": size / 1e6, "beyond both": (held - size) / 1e6, "mean": mean}


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], int(sys.argv[2]))))
