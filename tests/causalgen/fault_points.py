"""Faults at points of what the commands write: each trial is a process of its own, forked from this one.

    python fault_points.py FOLDER SEED TRIALS           kills, signals, errors of the disk, limits of files
    unshare -Urm python fault_points.py FOLDER disk     a full and a read-only file system

A point is an event that Python audits (a file opened, renamed, removed, ...) in the trial's folder, an fsync
or an exchange of two folders; or a random moment. Prints, as JSON, what was tried and what went wrong.
"""

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import causalgen as cg
import causalgen.evaluation.evaluate  # imported once, here
import causalgen.saving.atomic as atomic
from causalgen.cli.main import main
from causalgen.fitting.fit import fit_mechanism

SPEC = """causalgen: 1
nodes:
  x: {variable: {type: continuous}, mechanism: {kind: additive}}
  y:
    variable: {type: continuous}
    parents: [x]
    mechanism: {kind: additive, function: network, hidden: [4], training: {epochs: 2, batch_size: 64}}
"""
EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.listdir", "os.scandir", "fault"}
FAULTS = ("KILL", "TERM", "INT", "EIO", "ENOSPC", "FSIZE", "moment")
COMMANDS = ("fit", "sample", "evaluate", "table")
TURNS = ("fit", "sample", "fit", "evaluate", "fit", "table")
"""Six of commands against seven faults: every pair comes in turn."""


def arguments(command: str, folder: Path, seed: int = 1) -> list[str]:
    """A command that replaces an old result in the folder, or "table", which answers a table in parts."""
    out, data, seeded = folder / command, str(folder / "table.csv"), ["--seed", str(seed)]
    if command == "fit":
        return ["fit", str(folder / "scm.yaml"), "--data", data, "--out", str(out), *seeded]
    if command == "sample":
        return ["sample", str(folder / "model"), "--out", str(out), "-n", "5", *seeded]
    if command == "table":
        asked = ["--table", str(folder / "table.parquet"), "--do", "x=1", "--part-rows", "40"]
        return ["counterfactual", str(folder / "model"), *asked, "--out", str(out), *seeded]
    return ["evaluate", str(folder / "model"), "--data", data, "--rows", "20", "--out", str(out), *seeded]


def child(task, stderr: int) -> int:
    """A forked process that does the task, its standard error in a pipe; its number."""
    number = os.fork()
    if number:
        return number
    try:
        os.dup2(stderr, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        task()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 99
    sys.stderr.flush()
    os._exit(code)


def run(task, kill_after: float | None = None) -> tuple[int, str]:
    """The exit code of a task in a process of its own (minus the signal's number), and what it said."""
    reader, writer = os.pipe()
    number = child(task, writer)
    os.close(writer)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(number, signal.SIGKILL)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), said


def call(command: list[str]) -> None:
    sys.argv = ["causalgen", *command]
    main()


def at_point(folder: Path, point: int, fault: str, told: Path | None = None) -> None:
    """Lets a fault happen at the so-manieth event in the folder; counts events where it is never reached."""
    count, real_sync, real_exchange = 0, os.fsync, atomic._exchange

    def hook(event, given):
        nonlocal count
        if event not in EVENTS or not any(str(folder) in str(each) for each in given):
            return
        count += 1
        if told is not None:
            os.environ["COUNT"] = str(count)
        if count != point:
            return
        if fault in ("KILL", "TERM", "INT"):
            os.kill(os.getpid(), signal.Signals[f"SIG{fault}"])
        else:
            code = getattr(errno, fault)
            raise OSError(code, os.strerror(code), str(given[0]))

    def sync(handle):
        sys.audit("fault", str(folder))
        real_sync(handle)

    def exchange(one, other):
        sys.audit("fault", str(folder))
        return real_exchange(one, other)

    os.fsync, atomic._exchange = sync, exchange
    sys.addaudithook(hook)


def state(command: str, folder: Path) -> str:
    """What a reader finds; raises where it is nothing whole."""
    out = folder / command
    if command == "fit":
        scm, hashed = cg.SCM.from_pretrained(out), sha256()
        for node, mechanism in scm.mechanisms.items():
            for name, tensor in mechanism.state_dict().items():
                hashed.update(f"{node} {name} {tensor.numpy().tobytes()!r}".encode())
        return hashed.hexdigest()
    if command == "table":
        files = sorted(path for path in out.rglob("*") if path.is_file())
        assert out / "result.json" in files, files
        return json.dumps(
            {path.relative_to(out).as_posix(): sha256(path.read_bytes()).hexdigest() for path in files}
        )
    atomic.recover_folder(out)
    name = "result.json" if (out / "result.json").exists() else "report.json"
    said = json.loads((out / name).read_text())
    for file, checksum in said["sha256"].items():
        assert sha256((out / file).read_bytes()).hexdigest() == checksum, file
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert found == set(said["files"]), found
    return json.dumps(
        {file: said["sha256"][file] for file in sorted(said["sha256"]) if file.endswith(".csv")}
    )


def prepare(folder: Path) -> None:
    """Old results of every command, and a model."""
    folder.mkdir(exist_ok=True)
    (folder / "scm.yaml").write_text(SPEC)
    x = np.random.default_rng(0).normal(size=120)
    rows = "".join(f"{a},{np.sin(a)}\n" for a in x)
    (folder / "table.csv").write_text("x,y\n" + rows)
    assert run(lambda: call(arguments("fit", folder, 0)))[0] == 0
    shutil.rmtree(folder / "fit.run")
    shutil.copytree(folder / "fit", folder / "model")
    (folder / "fit" / "notes.txt").write_text("mine")
    pd.read_csv(folder / "table.csv").to_parquet(folder / "table.parquet")
    for command in ("sample", "evaluate"):
        code, said = run(lambda each=command: call(arguments(each, folder, 0)))
        assert code == 0, said


