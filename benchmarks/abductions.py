"""The two abductions of the gallery models: an edit by point inversion, and draws of the noise's posterior.

    python benchmarks/abductions.py --mnist DIR --morphomnist DIR [--only mnist,morphomnist] [--rows 256]

Each row gets one random other digit. One setting a row of the result: is the digit reached, how near does the
image stay, has the noise its prior law, and do counterfactuals, averaged over factuals, have the law of the
model's own samples of the same digits. The rows are test images that fitting never saw; judges never guide.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from parts.answers import counted, image_mechanism
from parts.arguments import add_only
from parts.figures import correlations, grey_levels, wilson
from parts.record import Section
from rich.console import Console
from rich.table import Table as Printed

import causalgen as cg
from causalgen.data.reading import read_data
from causalgen.evaluation.evaluate import held_rows
from causalgen.evaluation.questions import other_values
from causalgen.metrics import attribute_distance, class_distances, cld, load_evaluators, variance_ratio
from causalgen.metrics.consistency import variance_within
from causalgen.metrics.controls import real_images
from causalgen.metrics.feature_distance import feature_distance
from causalgen.metrics.measurement import size, slant, thickness

Columns = dict[str, NDArray[Any]]

_LEARNED = {"kind": "classifier_free", "against": "factual", "interval": None, "corrections": 0}


def _guided(weight: float) -> dict[str, Any]:
    return {"guidance": _LEARNED | {"weight": weight}}


def _posterior(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"abduction": "posterior", **options}


SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "mnist": {
        "default: w = 6 against hidden, point": {
            "abduction": "point",
            "guidance": {
                "kind": "classifier_free",
                "weight": 6.0,
                "against": "hidden",
                "interval": [1.5, 20.0],
            },
        },
        "w = 1, point": _guided(1.0) | {"abduction": "point"},
        "w = 1, posterior": _posterior(_guided(1.0)),
        "w = 1.5, posterior": _posterior(_guided(1.5)),
        "w = 1.5 against hidden, posterior": _posterior(
            {"guidance": _LEARNED | {"weight": 1.5, "against": "hidden"}}
        ),
        "w = 2, posterior": _posterior(_guided(2.0)),
    },
    "morphomnist": {
        "default: w by row, point": {"abduction": "point"},
        "w by row, posterior": {"abduction": "posterior"},
        "w = 1, point": _guided(1.0) | {"abduction": "point"},
        "w = 1, posterior": _posterior(_guided(1.0)),
        "w = 1.5, posterior": _posterior(_guided(1.5)),
    },
}


class Run:
    """One model on its rows."""

    def __init__(self, name: str, data: str, rows: int, console: Console) -> None:
        self.name, self.console = name, console
        self.scm, self.judges = cg.SCM.from_pretrained(name), load_evaluators(name)
        table = read_data(data, self.scm.variables)
        self.pool: Columns = held_rows(table, self.scm.variables, np.arange(min(table.rows, 5000)))
        self.evidence = {node: values[:rows] for node, values in self.pool.items()}
        digit = self.scm.variables["digit"]
        self.targets = other_values(digit, self.evidence["digit"], 2022)
        self.factual = self.evidence["image"]
        codes = [digit.encode(each, where="digit") for each in (self.evidence["digit"], self.targets)]
        self.wanted = codes[1]
        real = digit.encode(self.pool["digit"], where="digit")
        self.distances = class_distances(self.judges.latents, self.factual, *codes, self.pool["image"], real)
        causes = {node: values for node, values in self.evidence.items() if node not in ("image", "digit")}
        self.causes = causes | {"digit": self.targets}
        # The interventional law: prior noise under the very parents of the counterfactuals.
        self.samples = self.scm.sample(rows, do=self.causes, targets=["image"], seed=1)["image"].numpy()

    def controls(self) -> list[dict[str, Any]]:
        """Images that no abduction made."""
        own = np.arange(len(self.factual))
        real = real_images(
            self.factual, self.targets, self.pool["image"], self.pool["digit"],
            self.scm.variables["digit"], own=own, seed=0,
        )  # fmt: skip
        made = self.scm.sample(len(own), do=self.causes, targets=["image"], seed=2)["image"].numpy()
        images = {
            "do nothing": self.factual,
            "a random real image": self.pool["image"][real.random],
            "the nearest real image": self.pool["image"][real.nearest],
            "a sample of the model": made,
        }
        return [{"setting": f"control: {name}"} | self.figures(each) for name, each in images.items()]

    def measure(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Figures of one setting."""
        scm = self.scm.with_options("image", **options)
        with counted(image_mechanism(scm)) as cost:
            abduction = scm.abduct(self.evidence, seed=0)
            x_T = abduction.noise["image"]["x_T"]
            images = abduction.counterfactual({"digit": self.targets}, targets=["image"])["image"].numpy()
        beside = (x_T[..., 1:] * x_T[..., :-1]).mean() / x_T.square().mean()
        return (
            {"setting": name}
            | self.figures(images)
            | {"std x_T": float(x_T.std()), "neighbours x_T": float(beside)}
            | {"evaluations": cost.evaluations / len(images), "fidelity": image_mechanism(scm).abduction}
        )

    def figures(self, images: NDArray[np.float32]) -> dict[str, Any]:
        """Of images that stand for the counterfactuals."""
        hits = int((self.judges.classes(images) == self.wanted).sum())
        ratio = variance_ratio(images, self.wanted, self.samples, self.wanted)
        pixels, factual = (each[:, 0].astype(np.float64) for each in (images, self.factual))
        law = {
            f"KS {name}": attribute_distance(measure(pixels), measure(self.samples[:, 0])).value
            for name, measure in (("thickness", thickness), ("slant", slant), ("size", size))
        }
        return {
            "effectiveness": hits / len(images),
            "interval": list(wilson(hits, len(images))),
            "CLD": cld(images, self.distances).value,
            "L1": grey_levels(pixels, factual),
            **correlations(pixels, factual),
            "variance within a class": float(np.nanmean(variance_within(images, self.wanted))),
            "ratio to samples": ratio.value,
            "ratio interval": [ratio.low, ratio.high],
            "FD to samples": float(feature_distance(images, self.samples, self.judges.features)),
            **law,
        }


