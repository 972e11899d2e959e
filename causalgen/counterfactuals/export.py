"""Saving results: as tables (CSV, DataFrame), as folders with pictures and as JSON.

A saved result is a folder (``saving.manifest``):

    values.csv       a line a row (and sample); images by their path, so that ``read_data`` reads it back
    <node>/0003.png  images, numbered by row (of several samples: 0003-02.png is row 3, sample 2); as .npy
                     where no PNG holds them
    readings.csv     of images: what the model's own predictor reads of their causes, beside what was asked
    summary.csv      of several samples: mean, spread and quantiles of numbers, probabilities of categories
    factual/         what was observed, in the same form; a cell is empty where nothing was
    inferred/        where evidence has gaps: the values drawn in these, and their summary
    picture.png      what ``plot`` draws
    result.json      nodes, rows, samples, seed, do, values; of every node and row the provenance, and whether
                     its evidence was "observed", "exact" (computed from what was, without noise),
                     "inferred" or drawn from the "prior"; "draws" a row, and whether the values are
                     "determined", so that another seed would give no others; what the model's own predictor,
                     no independent judge, reads in the images

Labels stand in the tables as they are declared, or they would not be read back: one such as "=1+1" is a
formula to a spreadsheet that opens the file as it is. Import its columns as text there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image as PILImage

from causalgen.arguments import as_path
from causalgen.counterfactuals.summaries import (
    CounterfactualLike,
    DrawsLike,
    is_counterfactual,
    summarise,
    summarise_inferred,
)
from causalgen.data.frames import number_names
from causalgen.saving.manifest import check_result_folder, write_result
from graphs.variables import Categorical, Image, Integer, Variable, table_variables
from graphs.variables.arrays import as_array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "describe_draws",
    "evidence_files",
    "figure_png",
    "figure_svg",
    "free_name",
    "image_ending",
    "image_file",
    "save_draws",
    "summary_files",
    "table_files",
    "to_frame",
    "to_png",
]


def to_frame(draws: DrawsLike) -> pd.DataFrame:
    """The nodes that are no images as a table, with the index of the evidence.

    Categories stand as their labels, a node of k numbers as columns ``node_0`` .. ``node_{k-1}``, or
    ``node[0]`` .. where another node has such a name; with S samples the index is (sample, row). A level
    that is called like a node is ``row_index`` and the like.
    """
    return _frames(dict(draws), draws.variables, draws, draws.samples)


def to_png(image: NDArray[np.floating[Any]]) -> bytes:
    """A PNG of an image (C, H, W) in [0, 1]; channels that are no colours stand side by side."""
    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    colours = len(pixels) in (2, 3, 4)  # two are grey and alpha
    buffer = BytesIO()
    PILImage.fromarray(np.moveaxis(pixels, 0, -1) if colours else np.hstack(list(pixels))).save(buffer, "PNG")
    return buffer.getvalue()


def image_ending(variable: Image) -> str:
    """Of its file: ".npy" where no PNG holds the image, of more than four channels or a declared range."""
    return ".png" if variable.range is None and variable.channels <= 4 else ".npy"


def image_file(image: NDArray[np.floating[Any]], variable: Image) -> bytes:
    """A file that is read back as this image (C, H, W) in [0, 1]: to 8 bits, with a range to all bits."""
    if image_ending(variable) == ".png":
        return to_png(image)
    if variable.range is None:
        array = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    else:
        low, high = variable.range
        array = np.clip(low + np.clip(image, 0, 1).astype(np.float64) * (high - low), low, high)
    buffer = BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def figure_png(figure: Figure) -> bytes:
    """A PNG of a figure."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150, facecolor="white")
    return buffer.getvalue()


def figure_svg(figure: Figure) -> bytes:
    """A figure as SVG, its text drawn as shapes; equal figures are equal bytes."""
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None})
    text = buffer.getvalue().decode()
    # matplotlib salts its names at random, unless a setting of the whole process says how: they are numbered.
    names = dict.fromkeys(re.findall(r'\bid="([a-z][0-9a-f]{10})"', text))
    numbers = {name: f"n{number}" for number, name in enumerate(names)}
    return re.sub(r"\b[a-z][0-9a-f]{10}\b", lambda found: numbers.get(found[0], found[0]), text).encode()