def check(command: str, folder: Path, old: str, new: str, code: int, said: str) -> None:
    """What must hold after any fault; parts of a table are gone on with, and what they are is seen then."""
    if command != "table":
        found = state(command, folder)
        assert found in (old, new), "neither the old result nor the new one"
        assert code != 0 or found == new, "it said that it was done"
    elif code == 0:
        assert state(command, folder) == new, "it said that it was done"
    assert "Traceback" not in said and code in (0, 1, 130, 143, -signal.SIGKILL), said
    ends = [line for line in said.splitlines() if line.startswith(("error: ", "Interrupted.", "Terminated."))]
    assert len(ends) == (code in (1, 130, 143)), said
    again = arguments(command, folder)
    again += ["--resume"] if (folder / "fit.run" / "run.json").exists() and command == "fit" else []
    again += ["--resume"] if command == "table" and (folder / "table").exists() else []
    code, said = run(lambda: call(again))
    assert code == 0, said
    assert state(command, folder) == new, "gone on with, it ended elsewhere"
    assert command != "fit" or (folder / "fit" / "notes.txt").read_text() == "mine"
    kept = {"scm.yaml", "table.csv", "table.parquet", "model", "fit", "sample", "evaluate"}
    kept |= {"fit.run"} if command == "fit" else {"table"} if command == "table" else set()
    left = {path.name for path in folder.iterdir()} | {path.name for path in folder.glob("fit.run/.*")}
    assert left == kept, f"left behind: {left - kept}"


def campaign(place: Path, seed: int, trials: int) -> dict:
    """Trials of every command and fault in turn."""
    chosen = random.Random(seed)
    tried, wrong, made = Counter(), [], place / "made"
    prepare(made)
    points, spans, new = {}, {}, {}
    for command in COMMANDS:
        folder = place / "trial"  # the place that a table is answered for is part of the question
        shutil.copytree(made, folder)

        def counted(command=command, folder=folder):
            at_point(folder, -1, "KILL", folder)
            try:
                call(arguments(command, folder))
            finally:
                print("COUNT", os.environ["COUNT"], file=sys.stderr)

        began = time.monotonic()
        code, said = run(counted)
        assert code == 0, said
        spans[command] = time.monotonic() - began
        points[command] = int(said.split()[-1])
        new[command] = state(command, folder)
        shutil.rmtree(folder)
    old = {command: "" if command == "table" else state(command, made) for command in COMMANDS}
    for trial in range(trials):
        command = TURNS[trial % len(TURNS)]
        fault = FAULTS[trial % len(FAULTS)]
        exchanges, point = chosen.random() < 0.5, chosen.randint(1, points[command])
        folder = place / "trial"
        shutil.copytree(made, folder)

        def task(command=command, fault=fault, exchanges=exchanges, point=point, folder=folder):
            if not exchanges:
                atomic._exchange = lambda one, other: False
            if fault == "FSIZE":
                resource.setrlimit(resource.RLIMIT_FSIZE, (point * 20, point * 20))
            elif fault != "moment":
                at_point(folder, point, fault)
            call(arguments(command, folder))

        after = chosen.uniform(0, spans[command]) if fault == "moment" else None
        try:
            check(command, folder, old[command], new[command], *run(task, after))
        except Exception as error:
            where = (
                f"{command} {fault} point {point} of {points[command]}, exchange {exchanges}, after {after}"
            )
            wrong.append(f"{where}: {type(error).__name__}: {error}")
        tried[f"{command} {fault}"] += 1
        shutil.rmtree(folder)
    return {"tried": tried, "points": points, "wrong": wrong}


def disks(place: Path) -> dict:
    """A file system that is full, at several numbers of free bytes, then one that cannot be written."""
    tried, wrong, disk = Counter(), [], place / "disk"
    made = place / "made"
    prepare(made)
    old = {command: state(command, made) for command in COMMANDS if command != "table"}
    disk.mkdir()
    for command, free in [(each, kib) for each in old for kib in (0, 4, 8, 12, -1)]:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=True)
        folder = disk / "trial"
        shutil.copytree(made, folder)
        if free < 0:
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        else:
            room = os.statvfs(disk)
            (disk / "fill").write_bytes(b"\0" * (room.f_bavail * room.f_bsize - 1024 * free))
        code, said = run(lambda each=command, place=folder: call(arguments(each, place)))
        try:
            assert code == 1 and said.count("error: ") == 1 and "Traceback" not in said, (code, said)
            full, fixed = ("No space left on device",), ("Read-only", "not a folder that can be written")
            assert any(words in said for words in (fixed if free < 0 else full)), said
            assert state(command, folder) == old[command]
        except Exception as error:
            wrong.append(f"{command}, {free} KiB: {type(error).__name__}: {error}")
        tried["read-only" if free < 0 else "full"] += 1
        subprocess.run(["umount", disk], check=True)
    return {"tried": tried, "wrong": wrong}


if __name__ == "__main__":
    torch.set_num_threads(1)
    fit_mechanism.__kwdefaults__["checkpoint_seconds"] = 0.0  # a state after every step
    parent = Path(sys.argv[1]).resolve()
    print(json.dumps(disks(parent) if sys.argv[2] == "disk" else campaign(parent, *map(int, sys.argv[2:4]))))
