"""``causalgen demo``: ten real digits, and each of them as every other digit."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from rich.console import Console

from causalgen.commands.common import save_figure, use_preset, use_threads
from causalgen.gallery import sample_rows
from causalgen.plots import plot_image_rows
from causalgen.presets import preset_options
from causalgen.scm import SCM

__all__ = ["run_demo"]


def run_demo(preset: str | None, out: Path, threads: int | None) -> None:
    """Draw the grid and say where it is; the last line printed is its path."""
    console = Console(soft_wrap=True, highlight=False)
    use_threads(threads)
    if preset is not None:
        preset_options(preset)  # a misspelt name is told before a model is loaded
    scm = use_preset(SCM.from_pretrained("mnist"), preset)
    rows = sample_rows("mnist")
    columns = np.array([int(np.argmax(rows["digit"] == digit)) for digit in range(10)])
    evidence = {"digit": rows["digit"][columns], "image": rows["image"][columns]}
    console.print(scm.describe())
    began = time.perf_counter()
    abduction = scm.abduct(evidence, seed=0)
    pictures = {"factual": np.asarray(abduction.counterfactual({})["image"])}
    marks = {}
    for digit in range(10):
        label = f"do(digit = {digit})"
        pictures[label] = np.asarray(abduction.counterfactual({"digit": digit}, targets=["image"])["image"])
        marks[label] = (evidence["digit"] == digit).tolist()
        console.print(f"{label}: {time.perf_counter() - began:.1f} s")
    save_figure(plot_image_rows(pictures, marks), out)
    console.print("Framed: the digit as it was, which the intervention leaves alone bit for bit.")
    console.print(str(out.resolve()))
