"""Pretrained models, loaded by name and saved to a folder.

Gallery models ship with the package, in the same format as any saved model.
"""

from __future__ import annotations

from pathlib import Path

import graphs
from causalgen.saving.checkpoint import MODEL, load_folder, save_folder
from causalgen.saving.declaration import Declaration
from causalgen.saving.weights import load_weights
from graphs.errors import CheckpointError, NotFittedError, UnknownNameError

__all__ = ["gallery_folder", "gallery_names", "load_pretrained", "model_folder", "save_pretrained"]

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
    if MODEL.found(folder):
        return folder
    if folder.name != str(name):
        known = ", ".join(gallery_names())
        raise CheckpointError(f"No folder {str(name)!r}. Give a saved model's folder, or one of: {known}.")
    return gallery_folder(str(name))


def load_pretrained(name: Path | str) -> Declaration:
    """A saved model, every byte checked, with its weights.

    Raises:
        UnknownNameError: neither a folder nor a gallery model.
        CheckpointError: the folder is no saved model, is damaged, of a newer format, or its weights do not
            fit.
    """
    folder = model_folder(name)
    text, states, _ = load_folder(folder)
    weights = sum(tensor.nbytes for state in states.values() for tensor in state.values())
    declared = Declaration.parse(text, str(folder / "scm.yaml"), weights=weights)
    for node, mechanism in declared.mechanisms.items():
        load_weights(mechanism, states.get(node, {}), f"Weights of node {node!r} in {name}")
        if bad := mechanism.non_finite():
            raise CheckpointError(
                f"Weights of node {node!r} in {name} are no numbers: {bad}. Fit the node again."
            )
    return declared


def save_pretrained(declared: Declaration, folder: Path, card: str | None) -> Path:
    """Write a fitted model to a folder, all or nothing; see ``SCM.save_pretrained``."""
    if not isinstance(card, str | None):
        raise CheckpointError(f"save_pretrained: card is Markdown text, got {card!r}.")
    for node, mechanism in declared.mechanisms.items():
        if not mechanism.fitted:
            raise NotFittedError(f"Node {node!r} has not been fitted: nothing to save. Call scm.fit(data).")
        if bad := mechanism.non_finite():
            raise CheckpointError(
                f"Weights of node {node!r} are no numbers: {bad}. Nothing was saved; fit the node again."
            )
    states = {node: mechanism.state_dict() for node, mechanism in declared.mechanisms.items()}
    save_folder(folder, declared.text(), states, card)
    return folder
