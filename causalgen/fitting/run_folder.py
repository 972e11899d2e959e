"""Run folders: training checkpoints from which an interrupted fit resumes bit for bit, and its log.

    run.json               what is fitted, a node at a time: settings, seed, fingerprint of the data
    log.jsonl              one event a line
    <node>.safetensors     the latest state of a node: tensors, and a small JSON in its metadata

A state is one file, so that tensors and counters never come from two moments, and its checksum covers all of
it: tensors, values, and what the run is of. Manifest and tensors are read and written by the codec of
``saving.manifest``. Format 1, whose checksums cover the tensors alone, is read.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from causalgen.saving.atomic import exclusive, write_atomic
from causalgen.saving.manifest import check_version, read_json, tensor_bytes
from graphs.errors import CheckpointError, ChecksumError

__all__ = ["RunFolder", "State", "digest"]

FORMAT = 2


@dataclass
class State:
    """A moment of a fit: tensors by name, and the plain values beside them."""

    tensors: dict[str, Tensor]
    values: dict[str, Any] = field(default_factory=dict)


class RunFolder:
    """The part of a run folder, made when missing, that belongs to one node.

    ``identity`` is what the run is of, in plain values: a resumed run must have the same. ``resume`` goes on
    with what is there, instead of refusing a node that has been begun. ``writes`` is False for the processes
    that only read.

    Raises:
        CheckpointError: nothing to resume, something to resume and ``resume`` not given, another
            identity, or a folder that cannot be written.
    """

    def __init__(
        self, folder: Path | str, node: str, identity: Mapping[str, Any], *, resume: bool, writes: bool = True
    ) -> None:
        self.folder = Path(folder)
        self.node = node
        self.writes = writes
        self._resume = resume
        self._identity = json.loads(json.dumps(identity))
        try:
            self._open()
        except CheckpointError:
            raise
        except OSError as error:
            raise CheckpointError(
                f"Cannot use the run folder {self.folder}: {error.strerror or error}. Choose another one."
            ) from error

    @property
    def state_path(self) -> Path:
        """The file of this node's state."""
        return self.folder / f"{self.node}.safetensors"

    def log(self, event: str, **values: object) -> None:
        """Append one event of this node to ``log.jsonl``."""
        if not self.writes:
            return
        line = {"time": round(time.time(), 3), "event": event, "node": self.node, **values}
        path = self.folder / "log.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(_finite(line), allow_nan=False) + "\n")
        except OSError as error:
            raise CheckpointError(f"Cannot write {path}: {error.strerror or error}.") from error

    def save(self, state: State) -> None:
        """Replace this node's state, atomically."""
        if not self.writes:
            return
        metadata = {"values": json.dumps(state.values), "run": json.dumps(self._identity)}
        metadata["sha256"] = _seal(state.tensors, metadata)
        try:
            write_atomic(self.state_path, tensor_bytes(state.tensors, metadata))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"Cannot write {self.state_path}: {error}.") from error

    def finish(self, tensors: Mapping[str, Tensor], report: dict[str, Any]) -> None:
        """Keep a fitted mechanism and its report in place of the state: resumed, it is just loaded."""
        self.save(State(dict(tensors), {"report": report}))
        self.log("fitted", **{key: value for key, value in report.items() if key != "node"})

    def load(self) -> State | None:
        """This node's latest state, or None where a run has not come so far or is not resumed."""
        if not self._resume or not self.state_path.exists():
            return None
        try:
            with safe_open(self.state_path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            said = metadata.pop("sha256")
            if said not in (_seal(tensors, metadata), digest(tensors) if "run" not in metadata else None):
                raise ChecksumError(
                    f"The state {self.state_path} is damaged: its sha256 differs. "
                    f"Delete it to fit node {self.node!r} again."
                )
            values = json.loads(metadata["values"])
            self._check_same(json.loads(metadata.get("run", "null")))
        except CheckpointError:
            raise
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
            raise CheckpointError(
                f"Cannot read the state {self.state_path}: {error}. "
                f"Delete it to fit node {self.node!r} again."
            ) from error
        return State(tensors, values)

    def _open(self) -> None:
        path = self.folder / "run.json"
        if not self.writes:
            self._check(self._read(path))
            return
        if self._resume and not path.exists():
            raise CheckpointError(
                f"Nothing to resume in {self.folder}: it has no run.json. Fit without resume."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with exclusive(self.folder):  # other processes may fit other nodes
            run = self._read(path)
            self._check(run)
            run |= {"format": FORMAT, "nodes": {**run["nodes"], self.node: self._identity}}
            write_atomic(path, (json.dumps(run, indent=2) + "\n").encode())
            _end_last_line(self.folder / "log.jsonl")

    def _check(self, run: dict[str, Any]) -> None:
        known = run["nodes"].get(self.node)
        if known is not None and not self._resume and self.writes:
            raise CheckpointError(
                f"The run folder {self.folder} already holds a fit of node {self.node!r}. "
                f"Pass resume=True (--resume) to go on with it, or choose another folder."
            )
        if self._resume:
            self._check_same(known)

    def _check_same(self, known: Any) -> None:
        """Refuse another run; None where none is known."""
        if known is not None and known != self._identity:
            raise CheckpointError(
                f"Cannot resume node {self.node!r} in {self.folder}: {_differences(known, self._identity)}. "
                f"Resume with what the run began with, or begin in another folder."
            )

    def _read(self, path: Path) -> dict[str, Any]:
        if not path.exists():
            return {"format": FORMAT, "nodes": {}}
        run = read_json(path)
        if not isinstance(run, dict) or not isinstance(run.get("nodes"), dict):
            raise CheckpointError(f"{path} is damaged: it lists no nodes. Begin in another folder.")
        check_version(path, run.get("format"), FORMAT)
        return run


def _finite(value: object) -> object:
    """JSON has no infinity and no NaN: their names stand in."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _end_last_line(path: Path) -> None:
    """A killed process may have left half a line: end it, so that the next event has its own."""
    if path.exists() and path.stat().st_size:
        with path.open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A hash of tensors, their names and types."""
    hashed = sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hashed.update(tensor_bytes({"": tensor}))
    return hashed.hexdigest()


def _seal(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """A hash of a whole state: tensors, and all that is written beside them."""
    return sha256(json.dumps([digest(tensors), sorted(metadata.items())]).encode()).hexdigest()


def _differences(old: object, new: object) -> str:
    before, after = _flat(old), _flat(new)
    keys = [key for key in before | after if before.get(key) != after.get(key)]
    changes = [f"{key} was {before.get(key, 'absent')}, now {after.get(key, 'absent')}" for key in keys[:5]]
    return "; ".join(changes) + ("; ..." if len(keys) > 5 else "")


def _flat(value: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(value, dict):
        return {prefix: value}
    inner = [_flat(child, f"{prefix}.{key}" if prefix else str(key)) for key, child in value.items()]
    return {key: leaf for part in inner for key, leaf in part.items()}
