"""The Hugging Face Hub: what is read there is of one commit; what its library raises is one error of ours.

A name such as "user/model" says nothing about which weights: whoever owns it may change them, and may move a
branch or a tag. So reading asks for the commit, all 40 digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

from graphs.errors import CheckpointError

__all__ = ["check_commit", "hub_errors", "is_commit"]

_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_commit(revision: object) -> TypeGuard[str]:
    """Whether it is all digits of a commit."""
    return isinstance(revision, str) and _COMMIT.fullmatch(revision) is not None


def check_commit(revision: object, asked: str) -> str:
    """The commit, where it is one; ``asked`` is the function that was called, for the message."""
    if is_commit(revision):
        return revision
    raise CheckpointError(
        f"{asked}: revision is a commit, 40 hexadecimal digits, since a branch or a tag may come to mean "
        f"other weights; got {revision!r}. The page of the model lists them, under Files."
    )


@contextmanager
def hub_errors(what: str, instead: str) -> Iterator[Any]:
    """The library, for use within; ``what`` cannot be done where it fails, ``instead`` says what to give."""
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise CheckpointError(
            f"{what}: it needs huggingface_hub; in the checkout, pip install '.[hub]'."
        ) from error
    from huggingface_hub import errors

    try:
        yield hub
    except CheckpointError:
        raise
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        raise CheckpointError(
            f"{what}: the Hub cannot be reached, and the cache lacks it. Ask again online, or give {instead}."
        ) from error
    except Exception as error:  # of the library, and of the HTTP client beneath it
        found = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{what}: {type(error).__name__}: {found}") from error
