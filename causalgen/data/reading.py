"""Read training data of any common kind into one checked ``Table``; errors are raised before training starts.

    DataFrame                       a column for each variable; of pandas, polars, pyarrow and others
    dict of arrays                  the same; images as arrays, PIL images or paths
    "train.csv", "train.parquet"    the same; image columns hold paths, relative to the table's folder, or,
                                    of Parquet, the bytes of picture files
    a torchvision-style data set    (image, label) items
    "mnist:DIR", "mnist:DIR:test"   a named data set; morphomnist, and those of plug-ins: ``data.sources``

A variable of shape (k,) is one column of k numbers each, or the k columns ``name_0`` .. ``name_{k-1}``,
or ``name[0]`` .. where another variable has such a name; one of shape (2, 3) likewise six, row by row.
Row numbers in messages count data rows from 0.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, cast

import numpy as np
from numpy.typing import NDArray

from causalgen.data.arrow_tables import is_arrow
from causalgen.data.csv_table import TRUTH
from causalgen.data.frames import (
    arrow_columns,
    file_columns,
    frame_columns,
    join_columns,
    refuse_other_index,
    vector_columns,
)
from causalgen.data.pictures import picture_column
from causalgen.data.sources import SOURCES, is_named, named_columns
from causalgen.data.table import Table
from causalgen.saving.pretrained import model_folder
from graphs.errors import DataError, DomainError, UnknownNameError, did_you_mean
from graphs.scm_file import read_spec
from graphs.text import counted
from graphs.variables import Categorical, Image, Variable
from graphs.variables.arrays import as_array
from graphs.variables.gaps import fill_gaps
from graphs.variables.picture import is_picture

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = [
    "Dataset",
    "Rows",
    "SAMPLES",
    "Table",
    "dataset_columns",
    "is_dataset",
    "read_data",
    "sample_rows",
]

SAMPLES = Path("samples") / "rows.csv"
"""Where a model's folder keeps its sample rows."""

_SHOWN = 5
"""Columns with gaps that an error names."""


class Dataset(Protocol):
    """Anything with a length and numbered items."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> object: ...


def is_dataset(source: object) -> TypeGuard[Dataset]:
    """Whether ``source`` is a sequence of items in torchvision's style, and no mapping or table."""
    named = isinstance(source, (Mapping, str, bytes, Path)) or hasattr(source, "columns")
    return not named and hasattr(source, "__len__") and hasattr(source, "__getitem__")


def dataset_columns(source: Dataset, variables: Mapping[str, Variable]) -> dict[str, object]:
    """The columns that a data set has for these variables, unchecked: the only image and the only category.

    Where it holds plain arrays and transforms nothing (MNIST, CIFAR), they are taken whole, not an item at a
    time.
    """
    named = isinstance(source, (list, tuple)) and len(source) > 0 and isinstance(source[0], Mapping)
    if named or getattr(getattr(source, "dtype", None), "names", None):
        raise DataError(
            f"The data are a {type(source).__name__} of rows that name their values each. Make a table of "
            "them, as by pandas.DataFrame(rows)."
        )
    image, label = _names(variables)
    arrays = _whole(source)
    if arrays is None:
        arrays = _items(source, image, cast(Image, variables[image]))
    images, labels = arrays
    return {image: images} | ({} if label is None else {label: labels})


def _names(variables: Mapping[str, Variable]) -> tuple[str, str | None]:
    images = [name for name, variable in variables.items() if variable.type == "image"]
    labels = [name for name, variable in variables.items() if variable.type == "categorical"]
    if len(images) != 1 or len(labels) > 1 or len(images) + len(labels) < len(variables):
        found = ", ".join(f"{name} ({variable.describe()})" for name, variable in variables.items())
        raise DataError(
            "A data set of (image, label) items fits one image variable and at most one categorical "
            f"variable; the model has {found}. Give a table or a dict of arrays, with a column for each."
        )
    return images[0], labels[0] if labels else None


def _whole(source: Dataset) -> tuple[object, object] | None:
    """Its arrays as (N, C, H, W) or (N, H, W) uint8 and labels, where it holds such and changes nothing."""
    data, targets = getattr(source, "data", None), getattr(source, "targets", None)
    changes = any(
        getattr(source, name, None) is not None for name in ("transform", "target_transform", "transforms")
    )
    if data is None or targets is None or changes:
        return None
    images = as_array(data, where="The data set's images")
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or len(images) != len(source):
        return None
    # torchvision keeps colour images channels last, as PIL does.
    return (np.moveaxis(images, -1, 1) if images.ndim == 4 else images), targets


