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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from parts import results_plots as plots
from parts import results_tables as tables
from parts.abductions_table import abductions
from parts.results_tables import Scores

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "results.md"
IMAGES = PAGE.parent / "images"
BLOCK = re.compile(r"(<!-- begin ([a-z-]+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)

VARIANTS = {"published": "as published", "repaired_predictor": "repaired"}
Sections = dict[str, dict[str, Any]]


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
    many = [section["result"] for name, section in mnist.items() if name.startswith("many, seed")]
    many_rows = f"{len(many)} times {many[0]['rows']:,} rows"
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
        "mnist": tables.mnist(digits) + "\n\n" + tables.gap_closed(Scores.of(many), many_rows),
        "abductions": abductions(entering),
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
    plots.save(plots.divergence(mnist["curve"]["result"]), IMAGES / "results-cld.png")
    plots.save(plots.quality(_steps(morpho)), IMAGES / "results-steps.png")


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
