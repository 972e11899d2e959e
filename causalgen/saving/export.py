"""Results as tables, as folders and as HTML.

A saved result is a folder (``result_folder``):

    values.csv       a line a row (and sample); images by their path, so that ``read_data`` reads it back
    <node>/0003.png  images, numbered by row (of several samples: 0003-02.png is row 3, sample 2)
    factual/         the evidence of a counterfactual, in the same form
    picture.png      what ``plot`` draws
    result.json      nodes, rows, samples, seed, do, values, and the provenance of every node and row
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image as PILImage

from causalgen.data.frames import part_names
from causalgen.saving.result_folder import check_result_folder, write_result
from graphs.arrays import as_array
from graphs.variables import Image, Variable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from causalgen.results import Draws

__all__ = ["describe_draws", "draws_html", "figure_png", "save_draws", "table_files", "to_frame", "to_png"]


def to_frame(draws: Draws) -> pd.DataFrame:
    """The nodes that are no images as a table, with the index of the evidence.

    Categories stand as their labels, a node of shape (k,) as columns ``node_0`` .. ``node_{k-1}``, or
    ``node[0]`` .. where another node has such a name; with S samples the index is (sample, row), or
    ``row_index`` and the like where a node has that name.
    """
    if draws.samples is None:
        return _frame(draws, draws.variables, draws.index, draws.rows)
    values = {node: _array(draws[node]) for node in draws.variables}
    frames = [
        _frame(
            {node: value[sample] for node, value in values.items()}, draws.variables, draws.index, draws.rows
        )
        for sample in range(draws.samples)
    ]
    return pd.concat(frames, keys=range(draws.samples), names=[_free("sample", frames[0].columns)])


def to_png(image: NDArray[np.floating[Any]]) -> bytes:
    """A PNG of an image (C, H, W) in [0, 1]; channels that are no colours stand side by side."""
    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    colours = len(pixels) in (2, 3, 4)  # two are grey and alpha
    buffer = BytesIO()
    PILImage.fromarray(np.moveaxis(pixels, 0, -1) if colours else np.hstack(list(pixels))).save(buffer, "PNG")
    return buffer.getvalue()


def figure_png(figure: Figure) -> bytes:
    """A PNG of a figure."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150, facecolor="white")
    return buffer.getvalue()


def save_draws(draws: Draws, folder: Path | str) -> Path:
    """Write a result to a folder that is new, empty, or holds an earlier result, all or nothing.

    Raises:
        CheckpointError: the folder holds something else, or cannot be written.
    """
    check_result_folder(folder)  # before the work
    return write_result(folder, _files(draws), describe_draws(draws))


def draws_html(draws: Draws) -> str:
    """The picture and the first rows of the table."""
    picture = base64.b64encode(figure_png(draws.plot())).decode()
    table = to_frame(draws).head(8).to_html(border=0) if _tabular(draws.variables) else ""
    return f'<p>{html.escape(repr(draws))}</p><img src="data:image/png;base64,{picture}"/>{table}'


def describe_draws(draws: Draws) -> dict[str, Any]:
    """What ``result.json`` says, as plain values."""
    told: dict[str, Any] = {
        "nodes": {node: variable.describe() for node, variable in draws.variables.items()},
        "rows": draws.rows,
        "samples": draws.samples,
        "seed": draws.seed,
    }
    if draws.index is not None:
        told["index"] = [str(name) for name in draws.index]
    if (do := getattr(draws, "do", None)) is not None:
        told["do"] = dict(do)
        told["factual"] = _plain(draws.factual, draws.variables)  # pyright: ignore[reportAttributeAccessIssue]
    told["values"] = _plain(draws, draws.variables)
    told["provenance"] = {node: list(values) for node, values in draws.provenance.items()}
    return told


def table_files(draws: Draws, *, factual: bool = False) -> Iterator[tuple[str, bytes]]:
    """``values.csv`` and the images it names: of the result, or of the evidence behind it."""
    values: Mapping[str, Any] = draws.factual if factual else draws  # pyright: ignore[reportAttributeAccessIssue]
    samples = None if factual else draws.samples
    table = _frame(values, draws.variables, draws.index, draws.rows) if factual else to_frame(draws)
    for node in (node for node, variable in draws.variables.items() if isinstance(variable, Image)):
        images = _array(values[node])
        names: list[str] = []
        for sample, each in enumerate(images if samples is not None else images[None]):
            for row, image in enumerate(each):
                suffix = "" if samples is None else f"-{sample:02d}"
                names.append(f"{node}/{row:04d}{suffix}.png")
                yield names[-1], to_png(image)
        table[node] = names
    # A nameless index would be read back as a column without a name, one named like a node as the node.
    taken = list(table.columns)
    for level, name in enumerate(table.index.names):
        default = f"row_{level}" if level else "row"
        taken.append(_free(default if name is None else str(name), taken))
    table.index.names = taken[len(table.columns) :]
    yield "values.csv", table.to_csv().encode()


def _files(draws: Draws) -> Iterator[tuple[str, bytes]]:
    yield from table_files(draws)
    if hasattr(draws, "factual"):
        yield from ((f"factual/{name}", data) for name, data in table_files(draws, factual=True))
    yield "picture.png", figure_png(draws.plot())


def _frame(
    values: Mapping[str, Any], variables: Mapping[str, Variable], index: pd.Index | None, rows: int
) -> pd.DataFrame:
    columns: dict[str, NDArray[Any]] = {}
    for node in _tabular(variables):
        array = _array(values[node])
        if shape := variables[node].event_shape:
            parts = array.reshape(rows, prod(shape))
            names = part_names(node, parts.shape[1], variables)
            columns |= {name: parts[:, part] for part, name in enumerate(names)}
        else:
            columns[node] = array
    own = pd.RangeIndex(rows, name=_free("row", columns))
    return pd.DataFrame(columns, index=own if index is None else index.copy())


def _free(name: str, taken: Iterable[object]) -> str:
    """The name, or where a column has it another one."""
    names = list(taken)
    while name in names:
        name += "_index"
    return name


def _tabular(variables: Mapping[str, Variable]) -> list[str]:
    return [node for node, variable in variables.items() if not isinstance(variable, Image)]


def _plain(values: Mapping[str, Any], variables: Mapping[str, Variable]) -> dict[str, Any]:
    return {node: _array(values[node]).tolist() for node in _tabular(variables)}


def _array(values: Any) -> NDArray[Any]:
    return as_array(values, where="Values")