def _items(source: Dataset, image: str, variable: Image) -> tuple[NDArray[Any], list[object]]:
    images: list[object] = []
    labels: list[object] = []
    for row in range(len(source)):
        where = f"The data set's image ({image!r}), row {row}"
        try:
            item = source[row]
        except Exception as error:
            raise DataError(f"The data set's row {row} cannot be read: {error}.") from error
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise DataError(
                f"The data set's row {row}: expected a pair (image, label), got {type(item).__name__}."
            )
        picture, target = cast(tuple[object, object], tuple(item))
        # Pictures become bytes at once: decoded lazily, they would keep their files open.
        if is_picture(picture):
            picture = picture_column([picture], variable, column=where, folder=None)[0]
        images.append(picture)
        # A 0-dimensional tensor or array is a plain number.
        plain = getattr(target, "item", None)
        labels.append(plain() if callable(plain) else target)
    return as_array(images, where=f"The data set's images ({image!r})"), labels


@dataclass(frozen=True)
class Rows:
    """Data and what they do not say by themselves; given where data are.

    A value that an experiment set, as in a trial of assigned doses, tells nothing of how it comes about by
    itself: its node's mechanism is fitted to the other rows, those of its children to all (Cooper and Yoo
    1999). Whether it was set may depend on the node's parents, and on nothing else that bears on the node.

    Attributes:
        source: the data, as ``scm.fit`` takes them.
        columns: the column of each node that is not named like it.
        intervened: by node, the rows in which an experiment set it: (N,) truth values or 0 and 1, or the name
            of a column of them. ``fit``, ``check`` and the ``refits`` of an effect take such rows.
    """

    source: object
    columns: Mapping[str, str] = field(default_factory=dict)
    intervened: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, given in (("columns", self.columns), ("intervened", self.intervened)):
            if not isinstance(given, Mapping):
                raise DataError(
                    f"Rows: {name} is a mapping of nodes, as in {{'dose': 'a column'}}, got {given!r}."
                )


def read_data(
    source: object,
    variables: Mapping[str, Variable],
    columns: Mapping[str, str] | None = None,
    *,
    gaps: bool = False,
    missing: str | None = None,
    partial: bool = True,
    nodes: Collection[str] | None = None,
    experiments: bool = False,
) -> Table:
    """Read and check the data of some variables into a table with a column for each, in their order.

    For the source see the head of this module; a ``Table`` is only checked to have the columns, and of
    ``Rows`` what is said of other nodes is passed over. ``columns`` names those by node that differ from the
    node's. With ``gaps`` rows may lack a value (None, NaN, an empty cell); ``table.gaps`` says which do.
    ``missing`` is the argument of that name of whoever asks: "drop" lets rows lack a value, "refuse" does
    not, and advises "drop"; None where there is none. ``partial`` says whether a vector with some numbers
    missing counts as lacking a value, or is refused. ``nodes`` are all nodes of the model, where they are
    known: ``Rows`` of others are refused. ``experiments`` says whether rows will do in which an experiment
    set a node.
    """
    if missing not in ("refuse", "drop", None):
        raise DataError(f"missing is 'refuse' or 'drop', got {missing!r}.")
    allowed = gaps or missing == "drop"
    if isinstance(source, Rows):
        for node in () if nodes is None else (*source.columns, *source.intervened):
            UnknownNameError.check("node", node, nodes or (), where="Rows")
        if source.intervened and not experiments:
            named = ", ".join(map(repr, source.intervened))
            raise DataError(
                f"Rows in which an experiment set {named} will not do here: every value is taken for one "
                "that came about by itself. Give other rows."
            )
        said = {node: name for node, name in source.columns.items() if node in variables}
        table = read_data(
            source.source, variables, said | {**(columns or {})}, gaps=gaps, missing=missing, partial=partial
        )
        _mark(table, source)
        return table
    for node in columns or {}:
        UnknownNameError.check("node", node, variables, where="columns")
    names = {node: (columns or {}).get(node, node) for node in variables}
    if isinstance(source, Table):
        _need(names.values(), source, "The rows of the table")
        masks = {node: source.gaps[name] for node, name in names.items() if name in source.gaps}
        _refuse_gaps(masks, names, " of the table", allowed=allowed, droppable=missing is not None)
        marked = {node: source.intervened[name] for node, name in names.items() if name in source.intervened}
        columns_of = {node: source[name] for node, name in names.items()}
        return Table(columns_of, masks, source.numbers, intervened=marked)
    raw, origin, folder = _open(source, variables, names)
    if any(map(_is_empty, raw.values())):
        raise DataError(f"There are no rows{origin or ' in the data'}: expected at least one.")
    wheres = {node: f"Column {names[node]!r}{origin}" for node in variables}
    tidy = {node: _fill(raw[node], variable, wheres[node], partial) for node, variable in variables.items()}
    masks = {node: mask for node, (_, mask) in tidy.items() if mask is not None}
    # Before the pictures are read, which may take minutes.
    _refuse_gaps(masks, names, origin, allowed=allowed, droppable=missing is not None)
    return Table(
        {node: _check(tidy[node][0], variable, wheres[node], folder) for node, variable in variables.items()},
        masks,
    )


