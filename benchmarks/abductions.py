"""The two abductions of the gallery models: an edit by point inversion, and draws of the noise's posterior.

    python benchmarks/abductions.py --mnist DIR --morphomnist DIR [--only mnist,morphomnist] [--rows 256]
    python benchmarks/abductions.py --mnist DIR --only mnist --rows 1000 --seeds 0 1 2

What ``causalgen distil`` made is measured by ``--only mnist-distilled --model DIR``, beside its own teacher.

Each row gets one random other digit; with ``--seeds`` the default alone is asked, for other digits and by
other draws each time. One setting a row of the result: is the digit reached, how near does the
image stay, has the noise its prior law, and do counterfactuals, averaged over factuals, have the law of the
model's own samples of the same digits. The rows are test images that fitting never saw; the evaluators never
guide.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from parts.denoising import MEASURES, Rows, counted, grey_levels, image_mechanism, merits
from parts.record import Section, add_common, command, show
from rich.console import Console
from torch import Tensor

import causalgen as cg
from causalgen.cli.common import preset_options
from causalgen.metrics import attribute_distance, class_distances, cld, load_evaluators, variance_ratio
from causalgen.metrics.controls import real_images
from causalgen.metrics.feature_distance import feature_distance, variance_within
from mechanisms.diffusion.code_training import told

_FACTUAL = {"kind": "classifier_free", "against": "factual", "interval": None, "corrections": 0}


def _learned(abduction: str, weight: float, **options: Any) -> dict[str, Any]:
    """Abduction along the denoiser as it was learned, and the weight of prediction from the factual."""
    return {"abduction": abduction, "guidance": _FACTUAL | {"weight": weight}, **options}


def _drawn(weight: float = 1.0, **options: Any) -> dict[str, Any]:
    """The preset ``posterior``, with another weight, other options of the solver or of the mechanism."""
    preset = preset_options("posterior")
    solver = {name: options.pop(name) for name in ("steps", "residuals") if name in options}
    changed = {"guidance": preset["guidance"] | {"weight": weight}, "solver": preset["solver"] | solver}
    return preset | changed | options


_FAR = {"kind": "anchored", "grid": {"kind": "karras", "sigma_min": 0.1, "sigma_max": 80.0}}

SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "mnist": {
        "default, the draw: w = 1, 12 steps": {},
        "draw, code hidden": _drawn(code={"hidden": True}),
        **{f"draw, {steps} steps": _drawn(steps=steps) for steps in (7, 4, 2)},
        **{
            f"draw, {few} steps without residuals": _drawn(steps=few, residuals=False) for few in (7, 4, 2)
        },
        "draw, w = 1.5": _drawn(weight=1.5),
        "w = 1, point": _drawn(abduction="point"),
        "the edit: w = 6 against hidden, point, 12 steps": preset_options("edit"),
        "the edit, code hidden": preset_options("edit") | {"code": {"hidden": True}},
        "draw, in bfloat16": {"dtype": "bfloat16"},
        "the edit, in bfloat16": preset_options("edit") | {"dtype": "bfloat16"},
    },
    "mnist-distilled": {
        "jumps": {},
        "jumps without residuals": {"solver": {"residuals": False}},
        **{
            f"undistilled, {steps} steps{'' if kept else ' without residuals'}": _learned(
                "posterior", 1.0, solver=_FAR | {"steps": steps, "residuals": kept}
            )
            for steps in (12, 4, 2) for kept in (True, False)
        },
    },
    "morphomnist": {
        "default: w by row, point": {"abduction": "point"},
        "w by row, posterior": {"abduction": "posterior"},
        "w = 1, point": _learned("point", 1.0),
        "w = 1, posterior": _learned("posterior", 1.0),
        "w = 1.5, posterior": _learned("posterior", 1.5),
    },
}  # fmt: skip


class Run:
    """One model on its rows."""

    def __init__(self, name: str, data: str, evaluators: str, rows: int, seed: int = 0) -> None:
        self.scm, self.evaluators, self.seed = cg.SCM.from_pretrained(name), load_evaluators(evaluators), seed
        self.rows, self.pool = Rows.read(self.scm, data, rows, seed)
        self.evidence, self.targets = self.rows.evidence, self.rows.targets
        digit = self.scm.variables["digit"]
        self.factual = self.evidence["image"]
        seen, self.wanted = (
            digit.encode(each, where="digit") for each in (self.evidence["digit"], self.targets)
        )
        real = digit.encode(self.pool["digit"], where="digit")
        self.distances = class_distances(
            self.evaluators.latents, self.factual, seen, self.wanted, self.pool["image"], real
        )
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
        """Figures of one setting: options of the mechanism, and perhaps a dtype."""
        scm = self.scm.with_options("image", **{key: each for key, each in options.items() if key != "dtype"})
        if "dtype" in options:
            scm.to(dtype=options["dtype"])
        with counted(image_mechanism(scm)) as cost:
            abduction = scm.abduct(self.evidence, seed=self.seed)
            noise = abduction.noise["image"]
            x_T = noise["x_T"]
            images = abduction.counterfactual({"digit": self.targets}, targets=["image"])["image"].numpy()
        null = abduction.counterfactual({}, targets=["image"], copy_unaffected=False)["image"].numpy()
        beside = (x_T[..., 1:] * x_T[..., :-1]).mean() / x_T.square().mean()
        return (
            {"setting": name}
            | self.figures(images)
            | {"std x_T": float(x_T.std()), "neighbours x_T": float(beside)}
            | {f"{leaf} tells": self.told(noise[leaf]) for leaf in ("x_T", "code") if leaf in noise}
            | {"null L1": grey_levels(null[:, 0].astype(np.float64), self.rows.pixels)}
            | {"evaluations": cost.evaluations / len(images), "fidelity": image_mechanism(scm).abduction}
        )

    def told(self, leaf: Tensor) -> dict[str, float]:
        """What a fresh probe tells of the digit from a leaf of the noise."""
        digit = self.scm.variables["digit"]
        truth = torch.as_tensor(digit.encode(self.rows.digits, where="digit"))
        found, chance, errors = told(leaf.flatten(1), truth, digit)
        return {"accuracy": found, "chance": chance, "standard errors": errors}

    def figures(self, images: NDArray[np.float32]) -> dict[str, Any]:
        """Of images that stand for the counterfactuals."""
        ratio = variance_ratio(images, self.wanted, self.samples, self.wanted)
        pixels = images[:, 0].astype(np.float64)
        law = {
            f"KS {name}": attribute_distance(MEASURES[name](pixels), MEASURES[name](self.samples[:, 0])).value
            for name in ("thickness", "slant", "size")
        }
        return {
            **merits(pixels, self.rows, self.evaluators),
            "CLD": cld(images, self.distances).value,
            "variance within a class": float(np.nanmean(variance_within(images, self.wanted))),
            "ratio to samples": ratio.value,
            "ratio interval": [ratio.low, ratio.high],
            "FD to samples": float(feature_distance(images, self.samples, self.evaluators.features)),
            **law,
        }


def main() -> None:
    """Measure every setting, print and save."""
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    console = Console(width=options.width)
    given = [each for each in SETTINGS if getattr(options, _data_of(each)) and each != "mnist-distilled"]
    for name in options.only or given:
        for seed in options.seeds or [None]:
            title, data = name if seed is None else f"{name}, seed {seed}", _data_of(name)
            section, rows = Section(options.out, title), f"{data}:{getattr(options, data)}:test"
            run = Run(options.model or name, rows, data, options.rows, seed or 0)
            found = {"rows": len(run.factual), "evaluators": run.evaluators.name, "settings": run.controls()}
            for setting, each in list(SETTINGS[name].items())[: None if seed is None else 1]:
                found["settings"].append(run.measure(setting, each))
                section.keep(found)
            section.finish()
            show(console, title, found["settings"], hide=("interval",))


def _data_of(model: str) -> str:
    """The name of the data set, and of the evaluators, of a gallery model."""
    return model.split("-")[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--mnist", metavar="DIR", help="MNIST in torchvision's layout, unzipped")
    add("--morphomnist", metavar="DIR", help="the published test set")
    add("--model", help="a folder to load instead of the gallery's model")
    add("--rows", type=int, default=256, help="test rows of each model (%(default)s)")
    add("--seeds", type=int, nargs="+", help="ask the default alone, once for each")
    add_common(parser, "abductions.json", SETTINGS, width=220)
    return parser


if __name__ == "__main__":
    command(main)
