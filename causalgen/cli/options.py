"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from graphs.errors import CheckpointError

__all__ = [
    "ASSIGNED",
    "Clip",
    "Device",
    "Dtype",
    "Evidence",
    "GivenRows",
    "Intervened",
    "Missing",
    "ModelName",
    "Out",
    "Png",
    "Preset",
    "Rename",
    "Resume",
    "RunDir",
    "SavedModel",
    "Seed",
    "Set",
    "SharedBy",
    "SharedWorkers",
    "Threads",
    "TrainingRows",
]

ModelName = Annotated[str, typer.Argument(help="A gallery name, a saved model's folder, or an SCM file.")]
SavedModel = Annotated[str, typer.Argument(help="A gallery name or a saved model's folder.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same answer.")]
ASSIGNED = "node=value[,node=value]: a number, a label, an image's file, or an expression such as 'x + 1'"
Clip = Annotated[bool, typer.Option("--clip", help="Move what --do sets out of bounds onto the bound.")]
Out = Annotated[Path, typer.Option(help="The folder to write.")]


def _of_a_png(name: str) -> Path:
    if Path(name).suffix.lower() != ".png":
        raise CheckpointError(f"Cannot write {name}: pictures are PNG. Give a name that ends in .png.")
    return Path(name)


Png = typer.Option(parser=_of_a_png, metavar="FILE", help="The PNG to draw the picture to.")
Threads = Annotated[int | None, typer.Option(min=1, help="How many CPU threads; all cores by default.")]
Device = Annotated[str | None, typer.Option(help="Where to compute: cpu, cuda, cuda:1; cpu by default.")]
Dtype = Annotated[
    Literal["float32", "bfloat16", "float16"] | None,
    typer.Option(
        help="Precision to denoise images in: float32 by default; 16 bits round, and may be faster."
    ),
]
Preset = Annotated[
    str | None, typer.Option(help="Named settings of the diffusion nodes: posterior, edit or diff-scm.")
]
GivenRows = Annotated[
    str | None,
    typer.Option(
        help="Rows: a CSV or Parquet table, or a data set such as mnist:DIR; the model's own sample rows by "
        "default."
    ),
]
Evidence = Annotated[
    str | None,
    typer.Option(
        help="A JSON file, a picture (of the only image node), TABLE[:ROW[-ROW]], or samples[:ROW[-ROW]], "
        "the rows that come with the model."
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="More evidence: node=value, or node=FILE of an image; may be repeated."),
]
TrainingRows = Annotated[str, typer.Option(help="A CSV or Parquet table, or a data set such as mnist:DIR.")]
RunDir = Annotated[
    Path | None, typer.Option(help="The run folder, for the log and for --resume; OUT.run by default.")
]
Missing = Annotated[
    Literal["refuse", "drop"], typer.Option(help="Refuse rows that lack a value, or drop them.")
]
Rename = Annotated[
    list[str] | None,
    typer.Option(help="COLUMN=node, for a column that is not named like its node; may be repeated."),
]
Intervened = Annotated[
    list[str] | None,
    typer.Option(
        help="COLUMN=node, for a column of --data (0 or 1) that says in which rows an experiment set it; "
        "may be repeated."
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run, from its run folder.")]
SharedBy = Annotated[
    Literal["processes", "ray"],
    typer.Option(
        "--engine", help="What the workers are: processes of this machine, or actors of Ray (extra ray)."
    ),
]
SharedWorkers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="How many workers share the work; 1 by default, or one for each CPU with --engine ray.",
    ),
]
