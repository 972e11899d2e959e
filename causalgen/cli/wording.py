"""What errors and warnings say on the command line: their advice in its words, without Python's file names.

The library's messages advise a Python caller; ``WORDS`` says the same by options. What none of its patterns
match passes as it is.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

__all__ = ["WORDS", "in_command_words", "plain_warnings"]

WORDS = (
    (
        r"Column '(.*?)' of (.*?) means no node; '(.*?)', (.*?) Rename it '.*?', or take it out\.",
        r"Column '\1' of \2 means no node; '\3', \4 Give --rename '\1=\3', or take it out.",
    ),
    (r"^(There is no column '(.*?)'.* Columns: .*)$", r"\1 Name the one that is meant: --rename COLUMN=\2."),
    (r"Call scm\.fit\(data\)( first)?\.", "Fit it first: causalgen fit."),
    (r"give missing='drop' \(--missing drop\)", "give --missing drop"),
    (
        r"ask scm\.abduct\(\.\.\., particles=\.\.\.\) for more\.",
        "in Python, abduct(particles=...) takes more.",
    ),
    (
        r"Evidence is empty\. Give a value for (.*)\.$",
        r"Evidence is empty. Give --evidence, or --set node=value, for \1; rows that come with a model are "
        "--evidence samples.",
    ),
    (r"give them, as data=\.\.\.\.", "give --data."),
    (r"\(refits=\.\.\.\)", "(--refits N)"),
    (r"given=\{'(.*?)': \[(.*?)\]\}", r"--given \1=\2"),
    (r"Say given='(.*?)'", r"Say --given \1"),
    (r"Pass resume=True \(--resume\)", "Give --resume"),
    (r"resume=True \(--resume\)", "--resume"),
    (r"\((node|start)=, --\1\)", r"(--\1)"),
    (r"Name one by (\S+)=", r"Name one by --\1"),
    (r"Name one: node=\.\.\.", "Name one: --node NAME."),
    (r"give the label, which variable\.decode\(code\) tells\.", "give the label."),
    (r"Convert it first, as by value\.astype\(float\)\.", "Give numbers, in a JSON without quotes."),
    (r"Give a function, or a Policy, which see labels\.", "In Python, a function or a Policy sees labels."),
    (
        r"Give what it was fitted to, cg\.Rows\(\.\.\., intervened=\.\.\.\)\.",
        "Say by --intervened COLUMN=node.",
    ),
    (r"declares, as cg\.Categorical\((.*?)\);", r"declares, as categories: \1;"),
)
"""Patterns of the library's messages, and what the command line says instead."""


def in_command_words(text: str) -> str:
    """A message of the library as the command line says it.

    >>> in_command_words("Node 'x' has not been fitted: nothing to check. Call scm.fit(data).")
    "Node 'x' has not been fitted: nothing to check. Fit it first: causalgen fit."
    """
    for pattern, words in WORDS:
        text = re.sub(pattern, words, text)
    return text


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Warnings as one line each on standard error, without the place in Python that they come from."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        typer.echo(f"warning: {in_command_words(' '.join(str(message).split()))}", err=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
