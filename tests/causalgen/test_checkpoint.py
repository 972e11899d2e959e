"""A saved model comes back bit for bit, or not at all."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import causalgen.saving.manifest as manifest
from causalgen.saving.pretrained import load_folder, save_folder
from graphs.errors import CheckpointError, ChecksumError, FormatVersionError

SPEC = "causalgen: 1\nname: größe\n"
STATES = {
    "digit": {"logits": torch.randn(10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))},
    "im-age_2": {
        "network.weight": torch.arange(12.0).reshape(3, 4).t(),  # not contiguous
        "steps": torch.tensor(3),
        "fitted_flag": torch.tensor(True),
        "half": torch.ones(2, dtype=torch.bfloat16),
    },
    "parameterless": {},
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_folder(tmp_path / "model", SPEC, STATES, "# Card\n")
    return tmp_path / "model"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_is_loaded(saved):
    spec, states, manifest = load_folder(saved)
    assert spec == SPEC
    assert states.keys() == {"digit", "im-age_2"}
    for node, tensors in states.items():
        assert tensors.keys() == STATES[node].keys()
        for name, tensor in tensors.items():
            assert tensor.dtype == STATES[node][name].dtype and torch.equal(tensor, STATES[node][name])
    assert manifest["version"] == 1 and manifest["libraries"]["torch"]
    assert names(saved) == [
        "README.md",
        "digit.safetensors",
        "im-age_2.safetensors",
        "manifest.json",
        "scm.yaml",
    ]
    assert set(manifest["files"]) == set(names(saved)) - {"manifest.json"}
    assert names(saved.parent) == ["model"]


def test_tensors_that_share_memory_are_saved_each(tmp_path):
    tensor = torch.arange(100.0)
    save_folder(tmp_path / "m", SPEC, {"x": {"all": tensor, "same": tensor, "part": tensor[:2]}})
    assert load_folder(tmp_path / "m")[1]["x"]["part"].tolist() == [0, 1]
    assert (tmp_path / "m" / "x.safetensors").stat().st_size < 1200


def test_the_same_model_is_the_same_bytes(saved, tmp_path):
    save_folder(tmp_path / "again", SPEC, STATES, "# Card\n")
    for name in names(saved):
        assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_files_are_as_readable_as_any(saved):
    mask = os.umask(0)
    os.umask(mask)
    assert all((path.stat().st_mode & 0o777) == 0o666 & ~mask for path in saved.iterdir())
    assert saved.stat().st_mode & 0o777 == 0o777 & ~mask


def test_a_model_replaces_a_model_and_keeps_what_is_not_one(saved):
    (saved / "samples").mkdir()
    (saved / "samples" / "0.png").write_bytes(b"picture")
    (saved / "notes.txt").write_text("mine")
    save_folder(saved, "causalgen: 1\n", {"other": {"a": torch.zeros(1)}})
    spec, states, _ = load_folder(saved)
    assert spec == "causalgen: 1\n" and list(states) == ["other"]
    assert names(saved) == ["manifest.json", "notes.txt", "other.safetensors", "samples", "scm.yaml"]
    assert (saved / "samples" / "0.png").read_bytes() == b"picture"
    assert names(saved.parent) == ["model"]


def test_an_empty_folder_is_taken_and_parents_are_made(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "a" / "b"):
        save_folder(folder, SPEC, {})
        assert load_folder(folder)[0] == SPEC


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    save_folder(tmp_path / "link", SPEC, {})
    assert (tmp_path / "link").is_symlink() and load_folder(tmp_path / "disk")[0] == SPEC


def test_other_peoples_folders_are_left_alone(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match="holds other things, and no model"):
        save_folder(tmp_path / "home", SPEC, STATES)
    (tmp_path / "home" / "manifest.json").write_text('{"name": "a web app"}')
    with pytest.raises(CheckpointError, match="holds other things, and no model"):
        save_folder(tmp_path / "home", SPEC, STATES)
    with pytest.raises(CheckpointError, match="it is no folder"):
        save_folder(tmp_path / "home" / "thesis.tex", SPEC, STATES)
    assert names(tmp_path / "home") == ["manifest.json", "thesis.tex"]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"Cannot save the model in .*file/model"):
        save_folder(tmp_path / "file" / "model", SPEC, STATES)
    with pytest.raises(CheckpointError, match=r"'\.\./x.safetensors' is no file of a saved model"):
        save_folder(tmp_path / "model", SPEC, {"../x": {"a": torch.zeros(1)}})
    assert names(tmp_path) == ["file"]


def test_a_failed_save_leaves_the_old_model(saved, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest, "write_synced", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save_folder(saved, "other", {})
    assert load_folder(saved)[0] == SPEC and names(saved.parent) == ["model"]


KILLED = """
import os, signal, sys, torch
import causalgen.saving.pretrained as checkpoint, causalgen.saving.manifest as manifest
written, real = 0, manifest.write_synced
def write(path, data):
    global written
    if written == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    written += 1
    real(path, data)
