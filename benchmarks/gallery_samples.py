"""Write the sample rows of a gallery model: the first 200 rows of a test set, and their table.

    python benchmarks/gallery_samples.py --data mnist:DIR:test --out graphs/gallery/mnist

Pictures are numbered, with the node's name where a model has several; a vector takes a column a number.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import causalgen as cg
from causalgen.counterfactuals.export import to_png
from causalgen.data.reading import SAMPLES, read_data


def main() -> None:
    """Write ``OUT/samples``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="where the rows are, such as mnist:DIR:test")
    parser.add_argument("--out", type=Path, required=True, help="the model's folder")
    parser.add_argument("--rows", type=int, default=200)
    arguments = parser.parse_args()
    variables = cg.SCM.from_pretrained(arguments.out).variables
    table = read_data(arguments.data, variables)
    shown = {node: variables[node].decode(table[node]) for node in table if table[node].ndim < 3}
    target = arguments.out / SAMPLES
    target.parent.mkdir(parents=True, exist_ok=True)
    several = sum(isinstance(variable, cg.Image) for variable in variables.values()) > 1
    lines: list[str] = []
    for row in range(arguments.rows):
        cells: dict[str, object] = {}
        for node, variable in variables.items():
            value = shown.get(node, table[node])[row]
            if isinstance(variable, cg.Image):
                cells[node] = f"{node}-{row:03d}.png" if several else f"{row:03d}.png"
                (target.parent / str(cells[node])).write_bytes(to_png(value / 255))
            elif np.shape(value):
                cells |= {f"{node}_{k}": number for k, number in enumerate(value)}
            else:
                cells[node] = value
        if not lines:
            lines.append(",".join(cells))
        lines.append(",".join(map(str, cells.values())))
    target.write_text("\n".join(lines) + "\n")
    print(target)


if __name__ == "__main__":
    main()
