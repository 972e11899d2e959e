"""Named data sources: ``mnist:DIR``, ``morphomnist:DIR:test``, and those that plug-ins add by entry points.

A source is a class of the registry ``SOURCES``: built in, or an entry point of the group
``causalgen.datasets``, whose name is what stands before the colon. No source is imported before a string
names it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from numpy.typing import NDArray

from graphs.errors import DataError, did_you_mean
from graphs.variables import Variable
from mechanisms.registry import Registry

__all__ = ["DataSource", "SOURCES", "Split", "is_named", "named_columns", "source_of", "split_source"]

Split = Literal["train", "test"]


class DataSource(ABC):
    """A data set on this machine that ``KIND:DIR``, ``KIND:DIR:train`` or ``KIND:DIR:test`` names.

    Attributes:
        kind: what stands before the colon.
        defaults: type of a variable -> the column that the only node of this type takes, whatever its name.
    """

    kind: ClassVar[str]
    defaults: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def read(self, folder: str, split: Split) -> Mapping[str, NDArray[Any]]:
        """The columns of a split by name, each (N, *event); nothing is downloaded.

        Raises:
            DataError: the folder does not hold the set.
        """


def source_of(
    kind: str, read: Callable[[str, Split], Mapping[str, NDArray[Any]]], **defaults: str
) -> type[DataSource]:
    """The source of a data set that a function reads; ``defaults`` by type of variable."""
    members = {"kind": kind, "defaults": defaults, "__module__": read.__module__}
    members["__doc__"] = f"The data set {kind!r}."
    members["read"] = lambda self, folder, split: read(folder, split)
    return type(f"{read.__name__}_source", (DataSource,), members)


SOURCES: Registry[type[DataSource]] = Registry(
    "data set",
    "causalgen.datasets",
    DataSource,
    {
        "colour-digits": "causalgen.datasets.colour_digits:ColourDigitsSource",
        "faces": "causalgen.datasets.faces:FacesSource",
        "mnist": "causalgen.datasets.mnist:MNISTSource",
        "morphomnist": "causalgen.datasets.mnist:MorphoMNISTSource",
        "pendulum": "causalgen.datasets.pendulum:PendulumSource",
    },
)
"""The named data sets."""


def is_named(source: object) -> bool:
    """Whether ``source`` is a string that names a data set, rather than a path."""
    if not isinstance(source, str):
        return False
    kind, colon, _ = source.partition(":")
    return bool(colon) and kind in SOURCES.kinds()


def split_source(text: str) -> tuple[str, Split]:
    """The folder and the split that ``KIND:DIR``, ``KIND:DIR:train`` or ``KIND:DIR:test`` means."""
    kind, _, root = text.partition(":")
    split: Split = "test" if root.endswith(":test") else "train"
    root = root.removesuffix(f":{split}")
    if not root:
        raise DataError(f"{text!r} names no folder. Write {kind}:DIR or {kind}:DIR:test.")
    return root, split


def named_columns(
    text: str, variables: Mapping[str, Variable], names: Mapping[str, str]
) -> dict[str, object]:
    """The columns of a named data set that these nodes mean, unchecked.

    A node takes the column of its name. Where there is none, the type decides as far as it can: the only
    image node takes the images, the only categorical one the labels. Which of two numbers a node means only
    its name can say.
    """
    source = SOURCES.get(text.partition(":")[0])()
    columns = source.read(*split_source(text))
    taken: dict[str, object] = {}
    for node, variable in variables.items():
        name = names[node]
        alike = [other for other, each in variables.items() if each.type == variable.type]
        if name not in columns and name == node and len(alike) == 1:
            name = source.defaults.get(variable.type, name)
        if name not in columns:
            hint = did_you_mean(name, columns)
            raise DataError(
                f"Node {node!r} ({variable.describe()}) means no column of {text}.{hint} Columns: "
                f"{', '.join(columns)}. Name the node after its column."
            )
        taken[node] = columns[name]
    return taken
