"""``causalgen counterfactual --table``: every row of a large Parquet table, in parts, by one process or many.

OUT/question.json              what is asked, of which table; written first
OUT/<world>/part-00000.parquet the answered rows of a part: "row" (its number in the table), "sample" where
                               there are several, each node, images as files, and each node's provenance
OUT/parts/00000.json           written when a part is on the disk whole: a digest of the question, its files
                               with their sizes, rows, rows refused, warnings
OUT/refused.csv                rows that are not answered, since a picture cannot be read
OUT/result.json                written last

A part is the same bits whoever computes it (``counterfactuals.table_parts``): ``--resume`` answers the parts
that are not there yet, and a part that is computed twice is written twice the same. A part of another
question is refused, and one whose files are not whole is answered again.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from causalgen.cli.common import column_names, console, say, tell_unused, write_file
from causalgen.cli.counterfactual import Typed, world_folders
from causalgen.cli.ray_engine import answer_on_ray, require_ray
from causalgen.counterfactuals.export import free_name, image_file, to_frame
from causalgen.counterfactuals.results import Counterfactual
from causalgen.counterfactuals.table_parts import TablePart, TableQuestion
from causalgen.data.parquet_rows import ParquetRows, parquet_files
from causalgen.fitting.progress import Progress
from causalgen.saving.atomic import sweep
from causalgen.saving.manifest import library_versions, read_json
from causalgen.saving.pretrained import model_folder
from graphs.errors import CausalgenError, CheckpointError, warn
from graphs.text import counted, printable
from graphs.variables import Image
from graphs.variables.arrays import as_array

if TYPE_CHECKING:
    import pyarrow

__all__ = ["Answerer", "Job", "check_engine", "run_table"]

REFUSED = 3
"""Exit code where some rows could not be answered."""

_SHOWN = 5
"""Refused rows that are printed."""


@dataclass(frozen=True)
class Job(Typed):
    """Enough for a process on another machine to answer any part."""

    threads: int  # how many may decide the last bit
    table: Path
    part_rows: int | None

    def question(self) -> TableQuestion:
        """The model, loaded, and the table, opened."""
        scm, does, given = self.read()
        columns = column_names(self.rename, scm, parquet_files(self.table)[0])
        rows = ParquetRows(self.table, scm.variables, given=given, columns=columns)
        return TableQuestion(
            scm, rows, does, self.seed, given, self.samples, clip=self.clip, part_rows=self.part_rows
        )

    def describe(self, question: TableQuestion) -> dict[str, Any]:
        """What decides the answer."""
        said = {name: value for name, value in asdict(self).items() if name not in ("table", "out")}
        for later in ("rename", "dtype"):  # as jobs before there was this option
            if not said[later]:
                del said[later]
        typed = [value for each in (*question.does.values(), question.given) for value in each.values()]
        files = [each for each in typed if isinstance(each, Path)]
        if files:  # the texts name them alone
            said["pictures"] = {str(each): sha256(each.read_bytes()).hexdigest() for each in files}
        return said | {
            "weights": _digest(self.model),
            "table": question.table.describe(),
            "part_rows": question.size,
            "libraries": library_versions(("causalgen", "torch")),
        }


class Answerer:
    """Answers parts of a job and writes them; one a process."""

    def __init__(self, job: Job, question: TableQuestion | None = None) -> None:
        self._job, self._question = job, question or job.question()
        said = job.describe(self._question)
        if question is None:  # perhaps another machine, with another model of that name, table or torch
            _check_question(job.out, said)
        self._asked = _fingerprint(said)
        self._folders = world_folders(list(job.does))

    def __call__(self, number: int) -> dict[str, Any]:
        """Answer one part; what its file in ``parts/`` says."""
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            part = self._question.answer(number)
        files: dict[str, int] = {}
        for folder, world in zip(self._folders, part.worlds.values(), strict=bool(part.worlds)):
            name, data = f"{folder}/part-{number:05d}.parquet", _parquet(part, world)
            write_file(self._job.out / name, data)
            files[name] = len(data)
        said = {
            "question": self._asked,
            "part": number,
            "files": files,
            "rows": len(part.rows),
            "refused": [asdict(row) for row in part.refused],
            "warnings": list(dict.fromkeys(str(each.message) for each in told)),
        }
        write_file(_done_file(self._job.out, number), json.dumps(said).encode())
        return said


def check_engine(
    engine: str,
    table: Path | None,
    evidence: str | None,
    *,
    workers: int | None,
    part_rows: int | None,
    resume: bool,
) -> None:
    """Refuse options that do not go together."""
    used = {
        "--engine ray": engine == "ray",
        "--workers": workers,
        "--part-rows": part_rows,
        "--resume": resume,
    }
    for option, value in used.items():
        if value and table is None:
            raise CausalgenError(f"{option} is for a --table, a Parquet table of any length. Give one.")
    if workers and engine != "ray":
        raise CausalgenError("--workers is for --engine ray: the serial engine has one.")
    if table is not None and evidence is not None:
        raise CausalgenError("Give --evidence or --table, not both.")


def run_table(job: Job, engine: str, workers: int | None, *, resume: bool) -> None:
    """Answer every part that is not there, write what came of it, and exit with 3 where rows were refused."""
    where = Path(job.model)
    model = str(where.absolute()) if where.exists() else job.model
    does = list(dict.fromkeys(job.does))  # a world that is asked twice is one
    job = replace(job, model=model, table=job.table.absolute(), does=does, out=job.out.absolute())
    require_ray(engine)
    _check_place(job.out, resume)
    question = job.question()
    question.check()
    said = job.describe(question)
    if (job.out / "question.json").is_file():
        _check_question(job.out, said)
    tell_unused(Path(question.table.name), question.table.unused)
    if absent := question.table.absent:
        say(f"No column of: {printable(', '.join(absent))}. Inferred in every row.")
    write_file(job.out / "question.json", json.dumps(said, indent=1).encode())
    asked = _fingerprint(said)
    missing = [number for number in range(question.parts) if not _is_done(job.out, number, asked)]
    done = question.parts - len(missing)
    if resume:
        say(f"{done} of {question.parts} parts are there already.")
    answers: Iterator[object] = map(Answerer(job, question), missing)
    if engine == "ray" and missing:
        gpu, make = (job.device or "").startswith("cuda"), partial(Answerer, job)
        answers = answer_on_ray(make, missing, workers=workers, threads=job.threads, gpu=gpu)
    with Progress(
        "counterfactuals", question.parts, done=done, unit="part", console=console(stderr=True)
    ) as shown:
        for _ in answers:
            shown.advance(1)
    _finish(job, question.parts)


def _check_place(out: Path, resume: bool) -> None:
    """Refuse a folder that holds something, unless it is a job's to be resumed."""
    if out.exists() and not out.is_dir():
        raise CheckpointError(f"{out} is a file; --out of a --table is a folder.")
    sweep(out / "question.json")  # a job that was killed while it wrote this left nothing to resume
    held = sorted(each.name for each in out.iterdir()) if out.is_dir() else []
    if held and not resume:
        raise CheckpointError(
            f"The folder {out} is not empty: it holds {', '.join(held[:3])}. Give --out a new one, or "
            "--resume to go on with the job that wrote it."
        )
    if resume and held and "question.json" not in held:
        raise CheckpointError(f"The folder {out} holds no job to resume: there is no question.json in it.")


