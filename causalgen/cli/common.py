"""What the commands share: models by name and preset, files written whole, what is printed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from rich.console import Console

from causalgen.cli.assignments import parse_intervened, parse_renames
from causalgen.data.frames import table_header
from causalgen.data.reading import SAMPLES, Rows, sample_rows
from causalgen.data.sources import is_named
from causalgen.saving.atomic import write_atomic
from causalgen.saving.pretrained import model_folder
from causalgen.scm import SCM
from graphs.errors import CheckpointError, DataError, SpecError, UnknownNameError
from graphs.text import printable

__all__ = [
    "PRESETS",
    "card_source",
    "column_names",
    "console",
    "json_object",
    "load_model",
    "own_table",
    "preset_options",
    "recipe",
    "rows_of",
    "say",
    "tell_unused",
    "use_threads",
    "write_file",
]

PRESETS = MappingProxyType(
    {
        "diff-scm": {
            "abduction": "point",
            "centred": False,
            "code": {"hidden": True},
            "shrinkage": 0.0,
            "solver": {
                "kind": "ddim",
                "steps": 75,
                "grid": {
                    "kind": "ddpm",
                    "levels": 1000,
                    "respaced": 100,
                    "beta_first": 1e-4,
                    "beta_last": 0.02,
                },
                "thresholding": False,
            },
            "guidance": {
                "kind": "anticausal",
                "form": "raw",
                "scale": 1.0,
                "denoiser": "unconditional",
                "terms": "all",
                "interval": None,
                "corrections": 0,
            },
        },
        "edit": {
            "abduction": "point",
            "solver": {
                "kind": "anchored",
                "steps": 12,
                "grid": {"kind": "log", "sigma_min": 0.1},
                "thresholding": True,
            },
            "guidance": {
                "kind": "classifier_free",
                "weight": 6.0,
                "against": "hidden",
                "interval": (1.5, 20.0),
            },
        },
        "posterior": {
            "abduction": "posterior",
            "shrinkage": 0.0,
            "solver": {
                "kind": "anchored",
                "steps": 12,
                "grid": {"kind": "karras", "sigma_min": 0.1, "sigma_max": 80.0},
                "thresholding": False,
            },
            "guidance": {
                "kind": "classifier_free",
                "weight": 1.0,
                "against": "factual",
                "interval": None,
                "corrections": 0,
            },
        },
    }
)
"""Named options, for ``scm.with_options(node, **PRESETS[name])``.

``posterior`` is Pearl's abduction: the noise behind an image is drawn, not inverted to a point, and
decoded along the denoiser as it was learned, without guidance (weight 1); levels go up to 80, where nothing
of the old parents is left in the noise. ``edit`` inverts the image to a point and follows strong guidance
against hidden parents: one answer, the surest of what was asked for, and too much alike to average over.

