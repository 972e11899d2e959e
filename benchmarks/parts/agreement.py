"""Do the measured thickness and intensity agree with the published Morpho-MNIST test set?

Its table holds the thickness and intensity that each of its 10,000 images was *made* to have.
"""

from __future__ import annotations

import csv
import gzip

import numpy as np

from causalgen.metrics import intensity, thickness

from .context import Context, Result

__all__ = ["agreement"]


def agreement(context: Context) -> Result:
    """Correlation, mean absolute error and bias of each measure."""
    folder = context.morphomnist
    if folder is None:
        raise SystemExit("--only agreement needs --morphomnist DIR")
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28) / 255.0
    with (folder / "t10k-morpho.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    rows: list[Result] = []
    for name, measure in (("thickness", thickness), ("intensity", intensity)):
        asked, found = np.array([float(row[name]) for row in table]), measure(images)
        error = found - asked
        rows.append(
            {
                "measure": name,
                "images": len(asked),
                "correlation": float(np.corrcoef(found, asked)[0, 1]),
                "mean absolute error": float(abs(error).mean()),
                "bias": float(error.mean()),
            }
        )
    context.show("Measured against what was asked for (px; 0..255)", rows)
    return {"measures": rows}
