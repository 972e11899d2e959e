"""Sphinx settings; the API page is written from ``causalgen.__all__``.

Docstrings are prose with ``literals``, not reStructuredText: mathematics such as (B, *event) or |x| must
reach the page as it stands, so ``plain_prose`` escapes what Sphinx would take for markup.
"""

import inspect
import re
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version as installed_version
from types import ModuleType

from sphinx.application import Sphinx

project = "causalgen"
author = "The causalgen authors"
copyright = author
version = release = installed_version("causalgen")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "causalgen"
myst_enable_extensions = ["amsmath", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "model_config"}  # pydantic's, not the user's
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

PUBLIC_NAMES = "<!-- public names -->"


def plain_prose(
    _app: Sphinx, _what: str, _name: str, _object: object, _options: object, lines: list[str]
) -> None:
    """Escape reStructuredText markup in a docstring, except in ``literals`` and in examples."""
    in_example = False
    for number, line in enumerate(lines):
        in_example = line.lstrip().startswith(">>>") or (in_example and bool(line.strip()))
        if not in_example:
            parts = re.split(r"(``.*?``)", line)
            parts[::2] = [re.sub(r"[*|`]|_(?=\W|$)", r"\\\g<0>", part) for part in parts[::2]]
            lines[number] = "".join(parts)


def all_ours(value: object) -> bool:
    """Whether it is a class that inherits from classes of this package, and from no others."""
    bases = value.__mro__[1:-1] if inspect.isclass(value) else ()
    return bool(bases) and all(base.__module__.startswith("causalgen.") for base in bases)


def directives(module: str, names: list[str]) -> str:
    """Autodoc directives for public names of a module."""

    def kind(value: object) -> str:
        if inspect.isclass(value):
            return "autoexception" if issubclass(value, Exception) else "autoclass"
        return "autofunction" if callable(value) else "autodata"

    found = import_module(module)
    lines = ["```{eval-rst}"]
    for name in names:
        directive = kind(getattr(found, name))
        lines.append(f".. {directive}:: {module}.{name}")
        lines += ["   :members:"] if directive == "autoclass" else []
        lines += ["   :inherited-members:", ""] if all_ours(getattr(found, name)) else [""]
    return "\n".join([*lines, "```", ""])


def api_sections() -> str:
    """Headings and directives for everything in ``causalgen.__all__``."""
    causalgen = import_module("causalgen")
    public = {name: getattr(causalgen, name) for name in causalgen.__all__}
    modules = {name: value for name, value in public.items() if isinstance(value, ModuleType)}
    others = [name for name in public if name not in modules and not name.startswith("__")]

    def is_error(name: str) -> bool:
        return inspect.isclass(public[name]) and issubclass(public[name], Exception)

    sections = {
        "Models, variables and results": directives("causalgen", [n for n in others if not is_error(n)])
    }
    for name, module in modules.items():
        sections[f"`causalgen.{name}`"] = directives(module.__name__, list(module.__all__))
    sections["Errors"] = directives("causalgen", [name for name in others if is_error(name)])
    return "\n".join(f"## {title}\n\n{body}" for title, body in sections.items())


def write_api(_app: Sphinx, page: str, source: list[str]) -> None:
    """Put the sections where the API page asks for them."""
    if page == "api":
        source[0] = source[0].replace(PUBLIC_NAMES, api_sections())


def setup(app: Sphinx) -> None:
    """Connect the two steps above; prose is escaped before napoleon reads its sections."""
    connect: Callable[..., object] = app.connect
    connect("source-read", write_api)
    connect("autodoc-process-docstring", plain_prose, priority=100)
