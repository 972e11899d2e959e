"""Colours, measures and texts that all pictures share."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.textpath import TextPath

__all__ = ["ACCENT", "FAINT", "INFERRED", "INK", "SOFT", "fitted", "literal", "text_width"]

INK, FAINT, SOFT, ACCENT, INFERRED = "#1f2430", "#6b7280", "#a3a9b5", "#c8452f", "#3b6ea8"
"""Of text, of small print, of what was observed, of what is counterfactual, of what was inferred."""

_P = ParamSpec("_P")


@lru_cache(4096)
def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Width of a line of text in inches, at a font size in points."""
    if not text.strip():
        return 0.0
    font = FontProperties(weight="bold" if bold else "normal")
    plain = text.replace("$", r"\$")
    return TextPath((0, 0), plain, size=size, prop=font).get_extents().width / 72


def fitted(text: str, size: float, width: float, *, bold: bool = False) -> str:
    """As much of a line of text as a width in inches holds, with an ellipsis where it is cut."""
    if text_width(text, size, bold=bold) <= width:
        return text
    kept = text[:120]
    while kept and text_width(kept + "…", size, bold=bold) > width:
        kept = kept[:-1]
    return kept + "…"


def literal(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """A plot whose texts are drawn as they are: "$" in a label begins no formula."""

    @wraps(draw)
    def drawn(*args: _P.args, **options: _P.kwargs) -> Figure:
        figure = draw(*args, **options)
        for text in figure.findobj(Text):
            assert isinstance(text, Text)
            text.set_parse_math(False)
        return figure

    return drawn
