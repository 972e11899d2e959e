"""A saved model is a folder: what it is, its weights, and a manifest that vouches for both.

    scm.yaml                the model as written
    <node>.safetensors      the state of a node, where it has any
    README.md               the card, where there is one
    manifest.json           format version, library versions, size and sha256 of each of these; written last

No pickle anywhere. Saving builds the folder beside its place and renames it there, so that a crash leaves
the old model or the new one. Loading checks every byte before it means anything.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from glob import escape
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from causalgen.saving.atomic import swap_folder, sync_folder, write_synced
from causalgen.saving.libraries import library_versions
from graphs.errors import CheckpointError, ChecksumError, FormatVersionError

__all__ = ["FORMAT_VERSION", "load_folder", "save_folder"]

FORMAT = "causalgen-model"
FORMAT_VERSION = 1
SPEC, CARD, MANIFEST = "scm.yaml", "README.md", "manifest.json"
WEIGHTS = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\.safetensors")
LIBRARIES = ("causalgen", "torch", "pyro-ppl", "diffusers", "safetensors")
MANIFEST_BYTES = 16 * 2**20
"""Largest manifest that is parsed: 20,000 nodes take a fifth of it."""


def save_folder(
    folder: Path | str,
    spec_text: str,
    state_dicts: Mapping[str, Mapping[str, Tensor]],
    card: str | None = None,
) -> None:
    """Save a model to a folder, atomically.

    A folder that holds a model already gets this one; files in it that belong to no model, such as
    pictures or samples, stay. Any other folder must be empty.

    Args:
        folder: where to; its parent is made when missing.
        spec_text: the SCM file.
        state_dicts: tensors by node; a node without any gets no file.
        card: the README, in Markdown.

    Raises:
        CheckpointError: the folder holds something else, or cannot be written; it is unchanged then.
    """
    target = Path(folder).resolve()
    files = {SPEC: spec_text.encode()}
    files |= {f"{node}.safetensors": _serialise(state) for node, state in state_dicts.items() if state}
    if card is not None:
        files[CARD] = card.encode()
    for name in files:
        _check_name(name, f"the model to be saved in {target}")
    with _as_checkpoint_error(f"Cannot save the model in {target}"):
        kept = _foreign_files(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
        temporary.mkdir()
        try:
            _fill(temporary, files, kept)
            swap_folder(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def load_folder(folder: Path | str) -> tuple[str, dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Load what ``save_folder`` saved, having checked all of it.

    Returns:
        The SCM file, tensors by node (only nodes that have some), and the manifest.

    Raises:
        CheckpointError: no such folder, no manifest, a missing or unreadable file, or a name that
            leads out of the folder.
        ChecksumError: a file is not the one that was saved.
        FormatVersionError: a newer version of the format.
    """
    source = Path(folder)
    with _as_checkpoint_error(f"Cannot load the model in {source}"):
        manifest = _read_manifest(source)
        contents = {name: _read_checked(source, name, said) for name, said in manifest["files"].items()}
    if SPEC not in contents:
        raise CheckpointError(f"The model in {source} is incomplete: its manifest lists no {SPEC}.")
    states: dict[str, dict[str, Tensor]] = {}
    for name, data in contents.items():
        if name.endswith(".safetensors"):
            try:
                states[name.removesuffix(".safetensors")] = load(data)
            except SafetensorError as error:
                raise CheckpointError(f"Cannot read {source / name}: {error}.") from error
    try:
        return contents[SPEC].decode(), states, manifest
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{source / SPEC} is not UTF-8: {error}.") from error


def _serialise(state: Mapping[str, Tensor]) -> bytes:
    # Clones: safetensors refuses views of one memory, and views of a larger one are written whole.
    return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()})


def _fill(folder: Path, files: Mapping[str, bytes], kept: list[Path]) -> None:
    for path in kept:
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, folder / path.name, symlinks=True)
        else:
            shutil.copy2(path, folder / path.name, follow_symlinks=False)
    for name, data in files.items():
        write_synced(folder / name, data)
    manifest = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "libraries": library_versions(LIBRARIES),
        "files": {
            name: {"size": len(data), "sha256": sha256(data).hexdigest()} for name, data in files.items()
        },
    }
    write_synced(folder / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())
    sync_folder(folder)


def _foreign_files(target: Path) -> list[Path]:
    """What a saved model's folder holds besides the model; refuses a folder that is no model's."""
    if not target.exists():
        return []
    if not target.is_dir():
        raise CheckpointError(f"Cannot save a model in {target}: it is no folder. Choose another place.")
    inside = list(target.iterdir())
    if not inside:
        return []
    try:
        ours = set(_read_manifest(target)["files"]) | {MANIFEST}
    except FormatVersionError:
        raise
    except CheckpointError as error:
        raise CheckpointError(
            f"Cannot save a model in {target}: the folder holds other things, and no model. "
            "Choose an empty or a new folder."
        ) from error
    return [path for path in inside if path.name not in ours]


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not folder.is_dir():
        place = folder.resolve()
        aside = (
            next(place.parent.glob(f".{escape(place.name)}.*.old"), None) if place.parent.is_dir() else None
        )
        hint = f" A save was interrupted: the model before it is {aside}; rename it." if aside else ""
        raise CheckpointError(
            f"There is no folder {folder}; a saved model is a folder with a {MANIFEST}.{hint}"
        )
    if not path.is_file():
        raise CheckpointError(f"{folder} is no saved model: it has no {MANIFEST}.")
    if path.stat().st_size > MANIFEST_BYTES:
        raise CheckpointError(f"{path} is damaged: it is larger than {MANIFEST_BYTES:,} bytes.")
    try:
        manifest = json.loads(path.read_bytes())
        if manifest["format"] != FORMAT:
            raise CheckpointError(f"{path} is no manifest of a model: its format is {manifest['format']!r}.")
        number = manifest["version"]
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ValueError(f"version {number!r}")
        if number > FORMAT_VERSION:
            raise FormatVersionError(
                f"The model in {folder} has format version {number}, this causalgen reads up to "
                f"{FORMAT_VERSION}. Update causalgen."
            )
        for name, said in manifest["files"].items():
            _check_name(name, str(path))
            if type(said["size"]) is not int or type(said["sha256"]) is not str:
                raise ValueError(f"size or sha256 of {name!r}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {type(error).__name__}: {error}.") from error
    return manifest


def _check_name(name: str, where: str) -> None:
    """Only names that a model has: no folders, no dots, nothing that leads elsewhere."""
    if name not in (SPEC, CARD) and not WEIGHTS.fullmatch(name):
        raise CheckpointError(
            f"{name!r} is no file of a saved model, in {where}: "
            f"expected {SPEC}, {CARD} or <node>.safetensors."
        )


def _read_checked(folder: Path, name: str, said: Mapping[str, Any]) -> bytes:
    path = folder / name
    if not path.is_file():
        raise CheckpointError(f"The model in {folder} is incomplete: {name} is missing.")
    size = path.stat().st_size  # before reading: a wrong file may be of any size
    if size != said["size"]:
        raise ChecksumError(
            f"{path} is damaged: expected {said['size']:,} bytes, got {size:,}. "
            "Copy or download the model again."
        )
    data = path.read_bytes()
    if sha256(data).hexdigest() != said["sha256"]:
        raise ChecksumError(
            f"{path} is damaged: its sha256 is not the one in {MANIFEST}. Copy or download the model again."
        )
    return data


@contextmanager
def _as_checkpoint_error(what: str) -> Iterator[None]:
    try:
        yield
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{what}: {error.strerror or error}.") from error
