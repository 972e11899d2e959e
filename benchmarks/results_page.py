"""Write every figure and picture of ``docs/results.md`` from the saved results.

    python benchmarks/results_page.py [--report DIR]

The page's text is written by hand; what stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` is
replaced by what the files in ``results/`` and ``published.json`` say. The
curves are drawn from the same files. ``--report`` is the folder that ``morphomnist.py --report`` wrote: its
picture of counterfactuals is taken into the page.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from parts import results_tables as tables
from parts.results_tables import Scores

from causalgen.plotting.plot_style import ACCENT, FAINT, INK, SOFT, named_ticks

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "results.md"
IMAGES = PAGE.parent / "images"
BLOCK = re.compile(r"(<!-- begin ([a-z-]+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)

VARIANTS = {"published": "as published", "repaired_predictor": "repaired"}
Sections = dict[str, dict[str, Any]]

_DASHES = {"do nothing": ":", "random real": "--", "nearest real": "-."}
_NAMES = {"edit": "causalgen, edit by w", "diff-scm preset": "preset diff-scm, by s"}


def page(text: str, blocks: dict[str, str]) -> str:
    """The page with every block replaced; page and results must name the same ones."""
    named = [match[2] for match in BLOCK.finditer(text)]
    if sorted(named) != sorted(blocks):
        raise SystemExit(f"error: {PAGE.name} has the blocks {sorted(named)}, the results {sorted(blocks)}")
    return BLOCK.sub(lambda match: f"{match[1]}\n{blocks[match[2]]}\n\n{match[3]}", text)


def current_blocks() -> dict[str, str]:
    """What the saved results say, by block."""
    morpho, mnist = _read("results/morphomnist.json"), _read("results/diff_scm.json")
    entering = _read("results/abductions.json")
    published = _read("published.json")["counterfactual_benchmark"]
    seeds = [section["result"] for name, section in morpho.items() if name.startswith("ours, seed")]
    ours = {"causalgen": Scores.of(seeds)}
    peers: dict[str, Scores] = {}
    if "peer" in morpho:
        found = morpho["peer"]["result"]
        spent = json.loads(found["meta"])["settings"]["training"]["image"]["charged_seconds"]
        name = f"counterfactual-benchmark VAE, {spent / 60:.0f} min here, {found['rows']:,} rows"
        peers[name] = Scores([found["entries"]])
    plain = morpho["uncorrected"]["result"]
    open_loop = {f"causalgen, no corrections, {plain['rows']} rows": Scores.of([plain])}
    oracle = Scores([morpho["oracle"]["result"]["entries"]])
    digits = {
        f"causalgen, {name.removeprefix('ours, ')}": Scores.of([section["result"]])
        for name, section in mnist.items()
        if name.startswith("ours, ")
    }
    draws, many = mnist["ours, draw"]["result"], dict[str, list[Any]]()
    for name, section in mnist.items():
        if name.startswith("many, "):
            many.setdefault(name.split(", ")[1], []).append(section["result"])
    for name, results in many.items():
        digits[f"causalgen, {name}, {len(results)} times {results[0]['rows']:,} rows"] = Scores.of(results)
    for name, entries in mnist["peer"]["result"].items():
        if "/" in name:
            variant, scale = name.split("/")
            digits[f"Diff-SCM, {VARIANTS[variant]}, s = {scale}"] = Scores([entries])
    return {
        "effectiveness": tables.effectiveness(ours | open_loop | peers, published, oracle)
        + "\n\n"
        + tables.shortfalls(ours["causalgen"], published),
        "measured": tables.effectiveness(ours | open_loop | peers, None, oracle, by="measured")
        + "\n\n"
        + tables.shortfalls(ours["causalgen"], published, by="measured"),
        "composition": tables.composition(ours | peers, published),
        "truth": tables.truth(ours | open_loop | peers),
        "steps": tables.speed(_steps(morpho)),
        "mnist": tables.mnist(digits)
        + "\n\n"
        + tables.gap_closed(Scores.of([draws]), f"the first {draws['rows']:,} rows"),
        "abductions": tables.abductions(entering),
        "training": tables.training(morpho["training"]["result"]["nodes"]),
        "runs": tables.markdown(
            ["figures", "command", "commit", "processor", "threads", "load"],
            [
                *_runs(morpho),
                *_runs(mnist),
                *_runs({f"abductions, {name}": each for name, each in entering.items()}),
            ],
        ),
    }


def draw() -> None:
    """The curves."""
    mnist, morpho = _read("results/diff_scm.json"), _read("results/morphomnist.json")
    _save(_divergence(mnist["curve"]["result"]), IMAGES / "results-cld.png")
    _save(_quality(_steps(morpho)), IMAGES / "results-steps.png")


def _divergence(tunings: Mapping[str, Any]) -> Figure:
    """CLD and effectiveness against the strength of guidance (CLD: Sanchez & Tsaftaris 2022)."""
    figure = Figure(figsize=(7.2, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, metric in ((left, "CLD"), (right, "effectiveness")):
        for (name, tuning), colour in zip(tunings.items(), (ACCENT, INK), strict=True):
            strengths = [point["strength"] for point in tuning["points"]]
            scores = [point[metric] for point in tuning["points"]]
            lows, highs = [each["low"] for each in scores], [each["high"] for each in scores]
            axes.fill_between(strengths, lows, highs, color=colour, alpha=0.12, linewidth=0)
            _line(axes, strengths, [each["value"] for each in scores], colour, _NAMES[name])
    _frame(left, "CLD, nats: lower is better", "strength of guidance")
    _frame(right, "effectiveness: higher is better", "strength of guidance")
    controls = tunings["edit"]
    for control, found in controls["controls"].items():
        _level(left, control, found["CLD"]["value"], _DASHES[control])
    _level(left, "floor", controls["floor"]["value"], "-")
    right.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def _quality(by_steps: Mapping[int, Scores]) -> Figure:
    """Errors against the number of steps, each as a share of what doing nothing has."""
    figure = Figure(figsize=(7.2, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = list(by_steps)
    for do, colour in (("thickness", ACCENT), ("intensity", INK)):
        far = [_share(scores, "true error", do, of="pixels") for scores in by_steps.values()]
        _line(left, steps, far, colour, f"do({do})")
        read = [_share(scores, "effectiveness", do, of=do, by="predictor") for scores in by_steps.values()]
        _line(right, steps, read, colour, f"{do} under do({do})")
    _frame(left, "distance to the true image, share of doing nothing", "steps")
    _frame(right, "error of the cause that is set, share of doing nothing", "steps")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        named_ticks(axes.xaxis, steps, [str(step) for step in steps])
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize=8)
    return figure


def _save(figure: Figure, path: Path) -> None:
    """A PNG without a date, so that the same results draw the same file."""
    figure.savefig(path, dpi=144, metadata={"Software": None})


def _share(scores: Scores, metric: str, do: str, **named: str) -> float:
    made, nothing = (scores.value(metric, subject, do=do, **named) for subject in ("mechanism", "do nothing"))
    assert made is not None and nothing
    return made / nothing


def _line(axes: Axes, x: Sequence[float], y: Sequence[float], colour: str, label: str) -> None:
    axes.plot(x, y, "o-", color=colour, markersize=3.5, linewidth=1.3, label=label)


def _frame(axes: Axes, title: str, below: str) -> None:
    axes.set_title(title, fontsize=8.5, color=INK, loc="left")
    axes.set_xlabel(below, fontsize=8.5, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    axes.tick_params(labelsize=8, color=SOFT, labelcolor=INK)


def _level(axes: Axes, text: str, value: float, dashes: str) -> None:
    axes.axhline(value, color=SOFT, linewidth=0.9, linestyle=dashes)
    below = text == "random real"  # the two kinds of real images lie close together
    right = text == "do nothing"  # the curves begin there
    axes.annotate(
        text, (right, value), xycoords=("axes fraction", "data"), textcoords="offset points",
        xytext=(-2 if right else 3, -3 if below else 2), ha="right" if right else "left",
        va="top" if below else "bottom", fontsize=7, color=FAINT,
    )  # fmt: skip


def _steps(sections: Sections) -> dict[int, Scores]:
    found = {name: Scores.of([each["result"]]) for name, each in sections.items() if name.startswith("steps")}
    return {int(name.removeprefix("steps, ")): scores for name, scores in found.items()}


def _runs(sections: Sections) -> Iterator[list[str]]:
    for name, section in sections.items():
        run = section["run"]
        loads = f"{run['load_average'][0]:.1f} to {run['load_average_at_end'][0]:.1f}"
        command = f"`{run['command'].removeprefix('python ')}`"
        processor = run["machine"]["cpu"].split(" (")[0]
        yield [name, command, f"`{run['commit'][:8]}`", processor, str(run["threads"]), loads]


def _read(name: str) -> Any:
    return json.loads((HERE / name).read_text(encoding="utf-8"))


def main() -> None:
    """Write the page and its pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--report", type=Path, metavar="DIR", help="what morphomnist.py --report wrote")
    options = parser.parse_args()
    if options.report:
        shutil.copyfile(options.report / "pictures" / "image.png", IMAGES / "results-morphomnist.png")
    draw()
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), current_blocks()), encoding="utf-8")
    print(f"wrote {PAGE.name}")


if __name__ == "__main__":
    main()
