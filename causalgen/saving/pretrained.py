"""Saved models by name: gallery models and folders.

Gallery models ship with the package, in the same format as any saved model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

import graphs
from causalgen.saving.checkpoint import load_folder
from causalgen.saving.declaration import Declaration
from graphs.errors import CheckpointError, UnknownNameError

__all__ = ["gallery_folder", "gallery_names", "load_pretrained", "model_folder"]

_GALLERY = Path(graphs.__file__).parent / "gallery"


def gallery_names() -> tuple[str, ...]:
    """Names of the models that ship with the package, sorted."""
    return tuple(sorted(path.parent.name for path in _GALLERY.glob("*/manifest.json")))


def gallery_folder(name: str) -> Path:
    """The folder of a gallery model.

    Raises:
        UnknownNameError: there is no such model.
    """
    if name not in gallery_names():
        raise UnknownNameError.of("gallery model", name, gallery_names())
    return _GALLERY / name


def model_folder(name: Path | str) -> Path:
    """The folder of a gallery model or of a saved model; a folder of that name comes first.

    Raises:
        UnknownNameError: neither a folder nor a gallery model.
        CheckpointError: a path where there is no folder.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    if folder.name != str(name):
        known = ", ".join(gallery_names())
        raise CheckpointError(f"No folder {str(name)!r}. Give a saved model's folder, or one of: {known}.")
    return gallery_folder(str(name))


def load_pretrained(name: Path | str) -> tuple[Declaration, Mapping[str, Mapping[str, Tensor]]]:
    """What a saved model holds, every byte checked: its declaration, and weights by node.

    Raises:
        UnknownNameError: neither a folder nor a gallery model.
        CheckpointError: the folder is no saved model, is damaged, or of a newer format.
    """
    folder = model_folder(name)
    text, states, _ = load_folder(folder)
    return Declaration.parse(text, str(folder / "scm.yaml")), states
