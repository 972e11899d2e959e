"""The house in numbers, for anyone to run: ``python -m tests.house``.

Rooms are the entries of ``causalgen/``; an arrow is an import, type-checking imports included; a room's floor
is one above the highest that it imports.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path
from statistics import median

__all__ = ["arrows", "circles", "floors", "lines", "rooms"]

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("graphs", "mechanisms", "causalgen")


def lines() -> dict[str, int]:
    """Lines of each source file, by path."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}


def rooms() -> list[str]:
    """The entries of ``causalgen/``, without the door that Python prescribes (``python -m causalgen``)."""
    entries = (each for each in (ROOT / "causalgen").iterdir() if each.name != "__main__.py")
    return sorted(each.stem for each in entries if each.suffix == ".py" or (each / "__init__.py").exists())


def arrows() -> dict[str, set[str]]:
    """Which rooms of ``causalgen/`` each one imports."""
    found: dict[str, set[str]] = defaultdict(set)
    for module, imported in _imports().items():
        if module.startswith("causalgen"):
            names = {_room(each) for each in imported if each.startswith("causalgen.")}
            found[_room(module)] |= names - {_room(module)}
    return dict(found)


def floors() -> dict[str, int]:
    """The floor of each room, the lowest 1.

    Raises:
        RecursionError: rooms import each other in a circle.
    """
    below = arrows()

    def floor(room: str) -> int:
        return 1 + max((floor(each) for each in below.get(room, ())), default=0)

    return {room: floor(room) for room in rooms()}


def circles() -> list[tuple[str, ...]]:
    """Modules that import each other in a circle."""
    graph, state, found = _imports(), dict[str, int](), list[tuple[str, ...]]()

    def visit(module: str, path: tuple[str, ...]) -> None:
        state[module] = 1
        for each in sorted(graph.get(module, ())):
            if state.get(each) == 1:
                found.append((*path[path.index(each) :], each))
            elif each not in state:
                visit(each, (*path, each))
        state[module] = 2

    for module in sorted(graph):
        if module not in state:
            visit(module, (module,))
    return found


def _imports() -> dict[str, set[str]]:
    """Our modules that each of our modules imports."""
    paths = {_module(Path(path)): ROOT / path for path in lines()}
    found: dict[str, set[str]] = {}
    for module, path in paths.items():
        found[module] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [each if each in paths else node.module for each in inner]
            found[module] |= {name for name in names if name in paths and name != module}
    return found


def _module(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _room(module: str) -> str:
    _, _, rest = module.partition(".")
    return rest.partition(".")[0] or "__init__"


def _report() -> None:
    counted, levels = lines(), floors()
    longest = max(counted, key=lambda path: counted[path])
    print(f"source              {sum(counted.values()):,} lines in {len(counted)} files")
    for package in PACKAGES:
        own = [count for path, count in counted.items() if path.startswith(f"{package}/")]
        print(f"  {package:<17} {sum(own):,} lines in {len(own)} files")
    benchmarks = [path for path in (ROOT / "benchmarks").rglob("*") if path.is_file()]
    scripts = [path for path in benchmarks if path.suffix == ".py"]
    print(f"benchmarks          {len(scripts)} scripts and modules, {len(benchmarks)} files in all")
    print(f"median file         {median(count for count in counted.values() if count > 10):.0f} lines")
    print(f"longest file        {longest}, {counted[longest]} lines")
    print(f"circles             {len(circles())}")
    print(f"rooms of causalgen  {len(levels)} on {max(levels.values())} floors")
    for floor in range(max(levels.values()), 0, -1):
        print(f"  {floor}  {', '.join(room for room, each in levels.items() if each == floor)}")


if __name__ == "__main__":
    _report()