def _fingerprint(said: dict[str, Any]) -> str:
    """A digest of a question: of all but where its model lies, whose weights have a checksum."""
    asked = {name: value for name, value in said.items() if name != "model"}
    return sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _is_done(out: Path, number: int, asked: str) -> bool:
    """Whether a part is there, all its files whole."""
    file = _done_file(out, number)
    if not file.is_file():
        return False
    said = read_json(file)
    if not isinstance(said, dict) or said.get("question") != asked:
        raise CheckpointError(
            f"{file} is of another question than {out / 'question.json'}: another model, table, seed or "
            "option. Remove it to have its rows answered again, or give --out a new folder."
        )
    sizes = {out / name: size for name, size in said["files"].items()}
    return all(path.is_file() and path.stat().st_size == size for path, size in sizes.items())


def _check_question(out: Path, said: dict[str, Any]) -> None:
    """Refuse to go on with the answer to another question."""
    file = out / "question.json"
    if not file.is_file():
        raise CheckpointError(f"There is no {file}. --out must be a folder that every machine sees.")
    found, asked = read_json(file), json.loads(json.dumps(said))
    before = found if isinstance(found, dict) else {}
    for name in {**asked, **before}:
        was, now = before.get(name), asked.get(name)
        if was != now and name != "model":  # as in the fingerprint
            raise CheckpointError(
                f"{file} is of another question: {name} was {was!r} and is {now!r}. Ask the same one, or "
                "give --out a new folder."
            )


