"""Saved models: a gallery name or a folder -> a fitted SCM, and back.

Gallery models ship with the package, in the same format as any saved model.
"""

from __future__ import annotations

from pathlib import Path

import graphs
from causalgen.checkpoint import load_folder, save_folder
from causalgen.declaration import parse_scm, write_scm
from causalgen.scm import SCM
from graphs.errors import CheckpointError, NotFittedError, UnknownNameError

__all__ = ["gallery_folder", "gallery_names", "load_pretrained", "save_pretrained"]

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


def load_pretrained(name: Path | str) -> SCM:
    """A fitted model from the gallery or from a folder; a folder of that name comes first.

    Raises:
        UnknownNameError: neither a folder nor a gallery model.
        CheckpointError: the folder is no saved model, or weights do not fit what its file declares.
    """
    folder = Path(name)
    if not folder.is_dir():
        if folder.name != str(name):
            raise CheckpointError(f"No folder {str(name)!r}. Give a saved model's folder, or one of {gallery_names()}.")
        folder = gallery_folder(str(name))
    text, states, _ = load_folder(folder)
    scm = parse_scm(text, str(folder / "scm.yaml"))
    for node, mechanism in scm.mechanisms.items():
        try:
            mechanism.load_state_dict(states.get(node, {}))
        except RuntimeError as error:
            raise CheckpointError(f"Weights of node {node!r} in {folder} do not fit its file: {error}") from error
    return scm


def save_pretrained(scm: SCM, folder: Path | str, *, card: str | None = None) -> Path:
    """Write a fitted model to a folder, all or nothing.

    Raises:
        NotFittedError: a mechanism has not been fitted.
        CheckpointError: the folder cannot be written, or holds something else.
        MechanismError: a mechanism that no file can say.
    """
    for node, mechanism in scm.mechanisms.items():
        if not mechanism.fitted:
            raise NotFittedError(f"Node {node!r} has not been fitted: nothing to save. Call scm.fit(data) first.")
    states = {node: mechanism.state_dict() for node, mechanism in scm.mechanisms.items()}
    save_folder(folder, write_scm(scm), states, card)
    return Path(folder)
