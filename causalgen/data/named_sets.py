"""Data sets that a string names, ``morphomnist:DIR`` and ``morphomnist:DIR:test``, as columns by node.

A node takes the column of its name. Where there is none, the type decides as far as it can: the only
image node takes the images, the only categorical one the digits. Which of two numbers a node means only its
name can say: thickness, intensity, or a name given with ``columns``.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Literal

from causalgen.datasets.morphomnist import morphomnist
from graphs.errors import DataError
from graphs.variables import Variable

__all__ = ["morphomnist_columns", "split_source"]


def split_source(text: str) -> tuple[str, Literal["train", "test"]]:
    """The folder and the split that ``KIND:DIR``, ``KIND:DIR:train`` or ``KIND:DIR:test`` means.

    Raises:
        DataError: no folder.
    """
    kind, _, root = text.partition(":")
    split: Literal["train", "test"] = "test" if root.endswith(":test") else "train"
    root = root.removesuffix(f":{split}")
    if not root:
        raise DataError(f"{text!r} names no folder. Write {kind}:DIR or {kind}:DIR:test.")
    return root, split


def morphomnist_columns(
    text: str, variables: Mapping[str, Variable], names: Mapping[str, str]
) -> dict[str, object]:
    """The columns of Morpho-MNIST that these nodes mean, unchecked.

    Args:
        text: ``morphomnist:DIR``, perhaps with ``:train`` or ``:test``.
        variables: by node.
        names: the column that each node asks for.

    Raises:
        DataError: the folder does not hold the set, or a node means none of its columns.
    """
    columns = morphomnist(*split_source(text))
    by_type = {"image": "image", "categorical": "digit"}
    taken: dict[str, object] = {}
    for node, variable in variables.items():
        name = names[node]
        alike = [other for other, each in variables.items() if each.type == variable.type]
        if name not in columns and len(alike) == 1 and variable.type in by_type:
            name = by_type[variable.type]
        if name not in columns:
            near = get_close_matches(name, list(columns), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise DataError(
                f"Node {node!r} ({variable.describe()}) means no column of {text}.{hint} Columns: "
                f"{', '.join(columns)}. Name the node after its column, or give columns={{{node!r}: ...}}."
            )
        taken[node] = columns[name]
    return taken
