"""``causalgen sample``: rows from a model."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from causalgen.commands.common import load_model, parse_assignments, save_figure, use_threads

__all__ = ["run_sample"]


def run_sample(model: str, out: Path, *, n: int, do: str | None, seed: int, threads: int | None) -> None:
    """Draw, write the folder and a picture of the first rows."""
    use_threads(threads)
    scm = load_model(model)
    asked = parse_assignments(do, scm.variables, "--do") if do else None
    draws = scm.sample(n, do=asked, seed=seed)
    draws.save(out)
    save_figure(draws.plot(rows=10), out / "picture.png")
    Console(soft_wrap=True, highlight=False).print(str(out.resolve()))
