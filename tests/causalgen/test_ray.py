"""A table on a cluster of two workers, one of which is killed: the bytes of the serial run.

Ray runs in processes of its own: importing it draws from global random states.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from causalgen.counterfactuals.export import to_png

ROWS, PART = 160, 4
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


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_cluster_with_a_killed_worker_gives_the_bytes_of_the_serial_run(job, tmp_path_factory):
    serial = subprocess.run(ask(job, "serial"), cwd=job, capture_output=True, text=True)
    assert serial.returncode == 3, serial.stderr
    assert "row 7" in serial.stderr
    # What Ray leaves would be there; the path must be short, for sockets.
    temporary = Path("/tmp") / f"t{os.getpid()}"
    temporary.mkdir()
    settings = {**os.environ, "TMPDIR": str(temporary), "RAY_worker_niceness": "0"}
    command = ask(job, "ray", "--engine", "ray", "--workers", "2")
    with open(job / "log", "w+") as log:
        running = subprocess.Popen(command, cwd=job, stdout=log, stderr=log, env=settings)
        try:
            killed = None
            while killed is None and running.poll() is None:
                if any((job / "ray" / "parts").glob("*.json")):
                    killed = worker_of(running.pid)
                time.sleep(0.01)
            assert killed is not None, (job / "log").read_text()
            os.kill(killed, signal.SIGKILL)
            assert not (job / "ray" / "result.json").exists()  # killed before the end
            code = running.wait(timeout=500)
        finally:
            running.terminate()
            running.wait(timeout=60)
        assert code == 3, (job / "log").read_text()
    assert files(job / "ray") == files(job / "serial")
    assert list(temporary.iterdir()) == []
    temporary.rmdir()