def _finish(job: Job, parts: int) -> None:
    """Put together what the parts say; the result is whole when ``result.json`` is there."""
    found = [read_json(_done_file(job.out, number)) for number in range(parts)]
    refused = [row for part in found for row in part["refused"]]
    answered = sum(part["rows"] for part in found)
    if refused:
        write_file(job.out / "refused.csv", pd.DataFrame(refused).to_csv(index=False).encode())
    for text, count in _alike(found):
        more = f" (and alike in {counted(count - 1, 'more part')})" if count > 1 else ""
        warn(f"{text}{more}")
    worlds = dict(zip(job.does, world_folders(list(job.does)), strict=True))
    result = {"worlds": worlds, "parts": parts, "rows": answered, "refused": len(refused)}
    write_file(job.out / "result.json", json.dumps(result, indent=1).encode())
    told = f"{counted(answered, 'row')} in {counted(parts, 'part')}, each in {counted(len(worlds), 'world')}."
    say(told, job.out.resolve())
    if refused:
        shown = [f"not answered: {printable(row['reason'])}" for row in refused[:_SHOWN]]
        shown.append(f"{counted(len(refused), 'row')} not answered, as {job.out / 'refused.csv'} tells.")
        say(*shown, stderr=True)
        sys.exit(REFUSED)


def _alike(found: Sequence[dict[str, Any]]) -> Iterator[tuple[str, int]]:
    """Warnings that differ in numbers alone, each once, and in how many parts."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for part in found:
        kinds = {
            re.sub(r"[-+]?\d[\d.,]*(e[-+]?\d+)?", "#", text): f"Part {part['part']}: {text}"
            for text in part["warnings"]
        }
        counts.update(kinds.keys())
        first = kinds | first
    yield from ((first[kind], count) for kind, count in counts.items())


def _done_file(out: Path, number: int) -> Path:
    return out / "parts" / f"{number:05d}.json"


def _digest(model: str) -> str:
    """Which model it is: of its file, or of the manifest, which has the checksum of every weight."""
    file = Path(model) if model.endswith((".yaml", ".yml")) else model_folder(model) / "manifest.json"
    return sha256(file.read_bytes()).hexdigest()


def _parquet(part: TablePart, world: Counterfactual) -> bytes:
    """A part of a world as a Parquet file: one line a row, and sample."""
    import pyarrow
    import pyarrow.parquet

    frame, samples = to_frame(world).reset_index(drop=True), world.samples or 1
    taken = [*world.variables, *frame.columns]
    columns: dict[str, Any] = {free_name("row", taken): np.tile(part.rows, samples)}
    if world.samples is not None:
        columns[free_name("sample", taken)] = np.repeat(np.arange(samples), world.rows)
    for name in frame.columns:
        column = frame[name]
        if len(set(map(type, getattr(world.variables.get(name), "labels", None) or ()))) > 1:
            column = column.map(str)  # a column has one type, in all parts; no two labels are written alike
        columns[name] = pyarrow.Array.from_pandas(column)
    for node, variable in world.variables.items():
        if isinstance(variable, Image):
            images = as_array(world[node], where="Values").reshape(-1, *variable.event_shape)
            files = [image_file(image, variable) for image in images]
            columns[node] = pyarrow.array(files, pyarrow.binary())
    for node in world.variables:
        how = pyarrow.array(np.tile(world.provenance[node], samples), pyarrow.string())
        columns[free_name(f"provenance[{node}]", [*columns, *taken])] = how.dictionary_encode()
    buffer = BytesIO()
    table: pyarrow.Table = pyarrow.table(columns)
    pyarrow.parquet.write_table(table, buffer, write_page_checksum=True)
    return buffer.getvalue()
