"""Mutation testing of the counterfactual engine: would a test notice if its code were another?

    python tests/mutation.py --sample 300 --out docs/data/mutants.json      (make mutants)

mutmut makes the mutants: one place of the code changed (an operator, a bound, an argument, a constant, a
text), and says which tests run which function. A mutant is killed if one of the tests fails that run its
function (``mutant_trials.py``). All mutants are made and a seeded sample of them is tried, in a copy of the
checkout, ``.mutants/``, where ``mutmut show NAME`` tells what was changed. Those that survive are listed with
the changed line, and with what was judged of them, which is written by hand. When they have got tests, they
are tried again:

    python tests/mutation.py --again --out docs/data/mutants.json
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from configparser import ConfigParser
from functools import cache
from pathlib import Path

from tests import mutant_trials as trials

CHECKOUT = Path(__file__).parents[1]
COPY = CHECKOUT / ".mutants"
STATISTICS = COPY / "mutants" / "mutmut-stats.json"

MUTATED = (
    "engine.py",
    "provenance.py",
    "interventions.py",
    "abduction.py",
    "mutilated_model.py",
    "rows.py",
    "missing_evidence/*.py",
)
"""Of ``causalgen/counterfactuals/``."""

TESTS = (
    "abducted_draws", "axioms", "bad_input", "discrete", "effects", "engine", "evidence",
    "independent_draws", "interventions", "labels", "linear_gaussian", "mixed", "nested", "notebook",
    "observed_and_inferred", "own_readings", "partial_axioms", "posterior", "pyro_model", "results",
    "table_parts", "wrong_arguments",
)  # fmt: skip
"""Of ``tests/causalgen/``: those of the engine and of what it answers."""

LEFT_OUT = ("the_line_of_the_user", "asks_again_and_again")
"""Tests of the line that a warning names, which is another one in a mutated file."""

_NOTHING = "nothing of this name"
"""What mutmut is asked first: it has no command that makes mutants alone, and fails after that."""


def prepare(*, keep: bool = False) -> None:
    """A copy of what git knows, with mutmut's settings; ``keep`` copies over what is there."""
    if not keep:
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


def make() -> None:
    """Make the mutants, and find which tests run which function and how long they take."""
    words = [sys.executable, "-m", "mutmut", "run", "--max-children", "1", _NOTHING]
    subprocess.run(words, cwd=COPY, env=_environment(), check=False)
    if not STATISTICS.exists():
        raise SystemExit("mutmut did not come to an end: see above.")


def mutants() -> list[str]:
    """All names."""
    files = sorted((COPY / "mutants").rglob("*.py.meta"))
    return sorted(name for file in files for name in json.loads(file.read_text())["exit_code_by_key"])


def tried(names: list[str], **options: float | None) -> dict[str, str]:
    """What became of these mutants, or of those that there was time for; see ``mutant_trials``."""
    statistics = json.loads(STATISTICS.read_text())
    by_function = statistics["tests_by_mangled_function_name"]
    tests = {name: sorted(by_function.get(name.rpartition("__mutmut_")[0], ())) for name in names}
    seconds = statistics["duration_by_test"]
    everything = sorted({each for some in tests.values() for each in some})
    plan = {"tests": tests, "seconds": seconds, "minutes": None, "budget": None, "resume": None, **options}
    path = COPY / "plan.json"
    path.write_text(json.dumps(plan))
    files = sorted({each.partition("::")[0] for each in everything})
    plugins = ["-p", "tests.mutant_trials", "-p", "no:cacheprovider"]
    words = ["-m", "pytest", "-q", *plugins, *files]
    environment = _environment() | {trials.PLAN: str(path), "PYTHONPATH": str(COPY / "mutants")}
    subprocess.run([sys.executable, *words], cwd=COPY / "mutants", env=environment, check=True)
    found = json.loads(path.with_name(trials.RESULTS).read_text())
    return {name: found[name]["verdict"] for name in names if name in found}


@cache
def _functions(module: str) -> dict[str, list[str]]:
    """The lines of every function of a mutated file, without what mutmut puts in."""
    text = (COPY / "mutants" / Path(*module.split("."))).with_suffix(".py").read_text()
    lines = [line.partition("  # type: ignore # mutmut generated")[0] for line in text.splitlines()]
    walked = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))
    return {node.name: lines[node.lineno : node.end_lineno] for node in walked}


def changed(name: str) -> list[str]:
    """The lines that a mutant takes out and puts in."""
    module, _, function = name.rpartition(".")
    known = _functions(module)
    lines = difflib.unified_diff(
        known[f"{function.rpartition('_')[0]}_orig"], known[function], n=0, lineterm=""
    )
    return [line for line in lines if line[:3] not in ("---", "+++") and line[:2] != "@@"]


def main() -> None:
    """Make the mutants, try a sample, and write what became of it."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--sample", type=int, default=300, help="mutants that are tried (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (%(default)s)")
    parser.add_argument("--minutes", type=float, help="begin no mutant after so many")
    parser.add_argument("--budget", type=float, help="seconds of the processor for the tests of a mutant")
    parser.add_argument("--out", type=Path, help="a JSON file of the counts and of those that survive")
    parser.add_argument(
        "--again",
        action="store_true",
        help="try those of OUT that are not judged the same, with the tests of now",
    )
    parser.add_argument("--keep", action="store_true", help="the mutants and statistics made last")
    parser.add_argument("--resume", action="store_true", help="go on with the sample that was tried last")
    asked = parser.parse_args()
    if asked.again and asked.out is None:
        parser.error("--again needs --out: the file of those that survived.")
    keep = asked.keep or asked.resume
    prepare(keep=keep or asked.again)
    if keep:
        shutil.copytree(COPY / "tests", COPY / "mutants" / "tests", dirs_exist_ok=True)
    else:
        make()
    everything = mutants()
    if asked.again:
        told = json.loads(asked.out.read_text())
        open_ = {
            name
            for name, each in told["survivors"].items()
            if not each.get("judged", "").startswith("the same")
        }
        became = tried(sorted(open_ & set(everything)))
        for name, verdict in became.items():
            told["survivors"][name]["now"] = verdict
        told["killed since"] = Counter(became.values())["killed"]
    else:
        # In the order in which they are drawn: where time ends, those that were tried are a sample too.
        sample = random.Random(asked.seed).sample(everything, min(asked.sample, len(everything)))
        became = tried(sample, minutes=asked.minutes, budget=asked.budget, resume=asked.resume)
        alive = sorted(name for name, verdict in became.items() if verdict != "killed")
        told = {"mutants": len(everything), "seed": asked.seed, "budget": asked.budget, "tried": len(became)}
        told |= Counter(became.values())
        told["survivors"] = {name: {"changed": changed(name)} for name in alive}
    print(f"{len(everything):,} mutants, {len(became):,} tried: {dict(Counter(became.values()))}")
    for name, each in told["survivors"].items():
        print(f"\n{name}: {became.get(name)}", *each["changed"], sep="\n")
    if asked.out is not None:
        asked.out.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")


def _environment() -> dict[str, str]:
    """Without a path to other code than the copy's."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return kept | {"OMP_NUM_THREADS": "1"}


def _lines(*each: str) -> str:
    return "\n" + "\n".join(each)


if __name__ == "__main__":
    main()