def read_clusters(source: object, clusters: object, rows: int) -> NDArray[np.int64]:
    """The number of the cluster that each row is in, (N,): by a column of the source, or a label a row."""
    from pandas import factorize

    labels, where = _labels(source.source if isinstance(source, Rows) else source, clusters, rows, "Clusters")
    numbers, _ = factorize(labels)
    if (alone := numbers < 0).any():
        raise DataError(
            f"{where}: {counted(int(alone.sum()), 'row')} in no cluster, first row {int(alone.argmax())}. "
            "Give each of them a label of its own, or leave it out."
        )
    return numbers.astype(np.int64)


def _labels(source: object, given: object, rows: int, what: str) -> tuple[NDArray[Any], str]:
    """A label of each row, (N,), by a column of the source or one for each; and what they are, in words."""
    if isinstance(given, str):
        try:
            raw, origin, _ = _open(source, {given: Categorical(["0", "1"])}, {given: given})
        except DataError as error:
            raise DataError(f"{what}: {error}") from error
        given, what = raw[given], f"Column {given!r}{origin}"
    else:
        refuse_other_index({what: given, "data": source}, "Rows of", DataError)
    labels = as_array(given, where=what)
    if labels.shape != (rows,):
        raise DataError(f"{what} must be a label for each of the {rows:,} rows, got shape {labels.shape}.")
    return labels, what


def _mark(table: Table, said: Rows) -> None:
    """Mark in a table in which rows an experiment set a node."""
    for node, given in said.intervened.items():
        labels, what = _labels(said.source, given, table.rows, f"intervened[{node!r}]")
        codes = {**TRUTH, "1": 1, "1.0": 1, "0": 0, "0.0": 0}
        told = [codes.get(str(label)) for label in labels.tolist()]
        if None in told:
            row = told.index(None)
            raise DataError(
                f"{what}, row {row} is {labels.tolist()[row]!r}: expected whether {node!r} was set in it, "
                "True or False, or 1 or 0."
            )
        table.intervened[node] = np.array(told, np.bool_)


def sample_rows(name: str | Path) -> dict[str, NDArray[Any]]:
    """Sample rows of a gallery model or of a saved model's folder, by node.

    They are evidence as they stand, and rows for ``evaluate`` and ``check``: labels where a category has
    some, images uint8 (N, C, H, W). The model was not fitted on them: a table and PNGs beside its weights.

    Raises:
        UnknownNameError: no such model.
        DataError: the model has no sample rows.
    """
    folder = model_folder(name)
    if not (folder / SAMPLES).is_file():
        raise DataError(f"The model {name} has no rows of its own. Give rows of yours.")
    spec, _ = read_spec(folder / "scm.yaml")
    variables = {node: each.variable for node, each in spec.nodes.items()}
    return {
        node: values if values.dtype == np.uint8 else np.asarray(variables[node].decode(values))
        for node, values in read_data(folder / SAMPLES, variables).items()
    }


def _open(
    source: object, variables: Mapping[str, Variable], names: Mapping[str, str]
) -> tuple[Mapping[str, object], str, Path | None]:
    """Unchecked columns by node, what they are of (for messages), and the folder of their paths."""
    if isinstance(source, str) and is_named(source):
        return named_columns(source, variables, names), f" of {source}", None
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        return file_columns(path, variables, names), f" of {path.name}", path.parent
    if hasattr(source, "columns") and hasattr(source, "iloc"):
        frame = cast("DataFrame", source)
        return frame_columns(frame, variables, names, " of the data frame"), " of the data frame", None
    if is_arrow(source):
        return arrow_columns(source, variables, names), " of the data frame", None
    if isinstance(source, Mapping):
        return _of_mapping(source, variables, names), "", None
    if is_dataset(source):
        return dataset_columns(source, variables), " of the data set", None
    named = ", ".join(f"'{kind}:DIR'" for kind in SOURCES.kinds())
    raise DataError(
        f"Cannot read data from a {type(source).__name__}: expected a DataFrame, a dict of arrays, the path "
        "of a CSV or Parquet table, a data set of (image, label) items, or "
        f"a named one: {named}."
    )


