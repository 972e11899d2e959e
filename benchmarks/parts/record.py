"""Results on disk: one JSON file, written section by section, each with how it was obtained.

A section is replaced as a whole and atomically, so that a run that is stopped loses nothing that was
finished.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from causalgen.saving.atomic import write_atomic

__all__ = ["Section", "run_record", "save_section"]

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
    """A section while it is measured: what it keeps is saved at once, and marked complete in the end."""

    def __init__(self, file: Path, name: str) -> None:
        self.file, self.name, self.run = file, name, run_record()
        self.result: dict[str, Any] = {}

    def keep(self, result: dict[str, Any]) -> None:
        """Save what was found so far."""
        self.result = result
        save_section(self.file, self.name, self.run, result, complete=False)

    def finish(self, result: dict[str, Any] | None = None) -> None:
        """Nothing more will come than ``result``, or what was kept."""
        self.result = result or self.result
        if self.result:
            save_section(self.file, self.name, self.run, self.result, complete=True)


def save_section(
    file: Path, name: str, run: dict[str, Any], result: dict[str, Any], *, complete: bool
) -> None:
    """Put a section's result into the file, keeping the other sections.

    Args:
        file: JSON, made where it is missing.
        name: of the section.
        run: of ``run_record``, taken when the section began.
        result: what it found so far.
        complete: whether that is all.
    """
    sections = json.loads(file.read_text()) if file.exists() else {}
    ended = {"load_average_at_end": [round(load, 2) for load in os.getloadavg()]}
    sections[name] = {"complete": complete, "run": run | ended, "result": _plain(result)}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, (json.dumps(sections, indent=1, allow_nan=False) + "\n").encode())


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
