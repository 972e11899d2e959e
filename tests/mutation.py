"""Mutation testing of the counterfactual engine: would a test notice if its code were another?

    python tests/mutation.py --sample 300 --out docs/data/mutants.json      (make mutants)

mutmut makes the mutants: one place of the code changed (an operator, a bound, an argument, a constant, a
text). A mutant is killed if one of the tests fails that ran its function. All mutants are made and a seeded
sample of them is tried, in a copy of the checkout, ``.mutants/``, where ``mutmut show NAME`` tells what was
changed. Those that survive are listed, with the changed line.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from configparser import ConfigParser
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
COPY = CHECKOUT / ".mutants"

MUTATED = (
    "engine.py",
    "provenance.py",
    "interventions.py",
    "abduction.py",
    "mutilated_model.py",
    "row_blocks.py",
    "missing_evidence/*.py",
)
"""Of ``causalgen/counterfactuals/``."""

TESTS = (
    "abducted_draws", "axioms", "bad_input", "discrete", "effects", "engine", "evidence", "interventions",
    "labels", "linear_gaussian", "mixed", "nested", "notebook", "observed_and_inferred", "own_readings",
    "partial_axioms", "posterior", "pyro_model", "results", "table_parts", "wrong_arguments",
)  # fmt: skip
"""Of ``tests/causalgen/``: those of the engine and of what it answers."""

LEFT_OUT = ("the_line_of_the_user", "asks_again_and_again")
"""Tests of the line that a warning names, which is another one in a mutated file."""

_NOTHING = "nothing of this name"
"""What mutmut is asked first: it has no command that makes mutants alone, and fails after that."""

VERDICTS = {0: "survived", 1: "killed", 3: "killed", 33: "no test", 5: "no test"}
"""By pytest's exit code; anything else is a time limit passed, or a process that died."""


def prepare() -> None:
    """A copy of what git knows, with mutmut's settings."""
    shutil.rmtree(COPY, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (CHECKOUT / name).is_file():
            (COPY / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, COPY / name)
    settings = ConfigParser()
    settings["mutmut"] = {
        "source_paths": _lines("causalgen", "graphs", "mechanisms"),
        "only_mutate": _lines(*(f"causalgen/counterfactuals/{each}" for each in MUTATED)),
        "pytest_add_cli_args_test_selection": _lines(*(f"tests/causalgen/test_{each}.py" for each in TESTS)),
        "pytest_add_cli_args": _lines("-k", " and ".join(f"not {each}" for each in LEFT_OUT)),
        "also_copy": _lines("README.md", "docs", "benchmarks"),
        "use_git_change_detection": "false",
        "track_dependencies": "false",
    }
    with (COPY / "setup.cfg").open("w") as file:
        settings.write(file)


def mutmut(*names: str) -> None:
    """Make the mutants and find which tests run which function, once, and try those of these names."""
    words = [sys.executable, "-m", "mutmut", "run", "--max-children", "1", *names]
    subprocess.run(words, cwd=COPY, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=names != (_NOTHING,))


def verdicts() -> dict[str, int | None]:
    """The exit code of every mutant, None of those that were not tried."""
    found: dict[str, int | None] = {}
    for file in sorted((COPY / "mutants").rglob("*.py.meta")):
        found |= json.loads(file.read_text())["exit_code_by_key"]
    return found


def changed(name: str) -> list[str]:
    """The lines that a mutant takes out and puts in."""
    words = [sys.executable, "-m", "mutmut", "show", name]
    shown = subprocess.run(words, cwd=COPY, capture_output=True, text=True, check=True).stdout
    return [line for line in shown.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]


def main() -> None:
    """Make the mutants, try a sample, and write what became of it."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--sample", type=int, default=300, help="mutants that are tried (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (%(default)s)")
    parser.add_argument("--out", type=Path, help="a JSON file of the counts and of those that survive")
    asked = parser.parse_args()
    prepare()
    mutmut(_NOTHING)
    everything = sorted(verdicts())
    if not (COPY / "mutants" / "mutmut-stats.json").exists():
        raise SystemExit("mutmut did not come to an end: see above.")
    sample = sorted(random.Random(asked.seed).sample(everything, min(asked.sample, len(everything))))
    mutmut(*sample)
    codes = verdicts()
    became = {name: VERDICTS.get(codes[name], "killed") for name in sample if codes[name] is not None}
    counts = Counter(became.values())
    survivors = {name: changed(name) for name, verdict in became.items() if verdict != "killed"}
    print(f"{len(everything):,} mutants, {len(became):,} tried: {dict(counts)}")
    for name, lines in survivors.items():
        print(f"\n{name}: {became[name]}", *lines, sep="\n")
    if asked.out is not None:
        told = {"mutants": len(everything), "seed": asked.seed, "tried": len(became), **counts}
        asked.out.write_text(json.dumps({**told, "survivors": survivors}, indent=1) + "\n")


def _lines(*each: str) -> str:
    return "\n" + "\n".join(each)


if __name__ == "__main__":
    main()
