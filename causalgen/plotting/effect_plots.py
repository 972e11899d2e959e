"""Plots of effects and of posteriors: means with their intervals, probabilities, mean images.

What was observed is grey; what was inferred, blue; effects are in the colour of what is counterfactual.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from causalgen.counterfactuals.missing_evidence.distributions import NodePosterior
from causalgen.counterfactuals.summaries import number_text
from causalgen.effects.effect import Effect
from causalgen.effects.estimates import Estimate
from causalgen.effects.queries import NaturalEffects
from causalgen.plotting.plot_style import ACCENT, FAINT, INFERRED, INK, SOFT, fitted, literal, named_ticks
from causalgen.plotting.plots import plot_image_rows
from graphs.variables import Image

__all__ = ["plot_effect", "plot_natural_effects", "plot_posterior"]

_MOST_LINES, _MOST_PARTS, _MOST_CATEGORIES, _PANELS_A_LINE = 40, 4, 12, 4
_LABEL_WIDTH = 1.8
"""Inches."""

_Ends = tuple[float, float, float, bool]
"""A value, the ends of its interval, and whether all draws agree on it."""


@literal
def plot_effect(effect: Effect) -> Figure:
    """The mean effect with its interval, overall and by group; of a statistic with a shape, each component.

    A mean difference of images is drawn as one.
    """
    shape = np.shape(effect.value)
    title = f"Effect on {effect.target} of {effect.do} against {effect.versus_text}"
    note = f"{100 * effect.confidence:g} % interval of {effect.included}"
    if len(shape) > 1:
        return _differences({"": np.asarray(effect.value)}, title)
    if shape:
        lines = _components("", effect.overall)
    else:
        lines = [(name, _ends(each)) for name, each in [("all", effect.overall), *effect.named]]
    return _intervals(lines, title, note)


@literal
def plot_natural_effects(effects: NaturalEffects) -> Figure:
    """Total, direct and indirect effect, with their intervals; of many numbers the first ones of each."""
    total, parts = effects.total, {"total": effects.total}
    parts |= {"direct": effects.direct, "indirect": effects.indirect}
    title = f"Effect on {total.target} of {total.do} against {total.versus_text}"
    title += f", through {', '.join(effects.through)}"
    if np.ndim(total.value) > 1:
        return _differences({name: np.asarray(each.value) for name, each in parts.items()}, title)
    note = f"{100 * total.confidence:g} % interval of {total.included}"
    if np.ndim(total.value):
        most, size = _MOST_LINES // len(parts), np.size(total.value)
        lines = [line for name, each in parts.items() for line in _components(name, each.overall)[:most]]
        note += f"; of {size:,} numbers the first {most} are drawn" if size > most else ""
    else:
        lines = [(name, _ends(each.overall)) for name, each in parts.items()]
    return _intervals(lines, title, note)


@literal
def plot_posterior(posterior: NodePosterior, rows: int = 8) -> Figure:
    """What is known of a node in each of at most ``rows`` rows.

    Of numbers mean, median and the intervals of 50 % and 90 %; of categories their probabilities; of images
    the mean and the standard deviation of each pixel.
    """
    shown = min(rows, posterior.rows)
    sources = [""] * posterior.rows if posterior.sources is None else posterior.sources
    said = [str(each) for each in sources[:shown]]
    if isinstance(posterior.variable, Image):
        arrays = {
            name: np.clip(each[:shown].cpu().numpy(), 0, 1).reshape(shown, *posterior.variable.shape)
            for name, each in zip(("mean", "sd"), posterior.moments(), strict=True)
        }
        absent, title = {"sd": "one draw"}, f"{posterior.node}"
        return plot_image_rows(arrays, captions={"mean": said}, observed=0, title=title, absent=absent)
    if (found := posterior.shares()) is not None:
        labels, shares = [str(each) for each in found[0]], found[1][:shown].cpu().numpy()
        return _probabilities(posterior, labels, shares, said)
    return _ranges(posterior, shown, np.array([each == "observed" for each in said]))


def _ends(each: Estimate) -> _Ends:
    return float(each.value), float(each.low), float(each.high), bool(each.all_agree)


def _components(name: str, each: Estimate) -> list[tuple[str, _Ends]]:
    """A line for each number of a statistic of shape (k,)."""
    ends = zip(each.value, each.low, each.high, each.all_agree, strict=True)
    return [
        (f"{name}[{k}]", (float(value), float(low), float(high), bool(agree)))
        for k, (value, low, high, agree) in enumerate(ends)
    ]


def _intervals(lines: Sequence[tuple[str, _Ends]], title: str, note: str) -> Figure:
    """A line each, whose names may be equal: point, interval, and both as text; 0, no effect, is marked."""
    names, left = [name for name, _ in lines[:_MOST_LINES]], max(0, len(lines) - _MOST_LINES)
    head, foot = wrap(title, 62), wrap(note + (f"; {left:,} more lines are not drawn" if left else ""), 78)
    tall = 0.26 * len(names) + 0.45
    figure = Figure(figsize=(6.4, tall + 0.19 * len(head) + 0.16 * len(foot) + 0.2), layout="constrained")
    axes = figure.subplots()
    for place, (_, (value, low, high, agree)) in enumerate(lines[:_MOST_LINES]):
        axes.plot([low, high], [place, place], color=ACCENT, linewidth=2, solid_capstyle="butt")
        axes.plot([value], [place], "o", color=ACCENT, markersize=5)
        told, *ends = (number_text(figure, (high - low) / 4) for figure in (value, low, high))
        axes.text(
            1.02, place, f"{told}  [{', '.join(ends)}]" + (", all agree" if agree else ""),
            transform=axes.get_yaxis_transform(), fontsize=8, color=INK, va="center",
        )  # fmt: skip
    axes.axvline(0, color=SOFT, linewidth=0.9, zorder=0)
    _rows(axes, names)
    axes.locator_params(axis="x", nbins=5)
    figure.suptitle("\n".join(head), fontsize=9.5, weight="bold", color=INK, x=0.02, ha="left")
    figure.supxlabel("\n".join(foot), fontsize=7.5, color=FAINT, x=0.02, ha="left")
    return figure


def _differences(parts: Mapping[str, NDArray[Any]], title: str) -> Figure:
    """Mean differences with two or three dimensions as pictures below each other; white is 0.

    Channels stand side by side, and all pictures have one scale.
    """
    pictures = [
        np.hstack(list(each)) if each.ndim == 3 else each.reshape(len(each), -1) for each in parts.values()
    ]
    most = max(float(np.abs(each).max()) for each in pictures) or 1.0
    head = wrap(title, 44)
    figure = Figure(figsize=(4.4, 2.7 * len(parts) + 0.19 * len(head)), layout="constrained")
    panels = figure.subplots(len(parts), 1, squeeze=False)[:, 0]
    for axes, name, picture in zip(panels, parts, pictures, strict=True):
        drawn = axes.imshow(picture, cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(name, fontsize=8, color=FAINT, loc="left")
        figure.colorbar(drawn, ax=axes, shrink=0.9).ax.tick_params(labelsize=8)
    figure.suptitle("\n".join(head), fontsize=9.5, weight="bold", color=INK, x=0.02, ha="left")
    return figure


def _ranges(posterior: NodePosterior, shown: int, seen: NDArray[np.bool_]) -> Figure:
    mean = posterior.moments()[0].cpu().numpy()
    levels = {level: posterior.quantile(level).cpu().numpy() for level in (0.05, 0.25, 0.5, 0.75, 0.95)}
    parts = range(min(mean.shape[1], _MOST_PARTS))
    names = [fitted(name, 8, _LABEL_WIDTH) for name in posterior.row_names[:shown]]
    figure = _canvas(len(parts), len(parts), 0.26 * shown + 0.75, width=3.4)
    unit = getattr(posterior.variable, "unit", "")
    for part, axes in zip(parts, figure.axes, strict=True):
        for row in range(shown):
            at = {level: each[row, part] for level, each in levels.items()}
            colour = FAINT if seen[row] else INFERRED
            if not seen[row]:
                axes.plot([at[0.05], at[0.95]], [row, row], color=colour, linewidth=1)
                axes.plot(
                    [at[0.25], at[0.75]], [row, row], color=colour, linewidth=3.5, solid_capstyle="butt"
                )
                axes.plot([at[0.5]], [row], "|", color=colour, markersize=9)
            axes.plot([mean[row, part]], [row], "s" if seen[row] else "o", color=colour, markersize=4.5)
        _rows(axes, names)
        axes.locator_params(axis="x", nbins=4)
        name = f"{posterior.node}[{part}]" if mean.shape[1] > 1 else posterior.node
        axes.set_title(fitted(name, 9.5, 2.6, bold=True), fontsize=9.5, weight="bold", color=INK, loc="left")
        axes.set_xlabel(fitted(unit, 8, 3.0), fontsize=8, color=FAINT)
    looks = [("observed", "s", FAINT)] if seen.any() else []
    looks += [] if seen.all() else [("inferred", "o", INFERRED)]
    marks = [figure.axes[0].plot([], [], mark, color=colour, markersize=4.5)[0] for _, mark, colour in looks]
    told = {"inferred": "not observed: mean, median, 50 % and 90 %", "observed": "observed"}
    figure.legend(
        marks, [told[name] for name, _, _ in looks], loc="outside lower left", ncols=2, fontsize=7.5,
        frameon=False, labelcolor=FAINT, handletextpad=0.2,
    )  # fmt: skip
    return figure


def _probabilities(
    posterior: NodePosterior, labels: Sequence[str], shares: NDArray[np.floating[Any]], said: Sequence[str]
) -> Figure:
    order: list[int] = np.argsort(-shares.max(0), kind="stable").tolist()
    likely = sorted(order[:_MOST_CATEGORIES])  # the ones that matter, in their own order
    more = len(order) - len(likely)
    left = f"; {more:,} less likely ones are not drawn" if more else ""
    names = [fitted(labels[code], 8, _LABEL_WIDTH) for code in likely]
    columns = min(_PANELS_A_LINE, len(shares))
    figure = _canvas(len(shares), columns, 0.2 * len(likely) + 0.6, width=1.9)
    for row, axes in enumerate(figure.axes[: len(shares)]):
        colour = SOFT if said[row] == "observed" else INFERRED
        axes.barh(range(len(likely)), shares[row, likely], color=colour, height=0.7)
        _rows(axes, names if row % columns == 0 else [""] * len(names))
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.5, 1])
        name = fitted(posterior.row_names[row], 9, 0.9, bold=True)
        axes.set_title(name, fontsize=9, weight="bold", color=INK, loc="left")
        axes.set_title(said[row], fontsize=8, color=FAINT, loc="right")
    head = fitted(f"probability of {posterior.node}, by row{left}", 9.5, 1.9 * columns + 0.4, bold=True)
    figure.suptitle(head, fontsize=9.5, weight="bold", color=INK, x=0.02, ha="left")
    return figure


def _canvas(panels: int, columns: int, tall: float, *, width: float) -> Figure:
    lines = ceil(panels / columns)
    figure = Figure(
        figsize=(width * columns + 0.8, tall * lines + 0.35),
        layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06),
    )
    for axes in figure.subplots(lines, columns, squeeze=False).flat[panels:]:
        axes.set_axis_off()
    return figure


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """Names at the left, the first one above, lines to follow."""
    named_ticks(axes.yaxis, range(len(names)), [fitted(name, 8, _LABEL_WIDTH) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(SOFT)
    axes.grid(axis="y", color="#eceef1", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0, labelsize=8, labelcolor=INK)
    axes.tick_params(axis="x", labelsize=8, color=SOFT, labelcolor=INK)
