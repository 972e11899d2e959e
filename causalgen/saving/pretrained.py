"""Saved models (checkpoints): the SCM file, the weights of each node as safetensors, and a manifest of both.

    scm.yaml                the model as written
    <node>.safetensors      the state of a node, where it has any
    README.md               the card, where there is one
    manifest.json           format version, library versions, size and sha256 of each of these; written last

The codec is that of ``saving.manifest``. Gallery models ship with the package, in the same format.

On the Hugging Face Hub a saved folder is a repository, read at one commit and never at another. Reading asks
for a commit (see ``mechanisms.hub``), and gets the manifest of that commit and the files which it lists, each
checked by size and sha256; no other file of the repository is touched. What was read once is in
huggingface_hub's cache and needs no network again. Without a commit nothing is asked of the network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

import graphs
from causalgen.saving.declaration import Declaration, DeclaredModel
from causalgen.saving.manifest import FolderFormat, load_weights, read_tensors, tensor_bytes
from graphs.errors import CheckpointError, NotFittedError, UnknownNameError
from graphs.text import markdown
from mechanisms.hub import check_commit, hub_errors

__all__ = [
    "MODEL",
    "gallery_folder",
    "gallery_names",
    "hub_folder",
    "load_folder",
    "load_pretrained",
    "model_folder",
    "push_to_hub",
    "save_folder",
    "save_pretrained",
]

SPEC, CARD = "scm.yaml", "README.md"

MODEL = FolderFormat(
    "causalgen-model",
    "model",
    libraries=("causalgen", "torch", "pyro-ppl", "diffusers", "safetensors"),
    names=re.compile(r"scm\.yaml|README\.md|[A-Za-z_][A-Za-z0-9_-]*\.safetensors"),
    expected=f"{SPEC}, {CARD} or <node>.safetensors",
    keeps_others=True,
)

_GALLERY = Path(graphs.__file__).parent / "gallery"

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")

_CARD = """---
library_name: causalgen
tags: [causal-inference, counterfactual, structural-causal-model]
---

# {name}

A structural causal model:

{nodes}

Load it at one commit, whose 40 digits the Hub shows under "Files" and `push_to_hub` returned:

    import causalgen as cg
    scm = cg.SCM.from_pretrained("{repo}", revision="...")
"""


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
        if isinstance(name, str) and _ID.fullmatch(name):
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
            fit; or as for ``hub_folder``.
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
    _check_hub_id(repo)
    declared = Declaration(self.graph, self.variables, self.mechanisms, self.name)
    if card is None:
        nodes = "\n".join(f"    {line}" for line in declared.describe().splitlines())
        card = _CARD.format(name=markdown(self.name or repo.partition("/")[2]), nodes=nodes, repo=repo)
    options: dict[str, Any] = {"commit_message": message, "delete_patterns": "*.safetensors"}
    with TemporaryDirectory() as temporary:
        folder = save_pretrained(declared, Path(temporary) / "model", card)
        with hub_errors(f"Cannot push the model to {repo} on the Hub", "the folder of a copy") as hub:
            api = hub.HfApi()
            api.create_repo(repo, private=private, exist_ok=True)
            return str(api.upload_folder(repo_id=repo, folder_path=folder, **options).oid)


def hub_folder(name: object, revision: object) -> Path:
    """The folder of a model "user/model" on the Hub at a commit; downloaded where the cache lacks it.

    The revision has 40 hexadecimal digits: a branch or a tag may be moved.

    Raises:
        CheckpointError: no such name or commit, no model there, or the Hub cannot be reached.
    """
    name = _check_hub_id(name)
    commit = check_commit(revision, "from_pretrained")
    with hub_errors(
        f"Cannot get the model {name} at {commit[:8]} from the Hub", "the folder of a copy"
    ) as hub:
        folder = Path(hub.hf_hub_download(name, MODEL.manifest, revision=commit)).parent
        for file in MODEL.read_manifest(folder)["files"]:
            hub.hf_hub_download(name, file, revision=commit)
    return folder


def _check_hub_id(name: object) -> str:
    """The name, where it is one as in "user/model"."""
    if isinstance(name, str) and _ID.fullmatch(name):
        return name
    raise CheckpointError(f"A model on the Hub is named as in 'user/model', got {name!r}.")
