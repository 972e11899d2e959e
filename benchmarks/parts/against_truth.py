"""A fitted model on held-out rows whose true counterfactual images are known: what its benchmarks share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from parts.record import Section, add_common

import causalgen as cg
from mechanisms.seeds import keyed_seed

__all__ = ["HeldOut", "add_options", "pixels", "run_sections", "training"]

Columns = Mapping[str, NDArray[Any]]
BATCH = 100


class HeldOut:
    """A fitted model, and rows that no fit has seen.

    Args:
        options: of the command, with what ``add_options`` adds.
        name: of the data set, which keys the draw of rows.
        columns: the test rows.
        evidence: which of them the model is told.
        image: the image that is compared.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        name: str,
        columns: Columns,
        evidence: Sequence[str],
        image: str = "image",
    ) -> None:
        self.options, self.columns, self.image = options, columns, image
        self._name, self._evidence = name, evidence

    @cached_property
    def scm(self) -> cg.SCM:
        """The model, as it was saved."""
        return cg.SCM.from_pretrained(self.options.model)

    def rows(self, seed: int, count: int) -> NDArray[np.int64]:
        """Which rows a seed takes."""
        random = np.random.default_rng(keyed_seed(seed, self._name, "rows"))
        return np.sort(random.permutation(len(self.columns[self.image]))[:count])

    def before(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The factual images, (N, C, H, W) in [0, 1]."""
        return self.columns[self.image][rows].astype(np.float32) / np.float32(255)

    def batches(
        self, rows: NDArray[np.int64], do: Columns, seed: int, scm: cg.SCM | None = None, **options: Any
    ) -> Iterator[cg.Counterfactual]:
        """The answers of the model, or of ``scm``, some rows at a time; ``do`` has a value for each row."""
        for start in range(0, len(rows), BATCH):
            part = slice(start, start + BATCH)
            evidence = {name: self.columns[name][rows[part]] for name in self._evidence}
            asked = {name: values[part] for name, values in do.items()}
            model = self.scm if scm is None else scm
            yield model.counterfactual(evidence, do=asked, seed=keyed_seed(seed, str(start)), **options)

    def answers(
        self, rows: NDArray[np.int64], do: Columns, seed: int, scm: cg.SCM | None = None, **options: Any
    ) -> NDArray[np.float32]:
        """Their counterfactual images, (N, C, H, W) in [0, 1]."""
        found = self.batches(rows, do, seed, scm, **options)
        return np.concatenate([each[self.image].clamp(0, 1).numpy() for each in found])

    def section(self, seed: int, rows: NDArray[np.int64]) -> tuple[Section, dict[str, Any]]:
        """The section "ours" of a seed, and what it is to say first."""
        about = {"rows": len(rows), "seed": seed, "model": Path(self.options.model).name}
        return Section(self.options.out, f"ours, seed {seed}"), {**about, "do": {}}


def pixels(made: NDArray[Any], before: NDArray[Any], true: NDArray[Any]) -> dict[str, Any]:
    """L1 on 0..255 to the true images, over all pixels and over those that the truth changes or leaves."""
    off, nothing = 255 * np.abs(made - true), 255 * np.abs(before - true)
    moved = nothing.max(1, keepdims=True) > 0.5
    inside = np.broadcast_to(moved, off.shape)
    random = np.random.default_rng(0)
    each = np.stack([off.mean((1, 2, 3)), nothing.mean((1, 2, 3))])
    drawn = each[:, random.integers(0, each.shape[1], (1000, each.shape[1]))].mean(2)
    return {
        "l1": each[0].mean(),
        "l1_doing_nothing": each[1].mean(),
        "share_of_doing_nothing": each[0].mean() / each[1].mean(),
        "share_interval": np.quantile(drawn[0] / drawn[1], [0.025, 0.975]).tolist(),
        "l1_inside": off[inside].mean(),
        "l1_inside_doing_nothing": nothing[inside].mean(),
        "l1_outside": off[~inside].mean(),
        "pixels_changed": moved.mean(),
    }


def training(run: HeldOut) -> None:
    """The section that says what the run folder of ``causalgen fit`` tells of the image."""
    if not run.options.run_dir:
        print("training: not told (give --run-dir)")
        return
    lines = (run.options.run_dir / "log.jsonl").read_text().splitlines()
    fitted = [event for event in map(json.loads, lines) if event["event"] == "fitted"]
    last = [event for event in fitted if event["node"] == run.image][-1]
    names = ("rows", "steps", "seconds", "parameters", "figures", "validation_loss")
    Section(run.options.out, "training").finish({name: last[name] for name in names})


Run = TypeVar("Run", bound=HeldOut)
Sections = Mapping[str, Callable[[Run], None]]


def add_options(
    parser: argparse.ArgumentParser, file: str, sections: Mapping[str, Any], *, rows: int
) -> None:
    """The options that these benchmarks share; ``rows`` is how many each seed takes by default."""
    add = parser.add_argument
    add("--model", required=True, metavar="DIR", help="a fitted model's folder")
    add_common(parser, file, sections)
    add("--rows", type=int, default=rows, help="of ours (%(default)s)")
    add("--null-rows", type=int, default=200, help="of null (%(default)s)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of ours (%(default)s)")
    add("--run-dir", type=Path, metavar="DIR", help="the run folder of the model's fit")


def run_sections(run: Run, sections: Sections[Run]) -> None:
    """Run the chosen sections, which save their results one by one."""
    torch.set_num_threads(run.options.threads)
    for name in run.options.only or list(sections):
        sections[name](run)
