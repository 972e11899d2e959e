"""Pretrained models, loaded by name and saved to a folder.

Gallery models ship with the package, in the same format as any saved model.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import graphs
from causalgen.saving.checkpoint import MODEL, load_folder, save_folder
from causalgen.saving.declaration import Declaration, DeclaredModel
from causalgen.saving.hub import check_hub_id, hub_card, hub_folder, is_hub_id, push_folder
from causalgen.saving.weights import load_weights
from graphs.errors import CheckpointError, NotFittedError, UnknownNameError

__all__ = [
    "gallery_folder",
    "gallery_names",
    "load_pretrained",
    "model_folder",
    "push_to_hub",
    "save_pretrained",
]

_GALLERY = Path(graphs.__file__).parent / "gallery"


def gallery_names() -> tuple[str, ...]:
    """Names of the models that ship with the package, sorted."""
    return tuple(sorted(path.parent.name for path in _GALLERY.glob("*/manifest.json")))


def gallery_folder(name: str) -> Path:
    """The folder of a gallery model."""
    UnknownNameError.check("gallery model", name, gallery_names())
    return _GALLERY / name


def model_folder(name: Path | str) -> Path:
    """The folder of a gallery model or of a saved model; a folder of that name comes first."""
    folder = Path(name)
    if MODEL.found(folder):
        return folder
    if folder.name != str(name):
        known = ", ".join(gallery_names())
        if is_hub_id(name):
            raise CheckpointError(
                f"No folder {name!r}. A model on the Hugging Face Hub is read at one commit: give "
                f"from_pretrained({name!r}, revision='...'), its 40 digits. Nothing was downloaded."
            )
        raise CheckpointError(f"No folder {str(name)!r}. Give a saved model's folder, or one of: {known}.")
    if str(name) not in gallery_names():
        where = "the gallery, and no folder of that name"
        raise UnknownNameError.of("model", str(name), gallery_names(), where=where)
    return gallery_folder(str(name))


def load_pretrained(name: Path | str, revision: str | None = None) -> Declaration:
    """A saved model, every byte checked, with its weights: of a folder, the gallery, or a commit on the Hub.

    Raises:
        UnknownNameError: neither a folder nor a gallery model.
        CheckpointError: the folder is no saved model, is damaged, of a newer format, or its weights do not
            fit; or as for ``hub.hub_folder``.
    """
    folder = model_folder(name) if revision is None else hub_folder(name, revision)
    text, states, _ = load_folder(folder)
    weights = sum(tensor.nbytes for state in states.values() for tensor in state.values())
    declared = Declaration.parse(text, str(folder / "scm.yaml"), weights=weights)
    for node, mechanism in declared.mechanisms.items():
        if node not in states and mechanism.awaits_weights:
            continue
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
            raise NotFittedError(f"Node {node!r} has not been fitted: nothing to save. {mechanism.remedy}")
        if bad := mechanism.non_finite():
            raise CheckpointError(
                f"Weights of node {node!r} are no numbers: {bad}. Nothing was saved; fit the node again."
            )
    states = {node: mechanism.state_dict() for node, mechanism in declared.mechanisms.items()}
    save_folder(folder, declared.text(), states, card)
    return folder


def push_to_hub(
    self: DeclaredModel,
    repo: str,
    *,
    card: str | None = None,
    private: bool = True,
    message: str = "Save the model",
) -> str:
    """Save a fitted model to a repository of the Hugging Face Hub; a method of ``SCM``.

    The account is huggingface_hub's: of ``hf auth login``, or of the token in ``HF_TOKEN``.

    Args:
        self: the model.
        repo: "user/model"; made where there is none.
        card: the README, in Markdown; by default the nodes and how to load the model.
        private: whether a repository that is made is seen by its owner alone.
        message: of the commit.

    Returns:
        The commit, for ``SCM.from_pretrained(repo, revision=commit)``.

    Raises:
        NotFittedError: a mechanism has not been fitted.
        CheckpointError: no such name, or the Hub cannot be reached or refuses.
        MechanismError: a mechanism that no file can say.
    """
    check_hub_id(repo)
    declared = Declaration(self.graph, self.variables, self.mechanisms, self.name)
    card = hub_card(repo, self.name, declared.describe()) if card is None else card
    with TemporaryDirectory() as temporary:
        folder = save_pretrained(declared, Path(temporary) / "model", card)
        return push_folder(folder, repo, private=private, message=message)
