"""``causalgen counterfactual``: evidence from files, one world for each ``--do``, a picture and a JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from causalgen.commands.common import (
    image_variables,
    load_model,
    parse_assignments,
    save_figure,
    use_preset,
    use_threads,
)
from causalgen.data import read_data
from causalgen.pictures import picture_column
from causalgen.plots import plot_image_rows
from causalgen.results import Counterfactual
from causalgen.scm import SCM
from graphs.errors import DataError, EvidenceError, InterventionError

__all__ = ["run_counterfactual"]


def run_counterfactual(
    model: str,
    evidence: str | None,
    given: Sequence[str],
    does: Sequence[str],
    out: Path,
    *,
    samples: int | None,
    seed: int,
    preset: str | None,
    threads: int | None,
) -> None:
    """Ask, write ``OUT/<world>/``, ``OUT/picture.png`` and ``OUT/worlds.json``, and say where."""
    use_threads(threads)
    scm = use_preset(load_model(model), preset)
    if not does:
        raise InterventionError("Nothing to ask: give at least one --do node=value.")
    worlds = {text: parse_assignments(text, scm.variables, "--do") for text in does}
    known = _read_evidence(evidence, scm)
    for text in given:
        known |= parse_assignments(text, scm.variables, "--set")
    abduction = scm.abduct(known, num_samples=samples, seed=seed)
    answers = abduction.worlds(worlds)
    for text, answer in answers.items():
        answer.save(out / text.replace(",", "+"))
    told = {text: _summary(answer) for text, answer in answers.items()}
    (out / "worlds.json").write_text(
        json.dumps({"model": model, "seed": seed, "worlds": told}, indent=1) + "\n"
    )
    console = Console(soft_wrap=True, highlight=False)
    if image_variables(scm):
        save_figure(_picture(scm, answers), out / "picture.png")
    for text, summary in told.items():
        console.print(f"do({text}): {json.dumps(summary['values'])}")
    console.print(str(out.resolve()))


def _read_evidence(source: str | None, scm: SCM) -> dict[str, Any]:
    """Evidence by node from a JSON, a picture, or a table (one row of it)."""
    if source is None:
        return {}
    path, _, row = source.rpartition(":") if source.rpartition(":")[2].isdigit() else (source, "", "")
    file = Path(path)
    if not file.is_file():
        raise DataError(f"There is no evidence file {path}.")
    match file.suffix.lower():
        case ".json":
            return _read_json(file, scm)
        case ".png" | ".jpg" | ".jpeg" | ".bmp":
            return _read_picture(file, scm)
        case _:
            table = read_data(file, scm.variables)
            if row and int(row) >= table.rows:
                raise DataError(f"{path} has rows 0..{table.rows - 1}, got row {row}.")
            rows = slice(int(row), int(row) + 1) if row else slice(None)
            return {node: _as_given(table[node][rows], scm, node) for node in scm.variables}


def _read_picture(file: Path, scm: SCM) -> dict[str, Any]:
    images = image_variables(scm)
    if len(images) != 1:
        raise EvidenceError(f"{file} is a picture, but the model has {len(images)} image nodes. Use a JSON.")
    ((node, variable),) = images.items()
    where = f"Evidence {node!r}"
    return {node: picture_column([file.name], variable, column=where, folder=file.parent)}


def _read_json(file: Path, scm: SCM) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text())
    except ValueError as error:
        raise DataError(f"{file} is no JSON: {error}.") from error
    if not isinstance(values, dict):
        raise DataError(f"{file} must hold an object of nodes and values, got {type(values).__name__}.")
    for node, variable in image_variables(scm).items():
        if isinstance(values.get(node), str):
            where = f"Evidence {node!r} of {file.name}"
            values[node] = picture_column([values[node]], variable, column=where, folder=file.parent)
    return values


def _as_given(values: Any, scm: SCM, node: str) -> Any:
    """Rows of a checked table in the form that evidence takes."""
    return values if values.dtype == np.uint8 else np.asarray(scm.variables[node].decode(values))


def _summary(answer: Counterfactual) -> dict[str, Any]:
    frame = answer.to_frame()
    provenance = {node: sorted(set(values)) for node, values in answer.provenance.items()}
    return {"values": frame.to_dict(orient="list"), "provenance": provenance}


def _picture(scm: SCM, answers: dict[str, Counterfactual]) -> Any:
    node = list(image_variables(scm))[-1]
    first = next(iter(answers.values()))
    shown = min(10, first.rows)
    rows = {"factual": np.asarray(first.factual[node])[:shown]}
    for text, answer in answers.items():
        values = np.asarray(answer[node])
        rows[f"do({text.replace('=', ' = ')})"] = (values[0] if answer.samples is not None else values)[
            :shown
        ]
    return plot_image_rows(rows)
