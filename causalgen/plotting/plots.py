"""Plots of counterfactuals and samples as rows of images, in matplotlib without pyplot's global state.

Images stand in labelled rows, what was observed above what would have been; tables are in ``value_plots``.
Where the evidence lacks an image its place is empty, and the images drawn for it stand in rows of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from causalgen.counterfactuals.results import Counterfactual, Draws
from causalgen.counterfactuals.summaries import evidence_texts, value_text
from causalgen.plotting.graph_plots import plot_graph
from causalgen.plotting.plot_style import ACCENT, FAINT, INK, SOFT, fitted, literal, text_width
from causalgen.plotting.value_plots import plot_values
from graphs.variables import Image, image_variables
from graphs.variables.arrays import as_array

__all__ = ["caption", "plot_draws", "plot_graph", "plot_image_rows", "plot_worlds"]

_GAP, _LINE, _BREAK = 0.08, 0.13, 0.2
"""Inches: between images, a line of a caption, and between the observed rows and the others."""

_MOST_SAMPLES = 8

_LABEL_LETTERS, _LABEL_SIZE, _CAPTION_SIZE = 30, 9, 6.5

Images = NDArray[np.floating[Any]]
"""(N, C, H, W) in [0, 1]."""


@literal
def plot_draws(draws: Draws, rows: int = 8) -> Figure:
    """A picture of a result: of the images of at most ``rows`` rows, else of the values."""
    if any(isinstance(variable, Image) for variable in draws.variables.values()):
        return plot_worlds({_label(draws, rows): draws}, rows)
    return plot_values(draws, rows)


@literal
def plot_image_rows(
    rows: Mapping[str, Images],
    marks: Mapping[str, Sequence[bool]] | None = None,
    title: str = "",
    size: float | None = None,
    *,
    captions: Mapping[str, Sequence[str]] | None = None,
    observed: int = 1,
    absent: Mapping[str, str] | None = None,
) -> Figure:
    """Images (N, C, H, W) in [0, 1] in labelled rows; the first ones stand apart, as what was observed.

    By label ``marks`` says which images are framed, ``captions`` what stands in small print below each,
    perhaps of several lines, ``absent`` what stands in the place of an image that is all NaN. ``size`` is the
    width of an image in inches; by the number of its pixels where None.
    """
    marks, captions, absent = marks or {}, captions or {}, absent or {}
    widest = max(images.shape[-1] for images in rows.values())
    size = size if size is not None else min(max(0.6, widest / 110), 1.8)
    labels = {label: "\n".join(wrap(label, _LABEL_LETTERS)) for label in rows}
    left = 0.25 + max(text_width(line, _LABEL_SIZE) for text in labels.values() for line in text.split("\n"))
    tops, height = _tops(rows, captions, labels, size, observed, top=0.34 if title else 0.1)
    told = {line for texts in captions.values() for text in texts for line in text.split("\n")}
    # Captions stand side by side: columns are as wide as the widest of them.
    column_width = max(size, *(text_width(line, _CAPTION_SIZE) + 0.04 for line in told), 0.0)
    width = left + max(map(len, rows.values())) * (column_width + _GAP) + 0.02
    width = max(width, text_width(title, 10) + 0.2)
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    for (label, images), top in zip(rows.items(), tops, strict=True):
        tall = size * images.shape[-2] / images.shape[-1]
        axes.text(
            left - 0.12, top + max(tall, _label_height(labels[label])) / 2, labels[label],
            ha="right", va="center", fontsize=_LABEL_SIZE, color=INK,
        )  # fmt: skip
        for column, image in enumerate(images):
            x = left + column * (column_width + _GAP) + (column_width - size) / 2
            if np.isnan(image).all():
                if why := absent.get(label):
                    axes.add_patch(Rectangle((x, top), size, tall, fill=False, edgecolor=SOFT, linestyle=":"))
                    axes.text(
                        x + size / 2, top + tall / 2, why,
                        ha="center", va="center", fontsize=_CAPTION_SIZE, color=FAINT,
                    )  # fmt: skip
            else:
                marked = column < len(m := marks.get(label, ())) and m[column]
                _draw_image(axes, image, x, top, size, tall, marked=marked)
            if column < len(said := captions.get(label, ())) and said[column]:
                axes.text(
                    x + size / 2, top + tall + 0.04, said[column],
                    ha="center", va="top", fontsize=_CAPTION_SIZE, color=FAINT, linespacing=1.15,
                )  # fmt: skip
    if 0 < observed < len(rows):
        y = tops[observed] - (_BREAK + _GAP) / 2
        axes.plot([left, width - _GAP - 0.02], [y, y], color=SOFT, linewidth=0.8)
    if title:
        axes.text(0.1, 0.1, title, fontsize=10, va="top", color=INK)
    # Last, since every imshow sets them: inches from the upper left corner.
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    return figure


def _tops(
    rows: Mapping[str, Images],
    captions: Mapping[str, Sequence[str]],
    labels: Mapping[str, str],
    size: float,
    observed: int,
    top: float,
) -> tuple[list[float], float]:
    """Upper edge of each row, and the height of the picture."""
    tops: list[float] = []
    for number, (label, images) in enumerate(rows.items()):
        top += _BREAK if number == observed and number else 0.0
        tops.append(top)
        lines = max((text.count("\n") + 1 for text in captions.get(label, ()) if text), default=0)
        tall = size * images.shape[-2] / images.shape[-1] + lines * _LINE
        top += max(tall, _label_height(labels[label])) + _GAP
    return tops, top + 0.02


def _label_height(text: str) -> float:
    return (text.count("\n") + 1) * 0.15


def _draw_image(
    axes: Axes, image: Images, x: float, top: float, size: float, tall: float, *, marked: bool
) -> None:
    # Channels that are no colours stand side by side.
    pixels = np.moveaxis(image, 0, -1) if len(image) in (3, 4) else np.hstack(list(image))
    axes.imshow(
        pixels,
        extent=(x, x + size, top + tall, top),
        cmap="gray",
        vmin=0,
        vmax=1,
        interpolation="auto",
        aspect="auto",
    )
    if marked:
        axes.add_patch(
            Rectangle(
                (x - 0.015, top - 0.015),
                size + 0.03,
                tall + 0.03,
                fill=False,
                edgecolor=ACCENT,
                linewidth=1.1,
            )
        )


@literal
def plot_worlds(worlds: Mapping[str, Draws], rows: int = 8) -> Figure:
    """The images of several results about the same rows; of counterfactuals the evidence stands above.

    At most so many rows are shown, as columns; a line above says where there are more.
    """
    first = next(iter(worlds.values()))
    shown = min(rows, first.rows)
    nodes = list(image_variables(first.variables))
    scalars = [node for node, variable in first.variables.items() if not variable.event_shape][:4]
    pictures: dict[str, Images] = {}
    captions: dict[str, Sequence[str]] = {}
    if isinstance(first, Counterfactual):
        pictures, captions = _evidence_rows(first, nodes, scalars, shown)
    observed = len(pictures)
    for name, draws in worlds.items():
        varied, do = _varied(draws, shown), getattr(draws, "do", {})
        told = [node for node in scalars if node not in do or node in varied]
        for sample in _shown_samples(draws):
            number = None if draws.samples is None else sample
            for node in nodes:
                label = _row_label(name, node, nodes, sample, draws)
                values = as_array(draws[node], where=node)
                pictures[label] = (values if number is None else values[number])[:shown]
                said = _captions(draws, told, shown, number)
                read = _reading_captions(draws, node, shown, sample)
                captions[label] = ["\n".join(filter(None, each)) for each in zip(said, read, strict=True)]
    absent = dict.fromkeys(list(pictures)[: len(nodes) if observed else 0], "not\nobserved")
    title = f"the first {shown} of {first.rows:,} rows" if shown < first.rows else ""
    return plot_image_rows(pictures, captions=captions, title=title, observed=observed, absent=absent)


def _evidence_rows(
    cf: Counterfactual, nodes: Sequence[str], scalars: Sequence[str], shown: int
) -> tuple[dict[str, Images], dict[str, Sequence[str]]]:
    """What was observed, then the images that were drawn where nothing was."""
    pictures: dict[str, Images] = {}
    captions: dict[str, Sequence[str]] = {}
    factual, inferred = cf.factual, cf.inferred
    for node in nodes:
        seen = any(image is not None for image in factual[node][:shown])
        label = ("factual" if seen else "evidence") + f" {node}" * (len(nodes) > 1)
        empty = np.full(cf.variables[node].event_shape, np.nan)
        images = [empty if image is None else as_array(image, where=node) for image in factual[node][:shown]]
        pictures[label], captions[label] = np.stack(images), _evidence_captions(cf, scalars, shown)
    for node in (node for node in nodes if node in inferred):
        gaps = np.array([image is None for image in factual[node][:shown]])
        if gaps.any():
            for sample in _shown_samples(cf):
                values = as_array(inferred[node], where=node)
                images = (values if cf.samples is None else values[sample])[:shown]
                label = _row_label("inferred", node, nodes, sample, cf)
                pictures[label] = np.where(gaps[:, None, None, None], images, np.nan)
    return pictures, captions


def _evidence_captions(cf: Counterfactual, scalars: Sequence[str], shown: int) -> list[str]:
    """Observed values, and of the others mean and spread of what was inferred."""
    texts, sources = {node: told for node, _, told in evidence_texts(cf, shown)}, cf.sources
    return [
        "\n".join(_evidence_caption(node, texts[node][row], sources[node][row]) for node in scalars)
        for row in range(shown)
    ]


def _shown_samples(draws: Draws) -> range:
    return range(min(draws.samples or 1, _MOST_SAMPLES))


def _row_label(name: str, node: str, nodes: Sequence[str], sample: int, draws: Draws) -> str:
    parts = [name, *[node] * (len(nodes) > 1)]
    if draws.samples is not None:
        parts.append(f"#{sample + 1}" + f" of {draws.samples}" * (draws.samples > _MOST_SAMPLES))
    return " ".join(parts)


def _label(draws: Draws, shown: int) -> str:
    """What a result is of; values that differ from row to row are in the captions."""
    do: Mapping[str, str] = getattr(draws, "do", {})
    varied = _varied(draws, shown)
    asked = ", ".join(node if node in varied else f"{node} = {value}" for node, value in do.items())
    return f"do({asked})" if do else "counterfactual" if hasattr(draws, "factual") else "sample"


def _varied(draws: Draws, shown: int) -> list[str]:
    """Nodes that were set to values that are not all the same."""
    asked = [node for node in getattr(draws, "do", {}) if node in draws.variables]
    scalar = [node for node in asked if not draws.variables[node].event_shape]
    return [node for node in scalar if len(set(_column(draws[node], shown, 0))) > 1]


def _captions(values: Mapping[str, Any], nodes: Sequence[str], shown: int, sample: int | None) -> list[str]:
    columns = {node: _column(values[node], shown, sample) for node in nodes}
    return [
        "\n".join(caption(node, value_text(columns[node][row])) for node in nodes) for row in range(shown)
    ]


def _reading_captions(draws: Draws, node: str, shown: int, sample: int) -> list[str]:
    """What the model itself reads in images made anew: of the causes that were set, else of all it reads."""
    if not isinstance(draws, Counterfactual) or (draws.provenance[node][:shown] == "copied").all():
        return [""] * shown  # nothing to read, which would take its time
    readings = {
        cause: each
        for cause, each in draws.readings.get(node, {}).items()
        if not each.variable.event_shape and each.made[sample, :shown].any()
    }
    told = [cause for cause in readings if cause in draws.do] or list(readings)
    texts = _captions({cause: readings[cause].read for cause in told}, told, shown, sample)
    return [
        f"model reads\n{text}" if told and readings[told[0]].made[sample, row] else ""
        for row, text in enumerate(texts)
    ]


def _evidence_caption(node: str, told: str, source: str) -> str:
    """A name with its value; or with its mean, and below it the spread and where both come from."""
    if source == "observed":
        return caption(node, told)
    value, _, spread = told.partition(" +- ")
    return f"{caption(node, value)}\n" + f"+- {spread} " * bool(spread) + f"({source})"


def caption(node: str, value: str) -> str:
    """A name and its value in a line; long ones are cut, the name first."""
    return f"{fitted(node, _CAPTION_SIZE, 0.7)} {fitted(value, _CAPTION_SIZE, 0.7)}"


def _column(values: Any, shown: int, sample: int | None) -> list[Any]:
    array = as_array(values, where="Values")
    return (array[sample] if sample is not None and array.ndim > 1 else array)[:shown].tolist()