manifest.write_synced = write
checkpoint.save_folder(sys.argv[1], "new", {"x": {"a": torch.zeros(3)}})
"""


def test_a_save_killed_before_its_manifest_leaves_the_old_model(saved, tmp_path):
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", KILLED, saved, "2"], env=os.environ | paths, check=False)
    assert done.returncode == -signal.SIGKILL
    assert load_folder(saved)[0] == SPEC
    save_folder(saved, "newer", {})
    assert load_folder(saved)[0] == "newer"


def test_a_model_that_a_killed_save_left_aside_is_put_back(saved, monkeypatch):
    aside = saved.with_name(f".model.{'0' * 32}.old")
    saved.rename(aside)
    monkeypatch.setattr(
        Path, "rename", lambda *_: (_ for _ in ()).throw(OSError(30, "Read-only file system"))
    )
    with pytest.raises(
        CheckpointError, match=r"Read-only file system; a killed save .*: rename .*old to .*model"
    ):
        load_folder(saved)
    monkeypatch.undo()
    assert load_folder(saved)[0] == SPEC and names(saved.parent) == ["model"]


# --- damage ---


@pytest.mark.parametrize("name", ["digit.safetensors", "scm.yaml", "README.md"])
def test_a_flipped_bit_is_found(saved, name):
    data = bytearray((saved / name).read_bytes())
    data[-1] ^= 1
    (saved / name).write_bytes(data)
    with pytest.raises(ChecksumError, match=rf"{name} is damaged: its sha256"):
        load_folder(saved)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b""])
def test_a_truncated_file_is_found(saved, change):
    path = saved / "digit.safetensors"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ChecksumError, match=r"is damaged: expected .* bytes"):
        load_folder(saved)


def test_what_is_missing_is_told(saved, tmp_path):
    with pytest.raises(CheckpointError, match="There is no folder"):
        load_folder(tmp_path / "none")
    (saved / "digit.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"incomplete: digit\.safetensors is missing"):
        load_folder(saved)
    (saved / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"no saved model: it has no manifest\.json"):
        load_folder(saved)


def rewrite(folder: Path, change) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_a_newer_format_says_so(saved):
    rewrite(saved, lambda manifest: manifest.update(version=2, files="rearranged"))
    with pytest.raises(FormatVersionError, match=r"format version 2, .* up to 1. Update"):
        load_folder(saved)
    with pytest.raises(FormatVersionError):  # and is not overwritten
        save_folder(saved, SPEC, STATES)


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/etc/passwd", "a/b.safetensors", "..", "x.pkl", ""]
)
def test_no_name_leads_out_of_the_folder(saved, name):
    (saved.parent / "outside.safetensors").write_bytes(b"")
    rewrite(saved, lambda manifest: manifest["files"].update({name: {"size": 0, "sha256": ""}}))
    with pytest.raises(CheckpointError, match="is no file of a saved model"):
        load_folder(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.pop("files"),
        lambda manifest: manifest.update(version="1"),
        lambda manifest: manifest.update(version=True),
        lambda manifest: manifest.update(files=[]),
        lambda manifest: manifest["files"].update({"scm.yaml": {"size": "12", "sha256": ""}}),
        lambda manifest: manifest["files"].update({"scm.yaml": 3}),
        lambda manifest: manifest.update(format="something else"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(saved, change):
    rewrite(saved, change)
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        load_folder(saved)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "null"])
def test_a_manifest_that_is_no_json_object_is_refused(saved, text):
    (saved / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"manifest\.json is damaged"):
        load_folder(saved)


def test_a_manifest_without_a_spec_is_refused(saved):
    rewrite(saved, lambda manifest: manifest["files"].pop("scm.yaml"))
    with pytest.raises(CheckpointError, match=r"its manifest lists no scm\.yaml"):
        load_folder(saved)


def test_weights_whose_checksum_is_right_but_that_are_none(saved):
    from hashlib import sha256

    (saved / "digit.safetensors").write_bytes(b"nothing")
    said = {"size": 7, "sha256": sha256(b"nothing").hexdigest()}
    rewrite(saved, lambda manifest: manifest["files"].update({"digit.safetensors": said}))
    with pytest.raises(CheckpointError, match=r"Cannot read .*digit\.safetensors"):
        load_folder(saved)
