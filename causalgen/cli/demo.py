"""``causalgen demo``: ten real digits, each of them as every other digit, and at last the picture's path."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from causalgen.cli.options import Device, Png, Preset, Seed, Threads

if TYPE_CHECKING:
    import numpy as np

__all__ = ["demo"]


def demo(
    preset: Preset = None,
    out: Annotated[Path, Png] = Path("demo.png"),
    seed: Seed = 0,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Real handwritten digits, and what each would have been as any other digit."""
    import numpy as np

    from causalgen.cli.common import console, load_model, use_threads, write_file
    from causalgen.counterfactuals.export import figure_png
    from causalgen.data.reading import sample_rows
    from causalgen.plotting.plots import plot_image_rows

    say = console().print
    use_threads(threads)
    scm = load_model("mnist", device, preset)
    rows = sample_rows("mnist")
    columns = _one_of_each(rows["digit"], seed)
    evidence = {"digit": rows["digit"][columns], "image": rows["image"][columns]}
    say(scm.describe())
    began = time.perf_counter()
    abduction = scm.abduct(evidence, seed=seed)
    pictures = {"factual": np.asarray(abduction.counterfactual({})["image"])}
    marks: dict[str, list[bool]] = {}
    for digit in range(10):
        label = f"do(digit = {digit})"
        pictures[label] = np.asarray(abduction.counterfactual({"digit": digit}, targets=["image"])["image"])
        marks[label] = (evidence["digit"] == digit).tolist()
        say(f"{label}  {time.perf_counter() - began:.1f} s")
    write_file(out, figure_png(plot_image_rows(pictures, marks)))
    say("Framed: the digit as it was, which the intervention leaves alone bit for bit.")
    say(str(out.resolve()))


def _one_of_each(digits: np.ndarray, seed: int) -> list[int]:
    """A row of each digit: for seed 0 the first one, for others any."""
    import numpy as np

    found: list[int] = []
    for digit in range(10):
        places = np.flatnonzero(digits == digit)
        found.append(int(places[np.random.default_rng([seed, digit]).integers(len(places)) if seed else 0]))
    return found
