"""Models on the Hugging Face Hub: the saved folder as a repository, read at one commit and never at another.

Reading asks for a commit (see ``mechanisms.hub``), and gets the manifest of that commit and the files which
it lists, each checked by size and sha256; no other file of the repository is touched. What was read once is
in huggingface_hub's cache and needs no network again. Without a commit nothing is asked of the network.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from causalgen.saving.checkpoint import MODEL
from graphs.errors import CheckpointError
from graphs.text import markdown
from mechanisms.hub import check_commit, hub_errors

__all__ = ["check_hub_id", "hub_card", "hub_folder", "is_hub_id", "push_folder"]

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


def is_hub_id(name: object) -> bool:
    """Whether a name looks like "user/model"."""
    return isinstance(name, str) and _ID.fullmatch(name) is not None


def hub_folder(name: object, revision: object) -> Path:
    """The folder of a model "user/model" on the Hub at a commit; downloaded where the cache lacks it.

    The revision has 40 hexadecimal digits: a branch or a tag may be moved.

    Raises:
        CheckpointError: no such name or commit, no model there, or the Hub cannot be reached.
    """
    name = check_hub_id(name)
    commit = check_commit(revision, "from_pretrained")
    with hub_errors(
        f"Cannot get the model {name} at {commit[:8]} from the Hub", "the folder of a copy"
    ) as hub:
        folder = Path(hub.hf_hub_download(name, MODEL.manifest, revision=commit)).parent
        for file in MODEL.read_manifest(folder)["files"]:
            hub.hf_hub_download(name, file, revision=commit)
    return folder


def check_hub_id(name: object) -> str:
    """The name, where it is one."""
    if isinstance(name, str) and is_hub_id(name):
        return name
    raise CheckpointError(f"A model on the Hub is named as in 'user/model', got {name!r}.")


def push_folder(folder: Path, repo: str, *, private: bool, message: str) -> str:
    """Commit a saved model's folder to a repository, which is made where there is none; gives the commit.

    Raises:
        CheckpointError: the Hub cannot be reached or refuses.
    """
    with hub_errors(f"Cannot push the model to {repo} on the Hub", "the folder of a copy") as hub:
        api = hub.HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        options: dict[str, Any] = {"commit_message": message, "delete_patterns": "*.safetensors"}
        return str(api.upload_folder(repo_id=repo, folder_path=folder, **options).oid)


def hub_card(repo: str, name: str | None, described: str) -> str:
    """The README of a repository whose model has no card of its own: its nodes, and how to load it."""
    nodes = "\n".join(f"    {line}" for line in described.splitlines())
    return _CARD.format(name=markdown(name or repo.partition("/")[2]), nodes=nodes, repo=repo)
