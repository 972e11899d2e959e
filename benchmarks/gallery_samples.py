"""Write the sample rows of the gallery model ``mnist``: the first 200 MNIST test images, and their table.

.venv/bin/python benchmarks/gallery_samples.py --mnist DIR --out graphs/gallery/mnist
"""

from __future__ import annotations

import argparse
from pathlib import Path

from causalgen.data.reading import read_data
from causalgen.saving.export import to_png
from causalgen.saving.gallery import SAMPLES
from graphs.variables import Categorical, Image


def main() -> None:
    """Write ``OUT/samples``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", required=True, help="folder that holds MNIST/raw")
    parser.add_argument("--out", type=Path, required=True, help="the model's folder")
    parser.add_argument("--rows", type=int, default=200)
    arguments = parser.parse_args()
    variables = {"digit": Categorical(10), "image": Image(1, 28, 28)}
    table = read_data(f"mnist:{arguments.mnist}:test", variables)
    target = arguments.out / SAMPLES
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = ["digit,image"]
    for row in range(arguments.rows):
        name = f"{row:03d}.png"
        (target.parent / name).write_bytes(to_png(table["image"][row] / 255))
        lines.append(f"{table['digit'][row]},{name}")
    target.write_text("\n".join(lines) + "\n")
    print(target)


if __name__ == "__main__":
    main()
