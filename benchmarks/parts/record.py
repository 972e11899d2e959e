"""What every benchmark records and prints: results as JSON with how they were obtained, tables, targets.

One JSON file, written section by section. A section is replaced as a whole and atomically, so that a run that
is stopped loses nothing that was finished.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from causalgen.saving.atomic import write_atomic
from graphs.errors import CausalgenError

__all__ = ["RESULTS", "Result", "Section", "add_common", "command", "run_record", "show", "target"]

RESULTS = Path(__file__).parents[1] / "results"
Result = dict[str, Any]

_FORMATS = {"images/s": ".2f", "images/cpu s": ".2f", "L1": ".2f", "evaluations": ".1f", "gradients": ".1f"}
_LIBRARIES = ("causalgen", "torch", "diffusers", "numpy")


def run_record() -> dict[str, Any]:
    """The command, commit, machine, load and versions of this run, now."""
    return {
        "command": " ".join([Path(sys.executable).name, *map(_shown, sys.argv)]),
        "commit": _commit(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpu": _cpu_model(), "cores": os.cpu_count(), "system": platform.platform()},
        "threads": torch.get_num_threads(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _LIBRARIES},
    }


class Section:
    """A section while it is measured: what it keeps is saved at once, and marked complete in the end.

    Args:
        file: JSON, made where it is missing; its other sections stay.
        name: of the section.
        about: what else to say of the run.
    """

    def __init__(self, file: Path, name: str, **about: Any) -> None:
        self.file, self.name, self.run = file, name, run_record() | about
        self.result: Result = {}
        self._began = time.perf_counter()

    def keep(self, result: Result, *, complete: bool = False) -> None:
        """Save what was found so far."""
        self.result = result
        sections = json.loads(self.file.read_text()) if self.file.exists() else {}
        ended = {"load_average_at_end": [round(load, 2) for load in os.getloadavg()]}
        sections[self.name] = {"complete": complete, "run": self.run | ended, "result": _plain(result)}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.file, (json.dumps(sections, indent=1, allow_nan=False) + "\n").encode())

    def finish(self, result: Result | None = None) -> None:
        """Save ``result``, or what was kept, as all there is, with the minutes it took."""
        found = result or self.result
        if found:
            self.run["minutes"] = round((time.perf_counter() - self._began) / 60, 3)
            self.keep(found, complete=True)
            print(f"{self.name}: {self.run['minutes']:.1f} minutes, saved in {self.file.name}\n", flush=True)


def show(
    console: Console, title: str, rows: Sequence[Mapping[str, Any]], *, hide: Sequence[str] = ()
) -> None:
    """Print rows of figures as a table; columns in order of first appearance, nothing nested.

    Args:
        console: to print on.
        title: of the table.
        rows: figures by column.
        hide: words; a column whose name has one is left out.
    """
    names = dict.fromkeys(
        name for row in rows for name, value in row.items() if not isinstance(value, Mapping)
    )
    columns = [name for name in names if not any(word in name for word in hide)]
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(_text(name, row.get(name, "")) for name in columns))
    console.print(table)


def target(what: str, value: float, *, least: float | None = None, most: float | None = None) -> Result:
    """A figure beside the one bound that it is meant to keep."""
    met = (least is None or value >= least) and (most is None or value <= most)
    bound = f">= {least:g}" if least is not None else f"<= {most:g}"
    return {"what": what, "value": value, "bound": bound, "met": met}


def add_common(
    parser: argparse.ArgumentParser,
    file: str,
    sections: Collection[str],
    *,
    threads: bool = True,
    width: int | None = None,
) -> None:
    """The options that benchmarks share: ``--only A,B``, ``--out FILE``, ``--threads N``, ``--width N``.

    Args:
        parser: to add them to.
        file: name of the result file.
        sections: that ``--only`` may name; another one is refused.
        threads: whether to add ``--threads``.
        width: of the printed tables, where there are any.
    """

    def chosen(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        for name in names:
            if name not in sections:
                raise argparse.ArgumentTypeError(f"unknown section {name!r}; known: {', '.join(sections)}")
        return names

    add = parser.add_argument
    add("--only", type=chosen, metavar="A,B", help=f"sections of: {', '.join(sections)}")
    add("--out", type=Path, metavar="FILE", default=RESULTS / file, help=f"(results/{file})")
    if threads:
        add("--threads", type=int, default=1, help="of torch (%(default)s)")
    if width is not None:
        add("--width", type=int, default=width, help="of the printed tables (%(default)s)")


def command(main: Callable[[], None]) -> None:
    """Run it; an error of ours is told in a line, without a traceback."""
    try:
        main()
    except CausalgenError as error:
        raise SystemExit(f"error: {error}") from error


def _text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return format(value, _FORMATS.get(name, ".3f" if 0.01 <= abs(value) < 1000 or value == 0 else ".2e"))
    if isinstance(value, list):
        return " - ".join(_text(name, each) for each in value)
    return str(value)


def _shown(argument: str) -> str:
    """An argument without the folders of this machine."""
    path = Path(argument)
    return f".../{path.name}" if path.is_absolute() else argument


def _plain(value: Any) -> Any:
    """Numbers rounded to 7 digits, and null where there is none."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    number = float(value)
    return float(f"{number:.7g}") if math.isfinite(number) else None


def _commit() -> str:
    folder = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()
        # Results that this very run writes are no change of the code.
        changes = subprocess.run(
            ["git", "status", "--porcelain", "--", ":/", ":(exclude,top)benchmarks/results"],
            cwd=folder, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head} with uncommitted changes" if changes else head


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {name.strip(): value.strip() for name, value in fields.items()}
    model = named.get("model name", platform.processor())
    return f"{model} (family {named.get('cpu family')}, model {named.get('model')})"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "checkout"