def _of_mapping(
    source: Mapping[str, object], variables: Mapping[str, Variable], names: Mapping[str, str]
) -> dict[str, object]:
    """Columns by node; a vector may be spread over one for each of its numbers, as in a frame."""
    spread = {
        node: parts
        for node, name in names.items()
        if name not in source
        and (parts := vector_columns(name, variables[node], source, names.values()))
        and all(part in source for part in parts)
    }
    plain = {node: name for node, name in names.items() if node not in spread}
    _need(plain.values(), source, "The data")
    read = [*plain.values(), *(part for parts in spread.values() for part in parts)]
    refuse_other_index({name: source[name] for name in read}, "Column", DataError)
    try:
        joined = {
            node: join_columns(source, parts, variables[node], "Column") for node, parts in spread.items()
        }
    except DomainError as error:
        raise DataError(str(error)) from error
    return {node: joined[node] if node in joined else source[plain[node]] for node in names}


def _refuse_gaps(
    gaps: Mapping[str, NDArray[np.bool_]],
    names: Mapping[str, str],
    origin: str,
    *,
    allowed: bool,
    droppable: bool,
) -> None:
    """Refuse rows that lack a value, unless they are allowed."""
    found = {node: mask for node, mask in gaps.items() if mask.any()}
    if allowed or not found:
        return
    empty = next((node for node, mask in found.items() if mask.all()), None)
    if empty is not None:
        raise DataError(
            f"Column {names[empty]!r}{origin}: none of the {len(found[empty]):,} rows has a value. "
            "Give it values, or leave the node out."
        )
    lacking = np.logical_or.reduce(list(found.values()))
    each = [
        f"column {names[node]!r} in {int(mask.sum()):,} (first in row {int(mask.argmax())})"
        for node, mask in found.items()
    ]
    more = f", and {len(each) - _SHOWN} more columns" if len(each) > _SHOWN else ""
    raise DataError(
        f"Values are missing in {int(lacking.sum()):,} of the {len(lacking):,} rows{origin}: "
        f"{', '.join(each[:_SHOWN])}{more}; expected a value in every row. "
        + (
            "Fill them, drop those rows, or give missing='drop' (--missing drop): a fit leaves out, for each "
            "node, the rows that lack it or one of its parents; whatever else looks at rows, all of them."
            if droppable
            else "Fill them, or drop those rows."
        )
    )


def _need(names: Iterable[str], known: Mapping[str, object], what: str) -> None:
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            raise DataError(f"{what} lack the column {name!r}.{hint} Columns: {', '.join(map(str, known))}.")


def _fill(
    values: object, variable: Variable, where: str, partial: bool
) -> tuple[object, NDArray[np.bool_] | None]:
    """The column with some value in each gap, and which rows these are; None where every row has a value."""
    if isinstance(variable, Image) and isinstance(values, np.ma.MaskedArray):
        values = list(values)  # a row that is masked whole has no value
    if isinstance(variable, Image) and not isinstance(values, (list, tuple)):
        return values, None
    try:
        filled = fill_gaps(variable, cast(object, values), where=where, partial=partial)
    except DomainError as error:
        raise DataError(str(error)) from error
    return (values, None) if filled is None else filled


def _check(values: object, variable: Variable, where: str, folder: Path | None) -> NDArray[Any]:
    try:
        if not isinstance(variable, Image):
            return variable.encode(values, where=where)
        if _holds_pictures(values):
            values = picture_column(cast(Sequence[object], values), variable, column=where, folder=folder)
        pixels = variable.pixels(values, where=where)
        if pixels.dtype == np.uint8:
            # The caller's memory is the caller's: what they do to it later must not change the table.
            return np.array(pixels, dtype=np.uint8, order="C")
        return variable.encode(values, where=where)
    except DomainError as error:
        raise DataError(str(error)) from error


def _is_empty(values: object) -> bool:
    shape = getattr(values, "shape", None)
    return shape[:1] == (0,) if shape is not None else isinstance(values, (list, tuple)) and not values


def _holds_pictures(values: object) -> bool:
    """Whether the items are pictures, files or paths, rather than arrays of pixels; judged by the first."""
    single = getattr(values, "ndim", 1) == 0
    if single or not isinstance(values, (list, tuple, np.ndarray)) or len(values) == 0:
        return False
    first: object = values[0]
    return is_picture(first) or isinstance(first, (bytes, str, os.PathLike))
