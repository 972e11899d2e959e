"""The suite with the lowest or the newest versions that ``pyproject.toml`` admits, in its own environment.

    python tests/versions.py lowest                         make the environment, run the tests
    python tests/versions.py newest -n 4 tests/graphs       arguments are pytest's
    python tests/versions.py lowest --only constraints      say the versions

"lowest" is, of each requirement, the first version at or above its lower bound that has a build for this
Python (``pip index``); pip then resolves the rest, as newly as these allow. Its constraints and the
environment are kept in ``.versions/``, and made anew when ``pyproject.toml`` changes.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tomllib
import venv
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

__all__ = ["at_least", "lowest"]

CHECKOUT = Path(__file__).parents[1]
EXTRAS = ("dev", "docs")
"""What the suite needs; requirements of other extras are constrained where these bring them."""


def lower_bounds(project: dict) -> dict[str, str]:
    """The lower bound of every requirement, of all extras too, by name.

    >>> lower_bounds({"dependencies": ["a>=1.2,<2"], "optional-dependencies": {"x": ["b[c]>=3"]}})
    {'a': '1.2', 'b': '3'}
    """
    extras = project.get("optional-dependencies", {}).values()
    found = {}
    for requirement in [*project["dependencies"], *(each for extra in extras for each in extra)]:
        parts = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*>=\s*([0-9][0-9.]*)", requirement)
        if parts is None:
            raise SystemExit(f"{requirement!r} has no lower bound: write NAME>=VERSION.")
        found[parts[1]] = parts[2]
    return found


def numbers(version: str) -> tuple[int, ...]:
    """A version for comparison, without zeros at its end and what follows "+"."""
    return tuple(int(each) for each in re.sub(r"(\.0)+$", "", version.split("+")[0]).split("."))


def at_least(bound: str, versions: list[str]) -> str:
    """The first version at or above a bound, of those that are numbers alone.

    >>> at_least("2.0", ["2.10.0", "2.0.1", "2.0.0", "1.9", "2.0.0rc1"])
    '2.0.0'
    """
    released = [each for each in versions if re.fullmatch(r"[0-9.]+(\+\w+)?", each)]
    reached = [each for each in released if numbers(each) >= numbers(bound)]
    if not reached:
        raise ValueError(f"no build at or above {bound} for this Python, of {', '.join(versions) or 'none'}")
    return min(reached, key=numbers).split("+")[0]


def built(python: Path, name: str) -> list[str]:
    """Versions of a package that have a build for this Python."""
    command = [python, "-m", "pip", "index", "versions", "--only-binary", ":all:", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    listed = re.search(r"^Available versions: (.*)$", done.stdout, re.MULTILINE)
    if listed is None:
        raise SystemExit(f"pip knows no build of {name} for this Python: {done.stderr.strip()}")
    return listed[1].split(", ")


def lowest(python: Path, project: dict) -> str:
    """Constraints on the lowest versions, one a line."""
    bounds, lines = lower_bounds(project), []
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(partial(built, python), bounds))
    for (name, bound), versions in zip(bounds.items(), found, strict=True):
        try:
            lines.append(f"{name}=={at_least(bound, versions)}")
        except ValueError as error:
            raise SystemExit(f"{name}: {error}.") from error
    return "\n".join([*lines, ""])


def environment(which: str) -> Path:
    """The Python of an environment with the lowest or the newest versions, made where it is missing."""
    text = (CHECKOUT / "pyproject.toml").read_bytes()
    key = hashlib.sha256(text).hexdigest()[:12]
    folder = CHECKOUT / ".versions" / f"{which}-{sys.version_info[0]}.{sys.version_info[1]}-{key}"
    python, done = folder / "bin" / "python", folder / "installed"
    if done.exists():
        return python
    venv.create(folder, clear=True, with_pip=True)
    install = [python, "-m", "pip", "install", "--upgrade", "--only-binary", ":all:"]
    constraints = folder / "constraints.txt"
    project = tomllib.loads(text.decode())["project"]
    constraints.write_text(lowest(python, project) if which == "lowest" else "")
    asked = f"{CHECKOUT}[{','.join(EXTRAS)}]"
    subprocess.run([*install, "--constraint", constraints, "--editable", asked], check=True)
    done.touch()
    return python


def main() -> None:
    """Make the environment and run the tests in it."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw, allow_abbrev=False)
    parser.add_argument("which", choices=["lowest", "newest"])
    parser.add_argument("--only", choices=["constraints", "environment"], help="Stop there, and say it.")
    asked, pytest = parser.parse_known_args()
    if asked.only == "constraints":
        project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
        print(lowest(Path(sys.executable), project), end="")
        return
    python = environment(asked.which)
    if asked.only == "environment":
        print(python)
        return
    sys.exit(subprocess.run([python, "-m", "pytest", *pytest], cwd=CHECKOUT, check=False).returncode)


if __name__ == "__main__":
    main()
