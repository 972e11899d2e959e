"""A plug-in of pytest that tries mutants instead of running the tests; ``mutation.py`` starts it.

The tests are collected once. Each mutant is then a forked process in which its function is the other one,
and which ends at the first test that fails: no mutant pays for imports, and one that a test of ten
milliseconds kills takes little more. Tests that killed mutants of the same function, then of the same file,
come first, then the modules whose tests take least. The order decides how soon a mutant dies, not whether:
one that lives has passed every test that runs its function, or those that there was time for within a budget.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

__all__ = ["in_order"]

PLAN, RESULTS = "CAUSALGEN_MUTANTS", "mutant-trials.json"
"""The environment variable that names the plan: tests by mutant, seconds by test, minutes and budget. And
the file beside the plan that verdicts by mutant go to."""

CLEAN = ""
"""The name of no mutant: a test that kills passes without one."""

_SECONDS = 100
"""Of the processor, for one test."""


def in_order(tests: Sequence[str], seconds: Mapping[str, float], killers: Sequence[str] = ()) -> list[str]:
    """Killers, then modules by what their tests take, and in a module the quick ones first.

    Tests of a module stay together, since what they share is made anew when another comes between.
    """
    first = [name for name in killers if name in set(tests)]
    modules: dict[str, list[str]] = defaultdict(list)
    for name in tests:
        if name not in first:
            modules[name.partition("::")[0]].append(name)
    total = {module: sum(seconds.get(name, 0.0) for name in names) for module, names in modules.items()}
    for module in sorted(modules, key=lambda module: (total[module], module)):
        first += sorted(modules[module], key=lambda name: (seconds.get(name, 0.0), name))
    return first


def pytest_runtestloop(session: pytest.Session) -> bool:
    """Try the mutants of the plan, and write after each what has become of those so far."""
    path = Path(os.environ[PLAN])
    plan = json.loads(path.read_text())
    items = {item.nodeid: item for item in session.items}
    results, found = path.with_name(RESULTS), dict[str, dict[str, Any]]()
    if plan["resume"]:
        found = json.loads(results.read_text())
    killers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name, each in found.items():
        _remember(killers, name, each["by"])
    _share(session)
    until = time.monotonic() + 60 * (plan["minutes"] or float("inf"))
    budget = plan["budget"] or float("inf")
    for name, tests in plan["tests"].items():
        if name in found:
            continue
        if time.monotonic() > until:
            break
        known = [test for place in _places(name) for test, _ in killers[place].most_common(8)]
        ordered = in_order(tests, plan["seconds"], list(dict.fromkeys(known)))
        began = time.monotonic()
        killer, took = _tried(session, name, [items[test] for test in ordered if test in items], budget)
        plan["seconds"].update(took)
        verdict = "no test" if not tests else "survived" if killer is None else "killed"
        found[name] = {"verdict": verdict, "by": killer, "seconds": round(time.monotonic() - began, 2)}
        _remember(killers, name, killer if killer in items else None)
        results.write_text(json.dumps(found, indent=1))
        print(f"{len(found)} {verdict} {found[name]['seconds']} s {name} {killer or ''}", flush=True)
    for killer in sorted({each["by"] for each in found.values()} & items.keys()):
        if _tried(session, CLEAN, [items[killer]], float("inf"))[0] is not None:
            pytest.exit(f"Without a mutant {killer} fails too.", returncode=1)
    return True


def _places(name: str) -> tuple[str, str]:
    """The function and the file of a mutant."""
    return name.rpartition("__mutmut_")[0], name.rpartition(".")[0]


def _remember(killers: defaultdict[str, Counter[str]], name: str, killer: str | None) -> None:
    if killer is not None:
        for place in _places(name):
            killers[place][killer] += 1


def _share(session: pytest.Session) -> None:
    """Make what the whole session shares once, before any mutant: fitted models, which tests must not change.

    A mutant that would change these too is not seen to do so, and lives if that is all it does.
    """
    made: set[str] = set()
    for item in session.items:
        if not isinstance(item, pytest.Function):
            continue
        fixtures = item._fixtureinfo.name2fixturedefs.items()
        shared = {name for name, each in fixtures if each[-1].scope == "session"} - made
        if shared:
            other = next((each for each in session.items if each.path != item.path), None)
            if other is None:
                return  # one file: after its last test all is torn down
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=other)
            made |= shared
    if session.testsfailed:
        pytest.exit("Tests fail without a mutant.", returncode=1)
    gc.collect()
    gc.freeze()  # else every collection in a child walks through all that was imported, and copies it


def _tried(
    session: pytest.Session, name: str, items: list[pytest.Item], budget: float
) -> tuple[str | None, dict[str, float]]:
    """The test that fails, or why the process died; None if all passed, or those that there was time for.

    And what each took, with what was made for it.
    """
    reading, writing = os.pipe()
    if not (child := os.fork()):
        _child(session, name, items, budget, writing)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    seconds = json.loads(told or "{}")
    if status == 1:
        return list(seconds)[-1], seconds
    return None if status == 0 else f"exit code {status}", seconds


def _child(session: pytest.Session, name: str, items: list[pytest.Item], budget: float, pipe: int) -> None:
    """Run the tests in the forked process, and end it."""
    os.setpgid(0, 0)
    os.environ["MUTANT_UNDER_TEST"] = name
    session.config.pluginmanager.unregister(name="terminalreporter")
    silent = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silent, stream)
    took: dict[str, float] = {}
    code = 0
    try:
        for item, following in zip(items, [*items[1:], None], strict=True):
            if (used := time.process_time()) > budget:
                break
            # What is beyond runs for ever, or waits for ever.
            resource.setrlimit(resource.RLIMIT_CPU, (int(used) + _SECONDS, resource.RLIM_INFINITY))
            signal.alarm(20 * _SECONDS)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            took[item.nodeid] = time.process_time() - used
            if session.testsfailed:
                code = 1
                break
    except BaseException:  # whatever a mutant does to pytest
        code = 2
    with os.fdopen(pipe, "w") as writing:
        json.dump(took, writing)
    os._exit(code)
