"""Saved models (checkpoints): the SCM file, the weights of each node as safetensors, and a manifest of both.

    scm.yaml                the model as written
    <node>.safetensors      the state of a node, where it has any
    README.md               the card, where there is one
    manifest.json           format version, library versions, size and sha256 of each of these; written last

The codec is that of ``saving.manifest``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from causalgen.saving.manifest import FolderFormat
from causalgen.saving.weights import read_tensors, tensor_bytes
from graphs.errors import CheckpointError

__all__ = ["MODEL", "load_folder", "save_folder"]

SPEC, CARD = "scm.yaml", "README.md"

MODEL = FolderFormat(
    "causalgen-model",
    "model",
    libraries=("causalgen", "torch", "pyro-ppl", "diffusers", "safetensors"),
    names=re.compile(r"scm\.yaml|README\.md|[A-Za-z_][A-Za-z0-9_-]*\.safetensors"),
    expected=f"{SPEC}, {CARD} or <node>.safetensors",
    keeps_others=True,
)


def save_folder(
    folder: Path | str,
    spec_text: str,
    state_dicts: Mapping[str, Mapping[str, Tensor]],
    card: str | None = None,
) -> None:
    """Save a model to a folder, atomically: the SCM file, tensors by node, the README in Markdown.

    A folder that holds a model already gets this one; files in it that belong to no model, such as pictures
    or samples, stay. Any other folder must be empty.

    Raises:
        CheckpointError: the folder holds something else, or cannot be written; it is unchanged then.
    """
    files = {SPEC: spec_text.encode()}
    files |= {f"{node}.safetensors": tensor_bytes(state) for node, state in state_dicts.items() if state}
    if card is not None:
        files[CARD] = card.encode()
    MODEL.save(folder, files.items())


def load_folder(folder: Path | str) -> tuple[str, dict[str, dict[str, Tensor]], dict[str, Any]]:
    """What ``save_folder`` saved, all of it checked: SCM file, tensors by node that has some, manifest.

    Raises:
        CheckpointError: no such folder, no manifest, a missing or unreadable file, or a name that
            leads out of the folder.
        ChecksumError: a file is not the one that was saved.
        FormatVersionError: a newer version of the format.
    """
    source = Path(folder)
    manifest, contents = MODEL.load(source)
    if SPEC not in contents:
        raise CheckpointError(f"The model in {source} is incomplete: its manifest lists no {SPEC}.")
    states = {
        name.removesuffix(".safetensors"): read_tensors(data, source / name)
        for name, data in contents.items()
        if name.endswith(".safetensors")
    }
    try:
        return contents[SPEC].decode(), states, manifest
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{source / SPEC} is not UTF-8: {error}.") from error
