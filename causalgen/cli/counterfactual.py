"""``causalgen counterfactual``: evidence from files, one world for each ``--do``, a picture and a JSON.

OUT/picture.png       the evidence, and each world below it (of a table: one picture in each world's folder)
OUT/result.json       what was asked, and every world's folder, values and provenance
OUT/<world>/          its table and images, what the model's own predictor reads in these, and with several
                      samples their summary
OUT/factual/          what was observed, in the same form
OUT/inferred/         where the evidence has gaps: what was drawn in their place, and its summary
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causalgen.cli.assignments import parse_assignments
from causalgen.cli.common import column_names, load_model, say
from causalgen.cli.given import named_evidence, named_rows, numbered, read_evidence, with_own_rows
from causalgen.counterfactuals.export import (
    describe_draws,
    evidence_files,
    figure_png,
    summary_files,
    table_files,
)
from causalgen.counterfactuals.results import Counterfactual
from causalgen.counterfactuals.summaries import inferred_texts, node_texts, undetermined_nodes
from causalgen.plotting.plots import plot_worlds
from causalgen.saving.manifest import check_result_folder, write_result
from causalgen.scm import SCM
from graphs.errors import InterventionError, numbered_rows
from graphs.variables import image_variables

__all__ = ["Typed", "counterfactual_files", "run_counterfactual", "world_folders"]

_PICTURE_ROWS = 10
_TAKEN = ("factual", "inferred", "parts", "picture.png", "question.json", "refused.csv", "result.json")
_HOW = {"exact": "computed", "inferred": "inferred", "prior": "drawn from its prior"}


@dataclass(frozen=True)
class Typed:
    """What was typed, of a few rows or of a long table."""

    model: str
    given: Sequence[str]
    does: Sequence[str]
    out: Path
    samples: int | None
    rename: Sequence[str]
    seed: int
    preset: str | None
    clip: bool
    device: str | None
    dtype: str | None
    threads: int | None

    def read(self) -> tuple[SCM, dict[str, dict[str, Any]], dict[str, Any]]:
        """The model, loaded, what each world sets, by its text, and the evidence that was typed."""
        scm = load_model(self.model, self.device, self.preset, dtype=self.dtype, threads=self.threads)
        if not self.does:
            raise InterventionError("Nothing to ask: give at least one --do node=value.")
        does = {
            text: parse_assignments([text], scm.variables, "--do", expressions=True) for text in self.does
        }
        return scm, does, parse_assignments(self.given, scm.variables, "--set")


def run_counterfactual(asked: Typed, evidence: str | None) -> None:
    """Ask, write, and say where."""
    check_result_folder(asked.out)
    scm, does, typed = asked.read()
    source = with_own_rows(evidence, asked.model)
    columns = column_names(asked.rename, scm, named_evidence(source))
    rows = named_rows(source)
    known = numbered(read_evidence(source, scm, typed, columns) | typed, rows)
    with numbered_rows(rows):
        worlds = scm.abduct(known, num_samples=asked.samples, seed=asked.seed).worlds(does, clip=asked.clip)
    metadata = {"model": asked.model, "preset": asked.preset, "evidence": evidence, "seed": asked.seed}
    if asked.dtype is not None:
        metadata["dtype"] = asked.dtype
    files = counterfactual_files(worlds, pictures=bool(image_variables(scm.variables)))
    told = {
        text: {"folder": folder, **describe_draws(world)}
        for folder, (text, world) in zip(world_folders(list(worlds)), worlds.items(), strict=True)
    }
    write_result(asked.out, files, metadata | {"worlds": told})
    say(*_inferred(next(iter(worlds.values()))))
    for text, world in worlds.items():
        read = (f"  read by the model itself in {line}" for line in world.readings.texts())
        say(f"do({text})  {_values(world)}", *read)
    say(asked.out.resolve())


def _inferred(world: Counterfactual) -> Iterator[str]:
    """What the evidence lacks, in how many rows, and what was drawn in its place."""
    texts, sources = inferred_texts(world), world.sources
    for node in world.inferred:
        lacking = sources[node] != "observed"
        where = "" if lacking.all() else f" in {lacking.sum():,} of {world.rows:,} rows"
        shown = [
            f"{name} = {', '.join(cell for cell, gap in zip(cells, lacking, strict=False) if gap)}"
            for name, cells in texts.get(node, {}).items()
            if lacking[: len(cells)].any()
        ]
        how = " and ".join(_HOW[source] for source in dict.fromkeys(sources[node][lacking].tolist()))
        draw = "" if (world.samples or 1) > 1 or set(sources[node][lacking]) == {"exact"} else " (one draw)"
        yield f"Not in the evidence{where}, so {how}{draw}: {'  '.join(shown) or node}"


def counterfactual_files(
    worlds: Mapping[str, Counterfactual], *, pictures: bool
) -> Iterator[tuple[str, bytes]]:
    """Path and content of each file but ``result.json``; worlds by what was asked, as typed."""
    labels = {f"do({text})": world for text, world in worlds.items()}
    if pictures:
        yield "picture.png", figure_png(plot_worlds(labels, _PICTURE_ROWS))
    yield from evidence_files(next(iter(worlds.values())))
    for folder, world in zip(world_folders(list(worlds)), worlds.values(), strict=True):
        yield from ((f"{folder}/{name}", data) for name, data in table_files(world))
        yield from ((f"{folder}/{name}", data) for name, data in summary_files(world))
        if not pictures:
            yield f"{folder}/picture.png", figure_png(world.plot())


def world_folders(texts: Sequence[str]) -> list[str]:
    """A folder's name for each world: what was asked, in letters that no file system minds."""
    names: list[str] = []
    for text in texts:
        name = re.sub(r"[^A-Za-z0-9_=+.-]", "_", text.replace(",", "+")).lstrip(".")[:80]
        taken, number = {each.lower() for each in [*names, *_TAKEN]}, len(names)
        names.append(name)
        while names[-1].lower() in taken:
            names[-1], number = f"{name}_{number}", number + 1
    return names


def _values(world: Counterfactual) -> str:
    """The first values of each node that is no image, with their spread, for the terminal."""
    texts = node_texts(world, images=False)
    shown = "  ".join(f"{name} = {text}" for _, name, text in texts)
    unsure = undetermined_nodes(world)
    if (world.samples or 1) > 1 or not unsure:
        return shown
    return f"{shown}  (one draw of {', '.join(unsure)}: --samples N gives mean and spread)"
