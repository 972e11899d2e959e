"""A table on a cluster of two workers, one of which is killed: the bytes of the serial run.

Ray runs in processes of its own: importing it draws from global random states.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import causalgen as cg
from causalgen.counterfactuals.export import to_png
from tests.causalgen.attacks import record

ROWS, PART, KILLS = 96, 4, 50
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
COMMAND = [
    sys.executable,
    "-c",
    "import sys; sys.argv[0] = 'causalgen'; import causalgen.cli.main as m; m.main()",
]


def files(folder):
    """Content of each file that the two engines must agree on."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def descendants(ancestor):
    """The processes that a process has started, and those that these have."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it has ended
                continue
    found, grown = {ancestor}, True
    while grown:
        more = {child for child, parent in parents.items() if parent in found} - found
        grown, found = bool(more), found | more
    return found - {ancestor}


def worker_of(ancestor):
    """A process in which a model is at work, or None."""
    for process in descendants(ancestor):
        try:
            if "MapWorker" in Path(f"/proc/{process}/cmdline").read_text():
                return process
        except OSError:
            continue
    return None


@pytest.fixture(scope="module")
def job(pictures, tmp_path_factory):
    """A saved model, and a table with a picture in row 7 that cannot be read."""
    scm, data = pictures
    root = tmp_path_factory.mktemp("ray")
    scm.save_pretrained(root / "model")
    images = [to_png(data["picture"][row % 64] / 255) for row in range(ROWS)]
    images[7] = b"no picture"
    kinds = [int(data["kind"][row % 64]) for row in range(ROWS)]
    pq.write_table(pa.table({"kind": kinds, "picture": images}), root / "table.parquet", row_group_size=30)
    return root


def ask(job, out, *options):
    arguments = ["counterfactual", "model", "--table", "table.parquet", "--do", "kind=1", "--out", out]
    return [*COMMAND, *arguments, "--part-rows", str(PART), *options]


@pytest.fixture(scope="module")
def serial(job):
    """What the serial engine writes."""
    done = subprocess.run(ask(job, "serial"), cwd=job, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert "row 7" in done.stderr
    return files(job / "serial")


@contextmanager
def on_a_cluster(job, out):
    """The command on two workers, once a part is done; afterwards nothing may be left of it."""
    temporary = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))  # short: it will hold sockets
    settings = {**os.environ, "TMPDIR": str(temporary), "RAY_worker_niceness": "0"}
    command = ask(job, out, "--engine", "ray", "--workers", "2")
    with (job / f"{out}.log").open("w") as log:
        running = subprocess.Popen(command, cwd=job, stdout=log, stderr=log, env=settings)
        try:
            while running.poll() is None and not any((job / out / "parts").glob("*.json")):
                time.sleep(0.01)
            assert running.returncode is None, (job / f"{out}.log").read_text()
            started = descendants(running.pid)
            yield running
        finally:
            running.terminate()
            running.wait(timeout=120)
    assert list(temporary.iterdir()) == []
    temporary.rmdir()
    deadline = time.monotonic() + 60
    while left := [each for each in started if Path(f"/proc/{each}").exists()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@pytest.mark.slow
def test_a_cluster_with_a_killed_worker_gives_the_bytes_of_the_serial_run(job, serial):
    with on_a_cluster(job, "ray") as running:
        killed = worker_of(running.pid)
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        assert not (job / "ray" / "result.json").exists()  # killed before the end
        code = running.wait(timeout=600)
    assert code == 3, (job / "ray.log").read_text()
    assert files(job / "ray") == serial


@pytest.mark.slow
def test_workers_killed_again_and_again_change_no_byte(job, serial):
    draw, killed, jobs = random.Random(0), 0, 0
    while killed < KILLS:
        jobs += 1
        with on_a_cluster(job, f"killed-{jobs}") as running:
            before = killed
            while running.poll() is None and killed < min(before + 10, KILLS):
                if (worker := worker_of(running.pid)) is not None:
                    os.kill(worker, signal.SIGKILL)
                    killed += 1
                time.sleep(draw.uniform(0.0, 4.0))
            code = running.wait(timeout=900)
        assert killed > before
        assert code == 3, (job / f"killed-{jobs}.log").read_text()
        assert files(job / f"killed-{jobs}") == serial
    record("workers of a cluster killed", tried=killed, lost=0)


@pytest.mark.slow
def test_a_job_terminated_on_a_cluster_leaves_nothing_and_is_resumed_by_one_process(job, serial):
    with on_a_cluster(job, "stopped") as running:
        running.terminate()
        code = running.wait(timeout=600)
    assert code == 128 + signal.SIGTERM, (job / "stopped.log").read_text()
    assert "Terminated." in (job / "stopped.log").read_text()
    assert 0 < len(list((job / "stopped" / "parts").glob("*.json"))) < ROWS // PART
    done = subprocess.run(ask(job, "stopped", "--resume"), cwd=job, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert files(job / "stopped") == serial


def read(job, name):
    """An effect's table, or the figures of an evaluation."""
    if (job / f"{name}.csv").exists():
        return (job / f"{name}.csv").read_text()
    return json.loads((job / name / "report.json").read_text())["entries"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["effect", "line", "y", "--do", "x=1", "--refits", "6", "--data", "line.csv", "--out", "{}.csv"],
        ["evaluate", "model", "--data", "few.parquet", "--rows", "80", "--out", "{}"],
    ],
    ids=["refits", "evaluation"],
)
def test_what_is_shared_on_a_cluster_is_what_one_process_finds(job, words):
    generator = np.random.default_rng(0)
    x = generator.normal(size=80)
    rows = pd.DataFrame({"x": x, "y": 2 * x + generator.normal(size=80)})
    rows.to_csv(job / "line.csv", index=False)
    line = cg.SCM(nx.DiGraph([("x", "y")]), {"x": cg.Continuous(), "y": cg.Continuous()})
    line.fit(rows, progress=False).save_pretrained(job / "line")
    few = pq.read_table(job / "table.parquet").slice(8)
    pq.write_table(few, job / "few.parquet")
    for engine in ("processes", "ray"):
        more = ["--engine", engine, "--threads", "1", *(["--workers", "2"] if engine == "ray" else [])]
        command = [*COMMAND, *(word.format(f"{words[0]}-{engine}") for word in words), *more]
        quick = {**os.environ, "RAY_worker_niceness": "0"}
        done = subprocess.run(command, cwd=job, capture_output=True, text=True, env=quick)
        assert done.returncode == 0, done.stderr
    one, other = (read(job, f"{words[0]}-{engine}") for engine in ("processes", "ray"))
    assert one == other
