"""``causalgen fit``: an SCM file and data -> a saved model with its card."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from causalgen.commands.common import use_threads
from causalgen.fit_report import FitReport
from causalgen.scm import SCM

__all__ = ["run_fit"]


def run_fit(
    file: Path,
    data: str,
    out: Path,
    *,
    nodes: Sequence[str] | None,
    seed: int,
    run_dir: Path | None,
    resume: bool,
    threads: int | None,
) -> None:
    """Fit, save, and say how well it went."""
    use_threads(threads)
    scm = SCM.from_yaml(file)
    run = run_dir if run_dir is not None else out.with_name(out.name + ".run")
    scm.fit(data, nodes=nodes, seed=seed, run_dir=run, resume=resume)
    assert scm.fit_report is not None
    console = Console(soft_wrap=True, highlight=False)
    console.print(str(scm.fit_report))
    command = ["causalgen", "fit", file.name, "--data", data, "--out", out.name, "--seed", str(seed)]
    scm.save_pretrained(out, card=_card(scm, scm.fit_report, data, shlex.join(command)))
    console.print(str(out.resolve()))


def _card(scm: SCM, report: FitReport, data: str, command: str) -> str:
    """The model's README: what it is, how it was made, how well it does."""
    lines = [f"# {scm.name or 'An SCM'}", "", "```", scm.describe(), "```", ""]
    lines += [
        "## Data",
        "",
        f"`{data}`. Say here what the data are, where they come from, and their licence.",
        "",
    ]
    lines += [
        "## Recipe",
        "",
        f"    {command}",
        "",
        f"torch {torch.__version__} on {platform.machine()}.",
        "",
    ]
    lines += ["## Figures", "", "Held-out rows, unless said otherwise.", ""]
    lines += [f"- {line}" for line in str(report).splitlines()]
    return "\n".join([*lines, ""])
