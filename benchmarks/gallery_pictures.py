"""Draw what the gallery's models of colour answer: docs/images/NAME.png, a factual row a column.

    python benchmarks/gallery_pictures.py [--only pendulum]

The rows are the first samples of each model. Each is asked for what a later sample has, or all for the same.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import causalgen as cg
from causalgen.cli.common import write_file
from causalgen.counterfactuals.export import figure_png
from causalgen.plotting.plots import plot_image_rows

COLUMNS, LATER = 10, 40
IMAGES = Path(__file__).parents[1] / "docs" / "images"

ASKED: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "faces": ("image", [{"age": 75}, {"beard": "full"}, {"hair": "long"}, {"skin": None}, {"smile": "yes"}]),
    "pendulum": ("image", [{each: None} for each in ("angle", "light", "shadow_length", "shadow_position")]),
    "colour-digits": ("picture", [{"ink": None}, {"paper": None}, {"shape": None}, {"digit": 3}]),
}
"""Of each model, the image that is drawn, and what is set in each row of it; None is a later sample's."""


def main() -> None:
    """Draw each model's picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=ASKED, nargs="+", default=list(ASKED))
    for name in parser.parse_args().only:
        node, questions = ASKED[name]
        scm, table = cg.SCM.from_pretrained(name), cg.sample_rows(name)
        abduction = scm.abduct({each: table[each][:COLUMNS] for each in table}, seed=0)
        drawn = {"factual": np.asarray(abduction.counterfactual({})[node])}
        for question in questions:
            ((cause, value),) = question.items()
            do = table[cause][LATER : LATER + COLUMNS] if value is None else value
            title = f"do({cause})" if value is None else f"do({cause} = {value})"
            drawn[title] = np.asarray(abduction.counterfactual({cause: do}, targets=[node])[node])
        target = IMAGES / f"{name}.png"
        write_file(target, figure_png(plot_image_rows(drawn, {})))
        print(target)


if __name__ == "__main__":
    main()