def save_draws(draws: DrawsLike, folder: Path | str) -> Path:
    """Write a result to a folder that is new, empty, or holds an earlier result, all or nothing."""
    as_path(folder, "save: folder")
    check_result_folder(folder)  # before the work
    return write_result(folder, _files(draws), describe_draws(draws))


def describe_draws(draws: DrawsLike) -> dict[str, Any]:
    """What ``result.json`` says, as plain values."""
    metadata: dict[str, Any] = {
        "nodes": {node: variable.describe() for node, variable in draws.variables.items()},
        "rows": draws.rows,
        "samples": draws.samples,
        "seed": draws.seed,
    }
    if draws.index is not None:
        metadata["index"] = [str(name) for name in draws.index]
    if is_counterfactual(draws):
        metadata["do"] = dict(draws.do)
        metadata["draws"] = draws.samples or 1
        metadata["determined"] = all(bool(known.all()) for known in draws.determined.values())
        metadata["factual"] = _plain(draws.factual, draws.variables)
        metadata["inferred"] = _plain_inferred(draws)
        metadata["sources"] = {node: list(values) for node, values in draws.sources.items()}
        metadata["readings"] = draws.readings.describe()
    metadata["values"] = _plain(dict(draws), draws.variables)
    metadata["provenance"] = {node: list(values) for node, values in draws.provenance.items()}
    return metadata


def table_files(
    draws: DrawsLike, part: Literal["values", "factual", "inferred"] = "values"
) -> Iterator[tuple[str, bytes]]:
    """``values.csv`` and the images it names: of the result, or of the evidence behind it.

    Of ``factual`` a gap is an empty cell; of ``inferred`` only rows with a gap are written, and what was
    observed in them is an empty cell.
    """
    values: Mapping[str, Any] = dict(draws) if part == "values" else getattr(draws, part)
    samples = None if part == "factual" else draws.samples
    variables = {node: variable for node, variable in draws.variables.items() if node in values}
    table = _frames(values, variables, draws, samples)
    shown = {node: np.ones(draws.rows, dtype=np.bool_) for node in variables}
    if is_counterfactual(draws) and part != "values":
        sources = draws.sources
        shown = {node: (sources[node] == "observed") == (part == "factual") for node in variables}
    for node, variable in variables.items():
        if not isinstance(variable, Image):
            continue
        names: list[str] = []
        for sample in range(samples or 1):
            images = values[node] if samples is None else values[node][sample]
            suffix = "" if samples is None else f"-{sample:02d}"
            for row in range(draws.rows):
                names.append(f"{node}/{row:04d}{suffix}{image_ending(variable)}" if shown[node][row] else "")
                if names[-1]:
                    yield names[-1], image_file(as_array(images[row], where="Values"), variable)
        table[node] = names
    if part == "inferred":
        table = _where(table, variables, shown, samples or 1)
    # A nameless index would be read back as a column without a name, one named like a node as the node.
    taken = list(table.columns)
    for level, name in enumerate(table.index.names):
        default = f"row_{level}" if level else "row"
        taken.append(free_name(default if name is None else str(name), taken))
    table.index.names = taken[len(table.columns) :]
    yield "values.csv", table.to_csv().encode()


def _files(draws: DrawsLike) -> Iterator[tuple[str, bytes]]:
    yield from table_files(draws)
    if is_counterfactual(draws):
        yield from summary_files(draws)
        yield from evidence_files(draws)
    yield "picture.png", figure_png(draws.plot())


def summary_files(cf: CounterfactualLike) -> Iterator[tuple[str, bytes]]:
    """``summary.csv`` of several samples, and ``readings.csv`` of images; nothing where there are none."""
    if cf.samples is not None and table_variables(cf.variables):
        yield "summary.csv", summarise(cf).to_csv().encode()
    if readings := cf.readings:
        yield "readings.csv", readings.to_frame().to_csv().encode()


