"""Faults of the system: whatever ends a command, its old result or its new one is there, whole."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch

import causalgen as cg
import causalgen.saving.atomic as atomic
from causalgen.data.table import Table
from causalgen.fitting.fit import fit_mechanism
from causalgen.fitting.run_folder import RunFolder, State, digest
from causalgen.saving.manifest import FolderFormat, tensor_bytes
from causalgen.saving.pretrained import load_folder, save_folder
from graphs.errors import CheckpointError, ChecksumError
from tests.causalgen.attacks import record

OLD, NEW = {"x": {"a": torch.zeros(3)}}, {"x": {"a": torch.ones(3)}}
SPACES = ["unshare", "--user", "--map-root-user", "--mount"]


def trials(folder: Path, *arguments: str, prefix: tuple[str, ...] = ()) -> dict:
    """What ``fault_points.py`` found."""
    command = [
        *prefix,
        sys.executable,
        str(Path(__file__).with_name("fault_points.py")),
        str(folder),
        *arguments,
    ]
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=os.environ | paths, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_no_fault_loses_a_result_and_every_one_is_told_in_a_line(tmp_path):
    found = trials(tmp_path, "0", "2")
    assert found["wrong"] == [] and sum(found["tried"].values()) == 2


@pytest.mark.slow
def test_no_fault_of_many_loses_a_result(tmp_path):
    found = trials(tmp_path, "1", "500")
    assert found["wrong"] == [] and len(found["tried"]) == 28  # every command with every fault
    record("faults of commands that replace a result", tried=sum(found["tried"].values()), lost=0)


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run([*SPACES, "true"], check=False).returncode != 0,
    reason="file systems can be mounted in a name space of one's own alone",
)
def test_a_full_and_a_read_only_disk_are_told_and_nothing_is_lost(tmp_path):
    found = trials(tmp_path, "disk", prefix=tuple(SPACES))
    assert found["wrong"] == [] and found["tried"] == {"full": 12, "read-only": 3}


# --- folders while others save ---


@pytest.fixture(params=[True, False], ids=["exchange", "two renames"])
def saved(tmp_path, monkeypatch, request) -> Path:
    """A saved model, where the system has an exchange of folders and where it has none."""
    if not request.param:
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    save_folder(tmp_path / "model", "old", OLD)
    return tmp_path / "model"


def test_a_load_during_a_save_is_of_the_old_model_or_of_the_new_one(saved, monkeypatch):
    read, reads = FolderFormat._read, 0

    def interrupted(self, folder, name, said):
        nonlocal reads
        reads += 1
        if reads == 2:  # the manifest and one file were those of the old model
            save_folder(saved, "new", NEW)
        return read(self, folder, name, said)

    monkeypatch.setattr(FolderFormat, "_read", interrupted)
    spec, states, _ = load_folder(saved)
    assert spec == "new" and torch.equal(states["x"]["a"], NEW["x"]["a"]) and reads > 2


def test_there_is_a_model_at_every_moment_of_a_save(saved, monkeypatch):
    rename, seen = Path.rename, []

    def watched(path, target):
        if path.suffix == ".tmp" and not seen:  # the second of two renames
            seen.append(load_folder(saved)[0])  # which puts the one that stepped aside back
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", watched)
    save_folder(saved, "new", NEW)
    assert load_folder(saved)[0] == "new" and [path.name for path in saved.parent.iterdir()] == ["model"]
    assert seen == ([] if atomic._exchange.__name__ == "_exchange" else ["old"])


def test_damage_is_still_damage(saved):
    (saved / "x.safetensors").write_bytes(b"")
    with pytest.raises(ChecksumError):
        load_folder(saved)


def test_what_killed_saves_left_is_removed_and_what_others_write_is_not(saved):
    left = {kind: saved.with_name(f".model.{kind * 32}.tmp") for kind in "ab"}
    replaced = saved.with_name(f".model.{'c' * 32}.old")
    others = saved.with_name(f".model.x.{'d' * 32}.tmp")
    for path in (*left.values(), replaced, others):
        path.mkdir()
        (path / "half").write_text("")
    handle = os.open(left["b"], os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)  # its process lives
    save_folder(saved, "new", NEW)
    assert {path.name for path in saved.parent.iterdir()} == {"model", left["b"].name, others.name}
    os.close(handle)
    save_folder(saved, "newer", NEW)
    assert not left["b"].exists() and others.exists()


def test_no_listed_file_is_a_link_out_of_the_folder(saved):
    for name in ("x.safetensors", "scm.yaml", "manifest.json"):
        outside = saved.with_name(name)
        (saved / name).rename(outside)
        (saved / name).symlink_to(outside)
        with pytest.raises(CheckpointError, match=f"{name} is a link out of the folder"):
            load_folder(saved)
        (saved / name).unlink()
        outside.rename(saved / "kept")
        (saved / name).symlink_to("kept")  # inside it may be one
        assert load_folder(saved)[0] == "old"
        (saved / name).unlink()
        (saved / "kept").rename(saved / name)


@pytest.mark.parametrize("path", [3, b"x", "", "a\0b", "x" * 300, "\ud800"])
def test_paths_that_are_none_are_told(linear, path):
    scm, _ = linear
    for call in (scm.to_yaml, scm.save_pretrained, cg.SCM.from_pretrained, scm.sample(1, seed=0).save):
        with pytest.raises(cg.CausalgenError):
            call(path)


# --- the state of a run ---

IDENTITY = {"seed": 3}


def opened(folder: Path, *, resume: bool = True, node: str = "x", seed: int = 3) -> RunFolder:
    return RunFolder(folder, node, {"seed": seed}, resume=resume)


@pytest.fixture
def run(tmp_path) -> Path:
    opened(tmp_path, resume=False).save(State({"w": torch.arange(3.0)}, {"step": 3, "seconds": 1.5}))
    return tmp_path


def test_every_byte_of_a_state_is_checked(run):
    path = run / "x.safetensors"
    data = path.read_bytes()
    opened(run).load()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            found = opened(run).load()
        except CheckpointError:
            continue
        assert found is not None and found.values == {"step": 3, "seconds": 1.5}  # a blank of the header's
        assert found.tensors["w"].tolist() == [0, 1, 2]
    path.write_bytes(data.replace(b'step\\": 3', b'step\\": 4'))
    assert path.read_bytes() != data
    with pytest.raises(ChecksumError):
        opened(run).load()
    record("bytes of a run's state flipped", tried=len(data), lost=0)


def test_a_state_of_the_former_format_is_gone_on_with(run):
    tensors = {"w": torch.ones(2)}
    metadata = {"values": '{"step": 5}', "sha256": digest(tensors)}
    (run / "x.safetensors").write_bytes(tensor_bytes(tensors, metadata))
    (run / "run.json").write_text(json.dumps({"format": 1, "nodes": {"x": IDENTITY}}))
    state = opened(run).load()
    assert state is not None and state.values == {"step": 5} and state.tensors["w"].tolist() == [1, 1]


def test_a_state_that_the_run_does_not_list_is_of_what_it_says(run):
    (run / "run.json").write_text('{"format": 2, "nodes": {}}')
    with pytest.raises(CheckpointError, match="seed was 3, now 4"):
        opened(run, seed=4).load()


def test_nodes_fitted_at_once_in_one_folder_are_all_listed(tmp_path):
    names = [f"n{number}" for number in range(12)]
    threads = [
        Thread(target=opened, args=(tmp_path,), kwargs={"resume": False, "node": name}) for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(json.loads((tmp_path / "run.json").read_text())["nodes"]) == sorted(names)


def test_a_run_of_the_former_format_ends_in_the_same_weights(tmp_path):
    def fit(**options):
        short = cg.mechanisms.Training(epochs=2, batch_size=16)
        spec = cg.mechanisms.Additive(function="network", hidden=(4,), training=short)
        mechanism = spec.bind(cg.Continuous(), {"a": cg.Continuous()})
        fit_mechanism("b", mechanism, table, seed=0, progress=False, checkpoint_seconds=0, **options)
        return mechanism.state_dict()

    a = np.random.default_rng(0).normal(size=64)
    table = Table({"a": a, "b": a**2})
    whole, saves, real = fit(), 0, RunFolder.save

    def former(self, state):  # as format 1 wrote it, and killed at the third
        nonlocal saves
        saves += 1
        if saves == 3:
            raise KeyboardInterrupt
        metadata = {"values": json.dumps(state.values), "sha256": digest(state.tensors)}
        atomic.write_atomic(self.state_path, tensor_bytes(state.tensors, metadata))

    RunFolder.save = former
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(run_dir=tmp_path)
    finally:
        RunFolder.save = real
    resumed = fit(run_dir=tmp_path, resume=True)
    assert saves == 3 and all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())
