"""Write the sample rows of a gallery model: the first 200 rows of a test set, and their table.

.venv/bin/python benchmarks/gallery_samples.py --data mnist:DIR:test --out graphs/gallery/mnist
.venv/bin/python benchmarks/gallery_samples.py --data morphomnist:DIR:test --out graphs/gallery/morphomnist
"""

from __future__ import annotations

import argparse
from pathlib import Path

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
    target = arguments.out / SAMPLES
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(variables)]
    for row in range(arguments.rows):
        cells: list[str] = []
        for node, variable in variables.items():
            value = table[node][row]
            if isinstance(variable, cg.Image):
                name = f"{row:03d}.png"
                (target.parent / name).write_bytes(to_png(value / 255))
                value = name
            cells.append(str(value))
        lines.append(",".join(cells))
    target.write_text("\n".join(lines) + "\n")
    print(target)


if __name__ == "__main__":
    main()
