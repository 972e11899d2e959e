"""Colours, measures and texts that all pictures share."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, wraps
from typing import TYPE_CHECKING, Any, ParamSpec

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.textpath import TextPath
from matplotlib.ticker import FixedFormatter

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = [
    "ACCENT",
    "FAINT",
    "INFERRED",
    "INK",
    "SOFT",
    "fitted",
    "literal",
    "named_ticks",
    "page_template",
    "text_width",
]

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


def named_ticks(axis: Axis, places: Sequence[float], names: Sequence[str]) -> None:
    """Ticks with these names at these places.

    Not by ``set_xticks`` with labels: that changes the warning filters for a moment, which are those of all
    threads.
    """
    axis.set_ticks(places)
    axis.set_major_formatter(FixedFormatter(names))


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


@cache
def page_template(package: str, folder: str, name: str, **filters: Callable[[Any], str]) -> Template:
    """A template in a package's folder; it may write bytes by the filter ``base64``, and has further ones."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package, folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"base64": lambda data: b64encode(data).decode(), **filters}
    return environment.get_template(name)
