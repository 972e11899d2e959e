"""Colours and measures that all pictures share."""

from __future__ import annotations

from functools import cache

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

__all__ = ["ACCENT", "FAINT", "INK", "SOFT", "plain", "text_width"]

INK, FAINT, SOFT, ACCENT = "#1f2430", "#6b7280", "#a3a9b5", "#c8452f"
"""Of text, of small print, of what was observed, of what is counterfactual."""


def plain(text: str) -> str:
    r"""A name, unit or label as matplotlib shows it to the letter: a dollar sign starts no formula.

    >>> plain("$US")
    '\\$US'
    """
    return text.replace("$", r"\$")


@cache
def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Width of a line of text in inches, at a font size in points."""
    if not text.strip():
        return 0.0
    font = FontProperties(weight="bold" if bold else "normal")
    return TextPath((0, 0), plain(text), size=size, prop=font).get_extents().width / 72