``diff-scm`` is Diff-SCM's inference (Sanchez & Tsaftaris 2022, Algorithm 3): an unconditional denoiser, DDIM
on the first 75 of 100 levels respaced from 1000 with linear betas, and the raw gradient of an anticausal
predictor at s = 1 on every row. Derived work prints sqrt(a) where DDIM has sqrt(1 - a), and the released code
encodes to one level and decodes from another, clipping in between: here the formula is DDIM's, encoding and
decoding walk the same levels, and nothing is clipped. What the method has not is off, whatever the model has:
a style code, corrections, shrinkage, an interval of levels.
"""


def preset_options(name: str) -> dict[str, Any]:
    """Options of a preset, for a diffusion node."""
    UnknownNameError.check("preset", name, PRESETS)
    return dict(PRESETS[name])


def console(*, stderr: bool = False) -> Console:
    """Where commands print: long lines stay whole; brackets and :colons: in names are only these."""
    return Console(stderr=stderr, soft_wrap=True, highlight=False, markup=False, emoji=False)


def say(*lines: object, stderr: bool = False) -> None:
    """Print lines as they are."""
    for line in lines:
        console(stderr=stderr).print(str(line))


def load_model(
    name: str,
    device: str | None = None,
    preset: str | None = None,
    *,
    dtype: str | None = None,
    threads: int | None = None,
) -> SCM:
    """A model from an SCM file (not fitted), a folder, or the gallery, moved, with torch's threads.

    With a preset, every diffusion node has the settings of a published method.
    """
    use_threads(threads)
    options = None if preset is None else preset_options(preset)
    scm = SCM.from_yaml(name) if _is_file(name) else SCM.from_pretrained(name)
    if device is not None or dtype is not None:
        scm.to(device, dtype)
    if options is None:
        return scm
    # Presets change options: what matters is who has them.
    nodes = [node for node, each in scm.mechanisms.items() if "solver" in type(each.spec).model_fields]
    if not nodes:
        raise SpecError(f"Preset {preset!r} is for diffusion nodes, and this model has none.")
    for node in nodes:
        # What a model without a code would hide is not there.
        coded = getattr(scm.mechanisms[node].spec, "code", None) is not None
        own = {name: value for name, value in options.items() if coded or name != "code"}
        scm = scm.with_options(node, **own)
    return scm


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def column_names(renames: Sequence[str] | None, scm: SCM, *sources: str | Path | None) -> dict[str, str]:
    """What ``--rename`` says of the tables and other data that a command reads: columns by node."""
    given = [source for source in sources if source is not None]
    if renames and not given:
        raise DataError(
            "--rename names a column of a table, and none is given. Give --data, or leave it out."
        )
    files = [Path(source) for source in given if not is_named(source)] if renames else []
    headers = [
        list(json_object(file)) if file.suffix.lower() == ".json" else table_header(file) for file in files
    ]
    return parse_renames(renames or (), scm.variables, headers)


def rows_of(
    model: str,
    scm: SCM,
    data: str | None,
    renames: Sequence[str] | None = None,
    intervened: Sequence[str] | None = None,
) -> object:
    """The rows that ``--data`` names, as ``--rename`` and ``--intervened`` say, or the model's own."""
    columns, marks = column_names(renames, scm, data), parse_intervened(intervened, scm.variables)
    if data is not None:
        return Rows(data, columns, marks) if columns or marks else data
    if marks:
        raise DataError("--intervened names a column of --data: give it, or leave it out.")
    if own_table(model) is None:
        raise DataError(
            f"The model {model} has no rows of its own: give --data, a CSV or Parquet table, or a data set "
            "such as mnist:DIR."
        )
    return sample_rows(model)


def own_table(model: str) -> Path | None:
    """The table of sample rows beside a model; None where it has none."""
    file = None if _is_file(model) else model_folder(model) / SAMPLES
    return file if file is not None and file.is_file() else None


def json_object(file: Path) -> dict[str, Any]:
    """What a JSON file holds: nodes and values."""
    try:
        values = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} is no JSON: {error}.") from error
    if not isinstance(values, dict):
        raise DataError(f"{file} must hold an object of nodes and values, got {type(values).__name__}.")
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; a name that is there twice is refused, not overwritten."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return values


def card_source(source: str) -> str:
    """A data source as a card tells it: absolute paths without the folders of the machine it was made on."""
    return ":".join(Path(part).name if Path(part).is_absolute() else part for part in source.split(":"))


def recipe(command: str, of: str, options: Mapping[str, object], renames: Sequence[str] | None) -> str:
    """A command as a card tells it, to be typed again; options that are None are left out."""
    repeated = {**options, "rename": renames}
    given = [
        (f"--{name}", str(value))
        for name, values in repeated.items()
        for value in (values if isinstance(values, list | tuple) else [values])
        if value is not None
    ]
    return shlex.join(["causalgen", command, of, *(part for pair in given for part in pair)])


def use_threads(threads: int | None) -> None:
    """Let torch use so many CPU threads."""
    if threads is not None:
        torch.set_num_threads(threads)


def tell_unused(file: Path, columns: Sequence[str]) -> None:
    """Say, on standard error, which columns of a table mean no node."""
    if columns:
        say(f"Columns of {file.name} that mean no node: {printable(', '.join(columns))}.", stderr=True)


def write_file(path: Path, content: bytes) -> None:
    """Write a file, all or nothing, in a folder that is made where it is missing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    except OSError as error:
        raise CheckpointError(f"Cannot write {path}: {error.strerror or error}.") from error