def evidence_files(cf: CounterfactualLike) -> Iterator[tuple[str, bytes]]:
    """``factual/`` and, where the evidence has gaps, ``inferred/``."""
    yield from ((f"factual/{name}", data) for name, data in table_files(cf, "factual"))
    if inferred := cf.inferred:
        yield from ((f"inferred/{name}", data) for name, data in table_files(cf, "inferred"))
        if table_variables({node: cf.variables[node] for node in inferred}):
            yield "inferred/summary.csv", summarise_inferred(cf).to_csv().encode()


def _frames(
    values: Mapping[str, Any], variables: Mapping[str, Variable], draws: DrawsLike, samples: int | None
) -> pd.DataFrame:
    """The nodes that are no images; below each other, sample by sample, where there are samples."""
    if samples is None:
        return _frame(values, variables, draws.index, draws.rows)
    arrays = {node: as_array(values[node], where="Values") for node in table_variables(variables)}
    frames = [
        _frame({node: array[k] for node, array in arrays.items()}, variables, draws.index, draws.rows)
        for k in range(samples)
    ]
    taken = [*frames[0].columns, *frames[0].index.names]
    return pd.concat(frames, keys=range(samples), names=[free_name("sample", taken)])


def _where(
    table: pd.DataFrame, variables: Mapping[str, Variable], shown: Mapping[str, NDArray[np.bool_]], times: int
) -> pd.DataFrame:
    """The rows in which some node is shown, with empty cells for the others."""
    for node, mask in shown.items():
        image = isinstance(variables[node], Image)
        for column in [node] if image else number_names(node, variables[node], variables):
            values = table[column]
            whole = values.astype("Int64") if values.dtype.kind == "i" else values  # floats would have ".0"
            table[column] = whole.where(np.tile(mask, times))
    return table.loc[np.tile(np.any(list(shown.values()), axis=0), times)]


def _frame(
    values: Mapping[str, Any], variables: Mapping[str, Variable], index: pd.Index | None, rows: int
) -> pd.DataFrame:
    columns: dict[str, Any] = {}
    for node in table_variables(variables):
        array = as_array(values[node], where="Values")
        if shape := variables[node].event_shape:
            parts = array.reshape(rows, prod(shape))
            names = number_names(node, variables[node], variables)
            columns |= {name: parts[:, part] for part, name in enumerate(names)}
        else:
            columns[node] = _whole(array) if isinstance(variables[node], Categorical | Integer) else array
    own = pd.RangeIndex(rows, name="row") if index is None else index.copy()
    levels = list(own.names)
    for level, name in enumerate(levels):
        if name in columns:
            levels[level] = free_name(name, {*columns, *levels})
    own.names = levels
    return pd.DataFrame(columns, index=own)


def free_name(name: Any, taken: Iterable[object]) -> Any:
    """The name, or where a column has it another one."""
    names = list(taken)
    while name in names:
        name = f"{name}_index"
    return name


def _whole(array: NDArray[Any]) -> Any:
    """Whole numbers with gaps, which numpy holds as floats, as pandas' integers with NA."""
    return pd.Series(array).astype("Int64").array if array.dtype.kind == "f" else array


def _plain(values: Mapping[str, Any], variables: Mapping[str, Variable]) -> dict[str, Any]:
    """Lists of numbers and labels, None for gaps."""
    return {
        node: _listed(as_array(values[node], where="Values"), variables[node])
        for node in table_variables(variables)
    }


def _plain_inferred(cf: CounterfactualLike) -> dict[str, Any]:
    """Lists of what was drawn, None where a row was observed."""
    inferred, sources = cf.inferred, cf.sources
    found: dict[str, Any] = {}
    for node in table_variables({node: cf.variables[node] for node in inferred}):
        values = as_array(inferred[node], where="Values").astype(object)
        rows = values if cf.samples is None else values.swapaxes(0, 1)
        rows[sources[node] == "observed"] = None
        found[node] = values.tolist()
    return found


def _listed(array: NDArray[Any], variable: Variable) -> Any:
    if array.dtype.kind != "f" or not (gaps := np.isnan(array)).any():
        return array.tolist()
    filled = array.astype(object)
    if isinstance(variable, Categorical | Integer):
        filled[~gaps] = array[~gaps].astype(int)
    filled[gaps] = None
    return filled.tolist()