def main(arguments: list[str]) -> None:
    """Measure every setting, print and save."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    console = Console(width=options.width)
    data = {"mnist": f"mnist:{options.mnist}:test", "morphomnist": f"morphomnist:{options.morphomnist}:test"}
    for name in options.only or [each for each in SETTINGS if getattr(options, each)]:
        section = Section(options.out, name)
        run = Run(name, data[name], options.rows, console)
        found = {"rows": len(run.factual), "judges": run.judges.name, "settings": run.controls()}
        for setting, each in SETTINGS[name].items():
            found["settings"].append(run.measure(setting, each))
            section.keep(found)
        section.finish()
        _show(console, name, found["settings"])


def _show(console: Console, title: str, rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row if "interval" not in name))
    printed = Printed(*columns, title=title)
    for row in rows:
        cells = [row.get(name, "") for name in columns]
        printed.add_row(*(f"{each:.3f}" if isinstance(each, float) else str(each) for each in cells))
    console.print(printed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--mnist", metavar="DIR", help="MNIST in torchvision's layout, unzipped")
    add("--morphomnist", metavar="DIR", help="the published test set")
    add_only(parser, SETTINGS)
    add("--rows", type=int, default=256, help="test rows of each model (%(default)s)")
    add("--threads", type=int, default=1, help="of torch (%(default)s)")
    add("--width", type=int, default=220, help="of the printed table (%(default)s)")
    add("--out", type=Path, default=Path(__file__).parent / "results" / "abductions.json", metavar="FILE")
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
